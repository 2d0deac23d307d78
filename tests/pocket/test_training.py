"""The training loop and the parts of the pocket pair, at the tiny size."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import torch

from panic.train import pocket_pair, pocket_scores
from panic.train.loop import Settings, fit, rate
from panic.train.pocket_export import export_captioner, export_diffusion
from panic.train.pocket_models import tokenizer


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("text", ["", "a horse riding an astronaut", "日本語 ß 🎈", "\x00\n\t", "x" * 500])
def test_any_text_tokenises_and_comes_back(text):
    tokens = tokenizer()
    ids = tokens(text, truncation=True, padding="max_length").input_ids
    assert len(ids) == tokens.model_max_length
    assert tokens.decode(tokens(text).input_ids, skip_special_tokens=True).strip() == text.lower().strip()


def test_a_word_of_the_world_is_one_token():
    tokens = tokenizer()
    caption = "a small red circle above a large blue square on a checkered green background"
    assert len(tokens.tokenize(caption)) == len(caption.split())


@pytest.mark.parametrize("name", ["diffusion", "decoder", "captioner"])
def test_loss_falls_on_a_tiny_set(name, tmp_path):
    part = pocket_pair.PARTS[name]("tiny", 8, 0)
    before = part.loss(0).item()
    settings = Settings(steps=25, learning_rate=3e-3, warmup=2)
    fit(part.module, lambda step: part.loss(step % 2), settings, tmp_path)
    assert part.loss(0).item() < 0.9 * before


def test_killed_and_resumed_equals_uninterrupted(tmp_path):
    settings = Settings(steps=8, warmup=2, checkpoint_every_s=0)  # a checkpoint after every step

    def train(folder, killed_at=None):
        part = pocket_pair.diffusion("tiny", 4, 0)

        def loss(step):
            if step == killed_at:
                raise KeyboardInterrupt
            return part.loss(step)

        return fit(part.module, loss, settings, folder)

    whole = train(tmp_path / "whole")
    for step in (3, 6):
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / "pieces", killed_at=step)
    pieces = train(tmp_path / "pieces")
    assert whole.keys() == pieces.keys()
    assert all(torch.equal(whole[name], pieces[name]) for name in whole)


def test_resuming_continues_from_the_checkpoint(tmp_path):
    steps = []
    part = pocket_pair.diffusion("tiny", 4, 0)
    settings = Settings(steps=6, warmup=0, log_every=1)

    def loss(step):
        steps.append(step)
        return part.loss(step)

    fit(part.module, part.loss, Settings(steps=4, warmup=0, log_every=1), tmp_path)
    fit(part.module, loss, settings, tmp_path)
    assert steps == [4, 5]
    with (tmp_path / "loss.csv").open() as file:
        assert [int(row["step"]) for row in csv.DictReader(file)] == [1, 2, 3, 4, 5, 6]


def test_the_average_is_not_the_last_step(tmp_path):
    part = pocket_pair.diffusion("tiny", 4, 0)
    average = fit(part.module, part.loss, Settings(steps=5, warmup=0), tmp_path)
    weights = part.module.state_dict()
    assert any(not torch.equal(average[name], weights[name]) for name in average)


def test_learning_rate_rises_stays_and_falls():
    settings = Settings(steps=100, learning_rate=1.0, warmup=10, decay=0.2)
    rates = [rate(step, settings) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[10:80] == [1.0] * 70
    assert rates[99] == pytest.approx(0.05)
    assert np.all(np.diff(rates[80:]) <= 0)


def test_exported_models_load_through_the_standard_classes(tmp_path):
    for name, make in pocket_pair.PARTS.items():
        part = make("tiny", 4, 0)
        fit(part.module, part.loss, Settings(steps=1, warmup=0), tmp_path / name)
    export_diffusion(tmp_path, tmp_path / "weights", "tiny")
    export_captioner(tmp_path, tmp_path / "weights", "tiny")
    pipeline, model, processor = pocket_scores.load(tmp_path / "weights")
    assert pipeline.unet.dtype == pipeline.text_encoder.dtype == model.dtype == torch.float32
    pictures = pocket_scores.draw(pipeline, ["a red circle", "ü" * 200], steps=2)
    assert pictures.shape == (2, 64, 64, 3)
    assert len(pocket_scores.tell(model, processor, pictures)) == 2
    assert "1 step" in (tmp_path / "weights" / "PocketDiffusion" / "README.md").read_text()
