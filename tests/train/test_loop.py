"""The training loop: what may interrupt or cut it changes nothing; averages are what the formula says."""

from __future__ import annotations

import json
import signal

import numpy as np
import pytest
import torch

from panic.errors import ConflictError, Interrupted, PanicError, UsageError
from panic.train import loop
from panic.train.data import TrainingItem
from panic.train.loop import TrainingFailed, rate
from tests.train import small


class Points:
    """A data set of black pictures."""

    labels, digest = (), "points"

    def training(self, seed, step, size, positions):
        return [TrainingItem(image=np.zeros((2, 2, 3), np.uint8), texts=("",))] * len(positions)

    def validation(self, n):
        return self.training(0, 0, n, range(n))


class Downhill(torch.nn.Module):
    """One weight whose loss falls by 1 for each 1 that it falls: AdamW moves it by the learning rate."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen, self.sampled, self.saved = [], [], None

    def forward(self, batch):
        self.seen.append(batch.step)
        return self.weight.expand(len(batch))

    def samples(self, items, first=0):
        self.sampled.append(self.weight.item())

    def measures(self, items):
        return {}

    def save(self, folder):
        self.saved = self.weight.item()


RATE = 2.0**-10


def downhill(tmp_path, **changes):
    plain = {"learning_rate": RATE, "decay": 0.0, "weight_decay": 0.0, "evaluate_every": 100}
    return small.config("autoencoder", tmp_path, **(plain | changes))


def average_of(num_steps: int, decay: float) -> float:
    """The average of weights -RATE, -2 RATE, ..., with the decay rising as (1 + t) / (10 + t)."""
    average = 0.0
    for t in range(num_steps):
        kept = min((1 + t) / (10 + t), decay) if t else 0.0
        average = kept * average - (1 - kept) * RATE * (t + 1)
    return average


@pytest.mark.parametrize("decay", [0.999, 0.15])
def test_average_is_the_formula_s(tmp_path, decay):
    settings, task = downhill(tmp_path, steps=20, ema=decay), Downhill()
    loop.fit(task, Points(), settings)
    state = small.newest(settings)
    assert state["weights"]["weight"].item() == pytest.approx(-20 * RATE, rel=1e-5)
    assert state["ema"]["shadow_params"][0].item() == pytest.approx(average_of(20, decay), rel=1e-5)
    assert task.saved == task.sampled[-1] == state["ema"]["shadow_params"][0].item()


def test_evaluation_leaves_the_trained_weights(tmp_path):
    settings, task = downhill(tmp_path, steps=20, evaluate_every=1), Downhill()
    loop.fit(task, Points(), settings)
    assert task.weight.item() == pytest.approx(-20 * RATE, rel=1e-5)
    assert task.training


def test_an_evaluation_that_fails_leaves_the_trained_weights(tmp_path):
    settings, task = downhill(tmp_path, steps=20, evaluate_every=12), Downhill()

    def samples(items, first=0):
        raise RuntimeError("no picture")

    task.samples = samples
    with pytest.raises(RuntimeError, match="no picture"):
        loop.fit(task, Points(), settings)
    assert task.weight.item() == pytest.approx(-12 * RATE, rel=1e-5)
    assert task.training


def test_the_best_evaluation_is_kept_and_can_be_exported(tmp_path):
    settings, task = downhill(tmp_path, steps=9, evaluate_every=3, keep_last=1, export="best"), Downhill()
    forward, seen = task.forward, []

    def worse_after_six(batch):
        losses = forward(batch)
        if task.training:
            return losses
        seen.append(0)
        return losses + (10 if len(seen) > 2 * (64 // 4) else 0)

    task.forward = worse_after_six
    loop.fit(task, Points(), settings)
    folder = small.folder_of(settings)
    assert sorted(path.name for path in folder.glob("*.pt")) == ["best.pt", "step-00000009.pt"]
    assert json.loads((folder / "best.json").read_text())["step"] == 6
    assert task.saved == pytest.approx(average_of(6, 0.999), rel=1e-5)


def test_keeps_the_last_checkpoints(tmp_path):
    settings = downhill(tmp_path, steps=7, keep_last=3)
    loop.fit(Downhill(), Points(), settings)
    kept = sorted(path.name for path in small.folder_of(settings).glob("step-*.pt"))
    assert kept == ["step-00000005.pt", "step-00000006.pt", "step-00000007.pt"]


@pytest.mark.parametrize("often", [{"evaluate_every": 100}, {"log_every": 100, "evaluate_every": 2}])
@pytest.mark.parametrize("is_there_another", [False, True])
def test_a_folder_that_goes_is_told_before_anything_is_written_there(tmp_path, often, is_there_another):
    settings = downhill(tmp_path, steps=4, checkpoint_minutes=100.0, **often)
    folder = small.folder_of(settings)

    class Moved(Downhill):
        def forward(self, batch):
            if batch.step == 1:
                folder.rename(tmp_path / "away")
                if is_there_another:
                    folder.mkdir()
                    (folder / "recipe.json").write_text("{}")
            return super().forward(batch)

    with pytest.raises(PanicError, match="was removed or replaced during the training"):
        loop.fit(Moved(), Points(), settings)
    assert [path.name for path in tmp_path.glob("*.training/*")] == ["recipe.json"] * is_there_another


def test_minutes_end_a_training_that_goes_on_later(tmp_path):
    steps = [loop.fit(Downhill(), Points(), downhill(tmp_path, steps=3, minutes=1e-9)) for _ in range(3)]
    assert steps == [1, 2, 3]
    assert small.newest(downhill(tmp_path))["step"] == 3


@pytest.mark.parametrize(
    ("task", "changes"),
    [
        # Statistics of batch normalisation are buffers.
        ("autoencoder", {"precision": "bf16"}),
        # Dropout draws from torch's own generator.
        (
            "captioning",
            {
                "model": small.MODELS["captioning"]
                | {"text": small.TRANSFORMER | {"hidden_dropout_prob": 0.3}},
                "accumulate": 2,
                "spoil": 0.5,
                "forget_words": 0.5,
            },
        ),
        pytest.param(
            "diffusion",
            {"precision": "bf16", "evaluate_every": 3, "sample_steps": 1},
            marks=pytest.mark.slow,
        ),
    ],
)
def test_killed_and_resumed_equals_uninterrupted(tmp_path, task, changes):
    whole = small.config(task, tmp_path, **changes)
    pieces = small.config(task, tmp_path, output=str(tmp_path / "pieces"), **changes)
    small.fit(whole)
    for step in (2, 4):
        with pytest.raises(KeyboardInterrupt):
            small.fit(pieces, killed_at=step)
    small.fit(pieces)
    a, b = small.newest(whole), small.newest(pieces)
    assert a["step"] == b["step"] == 6
    for part in ("weights", "buffers"):
        assert all(torch.equal(a[part][name], b[part][name]) for name in a[part] | b[part]), part
    assert all(torch.equal(x, small.averages(b)[name]) for name, x in small.averages(a).items())
    assert small.rows(whole, "loss") == small.rows(pieces, "loss")
    assert [int(row["step"]) for row in small.rows(pieces, "profile")] == [1, 2, 3, 4, 5, 6]


@pytest.mark.slow
def test_accumulated_gradients_equal_the_large_batch(tmp_path):
    large = small.config("diffusion", tmp_path, batch_size=8, steps=4, evaluate_every=100)
    parts = small.config(
        "diffusion",
        tmp_path,
        batch_size=8,
        steps=4,
        evaluate_every=100,
        accumulate=4,
        output=str(tmp_path / "p"),
    )
    small.fit(large)
    small.fit(parts)
    assert_close(small.newest(large), small.newest(parts))
    assert small.losses(parts) == pytest.approx(small.losses(large), rel=1e-4)  # AdamW hides a factor


def assert_close(a, b):
    """Equal weights, but for rounding: AdamW makes steps of it where a gradient is 0 (a bias of keys)."""
    for name, weight in a["weights"].items():
        if not name.endswith("k_proj.bias"):
            torch.testing.assert_close(weight, b["weights"][name], rtol=1e-3, atol=2e-5, msg=name)


def test_another_recipe_is_refused(tmp_path):
    loop.fit(Downhill(), Points(), downhill(tmp_path, steps=1))
    with pytest.raises(ConflictError, match=r"clip: the default then, 2\.0 now"):
        loop.fit(Downhill(), Points(), downhill(tmp_path, clip=2.0))


def test_other_data_are_refused(tmp_path):
    settings = small.config("autoencoder", tmp_path, steps=1)
    small.fit(settings)
    small.pictures(tmp_path / "pictures", each=5)
    with pytest.raises(ConflictError, match="data_digest"):
        small.fit(settings)


def test_a_loss_that_is_not_a_number_ends_the_training_with_advice(tmp_path):
    task = Downhill()
    task.forward = lambda batch: task.weight.expand(len(batch)) / (0.0 if batch.step == 2 else 1.0)
    settings = downhill(tmp_path)
    with pytest.raises(TrainingFailed, match="loss of step 3 is not a number"):
        loop.fit(task, Points(), settings)
    assert small.newest(settings)["step"] == 2


def test_a_compiler_that_a_signal_ended_is_an_interruption(tmp_path):
    """Ctrl-C reaches the compilers that torch started, and torch raises an InductorError."""
    task = Downhill()
    is_asked = True

    def forward(batch):
        if batch.step == 2:
            if is_asked:
                signal.raise_signal(signal.SIGINT)
            raise RuntimeError("CppCompileError")
        return task.weight.expand(len(batch))

    task.forward = forward
    with pytest.raises(Interrupted, match="in the middle of a step"):
        loop.fit(task, Points(), downhill(tmp_path))
    is_asked = False
    with pytest.raises(RuntimeError, match="CppCompileError"):
        loop.fit(task, Points(), downhill(tmp_path))


def test_fp16_without_a_gpu_is_told(tmp_path):
    with pytest.raises(UsageError, match="precision: fp16"):
        loop.fit(Downhill(), Points(), downhill(tmp_path, precision="fp16"))
    loop.fit(Downhill(), Points(), downhill(tmp_path))  # and the process is none the worse for it


def test_learning_rate_rises_stays_and_falls(tmp_path):
    settings = downhill(tmp_path, steps=100, learning_rate=1.0, warmup=10, decay=0.2)
    rates = [rate(step, settings) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[10:80] == [1.0] * 70
    assert rates[99] == pytest.approx(0.05)
