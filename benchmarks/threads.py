"""Processor time per thread while something runs: which part of the engine the time goes to.

A sampler reads every thread's time on a processor (Linux: /proc/self/task) 50 times a second; what a thread
did after the last look before its end is lost, 20 ms at most. Threads of a pool count together.

    with watch() as seconds:
        run(config, "store")
    seconds.most_common()    # [("models", 1.35), ("encode", 1.19), ("writer", 0.39), ("driver", 0.31), ...]
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LOOK_EVERY_S = 0.02


@contextmanager
def watch() -> Iterator[Counter[str]]:
    """Processor seconds by name of thread, complete afterwards; the main thread is called "driver"."""
    seconds: Counter[str] = Counter()
    stop = threading.Event()
    sampler = threading.Thread(target=_sample, args=(seconds, stop), name="sampler", daemon=True)
    sampler.start()
    try:
        yield seconds
    finally:
        stop.set()
        sampler.join()


def _sample(seconds: Counter[str], stop: threading.Event) -> None:
    seen = {thread.native_id: _ran_s(thread.native_id) for thread in threading.enumerate()}
    ended = False
    while not ended:
        ended = stop.wait(LOOK_EVERY_S)
        for thread in threading.enumerate():
            ran_s = _ran_s(thread.native_id)
            name = "driver" if thread is threading.main_thread() else thread.name.partition("_")[0]
            seconds[name] += max(0.0, ran_s - seen.get(thread.native_id, 0.0))
            seen[thread.native_id] = ran_s
    del seconds["sampler"]


def _ran_s(native_id: int | None) -> float:
    """Seconds that a thread has been on a processor; 0 once it has ended."""
    try:
        return int(Path(f"/proc/self/task/{native_id}/schedstat").read_text().split()[0]) / 1e9
    except OSError:
        return 0.0
