"""Edge collapse: which edges of a flag filtration can come later, or never, without changing any bar.

An edge is dominated at a time when some vertex sees all the vertices that both of its ends see: adding it
then changes nothing. From the last edge to the first, each is put off to the first time at which it is not
dominated; most never come. (Glisse, Pritam 2022, "Swap, shift and trim to edge collapse a filtration",
algorithm 1.) Neighbours are sets of bits here, so 64 vertices are looked at in one instruction.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from panic.topology.annotation.bits import (
    ONE,
    ZERO,
    bit,
    clear,
    copy,
    insert,
    lowest,
    remove,
    union,
)
from panic.topology.annotation.compiling import compiled


@compiled
def collapse(num_points: int, heads: Any, tails: Any) -> tuple[Any, Any]:
    """Places of the edges that stay, and the place of the edge with which each comes (m,) int32.

    Edges are given in their order; the earliest comes first in the result.
    """
    num_edges, blocks = len(heads), (num_points + 63) // 64
    never = num_edges
    time = np.full((num_points, num_points), never, np.int32)
    ahead = np.zeros((num_points, blocks), np.uint64)  # edges that have not been looked at
    kept = np.zeros((num_points, blocks), np.uint64)  # edges that have been, and stay
    for e in range(num_edges):
        i, j = heads[e], tails[e]
        time[i, j] = time[j, i] = e
        insert(ahead[i], j)
        insert(ahead[j], i)
    common, dominators = np.zeros(blocks, np.uint64), np.zeros(blocks, np.uint64)
    later, later_at = np.zeros(num_points, np.int32), np.zeros(num_points, np.int32)
    served = np.zeros(num_points, np.int32)  # the vertex that dominated an edge of this one last
    stays, comes = np.empty(num_edges, np.int32), np.empty(num_edges, np.int32)
    num_kept = 0
    for e in range(num_edges - 1, -1, -1):
        i, j = heads[e], tails[e]
        at = e
        for w in range(blocks):
            common[w] = ahead[i, w] & ahead[j, w]
        guess = served[i]
        missed = common[guess >> 6] & bit(guess) ^ bit(guess)
        for w in range(blocks):
            own = bit(guess) if w == guess >> 6 else ZERO
            missed |= common[w] & ~(ahead[guess, w] | own)
        if missed == ZERO:
            clear(dominators)
            insert(dominators, guess)
        if missed == ZERO or _find_dominators(ahead, common, dominators):
            served[i] = served[j] = _first(dominators)
            num_later = 0
            for w in range(blocks):
                bits = (ahead[i, w] | kept[i, w]) & (ahead[j, w] | kept[j, w]) & ~common[w]
                while bits != ZERO:
                    k = 64 * w + lowest(bits)
                    bits &= bits - ONE
                    later[num_later], later_at[num_later] = k, max(time[i, k], time[j, k])
                    num_later += 1
            at = never
            if num_later:
                at = _first_free(time, common, dominators, later, later_at, num_later, never)
        remove(ahead[i], j)
        remove(ahead[j], i)
        time[i, j] = time[j, i] = at
        if at < never:
            insert(kept[i], j)
            insert(kept[j], i)
            stays[num_kept], comes[num_kept] = e, at
            num_kept += 1
    order = np.argsort(comes[:num_kept], kind="mergesort")
    return stays[:num_kept][order], comes[:num_kept][order]


@compiled
def _first(members: Any) -> int:
    for w in range(len(members)):
        if members[w] != ZERO:
            return 64 * w + lowest(members[w])
    return -1


@compiled
def _find_dominators(adjacent: Any, common: Any, dominators: Any) -> bool:
    """Put the vertices of `common` that see all others of it into `dominators`; whether there are any."""
    copy(dominators, common)
    for w in range(len(common)):
        bits = common[w]
        while bits != ZERO:
            k = 64 * w + lowest(bits)
            bits &= bits - ONE
            own = dominators[w] & bit(k)
            some = own
            for x in range(len(common)):
                dominators[x] &= adjacent[k, x]
                some |= dominators[x]
            if some == ZERO:
                return False
            dominators[w] |= own
    return bool(union(common) != ZERO)


@compiled
def _first_free(
    time: Any, common: Any, dominators: Any, later: Any, later_at: Any, left: int, never: int
) -> int:
    """The first time at which no vertex dominates an edge any more, or `never`.

    The first `left` of `later` are the vertices that both of its ends see only from `later_at` on; they are
    used up.
    """
    while left:
        now = never
        for x in range(left):
            now = min(now, later_at[x])
        x = 0
        while x < left:
            if later_at[x] > now:
                x += 1
                continue
            k = later[x]
            left -= 1
            later[x], later_at[x] = later[left], later_at[left]
            insert(common, k)
            for w in range(len(dominators)):
                bits = dominators[w]
                while bits != ZERO:
                    c = 64 * w + lowest(bits)
                    bits &= bits - ONE
                    if time[k, c] > now:
                        remove(dominators, c)
        if union(dominators) == ZERO:
            c = _dominator(time, common, now)
            if c < 0:
                return now
            insert(dominators, c)
    return never


@compiled
def _dominator(time: Any, common: Any, now: int) -> int:
    """The first vertex of `common` that sees all others of it at a time, or -1."""
    for w in range(len(common)):
        candidates = common[w]
        while candidates != ZERO:
            c = 64 * w + lowest(candidates)
            candidates &= candidates - ONE
            if _sees_all(time, common, c, now):
                return c
    return -1


@compiled
def _sees_all(time: Any, common: Any, c: int, now: int) -> bool:
    for w in range(len(common)):
        bits = common[w]
        while bits != ZERO:
            k = 64 * w + lowest(bits)
            bits &= bits - ONE
            if time[c, k] > now and k != c:
                return False
    return True
