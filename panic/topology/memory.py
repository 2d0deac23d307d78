"""What a diagram may need in memory, and the refusal of one that would not fit.

The estimate is a bound that can be worked out before anything large exists: a cloud is refused with its
arithmetic, never killed by the system half way. Above dimension 1 the number of simplices decides; it is
bounded by C(n, k + 1) at first, and counted in the collapsed graph where that bound is above the limit.
Peaks measured beside it (LOG.md, 2026-11-21): 62-112 bytes per pair of points, at most 2 per triangle.

    estimate_bytes(1000, 768, 2)     # bytes, before anything is known about the distances
"""

from __future__ import annotations

import os
from math import comb, factorial
from typing import Any

import numpy as np

from panic.topology.distances import TopologyError

BYTES_PER_COORDINATE = 28
"""Of each number of each point: float32 as stored, joined and without duplicates; float64, and centred."""
BYTES_PER_POINT_PAIR = 32
"""Of each of the n^2 entries of a distance matrix: float64, in up to four matrices at a time."""
BYTES_PER_EDGE = 64
BYTES_PER_COLUMN = 16
"""Of each simplex above an edge. Apparent pairs never become columns, so most need nothing."""


def estimate_bytes(
    num_points: int, num_coordinates: int, max_dimension: int, num_simplices: int | None = None
) -> int:
    """Most memory one diagram can need; `num_simplices` counts those of dimension 2 to `max_dimension`."""
    if num_simplices is None:
        num_simplices = sum(comb(num_points, k + 1) for k in range(2, max_dimension + 1))
    edges = comb(num_points, 2) if max_dimension > 0 else 0
    return (
        BYTES_PER_COORDINATE * num_points * num_coordinates
        + BYTES_PER_POINT_PAIR * num_points**2
        + BYTES_PER_EDGE * edges
        + BYTES_PER_COLUMN * num_simplices
    )


def refuse(
    num_points: int,
    num_coordinates: int,
    max_dimension: int,
    limit_bytes: int | None,
    num_simplices: int | None = None,
) -> None:
    """Raise TopologyError with the arithmetic when the estimate is above `limit_bytes`."""
    need = estimate_bytes(num_points, num_coordinates, max_dimension, num_simplices)
    if limit_bytes is None or need <= limit_bytes:
        return
    n = f"{num_points:,}"
    terms = [
        f"{BYTES_PER_COORDINATE} x {n} x {num_coordinates:,} bytes for the points",
        f"{BYTES_PER_POINT_PAIR} x {n}^2 for matrices",
    ]
    if max_dimension > 0:
        terms.append(f"{BYTES_PER_EDGE} x C({n}, 2) for edges")
    if num_simplices is not None:
        terms.append(f"{BYTES_PER_COLUMN} x {num_simplices:,} simplices that are left after collapsing")
    elif max_dimension > 1:
        counts = " + ".join(f"C({n}, {k + 1})" for k in range(2, max_dimension + 1))
        terms.append(f"{BYTES_PER_COLUMN} x ({counts}) for columns")
    raise TopologyError(
        f"a diagram of {n} distinct points up to dimension {max_dimension} may need {_gib(need)}, "
        f"the limit is {_gib(limit_bytes)} ({' + '.join(terms)})",
        hint="take fewer points (a part of the run, or landmarks with their stated error), "
        "a smaller max_dimension, or a threshold",
    )


def simplices(graph: Any, max_dimension: int) -> int:
    """Cliques of 3 to `max_dimension` + 1 vertices of a sparse graph: triangles counted, larger ones bounded.

    N triangles hold at most (6 N)^(4/3) / 24 tetrahedra, and so on (Kruskal and Katona).
    """
    from scipy.sparse import csr_array

    if max_dimension < 2:
        return 0
    ends = np.minimum(graph.row, graph.col), np.maximum(graph.row, graph.col)
    upper = csr_array((np.ones(len(graph.row), dtype=np.int64), ends), shape=graph.shape)
    count = total = int((upper @ upper).multiply(upper).sum())
    for size in range(4, max_dimension + 2):
        count = int((count * factorial(size - 1)) ** (size / (size - 1)) / factorial(size))
        total += count
    return total


def default_limit_bytes() -> int:
    """Three quarters of the machine's memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") * 3 // 4


def _gib(num_bytes: int) -> str:
    if num_bytes < 2**27:
        return f"{num_bytes / 2**20:,.2f} MiB"
    return f"{num_bytes / 2**30:,.2f} GiB"
