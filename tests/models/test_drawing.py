"""Other schedulers and tiles: what they give, for each item by itself, and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from panic.models import registry
from panic.models.checks import check_config
from panic.models.drawing import OF_PIPELINES
from panic.models.kinds import fingerprint
from panic.models.protocol import ModelSpec
from tests import tiny_edits
from tests.models.conftest import TEXTS, sample_images

SETTINGS: dict[str, dict[str, Any]] = {
    "stable-diffusion": {"steps": 4, "guidance": 2.0, "width": 64, "height": 64},
    "flux": {"steps": 2, "guidance": 1.0, "width": 64, "height": 64},
    "klein": {"adapter": "image-to-image", "steps": 2, "max_sequence_length": 32},
}
OFTEN = ("DPMSolverMultistepScheduler", "EulerAncestralDiscreteScheduler", "LCMScheduler")
OF_NOISE = [name for name in OF_PIPELINES["scheduler"].choices if not name.startswith("FlowMatch")]


@pytest.fixture(scope="module")
def spec_of(
    folder_of: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., ModelSpec]:
    """The spec of a tiny pipeline with some parameters: `spec_of("flux", tiling=True)`."""

    @cache
    def folder(kind: str) -> Path:
        is_editor = kind in tiny_edits.BUILDERS
        return tiny_edits.BUILDERS[kind](tmp_path_factory.mktemp(kind)) if is_editor else folder_of(kind)

    def spec(kind: str, **parameters: Any) -> ModelSpec:
        base = {"base": f"local:{folder(kind)}", **SETTINGS[kind]}
        return registry.resolve("it", {"it": {**base, **parameters}})

    return spec


def loaded(spec: ModelSpec) -> Any:
    model = registry.build(spec)
    model.load("cpu")
    return model


def drawn(model: Any, seeds: list[int]) -> list[np.ndarray[Any, Any]]:
    """The pictures of as many texts as there are seeds."""
    return [np.asarray(image) for image in model.invoke(TEXTS[: len(seeds)], seeds)]


def problems(spec: ModelSpec, **parameters: Any) -> dict[str, str]:
    """What the check of a config says about these parameters of a pipeline, by parameter."""
    given = {name: value for name, value in spec.parameters.items() if value is not None}
    variant = {"base": spec.source, "adapter": spec.adapter, **given, **parameters}
    ends = (
        ["it", "PocketCaptioner"]
        if spec.adapter == "diffusers"
        else ["PocketDiffusion", "it", "PocketCaptioner"]
    )
    found = check_config({"networks": [ends], "models": {"it": variant}})
    return {str(problem.path[-1]): problem.message for problem in found}


@pytest.mark.parametrize(
    "scheduler",
    [
        name if name in OFTEN else pytest.param(name, marks=pytest.mark.slow)
        for name in OF_NOISE
        if name != "DDIMScheduler"  # which the pipeline has
    ],
)
def test_what_another_scheduler_draws_is_its_items_own(
    spec_of: Callable[..., ModelSpec], scheduler: str
) -> None:
    spec = spec_of("stable-diffusion", scheduler=scheduler)
    assert problems(spec) == {}
    model = loaded(spec)
    assert type(model._model.scheduler).__name__ == scheduler
    first, second = drawn(model, [1, 2])
    other, again = drawn(model, [5, 2])
    assert np.array_equal(again, second)
    assert not np.array_equal(other, first)
    swapped = [np.asarray(image) for image in model.invoke([TEXTS[1], TEXTS[0]], [2, 1])]
    assert np.array_equal(swapped[0], second)
    assert np.array_equal(swapped[1], first)


def test_steps_of_euler_are_those_of_ddim(spec_of: Callable[..., ModelSpec]) -> None:
    """DDIM without noise of its own is Euler's method (Song et al. 2021, 4.3); Heun's is of second order."""
    of = {
        name: drawn(loaded(spec_of("stable-diffusion", scheduler=name)), [1, 2])
        for name in ("EulerDiscreteScheduler", "HeunDiscreteScheduler", "EulerAncestralDiscreteScheduler")
    }
    ddim = drawn(loaded(spec_of("stable-diffusion")), [1, 2])

    def levels(name: str) -> int:
        pairs = zip(ddim, of[name], strict=True)
        return max(int(np.abs(one.astype(int) - other).max()) for one, other in pairs)

    assert levels("EulerDiscreteScheduler") <= 1 < levels("HeunDiscreteScheduler")
    assert levels("EulerAncestralDiscreteScheduler") > 10


def test_flows_take_each_others_schedulers_and_no_others(spec_of: Callable[..., ModelSpec]) -> None:
    flux, diffusion = spec_of("flux"), spec_of("stable-diffusion")
    assert (
        "the pipeline's are for flow matching (FlowMatchHeunDiscreteScheduler)"
        in problems(flux, scheduler="DDIMScheduler")["scheduler"]
    )
    told = problems(diffusion, scheduler="FlowMatchEulerDiscreteScheduler")["scheduler"]
    assert "the pipeline's are for models that predict noise (DDPMScheduler, " in told
    assert (
        "has no effect: it is the one that the pipeline has"
        in problems(diffusion, scheduler="DDIMScheduler")["scheduler"]
    )
    told = problems(flux, scheduler="FlowMatchHeunDiscreteScheduler")["scheduler"]
    assert "does not take the sigmas that the pipeline gives" in told
    assert problems(diffusion, scheduler="ddim") == {
        "scheduler": "scheduler is not one of the allowed values"
    }


def test_eta_is_judged_by_the_scheduler_that_draws(spec_of: Callable[..., ModelSpec]) -> None:
    spec = spec_of("stable-diffusion")
    assert problems(spec, eta=0.5) == {}
    told = problems(spec, eta=0.5, scheduler="EulerDiscreteScheduler")
    assert told == {"eta": "eta has no effect: the steps of a EulerDiscreteScheduler have none"}


def test_tiles_change_what_is_larger_than_one_of_them(spec_of: Callable[..., ModelSpec]) -> None:
    """A tile is as large as the pictures that the autoencoder was made for, 32 pixels a side."""
    sides = [{"width": side, "height": side} for side in (32, 64)]
    whole = [loaded(spec_of("stable-diffusion", **size)) for size in sides]
    tiled = [loaded(spec_of("stable-diffusion", tiling=True, **size)) for size in sides]
    assert whole[0]._model.vae.config.sample_size == 32
    assert [model._model.vae.use_tiling for model in (*whole, *tiled)] == [False, False, True, True]
    assert np.array_equal(drawn(whole[0], [1, 2]), drawn(tiled[0], [1, 2]))
    first, second = (np.stack(drawn(model, [1, 2])).astype(int) for model in (whole[1], tiled[1]))
    assert first.shape == second.shape == (2, 64, 64, 3)
    assert not np.array_equal(first, second)


def test_an_editor_has_both(spec_of: Callable[..., ModelSpec]) -> None:
    spec = spec_of("klein", tiling=True)
    assert problems(spec) == {}
    model = loaded(spec)
    assert model._model.vae.use_tiling
    assert len(model.invoke(sample_images(1), [0])) == 1
    assert "flow matching" in problems(spec, scheduler="PNDMScheduler")["scheduler"]


def test_another_scheduler_is_another_model(spec_of: Callable[..., ModelSpec]) -> None:
    found = [
        fingerprint(spec_of("stable-diffusion", **more))
        for more in ({}, {"scheduler": "PNDMScheduler"}, {"tiling": True}, {"scheduler": None})
    ]
    assert len(set(found)) == 3
    assert found[0] == found[3]
    told = problems(spec_of("stable-diffusion"), tiling=False)
    assert told == {"tiling": "tiling of false is what there is without it: leave it out"}


def test_an_index_of_another_shape_is_no_crash(folder_of: Callable[..., Path], tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(folder_of("stable-diffusion"), folder)
    index = json.loads((folder / "model_index.json").read_text()) | {"vae": []}
    (folder / "model_index.json").write_text(json.dumps(index))
    spec = registry.resolve("it", {"it": {"base": f"local:{folder}", **SETTINGS["stable-diffusion"]}})
    assert problems(spec) == {}
    told = problems(spec, tiling=True)
    assert told == {"tiling": "tiling cannot be: the pipeline has no autoencoder of that kind"}
