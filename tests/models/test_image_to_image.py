"""Image-to-image pipelines: real classes with random weights, mates, seeds, sizes, what they take."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from panic.errors import ModelError, OutputRejected
from panic.models import registry
from panic.models.checks import check_config
from panic.models.image_to_image import ImageEditor
from panic.models.table import TABLE
from tests import tiny_classes, tiny_edits
from tests.models.conftest import sample_images

Load = Callable[..., ImageEditor]
OF_CLASS: dict[str, dict[str, Any]] = {
    "variation": {"steps": 4, "strength": 0.6, "guidance": 3.0},
    "flux-variation": {"steps": 4, "strength": 0.6, "guidance": 1.0, "max_sequence_length": 32},
    "instruct-pix2pix": {"steps": 2, "guidance": 4.0, "image_guidance": 1.5, "prompt": "make it red"},
    "kontext": {"steps": 2, "guidance": 2.5, "width": 64, "height": 64, "max_sequence_length": 32},
    "klein": {"steps": 2, "guidance": 1.0, "prompt": "make it red", "max_sequence_length": 32},
    "qwen-image-edit": {
        **{"steps": 2, "true_guidance": 4.0, "negative_prompt": " ", "prompt": "make it red"},
        **{"width": 64, "height": 64},
    },
}
CLASSES = {
    "variation": "StableDiffusionImg2ImgPipeline",
    "flux-variation": "FluxImg2ImgPipeline",
    "instruct-pix2pix": "StableDiffusionInstructPix2PixPipeline",
    "kontext": "FluxKontextPipeline",
    "klein": "Flux2KleinPipeline",
    "qwen-image-edit": "QwenImageEditPipeline",
}
ENTRIES = {
    "sd-turbo-variation": "variation",
    "instruct-pix2pix": "instruct-pix2pix",
    "FLUX.1-Kontext-dev": "kontext",
    "FLUX.2-klein-4B-edit": "klein",
    "Qwen-Image-Edit": "qwen-image-edit",
}
"""The entries of the table and the tiny one of their class."""


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Load:
    """A loaded editor: `load("kontext", steps=2)`."""
    folders: dict[str, Path] = {}
    models: dict[Any, ImageEditor] = {}

    def loaded(kind: str, dtype: str | None = None, **parameters: Any) -> ImageEditor:
        if kind in tiny_edits.NEEDS_TORCHVISION and importlib.util.find_spec("torchvision") is None:
            pytest.skip("needs torchvision, of the extra vlm")
        if kind not in folders:
            folders[kind] = tiny_edits.BUILDERS[kind](tmp_path_factory.mktemp(kind))
        key = (kind, dtype, *parameters.items())
        if key not in models:
            base = {"base": f"local:{folders[kind]}", "adapter": "image-to-image", "dtype": dtype}
            model = registry.build(registry.resolve("it", {"it": base | parameters}))
            assert isinstance(model, ImageEditor)
            model.load("cpu")
            models[key] = model
        return models[key]

    return loaded


def contents(outputs: Any) -> list[bytes]:
    return [np.asarray(output).tobytes() for output in outputs]


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[] if kind == "variation" else SLOW) for kind in OF_CLASS]
)
def test_an_image_depends_on_its_own_seed_and_not_on_its_mates(load: Load, kind: str) -> None:
    model = load(kind, **OF_CLASS[kind])
    assert type(model._model).__name__ == CLASSES[kind]
    images, seeds = sample_images(4), [5, 6, 2**63 - 1, 8]
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = contents(model.invoke(images, seeds))
    assert torch.equal(torch.get_rng_state(), state)
    assert len(set(first)) == 4
    assert contents(model.invoke([images[i] for i in (2, 0, 3, 1)], [seeds[i] for i in (2, 0, 3, 1)])) == [
        first[i] for i in (2, 0, 3, 1)
    ]
    others = sample_images(4, seed=3)
    assert contents(model.invoke([*others[:3], images[1]], [1, 2, 3, 6]))[3] == first[1]
    same = contents(model.invoke([images[0]] * 4, [5, 9, 5, 5]))
    assert same[0] == same[2] == same[3] == first[0]
    assert same[1] != first[0]


@pytest.mark.slow
@pytest.mark.parametrize("kind", OF_CLASS)
def test_editors_see_their_image(load: Load, kind: str) -> None:
    model = load(kind, **OF_CLASS[kind])
    one, two = contents(model.invoke(sample_images(2), [1, 1]))
    assert one != two


@pytest.mark.parametrize("kind", ["instruct-pix2pix", "klein"])
def test_an_instruction_counts(load: Load, kind: str) -> None:
    model = load(kind, **OF_CLASS[kind])
    other = load(kind, **OF_CLASS[kind] | {"prompt": "a blue square"})
    assert contents(model.invoke(sample_images(1), [1])) != contents(other.invoke(sample_images(1), [1]))


def test_little_strength_changes_little(load: Load) -> None:
    def drawn(strength: float) -> Any:
        model = load("variation", steps=10, guidance=1.0, strength=strength)
        return np.asarray(model.invoke(sample_images(1), [1])[0], dtype=float)

    least = drawn(0.1)
    assert np.abs(drawn(0.2) - least).mean() < np.abs(drawn(1.0) - least).mean()


@pytest.mark.parametrize("kind", ["variation", "klein", "flux-variation"])
def test_sizes_are_those_of_the_image_or_those_asked_for(load: Load, kind: str) -> None:
    model = load(kind, **OF_CLASS[kind])
    multiple = model._model.image_processor.config.vae_scale_factor
    assert model.invoke([Image.new("L", (100, 75))], [1])[0].size == (
        100 // multiple * multiple, 75 // multiple * multiple
    )  # fmt: skip
    square = load(kind, **OF_CLASS[kind] | {"width": 64, "height": 128})
    drawn = square.invoke([Image.new("RGB", (70, 40))], [1])[0]
    assert drawn.size == (64, 128)
    bucket = registry.bucketing(model.spec)
    assert bucket is not None
    assert bucket(Image.new("RGB", (64, 32))) != bucket(Image.new("RGB", (32, 64)))
    assert registry.bucketing(square.spec) is None


def test_an_image_that_an_editor_does_not_take_fails_alone(load: Load) -> None:
    good, small = sample_images(1, size=64)[0], Image.new("RGB", (64, 40))
    drawn = load("klein", **OF_CLASS["klein"]).invoke([good, small], [1, 2])
    assert isinstance(drawn[0], Image.Image)
    assert isinstance(drawn[1], OutputRejected)
    assert "Both dimensions must be at least 64px" in drawn[1].message


def test_kontext_draws_at_the_size_that_is_asked_for(load: Load) -> None:
    """It takes width and height for a ratio, and draws at a million pixels."""
    model = load("kontext", **OF_CLASS["kontext"] | {"width": 32, "height": 64})
    assert model.invoke([Image.new("RGB", (100, 100))], [1])[0].size == (32, 64)


def test_a_pipeline_without_images_says_so(load: Load, tmp_path: Path) -> None:
    import diffusers

    folder = tiny_edits.BUILDERS["variation"](tmp_path / "plain")
    parts = diffusers.DiffusionPipeline.from_pretrained(folder).components
    kept = {name: parts[name] for name in ("unet", "scheduler")}
    diffusers.DDIMPipeline(**kept).save_pretrained(tmp_path / "ddim")
    base = {"base": f"local:{tmp_path / 'ddim'}", "adapter": "image-to-image"}
    model = registry.build(registry.resolve("it", {"it": base}))
    with pytest.raises(ModelError, match="DDIMPipeline takes no image"):
        model.load("cpu")


@pytest.mark.parametrize("adapter", ["image-to-image", "diffusers"])
def test_weights_that_draw_into_a_mask_say_so(tmp_path: Path, adapter: str) -> None:
    """Those of four channels draw without one, too."""
    import diffusers

    plain = tiny_edits.BUILDERS["variation"](tmp_path / "plain")
    parts = diffusers.DiffusionPipeline.from_pretrained(plain).components
    parts.pop("image_encoder")
    for channels in (4, 9):
        unet = diffusers.UNet2DConditionModel.from_config({**parts["unet"].config, "in_channels": channels})
        pipeline = diffusers.StableDiffusionInpaintPipeline(
            **parts | {"unet": unet}, requires_safety_checker=False
        )
        pipeline.save_pretrained(tmp_path / f"{channels}")

    def load(channels: int) -> None:
        base = {"base": f"local:{tmp_path / str(channels)}", "adapter": adapter}
        registry.build(registry.resolve("it", {"it": base})).load("cpu")

    load(4)
    with pytest.raises(ModelError, match=r"a StableDiffusionInpaintPipeline .* needs a mask image"):
        load(9)


@pytest.mark.parametrize("adapter", ["image-to-image", "diffusers"])
def test_weights_with_a_control_net_say_so(tmp_path: Path, adapter: str) -> None:
    """Its control is called `image`, which is what a variation calls the one that it starts from."""
    import diffusers

    plain = tiny_edits.BUILDERS["variation"](tmp_path / "plain")
    parts = diffusers.DiffusionPipeline.from_pretrained(plain).components
    control = diffusers.ControlNetModel.from_unet(parts["unet"])
    pipeline = diffusers.StableDiffusionControlNetPipeline(
        **parts, controlnet=control, requires_safety_checker=False
    )
    pipeline.save_pretrained(tmp_path / "controlled")
    base = {"base": f"local:{tmp_path / 'controlled'}", "adapter": adapter}
    with pytest.raises(ModelError, match="needs a control image"):
        registry.build(registry.resolve("it", {"it": base})).load("cpu")


def test_a_class_that_needs_another_image_says_so(load: Load, tmp_path: Path) -> None:
    folder = tiny_edits.BUILDERS["flux-variation"](tmp_path)
    index = folder / "model_index.json"
    for name, image in (("FluxFillPipeline", "mask image"), ("FluxControlPipeline", "control image")):
        index.write_text(json.dumps(json.loads(index.read_text()) | {"_class_name": name}))
        base = {"base": f"local:{folder}", "adapter": "image-to-image"}
        with pytest.raises(ModelError, match=f"{name} .* needs a {image}"):
            registry.build(registry.resolve("it", {"it": base})).load("cpu")


def test_parameters_that_a_pipeline_does_not_take_are_refused(load: Load) -> None:
    with pytest.raises(ModelError, match="StableDiffusionImg2ImgPipeline does not take image_guidance"):
        load("variation", image_guidance=1.5)


@pytest.mark.parametrize("parameters", [{"steps": 1}, {"strength": 0.01}])
def test_steps_that_the_pipelines_own_strength_leaves_none_of_are_told(
    load: Load, parameters: dict[str, Any]
) -> None:
    with pytest.raises(ModelError, match=r"a strength of 0\..* leaves none of (1|50) steps"):
        load("variation", **parameters)


@pytest.mark.parametrize(
    ("base", "parameters", "told"),
    [
        ("sd-turbo-variation", {"strength": 0.2}, "strength of 0.2 leaves none of 2 steps"),
        ("sd-turbo-variation", {"strength": 0}, "strength should be more than 0"),
        ("sd-turbo-variation", {"image_guidance": 2}, "has no parameter 'image_guidance'"),
        ("Qwen-Image-Edit", {"true_guidance": 1.0, "negative_prompt": "x"}, "no effect at a guidance of 1"),
        (
            "Qwen-Image-Edit",
            {"true_guidance": 5.0, "negative_prompt": None},
            "true_guidance has no effect without a negative_prompt",
        ),
    ],
)
def test_mistakes_are_told_before_anything_is_read(base: str, parameters: dict[str, Any], told: str) -> None:
    problems = registry.check_config({"models": {"it": {"base": base, **parameters}}})
    assert [told in problem.message for problem in problems] == [True]


def test_editors_are_recognised_by_their_class(load: Load) -> None:
    for kind in ("instruct-pix2pix", "kontext"):
        spec = registry.resolve(load(kind, **OF_CLASS[kind]).spec.source)
        assert spec.mapping == "image → image"
    for kind in ("variation", "klein"):
        assert registry.resolve(load(kind, **OF_CLASS[kind]).spec.source).mapping == "text → image"


def test_each_entry_of_the_table_has_a_tiny_one() -> None:
    entries = {name for name, spec in TABLE.items() if spec.adapter == "image-to-image"}
    assert entries == ENTRIES.keys()


@pytest.mark.slow
@pytest.mark.parametrize("name", ENTRIES)
def test_the_entries_of_the_table_are_taken_by_their_classes(load: Load, name: str) -> None:
    kind = ENTRIES[name]
    parameters = {key: value for key, value in TABLE[name].parameters.items() if value is not None}
    parameters |= {"max_sequence_length": 32} if "max_sequence_length" in parameters else {}
    parameters |= {"steps": 2, "prompt": "make it red"}
    is_large = kind in ("kontext", "qwen-image-edit")  # else a million pixels
    parameters |= {"width": 64, "height": 64} if is_large else {}
    model = load(kind, "bfloat16" if TABLE[name].dtype == "bfloat16" else None, **parameters)
    assert all(isinstance(image, Image.Image) for image in model.invoke(sample_images(2), [1, 2]))


@pytest.mark.slow
def test_the_edits_of_qwen_are_guided(load: Load, warned: pytest.LogCaptureFixture) -> None:
    """Without a negative prompt the pipeline leaves guidance out."""
    settings = OF_CLASS["qwen-image-edit"]
    assert TABLE["Qwen-Image-Edit"].parameters["negative_prompt"] == settings["negative_prompt"]
    guided, other = (
        contents(load("qwen-image-edit", **settings | {"true_guidance": scale}).invoke(sample_images(1), [1]))
        for scale in (4.0, 2.0)
    )
    assert guided != other
    assert "guidance is not enabled" not in warned.text


@pytest.mark.parametrize(
    ("name", "parameters", "told"),
    [
        ("FluxPipeline", {"width": 72, "height": 64}, {"width": "width should be a multiple of 16"}),
        ("FluxKontextPipeline", {"width": 72, "height": 64}, {"width": "width should be a multiple of 16"}),
        ("FluxKontextPipeline", {"height": 64}, {"height": "height needs the other side, too"}),
        (
            "FluxKontextPipeline",
            {"height": 72},
            {"height": "height should be a multiple of 16, as a FluxKontextPipeline draws; it needs"},
        ),
        ("FluxKontextPipeline", {"width": 32, "height": 64}, {}),
        ("FluxPipeline", {"width": 32}, {}),
    ],
)
def test_sizes_that_a_pipeline_does_not_draw_are_told_before_the_start(
    tmp_path: Path, name: str, parameters: dict[str, int], told: dict[str, str]
) -> None:
    index = tiny_classes.DRAWING["FLUX.1-schnell"](tmp_path / "flux") / "model_index.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | {"_class_name": name}))
    base = {"base": f"local:{index.parent}", "adapter": "image-to-image"}
    problems = check_config({"networks": [["it"]], "models": {"it": base | parameters}})
    found = {str(one.path[-1]): one.message for one in problems if one.path[0] == "models"}
    assert found.keys() == told.keys()
    assert all(found[key].startswith(text) for key, text in told.items())
    begun = registry.Resolver(registry.Names(variants={"it": base | parameters}, has_begun=True))
    assert begun.resolve("it").parameters.items() >= parameters.items(), (
        "an experiment that has begun goes on"
    )
