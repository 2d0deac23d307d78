"""Bars of dimension 0 to 2 of a Rips filtration by annotations, 64 classes at a time.

Loops are found in the whole graph (`loops`), cavities in the collapsed one (`collapse`, `cavities`). Kernels,
and numba with them, are imported by the first cloud: who only plans or reads diagrams does not wait for them.
Figures against other libraries are in LOG.md, 2026-11-28.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from panic.topology.budget import refuse_memory, refuse_work
from panic.topology.distances import TopologyError, pairwise
from panic.topology.graph import Graph, within

MAX_DIMENSION = 2
GROWING = 3
"""Memory for the annotations of triangles, in multiples of what they take: they move when they double."""


def annotated(
    graph: Graph, max_dimension: int, *, room_bytes: int = 2**62, most_steps: int = 2**62
) -> list[NDArray[np.float64]]:
    """Bars (m, 2) per dimension; what is still alive at the last edge never dies.

    Raises TopologyError above dimension 2, and where it would take more than `room_bytes` beside the graph
    or more than `most_steps`.
    """
    if max_dimension > MAX_DIMENSION:
        raise TopologyError(f"annotations find bars up to dimension 2, {max_dimension} was asked for")
    if max_dimension == 0:
        return [_components(graph)]
    return (_with_loops if max_dimension == 1 else _with_cavities)(graph, room_bytes, most_steps)


def prepare() -> Path | None:
    """Compile every kernel, or load it where it is kept, so that no later call waits for that.

    Returns the folder where other processes find them; None if there is none that can be written, so that
    each process compiles for itself. Takes 10 to 20 s of one core the first time, 1 s after that.
    """
    from panic.topology.annotation import compiling

    for points in (np.eye(3), np.eye(3, dtype=np.float32)):
        pairwise(points)
        points.setflags(write=False)  # kernels are compiled anew for arrays that cannot be written
        graph = within(pairwise(points))
    for dimension in range(MAX_DIMENSION + 1):
        annotated(graph, dimension)
    return compiling.keep()


def _components(graph: Graph) -> NDArray[np.float64]:
    from panic.topology.annotation import compiling, loops

    compiling.keep()
    return _from_zero(loops.components(graph.num_points, graph.heads, graph.tails, graph.lengths), graph)


def _with_loops(graph: Graph, room_bytes: int, most_steps: int) -> list[NDArray[np.float64]]:
    from panic.topology.annotation import compiling, loops

    compiling.keep()
    most_words = max(room_bytes, 0) // 8
    zero, one, words, steps = loops.loops(
        graph.num_points, graph.heads, graph.tails, graph.lengths, most_words, most_steps
    )
    if words > most_words:
        term = f"8 x {words:,} bytes for {len(one):,} loops"
        refuse_memory(graph.num_points, 1, 8 * words, room_bytes, term)
    if steps > most_steps:
        so_far = f"not all of {len(graph):,} edges were looked at, {len(one):,} loops were found"
        refuse_work(graph.num_points, 1, most_steps, so_far)
    return [zero, one]


def _with_cavities(graph: Graph, room_bytes: int, most_steps: int) -> list[NDArray[np.float64]]:
    from panic.topology.annotation import cavities, collapse, compiling

    compiling.keep()
    size = graph.num_points
    stays, comes, num_done, steps = collapse.collapse(size, graph.heads, graph.tails, most_steps)
    if steps > most_steps:
        refuse_work(size, 2, most_steps, f"{num_done:,} of {len(graph):,} edges were collapsed")
    heads, tails, lengths = graph.heads[stays], graph.tails[stays], graph.lengths[comes]
    left = f"{len(lengths):,} edges that are left after collapsing"
    opposite = 2 * 8 * len(lengths) * ((size + 63) // 64)
    words = 1
    while True:
        need, term = opposite + 8 * words * len(lengths), f"8 x {words} bytes for each of {left}"
        if need > room_bytes:
            refuse_memory(size, 2, need, room_bytes, term)
        most_rows = (room_bytes - need) // (GROWING * 8 * words)
        done, more, rows, deaths, *bars = cavities.cavities(
            size, heads, tails, lengths, words, most_steps - steps, most_rows
        )
        if rows > most_rows:
            need += GROWING * 8 * words * rows
            refuse_memory(size, 2, need, room_bytes, f"{term}, and of {rows:,} of their triangles")
        steps += more
        if steps > most_steps:
            alive = f"{32 * words:,} to {64 * words:,}" if words > 1 else "up to 64"
            refuse_work(
                size, 2, most_steps,
                f"{done:,} of {len(lengths):,} edges were done, with room for {64 * words:,} classes at once "
                f"and {alive} of them alive, of {left}",
            )  # fmt: skip
        if done == len(lengths):
            return [_from_zero(deaths, graph), *bars]
        words *= 2


def _from_zero(deaths: NDArray[np.float64], graph: Graph) -> NDArray[np.float64]:
    """Bars of dimension 0: every point is born at 0, and what no edge joins never dies."""
    bars = np.zeros((graph.num_points, 2))
    bars[: len(deaths), 1] = deaths
    bars[len(deaths) :, 1] = np.inf
    return bars
