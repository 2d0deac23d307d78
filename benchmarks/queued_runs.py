"""Peak memory of a process that performs an experiment of the synthetic pair, as JSON.

What `test_engine.py` starts; memory must not be that of a process which has done other things before.

    python -m benchmarks.queued_runs RUNS STEPS STORE
"""

from __future__ import annotations

import json
import sys
import threading

import psutil

from benchmarks.workload import synthetic_config
from panic import run

PIXEL_CACHE = "8MiB"
"""Small, so that what grows is the queue and not the cache of pixels, which has a budget of its own."""


def main() -> None:
    runs, steps, store = sys.argv[1:]
    config = synthetic_config(runs=int(runs), steps=int(steps), pixel_cache_bytes=PIXEL_CACHE)
    process, stop, peak = psutil.Process(), threading.Event(), 0
    before = process.memory_info().rss

    def watch() -> None:
        nonlocal peak
        while not stop.wait(0.02):
            peak = max(peak, process.memory_info().rss)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    outcome = run(config, store)
    stop.set()
    watcher.join()
    print(json.dumps({"before": before, "peak": peak, "invocations": outcome.counts.invocations}))


main()
