"""Persistence by annotations, in kernels that are compiled at their first use: our own back end.

bars = annotated(within(matrix, 1.5), 2, room_bytes=2**30, most_steps=10**12)
prepare()                           # compiles everything, so that no later call waits for that
"""

from __future__ import annotations

from panic.topology.annotation.bars import MAX_DIMENSION, annotated, prepare

__all__ = ["MAX_DIMENSION", "annotated", "prepare"]
