"""A training loop that can be killed: AdamW, warm-up and decay, accumulation, clipping, EMA, exact resume.

`fit` knows nothing of what it trains: a task is a module that returns the loss of each item of a batch. All
randomness comes from the step (panic.train.batches), so a checkpoint needs no random state and a resumed
training gives the same weights as an uninterrupted one.

One process, or several under `accelerate launch -m panic.train CONFIG` or `torchrun -m panic.train CONFIG`:
every one takes its share of each batch, gradients are averaged, every one makes its share of the samples that
are looked at; the main one evaluates all else and writes while the others wait.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs
from accelerate.state import AcceleratorState
from accelerate.utils import gather_object
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from panic.errors import Interrupted, PanicError, UsageError
from panic.interrupts import stop_on_signals
from panic.train.batches import Batch
from panic.train.checkpoints import Checkpoints
from panic.train.config import Training, recipe
from panic.train.data import DataSet, TrainingItem
from panic.train.image_tensors import joined
from panic.train.journal import Journal, Profile

NUM_SHOWN = 16  # validation items of an evaluation's samples
NUM_JUDGED = 64  # validation items of its loss
SMALL_PARAMETERS = 50_000_000
PATIENCE = timedelta(hours=2)  # of processes that wait while the main one evaluates


class TrainingFailed(PanicError):
    """A training cannot go on; its last checkpoint is as it was."""


class Task(Protocol):
    """What is trained. A task is an nn.Module; `__call__(batch)` gives the items' losses (n,).

    Several processes call it for training only: it must not wait for others while it is in eval mode.
    """

    def __call__(self, batch: Batch) -> Tensor: ...

    def samples(self, items: list[TrainingItem], first: int = 0) -> Any:
        """Make something to look at: a PIL image whose columns are the items, a text, or None.

        first: the place of the first item among those of all processes.
        """
        ...

    def measures(self, items: list[TrainingItem]) -> Mapping[str, float]:
        """Measure what an evaluation tells besides the loss."""
        ...

    def save(self, folder: Path) -> None:
        """Write the model in the layout of its library."""
        ...

    def compile_parts(self, mode: str) -> None:
        """Compile what takes the time."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingProgress:
    """Where a training is, for whoever shows or keeps it.

    It is told before the first step and after the last one, with neither a loss nor measures; every
    `log_every` steps with the mean loss since; after an evaluation with its measures, once its checkpoint is
    written. is_saved: the model of this step lies in `output` now.
    """

    step: int
    steps: int
    loss: float | None = None
    measures: Mapping[str, float] | None = None
    seconds_per_step: float = 0.0
    is_saved: bool = False


def rate(step: int, config: Training) -> float:
    """The learning rate of a step: rises over `warmup` steps, falls to 5 % over the last `decay` share."""
    rise = min(1.0, (step + 1) / config.warmup) if config.warmup else 1.0
    left = (config.steps - step) / max(1.0, config.decay * config.steps)
    return config.learning_rate * rise * max(0.05, min(1.0, left))


def fit(
    task: Any,
    data: DataSet,
    config: Training,
    *,
    show: Callable[[TrainingProgress], None] = lambda progress: None,
) -> int:
    """Train up to `config.steps` (or for `config.minutes`), from the last checkpoint if there is one.

    Writes the model with averaged weights to `config.output`, everything else beside it to
    `<output>.training`. A signal ends it after the step in flight, with a checkpoint. Returns the number of
    steps that the model has been trained for.

    Raises UsageError for what cannot be done on this machine, ConflictError where the checkpoints are of
    another recipe, TrainingFailed where the loss is not a number, Interrupted after a signal.
    """
    with _accelerator(config) as accelerator:
        return _fit(task, data, config, accelerator, show)


@contextmanager
def _accelerator(config: Training) -> Iterator[Accelerator]:
    """Devices and processes of one training; afterwards the next may have another precision.

    Raises UsageError for a precision that this device lacks.
    """
    handlers = [
        # A base may have parts that its task does not use.
        DistributedDataParallelKwargs(find_unused_parameters=True),
        InitProcessGroupKwargs(timeout=PATIENCE),
    ]
    try:
        try:
            accelerator = Accelerator(mixed_precision=config.precision, kwargs_handlers=handlers)
        except ValueError as error:
            raise UsageError(f"precision: {error}") from error
        if config.precision != "no" and not accelerator.native_amp:  # on a CPU fp16 is silently left out
            raise UsageError(f"precision: {config.precision} does not work on {accelerator.device.type}")
        yield accelerator
        accelerator.end_training()
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)


def _fit(
    task: Any,
    data: DataSet,
    config: Training,
    accelerator: Accelerator,
    show: Callable[[TrainingProgress], None],
) -> int:
    folder, is_main = Path(f"{config.output}.training"), accelerator.is_main_process
    described = recipe(config) | {"data_digest": data.digest}
    if config.lora:  # adapters are worth nothing on other weights than theirs
        described["frozen_digest"] = _frozen_digest(task)
    with accelerator.main_process_first():
        checkpoints = Checkpoints(folder, described, keep_last=config.keep_last, is_writer=is_main)
    trained = _Trained(task, data, config, accelerator)
    journal, profile = Journal(folder, is_main), Profile(accelerator.device)
    step = saved_step = trained.restore(checkpoints.latest())
    journal.forget_after(step)
    show(TrainingProgress(step=step, steps=config.steps))
    if config.compile != "no":
        task.compile_parts(config.compile)
    started = saved_at = time.monotonic()
    recent: list[float] = []
    is_stopped = is_late = False
    with stop_on_signals() as stopping, _as_interruption(stopping), trained:
        while step < config.steps and not (is_stopped or is_late):
            loss = trained.step(step, profile)
            step += 1
            late = config.minutes is not None and time.monotonic() - started > config.minutes * 60
            loss, is_stopped, is_late = trained.agree(loss, stopping(), late)
            if not math.isfinite(loss):
                raise TrainingFailed(
                    f"the loss of step {step} is not a number",
                    hint="Try a lower learning_rate, or precision: no. The last checkpoint is untouched.",
                )
            recent.append(loss)
            is_due = step % config.evaluate_every == 0 or step == config.steps
            if step % config.log_every == 0 or is_due:
                checkpoints.require_in_place()  # the journal's files lie beside them
            if step % config.log_every == 0:
                loss = sum(recent) / len(recent)
                journal.loss(step, loss, rate(step - 1, config))
                journal.profile(step, profile)
                show(
                    TrainingProgress(
                        step=step, steps=config.steps, loss=loss, seconds_per_step=profile.per_step()
                    )
                )
                profile.restart()
                recent = []
            measures: Mapping[str, float] | None = None
            if is_due:
                with profile.part("evaluate"):
                    measures = trained.evaluate(step, journal)
                    accelerator.wait_for_everyone()
            if is_due or time.monotonic() - saved_at > config.checkpoint_minutes * 60:
                with profile.part("save"):
                    checkpoints.save(trained.state(step), step, measures["loss"] if measures else None)
                saved_step, saved_at = step, time.monotonic()
            if measures:
                show(TrainingProgress(step=step, steps=config.steps, measures=measures))
        if step != saved_step:
            checkpoints.save(trained.state(step), step)
        show(TrainingProgress(step=step, steps=config.steps))
        if is_main:
            if config.export == "best":
                trained.restore(checkpoints.best())
            with trained.averaged():
                task.save(Path(config.output))
            show(TrainingProgress(step=step, steps=config.steps, is_saved=True))
        is_stopped = is_stopped or stopping()
    if is_stopped and step < config.steps:
        raise Interrupted(
            f"stopped after step {step} of {config.steps}", hint="The same command goes on from there."
        )
    return step


@contextmanager
def _as_interruption(stopping: Callable[[], bool]) -> Iterator[None]:
    """Take an error after a signal for its consequence: Ctrl-C ends compilers, too, which torch misses."""
    try:
        yield
    except PanicError:
        raise
    except Exception as error:
        if not stopping():
            raise
        raise Interrupted(
            f"stopped in the middle of a step ({type(error).__name__})",
            hint="The same command goes on from the last checkpoint.",
        ) from error


def _frozen_digest(task: torch.nn.Module) -> str:
    """SHA-256 over the weights that training leaves as they are."""
    digest = hashlib.sha256()
    for name, weight in task.named_parameters():
        if not weight.requires_grad:
            digest.update(name.encode())
            digest.update(weight.detach().cpu().float().numpy().tobytes())
    return digest.hexdigest()


class _Trained:
    """A task with its data, its optimiser and its averaged weights.

    As a context it fetches the next items in a thread while the present ones are trained on.
    """

    def __init__(self, task: Any, data: DataSet, config: Training, accelerator: Accelerator) -> None:
        from diffusers.training_utils import EMAModel

        self.task, self.data, self.config, self.accelerator = task, data, config, accelerator
        num_shares = config.accumulate * accelerator.num_processes
        if config.batch_size % num_shares:
            raise UsageError(
                f"batch_size {config.batch_size} cannot be shared by {accelerator.num_processes} processes "
                f"with accumulate {config.accumulate}",
                hint=f"Take a multiple of {num_shares}.",
            )
        self.share = config.batch_size // num_shares
        self.task.to(accelerator.device).train()
        self.names, self.parameters = zip(
            *((name, p) for name, p in task.named_parameters() if p.requires_grad), strict=True
        )
        optimiser = torch.optim.AdamW(
            self.parameters,
            config.learning_rate,
            betas=(0.9, 0.98),
            weight_decay=config.weight_decay,
            fused=accelerator.device.type in ("cpu", "cuda"),
        )
        self.model, self.optimiser = accelerator.prepare(task, optimiser)
        self.average = EMAModel(self.parameters, decay=config.ema, foreach=True)
        # The backward pass of the fused attention takes half of a small UNet's whole step on a CPU: LOG.md.
        # In a large model the plain one would fill the memory.
        is_small = sum(p.numel() for p in self.parameters) < SMALL_PARAMETERS
        is_plain = is_small and accelerator.device.type == "cpu"
        self.attention = partial(sdpa_kernel, SDPBackend.MATH) if is_plain else nullcontext
        self._thread = ThreadPoolExecutor(1)
        self._next: tuple[tuple[int, int], Future[Batch]] | None = None

    def __enter__(self) -> _Trained:
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown(cancel_futures=True)

    def step(self, step: int, profile: Profile) -> float:
        """Take a step of the optimiser. Returns the mean loss of this process's items."""
        config, accelerator = self.config, self.accelerator
        total = 0.0
        for part in range(config.accumulate):
            with profile.part("data"):
                batch = self._batch(step, part)
            batch.seed_dropout()
            last = part == config.accumulate - 1
            with nullcontext() if last else accelerator.no_sync(self.model):
                with profile.part("forward"), self.attention():  # `prepare` has put autocast around it
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

    def agree(self, loss: float, is_stopped: bool, is_late: bool) -> tuple[float, bool, bool]:
        """The mean loss over all processes, and whether one of them has to stop or is late.

        Processes that decided for themselves would wait for each other for ever.
        """
        if self.accelerator.num_processes == 1:
            return loss, is_stopped, is_late
        mine = torch.tensor([loss, is_stopped, is_late], device=self.accelerator.device)
        mean, stopped, late = self.accelerator.reduce(mine, "mean").tolist()
        return mean, stopped > 0, late > 0

    def _batch(self, step: int, part: int) -> Batch:
        """This process's items of one part of a step's batch; the next part's are fetched meanwhile."""
        key = (step, part)
        fetched = self._next[1].result() if self._next and self._next[0] == key else self._fetch(*key)
        following = (step, part + 1) if part + 1 < self.config.accumulate else (step + 1, 0)
        self._next = (following, self._thread.submit(self._fetch, *following))
        return fetched

    def _fetch(self, step: int, part: int) -> Batch:
        config, accelerator = self.config, self.accelerator
        first = (part * accelerator.num_processes + accelerator.process_index) * self.share
        positions = range(first, first + self.share)
        items = self.data.training(config.seed, step, config.batch_size, positions)
        return Batch(items, positions, config.batch_size, config.seed, step)

    @torch.no_grad()
    def evaluate(self, step: int, journal: Journal) -> Mapping[str, float] | None:
        """Measures of the averaged weights on validation items, their loss first, with samples to look at.

        All processes make the samples. Returns None in those that are not the main one.
        """
        items = self.data.validation(NUM_JUDGED)
        size = min(self.share, len(items))
        losses = []
        with self.averaged():
            samples = self._samples(items[:NUM_SHOWN])
            if not self.accelerator.is_main_process:
                return None
            for first in range(0, len(items) - size + 1, size):
                batch = Batch(items[first : first + size], range(size), size, self.config.seed, 2**31 - 1)
                losses.append(self.task(batch).mean().item())
            score = float(sum(losses) / len(losses))
            measures = {"loss": score, **self.task.measures(items)}
            journal.evaluation(step, measures, samples)
        return measures

    def _samples(self, items: list[TrainingItem]) -> Any:
        """What the task makes of these items, a share of them in each process."""
        number, rank = self.accelerator.num_processes, self.accelerator.process_index
        share = -(-len(items) // number)
        mine = items[rank * share : (rank + 1) * share]
        made = [self.task.samples(mine, rank * share)] if mine else []
        return joined(gather_object(made))

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """The task with averaged weights; the trained ones come back afterwards."""
        self.average.store(self.parameters)
        try:
            self.average.copy_to(self.parameters)
            self.task.eval()
            yield
        finally:
            self.average.restore(self.parameters)
            self.task.train()

    def state(self, step: int) -> dict[str, Any]:
        """Everything that a resumed training needs; frozen weights are not in it."""
        kept, scaler = self.task.state_dict(), self.accelerator.scaler
        return {
            "step": step,
            "weights": {name: kept[name] for name in self.names},
            "buffers": {name: value for name, value in self.task.named_buffers() if name in kept},
            "ema": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "scaler": scaler.state_dict() if scaler else None,
        }

    def restore(self, saved: dict[str, Any] | None) -> int:
        """Put a checkpoint's state in place and return its step; 0 where there is none.

        Raises TrainingFailed if it has other weights than the task.
        """
        if saved is None:
            return 0
        if differing := sorted(saved["weights"].keys() ^ set(self.names)):
            raise TrainingFailed(
                f"the checkpoint has other weights than this model: {', '.join(differing[:3])}"
            )
        self.task.load_state_dict(saved["weights"] | saved["buffers"], strict=False)
        self.average.load_state_dict(saved["ema"])
        self.average.to(self.accelerator.device)
        self.optimiser.load_state_dict(saved["optimiser"])
        if self.accelerator.scaler:
            self.accelerator.scaler.load_state_dict(saved["scaler"])
        return int(saved["step"])
