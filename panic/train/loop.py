"""A training loop that can be killed: AdamW, warm-up and decay, accumulation, clipping, EMA, exact resume.

`fit` knows nothing of what it trains: a task is a module that returns the loss of each item of a batch. All
randomness comes from the step (panic.train.batches), so a checkpoint needs no random state and a resumed
training gives the same weights as an uninterrupted one.

One process, or several under `accelerate launch -m panic.train CONFIG`: every one takes its share of each
batch, gradients are averaged.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from torch import Tensor

from panic.errors import Interrupted, PanicError
from panic.interrupts import stop_on_signals
from panic.train.batches import Batch
from panic.train.checkpoints import Checkpoints
from panic.train.config import Training
from panic.train.data import DataSet, Item
from panic.train.journal import Journal, Profile

NUM_SHOWN = 16  # validation items of an evaluation's samples
NUM_JUDGED = 64  # validation items of its loss


class TrainingFailed(PanicError):
    """A training cannot go on; its last checkpoint is as it was."""


class Task(Protocol):
    """What is trained. A task is an nn.Module; `__call__(batch)` gives the items' losses (n,)."""

    def __call__(self, batch: Batch) -> Tensor: ...

    def samples(self, items: list[Item]) -> Any:
        """Something to look at: a PIL image, or a text."""
        ...

    def measures(self, items: list[Item]) -> Mapping[str, float]:
        """Further figures of an evaluation."""
        ...

    def save(self, folder: Path) -> None:
        """Write the model in the layout of its library."""
        ...

    def compile_parts(self, mode: str) -> None:
        """Compile what takes the time."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Where a training is, for whoever shows it."""

    step: int
    steps: int
    loss: float
    seconds_per_step: float


def rate(step: int, config: Training) -> float:
    """The learning rate of a step: rises over `warmup` steps, falls to 5 % over the last `decay` share."""
    rise = min(1.0, (step + 1) / config.warmup) if config.warmup else 1.0
    left = (config.steps - step) / max(1.0, config.decay * config.steps)
    return config.learning_rate * rise * max(0.05, min(1.0, left))


def fit(
    task: Any, data: DataSet, config: Training, *, show: Callable[[Progress], None] = lambda progress: None
) -> None:
    """Train up to `config.steps` (or for `config.minutes`), from the last checkpoint if there is one.

    Writes the model with averaged weights to `config.output`, everything else beside it to
    `<output>.training`. A signal ends it after the step in flight, with a checkpoint.

    Raises Interrupted after a signal; TrainingFailed where the loss is not a number; ConflictError where the
    checkpoints are of another recipe.
    """
    accelerator = Accelerator(mixed_precision=config.precision)
    folder = Path(f"{config.output}.training")
    checkpoints = Checkpoints(folder, config)
    trained = _Trained(task, config, accelerator)
    journal, profile = Journal(folder, accelerator.is_main_process), Profile(accelerator.device)
    step = trained.restore(checkpoints.latest())
    journal.forget_after(step)
    if config.compile != "no":
        task.compile_parts(config.compile)
    started = saved_at = time.monotonic()
    recent: list[float] = []
    with stop_on_signals() as stopping:
        while step < config.steps and not stopping():
            if config.minutes and time.monotonic() - started > config.minutes * 60:
                break
            recent.append(trained.step(data, step, profile))
            step += 1
            if not math.isfinite(recent[-1]):
                raise TrainingFailed(
                    f"the loss of step {step} is not a number",
                    hint="Try a lower learning_rate, or precision: no. The last checkpoint is untouched.",
                )
            if step % config.log_every == 0:
                loss = sum(recent) / len(recent)
                journal.loss(step, loss, rate(step - 1, config))
                journal.profile(step, profile)
                show(Progress(step=step, steps=config.steps, loss=loss, seconds_per_step=profile.per_step()))
                profile.restart()
                recent = []
            if step % config.evaluate_every == 0 or step == config.steps:
                with profile.part("evaluate"):
                    score = trained.evaluate(data, step, journal)
                checkpoints.save(trained.state(step), step, score, accelerator.is_main_process)
                saved_at = time.monotonic()
            elif time.monotonic() - saved_at > config.checkpoint_minutes * 60:
                with profile.part("save"):
                    checkpoints.save(trained.state(step), step, None, accelerator.is_main_process)
                saved_at = time.monotonic()
        checkpoints.save(trained.state(step), step, None, accelerator.is_main_process)
        if accelerator.is_main_process:
            with trained.averaged():
                task.save(Path(config.output))
        stopped = stopping()
    accelerator.end_training()
    if stopped:
        raise Interrupted(
            f"stopped after step {step} of {config.steps}", hint="The same command goes on from there."
        )


class _Trained:
    """A task with its optimiser and its averaged weights."""

    def __init__(self, task: Any, config: Training, accelerator: Accelerator) -> None:
        from diffusers.training_utils import EMAModel

        self.task, self.config, self.accelerator = task, config, accelerator
        self.task.to(accelerator.device)
        self.names, self.parameters = zip(
            *((name, p) for name, p in task.named_parameters() if p.requires_grad), strict=True
        )
        fused = accelerator.device.type == "cuda"
        optimiser = torch.optim.AdamW(
            self.parameters,
            config.learning_rate,
            betas=(0.9, 0.98),
            weight_decay=config.weight_decay,
            fused=fused,
        )
        self.model, self.optimiser = accelerator.prepare(task, optimiser)
        self.average = EMAModel(self.parameters, decay=config.ema)

    def step(self, data: DataSet, step: int, profile: Profile) -> float:
        """One step of the optimiser; returns the mean loss of this process's items."""
        config, accelerator = self.config, self.accelerator
        total = 0.0
        for part in range(config.accumulate):
            with profile.part("data"):
                batch = self._share(data, step, part)
            last = part == config.accumulate - 1
            with nullcontext() if last else accelerator.no_sync(self.model):
                with profile.part("forward"), accelerator.autocast():
                    loss = self.model(batch).mean() / config.accumulate
                with profile.part("backward"):
                    accelerator.backward(loss)
            total += loss.item()
        with profile.part("optimise"):
            accelerator.clip_grad_norm_(self.parameters, config.clip)
            for group in self.optimiser.param_groups:
                group["lr"] = rate(step, config)
            self.optimiser.step()
            self.optimiser.zero_grad(set_to_none=True)
            self.average.step(self.parameters)
        profile.count()
        return total

    def _share(self, data: DataSet, step: int, part: int) -> Batch:
        """This process's items of one part of a step's batch."""
        size, processes = self.config.batch_size, self.accelerator.num_processes
        share = size // (self.config.accumulate * processes)
        if share * self.config.accumulate * processes != size:
            raise TrainingFailed(
                f"batch_size {size} cannot be shared by {processes} x {self.config.accumulate} parts"
            )
        first = (part * processes + self.accelerator.process_index) * share
        positions = range(first, first + share)
        items = data.training(self.config.seed, step, size, positions)
        return Batch(items, positions, size, self.config.seed, step)

    @torch.no_grad()
    def evaluate(self, data: DataSet, step: int, journal: Journal) -> float:
        """The loss of the averaged weights on validation items, with samples to look at."""
        items = data.validation(NUM_JUDGED)
        size = min(self.config.batch_size, len(items))
        losses = []
        with self.averaged():
            for first in range(0, len(items) - size + 1, size):
                batch = Batch(items[first : first + size], range(size), size, self.config.seed, -1 % 2**31)
                losses.append(self.task(batch).mean().item())
            score = sum(losses) / len(losses)
            if self.accelerator.is_main_process:
                measures = {"loss": score, **self.task.measures(items)}
                journal.evaluation(step, measures, self.task.samples(items[:NUM_SHOWN]))
        return float(score)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """The task with averaged weights; the trained ones come back afterwards."""
        training = self.task.training
        self.average.store(self.parameters)
        self.average.copy_to(self.parameters)
        self.task.eval()
        try:
            yield
        finally:
            self.average.restore(self.parameters)
            self.task.train(training)

    def state(self, step: int) -> dict[str, Any]:
        """Everything that a resumed training needs; frozen weights are not in it."""
        buffers = {name: value for name, value in self.task.named_buffers() if name in self.task.state_dict()}
        return {
            "step": step,
            "weights": dict(zip(self.names, self.parameters, strict=True)),
            "buffers": buffers,
            "ema": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
        }

    def restore(self, saved: dict[str, Any] | None) -> int:
        """Put a checkpoint's state in place and return its step; 0 where there is none."""
        if saved is None:
            return 0
        self.task.load_state_dict(saved["weights"] | saved["buffers"], strict=False)
        self.average.load_state_dict(saved["ema"])
        self.average.to(self.accelerator.device)
        self.optimiser.load_state_dict(saved["optimiser"])
        return int(saved["step"])
