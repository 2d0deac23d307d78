"""Every entry of the table in its real class, and classes that people bring: tiny, built offline, loaded.

Each is saved, loaded through its adapter with the entry's own parameters, and called in float32, bfloat16 and
the entry's own dtype; then it takes its place in a loop of two models. An image is of 256 pixels: smaller
ones hide a wrong mask. SmolVLM2, Qwen3-VL and InternVL need the extra `vlm`.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from panic import run
from panic.config import ExperimentConfig
from panic.errors import OutputRejected
from panic.models import registry
from panic.models.protocol import Modality, ModelSpec
from panic.models.table import TABLE
from panic.store import Store, contents, reading
from tests.models.conftest import sample_images
from tests.tiny_brought import BROUGHT
from tests.tiny_classes import DRAWING
from tests.tiny_readers import EMBEDDING, NEEDS_VLM, READING

BUILDERS: dict[str, Callable[[Path], Path]] = {**DRAWING, **BROUGHT, **READING, **EMBEDDING}
PACKAGED = {name for name, spec in TABLE.items() if not spec.is_hub}
"""Their weights are in the package."""
AT_ONCE = {
    "sd-turbo",
    "Z-Image-Turbo",
    "BLIP-2",
    "Florence-2-base",
    "Qwen3-Embedding-0.6B",
    "clip-vit-base-patch32",
}
"""Those of the default suite: the others are built and called in the slow one."""
LEAKING = {"Lumina-Image-2.0", "CogView4", "Kandinsky-5"}
"""Their results depend on how long the longest prompt of a batch is: the engine parts them by length."""
SIZE = {"width": 256, "height": 256}
BROUGHT_PARAMETERS: dict[str, dict[str, Any]] = {
    "CogView4": {"steps": 10, "guidance": 4.0, **SIZE},
    "Qwen-Image": {"steps": 10, **SIZE},
    "PixArt-Sigma": {"steps": 10, "guidance": 4.0, **SIZE},
    "Kandinsky-5": {"steps": 2, "guidance": 4.0, "width": 1024, "height": 1024},  # it has no smaller ones
}
ITEM, LONG = "a red circle", "a very long description of many objects " * 4
TEXTS = [ITEM, "a blue spiral", "x", LONG]
NAMES = [
    pytest.param(name, marks=() if name in AT_ONCE else pytest.mark.slow)
    for name in sorted(BUILDERS.keys() | PACKAGED)
]
pytestmark = pytest.mark.timeout(300)


def test_every_entry_of_the_table_has_its_tiny_class() -> None:
    others = ("text-to-text", "image-to-image")  # have tests of their own that ask for a tiny class of each
    elsewhere = {name for name, entry in TABLE.items() if entry.adapter in others}
    assert TABLE.keys() - PACKAGED - elsewhere <= BUILDERS.keys()
    assert BUILDERS.keys() >= AT_ONCE


@pytest.fixture(scope="module")
def folder_of_class(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Builds a tiny model once; entries of one class share it."""
    built: dict[Any, Path] = {}

    def build(name: str) -> Path:
        missing = [p for p in ("torchvision", "num2words") if importlib.util.find_spec(p) is None]
        if name in NEEDS_VLM and missing:
            pytest.skip(f"needs {' and '.join(missing)}, the extra vlm")
        builder = BUILDERS[name]
        if builder not in built:
            torch.manual_seed(0)
            built[builder] = builder(tmp_path_factory.mktemp("real") / "model")
        return built[builder]

    return build


@pytest.fixture
def spec_of(folder_of_class: Callable[[str], Path]) -> Callable[..., ModelSpec]:
    """The spec of an entry as it is in the table, with the tiny weights, and images of 256 pixels."""

    def spec(name: str, dtype: str) -> ModelSpec:
        if name in PACKAGED:
            return replace(TABLE[name], dtype=dtype if TABLE[name].dtype else None)
        source = f"local:{folder_of_class(name)}"
        size = SIZE if name in DRAWING else {}
        if name in TABLE:
            entry = TABLE[name]
            return replace(entry, source=source, dtype=dtype, parameters={**entry.parameters, **size})
        own = BROUGHT_PARAMETERS.get(name, {})
        return registry.resolve("it", {"it": {"base": source, "dtype": dtype, **own}})

    return spec


def loaded(spec: ModelSpec) -> Any:
    model = registry.build(spec)
    model.load("cpu")
    return model


def content(output: Any) -> bytes:
    assert isinstance(output, str | Image.Image | np.ndarray), output
    return output.encode() if isinstance(output, str) else np.asarray(output).tobytes()


def cases(spec: ModelSpec, name: str, modality: Modality) -> list[tuple[int, list[Any]]]:
    """Batches of four, and the item's place: among others, elsewhere, beside long ones, beside copies."""
    if modality is Modality.IMAGE:
        item, *mates = sample_images(5)
        mates[3] = Image.new("RGB", item.size)
    else:
        item = ITEM
        share = registry.lengths(spec) if name in LEAKING else registry.bucketing(spec)
        others = ["zz", "two wet dogs", "a green boat", "a", "nothing here", LONG]
        mates = ([text for text in others if share is None or share(text) == share(ITEM)] * 4)[-4:]
    return [
        (0, [item, *mates[:3]]),
        (2, [mates[3], mates[0], item, mates[1]]),
        (0, [item, mates[3], mates[3], mates[2]]),
        (0, [item] * 4),
    ]


@pytest.mark.parametrize("name", NAMES)
def test_a_result_is_its_items_own(spec_of: Callable[..., ModelSpec], name: str) -> None:
    own = {TABLE[name].dtype or "float32"} if name in TABLE else set()
    for dtype in sorted({"float32", "bfloat16"} | own):
        spec = spec_of(name, dtype)
        model = loaded(spec)
        for modality in spec.modalities_in:
            batches = cases(spec, name, modality)
            outputs = [model.invoke(batch, [7] * 4) for _, batch in batches[:1]]
            outputs += [
                model.invoke(batch, [8, 9, 7, 11] if place else [7, 9, 10, 11])
                for place, batch in batches[1:]
            ]
            found = {content(made[place]) for made, (place, _) in zip(outputs, batches, strict=True)}
            assert len(found) == 1, (dtype, modality)
            assert len(set(map(content, outputs[0]))) > 1, "blind to its input"
            check_outputs(spec, model, outputs[0])


def check_outputs(spec: ModelSpec, model: Any, outputs: list[Any]) -> None:
    """Images have the size that was asked for; captions hold no word of the prompt and no special token."""
    if spec.modality_out is Modality.IMAGE:
        size = (spec.parameters.get("width"), spec.parameters.get("height"))
        assert all(image.mode == "RGB" and size in (image.size, (None, None)) for image in outputs)
    elif spec.modality_out is Modality.TEXT:
        tokenizer = model._tokenizer
        assert model._model.config.is_encoder_decoder or tokenizer.padding_side == "left"
        words = {word for word in (spec.parameters["prompt"] or "user assistant").split() if len(word) > 3}
        for text in outputs:
            assert not any(token in text for token in tokenizer.all_special_tokens)
            assert not any(word.strip(".<>") in text for word in words)


@pytest.mark.parametrize("name", [name for name in NAMES if name.values[0] in LEAKING])
def test_what_the_probe_is_for_shows_at_this_size(spec_of: Callable[..., ModelSpec], name: str) -> None:
    model = loaded(spec_of(name, "bfloat16"))
    among, beside = (
        model.invoke([ITEM, *mates], [7, 8, 9, 10])[0] for mates in (["x"] * 3, ["x", "x", LONG])
    )
    assert content(among) != content(beside)


@pytest.mark.parametrize("name", NAMES)
def test_it_takes_its_place_in_a_loop(tmp_path: Path, spec_of: Callable[..., ModelSpec], name: str) -> None:
    spec = spec_of(name, (TABLE[name].dtype if name in TABLE else None) or "float32")
    stores = [tmp_path / "all", tmp_path / ("one" if spec.is_embedding else "all")]  # a store embeds once
    among, batch_size = outputs_of_item(stores[0], spec, TEXTS)
    alone, _ = outputs_of_item(stores[1], spec, [ITEM], batch_size)
    assert among == alone
    assert len(among) == 2 + (len(spec.modalities_in) if spec.is_embedding else 0)


def outputs_of_item(
    path: Path, spec: ModelSpec, prompts: list[str], batch_size: int | None = None
) -> tuple[list[bytes], int]:
    """What a loop of two steps makes of the item, and the batch size; of an embedding model also its vectors.

    That is four, or one where kernels of this processor let results depend on what else is in the batch.
    """
    given = {key: value for key, value in spec.parameters.items() if value is not None}
    packaged = spec.name if spec.name in PACKAGED else None
    variant = {"base": packaged or spec.source, "dtype": spec.dtype, **({} if packaged else given)}
    variant = {key: value for key, value in variant.items() if value is not None}
    pair = ["PocketDiffusion", "PocketCaptioner"]
    if not spec.is_embedding:
        pair[spec.modality_out is Modality.TEXT] = "it"
    config = ExperimentConfig.model_validate(
        {
            "name": f"of-{len(prompts)}-prompts",
            "networks": [pair],
            "models": {"it": variant},
            "embeddings": ["it"] if spec.is_embedding else [],
            "prompts": prompts,
            "seeds": [42],
            "max_length": 2,
            "device": "cpu",
            "threads": 1,
            "batch_sizes": {
                **dict.fromkeys(sorted({*pair} - {"it"}), 4),
                **({"it": batch_size} if batch_size else {}),
            },
        }
    )
    assert run(config, path).state == "complete"
    with Store(path) as store:
        (row,) = [row for row in reading.runs(store, config.name) if row.prompt == ITEM]
        steps = contents.invocations(store, row.id)
        found = [step.output.encode() for step in steps]
        for modality in spec.modalities_in if spec.is_embedding else ():
            (model,) = [model.id for model in reading.models(store) if model.name == "it"]
            found.append(contents.run_vectors(store, row.id, model, modality).tobytes())
        (pinned,) = [epoch.batch_size for epoch in reading.epochs(store, config.name) if epoch.name == "it"]
        return found, pinned


@pytest.mark.slow
def test_an_image_beyond_200_to_1_is_that_items_failure(spec_of: Callable[..., ModelSpec]) -> None:
    model = loaded(spec_of("Qwen3-VL-2B", "float32"))
    (failure,) = model.invoke([Image.new("RGB", (900, 4))], [1])
    assert isinstance(failure, OutputRejected)
    assert "cannot read an image of 900 x 4 pixels" in failure.message
    assert "200" in failure.message
