"""What a folder's files and the source of its class tell before it is loaded, and how prompts are read."""

from __future__ import annotations

import importlib.util
import inspect
import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from panic.errors import ConfigError, ModelError, ModelMissing, OutputRejected
from panic.models import kinds, library_source, registry, weights
from panic.models.checks import check_config
from panic.models.table import TABLE
from tests import tiny_classes, tiny_language, tiny_readers
from tests.extraction import tiny_detectors
from tests.tiny_brought import build_pixart_sigma

PAIR_END = "PocketCaptioner"
FIND = importlib.util.find_spec


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a tiny pipeline, built once."""
    built: dict[str, Path] = {}

    def build(name: str) -> Path:
        if name not in built:
            folder = tmp_path_factory.mktemp("pipelines") / name
            if name == "sd3 without t5":
                built[name] = tiny_classes.build_sd3(folder, has_t5=False)
            elif name == "PixArt":
                built[name] = build_pixart_sigma(folder)
            else:
                built[name] = tiny_classes.DRAWING[name](folder)
        return built[name]

    return build


def problems(folder: Path, **parameters: Any) -> dict[str, str]:
    """What the check of a config says about a variant of a folder, by parameter."""
    raw = {"networks": [["it", PAIR_END]], "models": {"it": {"base": f"local:{folder}", **parameters}}}
    return {str(problem.path[-1]): problem.message for problem in check_config(raw)}


@pytest.mark.parametrize(
    ("name", "parameters", "told"),
    [
        (
            "sd-turbo",
            {"eta": 0.5},
            {"eta": "eta has no effect: the steps of a EulerDiscreteScheduler have none"},
        ),
        ("sd-turbo", {"guidance": 3.0, "width": 264}, {}),
        (
            "sd-turbo",
            {"max_sequence_length": 9},
            {"max_sequence_length": "max_sequence_length does nothing here"},
        ),
        (
            "FLUX.1-schnell",
            {"guidance": 3.5},
            {"guidance": "guidance has no effect: the model's transformer"},
        ),
        (
            "FLUX.1-schnell",
            {"width": 264},
            {"width": "width should be a multiple of 16, as a FluxPipeline draws"},
        ),
        (
            "FLUX.2-klein-4B",
            {"guidance": 4.0},
            {"guidance": "guidance has no effect: the model is distilled"},
        ),
        ("SANA-Sprint-0.6B", {"height": 48, "guidance": 3}, {"height": "height should be a multiple of 32"}),
        ("Lumina-Image-2.0", {"height": 264}, {"height": "height should be a multiple of 16"}),
        ("SD3.5-medium", {"width": 264, "guidance": 3}, {"width": "width should be a multiple of 16"}),
        ("Z-Image-Turbo", {"width": 264, "guidance": 3}, {"width": "width should be a multiple of 16"}),
    ],
)
def test_settings_that_a_pipeline_ignores_or_refuses_are_told_in_the_check(
    pipeline: Callable[[str], Path], name: str, parameters: dict[str, Any], told: dict[str, str]
) -> None:
    found = problems(pipeline(name), **parameters)
    assert found.keys() == told.keys()
    assert all(found[key].startswith(text) for key, text in told.items())


def test_what_the_table_says_is_not_refused(pipeline: Callable[[str], Path]) -> None:
    for name, entry in TABLE.items():
        if entry.adapter == "diffusers" and entry.is_hub:
            given = {key: value for key, value in entry.parameters.items() if value is not None}
            told = problems(pipeline(name), **given)
            assert told == {}, name


def test_where_the_weights_are_not_here_nothing_is_told() -> None:
    raw = {"models": {"it": {"base": "sd-turbo", "width": 264, "guidance": 2.0}}}
    assert check_config(raw) == []


def test_the_source_of_a_class_says_what_importing_it_says() -> None:
    import diffusers

    for name in ("FluxPipeline", "StableDiffusionPipeline", "Lumina2Pipeline", "ZImagePipeline"):
        takes = inspect.signature(getattr(diffusers, name).__call__).parameters
        said = library_source.parameters(name, "__call__")
        assert said is not None
        assert said.keys() == takes.keys() - {"kwargs"}
        assert said["num_inference_steps"] == takes["num_inference_steps"].default
    assert library_source.parameters("NoSuchPipeline", "__call__") is None
    assert library_source.parameters("../../etc/passwd", "__call__") is None


def test_a_folder_with_fp16_files_alone_loads(pipeline: Callable[[str], Path], tmp_path: Path) -> None:
    folder = tmp_path / "half"
    shutil.copytree(pipeline("sd-turbo"), folder)
    for path in list(weights.weight_files(folder)):
        path.rename(path.with_name(path.name.replace(".safetensors", ".fp16.safetensors")))
    assert (weights.variant(folder), weights.variant(pipeline("sd-turbo"))) == ("fp16", None)
    assert draws(folder, steps=1) == draws(pipeline("sd-turbo"), steps=1)


def test_a_captioner_and_an_embedding_model_with_fp16_files_alone_load(
    folder_of: Any, tmp_path: Path
) -> None:
    for kind in ("blip", "sentence-bert"):
        folder = tmp_path / kind
        shutil.copytree(folder_of(kind), folder)
        (folder / "model.safetensors").rename(folder / "model.fp16.safetensors")
        registry.build(registry.resolve(f"local:{folder}")).load("cpu")


def test_an_editor_a_language_model_and_a_detector_with_fp16_files_alone_load(
    folder_of: Any, tmp_path: Path
) -> None:
    folders = {
        "image-to-image": shutil.copytree(folder_of("stable-diffusion"), tmp_path / "editor"),
        "text-to-text": tiny_language.build("gpt2", tmp_path / "gpt2"),
        "detector": tiny_detectors.BUILDERS["detr"](tmp_path / "detr"),
    }
    for adapter, folder in folders.items():
        for path in list(weights.weight_files(folder)):
            path.rename(path.with_name(path.name.replace(".safetensors", ".fp16.safetensors")))
        variant: dict[str, Any] = {"base": f"local:{folder}", "adapter": adapter}
        if adapter == "detector":
            variant["regions"] = 5
        registry.build(registry.resolve("it", {"it": variant})).load("cpu")


def test_shards_of_a_variant_are_known_by_name(tmp_path: Path) -> None:
    (tmp_path / "model.fp16-00001-of-00002.safetensors").touch()
    assert weights.variant(tmp_path) == "fp16"
    (tmp_path / "model-00001-of-00002.safetensors").touch()
    assert weights.variant(tmp_path) is None


def draws(folder: Path, **parameters: Any) -> bytes:
    (image,) = built(folder, **parameters).invoke(["a"], [1])
    return bytes(image.tobytes())


def built(folder: Path, **parameters: Any) -> Any:
    model = registry.build(registry.resolve("it", {"it": {"base": f"local:{folder}", **parameters}}))
    model.load("cpu")
    return model


SMALL = {"steps": 1, "width": 64, "height": 64}


@pytest.mark.parametrize(
    ("name", "parameters", "length", "told"),
    [
        ("sd-turbo", {}, 100, "reads 77 tokens (its tokenizer); a prompt of 102 was cut"),
        ("FLUX.1-schnell", {"max_sequence_length": 256}, 200, ""),  # CLIP reads 77, T5 all
        ("FLUX.1-schnell", {"max_sequence_length": 64}, 100, "reads 77 tokens (its tokenizer)"),
        ("FLUX.1-schnell", {"max_sequence_length": 128}, 200, "reads 128 tokens (max_sequence_length)"),
        ("FLUX.1-schnell", {}, 600, "reads 512 tokens (max_sequence_length); a prompt of 602 was cut"),
        ("FLUX.2-klein-4B", {"max_sequence_length": 64}, 100, "reads 64 tokens (max_sequence_length)"),
        ("SD3.5-medium", {}, 200, ""),
        ("sd3 without t5", {}, 100, "reads 77 tokens (its tokenizer)"),
        ("PixArt", {}, 290, ""),
    ],
)
def test_what_is_cut_off_is_told_with_the_limit_that_holds(
    pipeline: Callable[[str], Path],
    caplog: pytest.LogCaptureFixture,
    name: str,
    parameters: dict[str, Any],
    length: int,
    told: str,
) -> None:
    model = built(pipeline(name), **SMALL, **parameters)
    with caplog.at_level(logging.WARNING, "panic.models"):
        model.invoke(["a" * length], [1])
    found = [record.getMessage() for record in caplog.records if record.name == "panic.models"]
    assert len(found) == bool(told)
    assert told in "".join(found)


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        ({"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]}, None),
        ({"model_type": "t5", "architectures": ["T5ForConditionalGeneration"]}, None),
        ({"model_type": "bart", "architectures": ["BartForConditionalGeneration"]}, None),
        ({"model_type": "blip", "architectures": ["BlipForConditionalGeneration"]}, "captioner"),
        ({"model_type": "git", "architectures": ["GitForCausalLM"]}, "captioner"),
        (
            {"model_type": "vision-encoder-decoder", "architectures": ["VisionEncoderDecoderModel"]},
            "captioner",
        ),
        ({"model_type": "bert", "architectures": ["BertForMaskedLM"]}, "text-embedder"),
        ({"model_type": "bert", "architectures": ["BertModel"]}, "text-embedder"),
    ],
)
def test_a_folder_is_what_its_class_does(tmp_path: Path, config: dict[str, Any], kind: str | None) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    images = [
        kinds.named(name) for name in ("captioner", "text-embedder", "image-embedder", "joint-embedder")
    ]
    folder = kinds.Folder(path=tmp_path, is_pipeline=False, config=config, is_sentence_transformer=False)
    found = [one.name for one in images if one and one.detect(folder)]
    assert found[:1] == ([kind] if kind else [])


def test_the_extra_is_named_before_anything_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What `SmolVLM2` needs is read from the source of its processor."""
    (tmp_path / "config.json").write_text(
        '{"model_type": "smolvlm", "architectures": ["SmolVLMForConditionalGeneration"]}'
    )
    (tmp_path / "model.safetensors").touch()
    spec = registry.resolve("it", {"it": {"base": f"local:{tmp_path}"}})
    monkeypatch.setattr("importlib.util.find_spec", _without("torchvision", "num2words"))
    needs = (
        "it needs what is not installed: torchvision and num2words (the extra vlm: pip install 'panic[vlm]')"
    )
    assert registry.absence(spec) == needs
    assert not registry.is_present(spec)
    with pytest.raises(ModelMissing, match="torchvision and num2words"):
        registry.fingerprints({"it": spec})
    monkeypatch.setattr("importlib.util.find_spec", _without("num2words"))
    assert "num2words" in registry.absence(spec)
    assert "torchvision" not in registry.absence(spec)


def _without(*names: str) -> Callable[[str], Any]:
    """As if these packages of the extra were not installed, and the others were."""

    def find(name: str, *more: Any) -> Any:
        if name in ("torchvision", "num2words"):
            return None if name in names else FIND("numpy")
        return FIND(name, *more)

    return find


def test_most_captioners_need_no_extra(folder_of: Any) -> None:
    for kind in ("blip", "git", "llava", "vision-encoder-decoder"):
        assert kinds.lacks(registry.resolve(f"local:{folder_of(kind)}")) == ""


def test_a_text_without_tokens_is_that_items_failure(tmp_path: Path) -> None:
    folder = tiny_readers.build_sentences_without_ends(tmp_path / "it")
    outputs = built(folder).invoke(["a red circle", "", "x"], [1, 2, 3])
    assert isinstance(outputs[1], OutputRejected)
    assert "finds no token in this text" in outputs[1].message
    assert [isinstance(output, OutputRejected) for output in outputs] == [False, True, False]


def test_an_image_that_a_processor_refuses_is_that_items_failure(folder_of: Any) -> None:
    model = built(folder_of("llava"), max_new_tokens=4)
    good, bad = Image.new("RGB", (64, 64), "red"), Image.new("RGB", (64, 64), "blue")
    plain = model.invoke([good, good], [1, 2])
    model._processor = Refusing(model._processor, bad)
    outputs = model.invoke([bad, good], [1, 2])
    assert isinstance(outputs[0], OutputRejected)
    assert outputs[0].message.endswith("cannot read an image of 64 x 64 pixels: too blue")
    assert outputs[1] == plain[1]
    assert all(isinstance(output, OutputRejected) for output in model.invoke([bad, bad], [1, 2]))


class Refusing:
    """A processor that refuses one image, and with it the batch."""

    def __init__(self, processor: Any, image: Image.Image) -> None:
        self._processor, self._image = processor, image

    def __getattr__(self, name: str) -> Any:
        return getattr(self._processor, name)

    def __call__(self, *, images: list[list[Image.Image]], **more: Any) -> Any:
        if any(image == self._image for (image,) in images):
            raise ValueError("too blue")
        return self._processor(images=images, **more)


def test_the_pipeline_of_a_folder_without_index_is_told(tmp_path: Path) -> None:
    spec = registry.resolve("it", {"it": {"base": "sd-turbo"}})
    with pytest.raises(ModelError, match="it is no diffusers pipeline"):
        weights.pipeline_class(spec, tmp_path)
    with pytest.raises(ConfigError):
        registry.resolve("it", {"it": {"base": "sd-turbo", "step": 1}})
