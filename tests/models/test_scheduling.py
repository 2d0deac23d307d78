"""Another scheduler and tiles of a diffusers pipeline, against one that was made by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from panic.errors import ModelError
from panic.models import registry
from tests import tiny

SAVED = {"timestep_spacing": "leading"}
ASKED = {"steps": 3, "guidance": 3.0}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Stable Diffusion of 64 pixels that was saved with a DDIMScheduler."""
    return tiny.build_stable_diffusion(tmp_path_factory.mktemp("sd") / "ddim", **SAVED)


def spec_of(folder: Path, **parameters: Any) -> Any:
    return registry.resolve("it", {"it": {"base": f"local:{folder}", **ASKED, **parameters}})


def loaded(folder: Path, **parameters: Any) -> Any:
    model = registry.build(spec_of(folder, **parameters))
    model.load("cpu")
    return model


def drawn(model: Any, *texts: str, seed: int = 7) -> list[bytes]:
    return [np.asarray(one).tobytes() for one in model.invoke(texts, range(seed, seed + len(texts)))]


def problems(folder: Path, **parameters: Any) -> list[str]:
    config = {"models": {"it": {"base": f"local:{folder}", **parameters}}}
    return [problem.message for problem in registry.check_config(config)]


@pytest.mark.parametrize("name", ["EulerDiscreteScheduler", "DPMSolverMultistepScheduler"])
def test_another_scheduler_draws_as_if_the_pipeline_were_saved_with_it(
    folder: Path, tmp_path: Path, name: str
) -> None:
    by_hand = tiny.build_stable_diffusion(tmp_path / "other", scheduler=name, **SAVED)
    own = drawn(loaded(folder, scheduler=name), "a red circle")
    assert own == drawn(loaded(by_hand), "a red circle")
    assert own != drawn(loaded(folder), "a red circle")


def test_noise_of_another_scheduler_is_each_item_s_own(folder: Path) -> None:
    model = loaded(folder, scheduler="EulerAncestralDiscreteScheduler")
    both = drawn(model, "a red circle", "a blue square")
    assert drawn(model, "a blue square", "a red circle", seed=8)[0] == both[1]


def test_tiles_are_those_of_the_pipeline_s_own(folder: Path) -> None:
    tiled, plain = loaded(folder, tiling=True), loaded(folder)
    own = drawn(tiled, "a red circle")
    assert own != drawn(plain, "a red circle"), "64 pixels are more than a tile of this one"
    plain._model.vae.enable_tiling()
    assert own == drawn(plain, "a red circle")


def test_each_is_a_model_of_its_own(folder: Path) -> None:
    variants: list[dict[str, Any]] = [{}, {"scheduler": "EulerDiscreteScheduler"}, {"tiling": True}]
    assert len({registry.fingerprint(spec_of(folder, **one)) for one in variants}) == 3


@pytest.mark.parametrize(
    ("parameters", "told"),
    [
        ({"scheduler": "DPMSolverMultistep"}, "did you mean DPMSolverMultistepScheduler?"),
        ({"scheduler": "FlowMatchEulerDiscreteScheduler"}, "does not take the place of a DDIMScheduler"),
        ({"scheduler": "torch"}, "does not take the place of a DDIMScheduler"),
        ({"scheduler": 3}, "scheduler should be text"),
        ({"scheduler": "EulerDiscreteScheduler", "eta": 0.5}, "the steps of a EulerDiscreteScheduler have"),
        ({"tiling": False}, "of false is what there is without it"),
    ],
)
def test_what_cannot_be_is_told_before_anything_is_read(
    folder: Path, parameters: dict[str, Any], told: str
) -> None:
    assert [told in message for message in problems(folder, **parameters)] == [True]
    assert problems(folder, scheduler="DDIMScheduler", eta=0.5) == []


def test_a_flow_has_no_other_scheduler(tmp_path: Path) -> None:
    folder = tiny.build_flux(tmp_path / "flux")
    (message,) = problems(folder, scheduler="EulerDiscreteScheduler")
    assert "nothing takes the place of a FlowMatchEulerDiscreteScheduler" in message


def test_noise_that_no_seed_decides_is_refused(folder: Path) -> None:
    with pytest.raises(ModelError, match="draws noise at every step"):
        loaded(folder, scheduler="DPMSolverSDEScheduler")
