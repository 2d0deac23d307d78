"""The benchmark of the cache on a GPU runs to its end without one, and its goals can be missed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.gpu.cache_parts.bench import Bench
from panic.devices.simulated import SimulatedDevice

ROOT = Path(__file__).parents[2]
MODELS = ["unet", "transformer", "captioner"]
LOOPS = ["both_fit", "with_slot", "without_slot", "rotation"]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_rehearsal_goes_through_every_part() -> None:
    command = [sys.executable, "-m", "benchmarks.gpu.cache", "--rehearse"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=500)
    assert ended.returncode == 0, ended.stderr
    figures = [line.split()[0] for line in ended.stdout.splitlines()]
    assert figures == [
        *["rate.pinned", "rate.slab", "rate.pageable"],
        *[f"{part}.{name}" for name in MODELS for part in ("pin", "swap")],
        *["overlap.efficiency", "out_of_memory.recovery", "out_of_memory.back_off"],
        *[f"loop.{name}.{figure}" for name in LOOPS for figure in ("over_least", "gb_per_cycle")],
    ]


def test_a_goal_that_is_missed_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    device = SimulatedDevice(name="sim", capacity_bytes=1)
    bench = Bench(device=device, rehearse=True, folder=tmp_path)
    bench.keep("slow", 0.7, at_least=0.8)
    bench.keep("long", 1.2, at_most=1.1)
    bench.keep("none", float("nan"), at_most=1.1)
    bench.keep("good", 0.9, at_least=0.8, at_most=1.0)
    assert bench.missed == ["slow: 0.7, goal 0.8", "long: 1.2, goal 1.1", "none: nan, goal 1.1"]
    assert len(capsys.readouterr().out.splitlines()) == 4


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_rehearsal_of_several_devices_finds_all_equal() -> None:
    command = [sys.executable, "-m", "benchmarks.gpu.devices", "--rehearse"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=500)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    told = json.loads(ended.stdout)
    assert all(figures["equals_one"] for figures in told["found"].values())
    assert told["weights of two processes"]["is_once"]
