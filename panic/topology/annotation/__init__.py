"""Bars of dimension 0 to 2 of a Rips filtration by annotations, 64 classes at a time: our own back end.

Loops are found in the whole graph (`loops`), cavities in the collapsed one (`collapse`, `cavities`). Figures
against Ripser are in LOG.md, 2026-11-27.

    bars = annotated(matrix, 2, limit=1.5)     # distances (n, n), edges up to 1.5
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

MAX_DIMENSION = 2
_MOST_WORDS = {1: 16, 2: 64}
"""By dimension; a word holds 63 loops or 64 cavities. With more, whoever reduces columns is faster."""
_BYTES_PER_PAIR = 64


def annotated(
    matrix: NDArray[np.float64], max_dimension: int, limit: float, *, room_bytes: int | None = None
) -> list[NDArray[np.float64]] | None:
    """Bars (m, 2) per dimension, of distances (n, n) up to `limit`; what is still alive there never dies.

    None where that would take more than `room_bytes` (for all classes alive at once), above dimension 2, and
    where too many are alive.
    """
    num_points = len(matrix)
    room = np.inf if room_bytes is None else room_bytes - _BYTES_PER_PAIR * num_points * (num_points - 1) / 2
    if max_dimension > MAX_DIMENSION or room < 0:
        return None
    from panic.topology.annotation import cavities, collapse, compiling, loops

    compiling.keep()
    heads, tails, lengths = edges(matrix, limit)
    if max_dimension == 0:
        return [_from_zero(loops.components(num_points, heads, tails, lengths), num_points)]
    if max_dimension == 1:
        work, bytes_per_word = partial(loops.loops, num_points, heads, tails, lengths), 8 * num_points**2
    else:
        stays, comes = collapse.collapse(num_points, heads, tails)
        heads, tails, lengths = heads[stays], tails[stays], lengths[comes]
        num_triangles = cavities.triangles(num_points, heads, tails)
        work = partial(cavities.cavities, num_points, heads, tails, lengths, num_triangles)
        bytes_per_word = 8 * (len(lengths) + num_triangles)
        room -= 8 * len(lengths) * ((num_points + 63) // 64)  # links
    words = 1
    while words <= _MOST_WORDS[max_dimension] and words * bytes_per_word <= room:
        is_enough, deaths, *bars = work(words)
        if is_enough:
            found = [np.column_stack(bars)] if max_dimension == 1 else bars
            return [_from_zero(deaths, num_points), *found]
        words *= 2
    return None


def prepare() -> Path | None:
    """Compile every kernel, or load it where it is kept, so that no later call waits for that.

    Returns the folder where other processes find them; None if there is none that can be written, so that
    each process compiles for itself. Takes 10 to 20 s of one core the first time, 0.5 s after that.
    """
    from panic.topology.annotation import compiling

    triangle = np.ones((3, 3)) - np.eye(3)
    for dimension in range(MAX_DIMENSION + 1):
        annotated(triangle, dimension, 1.0)
    return compiling.keep()


def edges(
    matrix: NDArray[np.float64], limit: float
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float64]]:
    """Ends and lengths of the edges up to `limit`, in order of length."""
    from panic.topology.annotation.loops import short_pairs

    heads, tails, lengths = short_pairs(matrix, limit)
    order = np.argsort(lengths)
    return heads[order], tails[order], lengths[order]


def _from_zero(deaths: NDArray[np.float64], num_points: int) -> NDArray[np.float64]:
    """Bars of dimension 0: every point is born at 0, and what no edge joins never dies."""
    bars = np.zeros((num_points, 2))
    bars[: len(deaths), 1] = deaths
    bars[len(deaths) :, 1] = np.inf
    return bars
