"""A device that does not hold the models together: the same results, weights moved in parts; it is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from panic import run
from panic.config import ExperimentConfig
from panic.devices.events import read_events, summarise
from panic.models import registry
from panic.store import Store
from tests import tiny
from tests.engine.conftest import dump


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("pair")
    draw, say = tiny.build_stable_diffusion(folder / "sd"), tiny.build_blip(folder / "blip")
    return {
        "draw": {"base": f"local:{draw}", "steps": 1, "width": 64, "height": 64},
        "say": {"base": f"local:{say}", "max_new_tokens": 6},
    }


def perform(pair: dict[str, Any], budget: int, path: Path) -> None:
    config = {
        "name": "budget",
        "networks": [["draw", "say"]],
        "models": pair,
        "prompts": ["a red circle", "two dogs"],
        "seeds": [7, -1],
        "max_length": 6,
        "device": f"sim:{budget}",
        "threads": 1,
        "headroom": 0,
        "batch_sizes": {"draw": 4, "say": 4},
    }
    run(ExperimentConfig.model_validate(config), path)


def test_results_do_not_depend_on_what_fits(tmp_path: Path, pair: dict[str, Any]) -> None:
    sizes = [registry.size_bytes(registry.resolve(name, pair)) for name in pair]
    largest, together = max(sizes), sum(sizes)
    perform(pair, 2 * together, tmp_path / "roomy")
    perform(pair, round(1.1 * largest), tmp_path / "tight")
    assert dump(tmp_path / "tight") == dump(tmp_path / "roomy")
    told = {name: summary_of(tmp_path / name) for name in ("roomy", "tight")}
    assert told["roomy"].bytes_by_tier.keys() == {"disk"}
    assert told["roomy"].regret == 0
    assert told["tight"].evictions_by_reason["room"] > 1
    assert told["tight"].calls == told["roomy"].calls >= 6
    assert told["tight"].bytes_by_tier["host"] > 0
    assert told["tight"].regret < 0.5


def summary_of(path: Path) -> Any:
    with Store(path) as store:
        uid = store.experiment("latest").uid
    return summarise(read_events(sorted((path / "cache").glob(f"{uid}*.jsonl"))))
