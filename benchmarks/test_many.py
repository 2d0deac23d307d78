"""Whole processes over a store of 10,000 experiments: 1,000,000 invocations, and 10,000,000 under `-m long`.

pytest benchmarks/test_many.py -m 'slow and not long'
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.many_experiments import fill
from benchmarks.record import record

ASKED = {
    "list": (["list"], 0.3),
    "list --where": (["list", "--where", "state = complete and runs > 5"], 0.5),
    "search": (["search", '"red circle"'], 0.2),
    "compare": (["compare", "night-000004", "night-005005"], 1.0),
}
ROUNDS = 5


def seconds(store: Path, arguments: list[str]) -> tuple[float, float]:
    """Least wall and processor time of a command."""
    walls, cpus = [], []
    for _ in range(ROUNDS):
        before, start = os.times(), time.perf_counter()
        command = [sys.executable, "-m", "panic", *arguments, "--store", str(store)]
        subprocess.run(command, check=True, capture_output=True)
        walls.append(time.perf_counter() - start)
        after = os.times()
        user = after.children_user - before.children_user
        cpus.append(user + after.children_system - before.children_system)
    return min(walls), min(cpus)


def measure(folder: Path, runs: int, steps: int) -> None:
    """Record what the four commands take, also the first time after the store was written."""
    fill(folder, 10_000, runs, steps)
    number = f"{10_000 * runs * steps:,} invocations"
    for name, (arguments, limit) in ASKED.items():
        wall, cpu = seconds(folder, arguments)
        record(
            f"panic {name}, {number}", wall, unit="s", limit=limit, file="search", cpu_s=cpu, rounds=ROUNDS
        )
        print(f"{name}: {wall:.2f} s, processor {cpu:.2f} s")


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_million_invocations(tmp_path: Path) -> None:
    measure(tmp_path / "s", 10, 10)


@pytest.mark.long
@pytest.mark.timeout(7200)
def test_ten_million_invocations(tmp_path: Path) -> None:
    measure(tmp_path / "s", 20, 50)
