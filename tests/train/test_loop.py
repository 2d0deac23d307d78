"""The training loop: what may interrupt or cut it changes nothing."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch

from panic.errors import ConflictError
from panic.pocket import folder
from panic.train.checkpoints import read
from panic.train.config import ContrastiveTraining
from panic.train.data import World
from panic.train.loop import TrainingFailed, fit, rate
from panic.train.tasks import build

SMALL = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "num_hidden_layers": 1}


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def config(tmp_path, **changes):
    values = {
        "task": "contrastive",
        "output": str(tmp_path / "model"),
        "data": {"dataset": "pocket-world"},
        "model": {
            "vision": SMALL | {"patch_size": 16},
            "text": SMALL,
            "projection": 8,
            "tokenizer": str(folder("PocketDiffusion") / "tokenizer"),
        },
        "steps": 6,
        "batch_size": 4,
        "warmup": 2,
        "log_every": 1,
        "checkpoint_minutes": 0.0,
    }
    return ContrastiveTraining.model_validate(values | changes)


def perform(settings, killed_at=None, seen=None):
    data = World()
    task = build(settings, data)
    forward, calls = task.forward, [0]

    def stumble(batch):
        if seen is not None:
            seen.append(batch.step)
        if batch.step == killed_at:
            raise KeyboardInterrupt
        calls[0] += 1
        return forward(batch)

    task.forward = stumble
    fit(task, data, settings)


def newest(settings):
    return read(sorted(settings_folder(settings).glob("step-*.pt"))[-1])


def settings_folder(settings):
    return Path(f"{settings.output}.training")


def test_killed_and_resumed_equals_uninterrupted(tmp_path):
    whole, pieces = config(tmp_path / "whole"), config(tmp_path / "pieces")
    perform(whole)
    for step in (2, 4):
        with pytest.raises(KeyboardInterrupt):
            perform(pieces, killed_at=step)
    seen = []
    perform(pieces, seen=seen)
    assert min(step for step in seen if step < 100) > 0  # it did not begin anew
    a, b = newest(whole), newest(pieces)
    assert a["step"] == b["step"] == 6
    assert all(torch.equal(a["weights"][name], b["weights"][name]) for name in a["weights"])
    shadows = zip(a["ema"]["shadow_params"], b["ema"]["shadow_params"], strict=True)
    assert all(torch.equal(x, y) for x, y in shadows)
    for settings in (whole, pieces):
        with (settings_folder(settings) / "loss.csv").open() as file:
            assert [int(row["step"]) for row in csv.DictReader(file)] == [1, 2, 3, 4, 5, 6]


def test_another_recipe_is_refused(tmp_path):
    perform(config(tmp_path, steps=1))
    with pytest.raises(ConflictError, match=r"learning_rate: 0\.0005 then, 0\.1 now"):
        perform(config(tmp_path, learning_rate=0.1))


def test_the_average_is_not_the_last_step(tmp_path):
    settings = config(tmp_path)
    perform(settings)
    state = newest(settings)
    pairs = zip(state["weights"].values(), state["ema"]["shadow_params"], strict=True)
    assert any(not torch.equal(a, b) for a, b in pairs)


def test_a_loss_that_is_not_a_number_ends_the_training_with_advice(tmp_path):
    settings = config(tmp_path)
    data = World()
    task = build(settings, data)
    task.forward = lambda batch: torch.full((len(batch),), float("nan"), requires_grad=True)
    with pytest.raises(TrainingFailed, match="loss of step 1 is not a number"):
        fit(task, data, settings)


def test_learning_rate_rises_stays_and_falls(tmp_path):
    settings = config(tmp_path, steps=100, learning_rate=1.0, warmup=10, decay=0.2)
    rates = [rate(step, settings) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[10:80] == [1.0] * 70
    assert rates[99] == pytest.approx(0.05)
