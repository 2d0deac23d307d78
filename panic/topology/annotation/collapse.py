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
def collapse(num_points: int, heads: Any, tails: Any, most_steps: int) -> tuple[Any, Any, int, int]:
    """Places of the edges that stay and of those with which each comes (m,) int32; edges done; steps taken.

    Edges are given in their order; the earliest comes first in the result. Fewer edges are done than given
    when it takes more than `most_steps` words.
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
    num_kept = num_done = 0
    steps = np.zeros(1, np.int64)
    for e in range(num_edges - 1, -1, -1):
        if steps[0] > most_steps:
            break
        i, j = heads[e], tails[e]
        at = e
        num_done += 1
        steps[0] += 2 * blocks
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
        if missed == ZERO or _find_dominators(ahead, common, dominators, steps):
            served[i] = served[j] = _first(dominators)
            num_later = 0
            steps[0] += blocks
            for w in range(blocks):
                bits = (ahead[i, w] | kept[i, w]) & (ahead[j, w] | kept[j, w]) & ~common[w]
                while bits != ZERO:
                    k = 64 * w + lowest(bits)
                    bits &= bits - ONE
                    later[num_later], later_at[num_later] = k, max(time[i, k], time[j, k])
                    num_later += 1
            at = never
            if num_later:
                at = _first_free(time, common, dominators, later, later_at, num_later, steps)
        remove(ahead[i], j)
        remove(ahead[j], i)
        time[i, j] = time[j, i] = at
        if at < never:
            insert(kept[i], j)
            insert(kept[j], i)
            stays[num_kept], comes[num_kept] = e, at
            num_kept += 1
    order = np.argsort(comes[:num_kept], kind="mergesort")
    return stays[:num_kept][order], comes[:num_kept][order], num_done, steps[0]


@compiled
def _first(members: Any) -> int:
    for w in range(len(members)):
        if members[w] != ZERO:
            return 64 * w + lowest(members[w])
    return -1


@compiled
def _find_dominators(adjacent: Any, common: Any, dominators: Any, steps: Any) -> bool:
    """Put the vertices of `common` that see all others of it into `dominators`; whether there are any."""
    copy(dominators, common)
    for w in range(len(common)):
        bits = common[w]
        while bits != ZERO:
            k = 64 * w + lowest(bits)
            bits &= bits - ONE
            own = dominators[w] & bit(k)
            some = own
            steps[0] += len(common)
            for x in range(len(common)):
                dominators[x] &= adjacent[k, x]
                some |= dominators[x]
            if some == ZERO:
                return False
            dominators[w] |= own
    return bool(union(common) != ZERO)


@compiled
def _first_free(
    time: Any, common: Any, dominators: Any, later: Any, later_at: Any, left: int, steps: Any
) -> int:
    """The first time at which no vertex dominates an edge any more; that of no edge if it is never.

    The first `left` of `later` are the vertices that both of its ends see only from `later_at` on; they are
    used up.
    """
    never = time[0, 0]  # no vertex is its own neighbour
    while left:
        now = never
        steps[0] += left + len(dominators)
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
            c = _dominator(time, common, now, steps)
            if c < 0:
                return now
            insert(dominators, c)
    return never


@compiled
def _dominator(time: Any, common: Any, now: int, steps: Any) -> int:
    """The first vertex of `common` that sees all others of it at a time, or -1."""
    for w in range(len(common)):
        candidates = common[w]
        while candidates != ZERO:
            c = 64 * w + lowest(candidates)
            candidates &= candidates - ONE
            if _sees_all(time, common, c, now, steps):
                return c
    return -1


@compiled
def _sees_all(time: Any, common: Any, c: int, now: int, steps: Any) -> bool:
    for w in range(len(common)):
        bits = common[w]
        while bits != ZERO:
            k = 64 * w + lowest(bits)
            bits &= bits - ONE
            steps[0] += 1
            if time[c, k] > now and k != c:
                return False
    return True
