"""Null models: what a statistic would be if nothing of interest were going on.

Each function makes a surrogate of a run from a random generator; `null_band` draws many and puts the run's
own statistic beside them. Which null to take depends on the question:

| surrogate | keeps | asks |
|---|---|---|
| `sphere_walk` | the step angle | is there any pull at all? |
| `matched_walk` | every step's angle and distance from the start | anything beyond step size and drift? |
| `autoregression` | mean, spread and lag-1 correlation per component | anything beyond a linear pull? |
| `gaussian_process` | the run's own D(k) | anything beyond second moments? |
| `shuffled` | the points | does their order matter? |
| `markov_labels`, `markov_path` | transitions of labels, of states | memory beyond the last step? |

Other packages add surrogates by entry points of the group "panic.nulls"; `kinds()` has all that take a run's
vectors.

    band = null_band(lambda x: entropy(diagram(x).bars(0)), vectors, matched_walk)
    band.value, (band.low, band.high), band.p_value
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from math import ceil, floor, sqrt
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray

from panic.analysis.checks import AnalysisError, runs_of_labels, unit, vectors
from panic.analysis.dynamics import transition_matrix
from panic.analysis.plugins import added, performed
from panic.errors import NotFound, nearest

Array = NDArray[np.float64]
Generator = np.random.Generator
Surrogate = Callable[[Any, Generator], Any]
GROUP = "panic.nulls"


@dataclass(frozen=True, slots=True, kw_only=True)
class Band:
    """A statistic (scalar or curve) and where `level` of its surrogates lie.

    `p_value` is two-sided and per element: twice the smaller share of surrogates at or beyond the value,
    the value among them. For a curve, correct for looking at all of it (`statistics.adjust`).
    """

    value: Array
    low: Array
    high: Array
    mean: Array
    p_value: Array
    draws: Array
    level: float

    @property
    def is_outside(self) -> NDArray[np.bool_]:
        """Where the value leaves the band."""
        outside: NDArray[np.bool_] = (self.value < self.low) | (self.value > self.high)
        return outside


def null_band(
    statistic: Callable[[Any], Any],
    data: Any,
    surrogate: Surrogate,
    *,
    num_surrogates: int = 200,
    level: float = 0.95,
    seed: int = 0,
) -> Band:
    """`statistic(data)` against its values on surrogates of the data, (num_surrogates, ...).

    The band goes from the k-th least to the k-th largest draw, k = floor(tail (num_surrogates + 1)) with half
    of 1 - level as the tail: a value exchangeable with the draws is above it with a chance of k /
    (num_surrogates + 1), at most the tail, and as often below. What is outside has `p_value` <= 1 - level,
    and nothing else has.
    What is drawn depends on the seed and on the data, so that runs have draws of their own: where all shared
    those of one seed, one unlucky set of 39 put 4.8 % of 600 random walks above bands for 2.5 %.
    AnalysisError for too few surrogates of such a level, for data that are objects, and when the statistic is
    NaN on the data, or on a surrogate (then it is no fair null).
    """
    if not 0 < level < 1:
        raise AnalysisError(f"a level is between 0 and 1: {level}")
    tail = round((1 - level) / 2, 12)  # 0.025 to the bit: 39 are enough of it
    rank = floor(tail * (num_surrogates + 1) + 1e-9)
    if rank < 1:
        raise AnalysisError(
            f"a level of {level:g} takes {ceil(1 / tail - 1e-9) - 1} surrogates or more: {num_surrogates}"
        )
    rng = np.random.default_rng([seed, _number_of(data)])
    value = np.asarray(statistic(data), dtype=np.float64)
    draws = np.array([statistic(surrogate(data, rng)) for _ in range(num_surrogates)], dtype=np.float64)
    if np.isnan(value).any() or np.isnan(draws).any():
        raise AnalysisError("the statistic is NaN on the data or on a surrogate", hint="leave those lags out")
    ordered = np.sort(draws, axis=0)
    low, high = ordered[rank - 1], ordered[-rank]
    above, below = (draws >= value).sum(axis=0), (draws <= value).sum(axis=0)
    p = np.minimum(1.0, 2 * (1 + np.minimum(above, below)) / (1 + num_surrogates))
    return Band(
        value=value,
        low=low,
        high=high,
        mean=draws.mean(axis=0),
        p_value=np.asarray(p),
        draws=draws,
        level=level,
    )


def _number_of(data: Any) -> int:
    """A number of an array's values, or of several arrays': always the same, and another for others.

    AnalysisError for an array of objects, whose bytes are pointers.
    """
    digest = hashlib.sha256()
    for part in data if isinstance(data, list | tuple) else [data]:
        values = np.ascontiguousarray(part)
        if values.dtype.hasobject:
            raise AnalysisError("surrogates are of numbers or texts, and the data are objects")
        digest.update(values.tobytes())
    return int.from_bytes(digest.digest()[:8])


def null_table(
    runs: Sequence[tuple[int, Any]],
    statistic: Callable[[Any], float],
    surrogate: Surrogate,
    *,
    max_runs: int = 12,
    num_surrogates: int = 39,  # the least that 97.5 % can be said of
) -> pl.DataFrame:
    """`null_band` of each of at most `max_runs` runs (run, data): x (its name), value, low, high, mean, run.

    The runs are evenly chosen.
    """
    chosen = [runs[i] for i in np.unique(np.linspace(0, len(runs) - 1, max_runs).round().astype(int))]
    rows = []
    for run, of_run in chosen:
        band = null_band(statistic, of_run, surrogate, num_surrogates=num_surrogates)
        figures = (float(number) for number in (band.value, band.low, band.high, band.mean))
        rows.append((f"run {run}", *figures, run))
    return pl.DataFrame(rows, ["x", "value", "low", "high", "mean", "run"], orient="row")


def sphere_walk(
    num_steps: int, dimension: int, angle: float, rng: Generator, *, start: ArrayLike | None = None
) -> Array:
    """Isotropic walk (num_steps, dimension) on the unit sphere that turns by `angle` (radians) every step.

    E<x_0, x_k> = cos(angle)^k.
    """
    if dimension < 2 or num_steps < 0:
        raise AnalysisError(f"a walk needs 2 dimensions and 0 steps or more, found {dimension}, {num_steps}")
    points = np.empty((num_steps, dimension))
    if not num_steps:
        return points
    points[0] = unit(rng.normal(size=(1, dimension)) if start is None else [np.asarray(start)])[0]
    for step in range(1, num_steps):
        aside = _rejected(unit(rng.normal(size=(1, dimension)))[0], points[step - 1])
        points[step] = np.cos(angle) * points[step - 1] + np.sin(angle) * aside
        points[step] /= np.linalg.norm(points[step])
    return points


def walk_like(values: ArrayLike, rng: Generator) -> Array:
    """`sphere_walk` from the run's own start, as long, with its root mean square step."""
    points = unit(values)
    if len(points) < 2:
        return points.copy()
    cosine = float(np.clip((points[:-1] * points[1:]).sum(axis=1).mean(), -1, 1))
    return sphere_walk(len(points), points.shape[1], float(np.arccos(cosine)), rng, start=points[0])


def matched_walk(values: ArrayLike, rng: Generator) -> Array:
    """Walk (n, d) on the sphere with the run's own angle of every step and distance from the start.

    Each step's components along the start and along the last point are the run's; what is left of it points
    in a random direction. Needs d > 2; AnalysisError otherwise.
    """
    points = unit(values)
    if len(points) < 2:
        return points.copy()
    if points.shape[1] < 3:
        raise AnalysisError(f"a matched walk needs 3 coordinates or more, found {points.shape[1]}")
    start, along, beside, rest = _parts_of_steps(points)
    walk = np.empty_like(points)
    walk[0] = start
    directions = rng.normal(size=(len(points) - 1, len(start)))
    for step in range(1, len(points)):
        other = _rejected(walk[step - 1], start)
        direction = directions[step - 1]
        direction -= (direction @ start) * start + (direction @ other) * other
        made = along[step - 1] * start + beside[step - 1] * other
        made += rest[step - 1] * direction / sqrt(direction @ direction)
        walk[step] = made / sqrt(made @ made)
    return walk


def _parts_of_steps(points: Array) -> tuple[Array, Array, Array, Array]:
    """The start of unit vectors (n, d), and of every later one: its length along the start, along what the
    one before it has beside the start, and of the rest (n - 1 each)."""
    start, after = points[0], points[1:]
    others = _rejected(points[:-1], start)
    along, beside = after @ start, (after * others).sum(axis=1)
    rest = np.linalg.norm(after - along[:, None] * start - beside[:, None] * others, axis=1)
    return start, along, beside, rest


def _rejected(vector: Array, start: Array) -> Array:
    """The direction of what a unit vector (d,), or each of several (n, d), has beside another; else zeros."""
    for _ in range(2):  # once more, because the first difference of near vectors is mostly rounding
        vector = vector - np.multiply.outer(vector @ start, start)
        if vector.ndim == 1:  # without what arrays cost: walks ask for one vector after the other
            length = sqrt(vector @ vector)
            vector = vector / length if length >= 1e-9 else np.zeros_like(vector)
        else:
            lengths = np.linalg.norm(vector, axis=1, keepdims=True)
            vector = np.where(lengths >= 1e-9, vector / np.maximum(lengths, 1e-9), 0.0)
    return vector


def autoregression(values: ArrayLike, rng: Generator) -> Array:
    """AR(1) surrogate (n, d), the discrete Ornstein-Uhlenbeck process, fitted per principal component.

    From the run's own start; components are independent of each other. AnalysisError below 4 states.
    """
    points = vectors(values, least=4)
    mean = points.mean(axis=0)
    _, spread, axes = np.linalg.svd(points - mean, full_matrices=False)
    axes = axes[spread > 1e-12 * max(float(spread[0]), np.finfo(float).tiny)]
    scores = (points - mean) @ axes.T
    before, after = scores[:-1], scores[1:]
    rho = (before * after).sum(axis=0) / np.maximum((before**2).sum(axis=0), np.finfo(float).tiny)
    rho = np.clip(rho, -0.999, 0.999)
    noise = np.std(after - rho * before, axis=0)
    made = np.empty_like(scores)
    made[0] = scores[0]
    for step in range(1, len(scores)):
        made[step] = rho * made[step - 1] + noise * rng.normal(size=len(rho))
    return np.asarray(mean + made @ axes)


def gaussian_process(values: ArrayLike, rng: Generator) -> Array:
    """Gaussian surrogate (n, d) with stationary increments and the run's own mean squared D(k).

    From the run's start, isotropic in d dimensions. D(k) and the autocovariance of the increments determine
    each other; that is estimated with the divisor n, which makes it a covariance whatever the run (taking
    D(k) itself and cutting its negative eigenvalues off made D(1) 45 % too large). Long lags are damped.
    """
    points = vectors(values)
    if len(points) < 2:
        return points.copy()
    steps = np.diff(points, axis=0)
    count, dimension = steps.shape
    power = (np.abs(np.fft.rfft(steps, n=2 * count, axis=0)) ** 2).sum(axis=1)
    by_lag = np.fft.irfft(power)[:count] / (count * dimension)
    eigenvalues, axes = np.linalg.eigh(by_lag[np.abs(np.arange(count)[:, None] - np.arange(count)[None, :])])
    moved = (axes * np.sqrt(np.maximum(eigenvalues, 0))) @ rng.normal(size=(count, dimension))
    return np.concatenate([points[:1], points[0] + moved.cumsum(axis=0)])


def shuffled(values: ArrayLike, rng: Generator) -> NDArray[Any]:
    """The same states in random order; the first stays, it is the start."""
    array = np.asarray(values)
    if len(array) < 3:
        return array.copy()
    return np.concatenate([array[:1], rng.permutation(array[1:])])


def markov_labels(labels: Any, rng: Generator, *, num_states: int | None = None) -> NDArray[np.int64]:
    """Order-1 surrogate (n,) of the labels (n,) of one run: its start, length and transitions.

    A state that the run ends in and never left goes on to any state as often as the run has it. Outliers
    (-1) are a state of their own here.
    """
    (run,) = runs_of_labels(labels) or [np.empty(0, dtype=np.int64)]
    if len(run) < 2:
        return run.copy()
    shifted = run + 1
    matrix = transition_matrix(shifted, None if num_states is None else num_states + 1)
    share = np.bincount(shifted, minlength=len(matrix)) / len(shifted)
    matrix[matrix.sum(axis=1) == 0] = share
    cumulative = matrix.cumsum(axis=1)
    made = np.empty(len(run), dtype=np.int64)
    made[0] = shifted[0]
    for step, draw in enumerate(rng.random(len(run) - 1), start=1):
        row = cumulative[made[step - 1]]
        made[step] = np.searchsorted(row, draw * row[-1], side="right")
    return made - 1


def markov_path(values: ArrayLike, rng: Generator) -> NDArray[Any]:
    """Order-1 Markov surrogate (n, d) of a run: its own states, each followed by what followed it in the run.

    Equal rows are one state (`markov_labels`). A run that never comes back has no choice and is itself.
    """
    array = np.asarray(values)
    if len(array) < 2:
        return array.copy()
    states, labels = np.unique(vectors(array), axis=0, return_inverse=True)
    return states[markov_labels(labels.reshape(-1), rng)].astype(array.dtype)


def kinds() -> dict[str, Surrogate]:
    """Surrogates of a run's vectors (n, d) by name: ours, then those that other packages add.

    An added one takes the vectors and a random generator, and returns vectors of the same shape, finite ones;
    where it does not, AnalysisError names it.
    """
    ours: dict[str, Surrogate] = {
        "sphere_walk": walk_like,
        "matched_walk": matched_walk,
        "autoregression": autoregression,
        "gaussian_process": gaussian_process,
        "shuffled": shuffled,
        "markov": markov_path,
    }
    return {**{name: partial(_checked, name, own) for name, own in added(GROUP, ours)}, **ours}


def _checked(name: str, own: Surrogate, values: NDArray[Any], rng: Generator) -> NDArray[np.float64]:
    """The surrogate (n, d) that another package makes of a run's vectors (n, d), which it may overwrite."""
    found = vectors(performed(name, own, values.copy(), rng), f"surrogates of {name}")
    if found.shape != values.shape:
        raise AnalysisError(f"surrogates of {name} have the shape {found.shape}, and not {values.shape}")
    return found


def surrogate_of(kind: str) -> Surrogate:
    """The surrogate of a kind. NotFound names the nearest kind, and all."""
    known = kinds()
    if kind in known:
        return known[kind]
    near = nearest(kind, known)
    there = f"There are: {', '.join(known)}."
    raise NotFound(
        f"There is no null model {kind!r}.", hint=f"Did you mean {near[0]}? {there}" if near else there
    )
