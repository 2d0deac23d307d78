"""Several devices of one host: what more of them bring, and what the end of one costs.

The devices are simulated, their models sleep or cost nothing; each has a child process. Starting the
processes is in no figure: rates are those of the time in which all of them compute. Figures go to
benchmarks/results/scale.json.

    pytest benchmarks/test_scale.py -m ''
"""

from __future__ import annotations

import os
import signal
import sqlite3
import time
from collections import defaultdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import pytest

from benchmarks.record import record
from benchmarks.workload import synthetic_config
from panic import run
from panic.config import ExperimentConfig
from panic.engine.progress import Progress

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
FILE = "scale"
DELAY_S = 0.05
SETTLE_S = 0.5
"""After the last process has begun, and before the first has ended."""


def on(number: int, config: ExperimentConfig) -> ExperimentConfig:
    """The config on so many devices, each with a child process."""
    device: Any = ["sim:1GiB"] * number if number > 1 else "sim:1GiB"
    return config.model_copy(update={"device": device, "executor": "process"})


def batches(store: Path) -> list[tuple[str, int, float, float]]:
    """(device, items, begin, seconds) of every call."""
    with sqlite3.connect(store / "store.sqlite") as connection:
        return connection.execute("SELECT device, size, started_at, duration_s FROM batch").fetchall()


def rate(store: Path, number: int) -> tuple[float, float]:
    """(calls per second, items per second) while all devices compute."""
    found = batches(store)
    of = {device: sorted(one[2] for one in found if one[0] == device) for device, *_ in found}
    assert len(of) == number
    begin, end = (
        max(times[0] for times in of.values()) + SETTLE_S,
        min(times[-1] for times in of.values()) - SETTLE_S,
    )
    within = [size for _, size, at, _ in found if begin <= at < end]
    assert end - begin > 2.0, "too short to mean anything"
    return len(within) / (end - begin), sum(within) / (end - begin)


def test_eight_devices_against_eight_times_one(tmp_path: Path) -> None:
    """Models of 50 ms per batch; enough runs that each device has one batch computing and one behind it."""
    results = {}
    for number, steps in ((1, 20), (2, 24), (4, 40), (8, 60)):
        config = synthetic_config(runs=4 * 24, steps=steps, batch_size=4, delay_s=DELAY_S)
        run(on(number, config), tmp_path / str(number))
        results[number] = rate(tmp_path / str(number), number)[0]
    ratio = results[8] / (8 * results[1])
    record(
        "speed of 8 devices against 8 times one", ratio, unit="1", limit=0.9, ratio=ratio, file=FILE,
        baseline=results[1], calls_per_s=results[8],
        calls_per_s_by_devices={str(number): value for number, value in results.items()},
        input="50 ms per batch of 4, 96 runs, child processes",
    )  # fmt: skip
    assert ratio >= 0.9


def test_seconds_until_the_items_of_a_killed_process_run_again(tmp_path: Path) -> None:
    """From SIGKILL of one of four until every run has gone on: at most that long its items have waited."""
    killed: list[float] = []

    def on_progress(progress: Progress) -> None:
        if killed or progress.invocations < 2000:
            return
        children = psutil.Process().children()
        workers = [child for child in children if "process_worker" in " ".join(child.cmdline())]
        assert len(workers) == 4
        os.kill(workers[-1].pid, signal.SIGKILL)
        killed.append(time.time())

    config = synthetic_config(runs=60, steps=150, batch_size=4, delay_s=DELAY_S)
    run(on(4, config), tmp_path / "store", on_progress=on_progress)
    [at] = killed
    with sqlite3.connect(tmp_path / "store" / "store.sqlite") as connection:
        again = connection.execute(
            "SELECT run, min(started_at) FROM invocation JOIN batch ON batch.id = invocation.batch"
            " WHERE started_at > ? GROUP BY run", (at,),
        ).fetchall()  # fmt: skip
    assert len(again) == 60
    waited = max(started for _, started in again) - at
    begins: dict[str, list[float]] = defaultdict(list)
    for device, _, begin, _ in batches(tmp_path / "store"):
        begins[device].append(begin)
    gap = max(after - before for times in begins.values() for before, after in pairwise(sorted(times)))
    record(
        "seconds from SIGKILL of one of 4 until all runs have gone on", waited, unit="s", limit=5.0,
        file=FILE,
        until_its_device_computes_again_s=gap, input="60 runs, 50 ms per batch of 4",
    )  # fmt: skip
    assert waited < 5.0


def test_the_driver_with_results_of_four(tmp_path: Path) -> None:
    """Zero-cost models: what the driver takes from four processes, against one; the best of three each."""
    config = synthetic_config(runs=200, steps=200)
    best = {}
    for number in (1, 4):
        found = []
        for n in range(3):
            run(on(number, config), tmp_path / f"{number}-{n}")
            found.append(rate(tmp_path / f"{number}-{n}", number)[1])
        best[number] = max(found)
    run(config, tmp_path / "thread")
    run(config, tmp_path / "thread2")
    in_thread = max(rate(tmp_path / name, 1)[1] for name in ("thread", "thread2"))
    ratio = best[4] / best[1]
    record(
        "throughput of the driver with 4 devices", best[4], unit="invocations/s",
        baseline=best[1], limit=best[1],
        ratio=ratio, file=FILE, input="200 runs x 200 steps, 64 px, zero-cost models, batches of 32",
        baseline_is="one child process, in the same run", one_thread_of_the_driver=in_thread,
    )  # fmt: skip
    assert ratio >= 1.0
