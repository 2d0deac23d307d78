"""Importing 1,000,000 rows of JSON lines and of Parquet: reading and checking them, writing them.

A child process imports, so that its peak memory is its own (getrusage would tell that of its parent, too).
Figures go to benchmarks/results/import.json.

    pytest benchmarks/test_import.py -m long
    PANIC_BENCHMARK_SHARE=0.1 pytest benchmarks/test_import.py -m long     # a tenth of it
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.record import record

SHARE = float(os.environ.get("PANIC_BENCHMARK_SHARE", "1"))
STEPS, RUNS = 100, round(10_000 * SHARE)
COLOURS = ["red", "blue", "green", "grey", "old", "new"]

OURS = """
import json, sys, time
from pathlib import Path
from panic.engine.importing.write import ImportOptions, read_import, write_import
from panic.store import Store
def peak(): return 1024 * int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
before, start = peak(), time.perf_counter()
found = read_import(ImportOptions(name="chains", path=Path(sys.argv[1])))
read, read_peak = time.perf_counter(), peak()
with Store(Path(sys.argv[2]), write=True, create=True) as store:
    write_import(store, found)
print(json.dumps({"read_s": read - start, "write_s": time.perf_counter() - read, "start_bytes": before,
                  "read_peak_bytes": read_peak, "peak_bytes": peak()}))
"""


def rows() -> Iterator[dict[str, Any]]:
    """Runs of texts of about 80 characters, no two of which are equal."""
    for run in range(RUNS):
        for step in range(STEPS):
            text = (
                f"a {COLOURS[step % 6]} house, number {run}, beside tree {step} in the light of the evening"
            )
            yield {"run": f"run-{run}", "step": step, "text": text, "model": "it", "prompt": f"house {run}"}


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("ending", [".jsonl", ".parquet"])
def test_a_million_rows(tmp_path: Path, ending: str) -> None:
    path, store = tmp_path / f"chains{ending}", tmp_path / "store"
    if ending == ".parquet":
        import polars

        polars.DataFrame(list(rows())).write_parquet(path)
    else:
        with path.open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows())
    words = [sys.executable, "-c", OURS, str(path), str(store)]
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout)
    more = {
        "file": "import",
        "details": found,
        "rows": RUNS * STEPS,
        "file_bytes": path.stat().st_size,
        "store_bytes": sum(one.stat().st_size for one in store.iterdir()),
    }
    name = f"import.{ending[1:]}"
    record(f"{name}, rows read per s", RUNS * STEPS / found["read_s"], unit="1/s", **more)
    record(f"{name}, rows written per s", RUNS * STEPS / found["write_s"], unit="1/s", **more)
    record(f"{name}, peak bytes", found["peak_bytes"] - found["start_bytes"], unit="B", **more)
