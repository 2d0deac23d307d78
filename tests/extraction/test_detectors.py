"""Regions of images: exactly as many as asked for, boxes inside the image, the best first."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image

from panic.errors import ModelError
from panic.extraction.extract import Extraction, extract
from panic.extraction.inputs import list_images
from panic.models import registry
from panic.models.detectors import choose, intersection_over_union, unpack

from .conftest import draw
from .tiny_detectors import BUILDERS

Loaded = Callable[..., Any]


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    """A loaded detector by kind and number of regions; its folder is `source`."""
    folders = {kind: build(tmp_path_factory.mktemp(kind)) for kind, build in BUILDERS.items()}

    def load(kind: str, regions: int) -> Any:
        spec = registry.resolve("it", {"it": {"base": f"local:{folders[kind]}", "regions": regions}})
        model = registry.build(spec)
        model.load("cpu")
        return model

    return load


def images(*sizes: tuple[int, int]) -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [
        Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)) for width, height in sizes
    ]


SLOW = pytest.mark.slow


@pytest.mark.parametrize(("kind", "most", "length"), [("detr", 20, 32), ("owlv2", 64, 16)])
@pytest.mark.parametrize(
    "size", [(7, 30), *(pytest.param(size, marks=SLOW) for size in [(64, 64), (90, 40), (1, 1)])]
)
def test_there_are_exactly_so_many_regions(
    loaded: Loaded, kind: str, most: int, length: int, size: tuple[int, int]
) -> None:
    for regions in (1, 9, most):
        packed = np.stack(loaded(kind, regions).invoke(images(size, size), [0, 0]))
        boxes, scores, vectors = unpack(packed, regions)
        assert packed.dtype == np.float32
        assert (boxes.shape, vectors.shape) == ((2, regions, 4), (2, regions, length))
        assert ((boxes >= 0) & (boxes <= 1)).all()
        assert (boxes[..., :2] <= boxes[..., 2:]).all()
        assert (np.diff(scores, axis=1) <= 0).all()
        assert ((scores >= 0) & (scores <= 1)).all()


def test_detr_s_vectors_are_the_decoder_s_states_of_the_queries(loaded: Loaded) -> None:
    model, image = loaded("detr", 20), images((80, 64))
    boxes, scores, vectors = unpack(np.stack(model.invoke(image, [0])), 20)
    with torch.no_grad():
        features = model._processor(images=image, return_tensors="pt")
        given = model._model(**features)
    probabilities = given.logits[0].softmax(-1)[:, :-1].amax(-1)
    order = probabilities.argsort(descending=True).numpy()
    np.testing.assert_allclose(vectors[0], given.last_hidden_state[0].numpy()[order], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(scores[0], probabilities.numpy()[order], rtol=1e-5)
    x, y, width, height = given.pred_boxes[0].numpy()[order].T
    corners = np.stack([x - width / 2, y - height / 2, x + width / 2, y + height / 2], axis=1)
    np.testing.assert_allclose(boxes[0], corners.clip(0, 1), atol=1e-6)


def test_owlv2_s_boxes_are_of_the_image_and_not_of_the_square_around_it(loaded: Loaded) -> None:
    model, image = loaded("owlv2", 64), images((80, 40))
    boxes, _, vectors = unpack(np.stack(model.invoke(image, [0])), 64)
    with torch.no_grad():
        features = model._processor(images=image, return_tensors="pt")
        given = model._model.image_guided_detection(
            pixel_values=features["pixel_values"], query_pixel_values=features["pixel_values"]
        )
    theirs = model._processor.post_process_image_guided_detection(
        given, threshold=-1.0, nms_threshold=1.0, target_sizes=torch.tensor([[40, 80]])
    )[0]["boxes"]
    wanted = (theirs.numpy() / [80, 40, 80, 40]).clip(0, 1)
    embeddings = given.class_embeds[0].numpy()
    patch = np.abs(vectors[0][:, None] - embeddings[None]).max(axis=2).argmin(axis=1)
    assert sorted(patch) == list(range(64))
    np.testing.assert_allclose(vectors[0], embeddings[patch], rtol=1e-3, atol=1e-5)
    x, y, width, height = given.target_pred_boxes[0].numpy()[patch].T  # shares of a square of 80 x 80
    corners = np.stack([x - width / 2, 2 * (y - height / 2), x + width / 2, 2 * (y + height / 2)], axis=1)
    np.testing.assert_allclose(boxes[0], corners.clip(0, 1), atol=1e-5)
    distances = np.abs(boxes[0][:, None] - wanted[None]).max(axis=2)
    assert distances.min(axis=0).max() < 1e-5  # transformers leaves some out, and has no others


def test_more_regions_than_a_model_finds_are_refused(loaded: Loaded) -> None:
    with pytest.raises(ModelError, match="finds 20 regions at most, not 21"):
        loaded("detr", 21)
    with pytest.raises(ModelError, match="finds 64 regions at most"):
        loaded("owlv2", 65)


def test_a_vector_does_not_depend_on_batch_mates(loaded: Loaded) -> None:
    first, second, third = images((40, 40), (40, 40), (40, 40))
    model = loaded("detr", 9)
    np.testing.assert_array_equal(
        model.invoke([first, second], [0, 0])[0], model.invoke([first, third], [0, 0])[0]
    )
    bucket = registry.bucketing(model.spec)
    assert bucket is not None
    assert bucket(first) == bucket(second) != bucket(images((40, 41))[0])


BOXES = np.array(
    [[0, 0, 0.5, 0.5], [0, 0, 0.5, 0.45], [0.5, 0.5, 1, 1], [0.2, 0.2, 0.2, 0.9], [0, 0, 0.5, 0.3]],
    np.float32,
)
SCORES = np.array([0.6, 0.7, 0.1, 0.9, 0.5], np.float32)


def test_non_maximum_suppression_is_relaxed_until_there_are_enough() -> None:
    """Boxes 0 and 1 overlap by 0.9, 1 and 4 by 2/3, 0 and 4 by 0.6; 3 has no area."""
    assert choose(BOXES, SCORES, 2).tolist() == [1, 2]
    assert choose(BOXES, SCORES, 3).tolist() == [1, 4, 2]
    assert choose(BOXES, SCORES, 4).tolist() == [1, 0, 4, 2]
    assert choose(BOXES, SCORES, 5).tolist() == [3, 1, 0, 4, 2]


def test_intersection_over_union_has_known_values() -> None:
    found = intersection_over_union(
        np.array([0, 0, 0.5, 1], np.float32), np.array([[0.25, 0, 0.75, 1], *BOXES])
    )
    np.testing.assert_allclose(found, [1 / 3, 0.5, 0.45, 0, 0, 0.3], rtol=1e-6)


def test_an_extraction_has_boxes_scores_and_vectors_beside_whole_images(
    loaded: Loaded, tmp_path: Path
) -> None:
    for number, size in enumerate([(40, 30), (30, 40), (40, 30)]):
        draw(tmp_path / "photos" / f"{number}.png", size, number)
    specs = {"detr": loaded("detr", 7).spec, "PocketPixels": registry.resolve("PocketPixels")}
    wanted = Extraction(
        items=list_images(str(tmp_path / "photos")).items,
        specs=specs,
        device="cpu",
        output=tmp_path / "f.parquet",
    )
    assert extract(wanted).num_rows == 3
    frame = pl.read_parquet(tmp_path / "f.parquet")
    assert {name: frame.schema[name] for name in frame.columns[5:]} == {
        "detr boxes": pl.Array(pl.Float32, (7, 4)),
        "detr scores": pl.Array(pl.Float32, 7),
        "detr": pl.Array(pl.Float32, (7, 32)),
        "PocketPixels": pl.Array(pl.Float32, 64),
    }
    with Image.open(tmp_path / "photos" / "1.png") as image:
        (packed,) = loaded("detr", 7).invoke([image], [0])
    boxes, _, vectors = unpack(packed[None], 7)
    np.testing.assert_allclose(frame["detr boxes"].to_numpy()[1], boxes[0], atol=1e-5)
    np.testing.assert_allclose(frame["detr"].to_numpy()[1], vectors[0], atol=1e-4)


@pytest.mark.parametrize("architectures", [["CLIPModel"], ["DetrForSegmentation", "Other"]])
def test_another_architecture_is_told(tmp_path: Path, architectures: list[str]) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"architectures": architectures}))
    spec = registry.resolve("it", {"it": {"base": f"local:{tmp_path}", "adapter": "detector"}})
    with pytest.raises(ModelError, match=f"it: {', '.join(architectures)} is no detector"):
        registry.bucketing(spec)
