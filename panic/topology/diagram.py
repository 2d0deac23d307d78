"""Persistence diagram of one point cloud: Vietoris-Rips, coefficients in the field of two elements.

Exact float64 distances that we compute ourselves (see `distances`), after collapsing equal points. With a
finite threshold only neighbours are looked for (see `graph`). Bars shorter than float32 resolves (2e-7 of
their birth) are rounding noise of the vectors and left out.

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
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from panic.topology.backends import persistence
from panic.topology.budget import Budget, refuse
from panic.topology.clouds import landmarks as farthest_points
from panic.topology.distances import (
    TOLERANCE,
    TopologyError,
    checked,
    checked_bars,
    close_groups,
    directions,
    distinct_places,
    distinct_points,
    lengths_of,
    merge_tolerance,
    pairwise,
    rows_at,
)
from panic.topology.graph import Graph, given, neighbours


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagram:
    """Bars by dimension, from 0 to `max_dimension`.

    `generators`, where computed, has one integer array per dimension whose rows belong to the rows of
    `bars`: (m, 3) = birth vertex and the two ends of the death edge in dimension 0, (m, 4) = the two ends
    of the birth edge and of the death edge above it. The numbers are rows of the points given; -1 stands
    where nothing dies. `num_unique` counts the points that were left after collapsing equal ones (and taking
    landmarks). No birth or death is further than `error` from that of all points as they were given: 0 unless
    landmarks were taken, points merged that float32 cannot tell apart, or a matrix made symmetric. `notes`
    say what was done to the input that its owner may not expect.
    """

    bars_by_dimension: tuple[NDArray[np.float64], ...]
    num_points: int
    num_unique: int
    error: float = 0.0
    notes: tuple[str, ...] = ()
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
    points: Any,
    *,
    max_dimension: int = 1,
    metric: str = "euclidean",
    threshold: float = np.inf,
    landmarks: int | None = None,
    generators: bool = False,
    backend: str = "auto",
    budget: Budget | None = None,
) -> Diagram:
    """Diagram of `points` (n, d), or of distances (n, n) with metric "precomputed".

    Metrics: euclidean, cosine (1 - cos), chordal. Equal points are one point: multiplicities add no bars.
    Given distances may hold inf (no edge) or be a scipy sparse matrix (what is not stored is no edge); two
    points of theirs are one if all their distances are equal. What is still alive at `threshold` (in units of
    the metric) has an infinite death; a small one saves time and memory. Of more than `landmarks` distinct
    points so many are taken, which moves births and deaths by up to `Diagram.error` (see
    `panic.topology.landmarks`). Generators are computed by giotto-ph.
    `backend`: auto, annotation, collapse or giotto. `budget` is what the diagram may take, by default three
    quarters of the machine's memory and 15 minutes of work.
    Raises TopologyError: not finite, wrong shape, unknown metric, or beyond the budget.
    """
    if max_dimension < 0:
        raise TopologyError(f"max_dimension must be 0 or more, found {max_dimension}")
    if not threshold > 0:
        raise TopologyError(f"threshold must be above 0, found {threshold}")
    budget = budget or Budget()
    if metric == "precomputed":
        if landmarks is not None:
            raise TopologyError("landmarks are chosen from points, and these are distances")
        cloud = _of_distances(points, threshold, min(max_dimension, 1), budget)
    else:
        cloud = _of_points(points, metric, threshold, landmarks, min(max_dimension, 1), budget)
    bars, cycles = persistence(
        cloud.distances,
        max_dimension,
        threshold=threshold,
        backend=backend,
        generators=generators,
        num_coordinates=cloud.num_coordinates,
        budget=budget,
    )
    return Diagram(
        bars_by_dimension=bars,
        num_points=cloud.num_points,
        num_unique=len(cloud.first),
        error=cloud.error,
        notes=cloud.notes,
        generators=None if cycles is None else tuple(_renumber(c, cloud.first) for c in cycles),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cloud:
    """Distances between distinct points, and what was done to get there.

    `first` (n,): the place of each point in what was given, which had `num_points`.
    """

    distances: NDArray[np.float64] | Graph
    first: NDArray[np.intp]
    num_points: int
    num_coordinates: int
    error: float = 0.0
    notes: tuple[str, ...] = ()


def _of_distances(distances: Any, threshold: float, max_dimension: int, budget: Budget) -> _Cloud:
    """Points at distance 0 are one only if they are equally far from all others: it may be no metric."""
    found, error, note = given(distances, threshold)
    if isinstance(found, Graph):
        first = np.arange(found.num_points)
        refuse(len(first), 0, max_dimension, budget.memory_bytes, num_edges=len(found))
    else:
        refuse(len(found), len(found), max_dimension, budget.memory_bytes)
        rows, first = distinct_points(found)
        first = np.sort(first)
        if len(rows) < len(found):
            found = np.ascontiguousarray(found[np.ix_(first, first)])
    return _Cloud(
        distances=found,
        first=first,
        num_points=distances.shape[0] if isinstance(found, Graph) else len(distances),
        num_coordinates=0,
        error=error,
        notes=(note,) if note else (),
    )


def _of_points(
    points: ArrayLike,
    metric: str,
    threshold: float,
    landmarks: int | None,
    max_dimension: int,
    budget: Budget,
) -> _Cloud:
    """With a finite threshold no matrix is made, but a graph of the edges up to it."""
    array = checked(points)
    first, error = distinct_places(array), 0.0
    if landmarks is not None and len(first) > landmarks:
        chosen, radius = farthest_points(rows_at(array, first), landmarks, metric=metric)
        first, error = first[chosen], 2 * radius
    distances: NDArray[np.float64] | Graph
    if np.isfinite(threshold) and len(first) > 1:
        distances = neighbours(rows_at(array, first), metric, threshold, budget.memory_bytes)
    else:
        refuse(len(first), array.shape[1], max_dimension, budget.memory_bytes)
        distances = pairwise(array, metric, first)
    cloud = _Cloud(
        distances=distances, first=first, num_points=len(array), num_coordinates=array.shape[1], error=error
    )
    return _merged(cloud, array, metric)


def _merged(cloud: _Cloud, points: NDArray[Any], metric: str) -> _Cloud:
    """The cloud without points that their dtype cannot tell from others; how far those were is its error."""
    found, is_single = cloud.distances, points.dtype == np.float32
    heads: NDArray[Any]
    tails: NDArray[Any]
    if isinstance(found, Graph):
        rows = rows_at(points, cloud.first)
        tolerance = merge_tolerance(rows, metric, is_single)
        count = int(np.searchsorted(found.lengths, tolerance, side="right"))
        heads, tails = found.heads[:count], found.tails[:count]
    else:
        # No two points are further apart than twice the farthest from the first, as cosines four times.
        largest = 4 * float(found[:1].max(initial=0.0))
        near = found <= TOLERANCE * (largest if is_single or metric == "euclidean" else 1.0)
        if np.count_nonzero(near) == len(found):  # the diagonal only
            return cloud
        rows = rows_at(points, cloud.first)
        near &= found <= merge_tolerance(rows, metric, is_single)
        heads, tails = np.nonzero(np.triu(near, k=1))
    if not len(heads):
        return cloud
    kept, nearest = close_groups(len(rows), heads, tails)
    moved = float(
        lengths_of(rows if metric == "euclidean" else directions(rows), np.arange(len(rows)), nearest).max()
    )
    return replace(
        cloud,
        distances=found.among(kept) if isinstance(found, Graph) else found[np.ix_(kept, kept)],
        first=cloud.first[kept],
        error=cloud.error + (2 * moved if metric != "cosine" else 4 * moved + 2 * moved**2),
    )


def diagrams(
    clouds: Sequence[ArrayLike],
    *,
    workers: int | None = None,
    budget: Budget | None = None,
    **how: Any,
) -> list[Diagram]:
    """Diagrams of many clouds, in their order; `how` as for `diagram`.

    One thread per cloud on `workers` cores (all by default), the largest clouds first: our kernels and
    gudhi let go of Python's lock. The memory of the budget is shared by those that are computed at once, its
    seconds are each one's. Raises as `diagram`.
    """
    from threadpoolctl import threadpool_limits

    count = workers or os.cpu_count() or 1
    budget = budget or Budget()
    share = replace(budget, memory_bytes=budget.memory_bytes // count)
    order = sorted(range(len(clouds)), key=lambda place: -np.size(clouds[place]))

    def compute(places: Iterable[int]) -> list[tuple[int, Diagram]]:
        return [(place, diagram(clouds[place], budget=share, **how)) for place in places]

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


def _renumber(cycles: NDArray[np.int64], first: NDArray[np.intp]) -> NDArray[np.int64]:
    """Vertices of the collapsed cloud as rows of the points given; -1 stays."""
    return np.where(cycles < 0, -1, np.append(first, -1)[cycles])
