"""What curves of D(k), the distance of outputs k apart, say of how runs move: one rule, with its levels.

Every part of a verdict is a test. Memory: the mean D(1) beside 95 % of orders that are shuffled, below as
well as above. Returns: a dip of D(k) against the lags around it, at a level of 5 % over all lags. Growth:
whether D(k) still grows within the late third of its lags, by a 95 % interval over runs.

    found = movement(distances, shuffled)
    found.memory, found.returns_after, found.growth
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Memory = Literal["nearer", "farther", "none"]
Course = Literal["still", "returns", "grows", "creeps", "stays", "unknown", "short"]

LEAST_LAGS = 5
WANDERS = 0.15
"""Growth within the late third of the lags, as a share of D there, from which a run is said to wander off.

Where D(k) is linear in k that share is 0.4; on a sphere whose walk forgets its place within the lags that are
looked at it is 0.27; of a stationary process that remembers a tenth of them it is 0.02."""
STAYS = 0.1
"""Growth that is still called none: the interval must end below."""
LEAST_DIP = 0.1
"""Depth of a dip as a share of the mean D(k) that is worth telling."""
DIP_LEVEL = 0.025
"""Of each of the two tests of dips, over all lags."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Movement:
    """How runs move.

    memory: D(1) beside shuffles. course: "still" where nothing ever moves, "returns" after `returns_after`
    outputs, "grows" (wanders off), "creeps" (grows, by little), "stays", "unknown", or "short": fewer than
    LEAST_LAGS lags, of which nothing is said. growth: of D within the late third of the lags, as a share of
    D there, with its 95 % interval over runs; NaN where it is not known.
    """

    memory: Memory
    course: Course
    returns_after: int | None
    growth: float
    growth_low: float
    growth_high: float
    num_runs: int


def movement(distances: Array, shuffled: Array) -> Movement:
    """Read D(1), D(2), ... of runs (n, k), NaN beyond one, beside means over runs of shuffles (draws, k)."""
    absent = np.flatnonzero(np.isnan(distances).any(axis=0))
    num_lags = int(absent[0]) if len(absent) else distances.shape[1]
    curves, draws = distances[:, :num_lags], shuffled[:, :num_lags]
    nothing = float("nan")
    memory: Memory = "none"
    course: Course = "short"
    after, growth = None, (nothing, nothing, nothing)
    if not num_lags or np.nanmax(distances) == 0:
        course = "still"
    else:
        memory = _memory(float(curves[:, 0].mean()), draws[:, 0])
    if course != "still" and num_lags >= LEAST_LAGS:
        after = _return(curves, draws)
        growth = _growth(curves)
        course = "returns" if after is not None else _course(*growth[1:])
    return Movement(
        memory=memory, course=course, returns_after=after, growth=growth[0], growth_low=growth[1],
        growth_high=growth[2], num_runs=len(distances),
    )  # fmt: skip


def _memory(value: float, draws: Array) -> Memory:
    low, high = np.quantile(draws, [0.025, 0.975], method="weibull")
    return "nearer" if value < low else "farther" if value > high else "none"


def _return(curves: Array, draws: Array) -> int | None:
    """The first lag at which D dips about as deep as anywhere; None without a dip that is beyond chance.

    A dip is tested twice: over runs, against lags a quarter of it away, which finds smooth cycles; and in the
    mean of runs, against its two neighbours, beside the deepest dip of shuffles, which works for one run.
    """
    mean = curves.mean(axis=0)
    least = LEAST_DIP * mean.mean()
    found = _dips_over_runs(curves) | _dips_beyond_shuffles(mean, draws)
    wide = np.maximum(_dips(mean, 4), _dips(mean, 1))
    lags = np.flatnonzero(found & (wide >= least))
    if not len(lags):
        return None
    deepest = mean[lags].min()
    deep = lags[mean[lags] <= deepest + 0.25 * max(mean.mean() - deepest, 0.0)]
    place = int(deep[0])
    while place + 1 < len(mean) and mean[place + 1] < mean[place]:  # down to the bottom of its dip
        place += 1
    return place + 1


def _dips(curve: Array, part: int) -> Array:
    """How far a curve (..., k) lies below the mean of the lags around, a `part`-th of each lag away.

    A `part` of 1 stands for the direct neighbours. -inf where there is none at either side.
    """
    size = curve.shape[-1]
    lags = np.arange(1, size + 1)
    width = np.ones(size, dtype=int) if part == 1 else np.maximum(1, lags // part)
    inside = (lags - width >= 1) & (lags + width <= size)
    at = np.flatnonzero(inside)
    found = np.full(curve.shape, -np.inf)
    around = (curve[..., at - width[at]] + curve[..., at + width[at]]) / 2
    found[..., at] = around - curve[..., at]
    return found


def _dips_over_runs(curves: Array) -> NDArray[np.bool_]:
    """Lags whose dips are above 0 over runs: a t test of each, corrected for their number."""
    from scipy.stats import t

    num_runs, size = curves.shape
    if num_runs < 3:
        return np.zeros(size, dtype=bool)
    dips = _dips(curves, 4)
    inside = np.isfinite(dips[0])
    mean, spread = dips[:, inside].mean(axis=0), dips[:, inside].std(axis=0, ddof=1)
    error = np.maximum(spread / np.sqrt(num_runs), 1e-12)
    found = np.zeros(size, dtype=bool)
    found[inside] = mean / error > t.ppf(1 - DIP_LEVEL / max(inside.sum(), 1), num_runs - 1)
    return found


def _dips_beyond_shuffles(mean: Array, draws: Array) -> NDArray[np.bool_]:
    """Lags whose dips are deeper than the deepest one of nearly all shuffles."""
    deepest = np.sort(_dips(draws, 1).max(axis=-1))
    limit = np.quantile(deepest, 1 - DIP_LEVEL, method="weibull")
    found: NDArray[np.bool_] = _dips(mean, 1) > limit
    return found


def _growth(curves: Array) -> tuple[float, float, float]:
    """Growth of D within the late third of the lags over D there, and its 95 % interval over runs.

    Without an interval, for fewer than three runs, that is all numbers.
    """
    from scipy.stats import t

    num_runs, size = curves.shape
    late = curves[:, size - max(3, size // 3) :]
    time = np.arange(late.shape[1]) - (late.shape[1] - 1) / 2
    rises = late @ time / (time @ time) * (late.shape[1] - 1)
    level = max(float(late.mean()), 1e-12)
    mean = float(rises.mean()) / level
    if num_runs < 3:
        return mean, float("-inf"), float("inf")
    half = float(t.ppf(0.975, num_runs - 1) * rises.std(ddof=1) / np.sqrt(num_runs)) / level
    return mean, mean - half, mean + half


def _course(low: float, high: float) -> Course:
    if low > WANDERS:
        return "grows"
    if low > 0:
        return "creeps"
    return "stays" if high < STAYS else "unknown"
