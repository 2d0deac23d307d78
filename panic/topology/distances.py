"""Pairwise distances of a point cloud, exact enough for topology: float64, symmetric, duplicates collapsed.

A caption that comes back gives the same point again, and a model call of another shape gives it again up
to the last float32 bits. Left in, such points make bars of rounding noise (measured: 540 H0 bars for 150
distinct points, and H2 a thousand times slower). So equal rows are collapsed before anything is computed,
and float32 rows closer than `TOLERANCE` times the usual distance in the cloud after it; multiplicities add no
topology. Points in float64 are different when they differ.

    from panic.topology import distinct_points, pairwise
    rows, first = distinct_points(points)       # first[i]: the place of rows[i] in points
    matrix = pairwise(rows, "cosine")           # (n, n), zero diagonal, symmetric to the bit
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from panic.errors import UsageError

METRICS = ("euclidean", "cosine", "chordal")

TOLERANCE = 1e-7
"""Float32 points this close, relative to the median distance in their cloud, are one: its rounding is 6e-8.

The median belongs to the cloud wherever it lies, and a point far off does not change it.
"""

CLOSE = 1e-3
"""Below this distance (cloud scaled to 1) the Gram form has lost digits that float32 shows."""

_OWN_ROUNDING = 1e-15  # of directions of length one, computed in float64
_SAMPLE = 250  # points that tell the median distance
_CHUNK = 2048  # pairs recomputed at a time: 2048 x 768 x 8 bytes = 12 MiB


class TopologyError(UsageError, ValueError):
    """The points, the metric or the size asked for cannot give a diagram; the message says why."""


def unmasked(values: ArrayLike) -> NDArray[Any]:
    """Return an array. Raises TopologyError where a mask hides values: numpy would take what is behind it."""
    if isinstance(values, np.ma.MaskedArray) and np.ma.is_masked(values):
        raise TopologyError(
            "some values are masked", hint="leave those rows out, for example by compress_rows"
        )
    return np.asarray(values)


def checked(points: ArrayLike) -> NDArray[Any]:
    """The points as a finite real (n, d) array; no points at all are (0, 0). Raises TopologyError."""
    if hasattr(points, "tocoo"):
        raise TopologyError("a sparse matrix can hold distances, not points", hint="metric='precomputed'")
    array = unmasked(points)
    if array.size == 0 and (array.ndim < 2 or len(array) == 0):
        return np.empty((0, 0))
    if array.ndim != 2:
        raise TopologyError(f"points must be an (n, d) array, found the shape {array.shape}")
    if array.dtype.kind not in "biuf":
        raise TopologyError(f"points must be real numbers, found {array.dtype}")
    array = _floats(array)
    if np.isfinite(np.vdot(array, array)):  # one look at each number
        return array
    bad = np.flatnonzero(~np.isfinite(array).all(axis=1))
    if bad.size:
        raise TopologyError(
            f"{bad.size} of {len(array)} points hold NaN or infinity (the first is row {bad[0]})",
            hint="leave those steps out, or find the model call that made them",
        )
    return array


def _floats(points: NDArray[Any]) -> NDArray[Any]:
    return points if points.dtype in (np.float32, np.float64) else points.astype(np.float64)


def checked_bars(bars: ArrayLike) -> NDArray[np.float64]:
    """Bars as (m, 2) float64; a death may be inf.

    Raises TopologyError for another shape, NaN, another infinite end, or a death before its birth.
    """
    array = unmasked(bars).astype(np.float64)
    array = array if array.size else array.reshape(0, 2)
    if array.ndim != 2 or array.shape[1] != 2:
        raise TopologyError(
            f"bars must be an (m, 2) array of births and deaths, found the shape {array.shape}"
        )
    if np.isnan(array).any() or np.isinf(array[:, 0]).any() or np.isneginf(array[:, 1]).any():
        raise TopologyError("bars must be births and deaths; only a death may be infinite, none may be NaN")
    if (before := np.flatnonzero(array[:, 1] < array[:, 0])).size:
        birth, death = array[before[0]]
        raise TopologyError(
            f"{before.size} of {len(array)} bars die before they are born (the first: {birth:g}, {death:g})"
        )
    return array


def distinct_points(points: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Distinct rows (m, d) as float64, and the first place (m,) of each in `points`.

    The order of the rows depends on their values alone, so whatever is computed from them is the same,
    to the bit, for any order of the points.
    """
    first = distinct_places(points)
    return rows_at(points, first), first


def rows_at(points: NDArray[Any], places: NDArray[np.intp]) -> NDArray[np.float64]:
    """Rows of the points (n, d) at some places (m,), as float64; no zero of them is negative."""
    rows = points[places].astype(np.float64, copy=False)
    rows += 0.0
    return rows


def distinct_places(points: NDArray[Any]) -> NDArray[np.intp]:
    """First places of the distinct rows, in an order of their values; eight bytes mostly tell."""
    if points.shape[1] == 0:
        return np.arange(min(len(points), 1))
    points = _floats(points)
    num_leading = 8 // points.itemsize
    if points.shape[1] >= num_leading:
        leading = np.ascontiguousarray(points[:, :num_leading]) + 0.0
        keys = leading.view(">u8").ravel().astype(np.uint64)
        first = np.argsort(keys)
        keys = keys[first]
        if (keys[1:] != keys[:-1]).all():
            return first
    rows = np.ascontiguousarray(points) + 0.0  # -0.0 becomes 0.0: equal numbers are equal bytes
    as_bytes = rows.view(np.dtype((np.void, rows.itemsize * rows.shape[1]))).ravel()
    return np.unique(as_bytes, return_index=True)[1]  # 14x faster than np.unique(axis=0)


def pairwise(
    points: NDArray[Any], metric: str = "euclidean", places: NDArray[np.intp] | None = None
) -> NDArray[np.float64]:
    """Distances (n, n) of the rows of `points` (n, d), or of those at some places (n,).

    They are symmetric to the bit, with a zero diagonal.
    `chordal` is the Euclidean distance of the directions, `cosine` is 1 - cos = chordal^2 / 2 (no metric,
    but it orders pairs alike). Relative error about 1e-9 also for close pairs, which the Gram form alone
    would lose. Raises TopologyError for an unknown metric, or a zero vector where directions are compared.
    """
    if metric not in METRICS:
        raise TopologyError(f"unknown metric {metric!r}", hint=f"known: {', '.join(METRICS)}, precomputed")
    points, places = _floats(points), np.arange(len(points)) if places is None else places
    if metric == "euclidean":
        return _euclidean(points, places)
    chordal = _euclidean(directions(rows_at(points, places)), np.arange(len(places)))
    return chordal if metric == "chordal" else chordal**2 / 2


def directions(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rows scaled to length one. Raises TopologyError for a zero row."""
    points = points / np.maximum(np.abs(points).max(axis=1, keepdims=True, initial=0.0), _TINY)
    lengths = np.linalg.norm(points, axis=1, keepdims=True)
    if (lengths == 0).any():
        raise TopologyError("a zero vector has no direction", hint="use metric='euclidean'")
    scaled: NDArray[np.float64] = points / lengths
    return scaled


def merge_tolerance(rows: NDArray[np.float64], metric: str, is_single: bool) -> float:
    """The distance up to which two of the rows (n, d) are one point, in the units of the metric.

    `is_single`: they were float32. Else only directions that our own division made different are one.
    """
    if not is_single:
        return {"euclidean": 0.0, "chordal": _OWN_ROUNDING, "cosine": _OWN_ROUNDING**2 / 2}[metric]
    some = pairwise(rows[:: max(len(rows) // _SAMPLE, 1)], metric)
    if len(some) < 2:
        return 0.0
    usual = float(np.median(some[np.triu_indices(len(some), k=1)]))
    return usual * (TOLERANCE**2 if metric == "cosine" else TOLERANCE)


def close_groups(
    num_points: int, heads: NDArray[Any], tails: NDArray[Any]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """First members of the groups that pairs of points connect, in order, and that of each point (n,)."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    near = coo_array((np.ones(len(heads), dtype=np.int8), (heads, tails)), shape=(num_points, num_points))
    first, group = np.unique(
        connected_components(near, directed=False)[1], return_index=True, return_inverse=True
    )[1:]
    return np.sort(first), first[group]


_TINY = np.finfo(np.float64).tiny
_MODERATE = 200  # powers of two: a copy of 100 x 768 numbers is 5 % of a small diagram
_SMALL, _GREAT = 2.0**-_MODERATE, 2.0**_MODERATE


def _euclidean(points: NDArray[Any], places: NDArray[np.intp]) -> NDArray[np.float64]:
    """Gram form of the centred points; close pairs again from their differences."""
    from panic.topology.annotation.pairs import centred, distances_from_products

    if len(places) < 2 or not points.shape[1]:
        return np.zeros((len(places),) * 2)
    (x, largest), exponent = centred(points, places), 0
    if not _SMALL < largest < _GREAT:
        points, exponent = moderate(rows_at(points, places))
        places = np.arange(len(points))
        x = centred(points, places)[0]
    matrix: NDArray[np.float64] = x @ x.T
    num_close, limit = distances_from_products(matrix, CLOSE)
    if num_close:
        i, j = np.nonzero(np.triu(matrix < limit, k=1))
        matrix[i, j] = matrix[j, i] = lengths_of(rows_at(points, places), i, j)  # centring rounds
    if exponent:
        with np.errstate(over="ignore"):
            np.ldexp(matrix, exponent, out=matrix)
        if np.isinf(matrix).any():  # which would mean that there is no edge
            raise TopologyError(
                f"some points are further apart than {np.finfo(np.float64).max:.3g}", hint="scale them"
            )
    return matrix


def lengths_of(points: NDArray[np.float64], i: NDArray[Any], j: NDArray[Any]) -> NDArray[np.float64]:
    """Distances (k,) of k pairs of rows of the points (n, d), from their differences."""
    lengths = np.empty(len(i))
    for start in range(0, len(i), _CHUNK):
        difference = points[i[start : start + _CHUNK]] - points[j[start : start + _CHUNK]]
        lengths[start : start + _CHUNK] = np.sqrt(np.einsum("kd,kd->k", difference, difference))
    return lengths


def moderate(points: NDArray[np.float64]) -> tuple[NDArray[np.float64], int]:
    """The points as x and e, points = x 2^e: x can be squared, neither overflowing nor vanishing. Exact."""
    largest = max(float(points.max(initial=0.0)), -float(points.min(initial=0.0)))
    exponent = int(np.frexp(largest)[1])
    return (points, 0) if abs(exponent) < _MODERATE else (np.ldexp(points, -exponent), exponent)
