"""The shipped pair: loads through the standard classes, draws and tells recognisably."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from panic.pocket import folder
from panic.pocket.world import examples
from panic.train import pocket_scores


@pytest.fixture(scope="module")
def pair():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield pocket_scores.load(folder("PocketDiffusion").parent)
    torch.set_num_threads(before)


def test_standard_classes_float32_and_small(pair):
    pipeline, model, processor = pair
    assert type(pipeline).__module__.startswith("diffusers.")
    assert type(model).__module__.startswith("transformers.")
    assert processor.tokenizer.model_max_length == pipeline.tokenizer.model_max_length
    assert pipeline.unet.dtype == pipeline.text_encoder.dtype == model.dtype == torch.float32
    with pytest.raises(KeyError):
        folder("PocketCLOP")


def test_draws_recognisably(pair):
    scores = pocket_scores.score_drawing(pair[0], examples("test", 48, 77))
    assert scores["all, background"] >= 0.95
    assert scores["1 objects, attributes"] >= 0.5


def test_tells_recognisably(pair):
    scores = pocket_scores.score_telling(*pair[1:], examples("test", 64, 78))
    assert scores["parse"] >= 0.98
    assert scores["exact"] >= 0.75


def test_a_picture_depends_on_its_prompt_and_seed_and_not_on_its_mates(pair):
    prompts = ["a large red circle on a white background", "a horse riding an astronaut", ""] * 2
    first = pocket_scores.draw(pair[0], prompts)
    mates = pocket_scores.draw(pair[0], prompts[:1] + ["a small black ring on a blue background"] * 5)
    assert first.shape == (6, 64, 64, 3)
    assert np.array_equal(first[0], mates[0])
    assert not np.array_equal(first[0], first[1])
