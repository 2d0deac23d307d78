"""Whether a trajectory comes back: recurrence, periods, order patterns, and how many dimensions it fills.

recurrence(texts).rate                 # share of pairs of steps that say the same
recurrence(vectors, radius=0.1)        # of steps that are near each other
periodicity(labels).period
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from panic.analysis.checks import AnalysisError, are_vectors, codes, series, unit, vectors
from panic.topology import distinct_points, pairwise

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recurrence:
    """Recurrence quantification of one trajectory (Marwan et al. 2007), the main diagonal left out.

    `rate`: share of pairs of steps that recur. `determinism`: share of recurrent pairs in diagonal lines of
    at least `min_line`; `mean_line`, `longest_line`: of those lines (NaN and 0 without any); `line_entropy`:
    of their lengths, in nats. `laminarity` and `trapping_time`: share and mean length of vertical lines, in
    which the trajectory stays, over both sides of the diagonal: the same forwards and backwards. For
    independent draws of K equal symbols: rate 1/K = p, determinism p (2 - p), mean line 2 + p / (1 - p).
    """

    rate: float
    determinism: float
    mean_line: float
    longest_line: int
    line_entropy: float
    laminarity: float
    trapping_time: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Periodicity:
    """How alike states k steps apart are, beyond what chance gives.

    `scores` (max_lag + 1,): 1 = always equal, 0 = as alike as any two states; NaN beyond the run.
    `period`: the least peak of the scores that reaches 90 % of the highest peak, whose height is `score`;
    None if that is below `least`, or if likeness only falls with the lag: slow wandering is no period. (A
    bump of noise on its way down can pass for one: 1 % of sticky random labels.)
    """

    scores: Array
    period: int | None
    score: float


def recurrence(
    values: ArrayLike | Sequence[Any],
    *,
    radius: float | None = None,
    metric: str = "euclidean",
    min_line: int = 2,
    theiler: int = 1,
) -> Recurrence:
    """Recurrence quantification of symbols (n,) (equal ones recur) or vectors (n, d) (within `radius` > 0).

    Pairs less than `theiler` steps apart do not count. Metrics: euclidean, cosine. Everything is NaN when
    there is no such pair. AnalysisError for NaN, or vectors without a radius.
    """
    if min_line < 1 or theiler < 1:
        raise AnalysisError(f"min_line and theiler must be 1 or more, found {min_line} and {theiler}")
    is_near = recurrence_matrix(values, radius=radius, metric=metric)
    size = len(is_near)
    pairs = sum(size - lag for lag in range(theiler, size))
    if pairs <= 0:
        nan = float("nan")
        return Recurrence(
            rate=nan, determinism=nan, mean_line=nan, longest_line=0, line_entropy=nan, laminarity=nan,
            trapping_time=nan,
        )  # fmt: skip
    lines = _runs_of_true(np.diagonal(is_near, lag) for lag in range(theiler, size))
    apart = np.triu(is_near, k=theiler)
    columns = _runs_of_true(iter(apart | apart.T))  # the whole matrix is symmetric: rows are columns
    total = int(lines.sum())
    long, tall = lines[lines >= min_line], columns[columns >= min_line]
    share = np.unique(long, return_counts=True)[1] / max(len(long), 1)
    return Recurrence(
        rate=total / pairs,
        determinism=_ratio(long.sum(), total),
        mean_line=_ratio(long.sum(), len(long)),
        longest_line=int(long.max(initial=0)),
        line_entropy=float(max(0.0, -(share * np.log(share)).sum())) if len(long) else float("nan"),
        laminarity=_ratio(tall.sum(), 2 * total),
        trapping_time=_ratio(tall.sum(), len(tall)),
    )


def recurrence_matrix(
    values: ArrayLike | Sequence[Any], *, radius: float | None = None, metric: str = "euclidean"
) -> NDArray[np.bool_]:
    """Which steps recur, (n, n): equal symbols, or vectors within `radius`."""
    if not are_vectors(values):
        symbols = codes(values)
        equal: NDArray[np.bool_] = symbols[:, None] == symbols[None, :]
        return equal
    if radius is None or not radius > 0:
        raise AnalysisError("vectors recur within a radius above 0; none was given")
    from scipy.spatial.distance import cdist

    array = unit(values) if metric == "cosine" else vectors(values)
    if metric not in ("euclidean", "cosine"):
        raise AnalysisError(f"unknown metric {metric!r}", hint="known: euclidean, cosine")
    near: NDArray[np.bool_] = cdist(array, array, metric) <= radius
    return near


def first_visits(symbols: ArrayLike | Sequence[Any]) -> NDArray[np.int64]:
    """For every step the step (n,) at which its symbol came first; smaller than its own if it is back."""
    numbers = codes(symbols)
    _, first = np.unique(numbers, return_index=True)
    return first[numbers].astype(np.int64)


def periodicity(
    values: ArrayLike | Sequence[Any], max_lag: int | None = None, *, least: float = 0.5
) -> Periodicity:
    """Likeness of states k steps apart, of labels or other symbols (n,), or of vectors (n, d) by cosine.

    Of one modality: in an alternating loop every second step is alike by construction. Chance is the share
    of equal pairs (the mean cosine) over all pairs; a constant trajectory has period 1. `max_lag` is half of
    the run by default. Fewer than 3 states have no period and the score NaN.
    """
    vectorial = are_vectors(values)
    array: Any = unit(values) if vectorial else codes(values)
    size = len(array)
    if max_lag is not None and max_lag < 1:
        raise AnalysisError(f"max_lag must be 1 or more, found {max_lag}")
    lags = max_lag if max_lag is not None else max(size // 2, 1)
    raw = np.full(lags + 2, np.nan)  # one more, to see whether the last one is a peak
    for lag in range(min(lags + 1, size - 1) + 1 if size else 0):
        a, b = array[: size - lag], array[lag:]
        raw[lag] = (a * b).sum(axis=1).mean() if vectorial else (a == b).mean()
    if size < 3:
        return Periodicity(scores=raw[:-1], period=None, score=float("nan"))
    if vectorial:
        total = array.sum(axis=0)
        chance = float((total @ total - size) / (size * (size - 1)))
    else:
        counts = np.bincount(array).astype(float)
        chance = float((counts * (counts - 1)).sum() / (size * (size - 1)))
    return _highest_peak(raw, chance, least)


def periodicity_of_pairs(likeness: NDArray[np.float64], *, least: float = 0.5) -> Periodicity:
    """`periodicity` of states whose likeness (n, n) is known: n > 2, symmetric, 1 on the diagonal.

    The same states in another order are its rows and columns in that order.
    """
    size = len(likeness)
    skewed = np.zeros((size, 2 * size))  # every row one place further: diagonals become columns
    skewed[:, :size] = likeness[:, ::-1]
    sums = skewed.ravel()[: size * (2 * size - 1)].reshape(size, -1).sum(axis=0)[size - 1 :: -1]
    raw = np.full(max(size // 2, 1) + 2, np.nan)
    raw[: min(len(raw), size)] = (sums / np.arange(size, 0, -1))[: len(raw)]
    return _highest_peak(raw, float(sums[1:].sum() / (size * (size - 1) / 2)), least)


def _highest_peak(raw: NDArray[np.float64], chance: float, least: float) -> Periodicity:
    """The period at the highest peak of likeness by lag, of which the last lag only closes a peak."""
    scores = np.where(np.isnan(raw), np.nan, 1.0) if chance > 1 - 1e-12 else (raw - chance) / (1 - chance)
    known = np.nan_to_num(scores, nan=-np.inf)
    here, before, after = known[1:-1], known[:-2], known[2:]
    is_peak = np.isfinite(here) & (here >= before - 1e-12) & (here >= after - 1e-12)
    best = float(here[is_peak].max(initial=-np.inf))
    period = int(np.flatnonzero(is_peak & (here >= 0.9 * best))[0]) + 1 if best >= least else None
    return Periodicity(scores=scores[:-1], period=period, score=best if is_peak.any() else float("nan"))


def permutation_entropy(
    values: ArrayLike, order: int = 3, *, delay: int = 1, normalised: bool = False
) -> float:
    """Entropy in nats of the order patterns of `order` values in a series (n,) (Bandt and Pompe 2002).

    0 for a monotone series, ln(order!) for independent draws; divided by that if `normalised`. Equal values
    rank in their order of time. AnalysisError for a series shorter than one pattern.
    """
    if order < 2 or delay < 1:
        raise AnalysisError(f"order must be 2 or more and delay 1 or more, found {order} and {delay}")
    array = series(values, least=(order - 1) * delay + 1)
    places = np.arange(len(array) - (order - 1) * delay)[:, None] + delay * np.arange(order)[None, :]
    ranks = np.argsort(array[places], axis=1, kind="stable")
    counts = np.unique(ranks, axis=0, return_counts=True)[1]
    share = counts / counts.sum()
    entropy = float(max(0.0, -(share * np.log(share)).sum()))
    return entropy / math.log(math.factorial(order)) if normalised else entropy


def intrinsic_dimension(points: ArrayLike, *, discard: float = 0.1) -> float:
    """TwoNN estimate of the dimension that points (n, d) fill (Facco et al. 2017).

    From the ratios of the distances to the second and to the first neighbour, the largest `discard` of them
    left out; copies count once. Biased low above about 10 dimensions. AnalysisError with fewer than 10
    distinct points.
    """
    if not 0 <= discard < 1:
        raise AnalysisError(f"discard must be from 0 to below 1, found {discard}")
    matrix = pairwise(distinct_points(vectors(points, "points"))[0])
    if len(matrix) < 10:
        raise AnalysisError(f"at least 10 distinct points are needed, found {len(matrix)}")
    near = np.partition(matrix, 2, axis=1)[:, 1:3]  # the first is the point itself
    ratio = np.sort(near[:, 1] / near[:, 0])
    count = int(len(ratio) * (1 - discard))
    x = np.log(ratio[:count])
    y = -np.log(1 - np.arange(1, count + 1) / (len(ratio) + 1))
    squares = float(x @ x)
    if squares == 0:
        raise AnalysisError("first and second neighbours are equally far: a lattice has no such estimate")
    return float(x @ y / squares)


def _runs_of_true(rows: Iterator[NDArray[np.bool_]]) -> NDArray[np.int64]:
    """Lengths of all stretches of true values, row by row."""
    joined = np.concatenate([np.append(row, False) for row in rows] or [np.zeros(1, dtype=bool)])
    edges = np.diff(np.concatenate([[False], joined]).astype(np.int8))
    return np.flatnonzero(edges == -1) - np.flatnonzero(edges == 1)


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole else float("nan")
