"""Where the time goes: processor time per thread, and the functions it was spent in, of a running process.

A sampler thread reads every thread's processor time (Linux: /proc/self/task) and its Python stack. A stack
counts for the time that its thread has really run since the last look, so threads that wait weigh nothing.
It costs about 1 % at 50 looks a second.

    with watch() as seconds:
        run(config, "store")
    print(seconds.by_thread, seconds.by_function)
"""

from __future__ import annotations

import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

LOOKS_PER_S = 100
OURS = "/panic/"


@dataclass(slots=True)
class Seconds:
    """Processor seconds by thread name, and by (thread name, innermost function of ours)."""

    by_thread: Counter[str] = field(default_factory=Counter)
    by_function: Counter[tuple[str, str]] = field(default_factory=Counter)


@contextmanager
def watch() -> Iterator[Seconds]:
    """Sample all threads of this process but the sampler itself; the figures are complete afterwards."""
    seconds, stop = Seconds(), threading.Event()
    sampler = threading.Thread(target=_sample, args=(seconds, stop), name="sampler", daemon=True)
    sampler.start()
    try:
        yield seconds
    finally:
        stop.set()
        sampler.join()


def _sample(seconds: Seconds, stop: threading.Event) -> None:
    seen = {thread.native_id: _ran_s(thread.native_id) for thread in threading.enumerate()}
    while True:
        ended = stop.wait(1 / LOOKS_PER_S)
        frames = sys._current_frames()
        for thread in threading.enumerate():
            if thread is threading.current_thread() or thread.native_id is None:
                continue
            ran_s = _ran_s(thread.native_id)
            spent = ran_s - seen.get(thread.native_id, 0.0)
            seen[thread.native_id] = ran_s
            frame = frames.get(thread.ident or 0)
            if spent > 0:
                name = "driver" if thread is threading.main_thread() else thread.name.partition("_")[0]
                seconds.by_thread[name] += spent
                seconds.by_function[name, _innermost(frame)] += spent
        if ended:
            return


def _ran_s(native_id: int | None) -> float:
    """Seconds that a thread has been on a processor; 0 once it has ended."""
    try:
        return int(Path(f"/proc/self/task/{native_id}/schedstat").read_text().split()[0]) / 1e9
    except OSError:
        return 0.0


def _innermost(frame: FrameType | None) -> str:
    """The innermost function of the package on a stack."""
    while frame is not None:
        code = frame.f_code
        if OURS in code.co_filename and "/benchmarks/" not in code.co_filename:
            return f"{Path(code.co_filename).stem}.{code.co_qualname}"
        frame = frame.f_back
    return "other"
