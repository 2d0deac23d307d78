"""Load time, speed per batch size and peak memory of every model whose weights are here.

That is the models known by name that are present, and the tiny real ones that tests build. Each is measured
in a process of its own (`benchmarks/model_speed.py`). Figures go to benchmarks/results/models.json.

    pytest benchmarks/test_models.py -m '' [-k PocketDiffusion]
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.record import record
from panic.models import registry
from tests import tiny

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
ROOT = Path(__file__).parents[1]
REAL = [spec for spec in registry.known() if spec.adapter != "synthetic"]
PRESENT = [spec.name for spec in REAL if registry.is_present(spec)]
PARAMETERS: dict[str, dict[str, Any]] = {
    "stable-diffusion": {"steps": 4, "width": 64, "height": 64},
    "flux": {"steps": 4, "width": 64, "height": 64, "guidance": 1.0},
    "blip": {"max_new_tokens": 12},
    "git": {"max_new_tokens": 12},
    "vision-encoder-decoder": {"max_new_tokens": 12},
    "llava": {"max_new_tokens": 12},
}


@pytest.mark.parametrize("name", PRESENT)
def test_present_model(name: str) -> None:
    keep(name, name, {})


@pytest.mark.parametrize("kind", list(tiny.BUILDERS))
def test_tiny_model(tmp_path: Path, kind: str) -> None:
    tiny.BUILDERS[kind](tmp_path / kind)
    keep(f"tiny {kind}", f"local:{tmp_path / kind}", PARAMETERS.get(kind, {}))


def keep(name: str, base: str, parameters: dict[str, Any]) -> None:
    """Measure and record: the value is the highest speed, the baseline that of batches of one."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.model_speed", base, json.dumps(parameters)],
        cwd=ROOT, env={**os.environ, "HF_HUB_OFFLINE": "1"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    measured = json.loads(done.stdout.splitlines()[-1])
    speed = measured.pop("invocations_per_s")
    best = max(speed, key=speed.__getitem__)
    record(
        name, speed[best], unit="invocations/s", baseline=speed["1"], ratio=speed[best] / speed["1"],
        file="models", best_batch_size=int(best), invocations_per_s=speed, parameters=parameters, **measured,
    )  # fmt: skip
    assert speed[best] > 0
