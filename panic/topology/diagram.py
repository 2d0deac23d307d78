"""Persistence diagram of one point cloud: Vietoris-Rips, coefficients in the field of two elements.

Exact float64 distances that we compute ourselves (see `distances`), after collapsing equal points; the
library that is asked depends on size and dimension (see `backends`). Bars shorter than float32 resolves
(2e-7 of their birth) are rounding noise of the vectors and left out.

    from panic.topology import diagram, diagrams, entropy
    d = diagram(vectors, max_dimension=1)     # vectors (n, d)
    d.bars(1)                                 # (m, 2) births and deaths; a death may be inf
    entropy(d.bars(0))
    diagrams([vectors, others])               # many clouds, on all cores
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from panic.topology.backends import persistence
from panic.topology.clouds import landmarks as farthest_points
from panic.topology.distances import (
    TOLERANCE,
    TopologyError,
    checked,
    checked_bars,
    close_groups,
    distinct_points,
    moderate,
    pairwise,
)
from panic.topology.memory import default_limit_bytes, refuse


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagram:
    """Bars by dimension, from 0 to `max_dimension`.

    `generators`, where computed, has one integer array per dimension whose rows belong to the rows of
    `bars`: (m, 3) = birth vertex and the two ends of the death edge in dimension 0, (m, 4) = the two ends
    of the birth edge and of the death edge above it. The numbers are rows of the points given; -1 stands
    where nothing dies. `num_unique` counts the points that were left after collapsing equal ones (and taking
    landmarks). No birth or death is further than `error` from that of all points; 0 without landmarks.
    """

    bars_by_dimension: tuple[NDArray[np.float64], ...]
    num_points: int
    num_unique: int
    error: float = 0.0
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
    threshold: float = np.inf,
    landmarks: int | None = None,
    generators: bool = False,
    threads: int = 1,
    backend: str = "auto",
    memory_limit_bytes: int | None = None,
) -> Diagram:
    """Diagram of `points` (n, d), or of a distance matrix (n, n) with metric "precomputed".

    Metrics: euclidean, cosine (1 - cos), chordal. Equal points are one point: multiplicities add no bars.
    What is still alive at `threshold` (in units of the metric) has an infinite death; a small one saves time
    and memory. Of more than `landmarks` distinct points so many are taken, which moves births and deaths by
    up to `Diagram.error` (see `panic.topology.landmarks`). Generators are computed by giotto-ph on one
    thread, whatever `threads` says; else that is for giotto-ph alone.
    `backend`: auto, annotation, ripser, collapse or giotto. `memory_limit_bytes` is what one diagram may
    need, by default three quarters of the machine's memory.
    Raises TopologyError: not finite, wrong shape, unknown metric, or too large for the memory.
    """
    if max_dimension < 0:
        raise TopologyError(f"max_dimension must be 0 or more, found {max_dimension}")
    if not threshold > 0:
        raise TopologyError(f"threshold must be above 0, found {threshold}")
    array = checked(points)
    limit = memory_limit_bytes if memory_limit_bytes is not None else default_limit_bytes()
    error = 0.0
    if metric == "precomputed":
        if landmarks is not None:
            raise TopologyError("landmarks are chosen from points, and this is a matrix of distances")
        refuse(len(array), len(array), min(max_dimension, 1), limit)
        matrix, first = _checked_matrix(array), np.arange(len(array))
        tolerance = 0.0
    else:
        rows, first = distinct_points(array)
        if landmarks is not None and len(rows) > landmarks:
            chosen, radius = farthest_points(rows, landmarks, metric=metric)
            rows, first, error = rows[chosen], first[chosen], 2 * radius
        refuse(rows.shape[0], rows.shape[1], min(max_dimension, 1), limit)  # what no back end can do without
        matrix = pairwise(rows, metric)
        tolerance = _tolerance(rows, metric)
    kept = close_groups(matrix, tolerance)
    if len(kept) < len(matrix):
        matrix, first = matrix[np.ix_(kept, kept)], first[kept]
    bars, cycles = persistence(
        matrix,
        max_dimension,
        threshold=threshold,
        backend=backend,
        generators=generators,
        threads=threads,
        num_coordinates=array.shape[1],
        limit_bytes=limit,
    )
    return Diagram(
        bars_by_dimension=bars,
        num_points=len(array),
        num_unique=len(matrix),
        error=error,
        generators=None if cycles is None else tuple(_renumber(c, first) for c in cycles),
    )


def diagrams(
    clouds: Sequence[ArrayLike],
    *,
    workers: int | None = None,
    memory_limit_bytes: int | None = None,
    **how: Any,
) -> list[Diagram]:
    """Diagrams of many clouds, in their order; `how` as for `diagram`.

    One thread per cloud on `workers` cores (all by default), the largest clouds first: our kernels and
    gudhi let go of Python's lock. The memory limit is shared by those that are computed at once. Raises as
    `diagram`.
    """
    from threadpoolctl import threadpool_limits

    count = workers or os.cpu_count() or 1
    limit = (memory_limit_bytes or default_limit_bytes()) // count
    order = sorted(range(len(clouds)), key=lambda place: -np.size(clouds[place]))

    def compute(places: Iterable[int]) -> list[tuple[int, Diagram]]:
        return [(place, diagram(clouds[place], memory_limit_bytes=limit, **how)) for place in places]

    chunks = _chunks(order, [np.size(clouds[place]) for place in order], count)
    # BLAS threads of several diagrams would wait for each other.
    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(count) as pool:
        found = dict(pair for pairs in pool.map(compute, chunks) for pair in pairs)
    return [found[place] for place in range(len(clouds))]


def _chunks(order: list[int], sizes: list[int], count: int) -> list[list[int]]:
    """Large clouds one by one, small ones in groups: a task costs more than a small diagram."""
    if not order:
        return []
    largest = max(sum(sizes) // (16 * count), 1)
    chunks: list[list[int]] = []
    room = 0
    for place, size in zip(order, sizes, strict=True):
        if room < size or not chunks:
            chunks.append([])
            room = largest
        chunks[-1].append(place)
        room -= size
    return chunks


def entropy(bars: ArrayLike) -> float:
    """Persistence entropy in nats: -sum p ln p over p = length / total length of the finite bars.

    ln n for n equal bars, 0.0 for none or one. Infinite and empty bars do not count.
    Source: Atienza et al. 2020. It grows with the number of bars: compare it with a null model.
    Raises TopologyError for NaN.
    """
    array = checked_bars(bars)
    lengths = array[:, 1] - array[:, 0]
    lengths = lengths[np.isfinite(lengths) & (lengths > 0)]
    if lengths.size < 2:
        return 0.0
    share = lengths / lengths.max()
    share /= share.sum()
    share = share[share > 0]
    return float(-(share * np.log(share)).sum())


def _tolerance(rows: NDArray[np.float64], metric: str) -> float:
    """The distance up to which two rows are one point, in the units of the metric."""
    if metric == "euclidean":
        scaled, exponent = moderate(rows)
        longest = np.einsum("nd,nd->n", scaled, scaled).max(initial=0.0)
        return float(np.ldexp(TOLERANCE * np.sqrt(longest), exponent))
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


def _renumber(cycles: NDArray[np.int64], first: NDArray[np.intp]) -> NDArray[np.int64]:
    """Vertices of the collapsed cloud as rows of the points given; -1 stays."""
    return np.where(cycles < 0, -1, np.append(first, -1)[cycles])
