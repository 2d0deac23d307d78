"""Several workers: they share the work, change no result, and lose nothing when everything is killed."""

from __future__ import annotations

import itertools
import os
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from panic import run
from panic.config import ExperimentConfig
from panic.devices.device import CpuDevice, open_device
from panic.engine.pinning import Pin, num_cores, pin
from panic.engine.plan import Plan, make_plan
from panic.engine.workers import MOST, count_workers
from panic.errors import ModelDoesNotFit, UsageError
from panic.store import Store, writing
from tests import tiny
from tests.engine.conftest import dump, make_config
from tests.engine.test_kill import kill_and_rerun

MODELS = '''
import inspect
import os
import time
from pathlib import Path

from panic.models.synthetic import ImageToText
from panic.store import writing


class Meeting(ImageToText):
    """Goes on only when as many processes as the file `expected` says have called it.

    Three calls prove it in one process, before there is work for another.
    """

    PARAMETERS = {}

    def __init__(self, folder):
        super().__init__(kernel="cycle", epsilon=0.5)
        self.folder = Path(folder)
        self.calls = 0

    def invoke(self, inputs, seeds):
        (self.folder / f"pid {os.getpid()}").touch()
        self.calls += 1
        expected = int((self.folder / "expected").read_text())
        until = time.monotonic() + (200 if self.calls > 3 else 0)
        while len(list(self.folder.glob("pid *"))) < expected and time.monotonic() < until:
            time.sleep(0.01)
        return super().invoke(inputs, seeds)


class OnlyAsked(ImageToText):
    """Ends every process that loads it ahead of its first call."""

    PARAMETERS = {}

    def __init__(self, folder):
        super().__init__()
        self.folder = Path(folder)
        self.calls = 0

    def load(self, device):
        if any(frame.function == "load_all" for frame in inspect.stack()):
            (self.folder / "ended").touch()
            os._exit(3)

    def invoke(self, inputs, seeds):
        self.calls += 1
        until = time.monotonic() + (200 if self.calls > 3 else 0)
        while not (self.folder / "ended").exists() and time.monotonic() < until:
            time.sleep(0.01)
        return super().invoke(inputs, seeds)


class Sized(ImageToText):
    PARAMETERS = {}
    size_bytes = 60

    def __init__(self):
        super().__init__()
'''


def config_with(folder: Path, chain: str, parameters: dict[str, Any], **changes: Any) -> ExperimentConfig:
    (folder / "models.py").write_text(MODELS)
    return make_config(
        models={
            "draw": {"base": "synthetic/text-to-image", "size": 16},
            "chain": {"base": f"python:{folder}/models.py:{chain}", **parameters},
        },
        prompts=[f"prompt {number}" for number in range(12)],
        **{"max_length": 12, "batch_sizes": {"draw": 4, "chain": 4}, "executor": "auto"} | changes,
    )


def overlaps(store: Path) -> int:
    """How many batches were computed while the one that began before them was not finished."""
    with sqlite3.connect(store / "store.sqlite") as connection:
        times = connection.execute("SELECT started_at, duration_s FROM batch ORDER BY started_at").fetchall()
    return sum(begin < before + duration for (before, duration), (begin, _) in itertools.pairwise(times))


@pytest.mark.timeout(600)
@pytest.mark.parametrize("executor", ["auto", "process"])
def test_two_workers_give_what_one_gives(tmp_path: Path, executor: str) -> None:
    config = config_with(tmp_path, "Meeting", {"folder": str(tmp_path)}, executor=executor)
    (tmp_path / "expected").write_text("2")
    run(config.model_copy(update={"workers": 2}), tmp_path / "two")
    processes = {int(path.name.split()[1]) for path in tmp_path.glob("pid *")}
    assert len(processes) == 2
    assert os.getpid() not in processes  # a model in a Python file of the user's may end its process
    assert overlaps(tmp_path / "two")

    (tmp_path / "expected").write_text("1")
    run(config, tmp_path / "one")
    assert not overlaps(tmp_path / "one")
    assert dump(tmp_path / "two") == dump(tmp_path / "one")


def test_a_worker_that_cannot_start_is_done_without(tmp_path: Path) -> None:
    config = config_with(tmp_path, "OnlyAsked", {"folder": str(tmp_path)}, workers=2)
    assert run(config, tmp_path / "s").state == "complete"
    assert (tmp_path / "ended").exists()


def test_workers_divide_a_budget_of_bytes(tmp_path: Path) -> None:
    config = config_with(tmp_path, "Sized", {}, device="sim:100", headroom=0)
    assert run(config, tmp_path / "one").state == "complete"
    with pytest.raises(ModelDoesNotFit, match="60 B more on sim:50"):
        run(config.model_copy(update={"workers": 2}), tmp_path / "two")


def test_more_than_one_worker_needs_processes(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="needs processes"):
        run(make_config(executor="local", workers=2), tmp_path / "s")
    assert not (tmp_path / "s").exists()


@pytest.mark.timeout(600)
@pytest.mark.slow
def test_kills_with_three_workers_change_nothing(tmp_path: Path) -> None:
    config = make_config(
        models={
            "draw": {"base": "synthetic/text-to-image", "states": 12, "size": 16, "delay_s": 0.02},
            "chain": {
                "base": "synthetic/image-to-text",
                "states": 12,
                "kernel": "cycle",
                "epsilon": 0.3,
                "delay_s": 0.02,
            },
            "circle": {"base": "synthetic/state-embedding", "states": 12},
        },
        prompts=[f"prompt {number}" for number in range(6)],
        seeds=[1, 2, -1],
        repeats=4,
        max_length=100,
        embeddings=["circle"],
        workers=3,
        executor="auto",
    )
    hits = kill_and_rerun(config, tmp_path, kills=3, seed=2, within_s=3.0)
    run(config.model_copy(update={"workers": 1}), tmp_path / "whole")
    assert hits >= 2, "the kills came too late to mean anything"
    assert overlaps(tmp_path / "killed")
    assert dump(tmp_path / "killed") == dump(tmp_path / "whole")


# How many


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("pair")
    draw, say = tiny.build_stable_diffusion(folder / "sd"), tiny.build_blip(folder / "blip")
    return {
        "draw": {"base": f"local:{draw}", "steps": 2, "width": 64, "height": 64},
        "say": {"base": f"local:{say}", "max_new_tokens": 8, "do_sample": True},
    }


def tiny_config(pair: dict[str, Any], **changes: Any) -> ExperimentConfig:
    return make_config(
        networks=[["draw", "say"]],
        models=pair,
        prompts=[f"prompt {number}" for number in range(8)],
        **{"batch_sizes": {"draw": 8, "say": 8}, "executor": "auto"} | changes,
    )


def pins_of(plan: Plan, threads: int) -> dict[str, Pin]:
    sizes = plan.config.batch_sizes
    return {name: Pin(model=1, epoch=0, batch_size=sizes[name], threads=threads) for name in plan.generative}


def count(config: ExperimentConfig, *, runs: int = 160, missing: int = 100_000, threads: int = 1) -> int:
    device = open_device(config.device)
    plan = make_plan(config, device.kind)
    return count_workers(plan, pins_of(plan, threads), device, runs, missing)


def test_small_models_get_a_worker_per_core_that_has_a_batch(pair: dict[str, Any]) -> None:
    config = tiny_config(pair)
    assert count(config) == min(num_cores(), MOST)
    assert count(config, runs=9) == min(num_cores(), 2)
    assert count(config, runs=8) == 1
    assert count(config, missing=399) == 1
    assert count(config, threads=num_cores()) == 1
    assert count(tiny_config(pair, executor="local")) == 1
    assert count(tiny_config(pair, headroom=CpuDevice().total_bytes())) == 1
    assert count(tiny_config(pair, workers=5)) == 5


def test_other_models_get_one_worker(pair: dict[str, Any]) -> None:
    assert count(make_config()) == 1, "synthetic models compute nothing"
    assert count(tiny_config(pair, device="sim:8GiB")) == 1
    blip = {"draw": pair["draw"], "say": {"base": "BLIP-base"}}
    assert count(tiny_config(blip)) == 1, "1 GB of weights is not small"


def test_threads_depend_on_the_models_and_not_on_the_workers(tmp_path: Path, pair: dict[str, Any]) -> None:
    def threads(config: ExperimentConfig, name: str) -> set[int]:
        plan = make_plan(config)
        fingerprints = dict.fromkeys(plan.specs, "the same")
        with Store(tmp_path / name, write=True, create=True) as store:
            experiment = writing.start_experiment(store, name, config.model_dump(mode="json"))
            return {row.threads for row in pin(store, experiment, plan, fingerprints, "cpu").values()}

    assert threads(tiny_config(pair), "one") == {1}
    assert threads(tiny_config(pair, workers=2), "two") == {1}
    assert threads(tiny_config(pair, threads=2), "said") == {2}
    assert threads(make_config(), "synthetic") == {num_cores()}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_workers_with_tiny_real_models_give_what_one_gives(tmp_path: Path, pair: dict[str, Any]) -> None:
    # Of 32: with odd widths, the tail of a vectorised loop, which rounds differently, would be a real item.
    sizes = {"draw": 32, "say": 32}
    config = tiny_config(pair, seeds=[42, -1], repeats=15, max_length=20, batch_sizes=sizes)
    both = {"workers": 2, "executor": "process"}  # started together, so that both have their share
    run(config.model_copy(update=both), tmp_path / "two")
    run(config.model_copy(update={"workers": 1}), tmp_path / "one")
    assert overlaps(tmp_path / "two") > 10
    assert not overlaps(tmp_path / "one")
    assert dump(tmp_path / "two") == dump(tmp_path / "one")


def test_a_device_smaller_than_the_headroom_is_told_once_and_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"sim:64MiB has .* leave nothing"):
        run(make_config(device="sim:64MiB"), tmp_path / "store")
    assert not (tmp_path / "store").exists()
