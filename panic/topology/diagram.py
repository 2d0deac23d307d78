"""Persistence diagram of one point cloud: Vietoris-Rips, coefficients in the field of two elements.

The back end is giotto-ph on distances that we compute ourselves in float64 (see `distances`). giotto-ph
works in float32, so births and deaths are returned as float64 but are right to float32 precision
(6e-8 relative); bars shorter than that are noise and left out.

    from panic.topology import diagram, entropy
    d = diagram(vectors, max_dimension=1)     # vectors (n, d)
    d.bars(1)                                 # (m, 2) births and deaths; a death may be inf
    entropy(d.bars(0))
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from math import comb
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from panic.topology.distances import (
    TOLERANCE,
    TopologyError,
    checked,
    close_groups,
    distinct_points,
    pairwise,
)

_FLOAT32_NOISE = 2.0**-22  # four units in the last place: no bar of this relative length means anything


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagram:
    """Bars by dimension, from 0 to `max_dimension`.

    `generators`, where computed, has one integer array per dimension whose rows belong to the rows of
    `bars`: (m, 3) = birth vertex and the two ends of the death edge in dimension 0, (m, 4) = the two ends
    of the birth edge and of the death edge above it. The numbers are rows of the points given; -1 stands
    where nothing dies. `num_unique` counts the points that were left after collapsing equal ones.
    """

    bars_by_dimension: tuple[NDArray[np.float64], ...]
    num_points: int
    num_unique: int
    generators: tuple[NDArray[np.int64], ...] | None = None

    @property
    def max_dimension(self) -> int:
        """The highest dimension that was computed."""
        return len(self.bars_by_dimension) - 1

    def bars(self, dimension: int) -> NDArray[np.float64]:
        """Births and deaths (m, 2), sorted; a death may be inf. TopologyError above `max_dimension`."""
        if not 0 <= dimension <= self.max_dimension:
            raise TopologyError(f"dimension {dimension} was not computed, only 0 to {self.max_dimension}")
        return self.bars_by_dimension[dimension]


def diagram(
    points: ArrayLike,
    *,
    max_dimension: int = 1,
    metric: str = "euclidean",
    generators: bool = False,
    threads: int = 1,
    memory_limit_bytes: int | None = None,
) -> Diagram:
    """Diagram of `points` (n, d), or of a distance matrix (n, n) with metric "precomputed".

    Metrics: euclidean, cosine (1 - cos), chordal. Equal points are one point: multiplicities add no bars.
    Generators are computed on one thread whatever `threads` says (with more, giotto-ph returns wrong ones).
    `memory_limit_bytes` is what one diagram may need, by default three quarters of the machine's memory.
    Raises TopologyError: not finite, wrong shape, unknown metric, or too large for the memory.
    """
    if max_dimension < 0:
        raise TopologyError(f"max_dimension must be 0 or more, found {max_dimension}")
    array = checked(points)
    limit = memory_limit_bytes if memory_limit_bytes is not None else _default_limit()
    if metric == "precomputed":
        refuse_if_too_large(len(array), len(array), max_dimension, limit)
        matrix, first = _checked_matrix(array), np.arange(len(array))
        tolerance = 0.0
    else:
        rows, first = distinct_points(array)
        refuse_if_too_large(rows.shape[0], rows.shape[1], max_dimension, limit)
        matrix = pairwise(rows, metric)
        tolerance = _tolerance(rows, metric)
    kept = close_groups(matrix, tolerance)
    if len(kept) < len(matrix):
        matrix, first = matrix[np.ix_(kept, kept)], first[kept]
    bars, cycles = _rips(matrix, max_dimension, generators, threads)
    return Diagram(
        bars_by_dimension=bars,
        num_points=len(array),
        num_unique=len(matrix),
        generators=None if cycles is None else tuple(_renumber(c, first) for c in cycles),
    )


def entropy(bars: ArrayLike) -> float:
    """Persistence entropy in nats: -sum p ln p over p = length / total length of the finite bars.

    ln n for n equal bars, 0.0 for none or one. Infinite and empty bars do not count.
    Source: Atienza et al. 2020. It grows with the number of bars: compare it with a null model.
    """
    array = np.asarray(bars, dtype=np.float64).reshape(-1, 2)
    lengths = array[:, 1] - array[:, 0]
    lengths = lengths[np.isfinite(lengths) & (lengths > 0)]
    if lengths.size < 2:
        return 0.0
    share = lengths / lengths.max()
    share /= share.sum()
    share = share[share > 0]
    return float(-(share * np.log(share)).sum())


def estimate_bytes(num_points: int, num_coordinates: int, max_dimension: int) -> int:
    """Most memory one diagram can need: points, matrices, and 16 bytes for each simplex that may be a column.

    A bound: apparent pairs never become columns, so clouds with structure need a fraction of it.
    """
    columns = sum(comb(num_points, k + 1) for k in range(1, max_dimension + 1))
    return 16 * num_points * num_coordinates + 32 * num_points**2 + 16 * columns


def refuse_if_too_large(num_points: int, num_coordinates: int, max_dimension: int, limit_bytes: int) -> None:
    """Raise TopologyError with the arithmetic when the estimate is above `limit_bytes`."""
    need = estimate_bytes(num_points, num_coordinates, max_dimension)
    if need <= limit_bytes:
        return
    terms = " + ".join(f"C({num_points:,}, {k + 1})" for k in range(1, max_dimension + 1))
    columns = f" + 16 x ({terms}) for columns" if terms else ""
    raise TopologyError(
        f"a diagram of {num_points:,} distinct points up to dimension {max_dimension} may need "
        f"{need / 2**30:,.2f} GiB, the limit is {limit_bytes / 2**30:,.2f} GiB "
        f"(16 x {num_points:,} x {num_coordinates:,} bytes for the points + 32 x {num_points:,}^2 for "
        f"matrices{columns})",
        hint="take fewer points (a part of the run), or a smaller max_dimension",
    )


def _default_limit() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") * 3 // 4


def _tolerance(rows: NDArray[np.float64], metric: str) -> float:
    """The distance up to which two rows are one point, in the units of the metric."""
    if metric == "euclidean":
        largest = np.abs(rows).max(initial=0.0)
        return float(TOLERANCE * largest * np.linalg.norm(rows / (largest or 1.0), axis=1).max(initial=0.0))
    return TOLERANCE if metric == "chordal" else TOLERANCE**2 / 2


def _checked_matrix(array: NDArray[Any]) -> NDArray[np.float64]:
    """A given distance matrix as float64, made symmetric to the bit (it may be off by rounding only)."""
    matrix = array.astype(np.float64)
    if matrix.shape[0] != matrix.shape[1]:
        raise TopologyError(f"a distance matrix must be square, found {matrix.shape}")
    if (matrix < 0).any():
        raise TopologyError("a distance matrix must not hold negative numbers")
    largest = matrix.max(initial=0.0)
    if np.abs(np.diag(matrix)).max(initial=0.0) > 1e-6 * largest:
        raise TopologyError("a distance matrix must have a diagonal of zeros")
    if np.abs(matrix - matrix.T).max(initial=0.0) > 1e-6 * largest:
        raise TopologyError("a distance matrix must be symmetric")
    matrix = np.minimum(matrix, matrix.T)
    np.fill_diagonal(matrix, 0.0)
    return matrix


def _rips(
    matrix: NDArray[np.float64], max_dimension: int, generators: bool, threads: int
) -> tuple[tuple[NDArray[np.float64], ...], list[NDArray[np.int64]] | None]:
    """Bars and generators of a symmetric matrix of distinct points; the one place that knows the back end."""
    if len(matrix) < 2:  # giotto-ph raises without points
        bars = [np.empty((0, 2)) for _ in range(max_dimension + 1)]
        cycles = [np.empty((0, 3 if k == 0 else 4), dtype=np.int64) for k in range(max_dimension + 1)]
        if len(matrix) == 1:
            bars[0], cycles[0] = np.array([[0.0, np.inf]]), np.array([[0, -1, -1]])
        return tuple(bars), cycles if generators else None
    from gph import ripser_parallel

    exponent = int(np.frexp(matrix.max())[1])
    found = ripser_parallel(
        np.ldexp(matrix, -exponent),  # exact; float32 can neither overflow nor lose small clouds
        maxdim=max_dimension,
        metric="precomputed",
        n_threads=1 if generators else threads,
        return_generators=generators,
    )
    bars = [np.ldexp(b.astype(np.float64).reshape(-1, 2), exponent) for b in found["dgms"]]
    order = [np.lexsort((b[:, 1], b[:, 0])) for b in bars]
    order = [o[b[o, 1] - b[o, 0] > _FLOAT32_NOISE * b[o, 0]] for o, b in zip(order, bars, strict=True)]
    sorted_bars = tuple(b[o] for o, b in zip(order, bars, strict=True))
    if not generators:
        return sorted_bars, None
    return sorted_bars, [c[o] for o, c in zip(order, _cycles(found["gens"], max_dimension), strict=True)]


def _cycles(found: Any, max_dimension: int) -> list[NDArray[np.int64]]:
    """giotto-ph's four lists of generators in the order of its bars: finite ones first, then open ones."""
    finite0, finite, open0, open_ = found
    cycles = [np.vstack([finite0.reshape(-1, 3), np.c_[open0, -np.ones((len(open0), 2))]]).astype(np.int64)]
    for k in range(max_dimension):
        ends = np.c_[open_[k].reshape(-1, 2), -np.ones((len(open_[k]), 2))]
        cycles.append(np.vstack([finite[k].reshape(-1, 4), ends]).astype(np.int64))
    return cycles


def _renumber(cycles: NDArray[np.int64], first: NDArray[np.intp]) -> NDArray[np.int64]:
    """Vertices of the collapsed cloud as rows of the points given; -1 stays."""
    return np.where(cycles < 0, -1, np.append(first, -1)[cycles])
