"""A pipe between two processes that carries images beside the messages they are in, not within them.

A message is pickled without its pixels. Those follow it as they are, and become images straight from where
they arrive. Within one pickle they would be copied twice more, into memory that has to grow meanwhile.
"""

from __future__ import annotations

import copyreg
import io
import os
import pickle
import struct
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

STRETCHES_AT_ONCE = 512
"""Stretches of memory in one call of the system, which takes 1,024 at most."""
LENGTH = struct.calcsize("=q")

if TYPE_CHECKING:
    _Connection = Connection[Any, Any]
else:
    _Connection = Connection


class Channel(_Connection):
    """One end of such a pipe; the other has to be of this class, too. One thread sends, one receives."""

    def send(self, obj: Any) -> None:
        """Send a message: its pickle, the lengths of what follows and their number, and what follows."""
        buffers: list[pickle.PickleBuffer] = []
        stream = io.BytesIO()
        pickler = pickle.Pickler(stream, 5, buffer_callback=buffers.append)
        pickler.dispatch_table = copyreg.dispatch_table | {Image.Image: _reduced}
        pickler.dump(obj)
        stretches = [buffer.raw() for buffer in buffers]
        lengths = [stretch.nbytes for stretch in stretches]
        stream.write(struct.pack(f"={len(lengths) + 1}q", *lengths, len(lengths)))
        self.send_bytes(stream.getbuffer())
        _move(os.writev, self.fileno(), stretches)

    def recv(self) -> Any:
        """Receive a message. Raises EOFError where the other end has been closed or has ended."""
        data = memoryview(self.recv_bytes())
        (count,) = struct.unpack("=q", data[-LENGTH:])
        lengths = struct.unpack(f"={count}q", data[-LENGTH * (count + 1) : -LENGTH])
        memory = np.empty(sum(lengths), np.uint8).data  # not filled with zeros first
        _move(os.readv, self.fileno(), [memory])
        stretches, first = [], 0
        for length in lengths:
            stretches.append(memory[first : first + length])
            first += length
        return pickle.loads(data, buffers=stretches)


def _move(
    move: Callable[[int, Sequence[memoryview]], int], descriptor: int, stretches: Sequence[memoryview]
) -> None:
    """Read or write stretches of memory as a whole. Raises EOFError, and OSError."""
    waiting = [stretch for stretch in reversed(stretches) if stretch.nbytes]
    while waiting:
        moved = move(descriptor, waiting[: -STRETCHES_AT_ONCE - 1 : -1])
        if not moved:
            raise EOFError
        while moved:
            stretch = waiting.pop()
            if moved < stretch.nbytes:
                waiting.append(stretch[moved:])
            moved -= min(moved, stretch.nbytes)


def _reduced(image: Image.Image) -> tuple[Any, ...] | str:
    if image.mode != "RGB" or image.info:
        return image.__reduce_ex__(pickle.HIGHEST_PROTOCOL)
    return _image, (image.size, pickle.PickleBuffer(image.tobytes()))


def _image(size: tuple[int, int], pixels: memoryview) -> Image.Image:
    return Image.frombytes("RGB", size, pixels)
