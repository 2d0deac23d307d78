"""Bars of dimension 0 and 1: what each edge closes, and what it fills.

Edges come in order of length. The vertices that both ends of an edge see by then are its lune. An edge whose
lune is empty joins two components or closes a loop: a class is born. Any other fills triangles, and all those
over one connected part of the lune say the same, since the tetrahedra between them are filled as well. So one
triangle for each part is enough (Koyama, Memoli, Robins, Turner 2023, "Faster computation of degree-1
persistent homology using the reduced Vietoris-Rips filtration"): the first says what the edge is a sum of,
each further one is a column, which ends a loop or says nothing. Few edges have a lune of several parts.

A column is a sum of four edges; each is replaced by the two other sides of its first triangle until only
edges are left that closed loops. What those are a sum of, of the classes alive, is kept as bits, 64 classes
in a word (annotations: Dey, Fan, Wang 2014, "Computing topological persistence for simplicial maps").
"""

from __future__ import annotations

from typing import Any

import numpy as np

from panic.topology.annotation.bits import (
    ONE,
    ZERO,
    bit,
    clear,
    count,
    insert,
    lowest,
    take,
    union,
    unite,
    youngest,
)
from panic.topology.annotation.compiling import compiled

_NUMBERED_AT_LEAST = 4096
"""So many edges, at least, can be found by their ends; twice as many whenever a longer one is looked at."""

JOINS = -1
"""Kind of an edge that joins two components; one whose triangle is known has its third vertex (>= 0)."""
FILLED = -2
"""Kind of an edge whose first triangle has not been looked for yet."""
FIRST_LOOP = -3
"""Kind of the edge that closes the first loop; the k-th after it has FIRST_LOOP - k."""


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
def loops(
    num_points: int, heads: Any, tails: Any, lengths: Any, most_words: int, most_steps: int
) -> tuple[Any, Any, int, int]:
    """Bars (m, 2) of dimension 0 and of dimension 1, by birth and death; words kept; steps taken.

    Edges are given in their order. More words or steps than the most mean that it was given up.
    """
    blocks = (num_points + 63) // 64
    adjacent = np.zeros((num_points, blocks), np.uint64)
    for i in range(num_points):
        insert(adjacent[i], i)  # so that whoever sees all others of a set sees all of it
    unseen, waiting = np.zeros(blocks, np.uint64), np.zeros(blocks, np.uint64)
    vertices = adjacent, np.arange(num_points), np.zeros(num_points, np.int32), unseen, waiting
    kinds, ends = np.full(len(heads), FILLED, np.int32), np.full(64, -1, np.int32)
    graph = heads, tails, kinds
    sums = np.zeros((64, 1), np.uint64)  # of the classes alive, by loop
    free, loop_of, value = np.full(1, ~ZERO), np.zeros(64, np.int64), np.zeros(1, np.uint64)
    numbering, heap = _number(heads[:0], tails[:0], adjacent), _empty_heap(len(heads))
    num_loops = num_alive = num_numbered = 0
    e, first, steps = _next(graph, vertices, 0, num_alive > 0, 0, most_steps)
    while e < len(heads) and steps <= most_steps:
        if first < 0:
            if num_alive == len(loop_of):
                sums, free, loop_of, value = _more_classes(sums, free, loop_of)
            if num_loops == len(sums):
                sums, ends = _more_loops(sums, ends)
            if sums.size > most_words:
                break
            place = take(free)
            kinds[e] = FIRST_LOOP - num_loops
            insert(sums[num_loops], place)
            loop_of[place] = num_loops
            num_loops += 1
            num_alive += 1
        elif e >= num_numbered:
            num_numbered = max(2 * e, _NUMBERED_AT_LEAST)
            numbering = _number(heads[:num_numbered], tails[:num_numbered], adjacent)
        root = take(unseen) if first >= 0 else -1
        while root >= 0:
            steps += _sum(e, first, root, graph, numbering, heap, sums, value)
            if union(value) != ZERO:
                place = youngest(value, loop_of)
                ends[loop_of[place]] = e
                _forget(sums[:num_loops], value, place)
                insert(free, place)
                num_alive -= 1
                steps += num_loops
            steps += blocks * _walk(adjacent, unseen, waiting, root)[1]
            root = take(unseen)
        insert(adjacent[heads[e]], tails[e])
        insert(adjacent[tails[e]], heads[e])
        e, first, steps = _next(graph, vertices, e + 1, num_alive > 0, steps, most_steps)
    zero, one = _bars(num_points, lengths, kinds, ends[:num_loops])
    return zero, one, sums.size, steps


@compiled
def _bars(num_points: int, lengths: Any, kinds: Any, ends: Any) -> tuple[Any, Any]:
    """Bars (m, 2) of components and loops, by birth and death; `ends` (l,) are edges or -1."""
    zero, one = np.zeros((num_points, 2)), np.empty((len(ends), 2))
    zero[:, 1] = np.inf
    num_ends = num_loops = 0
    for e in range(len(kinds)):
        if kinds[e] == JOINS:
            zero[num_ends, 1] = lengths[e]
            num_ends += 1
        elif kinds[e] <= FIRST_LOOP:
            death, at = np.inf if ends[num_loops] < 0 else lengths[ends[num_loops]], num_loops
            while at > 0 and one[at - 1, 0] == lengths[e] and one[at - 1, 1] > death:
                one[at, 0], one[at, 1] = one[at - 1, 0], one[at - 1, 1]
                at -= 1
            one[at, 0], one[at, 1] = lengths[e], death
            num_loops += 1
    return zero, one


@compiled
def _next(
    graph: Any, vertices: Any, start: int, is_any_alive: bool, steps: int, most_steps: int
) -> tuple[int, int, int]:
    """The next edge that closes a loop, or whose lune has several parts while a class is alive; steps so far.

    The number between them is -1 for a loop, or a vertex of the first part; what is not connected with that
    is left in `unseen`. All edges before it are among the neighbours then. (A function of its own, as the
    arrays that grow would slow down the loop over the edges.)
    """
    heads, tails, kinds = graph
    adjacent, parent, served, unseen, waiting = vertices
    blocks = adjacent.shape[1]
    for e in range(start, len(heads)):
        i, j = heads[e], tails[e]
        steps += blocks
        w = (i + j) >> 7  # along a trajectory, what is between two points in time is so in space, mostly
        if not is_any_alive and adjacent[i, w] & adjacent[j, w] != ZERO:
            guess = _SEEN
        else:
            guess = _lune(adjacent, i, j, served[i])
        if guess == _EMPTY:
            if not unite(parent, i, j):
                return e, -1, steps
            kinds[e] = JOINS
        elif is_any_alive and guess > 0 and not _is_seen(adjacent, served, i, j, guess - 1):
            for w in range(blocks):
                unseen[w] = adjacent[i, w] & adjacent[j, w]
            first = take(unseen)
            last, visits = _walk(adjacent, unseen, waiting, first)
            served[i] = served[j] = last
            steps += visits * blocks
            if union(unseen) != ZERO or steps > most_steps:
                return e, first, steps
        adjacent[i, j >> 6] |= bit(j)
        adjacent[j, i >> 6] |= bit(i)
    return len(heads), -1, steps


_SEEN, _EMPTY = 0, -1


@compiled
def _lune(adjacent: Any, i: int, j: int, k: int) -> int:
    """What vertex k sees of an edge's lune: _SEEN for all of it, else 1 + its first vertex; or _EMPTY."""
    lune, missed = ZERO, ~(adjacent[i, k >> 6] & adjacent[j, k >> 6]) & bit(k)
    for w in range(adjacent.shape[1]):  # without a branch, so that several words are looked at at once
        both = adjacent[i, w] & adjacent[j, w]
        lune |= both
        missed |= both & ~adjacent[k, w]
    if lune == ZERO:
        return _EMPTY
    if missed == ZERO:
        return _SEEN
    w = 0
    while adjacent[i, w] & adjacent[j, w] == ZERO:
        w += 1
    return 64 * w + lowest(adjacent[i, w] & adjacent[j, w]) + 1


@compiled
def _is_seen(adjacent: Any, served: Any, i: int, j: int, first: int) -> bool:
    """Whether the vertex that saw all of an earlier lune of j, or the first one, sees all of this one."""
    if _lune(adjacent, i, j, served[j]) == _SEEN:
        return True
    served[i] = served[j] = first
    return bool(_lune(adjacent, i, j, first) == _SEEN)


@compiled
def _walk(adjacent: Any, unseen: Any, waiting: Any, root: int) -> tuple[int, int]:
    """Take what is connected with `root` out of `unseen`; the last vertex looked at, and how many were."""
    clear(waiting)
    k, visits = root, 0
    while True:
        visits += 1
        left = ZERO
        for w in range(len(unseen)):
            new = adjacent[k, w] & unseen[w]
            waiting[w] |= new
            unseen[w] ^= new
            left |= unseen[w]
        following = take(waiting) if left != ZERO else -1
        if following < 0:
            return k, visits
        k = following


@compiled
def _number(heads: Any, tails: Any, like: Any) -> tuple[Any, Any, Any]:
    """Neighbours by some edges as bits, where the edges of a vertex start by word of them, and edges in that
    order.

    So an edge is found by its ends (`_place`); a square of numbers would be mostly empty where edges are few.
    """
    whole = np.zeros(like.shape, np.uint64)
    for e in range(len(heads)):
        insert(whole[heads[e]], tails[e])
        insert(whole[tails[e]], heads[e])
    starts = np.empty(whole.shape, np.int64)
    total = 0
    for i in range(len(whole)):
        for w in range(whole.shape[1]):
            starts[i, w] = total
            total += count(whole[i, w])
    edges = np.empty(total, np.int32)
    for e in range(len(heads)):
        i, j = heads[e], tails[e]
        edges[_place(whole, starts, i, j)] = edges[_place(whole, starts, j, i)] = e
    return whole, starts, edges


@compiled
def _place(whole: Any, starts: Any, i: int, k: int) -> int:
    w = k >> 6
    return int(starts[i, w] + count(whole[i, w] & (bit(k) - ONE)))


@compiled
def _sum(e: int, first: int, other: int, graph: Any, numbering: Any, heap: Any, sums: Any, value: Any) -> int:
    """Put the classes of a column, an edge over two vertices of its lune, into `value`; the steps taken."""
    heads, tails, kinds = graph
    whole, starts, edges = numbering
    queue, times = heap
    clear(value)
    size = steps = 0
    for k in (first, other):
        size = _toggle(queue, times, size, edges[_place(whole, starts, heads[e], k)])
        size = _toggle(queue, times, size, edges[_place(whole, starts, tails[e], k)])
    while size:
        edge = queue[0]
        is_odd = times[edge] == 1
        size = _pop(queue, times, size)
        steps += 16
        if not is_odd or kinds[edge] == JOINS:
            continue
        if kinds[edge] <= FIRST_LOOP:
            loop = FIRST_LOOP - kinds[edge]
            for w in range(len(value)):
                value[w] ^= sums[loop, w]
            continue
        i, j = heads[edge], tails[edge]
        if kinds[edge] == FILLED:
            kinds[edge] = _first_triangle(whole, starts, edges, i, j, edge)
            steps += len(heads) // len(whole)
        size = _toggle(queue, times, size, edges[_place(whole, starts, i, kinds[edge])])
        size = _toggle(queue, times, size, edges[_place(whole, starts, j, kinds[edge])])
    return steps + len(value)


@compiled
def _first_triangle(whole: Any, starts: Any, edges: Any, i: int, j: int, edge: int) -> int:
    """The third vertex of a triangle that an edge fills: one with short sides, so that few steps are left."""
    limit, third = edge, -1
    for w in range(whole.shape[1]):
        both = whole[i, w] & whole[j, w]
        while both != ZERO:
            below = (both & (ZERO - both)) - ONE
            one = edges[starts[i, w] + count(whole[i, w] & below)]
            other = edges[starts[j, w] + count(whole[j, w] & below)]
            if one < limit and other < limit:
                limit, third = max(one, other), 64 * w + lowest(both)
                if limit < edge >> 3:
                    return third
            both &= both - ONE
    return third


@compiled
def _empty_heap(num_edges: int) -> tuple[Any, Any]:
    """A heap of edges, the longest first; how often each is in it: 0 for not, 1 for odd, 2 for even."""
    return np.empty(num_edges, np.int32), np.zeros(num_edges, np.uint8)


@compiled
def _toggle(queue: Any, times: Any, size: int, edge: int) -> int:
    """Add an edge to a sum modulo 2, which is a heap without repetitions; its new size."""
    if times[edge]:
        times[edge] = 3 - times[edge]
        return size
    times[edge] = 1
    at = size
    while at > 0 and queue[(at - 1) >> 1] < edge:
        queue[at] = queue[(at - 1) >> 1]
        at = (at - 1) >> 1
    queue[at] = edge
    return size + 1


@compiled
def _pop(queue: Any, times: Any, size: int) -> int:
    """Take the longest edge out of the heap; its new size."""
    times[queue[0]] = 0
    size -= 1
    edge, at = queue[size], 0
    while 2 * at + 1 < size:
        below = 2 * at + 1
        if below + 1 < size and queue[below + 1] > queue[below]:
            below += 1
        if queue[below] <= edge:
            break
        queue[at] = queue[below]
        at = below
    queue[at] = edge
    return size


@compiled
def _more_classes(sums: Any, free: Any, loop_of: Any) -> tuple[Any, Any, Any, Any]:
    """The same with room for twice the classes, of which the new half is free; and an empty sum."""
    words = len(free)
    wider, more, places = (
        np.zeros((len(sums), 2 * words), np.uint64),
        np.full(2 * words, ~ZERO),
        np.zeros(128 * words, np.int64),
    )
    for row in range(len(sums)):
        for w in range(words):
            wider[row, w] = sums[row, w]
    more[:words] = free
    places[: 64 * words] = loop_of
    return wider, more, places, np.zeros(2 * words, np.uint64)


@compiled
def _more_loops(sums: Any, ends: Any) -> tuple[Any, Any]:
    """The same with room for twice the loops."""
    longer, more = np.zeros((2 * len(sums), sums.shape[1]), np.uint64), np.full(2 * len(ends), -1, np.int32)
    longer[: len(sums)] = sums
    more[: len(ends)] = ends
    return longer, more


@compiled
def _forget(sums: Any, dying: Any, place: int) -> None:
    """Add a sum of classes that is now 0 to every sum that holds its youngest."""
    at, its_bit = place >> 6, bit(place)
    for row in range(len(sums)):
        if sums[row, at] & its_bit != ZERO:
            for w in range(len(dying)):
                sums[row, w] ^= dying[w]
