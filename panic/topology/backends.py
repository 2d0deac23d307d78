"""The one place that knows who computes persistence, and whom to ask.

Input: exact float64 distances of distinct points. Output: bars per dimension over the field of two
elements. Who is asked (figures in LOG.md, 2026-11-28):

- `annotation`: our own, float64, up to dimension 2 (see `panic.topology.annotation`).
- `collapse`: gudhi's edge collapse, then its Ripser on what is left, float64. Dimensions above 2.
- `giotto`: giotto-ph, float32. Generators.

gudhi and giotto-ph are imported only when one of them is asked.

    bars, cycles = persistence(matrix, 1)
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from panic.topology.annotation import MAX_DIMENSION, annotated
from panic.topology.budget import Budget, estimate_bytes, refuse, refuse_work, simplices
from panic.topology.distances import TopologyError
from panic.topology.graph import Graph, within

BACKENDS = ("auto", "annotation", "collapse", "giotto")

_NOISE = 2.0**-22  # no bar of this relative length means anything where vectors were float32
_SIMPLEX_STEPS = 400  # of gudhi's Ripser, for each simplex that is left after collapsing: about 1 us

Bars = tuple[NDArray[np.float64], ...]


def persistence(
    distances: NDArray[np.float64] | Graph,
    max_dimension: int,
    *,
    threshold: float = np.inf,
    backend: str = "auto",
    generators: bool = False,
    num_coordinates: int = 0,
    budget: Budget | None = None,
) -> tuple[Bars, list[NDArray[np.int64]] | None]:
    """Bars (m, 2) per dimension, sorted by birth and death, and generators (see `Diagram`) or None.

    `distances` are a symmetric matrix (n, n), in which inf is no edge, or a graph of those up to the
    threshold. A class that is alive at a finite `threshold` has an infinite death. Raises TopologyError for
    an unknown back end, one that is not installed, or when the budget is used up.
    """
    if backend not in BACKENDS:
        raise TopologyError(f"unknown back end {backend!r}", hint=f"known: {', '.join(BACKENDS)}")
    num_points = distances.num_points if isinstance(distances, Graph) else len(distances)
    if num_points < 2:
        return _of_few_points(num_points, max_dimension, generators)
    budget = budget or Budget()
    size = num_points, num_coordinates, max_dimension
    if generators or backend == "giotto":
        refuse(*size, budget.memory_bytes)
        bars, cycles = _giotto(distances, max_dimension, threshold, generators)
    else:
        graph = distances if isinstance(distances, Graph) else within(distances, threshold)
        bars, cycles = _exact(graph, size, backend, budget), None
    order_of = [_order(b) for b in bars]
    ordered = tuple(b[o] for b, o in zip(bars, order_of, strict=True))
    return ordered, None if cycles is None else [c[o] for c, o in zip(cycles, order_of, strict=True)]


def _order(bars: NDArray[np.float64]) -> NDArray[np.intp]:
    """Places of the bars that mean something, by birth and death."""
    births, deaths = bars.T
    places: NDArray[np.intp] = (deaths - births > _NOISE * births).nonzero()[0]
    return places[np.lexsort((deaths[places], births[places]))] if len(places) else places


def _exact(
    graph: Graph, size: tuple[int, int, int], backend: str, budget: Budget
) -> list[NDArray[np.float64]]:
    """Bars of a graph in float64, from the back end for that dimension."""
    max_dimension = size[2]
    if backend == "annotation" or (backend == "auto" and max_dimension <= MAX_DIMENSION):
        used = estimate_bytes(*size[:2], min(max_dimension, 1), num_edges=len(graph))
        return annotated(graph, max_dimension, room_bytes=budget.memory_bytes - used, most_steps=budget.steps)
    left = _collapsed(graph, max_dimension)
    num_simplices = simplices(left, max_dimension)
    if estimate_bytes(*size) > budget.memory_bytes:
        refuse(*size, budget.memory_bytes, num_edges=len(graph), num_simplices=num_simplices)
    if num_simplices * _SIMPLEX_STEPS > budget.steps:
        so_far = (
            f"{num_simplices:,} simplices are left after collapsing, of about {_SIMPLEX_STEPS} steps each"
        )
        refuse_work(size[0], max_dimension, budget.steps, so_far)
    return _gudhi(left, max_dimension)


def _collapsed(graph: Graph, max_dimension: int) -> Any:
    """Sparse graph of the edges, collapsed (Boissonnat and Pritam 2020)."""
    from scipy.sparse import coo_matrix

    with _asked_for("gudhi"):
        from gudhi.flag_filtration.edge_collapse import reduce_graph

    coo = coo_matrix((graph.lengths, (graph.tails, graph.heads)), shape=(graph.num_points,) * 2)
    return reduce_graph(coo) if max_dimension > 1 and coo.nnz else coo


def _gudhi(graph: Any, max_dimension: int) -> list[NDArray[np.float64]]:
    with _asked_for("gudhi"):
        from gudhi.sklearn.rips_persistence import RipsPersistence

    engine = RipsPersistence(
        list(range(max_dimension + 1)),
        input_type="distance coo_matrix",
        num_collapses=0,
        homology_coeff_field=2,  # its default is 11
    )
    return [np.asarray(b, dtype=np.float64).reshape(-1, 2) for b in engine.fit_transform([graph])[0]]


def _giotto(
    distances: NDArray[np.float64] | Graph, max_dimension: int, threshold: float, generators: bool
) -> tuple[list[NDArray[np.float64]], list[NDArray[np.int64]] | None]:
    """Bars and generators of giotto-ph on one thread: on several its generators are wrong."""
    with _asked_for("giotto-ph"):
        from gph import ripser_parallel

    if isinstance(distances, Graph):
        distances = distances.matrix()
    # Scaled, exactly, so that float32 can neither overflow nor lose small clouds.
    exponent = int(np.frexp(distances.max(initial=0.0, where=np.isfinite(distances)))[1])
    if np.isinf(distances).any():  # it takes inf for a number
        threshold = min(threshold, float(np.ldexp(1.0, exponent)))
    found = ripser_parallel(
        np.ldexp(distances, -exponent),
        maxdim=max_dimension,
        thresh=float(np.ldexp(threshold, -exponent)),
        metric="precomputed",
        n_threads=1,
        return_generators=generators,
    )
    bars = [np.ldexp(b.astype(np.float64).reshape(-1, 2), exponent) for b in found["dgms"]]
    return bars, _cycles(found["gens"], max_dimension) if generators else None


@contextmanager
def _asked_for(package: str) -> Iterator[None]:
    """Say which package is missing, where one is imported that diagrams do without."""
    try:
        yield
    except ImportError as error:
        raise TopologyError(
            f"{package} is needed for what was asked, and is not installed ({error})",
            hint=f"pip install {package}; bars up to dimension {MAX_DIMENSION} need no other package",
        ) from error


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
