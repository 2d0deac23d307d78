"""The one place that knows who computes persistence, and whom to ask.

Input: exact float64 distances of distinct points. Output: bars per dimension over the field of two
elements. Who is asked (figures in LOG.md, 2026-11-27):

- `annotation`: our own, float64, up to dimension 2 (see `panic.topology.annotation`), several times faster.
- `ripser`: gudhi's Ripser on the whole matrix, float64. Where over a thousand loops are alive at once.
- `collapse`: gudhi's edge collapse, then its Ripser on what is left, float64. Dimensions above 2, and
  whatever is too large for the others.
- `giotto`: giotto-ph, float32. Generators.

The order of the vertices decides how many pairs Ripser finds without reducing anything: farthest-first
order is 1.2-2.5x faster than the order of a random walk, so large clouds are sorted that way.

    bars, cycles = persistence(matrix, 1)
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from panic.topology.annotation import annotated
from panic.topology.distances import TopologyError
from panic.topology.memory import estimate_bytes, refuse, simplices

BACKENDS = ("auto", "annotation", "ripser", "collapse", "giotto")

_NOISE = 2.0**-22  # no bar of this relative length means anything where vectors were float32
_SORT_FROM = 150  # points; below, sorting costs what it saves

Bars = tuple[NDArray[np.float64], ...]


def persistence(
    matrix: NDArray[np.float64],
    max_dimension: int,
    *,
    threshold: float = np.inf,
    backend: str = "auto",
    generators: bool = False,
    threads: int = 1,
    num_coordinates: int = 0,
    limit_bytes: int | None = None,
) -> tuple[Bars, list[NDArray[np.int64]] | None]:
    """Bars (m, 2) per dimension, sorted by birth and death, and generators (see `Diagram`) or None.

    A class that is alive at a finite `threshold` has an infinite death. Raises TopologyError for an
    unknown back end, or when the simplices that are left after collapsing exceed `limit_bytes`.
    """
    if backend not in BACKENDS:
        raise TopologyError(f"unknown back end {backend!r}", hint=f"known: {', '.join(BACKENDS)}")
    if len(matrix) < 2:
        return _of_few_points(len(matrix), max_dimension, generators)
    exponent = int(np.frexp(matrix.max())[1])
    scaled = np.ldexp(matrix, -exponent)  # exact; float32 can neither overflow nor lose small clouds
    limit = float(np.ldexp(threshold, -exponent))
    # Beyond the radius at which some point sees all others the complex is a cone: nothing happens there.
    cone = float(scaled.max(axis=1).min())
    size = len(matrix), num_coordinates, max_dimension
    if generators or backend == "giotto":
        refuse(*size, limit_bytes)
        bars, cycles = _giotto(scaled, max_dimension, limit, generators, threads)
    else:
        bars = _exact(scaled, max_dimension, min(limit, cone), limit >= cone, backend, size, limit_bytes)
        cycles = None
    bars = [np.ldexp(b, exponent) for b in bars]
    order_of = [np.lexsort((b[:, 1], b[:, 0])) for b in bars]
    order_of = [o[b[o, 1] - b[o, 0] > _NOISE * b[o, 0]] for o, b in zip(order_of, bars, strict=True)]
    sorted_bars = tuple(b[o] for o, b in zip(order_of, bars, strict=True))
    return sorted_bars, None if cycles is None else [c[o] for o, c in zip(order_of, cycles, strict=True)]


def _exact(
    matrix: NDArray[np.float64],
    max_dimension: int,
    limit: float,
    is_whole: bool,
    backend: str,
    size: tuple[int, int, int],
    limit_bytes: int | None,
) -> list[NDArray[np.float64]]:
    """Bars of the edges up to `limit` in float64, from the first back end that can.

    `is_whole`: nothing happens beyond the limit.
    """
    if backend in ("auto", "annotation"):
        room = None if limit_bytes is None else limit_bytes - estimate_bytes(*size[:2], 0)
        bars = annotated(matrix, max_dimension, limit, room_bytes=room)
        if bars is not None:
            return bars
        if backend == "annotation":
            raise TopologyError(
                "annotations do not do this: a dimension above 2, too many classes alive at once, or no room",
                hint="backend='auto' asks the next one",
            )
    is_large = limit_bytes is not None and estimate_bytes(*size) > limit_bytes
    if is_whole and not is_large and (backend == "ripser" or (backend != "collapse" and max_dimension < 2)):
        return _ripser(matrix, max_dimension)
    graph = _collapsed(matrix, limit, max_dimension)  # whatever was asked for: only it can do with less
    if is_large:
        refuse(*size, limit_bytes, simplices(graph, max_dimension))
    return _gudhi(graph, "distance coo_matrix", max_dimension)


def farthest_first(matrix: NDArray[np.float64]) -> NDArray[np.intp]:
    """Rows of a distance matrix, each the farthest from all before it (Gonzalez 1985); the first is row 0."""
    order = np.zeros(len(matrix), dtype=np.intp)
    nearest = matrix[0].copy()
    nearest[0] = -1.0
    for place in range(1, len(order)):
        order[place] = farthest = nearest.argmax()
        np.minimum(nearest, matrix[farthest], out=nearest)
        nearest[farthest] = -1.0
    return order


def _sorted(matrix: NDArray[np.float64], order: NDArray[np.intp]) -> NDArray[np.float64]:
    return np.ascontiguousarray(matrix[order[:, None], order])


def _ripser(matrix: NDArray[np.float64], max_dimension: int) -> list[NDArray[np.float64]]:
    """gudhi's Ripser on a symmetric matrix (it hangs on one that is not, by one bit)."""
    if len(matrix) >= _SORT_FROM and max_dimension > 0:
        matrix = _sorted(matrix, farthest_first(matrix))
    return _gudhi(matrix, "full distance matrix", max_dimension)


def _collapsed(matrix: NDArray[np.float64], threshold: float, max_dimension: int) -> Any:
    """Sparse graph of the edges up to `threshold`, collapsed (Boissonnat and Pritam 2020)."""
    from gudhi.flag_filtration.edge_collapse import reduce_graph
    from scipy.sparse import coo_matrix

    row, column = np.nonzero(np.tril(matrix <= threshold, k=-1))
    ends = row.astype(np.int32), column.astype(np.int32)
    graph = coo_matrix((matrix[row, column], ends), shape=matrix.shape)
    if max_dimension > 1 and graph.nnz:
        graph = reduce_graph(graph)
    if len(matrix) >= _SORT_FROM:  # after collapsing, which is slower in this order
        place = np.argsort(farthest_first(matrix)).astype(np.int32)
        graph = coo_matrix((graph.data, (place[graph.row], place[graph.col])), shape=matrix.shape)
    return graph


def _gudhi(data: Any, kind: str, max_dimension: int) -> list[NDArray[np.float64]]:
    from gudhi.sklearn.rips_persistence import RipsPersistence

    engine = RipsPersistence(
        list(range(max_dimension + 1)),
        input_type=kind,
        num_collapses=0,
        homology_coeff_field=2,  # its default is 11
    )
    return [np.asarray(b, dtype=np.float64).reshape(-1, 2) for b in engine.fit_transform([data])[0]]


def _giotto(
    matrix: NDArray[np.float64], max_dimension: int, threshold: float, generators: bool, threads: int
) -> tuple[list[NDArray[np.float64]], list[NDArray[np.int64]] | None]:
    """giotto-ph; its generators are wrong on more than one thread, so those are computed on one."""
    from gph import ripser_parallel

    found = ripser_parallel(
        matrix,
        maxdim=max_dimension,
        thresh=threshold,
        metric="precomputed",
        n_threads=1 if generators else threads,
        return_generators=generators,
    )
    bars = [b.astype(np.float64).reshape(-1, 2) for b in found["dgms"]]
    return bars, _cycles(found["gens"], max_dimension) if generators else None


def _cycles(found: Any, max_dimension: int) -> list[NDArray[np.int64]]:
    """giotto-ph's four lists of generators in the order of its bars: finite ones first, then open ones."""
    finite0, finite, open0, open_ = found
    cycles = [np.vstack([finite0.reshape(-1, 3), np.c_[open0, -np.ones((len(open0), 2))]]).astype(np.int64)]
    for k in range(max_dimension):
        ends = np.c_[open_[k].reshape(-1, 2), -np.ones((len(open_[k]), 2))]
        cycles.append(np.vstack([finite[k].reshape(-1, 4), ends]).astype(np.int64))
    return cycles


def _of_few_points(
    num_points: int, max_dimension: int, generators: bool
) -> tuple[Bars, list[NDArray[np.int64]] | None]:
    """No point has no bars, one point has one that never ends; the libraries raise or hang there."""
    bars = [np.empty((0, 2)) for _ in range(max_dimension + 1)]
    cycles = [np.empty((0, 3 if k == 0 else 4), dtype=np.int64) for k in range(max_dimension + 1)]
    if num_points == 1:
        bars[0], cycles[0] = np.array([[0.0, np.inf]]), np.array([[0, -1, -1]])
    return tuple(bars), cycles if generators else None
