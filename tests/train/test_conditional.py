"""Models of classes and of pixels: from training to a node of a network, and adapters on top of a model."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from panic.errors import ConfigError, ConflictError, ModelError, ModelMissing, UsageError
from panic.models import registry
from panic.models.conditional import ConditionalPipeline, class_of
from panic.train.data import DataError
from tests import tiny
from tests.train import small


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a bear", 0),
        ("A Polar_Bear and a bear", 1),
        ("a polar bear", 1),
        ("two cats", None),
        ("a cat on a bear", 0),
        ("a cat on a dog", 2),
        ("a dog on a cat", 3),
        ("a horse riding an astronaut", None),
        ("", None),
    ],
)
def test_class_of_a_text(text, expected):
    names = ["bear", "polar_bear", "cat", "dog"]
    found = class_of(text, names)
    assert found == class_of(text, names)
    assert found == expected if expected is not None else 0 <= found < 4


def test_texts_without_a_class_fall_on_all_of_them():
    counts = np.bincount([class_of(f"text {i}", ["a", "b", "c", "d"]) for i in range(400)])
    assert len(counts) == 4
    assert counts.min() > 60


@pytest.fixture(scope="module")
def by_class(tmp_path_factory):
    """A model of pixels that has learnt two classes."""
    torch.set_num_threads(1)
    settings = small.config(
        "diffusion",
        tmp_path_factory.mktemp("classes"),
        condition="class",
        model={"unet": small.UNET},
        steps=60,
        batch_size=8,
        learning_rate=0.01,
        drop_caption=0.2,
        evaluate_every=1000,
        sample_steps=2,
        guidance=1.0,
    )
    small.fit(settings)
    return settings


@pytest.mark.slow
def test_a_model_of_classes_draws_what_a_text_names(by_class):
    model = registry.build(
        registry.resolve("mine", {"mine": {"base": f"local:{by_class.output}", "steps": 4}})
    )
    model.load("cpu")
    texts = ["a red thing", "Blue!", "red", "no colour at all"]
    red, blue, red_alone, other = (np.asarray(p).astype(int) for p in model.invoke(texts, [1, 1, 1, 2]))
    assert red.shape == (small.SIDE, small.SIDE, 3)
    assert (red == red_alone).all()
    assert (red[..., 0] - red[..., 2]).mean() > 30
    assert (blue[..., 2] - blue[..., 0]).mean() > 30
    assert other.std() > 0


@pytest.mark.slow
def test_a_model_of_classes_goes_on_and_takes_adapters(by_class, tmp_path):
    changes = {"model": {"base": by_class.output}, "condition": "class", "steps": 2, "sample_steps": 1}
    settings = small.config("diffusion", tmp_path, **changes, lora={"rank": 2})
    small.fit(settings)
    pipeline = ConditionalPipeline.from_pretrained(settings.output)
    assert pipeline.config.labels == {"0": "blue", "1": "red"}
    assert pipeline.unet.dtype == torch.float32
    small.pictures(tmp_path / "more", colours=("red", "green", "blue"))
    with pytest.raises(DataError, match="knows the classes blue, red, and the data have blue, green, red"):
        small.fit(small.config("diffusion", tmp_path, **changes, data={"folder": str(tmp_path / "more")}))
    with pytest.raises(UsageError, match="is a model of classes"):
        small.fit(small.config("diffusion", tmp_path, **(changes | {"condition": "text"})))


def test_classes_need_subfolders(tmp_path):
    folder = small.pictures(tmp_path / "p")
    (folder / "red" / "0.png").rename(folder / "loose.png")
    (folder / "loose.txt").write_text("x")
    settings = small.config(
        "diffusion", tmp_path, condition="class", model={"unet": small.UNET}, data={"folder": str(folder)}
    )
    with pytest.raises(DataError, match="condition: class needs pictures in subfolders"):
        small.fit(settings)


@pytest.fixture(scope="module")
def adapters(tmp_path_factory):
    """A pipeline, and adapters trained on it."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("adapters")
    tiny.build_stable_diffusion(folder / "base")
    settings = small.config(
        "diffusion",
        folder,
        model={"base": str(folder / "base")},
        image_size=64,
        lora={"rank": 2, "alpha": 16},
        steps=3,
        learning_rate=0.1,
        ema=0.0,
        sample_steps=1,
    )
    small.fit(settings)
    return folder, settings


def invoke(variant, base_folder):
    spec = registry.resolve("mine", {"mine": variant}, base_folder=base_folder)
    model = registry.build(spec)
    model.load("cpu")
    (picture,) = model.invoke(["a red circle"], [3])
    return np.asarray(picture).astype(int)


def test_lora_as_a_variant_equals_the_merged_model(adapters):
    folder, _ = adapters
    plain, added, merged = (
        invoke({"base": base, "steps": 2, "guidance": 3.0, **lora}, folder)
        for base, lora in [("local:base", {}), ("local:base", {"lora": "model/lora"}), ("local:model", {})]
    )
    assert abs(plain - added).max() > 10
    assert abs(merged - added).max() <= 6  # float16 on disk


def test_lora_is_part_of_the_fingerprint_by_content(adapters, tmp_path):
    folder, _ = adapters

    def fingerprint(lora):
        variant = {"base": "local:base"} | ({"lora": str(lora)} if lora else {})
        return registry.fingerprint(registry.resolve("mine", {"mine": variant}, base_folder=folder))

    copy = tmp_path / "copy"
    copy.mkdir()
    for path in (folder / "model" / "lora").iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    assert fingerprint(copy) == fingerprint("model/lora") != fingerprint(None)
    (copy / "more.safetensors").write_bytes(b"x")
    assert fingerprint(copy) != fingerprint("model/lora")


@pytest.fixture(scope="module")
def captions(tmp_path_factory):
    """A captioner, and adapters trained on it."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("captions")
    tiny.build_blip(folder / "base")
    settings = small.config(
        "captioning",
        folder,
        model={"base": str(folder / "base")},
        image_size=32,
        lora={"rank": 2, "targets": ["query", "value", "dense"]},
        steps=3,
        learning_rate=0.1,
        ema=0.0,
    )
    small.fit(settings)
    return folder


def caption(variant, base_folder):
    spec = registry.resolve("mine", {"mine": {"max_new_tokens": 8, **variant}}, base_folder=base_folder)
    model = registry.build(spec)
    model.load("cpu")
    dice = np.random.default_rng(0)
    pictures = [Image.fromarray(dice.integers(0, 256, (4, 4, 3), dtype=np.uint8)) for _ in range(6)]
    return model.invoke(pictures, range(6)), model.size_bytes


def test_a_captioner_takes_adapters_as_a_variant(captions):
    plain, added, merged = (
        caption({"base": base, **lora}, captions)
        for base, lora in [("local:base", {}), ("local:base", {"lora": "model/lora"}), ("local:model", {})]
    )
    assert plain[0] != added[0]
    assert added[0] == merged[0]
    assert plain[1] == added[1]


def test_adapters_of_another_captioner_are_told(captions, adapters):
    for folder, reason in [("pictures", "No such file"), (adapters[0] / "model" / "lora", "No such file")]:
        with pytest.raises(ModelError, match=f"adapters of .* do not fit: {reason}"):
            caption({"base": "local:base", "lora": str(folder)}, captions)
    with pytest.raises(ModelError, match=r"adapters of .*model/lora do not fit"):
        caption({"base": "PocketCaptioner", "lora": "model/lora"}, captions)
    deeper = captions / "deeper"
    shutil.copytree(captions / "model" / "lora", deeper)
    weights = load_file(deeper / "adapter_model.safetensors")
    name, value = sorted(weights.items())[0]
    save_file(weights | {name.replace("0", "7"): value.clone()}, deeper / "adapter_model.safetensors")
    with pytest.raises(ModelError, match="do not fit: no counterpart of"):
        caption({"base": "local:base", "lora": "deeper"}, captions)


def test_a_folder_without_weights_makes_a_model_missing(captions):
    variants = {"mine": {"base": "local:base", "lora": "pictures"}}
    spec = registry.resolve("mine", variants, base_folder=captions)
    assert registry.is_present(registry.resolve("local:base", base_folder=captions))
    assert not registry.is_present(spec)
    with pytest.raises(ModelMissing, match=r"mine: there are no weights in .*pictures, its lora"):
        registry.fingerprint(spec)


def test_lora_that_is_not_there_or_does_not_fit_is_told(adapters):
    folder, _ = adapters
    with pytest.raises(ConfigError, match="lora should be a folder, and there is none"):
        invoke({"base": "local:base", "lora": "nowhere"}, folder)
    with pytest.raises(ModelError, match=r"adapters of .*pictures do not fit"):
        invoke({"base": "local:base", "lora": "pictures"}, folder)
    with pytest.raises(ModelError, match=r"adapters of .*model/lora do not fit"):
        invoke({"base": "PocketDiffusion", "lora": "model/lora"}, folder)


def test_adapters_do_not_go_on_with_other_weights_below(tmp_path):
    tiny.build_blip(tmp_path / "base")
    changes = {"model": {"base": str(tmp_path / "base")}, "image_size": 32, "lora": {"rank": 2}, "steps": 1}
    small.fit(small.config("captioning", tmp_path, **changes))
    small.fit(small.config("captioning", tmp_path, **(changes | {"steps": 2})))
    shutil.rmtree(tmp_path / "base")
    tiny.build_blip(tmp_path / "base", seed=1)
    with pytest.raises(ConflictError, match="frozen_digest"):
        small.fit(small.config("captioning", tmp_path, **(changes | {"steps": 3})))
