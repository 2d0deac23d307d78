"""Merging: 8 stores of 125,000 invocations each, and a store of large images.

A child process merges, so that its peak memory is its own. Figures go to benchmarks/results/merge.json.

    pytest benchmarks/test_merge.py -m slow
    PANIC_BENCHMARK_SHARE=0.1 pytest benchmarks/test_merge.py -m slow     # a tenth of it
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.merge_store import fill
from benchmarks.record import record

SHARE = float(os.environ.get("PANIC_BENCHMARK_SHARE", "1"))
STORES, INVOCATIONS = 8, round(125_000 * SHARE)
IMAGES, IMAGE_BYTES = round(1_200 * SHARE), 332_000  # as 512 px are stored

OURS = """
import json, resource, sys, time
from pathlib import Path
from panic.store.merging.merge import merge
start, cpu = time.perf_counter(), time.process_time()
merged = merge([Path(path) for path in sys.argv[2:]], Path(sys.argv[1]))
print(json.dumps({"seconds": time.perf_counter() - start, "cpu_s": time.process_time() - cpu,
                  "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
                  "invocations": merged.num_invocations, "images": merged.num_images,
                  "conflicts": len(merged.conflicts)}))
"""


def run(into: Path, *sources: Path) -> dict[str, float]:
    """What merging has taken, in a process of its own."""
    words = [sys.executable, "-c", OURS, str(into), *map(str, sources)]
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_eight_stores_become_one(tmp_path: Path) -> None:
    sources = [tmp_path / f"shard-{number}" for number in range(STORES)]
    for number, source in enumerate(sources):
        fill(source, number, INVOCATIONS, 500)
    found = run(tmp_path / "merged", *sources)
    assert (found["invocations"], found["conflicts"]) == (STORES * INVOCATIONS, 0)
    rate = found["invocations"] / found["seconds"]
    record("merge.invocations_per_s", rate, unit="1/s", limit=20_000, file="merge", details=found)
    record("merge.peak_bytes", found["peak_bytes"], unit="B", limit=300e6, file="merge", details=found)
    again = run(tmp_path / "merged", *sources)
    record("merge.again_s", again["seconds"], unit="s", file="merge", details=again)
    for source in sources:
        shutil.rmtree(source)
    assert again["invocations"] == 0
    assert rate >= 20_000
    assert found["peak_bytes"] < 300e6


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_image_bytes(tmp_path: Path) -> None:
    fill(tmp_path / "one", 0, 2 * IMAGES, IMAGE_BYTES)
    found = run(tmp_path / "merged", tmp_path / "one")
    rate = found["images"] * IMAGE_BYTES / found["seconds"]
    record("merge.image_bytes_per_s", rate, unit="B/s", limit=100e6, file="merge", details=found)
    assert rate >= 100e6
