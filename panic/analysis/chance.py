"""What chance gives where labels could have been otherwise: exact or drawn permutations of whole prompts.

matching(table)                          # is what belongs together more alike than what does not?
swapping(statistic, num_units)           # did early and late trade places, would it show?
relabelling(distances, pairs)            # are these pairs nearer than pairs of other names?
pairing(initial, final)                  # does what comes last depend on what came first?

All orders are gone through where there are at most `MAX_DRAWS` of them, so that a p value is exact; else so
many are drawn. A test of few units cannot give a small p whatever the data, which `p_least` tells.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import permutations, product
from math import factorial

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray

from panic.analysis.checks import AnalysisError
from panic.analysis.statistics import adjust

Array = NDArray[np.float64]
Orders = NDArray[np.int64]
LEVEL = 0.05
MAX_DRAWS = 999
LEAST_PROMPTS = 4  # 24 orders: the least of which a p below 0.05 can come
LEAST_UNITS = 6  # 64 swaps, of which two are the data and their mirror image: p = 0.031 at least


@dataclass(frozen=True, slots=True, kw_only=True)
class Chance:
    """A statistic (...), what permutations gave (num_draws, ...), p values (...), the smallest possible p."""

    value: Array
    draws: Array
    p_value: Array
    p_least: float

    @property
    def mean(self) -> Array:
        """The mean (...) over permutations."""
        return np.asarray(self.draws.mean(axis=0))

    @property
    def low(self) -> Array:
        """The 2.5 % quantile (...) of permutations."""
        return np.asarray(np.quantile(self.draws, 0.025, axis=0, method="weibull"))

    @property
    def high(self) -> Array:
        """The 97.5 % quantile (...) of permutations."""
        return np.asarray(np.quantile(self.draws, 0.975, axis=0, method="weibull"))


def matching(table: ArrayLike, *, seed: int = 0) -> Chance:
    """Test, one-sided, whether the diagonals of tables (..., n, n) are larger than if columns were permuted.

    The statistic is the mean of a diagonal (...). A row stands for what something has become, a column for
    what it may have come from, so the permutations are exact if nothing of the origin is left. AnalysisError
    below `LEAST_PROMPTS` rows, or where some are not finite.
    """
    cells = _finite(table)
    count = cells.shape[-1]
    if cells.ndim < 2 or cells.shape[-2] != count:
        raise AnalysisError(f"tables must be square, found the shape {cells.shape}")
    rows = np.arange(count)
    draws = np.moveaxis(cells[..., rows, _orders(count, seed)].mean(axis=-1), -1, 0)
    return _chance(draws, larger=True, p_least=1 / len(draws))


def relabelling(distances: ArrayLike, pairs: ArrayLike, *, seed: int = 0) -> Chance:
    """Test, one-sided, whether pairs (m, 2) are nearer than if the rows of distances (n, n) had other names.

    The statistic is the mean distance of the pairs. It is the permutation test of Mantel (1967) with a graph
    for one of the two matrices. AnalysisError below `LEAST_PROMPTS` rows, without pairs, or where all pairs
    are among them.
    """
    cells, edges = _finite(distances), np.asarray(pairs, dtype=np.int64).reshape(-1, 2)
    count = len(cells)
    if not 0 < len(edges) < count * (count - 1) // 2:
        what = "there are no such pairs" if not len(edges) else f"all {len(edges):,} pairs are such"
        raise AnalysisError(f"{what}, of {count:,} prompts: there is nothing to compare")
    ends = _orders(count, seed)[:, edges]
    draws = cells[ends[..., 0], ends[..., 1]].mean(axis=1)
    graphs = np.sort(ends.min(axis=2) * count + ends.max(axis=2), axis=1)
    p_least = (graphs == graphs[0]).all(axis=1).mean()  # how often other names make the same pairs
    return _chance(draws, larger=False, p_least=float(p_least))


def pairing(initial: ArrayLike, final: ArrayLike, *, seed: int = 0) -> Chance:
    """Test, two-sided, whether the slope of final on initial values (n,) is farther from 0 than if they were
    paired otherwise.

    The statistic is the slope of least squares, sum (x - mean x) (y - mean y) / sum (x - mean x)^2; this is
    the permutation test of a correlation (Pitman, JRSS Supplement 4, 1937). AnalysisError below
    `LEAST_PROMPTS` values, or where all initial ones are equal.
    """
    x, y = _finite(initial), _finite(final)
    if x.ndim != 1 or x.shape != y.shape or np.ptp(x) == 0:
        raise AnalysisError("as many final as initial values are needed, and initial ones that differ")
    x = x - x.mean()
    slack = 1e-12 * float(np.linalg.norm(y) / np.linalg.norm(x))  # what rounding makes of equal values
    orders = _orders(len(x), seed)
    draws = (y - y.mean())[orders] @ x / (x @ x)
    is_same = np.abs(x[orders] @ x) >= (x @ x) * (1 - 1e-12)  # or mirrored: the slope is as far from 0
    return _chance(draws, larger=None, p_least=float(is_same.mean()), slack=slack)


def swapping(
    statistic: Callable[[NDArray[np.bool_]], float],
    num_units: int,
    *,
    max_draws: int = MAX_DRAWS,
    seed: int = 0,
) -> Chance:
    """Test, two-sided, whether a difference is farther from 0 than if units had swapped its two sides.

    `statistic` takes which units swap (num_units,), of which any are as likely as any others if early and
    late, say, make no difference within a unit. It is the randomisation test of paired differences (Fisher,
    "The Design of Experiments", 1935, section 21). AnalysisError below `LEAST_UNITS` units.
    """
    if num_units < LEAST_UNITS:
        raise AnalysisError(f"{LEAST_UNITS} independent starts are needed for a test, found {num_units}")
    draws = np.array([statistic(swaps) for swaps in _swaps(num_units, max_draws, seed)])
    return _chance(draws, larger=None, p_least=max(2.0 ** (1 - num_units), 1 / len(draws)))


def first_told(scores: pl.DataFrame, most: int = 4) -> pl.DataFrame:
    """The rows that a sentence has room for: of more than `most`, those of the smallest `p_adjusted`."""
    return scores if len(scores) <= most else scores.sort("p_adjusted", maintain_order=True).head(most)


def least_told(p_least: float, num_tests: int = 1) -> str:
    """That p could not have been small whatever the data, corrected for so many tests; "" where it could."""
    least = min(1.0, p_least * num_tests)
    return f"; p could not have been below {least:.2g}" if least > LEVEL else ""


def holm(p_values: pl.Series) -> pl.Series:
    """The p values corrected for their number (Holm), of those that are known; the others stay NaN."""
    adjusted = np.full(len(p_values), np.nan)
    is_known = p_values.is_not_nan().to_numpy()
    adjusted[is_known] = adjust(p_values.to_numpy()[is_known])
    return pl.Series(adjusted, dtype=pl.Float64)


def _orders(count: int, seed: int) -> Orders:
    """All orders (m, count) of so many things, or as many as may be drawn; the given order comes first."""
    if count < LEAST_PROMPTS:
        raise AnalysisError(f"{LEAST_PROMPTS} prompts are needed for a test, found {count}")
    if factorial(min(count, 20)) <= MAX_DRAWS:
        return np.array(list(permutations(range(count))))
    rng = np.random.default_rng(seed)
    return np.array([np.arange(count), *(rng.permutation(count) for _ in range(MAX_DRAWS))])


def _swaps(count: int, most: int, seed: int) -> Iterator[NDArray[np.bool_]]:
    """All swaps of so many units, or as many as may be drawn; that of none comes first."""
    if 2**count <= most:
        yield from (np.array(swaps) for swaps in product((False, True), repeat=count))
        return
    rng = np.random.default_rng(seed)
    yield np.zeros(count, dtype=np.bool_)
    yield from (rng.random(count) < 0.5 for _ in range(most))


def _chance(draws: Array, *, larger: bool | None, p_least: float, slack: ArrayLike | None = None) -> Chance:
    """The first of the draws (num_draws, ...) against all of them, it among them; None: at either side."""
    signed = np.abs(draws) if larger is None else draws if larger else -draws
    if slack is None:
        slack = 1e-12 * np.abs(draws).max(axis=0)  # sums differ in their last bits
    p = (signed >= signed[0] - slack).mean(axis=0)
    return Chance(value=np.asarray(draws[0]), draws=draws, p_value=np.asarray(p), p_least=p_least)


def _finite(values: ArrayLike) -> Array:
    array = np.asarray(values, dtype=np.float64)
    if not np.isfinite(array).all():
        raise AnalysisError("some values are NaN or infinite", hint="leave out what is not there")
    return array
