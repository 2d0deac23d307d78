"""Distances of all pairs of points from their products, and the pairs in order of distance.

Lengths are sorted with the numbers of their pair behind their leading bits, in one integer: that takes a
third of the time of finding an order for them, and less memory. What the lost bits confuse is put right.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from panic.topology.annotation.compiling import compiled, keep

_TILE = 64  # rows and columns: what is mirrored stays in the nearest cache
_ONE: Any = np.uint64(1)


def centred(points: Any, places: Any) -> tuple[Any, float]:
    """Rows of the points (n, d) at places (m,) as float64, around their mean; the largest number left."""
    keep()
    return _centred(np.ascontiguousarray(points), places)


def distances_from_products(products: Any, close: float) -> tuple[int, float]:
    """Turn products of centred points (n, n) into distances; how many are below a limit, and the limit.

    The limit is `close` times the distance of the farthest point from the centre. Only products above the
    diagonal are read, so that the distances are symmetric to the bit.
    """
    keep()
    return _distances(products, close)


def pairs_in_order(matrix: Any, limit: float) -> tuple[Any, Any, Any]:
    """Ends i < j (m,) int32 of the pairs of a distance matrix (n, n) up to `limit`, and their rising lengths.

    Pairs beyond the least radius at which one point sees all others are left out.
    """
    keep()
    matrix = np.ascontiguousarray(matrix)
    width = np.uint64(max(len(matrix) - 1, 1).bit_length())
    keys = _keys(matrix, matrix.view(np.uint64), limit, width)
    keys.sort()
    heads, tails, lengths, is_sorted = _edges(keys, matrix, width)
    if is_sorted:
        return heads, tails, lengths
    order = np.argsort(lengths, kind="stable")
    return heads[order], tails[order], lengths[order]


@compiled
def _centred(points: Any, places: Any) -> tuple[Any, float]:
    mean = np.zeros(points.shape[1])
    for i in range(len(places)):
        row = points[places[i]]
        for k in range(len(mean)):
            mean[k] += row[k]
    mean /= len(places)
    rows, largest = np.empty((len(places), len(mean))), np.zeros(len(mean))
    for i in range(len(places)):
        row, around = points[places[i]], rows[i]
        for k in range(len(mean)):
            around[k] = row[k] - mean[k]
            size = abs(around[k])
            largest[k] = size if size > largest[k] else largest[k]
    return rows, largest.max()


@compiled
def _distances(products: Any, close: float) -> tuple[int, float]:
    size = len(products)
    squares, largest = np.empty(size), 0.0
    for i in range(size):
        squares[i] = products[i, i]
        products[i, i] = 0.0
        largest = max(largest, squares[i])
    limit, num_close = close * close * largest, 0
    for top in range(0, size, _TILE):
        for left in range(top, size, _TILE):
            for i in range(top, min(top + _TILE, size)):
                for j in range(max(left, i + 1), min(left + _TILE, size)):
                    square = squares[i] + squares[j] - 2.0 * products[i, j]
                    num_close += square < limit
                    products[i, j] = np.sqrt(0.0 if square <= 0.0 else square)  # what is no number stays so
            for j in range(left, min(left + _TILE, size)):
                for i in range(top, min(top + _TILE, j)):
                    products[j, i] = products[i, j]
    return num_close, np.sqrt(limit)


@compiled
def _keys(matrix: Any, bits: Any, limit: float, width: Any) -> Any:
    """The leading bits of each length up to the limit, then its pair: two numbers of `width` bits."""
    size = len(matrix)
    farthest = matrix[0].copy()
    for i in range(1, size):
        for j in range(size):
            farthest[j] = farthest[j] if farthest[j] > matrix[i, j] else matrix[i, j]
    for j in range(size):
        limit = min(limit, farthest[j])
    leading = ~((_ONE << (width + width)) - _ONE)
    keys = np.empty(size * (size - 1) // 2 + 1, np.uint64)
    found = 0
    for i in range(size):
        for j in range(i + 1, size):
            # A length is not negative, so its bits are in the order of its value; the sign's is not needed.
            keys[found] = (bits[i, j] << _ONE) & leading | np.uint64(i) << width | np.uint64(j)
            found += matrix[i, j] <= limit
    return keys[:found]


@compiled
def _edges(keys: Any, matrix: Any, width: Any) -> tuple[Any, Any, Any, bool]:
    """The pairs of the keys, and their lengths; whether these could be put in order by a few steps each."""
    size = len(keys)
    heads, tails, lengths = np.empty(size, np.int32), np.empty(size, np.int32), np.empty(size)
    last = (_ONE << width) - _ONE
    left = 4 * size
    for e in range(size):
        i, j = (keys[e] >> width) & last, keys[e] & last
        length, at = matrix[i, j], e
        while at > 0 and left >= 0 and lengths[at - 1] > length:
            heads[at], tails[at], lengths[at] = heads[at - 1], tails[at - 1], lengths[at - 1]
            at -= 1
            left -= 1
        heads[at], tails[at], lengths[at] = i, j, length
    return heads, tails, lengths, left >= 0
