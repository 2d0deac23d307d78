"""Processes that make small copies of images: decoding holds the interpreter's lock, so threads do not help.

They are started with the server and used once they are ready; without them the asking thread does it itself.

    with closing(Shrinkers(2)) as shrink: shrink(encoded, 128)
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import struct
import subprocess
import sys
import threading
from typing import IO

from panic.store.thumbnails import shrunk

SHRINKER = "panic.view.shrinking"
NICENESS = 10
HEAD = struct.Struct("<II")
"""Of a question: the longest side and the number of bytes that follow; of an answer: 0 and that number."""
MOST_PROCESSES = 4


class Shrinkers:
    """Some processes, each of which shrinks one image at a time; any thread may ask.

    num_ready: processes that can be used, guarded by `_lock`. `_idle` gives each to a single thread.
    """

    def __init__(self, number: int | None = None) -> None:
        self._idle: queue.Queue[subprocess.Popen[bytes]] = queue.Queue()
        self._lock = threading.Lock()
        self.num_ready = 0
        wanted = min(MOST_PROCESSES, os.cpu_count() or 1) if number is None else number
        self.children = [_start() for _ in range(wanted)]
        for child in self.children:
            threading.Thread(target=self._greet, args=(child,), daemon=True).start()

    def _greet(self, child: subprocess.Popen[bytes]) -> None:
        """Wait until a process is ready, which it says once."""
        assert child.stdout is not None
        if child.stdout.read(HEAD.size):
            with self._lock:
                self.num_ready += 1
            self._idle.put(child)

    def __call__(self, data: bytes, side: int) -> bytes:
        """WebP of at most `side` pixels of an encoded image, as `shrunk` makes it."""
        with self._lock:
            if not self.num_ready:
                return shrunk(data, side)
        try:
            child = self._idle.get(timeout=5)
        except queue.Empty:
            return shrunk(data, side)
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            child.stdin.write(HEAD.pack(side, len(data)) + data)
            child.stdin.flush()
            made = _read(child.stdout)
        except OSError:
            made = None
        if made is None:  # it has ended
            with self._lock:
                self.num_ready -= 1
            return shrunk(data, side)
        self._idle.put(child)
        return made[1] or data

    def close(self) -> None:
        """End all processes."""
        with self._lock:
            self.num_ready = 0
        for child in self.children:
            child.kill()
            child.wait()


def _start() -> subprocess.Popen[bytes]:
    paths = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}  # and not the working folder
    return subprocess.Popen(
        [sys.executable, "-P", "-m", SHRINKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, env={**os.environ, **paths},
    )  # fmt: skip


def _read(pipe: IO[bytes]) -> tuple[int, bytes] | None:
    """The number and the bytes of a message; None where there are no more."""
    head = pipe.read(HEAD.size)
    if len(head) < HEAD.size:
        return None
    number, length = HEAD.unpack(head)
    data = pipe.read(length)
    return (number, data) if len(data) == length else None


def main() -> None:
    """Shrink what standard input has, until it ends. Nothing comes back of an image that is small enough."""
    import PIL.WebPImagePlugin  # noqa: F401 - the first image would wait for it

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(OSError):
        os.nice(NICENESS)
    answers = sys.stdout.buffer
    answers.write(HEAD.pack(0, 0))
    answers.flush()
    while asked := _read(sys.stdin.buffer):
        side, data = asked
        made = shrunk(data, side)
        told = b"" if made is data else made
        answers.write(HEAD.pack(0, len(told)) + told)
        answers.flush()


if __name__ == "__main__":
    main()
