"""What a diagram may cost, in memory and in work, and the refusal of one that would cost more.

The memory is a bound that can be worked out before anything large exists: a cloud is refused with its
arithmetic, never killed by the system half way. Above dimension 1 the number of simplices decides; it is
bounded by C(n, k + 1) at first, and counted in the collapsed graph where that bound is above the limit.
Work is counted while it is done, in machine words that are looked at, so that what is refused does not depend
on how busy the machine is.

    diagram(points, max_dimension=2, budget=Budget(memory_bytes=2**30, seconds=60))
    estimate_bytes(1000, 768, 2)     # bytes, before anything is known about the distances
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from functools import cache
from math import comb, factorial
from typing import Any, NoReturn

import numpy as np

from panic.topology.distances import TopologyError

STEPS_PER_S = 4e8
"""Words that a kernel looks at in a second on one core; measured: 0.8 to 5e8, by kind of cloud."""
BYTES_PER_COORDINATE = 28
"""Of each number of each point: float32 as stored, joined and without duplicates; float64, and centred."""
BYTES_PER_POINT_PAIR = 32
"""Of each of the n^2 entries of a distance matrix: float64, in up to four matrices at a time."""
BYTES_PER_EDGE = 64
"""Of each edge, sorted and numbered."""
BYTES_PER_COLUMN = 16
"""Of each simplex above an edge. Apparent pairs never become columns, so most need nothing."""


@cache
def default_limit_bytes() -> int:
    """Three quarters of the machine's memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") * 3 // 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What one diagram may take: bytes of memory, and seconds of work at `STEPS_PER_S`.

    The seconds are steps that are counted, not a clock: the same cloud is refused on every machine, however
    busy, and one that is slower takes longer.
    """

    memory_bytes: int = field(default_factory=default_limit_bytes)
    seconds: float = 900.0

    @property
    def steps(self) -> int:
        """The most words that kernels may look at."""
        return int(min(self.seconds * STEPS_PER_S, 2**62))


def estimate_bytes(
    num_points: int,
    num_coordinates: int,
    max_dimension: int,
    *,
    num_edges: int | None = None,
    num_simplices: int | None = None,
) -> int:
    """Most memory one diagram can need.

    `num_edges`: those up to a threshold, when no matrix of all distances is made; `num_simplices`: those of
    dimension 2 to `max_dimension`.
    """
    if num_simplices is None:
        num_simplices = sum(comb(num_points, k + 1) for k in range(2, max_dimension + 1))
    matrices = BYTES_PER_POINT_PAIR * num_points**2 if num_edges is None else num_points**2 // 4
    edges = comb(num_points, 2) if num_edges is None else num_edges
    return (
        BYTES_PER_COORDINATE * num_points * num_coordinates
        + matrices
        + BYTES_PER_EDGE * (edges if max_dimension > 0 or num_edges is not None else 0)
        + BYTES_PER_COLUMN * num_simplices
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What diagrams will take: seconds for the easiest and the hardest kind of cloud, and bytes at once."""

    least_s: float
    most_s: float
    memory_bytes: int


def estimate(
    num_diagrams: int,
    num_points: int,
    num_coordinates: int,
    max_dimension: int,
    *,
    workers: int = 1,
    budget: Budget | None = None,
) -> Estimate:
    """Time and memory of diagrams of as many distinct points, before any is computed; for a dry run.

    Between walks and stuck runs (the least) and noise in hundreds of dimensions (the most), up to the budget,
    beyond which a diagram is refused. Fitted to 50 to 2,000 points up to dimension 1 and 50 to 500 in
    dimension 2, right to a factor of two on the machine they were measured on (noise of 50 points in
    dimension 2: three). Repeated points cost nothing, so a stuck run takes less. Above dimension 2 the least
    is that of dimension 2 and the most the budget.
    """
    budget = budget or Budget()
    n = float(num_points)
    loops = 1e-4 + n**2 * (2.2e-11 * num_coordinates + 2.2e-8) + 2.5e-11 * n**3
    least, most = loops, loops + 1e-7 * n**2 + 7e-10 * n**3
    if max_dimension > 1:
        least, most = least + 6e-10 * n**3, most + 0.02 * (n / 100) ** 5
    if max_dimension > 2:
        most = budget.seconds
    at_once = min(workers, num_diagrams)
    waves = num_diagrams / max(at_once, 1)
    return Estimate(
        least_s=waves * min(least, budget.seconds),
        most_s=waves * min(most, budget.seconds),
        memory_bytes=at_once * estimate_bytes(num_points, num_coordinates, min(max_dimension, 1)),
    )


def refuse(
    num_points: int,
    num_coordinates: int,
    max_dimension: int,
    limit_bytes: int,
    *,
    num_edges: int | None = None,
    num_simplices: int | None = None,
) -> None:
    """Raise TopologyError with the arithmetic when the estimate is above `limit_bytes`."""
    need = estimate_bytes(
        num_points, num_coordinates, max_dimension, num_edges=num_edges, num_simplices=num_simplices
    )
    if need <= limit_bytes:
        return
    n = f"{num_points:,}"
    terms = [f"{BYTES_PER_COORDINATE} x {n} x {num_coordinates:,} bytes for the points"]
    if num_edges is None:
        terms.append(f"{BYTES_PER_POINT_PAIR} x {n}^2 for matrices")
        if max_dimension > 0:
            terms.append(f"{BYTES_PER_EDGE} x C({n}, 2) for edges")
    else:
        terms.append(f"{n}^2 / 4 for sets of neighbours")
        terms.append(f"{BYTES_PER_EDGE} x {num_edges:,} edges")
    if num_simplices is not None:
        terms.append(f"{BYTES_PER_COLUMN} x {num_simplices:,} simplices that are left after collapsing")
    elif max_dimension > 1:
        counts = " + ".join(f"C({n}, {k + 1})" for k in range(2, max_dimension + 1))
        terms.append(f"{BYTES_PER_COLUMN} x ({counts}) for columns")
    raise TopologyError(
        f"a diagram of {n} distinct points up to dimension {max_dimension} may need {_gib(need)}, "
        f"the limit is {_gib(limit_bytes)} ({' + '.join(terms)})",
        hint=_HINT,
    )


def refuse_work(num_points: int, max_dimension: int, most_steps: int, so_far: str) -> NoReturn:
    """Raise TopologyError for a diagram that has used up its steps; `so_far` says how far it came."""
    raise TopologyError(
        f"a diagram of {num_points:,} distinct points up to dimension {max_dimension} takes more than "
        f"{most_steps / STEPS_PER_S:,.3g} s of work ({most_steps:,} steps of {1e9 / STEPS_PER_S:.1f} ns); "
        f"{so_far}",
        hint=_HINT,
    )


def refuse_memory(
    num_points: int, max_dimension: int, need_bytes: int, room_bytes: int, term: str
) -> NoReturn:
    """Raise TopologyError for a diagram that needs more beside its points and edges than there is left."""
    raise TopologyError(
        f"a diagram of {num_points:,} distinct points up to dimension {max_dimension} needs "
        f"{_gib(need_bytes)} beside its distances ({term}), {_gib(max(room_bytes, 0))} of the limit are left",
        hint=_HINT,
    )


_HINT = (
    "take fewer points (a part of the run, or landmarks with their stated error), a smaller max_dimension, "
    "or a threshold"
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


def _gib(num_bytes: int) -> str:
    if num_bytes < 2**27:
        return f"{num_bytes / 2**20:,.2f} MiB"
    return f"{num_bytes / 2**30:,.2f} GiB"
