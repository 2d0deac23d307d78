"""The pocket family's scores: what is perfect scores 1, what is broken does not."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from panic.pocket.scene import Scene, Thing, place
from panic.pocket.world import describe, examples, render
from panic.train import pocket_release, pocket_scores
from tests import tiny
from tests.train import small


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


class Perfect:
    """Knows every picture of some examples, and their captions."""

    def __init__(self, shown, *, background_shift=0, terse=False):
        bias = examples("test", len(shown), SEED, background_shift=background_shift)
        self.pictures = {describe(e.scene): e.picture for e in bias}
        self.texts = {e.picture.tobytes(): e.terse if terse else e.canonical for e in shown}

    def invoke(self, inputs, seeds):
        assert len(inputs) == len(seeds) <= pocket_scores.BATCH
        if isinstance(inputs[0], str):
            return [Image.fromarray(self.pictures[text]) for text in inputs]
        return [self.texts[np.asarray(picture).tobytes()] for picture in inputs]


SEED = 3


def test_a_biased_painter_is_right_about_its_own_backgrounds_only():
    shown = examples("test", 20, SEED)
    for bias in (0, 1):
        painter = Perfect(shown, background_shift=bias)
        rates = [pocket_scores.score_drawing(painter, shown, background_shift=shift) for shift in (0, 1)]
        assert rates[bias]["all, exact"] >= 0.95
        assert rates[1 - bias]["all, background"] == 0.0


def test_a_terse_teller_is_right_about_the_largest_object_only():
    shown = examples("test", 40, SEED)
    one_object = sum(len(e.scene.objects) == 1 for e in shown) / len(shown)
    for terse in (False, True):
        teller = Perfect(shown, terse=terse)
        rates = [pocket_scores.score_telling(teller, shown, terse=way) for way in (False, True)]
        assert rates[terse]["exact"] == rates[terse]["exact, combinations held out"] == 1.0
        assert rates[not terse]["exact"] == pytest.approx(one_object, abs=1e-3)


def test_a_loop_is_judged_by_its_last_round():
    ring = [
        Scene(colour=colour, objects=(Thing(size="large", colour="red", shape="circle"),))
        for colour in ("blue", "purple", "white")
    ]
    rng = np.random.default_rng(0)
    pictures = {describe(s): render([(s, place(s, rng))], rng)[0] for s in ring}

    def invoke(inputs, seeds):
        if isinstance(inputs[0], str):
            return [Image.fromarray(pictures[text]) for text in inputs]
        seen = [next(t for t, p in pictures.items() if np.array_equal(p, i)) for i in inputs]
        return [list(pictures)[min(2, list(pictures).index(text) + 1)] for text in seen]

    model = SimpleNamespace(invoke=invoke)
    rates = pocket_scores.score_loop(model, model, [describe(ring[0])], 4)
    assert rates == {
        "captions that parse": 1.0,
        "pictures read as scenes": 1.0,
        "background one colour further, each round": 0.5,
    }
    silent = SimpleNamespace(invoke=lambda inputs, seeds: ["nothing"] * len(inputs))
    assert pocket_scores.score_loop(model, silent, [describe(ring[0])], 1)["captions that parse"] == 0.0


@pytest.mark.parametrize(("shift", "right"), [(0, 1.0), (1, 0.0)])
def test_matching_counts_the_own_caption_only(shift, right):
    shown = examples("test", 20, 4)

    def invoke(inputs, seeds):
        vectors = np.eye(len(shown))[list(seeds)]
        return list(np.roll(vectors, shift, 1) if isinstance(inputs[0], str) else vectors)

    rates = pocket_scores.score_matching(SimpleNamespace(invoke=invoke), shown)
    assert rates == {"caption of a picture, top 1": right, "picture of a caption, top 1": right}


def test_the_right_one_is_found_among_a_hundred():
    """Vectors that tell a hundred pairs apart, and no more."""
    shown = examples("test", 150, 4)
    model = SimpleNamespace(invoke=lambda inputs, seeds: list(np.eye(100)[np.array(seeds) % 100]))
    assert set(pocket_scores.score_matching(model, shown).values()) == {1.0}


def test_a_folder_of_the_family_holds_models_or_adapters_beside_their_model(tmp_path):
    """What is in the package, and what a training writes."""
    base = tiny.build_blip(tmp_path / "PocketCaptioner")
    settings = small.config(
        "captioning",
        tmp_path,
        output=str(tmp_path / "trained" / "PocketCaptioner-B"),
        model={"base": str(base)},
        image_size=32,
        lora={"rank": 2},
        steps=2,
        learning_rate=0.1,
        ema=0.0,
    )
    small.fit(settings)
    assert pocket_release.copy(tmp_path / "trained", tmp_path) == ["PocketCaptioner-B"]
    picture = np.random.default_rng(0).integers(0, 256, (1, 4, 4, 3), dtype=np.uint8)
    told = {
        folder / name: pocket_scores.tell(pocket_scores.load(folder, name), picture)
        for folder, name in [
            (tmp_path, "PocketCaptioner"),
            (tmp_path, "PocketCaptioner-B"),
            (tmp_path / "trained", "PocketCaptioner-B"),
        ]
    }
    plain, added, whole = told.values()
    assert plain != added == whole


def test_the_weights_in_the_package_are_within_the_budget():
    assert 0 < pocket_release.size_bytes() <= pocket_release.BUDGET_BYTES


def test_a_card_tells_scores_speed_and_config():
    scores = {
        "scenes": 1000,
        "telling": {"exact": 0.951},
        "telling_s_per_picture": 0.0042,
        "threads": 2,
    }
    text = pocket_release.card("PocketCaptioner", scores, "24,000 steps")
    for told in (
        "0.004 s per picture in batches of 16 on a CPU with 2 threads (meant to be at most 0.05 s)",
        "pocket-captioner-3.yaml; 24,000 steps",
        "1,000 scenes",
    ):
        assert told in text
    assert "| exact | 95.1 % | 95% |" in text


def test_a_card_keeps_its_note_until_it_gets_another(tmp_path):
    (tmp_path / "PocketCaptioner").mkdir()
    scores = {"scenes": 9, "telling": {"exact": 0.9}, "telling_s_per_picture": 0.1, "threads": 2}
    text = pocket_release.card("PocketCaptioner", scores, "24,000 steps (in two pieces)")
    (tmp_path / "PocketCaptioner" / "README.md").write_text(text)
    assert pocket_release.old_notes(tmp_path) == {"PocketCaptioner": "24,000 steps (in two pieces)"}
