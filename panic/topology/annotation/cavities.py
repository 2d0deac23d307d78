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
def cavities(
    num_points: int, heads: Any, tails: Any, lengths: Any, words: int, most_steps: int, most_rows: int
) -> tuple[int, int, int, Any, Any, Any]:
    """Edges done, steps taken, triangles kept, deaths of dimension 0, bars (m, 2) of dimension 1 and 2.

    What stays has an infinite death. Fewer edges are done than given when `words` are not enough for the
    classes of one dimension that are alive at once, when it takes more than `most_steps` words, or when more
    than `most_rows` triangles have an annotation that is not 0: only those are kept.
    """
    num_edges, blocks = len(lengths), (num_points + 63) // 64
    adjacent = np.zeros((num_points, blocks), np.uint64)
    number = np.full((num_points, num_points), -1, np.int32)  # of the edge between two vertices
    kept = np.zeros((num_edges, blocks), np.uint64)  # vertices opposite to each edge in triangles of `faces`
    first = np.zeros(num_edges, np.int64)  # row of the first of them
    among = np.zeros((num_edges, blocks), np.uint64)  # the same of every edge of these triangles
    parent = np.arange(num_points)
    sides = np.zeros((num_edges, words), np.uint64)  # annotations of the edges
    faces = np.zeros((64, words), np.uint64)  # annotations of triangles, by the edge that added them
    added = np.zeros((num_points, words), np.uint64)  # of those of the present edge, by opposite vertex
    marked = np.zeros(blocks, np.uint64)  # where that is not 0
    free1, free2 = np.full(words, ~ZERO), np.full(words, ~ZERO)
    born1, born2 = np.zeros(64 * words, np.int64), np.zeros(64 * words, np.int64)
    unseen, waiting = np.zeros(blocks, np.uint64), np.zeros(blocks, np.uint64)
    dying = np.zeros(words, np.uint64)
    ends = np.empty(num_points)
    num_ends = num_cavities = steps = rows = 0
    bars1, bars2 = [(0.0, 0.0)], [(0.0, 0.0)]
    bars1.clear()
    bars2.clear()
    for e in range(num_edges):
        i, j = heads[e], tails[e]
        first[e] = rows
        if steps > most_steps or rows > most_rows:
            return e, steps, rows, ends[:0], np.empty((0, 2)), np.empty((0, 2))
        some = ZERO
        for w in range(blocks):
            unseen[w] = adjacent[i, w] & adjacent[j, w]
            some |= unseen[w]
        number[i, j] = number[j, i] = e
        insert(adjacent[i], j)
        insert(adjacent[j], i)
        if some == ZERO:
            if unite(parent, i, j):
                ends[num_ends] = lengths[e]
                num_ends += 1
                continue
            place = take(free1)
            if place < 0:
                return e, steps, rows, ends[:0], np.empty((0, 2)), np.empty((0, 2))
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
                    return e, steps, rows, ends[:0], np.empty((0, 2)), np.empty((0, 2))
                insert(added[root], place)
                insert(marked, root)
                born2[place] = e
                num_cavities += 1
            is_first = False
            insert(waiting, root)
            k = take(waiting)
            while k >= 0:
                steps += 2 * blocks
                at_k, ik, jk = marked[k >> 6] & bit(k), number[i, k], number[j, k]
                for w in range(blocks):
                    new, again = adjacent[k, w] & unseen[w], adjacent[k, w] & waiting[w]
                    unseen[w] ^= new
                    waiting[w] |= new
                    bits = new | again if num_cavities else ZERO  # where there is none, all faces are 0
                    if at_k == ZERO:  # those of which another face is not 0
                        bits &= among[ik, w] | among[jk, w] | (again & marked[w])
                    while bits != ZERO:
                        n = 64 * w + lowest(bits)
                        bits &= bits - ONE
                        at_i = _row(number, first, kept, i, k, n)
                        at_j = _row(number, first, kept, j, k, n)
                        some = ZERO
                        steps += words + 16
                        for x in range(words):
                            dying[x] = added[k, x] ^ added[n, x]
                            if at_i >= 0:
                                dying[x] ^= faces[at_i, x]
                            if at_j >= 0:
                                dying[x] ^= faces[at_j, x]
                            some |= dying[x]
                        if some == ZERO:
                            continue
                        if new & bit(n):
                            added[n] = dying
                            insert(marked, n)
                        else:
                            steps += rows + num_points
                            place = youngest(dying, born2)
                            bars2.append((lengths[born2[place]], lengths[e]))
                            _forget(faces, rows, dying, place)
                            _forget(added, num_points, dying, place)
                            insert(free2, place)
                            num_cavities -= 1
                k = take(waiting)
            root = take(unseen)
        n = take(marked)
        while n >= 0:
            if added[n].any():
                if rows == len(faces):
                    more = np.zeros((2 * rows, words), np.uint64)
                    more[:rows] = faces
                    faces = more
                faces[rows] = added[n]
                added[n] = ZERO
                insert(kept[e], n)
                insert(among[e], n)
                insert(among[number[i, n]], j)
                insert(among[number[j, n]], i)
                rows += 1
            n = take(marked)
    for free, born, bars in ((free1, born1, bars1), (free2, born2, bars2)):
        alive = ~free
        place = take(alive)
        while place >= 0:
            bars.append((lengths[born[place]], np.inf))
            place = take(alive)
    return num_edges, steps, rows, ends[:num_ends], _array(bars1), _array(bars2)


@compiled
def _array(bars: Any) -> Any:
    array = np.empty((len(bars), 2))
    for row, (birth, death) in enumerate(bars):
        array[row, 0], array[row, 1] = birth, death
    return array


@compiled
def _row(number: Any, first: Any, kept: Any, i: int, j: int, k: int) -> int:
    """The row of a triangle, by the edge that came last and the vertex opposite to it; -1 if it is 0."""
    ij, ik, jk = number[i, j], number[i, k], number[j, k]
    edge = max(ij, ik, jk)
    opposite = k if edge == ij else j if edge == ik else i
    last = opposite >> 6
    if not (kept[edge, last] & bit(opposite)):
        return -1
    row = first[edge] + count(kept[edge, last] & (bit(opposite) - ONE))
    for w in range(last):
        row += count(kept[edge, w])
    return int(row)


@compiled
def _forget(annotations: Any, num_rows: int, dying: Any, place: int) -> None:
    """Add a sum of classes that is now 0 to every annotation that holds its youngest."""
    for row in range(num_rows):
        if annotations[row, place >> 6] & bit(place):
            for w in range(len(dying)):
                annotations[row, w] ^= dying[w]
