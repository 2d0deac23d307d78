"""Load time, speed per batch size and peak memory of every model whose weights are here.

That is the models known by name that are present, and the tiny real ones that tests build. Each is measured
in a process of its own (`benchmarks/model_speed.py`). Figures go to benchmarks/results/models.json.

    pytest benchmarks/test_models.py -m '' [-k PocketDiffusion]
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from benchmarks.record import record
from panic.models import registry
from tests import tiny, tiny_edits, tiny_language

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
    **{kind: {"max_new_tokens": 12} for kind in tiny_language.CLASSES},
    "variation": {"adapter": "image-to-image", "steps": 4, "strength": 0.5},
    "flux-variation": {"adapter": "image-to-image", "steps": 4, "strength": 0.5, "guidance": 1.0},
    "instruct-pix2pix": {"steps": 4},
    "kontext": {"steps": 4, "max_sequence_length": 64, "width": 64, "height": 64},
    "klein": {"adapter": "image-to-image", "steps": 4, "max_sequence_length": 64},
    "qwen-image-edit": {"steps": 4, "width": 64, "height": 64},
}
BUILDERS: dict[str, Callable[[Path], Path]] = {
    **tiny.BUILDERS,
    **tiny_edits.BUILDERS,
    **{kind: partial(tiny_language.build, kind) for kind in tiny_language.CLASSES},
}


@pytest.mark.parametrize("name", PRESENT)
def test_present_model(name: str) -> None:
    keep(name, name, {})


@pytest.mark.parametrize("kind", list(BUILDERS))
def test_tiny_model(tmp_path: Path, kind: str) -> None:
    if kind in tiny_edits.NEEDS_TORCHVISION and importlib.util.find_spec("torchvision") is None:
        pytest.skip("needs torchvision, of the extra vlm")
    BUILDERS[kind](tmp_path / kind)
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


def test_the_cache_of_keys_and_values(tmp_path: Path) -> None:
    """Prompts of several lengths in one batch, with and without it: the same texts, and what it gains."""
    folder = tiny_language.build("qwen3", tmp_path / "qwen3", hidden_size=128, num_layers=4)
    variants = {"it": {"base": f"local:{folder}", "max_new_tokens": 64}}
    model = registry.build(registry.resolve("it", variants))
    model.load("cpu")
    texts = ["a red circle " * (1 + place % 9) for place in range(8)]
    seconds, found = {}, {}
    for use_cache in (True, False):
        model.invoke(texts, range(8), use_cache=use_cache)
        start = time.perf_counter()
        found[use_cache] = model.invoke(texts, range(8), use_cache=use_cache)
        seconds[use_cache] = time.perf_counter() - start
    assert found[True] == found[False]
    record(
        "key-value cache, tiny qwen3", 8 / seconds[True], unit="invocations/s",
        baseline=8 / seconds[False], ratio=seconds[False] / seconds[True], file="models",
        batch_size=8, hidden_size=128, num_layers=4, max_new_tokens=64,
    )  # fmt: skip
    assert seconds[True] < seconds[False]
