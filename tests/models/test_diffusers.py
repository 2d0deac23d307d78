"""The diffusers adapter: what it passes on, what it refuses, and images exactly as diffusers rounds them."""

from __future__ import annotations

import inspect
import shutil
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from panic.errors import ConfigError, ModelError, OutputRejected
from panic.models import diffusers_adapter, registry
from panic.models.pipeline_files import NOT_CALLED
from panic.models.protocol import PIPELINE_KEYWORDS
from panic.models.table import TABLE
from tests import tiny
from tests.tiny_brought import build_qwen_image

PIPELINES = {
    "sd-turbo": "StableDiffusionPipeline",
    "sdxl-turbo": "StableDiffusionXLPipeline",
    "FLUX.1-schnell": "FluxPipeline",
    "FLUX.2-klein-4B": "Flux2KleinPipeline",
    "Z-Image-Turbo": "ZImagePipeline",
    "SANA-Sprint-0.6B": "SanaSprintPipeline",
    "SANA-Sprint-1.6B": "SanaSprintPipeline",
    "SD3.5-medium": "StableDiffusion3Pipeline",
    "Lumina-Image-2.0": "Lumina2Pipeline",
}


def build(folder: Path, **parameters: Any) -> Any:
    spec = registry.resolve("it", {"it": {"base": f"local:{folder}", **parameters}})
    model = registry.build(spec)
    model.load("cpu")
    return model


def test_images_are_those_of_the_plain_pipeline(folder_of: Any) -> None:
    folder = folder_of("stable-diffusion")
    ours = build(folder, steps=3, guidance=5.0, negative_prompt="blue").invoke(["a", "b"], [7, 8])
    pipeline = diffusers.StableDiffusionPipeline.from_pretrained(folder)
    seeds = [torch.Generator("cpu").manual_seed(seed) for seed in (7, 8)]
    plain = pipeline(
        ["a", "b"],
        negative_prompt=["blue", "blue"],
        num_inference_steps=3,
        guidance_scale=5.0,
        generator=seeds,
    ).images
    assert [image.mode for image in ours] == ["RGB", "RGB"]
    for image, reference in zip(ours, plain, strict=True):
        assert np.array_equal(np.asarray(image), np.asarray(reference))


def test_parameters_reach_the_pipeline(folder_of: Any) -> None:
    folder = folder_of("stable-diffusion")
    base = np.asarray(build(folder, steps=2, guidance=4.0).invoke(["a"], [1])[0])
    other = {"steps": 3}, {"guidance": 6.0}, {"negative_prompt": "red"}
    for change in other:
        changed = build(folder, **{"steps": 2, "guidance": 4.0, **change}).invoke(["a"], [1])[0]
        assert not np.array_equal(np.asarray(changed), base), change
    assert build(folder, steps=2, width=96, height=64).invoke(["a"], [1])[0].size == (96, 64)


def test_any_prompt_draws(loaded: Any) -> None:
    evil = ["", " ", "\0", "e\u0301\u202e\U0001f9ff" * 30, "word " * 5000, "<s></s><pad>"]
    images = loaded("stable-diffusion", steps=2, guidance=4.0).invoke(evil, range(len(evil)))
    assert all(isinstance(image, Image.Image) and image.size == (64, 64) for image in images)


def test_a_parameter_the_pipeline_does_not_take_is_refused(folder_of: Any) -> None:
    with pytest.raises(ConfigError, match="system_prompt does nothing here: a FluxPipeline does not take it"):
        build(folder_of("flux"), system_prompt="be nice")


@pytest.mark.parametrize("scheduler", ["EulerAncestralDiscreteScheduler", "DDPMScheduler"])
def test_stochastic_schedulers_use_the_items_generators(folder_of: Any, scheduler: str) -> None:
    model = build(folder_of("stable-diffusion", scheduler=scheduler), steps=3, guidance=4.0)
    first = model.invoke(["a", "b", "c"], [1, 2, 3])
    torch.manual_seed(77)
    swapped = model.invoke(["c", "b", "a"], [3, 2, 1])
    for image, same in zip(first, reversed(swapped), strict=True):
        assert np.array_equal(np.asarray(image), np.asarray(same))


def test_noise_from_the_global_generator_is_refused(folder_of: Any) -> None:
    with pytest.raises(ModelError, match="results would depend on batch mates"):
        build(folder_of("flux", stochastic_sampling=True))


def test_not_a_number_images_are_rejected_one_by_one(tmp_path: Path) -> None:
    folder = tiny.build_stable_diffusion(tmp_path / "sd")
    file = folder / "vae/diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    weights["decoder.conv_out.bias"][0] = float("nan")
    save_file(weights, file, metadata={"format": "pt"})
    outputs = build(folder, steps=1).invoke(["a", "b"], [1, 2])
    assert all(isinstance(output, OutputRejected) for output in outputs)

    good, broken = np.full((4, 4, 3), 0.5), np.full((4, 4, 3), np.nan)
    assert diffusers_adapter.to_image(good, "m").getpixel((0, 0)) == (128, 128, 128)
    assert isinstance(diffusers_adapter.to_image(broken, "m"), OutputRejected)


def test_size_is_known_before_and_exact_after_loading(folder_of: Any) -> None:
    spec = registry.resolve(f"local:{folder_of('stable-diffusion')}")
    model = registry.build(spec)
    before = model.size_bytes
    model.load("cpu")
    assert before == pytest.approx(model.size_bytes, rel=0.01)
    parts = [part for part in model._model.components.values() if isinstance(part, torch.nn.Module)]
    assert model.size_bytes >= sum(p.numel() * 4 for part in parts for p in part.parameters())


def test_half_the_bytes_in_half_precision(folder_of: Any) -> None:
    base = f"local:{folder_of('stable-diffusion')}"
    half = registry.resolve("it", {"it": {"base": base, "dtype": "bfloat16", "steps": 1}})
    assert registry.size_bytes(half) * 2 == registry.size_bytes(registry.resolve(base))
    model = registry.build(half)
    model.load("cpu")
    assert model.invoke(["a"], [1])[0].size == (64, 64)


def test_every_pipeline_of_the_table_takes_what_the_table_sets() -> None:
    drawing = {name for name, spec in TABLE.items() if spec.adapter == "diffusers" and spec.is_hub}
    assert drawing == set(PIPELINES)
    for name, class_name in PIPELINES.items():
        pipeline = getattr(diffusers, class_name)
        takes = inspect.signature(pipeline.__call__).parameters
        assert hasattr(pipeline, "load_lora_weights")
        for parameter in {*TABLE[name].accepts} - {*NOT_CALLED}:
            assert PIPELINE_KEYWORDS.get(parameter, parameter) in takes, (name, parameter)


@pytest.mark.parametrize(("name", "class_name"), PIPELINES.items())
def test_prompt_rewriting_is_off(name: str, class_name: str) -> None:
    pipeline = object.__new__(getattr(diffusers, class_name))
    keywords = diffusers_adapter.call_keywords(TABLE[name], pipeline)
    assert keywords["num_inference_steps"] == TABLE[name].parameters["steps"]
    takes = inspect.signature(type(pipeline).__call__).parameters
    if "complex_human_instruction" in takes:
        assert keywords["complex_human_instruction"] is None
    if "system_prompt" in takes:
        assert keywords["system_prompt"] == ""


@pytest.mark.parametrize("class_name", sorted(set(PIPELINES.values())))
def test_which_pipelines_hand_on_generators_can_be_seen(class_name: str) -> None:
    handing = {"StableDiffusionPipeline", "StableDiffusionXLPipeline", "SanaSprintPipeline"}
    assert diffusers_adapter._passes_generator(getattr(diffusers, class_name)) == (class_name in handing)


def test_prompts_are_bucketed_where_padding_follows_the_longest(tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text('{"_class_name": "ZImagePipeline"}')
    tiny.tokenizer(max_length=512).save_pretrained(tmp_path / "tokenizer")
    bucket = registry.bucketing(registry.resolve(f"local:{tmp_path}"))
    assert bucket is not None
    buckets = [bucket("a" * count) for count in (1, 30)]
    shutil.rmtree(tmp_path / "tokenizer")  # read once
    buckets += [bucket("a" * count) for count in (31, 62, 63, 2000)]
    assert buckets == [32, 32, 64, 64, 96, 512]


def test_a_prompt_that_is_cut_is_told_once(folder_of: Any, caplog: pytest.LogCaptureFixture) -> None:
    model = build(folder_of("stable-diffusion"), steps=1)
    model.load("cpu")
    model.invoke(["short"], [1])
    assert not _ours(caplog)
    for _ in range(2):
        model.invoke(["a very long prompt " * 100], [1])
    (message,) = _ours(caplog)
    assert "was cut" in message


def _ours(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "panic.models"]


def test_a_pipeline_that_is_guided_by_a_negative_prompt_alone_does_not_warn_without_one(
    tmp_path: Path, warned: pytest.LogCaptureFixture
) -> None:
    folder = build_qwen_image(tmp_path / "qwen")
    size = {"width": 32, "height": 32, "steps": 1}
    assert len(build(folder, **size).invoke(["a barn"], [1])) == 1
    assert "guidance is not enabled" not in warned.text
    assert "true_cfg_scale" not in build(folder, **size, negative_prompt="red")._keywords
