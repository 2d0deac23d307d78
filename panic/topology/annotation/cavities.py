"""Bars of dimension 0 to 2 of a collapsed graph by annotations (see `loops`), edge by edge.

What an edge adds lies in its link: the vertices that both of its ends see, and the edges between them. Every
vertex of the link is a new triangle, every edge of it a tetrahedron. The triangles of a connected part say
the same of the loops: the first part fills the edge's own loop, each further one ends a loop or, where there
is none to end, encloses a cavity. An edge of the link beyond a spanning tree ends a cavity or says nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from panic.topology.annotation.bits import (
    ONE,
    ZERO,
    bit,
    count,
    insert,
    lowest,
    take,
    unite,
    youngest,
)
from panic.topology.annotation.compiling import compiled


@compiled
def triangles(num_points: int, heads: Any, tails: Any) -> int:
    """How many triangles a graph has."""
    adjacent = np.zeros((num_points, (num_points + 63) // 64), np.uint64)
    total = 0
    for e in range(len(heads)):
        i, j = heads[e], tails[e]
        for w in range(adjacent.shape[1]):
            total += count(adjacent[i, w] & adjacent[j, w])
        insert(adjacent[i], j)
        insert(adjacent[j], i)
    return total


@compiled
def cavities(
    num_points: int, heads: Any, tails: Any, lengths: Any, num_triangles: int, words: int, most_steps: int
) -> tuple[int, int, Any, Any, Any]:
    """Edges done and steps taken, deaths of dimension 0, bars (m, 2) of dimension 1 and 2.

    What stays has an infinite death. Fewer edges are done than given when `words` are not enough for the
    classes of one dimension that are alive at once, or when it takes more than `most_steps` words.
    """
    num_edges, blocks = len(lengths), (num_points + 63) // 64
    adjacent = np.zeros((num_points, blocks), np.uint64)
    number = np.full((num_points, num_points), -1, np.int32)  # of the edge between two vertices
    links = np.zeros((num_edges, blocks), np.uint64)
    first = np.zeros(num_edges + 1, np.int64)  # place of the first triangle that each edge adds
    parent = np.arange(num_points)
    sides = np.zeros((num_edges, words), np.uint64)  # annotations of the edges
    faces = np.zeros((num_triangles, words), np.uint64)  # annotations of the triangles
    free1, free2 = np.full(words, ~ZERO), np.full(words, ~ZERO)
    born1, born2 = np.zeros(64 * words, np.int64), np.zeros(64 * words, np.int64)
    unseen, waiting = np.zeros(blocks, np.uint64), np.zeros(blocks, np.uint64)
    dying = np.zeros(words, np.uint64)
    ends = np.empty(num_points)
    num_ends = num_cavities = steps = 0
    bars1, bars2 = [(0.0, 0.0)], [(0.0, 0.0)]
    bars1.clear()
    bars2.clear()
    for e in range(num_edges):
        i, j = heads[e], tails[e]
        if steps > most_steps:
            return e, steps, ends[:0], np.empty((0, 2)), np.empty((0, 2))
        size = 0
        for w in range(blocks):
            links[e, w] = unseen[w] = adjacent[i, w] & adjacent[j, w]
            size += count(links[e, w])
        total = first[e + 1] = first[e] + size
        number[i, j] = number[j, i] = e
        insert(adjacent[i], j)
        insert(adjacent[j], i)
        if size == 0:
            if unite(parent, i, j):
                ends[num_ends] = lengths[e]
                num_ends += 1
                continue
            place = take(free1)
            if place < 0:
                return e, steps, ends[:0], np.empty((0, 2)), np.empty((0, 2))
            insert(sides[e], place)
            born1[place] = e
            continue
        is_first = True
        root = take(unseen)
        while root >= 0:
            some = ZERO
            for x in range(words):
                dying[x] = sides[number[i, root], x] ^ sides[number[j, root], x]
                if is_first:
                    sides[e, x] = dying[x]
                dying[x] ^= sides[e, x]
                some |= dying[x]
            if some != ZERO:
                steps += e
                place = youngest(dying, born1)
                bars1.append((lengths[born1[place]], lengths[e]))
                _forget(sides, e + 1, dying, place)
                insert(free1, place)
            elif not is_first:
                place = take(free2)
                if place < 0:
                    return e, steps, ends[:0], np.empty((0, 2)), np.empty((0, 2))
                insert(faces[_triangle(number, first, links, i, j, root)], place)
                born2[place] = e
                num_cavities += 1
            is_first = False
            insert(waiting, root)
            k = take(waiting)
            while k >= 0:
                at_k = _triangle(number, first, links, i, j, k)
                steps += 2 * blocks
                for w in range(blocks):
                    new, again = adjacent[k, w] & unseen[w], adjacent[k, w] & waiting[w]
                    unseen[w] ^= new
                    waiting[w] |= new
                    bits = new | again if num_cavities else ZERO  # where there is none, all faces are 0
                    while bits != ZERO:
                        n = 64 * w + lowest(bits)
                        bits &= bits - ONE
                        at_n = _triangle(number, first, links, i, j, n)
                        at_i = _triangle(number, first, links, i, k, n)
                        at_j = _triangle(number, first, links, j, k, n)
                        some = ZERO
                        steps += words + 16
                        for x in range(words):
                            dying[x] = faces[at_k, x] ^ faces[at_i, x] ^ faces[at_j, x]
                            if new & bit(n):
                                faces[at_n, x] = dying[x]
                            dying[x] ^= faces[at_n, x]
                            some |= dying[x]
                        if some != ZERO:
                            steps += total
                            place = youngest(dying, born2)
                            bars2.append((lengths[born2[place]], lengths[e]))
                            _forget(faces, total, dying, place)
                            insert(free2, place)
                            num_cavities -= 1
                k = take(waiting)
            root = take(unseen)
    for free, born, bars in ((free1, born1, bars1), (free2, born2, bars2)):
        alive = ~free
        place = take(alive)
        while place >= 0:
            bars.append((lengths[born[place]], np.inf))
            place = take(alive)
    return num_edges, steps, ends[:num_ends], _array(bars1), _array(bars2)


@compiled
def _array(bars: Any) -> Any:
    array = np.empty((len(bars), 2))
    for row, (birth, death) in enumerate(bars):
        array[row, 0], array[row, 1] = birth, death
    return array


@compiled
def _triangle(number: Any, first: Any, links: Any, i: int, j: int, k: int) -> int:
    """The place of a triangle: that of the edge which came last, then the vertex opposite to it."""
    ij, ik, jk = number[i, j], number[i, k], number[j, k]
    edge = max(ij, ik, jk)
    opposite = k if edge == ij else j if edge == ik else i
    place, w = first[edge], opposite >> 6
    for x in range(w):
        place += count(links[edge, x])
    place += count(links[edge, w] & (bit(opposite) - ONE))
    return int(place)


@compiled
def _forget(annotations: Any, num_rows: int, dying: Any, place: int) -> None:
    """Add a sum of classes that is now 0 to every annotation that holds its youngest."""
    for row in range(num_rows):
        if annotations[row, place >> 6] & bit(place):
            for w in range(len(dying)):
                annotations[row, w] ^= dying[w]
