"""Frames of a large store: 1,000,000 invocations and 500,000 embeddings of 256 d.

A child process loads them, so that its peak memory is its own. The baseline reads the embeddings with
`pl.read_database` and unpacks them in Python, on a part of them if they are many, and is scaled up.
Figures go to benchmarks/results/frames.json.

    pytest benchmarks/test_frames.py -m slow
    PANIC_BENCHMARK_SHARE=0.1 pytest benchmarks/test_frames.py -m slow     # a tenth of it
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.frames_store import fill
from benchmarks.record import record

SHARE = float(os.environ.get("PANIC_BENCHMARK_SHARE", "1"))
INVOCATIONS, EMBEDDINGS, DIMENSION = round(1_000_000 * SHARE), round(500_000 * SHARE), 256
BASELINE_ROWS = 50_000

OURS = """
import json, resource, sys, time
import polars as pl
from panic.analysis import load
from panic.store import Store, reading
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
with Store(sys.argv[1]) as store:
    reading.runs(store); pl.DataFrame({"a": [1]})
    before = int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()
    start, cpu = time.perf_counter(), time.process_time()
    data = load(store, "latest" if len(sys.argv) > 2 else None)
    steps = data.invocations
    steps_s = time.perf_counter() - start
    vectors, matrix = data.embeddings("embed"), data.matrix("embed")
    both_s, cpu_s = time.perf_counter() - start, time.process_time() - cpu
    size = steps.estimated_size() + matrix.nbytes + vectors["output"].estimated_size()
    print(json.dumps({"steps_s": steps_s, "vectors_s": both_s - steps_s, "cpu_s": cpu_s, "result_bytes": size,
                      "peak_ratio": (peak() - before) / size, "shape": [len(steps), *matrix.shape]}))
"""
THEIRS = """
import json, sqlite3, sys, time
import numpy as np, polars as pl
connection = sqlite3.connect(sys.argv[1] + "/store.sqlite")
start = time.perf_counter()
frame = pl.read_database(f"SELECT output, vector FROM embedding LIMIT {sys.argv[2]}", connection)
vectors = [np.frombuffer(blob, "<f4").tolist() for blob in frame["vector"]]
frame = frame.with_columns(pl.Series("vector", vectors, pl.Array(pl.Float32, len(vectors[0]))))
print(json.dumps({"vectors_s": time.perf_counter() - start, "rows": len(frame)}))
"""


def run(code: str, *arguments: str) -> dict[str, float]:
    """What a script prints as JSON, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1],
    )  # fmt: skip
    found: dict[str, float] = json.loads(done.stdout)
    return found


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_frames_of_a_large_store(tmp_path):
    fill(tmp_path / "s", INVOCATIONS, EMBEDDINGS, DIMENSION)
    path = str(tmp_path / "s")
    run(OURS, path)  # files into the system's cache, for both sides
    ours = min((run(OURS, path) for _ in range(3)), key=lambda found: found["steps_s"] + found["vectors_s"])
    rows = min(EMBEDDINGS, BASELINE_ROWS)
    theirs = run(THEIRS, path, str(rows))["vectors_s"] * EMBEDDINGS / rows
    size = f"{INVOCATIONS:,} invocations, {EMBEDDINGS:,} x {DIMENSION} embeddings"
    record(
        f"frames of {size}", ours["steps_s"] + ours["vectors_s"], unit="s", limit=3.0 * SHARE, file="frames",
        cpu_s=ours["cpu_s"], steps_s=ours["steps_s"],
    )  # fmt: skip
    record(
        f"embeddings alone of {size}", ours["vectors_s"], unit="s", baseline=theirs,
        ratio=theirs / ours["vectors_s"], limit=10.0, file="frames", measured_on=rows,
    )  # fmt: skip
    record(
        f"peak memory over the result of {size}", ours["peak_ratio"], unit="", limit=2.0, file="frames",
        result_mib=ours["result_bytes"] / 2**20,
    )  # fmt: skip
    assert ours["shape"] == [INVOCATIONS, EMBEDDINGS, DIMENSION]
