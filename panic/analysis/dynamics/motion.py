"""How far a trajectory goes, and how fast two of them part.

distances = distance_by_lag(vectors, 20)      # D(0), D(1), ..., D(20)
noise(distances)                              # the part of a step that is not movement
ftle(divergence(a, b)).rate                   # early growth rate, with its fit quality
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from panic.analysis.checks import AnalysisError, series, unit, vectors

Array = NDArray[np.float64]
METRICS = ("cosine", "euclidean", "sqeuclidean")
LEVEL = 1.04  # what the end of a curve that has stopped to grow may be above what comes before


@dataclass(frozen=True, slots=True, kw_only=True)
class Ftle:
    """Finite-time Lyapunov exponent: the slope of log distance over the columns `first` to `last`.

    `rate` per unit of time, its standard error (over pairs, if there are several; from a line's residuals,
    which resemble their neighbours, it would be too small), `r2` of the line, `saturation` the level at which
    the distances end, `is_saturated` whether they have stopped to grow there: the last eighth of the steps is
    above the one before by less than 4 %, with 95 % confidence over pairs if there are several (that of twins
    which diffuse apart is above by 7 %). Without growth before the level is reached the rate says nothing:
    distances on a sphere are bounded, and over the whole window even driftless twin walks have a
    positive slope, which shrinks as the window grows.
    """

    rate: float
    standard_error: float
    r2: float
    first: int
    last: int
    saturation: float
    is_saturated: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Attractor:
    """Where runs go, from the regression final = intercept + slope x initial over runs.

    `strength` = 1 - |slope| (1: the start is forgotten, 0: it is kept), `position` = intercept / (1 - slope):
    what is mapped to itself, NaN for slope 1. Source: Perez et al., "When LLMs Play the Telephone Game:
    Cultural Attractors as Conceptual Tools to Evaluate LLMs in Multi-turn Settings" (ICLR 2025, arXiv
    2407.04503).
    """

    strength: float
    position: float
    slope: float
    intercept: float
    slope_error: float
    r2: float
    num_runs: int


def distance_by_lag(values: ArrayLike, max_lag: int, *, metric: str = "cosine") -> Array:
    """D(k), the mean distance of states k steps apart, as an array (max_lag + 1,) with D(0) = 0.

    `values` (n, d), of one modality. cosine is 1 - cos; a walk on the sphere that turns by t at every step
    has D(k) = 1 - cos(t)^k. Lags that the run is too short for are NaN. Metrics: cosine, euclidean,
    sqeuclidean. AnalysisError for NaN or a negative lag.
    """
    if max_lag < 0:
        raise AnalysisError(f"max_lag must be 0 or more, found {max_lag}")
    array = _prepared(values, metric)
    found = np.full(max_lag + 1, np.nan)
    found[0] = 0.0
    for lag in range(1, min(max_lag, len(array) - 1) + 1):
        found[lag] = _distances(array[:-lag], array[lag:], metric).mean()
    return found


def noise(distances: ArrayLike) -> float:
    """The part of D(k) that does not grow with k: 2 D(1) - D(2), extrapolated to lag 0.

    `distances` are D(0), D(1), D(2), ... in a metric in which a walk's D(k) is linear for small k: cosine or
    sqeuclidean. For a walk plus independent noise it is the noise's own mean distance; for a pure walk about
    0; D(1) - noise is the drift per step. NaN when the run had fewer than 3 states.
    """
    array = np.asarray(distances, dtype=np.float64)
    if array.ndim != 1 or len(array) < 3:
        raise AnalysisError(f"D(0), D(1) and D(2) are needed, found {array.size} distances")
    return float(2 * array[1] - array[2])


def step_sizes(values: ArrayLike, *, metric: str = "cosine") -> Array:
    """Distances (n - 1,) of successive states of one modality."""
    array = _prepared(values, metric)
    return _distances(array[:-1], array[1:], metric)


def divergence(a: ArrayLike, b: ArrayLike, *, metric: str = "euclidean") -> Array:
    """Distances (n,) of two trajectories (n, d) at equal steps; the longer one is cut."""
    first, second = _prepared(a, metric), _prepared(b, metric)
    if first.shape[1] != second.shape[1]:
        raise AnalysisError(f"trajectories have {first.shape[1]} and {second.shape[1]} coordinates")
    length = min(len(first), len(second))
    return _distances(first[:length], second[:length], metric)


def ftle(distances: ArrayLike, *, step: float = 1.0, below: float = 0.1, window: int | None = None) -> Ftle:
    """Early growth rate of the distance of twins, (n,) or of several pairs (pairs, n), `step` time apart.

    Logarithms are averaged over pairs and fitted by a line from the first step to the last one before
    `below` times the saturation level is reached (the geometric mean of the last quarter), or over the first
    `window` steps. Steps at which a pair has met (distance 0) are left out, so the rate is that of pairs
    that are apart.
    AnalysisError with fewer than 3 usable steps: then there was no early growth to measure.
    """
    pairs = np.atleast_2d(np.asarray(distances, dtype=np.float64))
    if pairs.ndim != 2 or not np.isfinite(pairs).all() or (pairs < 0).any():
        raise AnalysisError("distances must be finite, not negative, (n,) or (pairs, n)")
    if not (0 < below < 1 and step > 0):
        raise AnalysisError(f"below must be between 0 and 1 and step above 0, found {below} and {step}")
    if not (pairs > 0).any():
        raise AnalysisError("all distances are 0: the twins never parted")
    log = np.full(pairs.shape, np.nan)
    np.log(pairs, out=log, where=pairs > 0)
    apart = np.flatnonzero(~np.isnan(log).all(axis=0))
    mean: Array = np.nanmean(log[:, apart], axis=0)
    level = float(mean[-max(1, len(mean) // 4) :].mean())
    reached = np.flatnonzero(mean >= level + np.log(below))
    count = min(window, len(mean)) if window is not None else int(reached[0])
    if window is not None and window < 3:
        raise AnalysisError(f"a rate needs a window of 3 outputs or more, found {window}")
    if count < 3:
        raise AnalysisError(
            f"they are about as far apart as in the end from output {count + 1} on: no early growth to fit",
            hint="start the twins closer to each other, or give the window",
        )
    time = apart.astype(np.float64) * step
    slope, _, error, r2 = _line(time[:count], mean[:count])
    single = log[:, apart[:count]]
    single = single[~np.isnan(single).any(axis=1)]
    if len(single) > 1:
        slopes = [_line(time[:count], one)[0] for one in single]
        error = float(np.std(slopes, ddof=1) / np.sqrt(len(slopes)))
    return Ftle(
        rate=slope,
        standard_error=error,
        r2=r2,
        first=int(apart[0]),
        last=int(apart[count - 1]),
        saturation=float(np.exp(level)),
        is_saturated=slope > 0 and _late_growth(log[:, apart]) < np.log(LEVEL),
    )


def _late_growth(log: Array) -> float:
    """The most by which log distances (pairs, n) of the last eighth may be above those of the one before."""
    from scipy.stats import t

    eighth = max(1, log.shape[1] // 8)
    rises = np.nanmean(log[:, -eighth:], axis=1) - np.nanmean(log[:, -2 * eighth : -eighth], axis=1)
    rises = rises[~np.isnan(rises)]
    if not len(rises):
        return float("nan")
    if len(rises) == 1:
        return float(rises[0])
    error = rises.std(ddof=1) / np.sqrt(len(rises))
    return float(rises.mean() + t.ppf(0.95, len(rises) - 1) * error)


def attractor(initial: ArrayLike, final: ArrayLike) -> Attractor:
    """Regression of the final on the initial value (n,) of n runs, a number of each text such as its length.

    The initial value is that of the *prompt*: taking the first generation instead turned a strength of 0.99
    into 0.18 in published data. AnalysisError with fewer than 3 runs, or equal initial values.
    """
    x, y = series(initial, "initial values", least=3), series(final, "final values", least=3)
    if len(x) != len(y):
        raise AnalysisError(f"{len(x)} initial and {len(y)} final values do not pair up")
    if np.ptp(x) == 0:
        raise AnalysisError("all runs start at the same value: nothing to regress on")
    slope, intercept, error, r2 = _line(x, y)
    return Attractor(
        strength=1 - abs(slope),
        position=intercept / (1 - slope) if abs(1 - slope) > 1e-12 else float("nan"),
        slope=slope,
        intercept=intercept,
        slope_error=error,
        r2=r2,
        num_runs=len(x),
    )


def _line(x: Array, y: Array) -> tuple[float, float, float, float]:
    """Slope, intercept, standard error of the slope, and r2 (NaN for constant y) of least squares."""
    centred = x - x.mean()
    slope = float(centred @ y / (centred @ centred))
    intercept = float(y.mean() - slope * x.mean())
    left = float(((y - intercept - slope * x) ** 2).sum())
    total = float(((y - y.mean()) ** 2).sum())
    error = float(np.sqrt(left / max(len(x) - 2, 1) / (centred @ centred)))
    return slope, intercept, error, 1 - left / total if total > 0 else float("nan")


def _prepared(values: ArrayLike, metric: str) -> Array:
    if metric not in METRICS:
        raise AnalysisError(f"unknown metric {metric!r}", hint=f"known: {', '.join(METRICS)}")
    return unit(values) if metric == "cosine" else vectors(values)


def _distances(a: Array, b: Array, metric: str) -> Array:
    """Distances of rows; the cosine of unit vectors as half the squared distance, which loses no digits."""
    squares = ((a - b) ** 2).sum(axis=1)
    found: Array = (
        np.sqrt(squares) if metric == "euclidean" else squares / 2 if metric == "cosine" else squares
    )
    return found
