"""Loops of tiny real models: texts depend on the run alone, not on how many runs there are, nor on a stop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from panic import run
from panic.config import ExperimentConfig
from panic.errors import Interrupted
from panic.store import Store, check, contents, reading
from tests import tiny
from tests.engine.conftest import interrupt_when

STEPS = 6
PROMPTS = ["a red circle", "two dogs", "x", "the sea at night, calm", "zebra", "a house", "nothing", "end"]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Tiny Stable Diffusion and BLIP; `say` samples, so that its seeds matter, too."""
    folder = tmp_path_factory.mktemp("pair")
    draw, say = tiny.build_stable_diffusion(folder / "sd"), tiny.build_blip(folder / "blip")
    return {
        "draw": {"base": f"local:{draw}", "steps": 2, "width": 64, "height": 64},
        "say": {"base": f"local:{say}", "max_new_tokens": 8, "do_sample": True},
    }


def config_of(pair: dict[str, Any], num_prompts: int) -> ExperimentConfig:
    """8 runs per prompt, one with a fixed seed: 40 runs of 5 prompts, 64 of 8; batches of 32."""
    return ExperimentConfig.model_validate(
        {
            "name": "tiny",
            "networks": [["draw", "say"]],
            "models": pair,
            "prompts": PROMPTS[:num_prompts],
            "seeds": [42, -1],
            "repeats": 7,
            "max_length": STEPS,
            "device": "cpu",
            "threads": 1,
            "batch_sizes": {"draw": 32, "say": 32},
        }
    )


def texts(path: Path) -> dict[tuple[str, int, int], list[str]]:
    """The texts of every run, by what the run is."""
    with Store(path) as store:
        assert check.check(store) == []
        return {
            (row.prompt, row.seed, row.repeat): [
                step.text for step in contents.invocations(store, row.id) if step.text is not None
            ]
            for row in reading.runs(store)
        }


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_texts_of_40_runs_are_those_of_64_runs_of_a_rerun_and_of_a_resume(
    tmp_path: Path, pair: dict[str, Any]
) -> None:
    for name, num_prompts in (("40", 5), ("64", 8), ("again", 8)):
        run(config_of(pair, num_prompts), tmp_path / name)
    stop_in_the_middle = interrupt_when(lambda progress: progress.invocations >= 64)
    with pytest.raises(Interrupted):
        run(config_of(pair, 8), tmp_path / "stopped", on_progress=stop_in_the_middle)
    with Store(tmp_path / "stopped") as store:
        assert 64 <= reading.counts(store).invocations < 64 * STEPS
    run(config_of(pair, 8), tmp_path / "stopped")

    whole = texts(tmp_path / "64")
    assert len(whole) == 64
    assert len({tuple(said) for said in whole.values()}) > 32, "the models are not blind to their input"
    assert texts(tmp_path / "again") == whole
    assert texts(tmp_path / "stopped") == whole
    fewer = texts(tmp_path / "40")
    assert len(fewer) == 40
    assert fewer == {key: whole[key] for key in fewer}
