"""Bars of dimension 0 and 1 by annotations: every edge carries its class, 63 classes in a word.

Edges come in order of length. One that joins two components ends a bar of dimension 0. One whose ends have
no neighbour in common closes a loop: a class is born, and its bit is the edge's annotation. Any other edge
is filled by its triangles: its annotation is the sum of the other two sides' of one of them, and every other
triangle must say the same; where one does not, the sum is a class that dies, the youngest in it, and all
annotations are told. (Dey, Fan, Wang 2014, "Computing topological persistence for simplicial maps",
section 4; Boissonnat, Dey, Maria 2015, "The compressed annotation matrix".)

The annotations of a vertex's edges are a row, so the triangles of an edge are two rows side by side: eight
of them per instruction. Nothing is reduced but what dies.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from panic.topology.annotation.bits import (
    ONE,
    ZERO,
    bit,
    clear,
    insert,
    lowest,
    take,
    union,
    unite,
    youngest,
)
from panic.topology.annotation.compiling import compiled

ABSENT = np.uint64(1 << 63)
"""Set in the annotation of an edge that has not come yet; so a word holds 63 classes."""


@compiled
def short_pairs(matrix: Any, limit: float) -> tuple[Any, Any, Any]:
    """Ends i < j of the pairs of a distance matrix up to `limit`, and their distances."""
    size = len(matrix)
    most = size * (size - 1) // 2
    heads, tails, lengths = np.empty(most, np.int32), np.empty(most, np.int32), np.empty(most)
    found = 0
    for i in range(size):
        for j in range(i + 1, size):
            if matrix[i, j] <= limit:
                heads[found], tails[found], lengths[found] = i, j, matrix[i, j]
                found += 1
    return heads[:found], tails[:found], lengths[:found]


@compiled
def components(num_points: int, heads: Any, tails: Any, lengths: Any) -> Any:
    """Deaths of dimension 0 of a graph whose edges are in order of length."""
    parent = np.arange(num_points)
    deaths = np.empty(num_points)
    num_deaths = 0
    for e in range(len(lengths)):
        if num_deaths == num_points - 1:
            break
        if unite(parent, heads[e], tails[e]):
            deaths[num_deaths] = lengths[e]
            num_deaths += 1
    return deaths[:num_deaths]


@compiled
def loops(num_points: int, heads: Any, tails: Any, lengths: Any, words: int) -> tuple[bool, Any, Any, Any]:
    """Deaths of dimension 0, births and deaths of dimension 1; an infinite death is that of what stays.

    The first of the four says whether `words` were enough for all classes alive at once.
    """
    rows = np.full((num_points, words, num_points), ABSENT)
    reach = np.zeros((num_points, words), np.uint64)  # classes in a vertex's row, or a few more
    adjacent = np.zeros((num_points, (num_points + 63) // 64), np.uint64)
    parent = np.arange(num_points)
    free = np.full(words, ~ABSENT)
    born = np.zeros(64 * words, np.int64)
    value, dying = np.zeros(words, np.uint64), np.zeros(words, np.uint64)
    ends = np.empty(num_points)
    num_ends = num_alive = 0
    births, deaths = [0.0], [0.0]
    births.clear()
    deaths.clear()
    for e in range(len(lengths)):
        i, j = heads[e], tails[e]
        clear(value)
        between = _first_common(adjacent, i, j)
        if num_ends < num_points - 1 and unite(parent, i, j):
            ends[num_ends] = lengths[e]
            num_ends += 1
        elif between < 0:
            place = take(free)
            if place < 0:
                return False, ends[:0], ends[:0], ends[:0]
            insert(value, place)
            born[place] = e
            num_alive += 1
        elif num_alive and (union(reach[i]) | union(reach[j])) != ZERO:
            for w in range(words):
                value[w] = rows[i, w, between] ^ rows[j, w, between]
            k = _differing(rows, reach, value, i, j)
            while k >= 0:
                for w in range(words):
                    dying[w] = rows[i, w, k] ^ rows[j, w, k] ^ value[w]
                place = youngest(dying, born)
                births.append(lengths[born[place]])
                deaths.append(lengths[e])
                if value[place >> 6] & bit(place):
                    value ^= dying
                _forget(rows, reach, dying, place)
                insert(free, place)
                num_alive -= 1
                k = _differing(rows, reach, value, i, j)
        for w in range(words):
            rows[i, w, j] = rows[j, w, i] = value[w]
            reach[i, w] |= value[w]
            reach[j, w] |= value[w]
        insert(adjacent[i], j)
        insert(adjacent[j], i)
    alive = ~free & ~ABSENT
    place = take(alive)
    while place >= 0:
        births.append(lengths[born[place]])
        deaths.append(np.inf)
        place = take(alive)
    return True, ends[:num_ends], np.array(births), np.array(deaths)


@compiled
def _first_common(adjacent: Any, i: int, j: int) -> int:
    """The first vertex that both see, or -1."""
    for w in range(adjacent.shape[1]):
        both = adjacent[i, w] & adjacent[j, w]
        if both != ZERO:
            return 64 * w + lowest(both)
    return -1


@compiled
def _differing(rows: Any, reach: Any, value: Any, i: int, j: int) -> int:
    """The first vertex whose triangle with an edge of annotation `value` says something else, or -1."""
    for w in range(len(value)):
        if (reach[i, w] | reach[j, w] | value[w]) == ZERO:
            continue
        left, right, own = rows[i, w], rows[j, w], value[w]
        some = ZERO
        for k in range(len(left)):  # without a branch, so that it is done in vectors
            is_there = ((left[k] | right[k]) >> np.uint64(63)) - ONE  # all bits, or none
            some |= (left[k] ^ right[k] ^ own) & is_there
        if some != ZERO:
            for k in range(len(left)):
                if (left[k] | right[k]) < ABSENT and left[k] ^ right[k] != own:
                    return k
    return -1


@compiled
def _forget(rows: Any, reach: Any, dying: Any, place: int) -> None:
    """Add a sum of classes that is now 0 to every annotation that holds its youngest."""
    at, shift = place >> 6, np.uint64(place & 63)
    for vertex in range(len(rows)):
        if not (reach[vertex, at] >> shift) & ONE:
            continue
        young = rows[vertex, at]
        for step in range(len(dying)):
            w = (at + 1 + step) % len(dying)  # the youngest one's own word last: the others ask it
            own, row, seen = dying[w], rows[vertex, w], ZERO
            if own == ZERO:
                continue
            for k in range(len(row)):
                row[k] ^= own & (ZERO - ((young[k] >> shift) & ONE))
                seen |= row[k]
            reach[vertex, w] = seen & ~ABSENT
