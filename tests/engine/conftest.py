"""Experiments with synthetic models, for real: files, threads, processes."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from panic.config import ExperimentConfig
from panic.engine.progress import Progress
from panic.store import Store
from panic.store.dump import dump as dump_lines

SYNTHETIC: dict[str, Any] = {
    "name": "test",
    "networks": [["draw", "chain"]],
    "models": {
        "draw": {"base": "synthetic/text-to-image", "states": 7, "size": 16},
        "chain": {"base": "synthetic/image-to-text", "states": 7, "kernel": "cycle"},
    },
    "prompts": ["state 0", "hello"],
    "seeds": [42, -1],
    "repeats": 2,
    "max_length": 20,
    "device": "cpu",
    "executor": "local",
    "batch_sizes": {"draw": 4, "chain": 4},
}


def make_config(**changes: Any) -> ExperimentConfig:
    """The synthetic experiment with some fields changed; `draw` and `chain` add model parameters."""
    models = {name: dict(variant) for name, variant in SYNTHETIC["models"].items()}
    for name in ("draw", "chain"):
        models[name] |= changes.pop(name, {})
    return ExperimentConfig.model_validate({**SYNTHETIC, "models": models, **changes})


def dump(path: Path) -> list[str]:
    """The canonical content of a store, as text lines."""
    with Store(path) as store:
        return [json.dumps(line, sort_keys=True) for line in dump_lines(store)]


def interrupt_when(holds: Callable[[Progress], bool]) -> Callable[[Progress], None]:
    """An `on_progress` that sends SIGINT the first time it holds; a second one would end the process."""
    sent: list[Progress] = []

    def on_progress(progress: Progress) -> None:
        if not sent and holds(progress):
            sent.append(progress)
            os.kill(os.getpid(), signal.SIGINT)

    return on_progress


@pytest.fixture
def config() -> Callable[..., ExperimentConfig]:
    return make_config
