"""A device that does not hold the models together: the same results, weights moved in parts; it is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from panic import run
from panic.config import ExperimentConfig
from panic.devices.events import read_events, summarise
from panic.engine.calls import Call, CallResult
from panic.engine.serving import CallServer, ServerSettings
from panic.models import registry
from panic.store import Store, reading
from tests import tiny
from tests.devices.test_contract import Layers
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


def test_a_model_that_does_not_fit_comes_layer_by_layer_with_the_same_results(
    tmp_path: Path, pair: dict[str, Any]
) -> None:
    largest = max(registry.size_bytes(registry.resolve(name, pair)) for name in pair)
    perform(pair, 10 * largest, tmp_path / "roomy")
    perform(pair, round(0.9 * largest), tmp_path / "layers")
    assert dump(tmp_path / "layers") == dump(tmp_path / "roomy")
    with Store(tmp_path / "layers") as store:
        uid = reading.experiment(store, "latest").uid
        assert {epoch.batch_size for epoch in reading.epochs(store, "latest")} == {4}
    events = list(read_events((tmp_path / "layers" / "cache").glob(f"{uid}*.jsonl")))
    assert [event["model"] for event in events if event["event"] == "offload"] == ["draw"]


class Hungry(Layers):
    """4 MiB of layers; an item takes 3 MiB."""

    def working_bytes(self, batch_size: int) -> int:
        return 3 * 2**20 * batch_size


def test_at_batch_size_1_a_model_gives_up_its_place_before_it_does_not_fit() -> None:
    def serve(budget: int, batch_size: int) -> CallResult:
        spec = registry.resolve("synthetic/random-walk")
        settings = ServerSettings(device=f"sim:{budget}", specs={"a": spec})
        server = CallServer(settings, lambda spec: Hungry("a", 4 * 2**20))  # type: ignore[arg-type]
        inputs = [torch.ones(256)] * batch_size
        call = Call(number=1, model="a", batch_size=batch_size, inputs=inputs, seeds=[0] * batch_size)
        result, raw = server.serve(call)
        assert len(raw) == (batch_size if result.error is None else 0)
        return result

    assert serve(8 * 2**20, 1).resident == {"a"}
    offloaded = serve(6 * 2**20, 1)
    assert (offloaded.error, offloaded.resident) == (None, frozenset())
    halve = serve(6 * 2**20, 2).error
    assert halve is not None
    assert halve.kind == "memory", "a smaller batch is tried first"
    unfit = serve(3 * 2**20, 1).error
    assert unfit is not None
    assert unfit.kind == "unfit"
    assert "not even one layer at a time" in unfit.message


def summary_of(path: Path) -> Any:
    with Store(path) as store:
        uid = reading.experiment(store, "latest").uid
    return summarise(read_events(sorted((path / "cache").glob(f"{uid}*.jsonl"))))
