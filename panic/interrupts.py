"""SIGINT and SIGTERM: the first stops long work after the batch in flight, the second ends at once.

After the first, all that was asked for at an end is done, such as a last snapshot, and the exit code is 130.
After the second nothing is, and the code is that of the signal: 130 or 143.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType


@contextlib.contextmanager
def stop_on_signals() -> Iterator[Callable[[], bool]]:
    """Yield a function that tells whether to stop; signals are caught in the main thread only."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return

    def on_signal(number: int, frame: FrameType | None) -> None:
        if asked.is_set():
            os._exit(128 + number)
        asked.set()
        with contextlib.suppress(OSError):  # nobody may be there to read it: Ctrl-C ends a `tee`, too
            os.write(2, b"\nStopping after the batch in flight; once more to leave at once.\n")

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
