"""The captioner: prompts, new tokens only, exact sampling, broken scores, evil images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from panic.errors import OutputRejected
from panic.models import registry
from panic.models.seeding import FiniteScores, processors
from panic.models.transformers_adapter import _repeated
from tests import tiny
from tests.models.conftest import sample_images


def test_a_prompt_conditions_but_is_not_repeated(loaded: Any) -> None:
    for kind in ("blip", "git"):
        plain = loaded(kind, max_new_tokens=6).invoke(sample_images(4), range(4))
        asked = loaded(kind, prompt="a photo of", max_new_tokens=6).invoke(sample_images(4), range(4))
        assert plain != asked, kind
        assert not any("photo of" in text for text in asked), kind
        assert all(len(text) <= 6 for text in asked), "one byte per token: only the new ones"


def test_a_chat_model_answers_without_its_question(loaded: Any) -> None:
    texts = loaded("llava", prompt="What is it?", max_new_tokens=6).invoke(sample_images(4), range(4))
    assert all(len(text) <= 6 and "What" not in text for text in texts)
    other = loaded("llava", prompt="What time is it?", max_new_tokens=6).invoke(sample_images(4), range(4))
    assert texts != other


@pytest.mark.parametrize(
    ("row", "prompt", "repeated"),
    [
        ([9, 5, 6, 7], [1, 5, 6, 2], 3),  # BLIP: first token exchanged, last one dropped
        ([1, 5, 6, 7], [1, 5, 6], 3),  # decoder-only: all of it
        ([7, 8], [1, 5, 6, 2], 0),  # only new tokens
        ([1, 7, 8], [1], 1),
    ],
)
def test_repeated_prompt_tokens_are_found(row: list[int], prompt: list[int], repeated: int) -> None:
    assert _repeated(row, prompt) == repeated


def test_gumbel_noise_samples_the_softmax() -> None:
    scores = torch.tensor([0.0, 1.0, 2.0, -1.0, float("-inf")])
    parameters = {"do_sample": True, "temperature": 2.0, "top_k": None, "top_p": None}
    count = 20_000
    chain = processors(parameters, range(count), FiniteScores())
    drawn = chain(torch.zeros(count, 1, dtype=torch.long), scores.repeat(count, 1)).argmax(dim=1)
    shares = drawn.bincount(minlength=5) / count
    expected = (scores / 2.0).softmax(dim=0)
    assert torch.allclose(shares, expected, atol=4 * (0.25 / count) ** 0.5)
    assert shares[4] == 0


def test_top_k_and_top_p_cut_before_the_noise() -> None:
    scores = torch.tensor([[0.0, 3.0, 2.0, 1.0]]).repeat(500, 1)
    for cut in ({"top_k": 2, "top_p": None}, {"top_k": None, "top_p": 0.85}):
        chain = processors({"do_sample": True, "temperature": None, **cut}, range(500), FiniteScores())
        drawn = chain(torch.zeros(500, 1, dtype=torch.long), scores).argmax(dim=1)
        assert set(drawn.tolist()) == {1, 2}, cut


def test_sampling_from_one_candidate_is_greedy(loaded: Any) -> None:
    greedy = loaded("blip", max_new_tokens=12).invoke(sample_images(4), range(4))
    assert (
        loaded("blip", do_sample=True, top_k=1, max_new_tokens=12).invoke(sample_images(4), range(4))
        == greedy
    )


def test_not_a_number_scores_are_rejected(tmp_path: Path) -> None:
    folder = tiny.build_blip(tmp_path / "blip")
    weights = load_file(folder / "model.safetensors")
    weights["text_decoder.cls.predictions.transform.dense.bias"][0] = float("nan")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    model = registry.build(registry.resolve(f"local:{folder}"))
    model.load("cpu")
    assert all(isinstance(output, OutputRejected) for output in model.invoke(sample_images(2), [1, 2]))


def test_broken_rows_do_not_break_others() -> None:
    finite = FiniteScores()
    scores = torch.zeros(3, 4)
    finite(torch.zeros(3, 1), scores)
    scores[1, 2] = float("nan")
    finite(torch.zeros(3, 1), scores)
    finite(torch.zeros(3, 1), torch.zeros(3, 4))
    assert finite.rows(3) == [False, True, False]


@pytest.mark.parametrize("kind", ["blip", "git", "llava", "vision-encoder-decoder"])
def test_any_image_gets_a_text(loaded: Any, kind: str) -> None:
    model = loaded(kind, max_new_tokens=6)
    for mode, size in [("RGB", (1, 1)), ("RGB", (3, 3)), ("RGBA", (3, 700)), ("L", (64, 64)), ("P", (5, 1))]:
        texts = model.invoke([Image.new(mode, size)] * 2, [1, 2])
        assert len(texts) == 2
        assert all(isinstance(text, str) for text in texts), (mode, size)


def test_images_of_other_sizes_wait_for_their_like(loaded: Any) -> None:
    small, wide = Image.new("RGB", (64, 64)), Image.new("RGB", (128, 64))
    for kind, is_one_size in (("llava", False), ("blip", True)):
        bucket = registry.bucketing(loaded(kind).spec)
        assert bucket is not None
        assert (bucket(small) == bucket(wide)) is is_one_size


def test_size_is_known_before_loading(folder_of: Any) -> None:
    model = registry.build(registry.resolve(f"local:{folder_of('blip')}"))
    before = model.size_bytes
    model.load("cpu")
    assert before == pytest.approx(model.size_bytes, rel=0.01)
