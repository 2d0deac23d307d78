"""Bytes on their way to a device: the blocks that move at once, and the copies that are under way.

Every kind of device takes blocks and gives transfers, so these words stand below all of them.

    BlockingTransfer(blocks).wait()
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Protocol


class Block(Protocol):
    """A part of a model's weights that moves at once."""

    @property
    def num_bytes(self) -> int:
        """Bytes on the device."""

    def fill(self) -> None:
        """Copy the bytes into memory that is allocated already, on the current stream."""


class Transfer(Protocol):
    """Copies of blocks to a device, in their order."""

    def wait(self) -> float:
        """Wait until all have arrived. Returns the seconds waited; raises what a copy raised."""

    def cancel(self) -> int:
        """Begin no more copies and wait for those begun. Returns how many blocks have arrived."""


class BlockingTransfer:
    """Copies made at once, for devices without a bus of their own."""

    def __init__(self, blocks: Sequence[Block]) -> None:
        started = time.perf_counter()
        for block in blocks:
            block.fill()
        self._num_blocks = len(blocks)
        self._seconds = time.perf_counter() - started

    def wait(self) -> float:
        seconds, self._seconds = self._seconds, 0.0
        return seconds

    def cancel(self) -> int:
        return self._num_blocks


def format_bytes(count: float) -> str:
    """1536 -> "1.5 KiB"."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1024 or unit == "GiB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    raise AssertionError("unreachable")
