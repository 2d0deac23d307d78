"""A report of 10,000 runs: seconds and memory.

A child process writes it, so that its peak memory is its own, the interpreter included. Figures go to
benchmarks/results/report.json.

    pytest benchmarks/test_report.py -m slow
    PANIC_BENCHMARK_SHARE=0.1 pytest benchmarks/test_report.py -m slow     # a tenth of it
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.record import record
from benchmarks.report_store import fill

SHARE = float(os.environ.get("PANIC_BENCHMARK_SHARE", "1"))
RUNS = round(10_000 * SHARE)
LIMIT_S, LIMIT_BYTES = 60.0, 10**9
REPORT = """
import json, resource, sys, time
from pathlib import Path
start = time.perf_counter()
from panic.analysis.report import write_report
from panic.store import Store
with Store(sys.argv[1]) as store:
    write_report(store, "large", sys.argv[2])
print(json.dumps({
    "seconds": time.perf_counter() - start,
    "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    "page_bytes": Path(sys.argv[2]).stat().st_size,
}))
"""


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_report_of_very_many_runs(tmp_path: Path) -> None:
    fill(tmp_path / "s", RUNS)
    done = subprocess.run(
        [sys.executable, "-c", REPORT, str(tmp_path / "s"), str(tmp_path / "report.html")],
        capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1],
    )  # fmt: skip
    found = json.loads(done.stdout)
    record(
        f"report of {RUNS:,} runs", found["seconds"], unit="s", limit=LIMIT_S, file="report",
        page_mib=found["page_bytes"] / 2**20,
    )  # fmt: skip
    record(
        f"peak memory of a report of {RUNS:,} runs", found["peak_bytes"] / 2**20, unit="MiB",
        limit=LIMIT_BYTES / 2**20, file="report",
    )  # fmt: skip
    assert found["seconds"] < LIMIT_S
    assert found["peak_bytes"] < LIMIT_BYTES
