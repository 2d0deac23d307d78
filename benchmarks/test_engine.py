"""What the engine itself costs, with models that cost nothing or a known time.

Figures go to benchmarks/results/engine.json.

    pytest benchmarks/test_engine.py -m ''
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any

import pytest

from benchmarks.record import record
from benchmarks.threads import watch
from benchmarks.workload import by_hand, synthetic_config
from panic import run
from panic.config import ExperimentConfig
from panic.store import Store, reading
from tests import tiny

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
ROOT = Path(__file__).parents[1]
FILE = "engine"
RUNS, STEPS = 200, 100
NOTE = "200 runs x 100 steps, seed -1, distinct texts and 64x64 images, batches of 32, runs stage only"


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed:
    """How long an experiment took: wall, processor seconds of all threads, and the sum of model calls."""

    invocations: int
    wall_s: float
    cpu_s: float
    model_s: float


def timed(config: ExperimentConfig, store: Path) -> Timed:
    wall, cpu = time.perf_counter(), time.process_time()
    outcome = run(config, store)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    assert outcome.state == "complete"
    with Store(store) as opened:
        model_s = sum(times.duration_s for times in reading.model_times(opened, outcome.name))
    return Timed(invocations=outcome.counts.invocations, wall_s=wall, cpu_s=cpu, model_s=model_s)


def timed_by_hand(config: ExperimentConfig, folder: Path) -> tuple[float, Counter[str]]:
    start = time.perf_counter()
    spent = by_hand(config, folder)
    return time.perf_counter() - start, spent


def keep(name: str, value: float, unit: str, **fields: Any) -> None:
    record(name, value, unit=unit, file=FILE, **fields)


def test_invocations_per_second(tmp_path: Path, benchmark: Any) -> None:
    """Best of five, against the same contents made, hashed, encoded and written without an engine."""
    config = synthetic_config(runs=RUNS, steps=STEPS)
    results: list[Timed] = []
    benchmark.pedantic(
        lambda: results.append(timed(config, tmp_path / f"engine{len(results)}")), rounds=5, warmup_rounds=1
    )
    best = min(results, key=lambda result: result.wall_s)
    hand_s, hand_cpu_s = min(
        (timed_by_hand(config, tmp_path / f"hand{n}") for n in range(3)), key=itemgetter(0)
    )
    rate, by_hand_rate = RUNS * STEPS / best.wall_s, RUNS * STEPS / hand_s
    keep(
        "throughput, zero-cost pair", rate, "invocations/s",
        limit=2000.0, baseline=by_hand_rate, ratio=rate / by_hand_rate, input=NOTE,
        cpu_s=best.cpu_s, wall_s=best.wall_s, rounds_wall_s=[result.wall_s for result in results],
        baseline_is="the same contents and rows without an engine, one after another in one thread",
    )  # fmt: skip
    with watch() as spent:
        timed(config, tmp_path / "watched")
    keep(
        "where the time goes, zero-cost pair", spent.total(), "processor s", input=NOTE,
        baseline=hand_cpu_s.total(), ratio=spent.total() / hand_cpu_s.total(),
        by_thread=dict(spent.most_common()), by_hand=dict(hand_cpu_s.most_common()),
    )  # fmt: skip
    assert rate >= 2000


@pytest.mark.parametrize("batch_size", [8, 200])
def test_invocations_per_second_by_batch_size(tmp_path: Path, batch_size: int) -> None:
    config = synthetic_config(runs=RUNS, steps=STEPS, batch_size=batch_size)
    best = min((timed(config, tmp_path / str(n)) for n in range(3)), key=lambda result: result.wall_s)
    keep(
        f"throughput, zero-cost pair, batches of {batch_size}", RUNS * STEPS / best.wall_s, "invocations/s",
        cpu_s=best.cpu_s,
    )  # fmt: skip


def test_flat_as_the_store_grows(tmp_path: Path) -> None:
    """Ten experiments of 20,000 new invocations each in one store; root seeds differ, so contents do."""
    results = [
        timed(synthetic_config(runs=RUNS, steps=STEPS, name=f"e{n}", root_seed=n), tmp_path / "store")
        for n in range(11)
    ][1:]  # the very first also imports and warms up
    first, last = results[0], results[-1]
    keep(
        "10th experiment in a store", RUNS * STEPS / last.wall_s, "invocations/s",
        baseline=RUNS * STEPS / first.wall_s, ratio=first.wall_s / last.wall_s, limit=0.8,
        rounds_wall_s=[r.wall_s for r in results], rounds_cpu_s=[r.cpu_s for r in results],
    )  # fmt: skip
    assert last.wall_s <= 1.2 * first.wall_s


@pytest.mark.parametrize(("runs", "steps", "limit"), [(128, 120, 1.03), (64, 240, 1.03), (32, 480, None)])
def test_wall_time_over_model_time(tmp_path: Path, runs: int, steps: int, limit: float | None) -> None:
    """Models of 50 ms per batch of 32; 480 batches, 25 s of model time.

    Opening the store, provenance and the last commit cost 0.3 s once, whatever the length; the gaps between
    calls are 0.6 % of the model time.

    With 128 or 64 runs another batch is ready while one is absorbed: the normal case, and the one the
    limit is about. 32 runs are one batch in lockstep: its next step cannot begin before its last one was
    hashed and absorbed, so nothing overlaps but encoding and writing.
    """
    result = timed(synthetic_config(runs=runs, steps=steps, delay_s=0.05), tmp_path / "store")
    keep(
        f"wall time over model time, {runs} runs, 50 ms per batch of 32", result.wall_s / result.model_s,
        "ratio", baseline=result.model_s, ratio=result.wall_s / result.model_s, limit=limit,
        wall_s=result.wall_s, cpu_s=result.cpu_s, includes="opening the store, provenance, the last commit",
    )  # fmt: skip
    assert limit is None or result.wall_s <= limit * result.model_s


def test_memory_of_queued_runs(tmp_path: Path) -> None:
    """100 and 10,000 runs of 4 steps; and 100 runs with as many invocations as those 10,000."""

    def peak_mb(runs: int, steps: int) -> float:
        command = [sys.executable, "-m", "benchmarks.queued_runs", str(runs), str(steps)]
        done = subprocess.run(
            [*command, str(tmp_path / f"{runs}x{steps}")],
            cwd=ROOT, capture_output=True, text=True, check=True,
        )  # fmt: skip
        measured = json.loads(done.stdout.splitlines()[-1])
        assert measured["invocations"] == runs * steps
        return float(measured["peak"]) / 1e6

    few, long, many = peak_mb(100, 4), peak_mb(100, 400), peak_mb(10_000, 4)
    keep(
        "memory growth from 100 to 10,000 queued runs", many - few, "MB", limit=100.0,
        baseline=few, ratio=many / few, peak_mb=many, pixel_cache_mib=8,
        input="4 steps each; SQLite's page caches included",
    )  # fmt: skip
    keep(
        "memory growth by invocations alone, 400 to 40,000 of 100 runs", long - few, "MB", baseline=few,
        ratio=long / few, peak_mb=long, pixel_cache_mib=8,
    )  # fmt: skip
    assert many - few < 100


def test_padded_tail(tmp_path: Path) -> None:
    """One surviving run of tiny real models in batches padded to 32, against 32 runs and batches of 1."""
    networks = tiny_pair(tmp_path)

    def step_s(repeats: int, batch_size: int) -> float:
        config = ExperimentConfig.model_validate(
            {
                **networks,
                "name": f"tail{repeats}-{batch_size}",
                "prompts": ["a red circle"],
                "seeds": [-1],
                "repeats": repeats,
                "max_length": 40,
                "batch_sizes": {"draw": batch_size, "caption": batch_size},
            }
        )
        timed(config.model_copy(update={"root_seed": 1, "max_length": 4}), tmp_path / "warm")
        return timed(config, tmp_path / "store").model_s / 40

    full, tail, single = step_s(32, 32), step_s(1, 32), step_s(1, 1)
    keep(
        "padded tail, one run in batches of 32", 1e3 * tail, "ms/step",
        baseline=1e3 * full, ratio=tail / full,
        baseline_is="a step of 32 runs in full batches", per_invocation_ratio=32 * tail / full,
        unpadded_ms=1e3 * single, over_unpadded=tail / single,
    )  # fmt: skip
    assert tail < 1.5 * full


def tiny_pair(folder: Path) -> dict[str, Any]:
    """Networks and models of a config with tiny Stable Diffusion and BLIP from local folders."""
    build: Callable[..., Path]
    for name, build in (("sd", tiny.build_stable_diffusion), ("blip", tiny.build_blip)):
        build(folder / name)
    return {
        "networks": [["draw", "caption"]],
        "models": {
            "draw": {"base": f"local:{folder / 'sd'}", "steps": 4, "width": 64, "height": 64},
            "caption": {"base": f"local:{folder / 'blip'}", "max_new_tokens": 12},
        },
        "device": "cpu",
    }
