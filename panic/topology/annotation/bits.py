"""Sets of vertices and of classes as bits: what the compiled kernels share.

A set of up to 64 is one unsigned integer, a larger one a row of them; bit k of word w stands for 64 w + k.

    from panic.topology.annotation.bits import lowest     # within a compiled function
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from panic.topology.annotation.compiling import compiled

ZERO: Any = np.uint64(0)
ONE: Any = np.uint64(1)


def _lowest(typing_context: Any, bits: Any) -> Any:
    """The place of the lowest bit of a word that is not 0."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.uint64), generate


def _count(typing_context: Any, bits: Any) -> Any:
    """How many bits of a word are set."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.ctpop(arguments[0])

    return types.int64(types.uint64), generate


lowest = cast(Callable[[Any], int], intrinsic(_lowest))
count = cast(Callable[[Any], int], intrinsic(_count))


@compiled
def bit(place: int) -> Any:
    """The bit of a place within its word."""
    return ONE << np.uint64(place & 63)


@compiled
def clear(bits: Any) -> None:
    """Make a set empty. (An assignment to a slice costs ten times as much.)"""
    for w in range(len(bits)):
        bits[w] = ZERO


@compiled
def copy(bits: Any, other: Any) -> None:
    """Make a set equal to another."""
    for w in range(len(bits)):
        bits[w] = other[w]


@compiled
def insert(bits: Any, place: int) -> None:
    """Add a place to a set."""
    bits[place >> 6] |= bit(place)


@compiled
def remove(bits: Any, place: int) -> None:
    """Take a place out of a set."""
    bits[place >> 6] &= ~bit(place)


@compiled
def take(bits: Any) -> int:
    """Take the lowest place out of a set; -1 if it is empty."""
    for w in range(len(bits)):
        if bits[w] != ZERO:
            place = 64 * w + lowest(bits[w])
            bits[w] &= bits[w] - ONE
            return place
    return -1


@compiled
def union(bits: Any) -> Any:
    """All words of a set in one: 0 if it is empty."""
    some = ZERO
    for w in range(len(bits)):
        some |= bits[w]
    return some


@compiled
def youngest(alive: Any, born: Any) -> int:
    """The class of a sum of classes that was born last, by the step at which each was born."""
    last = -1
    for w in range(len(alive)):
        bits = alive[w]
        while bits != ZERO:
            place = 64 * w + lowest(bits)
            bits &= bits - ONE
            if last < 0 or born[place] > born[last]:
                last = place
    return last


@compiled
def _root(parent: Any, i: int) -> int:
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i


@compiled
def unite(parent: Any, i: int, j: int) -> bool:
    """Join the components of two vertices; whether they were two."""
    a, b = _root(parent, i), _root(parent, j)
    parent[a] = b
    return bool(a != b)
