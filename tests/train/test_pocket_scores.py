"""The pocket family's scores: what is perfect scores 1, what is broken does not."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from panic.pocket.world import describe, examples
from panic.train import pocket_release, pocket_scores


class Through:
    """An autoencoder that keeps a share of the picture and replaces the rest by grey."""

    def __init__(self, keep: float) -> None:
        self.keep = keep

    def encode(self, pictures: torch.Tensor) -> SimpleNamespace:
        return SimpleNamespace(latents=pictures)

    def decode(self, latents: torch.Tensor) -> SimpleNamespace:
        return SimpleNamespace(sample=latents * self.keep)


def test_pictures_that_come_back_whole_are_read_right_and_grey_ones_are_not():
    shown = examples("test", 40, 3)
    whole = pocket_scores.score_autoencoder(Through(1.0), shown)
    assert whole["all, background"] == 1.0
    assert whole["all, exact"] >= 0.95
    grey = pocket_scores.score_autoencoder(Through(0.0), shown)
    assert grey["all, attributes"] == 0.0


@pytest.mark.parametrize(("shift", "right"), [(0, 1.0), (1, 0.0)])
def test_matching_counts_the_own_caption_only(shift, right):
    shown = examples("test", 20, 4)

    def processor(text, images, **how):
        assert text == [describe(example.scene) for example in shown]
        return {"n": len(text)}

    def model(n):
        vectors = torch.eye(n)
        return SimpleNamespace(image_embeds=vectors, text_embeds=vectors.roll(shift, 0))

    rates = pocket_scores.score_matching(model, processor, shown)
    assert rates == {"caption of a picture, top 1": right, "picture of a caption, top 1": right}


def test_the_weights_in_the_package_are_within_the_budget():
    assert 0 < pocket_release.size_bytes() <= pocket_release.BUDGET_BYTES


def test_a_card_tells_scores_speed_and_config():
    scores = {
        "scenes": 1000,
        "telling": {"exact": 0.951},
        "telling_s_per_picture": 0.0042,
    }
    text = pocket_release.card("PocketCaptioner", scores, "24,000 steps")
    for told in (
        "| exact | 95.1 % |",
        "0.004 s per picture",
        "pocket-captioner.yaml; 24,000 steps",
        "1,000 scenes",
    ):
        assert told in text
