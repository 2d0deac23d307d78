"""Whole processes over a store of 10,000 experiments: 1,000,000 invocations, and 10,000,000 under `-m long`.

There also one whose experiments the engine has performed, four runs of ten steps each.

pytest benchmarks/test_many.py -m 'slow and not long'
PANIC_LARGE_STORE=/scratch/large pytest benchmarks/test_many.py -m long     # made there once: 2 GB, minutes
PANIC_REAL_STORE=/scratch/real pytest benchmarks/test_many.py -m long       # made there once, also in parts

As root it also empties the system's cache of files before some calls, which others on the machine notice.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks import real_experiments
from benchmarks.many_experiments import fill
from benchmarks.record import record

ASKED = {
    "list": (["list"], 0.3),
    "list --where": (["list", "--where", "state = complete and runs > 5"], 0.5),
    "search": (["search", '"red circle"'], 0.2),
    "compare": (["compare", "night-000004", "night-005005"], 1.0),
}
ROUNDS = 5
CACHES = Path("/proc/sys/vm/drop_caches")


def seconds(store: Path, arguments: list[str]) -> tuple[float, float]:
    """Wall and processor time of a command."""
    before, start = os.times(), time.perf_counter()
    command = [sys.executable, "-m", "panic", *arguments, "--store", str(store)]
    subprocess.run(command, check=True, capture_output=True)
    wall, after = time.perf_counter() - start, os.times()
    user = after.children_user - before.children_user
    return wall, user + after.children_system - before.children_system


def cold(store: Path, arguments: list[str]) -> float | None:
    """Wall time after everything has left the system's cache of files, Python too; None where nobody may."""
    if not os.access(CACHES, os.W_OK):
        return None
    os.sync()
    CACHES.write_text("3")
    return seconds(store, arguments)[0]


def measure(store: Path, number: str) -> None:
    """Record what the four commands take: warm (the least), the first time, and cold."""
    for name, (arguments, limit) in ASKED.items():
        first, _ = seconds(store, arguments)
        warm = [seconds(store, arguments) for _ in range(ROUNDS)]
        wall, cpu = (min(one) for one in zip(*warm, strict=True))
        found = {"first_s": first, "cold_s": cold(store, arguments), "cpu_s": cpu, "rounds": ROUNDS}
        record(f"panic {name}, {number}", wall, unit="s", limit=limit, file="search", **found)
        print(f"{name}: {wall:.2f} s, processor {cpu:.2f} s, first {first:.2f} s, cold {found['cold_s']} s")


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_million_invocations(tmp_path: Path) -> None:
    fill(tmp_path / "s", 10_000, 10, 10)
    measure(tmp_path / "s", "1,000,000 invocations")


@pytest.mark.long
@pytest.mark.timeout(7200)
def test_ten_million_invocations(tmp_path: Path) -> None:
    store = Path(os.environ.get("PANIC_LARGE_STORE") or tmp_path / "s")
    if not (store / "store.sqlite").exists():
        fill(store, 10_000, 20, 50)
    measure(store, "10,000,000 invocations")


@pytest.mark.long
@pytest.mark.timeout(7200)
def test_ten_thousand_real_experiments(tmp_path: Path) -> None:
    store = Path(os.environ.get("PANIC_REAL_STORE") or tmp_path / "s")
    real_experiments.fill(store, 10_000)
    measure(store, "10,000 real experiments")
