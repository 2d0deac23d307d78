"""How fast the command line answers: median of several processes, files in the cache.

Figures go to benchmarks/results/cli.json.

    pytest benchmarks/test_cli.py -m ''
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.record import record
from benchmarks.workload import synthetic_config
from panic import run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
ROOT = Path(__file__).parents[1]
PANIC = [sys.executable, "-m", "panic"]
ROUNDS = 15


def seconds(*command: str) -> tuple[float, float]:
    """Median (wall, processor) seconds of a command, after one run that fills the file cache."""
    walls, cpus = [], []
    for _ in range(ROUNDS + 1):
        before, start = os.times(), time.perf_counter()
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
        walls.append(time.perf_counter() - start)
        after = os.times()
        cpus.append(
            after.children_user + after.children_system - before.children_user - before.children_system
        )
    return statistics.median(walls[1:]), statistics.median(cpus[1:])


@pytest.fixture(scope="module")
def bare_s() -> float:
    """An interpreter that does nothing."""
    return seconds(sys.executable, "-c", "pass")[0]


def keep(name: str, command: list[str], bare_s: float, limit: float) -> None:
    wall, cpu = seconds(*PANIC, *command)
    record(
        name, wall, unit="s", baseline=bare_s, ratio=wall / bare_s, limit=limit, file="cli",
        cpu_s=cpu, baseline_is="python -c pass", rounds=ROUNDS,
    )  # fmt: skip
    assert wall < limit


def test_help(bare_s: float) -> None:
    keep("panic --help", ["--help"], bare_s, 0.3)


def test_list_with_1000_runs(tmp_path: Path, bare_s: float) -> None:
    run(synthetic_config(runs=1000, steps=10, batch_size=200), tmp_path / "store")
    keep("panic list, 1,000 runs", ["list", "--store", str(tmp_path / "store")], bare_s, 0.5)
