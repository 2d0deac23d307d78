"""The shipped family: loads through the standard classes, draws, tells and matches recognisably."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from panic.models import registry
from panic.pocket import NAMES, folder
from panic.pocket.world import examples
from panic.train import pocket_scores

WEIGHTS = folder("PocketDiffusion").parent


@pytest.fixture(autouse=True)
def _one_thread():
    """Two of them wait for each other where the machine has other work, ten times as long as one works."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def of_package(name):
    """A loaded model, while it is there: the weights of the later ones are still in training."""
    spec = registry.resolve(name)
    if not registry.is_present(spec):
        pytest.skip(f"the weights of {name} are not in the package yet")
    model = registry.build(spec)
    model.load("cpu")
    return model


@pytest.fixture(scope="module")
def painter():
    return of_package("PocketDiffusion")


@pytest.fixture(scope="module")
def teller():
    return of_package("PocketCaptioner")


def test_standard_classes_in_float32():
    from diffusers import DiffusionPipeline, StableDiffusionPipeline
    from transformers import AutoModelForImageTextToText, AutoProcessor, BlipForConditionalGeneration

    pipeline = DiffusionPipeline.from_pretrained(folder("PocketDiffusion"))
    captioner = AutoModelForImageTextToText.from_pretrained(folder("PocketCaptioner"))
    processor = AutoProcessor.from_pretrained(folder("PocketCaptioner"))
    assert type(pipeline) is StableDiffusionPipeline
    assert type(captioner) is BlipForConditionalGeneration
    assert processor.tokenizer.model_max_length == pipeline.tokenizer.model_max_length
    assert pipeline.unet.dtype == pipeline.text_encoder.dtype == captioner.dtype == torch.float32


def test_every_name_has_a_folder_and_is_a_model_by_that_name():
    for name in NAMES:
        assert registry.resolve(name).name == name
    with pytest.raises(KeyError):
        folder("PocketCLOP")


@pytest.mark.slow
def test_draws_recognisably(painter):
    scores = pocket_scores.score_drawing(painter, examples("test", 48, 77))
    assert scores["all, background"] >= 0.95
    assert scores["1 objects, attributes"] >= 0.5


def test_tells_recognisably(teller):
    scores = pocket_scores.score_telling(teller, examples("test", 64, 78))
    assert scores["parse"] >= 0.98
    assert scores["exact"] >= 0.75


def test_matches_recognisably():
    rates = pocket_scores.score_matching(of_package("PocketCLIP"), examples("test", 100, 79))
    assert min(rates.values()) >= 0.75


@pytest.mark.slow
def test_the_variant_draws_the_next_background():
    scores = pocket_scores.score_drawing(
        of_package("PocketDiffusion-B"), examples("test", 32, 80), background_shift=pocket_scores.SHIFT
    )
    assert scores["all, background"] >= 0.8


def test_the_variant_tells_the_largest_object_alone():
    scores = pocket_scores.score_telling(
        of_package("PocketCaptioner-B"), examples("test", 64, 81), terse=True
    )
    assert scores["parse"] >= 0.98
    assert scores["exact"] >= 0.75


def test_a_picture_depends_on_its_prompt_and_seed_and_not_on_its_mates(painter):
    prompts = ["a large red circle on a white background", "a horse riding an astronaut", ""] * 2
    first = pocket_scores.draw(painter, prompts)
    mates = pocket_scores.draw(painter, prompts[:1] + ["a small black ring on a blue background"] * 5)
    assert first.shape == (6, 64, 64, 3)
    assert np.array_equal(first[0], mates[0])
    assert not np.array_equal(first[0], first[3])
    assert not np.array_equal(first[0], first[1])


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("bar", pocket_scores.BARS, ids=lambda bar: f"{bar[0]}, {bar[1]}")
def test_the_family_reaches_what_it_is_meant_to(measured, bar):
    """On 1,000 scenes of the test split. A figure below its bar fails here, and stands in the model card."""
    part, name, least = bar
    if part not in measured:
        pytest.skip(f"the weights for {part} are not in the package yet")
    assert measured[part][name] >= least


@pytest.fixture(scope="module")
def measured():
    return pocket_scores.measure(WEIGHTS, 1000)
