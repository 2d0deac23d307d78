"""The benchmark of loops on a GPU runs to its end without one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
NETWORKS = ["turbo_captioner", "klein_captioner", "turbo_captioner_klein_captioner"]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_rehearsal_measures_every_network_eager_and_compiled() -> None:
    command = [sys.executable, "-m", "benchmarks.gpu.loops", "--rehearse"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=500)
    assert ended.returncode == 0, ended.stderr[-3000:]
    figures = [line.split() for line in ended.stdout.splitlines()]
    assert [name for name, *_ in figures] == [
        name
        for how in ("eager", "compiled")
        for name in [
            *[f"plain.{model}.{how}" for model in ("turbo", "klein", "captioner")],
            *[
                f"{network}.{how}.{what}"
                for network in NETWORKS
                for what in ("images", "captions", "engine_share")
            ],
        ]
    ]
    assert all(float(value) > 0 for name, value, *_ in figures if not name.endswith("share"))


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_nothing_is_measured() -> None:
    command = [sys.executable, "-m", "benchmarks.gpu.loops"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert ended.returncode == 1
    assert "no CUDA device: nothing was measured" in ended.stderr
