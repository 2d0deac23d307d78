"""Several devices of one host, and workers of a Ray cluster: what more bring, and what the end of one costs.

The devices are simulated, their models sleep or cost nothing; each has a process. Starting the
processes is in no figure: rates are those of the time in which all of them compute. Figures go to
benchmarks/results/scale.json.

    pytest benchmarks/test_scale.py -m ''
"""

from __future__ import annotations

import importlib.util
import logging
import os
import signal
import sqlite3
import time
from collections import defaultdict
from collections.abc import Callable
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
NOISE = '''
import numpy as np

from panic.models.synthetic import TextToImage


class Noise(TextToImage):
    """Images that cannot be compressed."""

    PARAMETERS = {}

    def __init__(self):
        super().__init__(states=8, size=8)

    def invoke(self, inputs, seeds):
        return [np.random.default_rng(seed).integers(0, 256, (1024, 1024, 3), np.uint8) for seed in seeds]
'''
needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")
SETTLE_S = 0.5
"""After the last process has begun, and before the first has ended."""


def on(number: int, config: ExperimentConfig) -> ExperimentConfig:
    """The config on so many devices, each with a child process."""
    device: Any = ["sim:1GiB"] * number if number > 1 else "sim:1GiB"
    return config.model_copy(update={"device": device, "executor": "process"})


def on_ray(number: int, config: ExperimentConfig) -> ExperimentConfig:
    """The config on so many workers of a Ray cluster that is started for it."""
    fields = config.model_dump() | {"executor": "ray", "ray": {"workers": number}}
    return ExperimentConfig.model_validate(fields)


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


@needs_ray
def test_eight_workers_of_ray_against_eight_times_one(tmp_path: Path) -> None:
    """As above, with a Ray cluster of this machine."""
    results = {}
    for number, steps in ((1, 20), (8, 120)):
        config = synthetic_config(runs=4 * 24, steps=steps, batch_size=4, delay_s=DELAY_S)
        run(on_ray(number, config), tmp_path / str(number))
        results[number] = rate(tmp_path / str(number), number)[0]
    ratio = results[8] / (8 * results[1])
    record(
        "speed of 8 workers of Ray against 8 times one", ratio, unit="1", limit=0.85, ratio=ratio, file=FILE,
        baseline=results[1], calls_per_s=results[8], input="50 ms per batch of 4, 96 runs, 64 px",
    )  # fmt: skip
    assert ratio >= 0.85


@needs_ray
def test_bytes_through_the_driver_of_ray(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Of images of noise that the next model reads: calls, results and files, against the files alone.

    Of a session that goes on: that of the beginning has drawn images to see whether batch mates matter.
    """
    (tmp_path / "models.py").write_text(NOISE)
    config = synthetic_config(runs=8, steps=12, batch_size=4)
    models = config.model_dump()["models"] | {"draw": {"base": f"python:{tmp_path}/models.py:Noise"}}
    config = ExperimentConfig.model_validate(config.model_dump() | {"models": models})
    run(on_ray(2, config.model_copy(update={"max_length": 2})), tmp_path / "store")
    before = files_of(tmp_path / "store")
    with caplog.at_level(logging.INFO):
        run(on_ray(2, config), tmp_path / "store")
    [told] = [record.args for record in caplog.records if "the driver sent" in record.msg]
    assert isinstance(told, tuple)
    number, files = (now - then for now, then in zip(files_of(tmp_path / "store"), before, strict=True))
    ratio = sum(told) / files
    record(
        "bytes through the driver of Ray per image", sum(told) / number, unit="B", limit=1.1 * files / number,
        ratio=ratio, baseline=files / number, baseline_is="the encoded file", file=FILE,
        input="1024 px of noise, batches of 4, read by the next model",
    )  # fmt: skip
    assert number == 40
    assert ratio < 1.1


def files_of(store: Path) -> tuple[int, int]:
    """(number, bytes) of the images of a store, as they are encoded."""
    with sqlite3.connect(store / "images.sqlite") as connection:
        return connection.execute("SELECT count(*), sum(length(bytes)) FROM image").fetchone()


def test_seconds_until_the_items_of_a_killed_process_run_again(tmp_path: Path) -> None:
    """From SIGKILL of one of four until every run has gone on: at most that long its items have waited."""
    waited, gap = seconds_of_waiting(on, "process_worker", tmp_path / "store")
    record(
        "seconds from SIGKILL of one of 4 until all runs have gone on", waited, unit="s", limit=5.0,
        file=FILE, until_its_device_computes_again_s=gap, input="60 runs, 50 ms per batch of 4",
    )  # fmt: skip
    assert waited < 5.0


@needs_ray
def test_seconds_until_the_items_of_a_killed_worker_of_ray_run_again(tmp_path: Path) -> None:
    """As above, with a Ray cluster of this machine."""
    waited, gap = seconds_of_waiting(on_ray, "ray::Place", tmp_path / "store")
    record(
        "seconds from SIGKILL of one of 4 workers of Ray until all runs have gone on", waited, unit="s",
        limit=5.0, file=FILE, until_its_worker_computes_again_s=gap, input="60 runs, 50 ms per batch of 4",
    )  # fmt: skip
    assert waited < 5.0


def seconds_of_waiting(
    place: Callable[[int, ExperimentConfig], ExperimentConfig], title: str, store: Path
) -> tuple[float, float]:
    """(seconds from SIGKILL of one of four until all runs have gone on, the longest that one of them paused).

    title: what is in the command line of such a process.
    """
    killed: list[float] = []

    def on_progress(progress: Progress) -> None:
        if killed or progress.invocations < 2000:
            return
        children = psutil.Process().children(recursive=True)
        workers = [child for child in children if title in " ".join(child.cmdline())]
        assert len(workers) == 4
        os.kill(workers[-1].pid, signal.SIGKILL)
        killed.append(time.time())

    config = synthetic_config(runs=60, steps=150, batch_size=4, delay_s=DELAY_S)
    run(place(4, config), store, on_progress=on_progress)
    [at] = killed
    with sqlite3.connect(store / "store.sqlite") as connection:
        again = connection.execute(
            "SELECT run, min(started_at) FROM invocation JOIN batch ON batch.id = invocation.batch"
            " WHERE started_at > ? GROUP BY run", (at,),
        ).fetchall()  # fmt: skip
    assert len(again) == 60
    begins: dict[str, list[float]] = defaultdict(list)
    for device, _, begin, _ in batches(store):
        begins[device].append(begin)
    gap = max(after - before for times in begins.values() for before, after in pairwise(sorted(times)))
    return max(started for _, started in again) - at, gap


def test_the_driver_with_results_of_four(tmp_path: Path) -> None:
    """Zero-cost models: what the driver takes from four processes, against one; the best of three, in turn.

    Enough runs that each of four has a full batch and one more behind it: a batch that is not full costs as
    much as one that is.
    """
    config = synthetic_config(runs=320, steps=100)
    found: dict[int, list[float]] = {0: [], 1: [], 4: []}  # 0: a thread of this process
    for n in range(3):
        for number, rates in found.items():
            run(on(number, config) if number else config, tmp_path / f"{number}-{n}")
            rates.append(rate(tmp_path / f"{number}-{n}", max(1, number))[1])
    best = {number: max(rates) for number, rates in found.items()}
    one = max(best[0], best[1])
    ratio = best[4] / one
    record(
        "throughput of the driver with 4 devices", best[4], unit="invocations/s", baseline=one, limit=one,
        ratio=ratio, file=FILE, input="320 runs x 100 steps, 64 px, zero-cost models, batches of 32",
        baseline_is="one worker in the same run: a thread, or a child process, whichever is faster",
        one_thread_of_the_driver=best[0], one_child_process=best[1],
        rounds={str(number): rates for number, rates in found.items()},
    )  # fmt: skip
    assert ratio >= 1.0
