"""`panic train CONFIG`: train a small model that becomes a network's node; the same command goes on.

panic train configs/train/pocket-clip.yaml --set steps=100
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from panic.cli.common import DryRunOption, Shared, command, read_settings, say
from panic.cli.origin import CleanOption, enforce_clean
from panic.cli.render import console, duration, print_table
from panic.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from panic.errors import StoreError
    from panic.train.config import Training
    from panic.train.loop import TrainingProgress
    from panic.train.training import TrainedModel


SHOW_EVERY_S = 10.0


@command
def train(
    shared: Shared,
    config: Annotated[Path, typer.Argument(help="Training config: YAML, JSON or TOML.")],
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a value of the config.")
    ] = None,
    only: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Of a sweep's trainings the N-th alone.")
    ] = None,
    tags: Annotated[
        list[str] | None, typer.Option("--tag", metavar="TAG", help="Give it a tag; may be repeated.")
    ] = None,
    label: Annotated[str | None, typer.Option(metavar="TEXT", help="Give it a label: one line.")] = None,
    dry_run: DryRunOption = False,
    clean: CleanOption = None,
) -> None:
    """Train a model, or go on where its training was stopped. The model lies in the config's `output`.

    A config with sweeps stands for several trainings, performed one after another, each with a folder of its
    own.
    """
    from panic.cli import logs

    logs.silence_libraries()
    from panic.train.config import load_all

    trainings = [_marked(in_its_project(one), tags, label) for one in load_all(config, overrides or ())]
    if only is not None:
        if only > len(trainings):
            raise UsageError(f"--only {only}: {config} stands for {len(trainings):,} trainings.")
        trainings = [trainings[only - 1]]
    results = [Path(f"{one.output}{ending}") for one in trainings for ending in ("", ".training")]
    enforce_clean(clean, [config], results)
    if dry_run:
        return print_trainings(trainings)
    return perform_trainings(shared, config, trainings)


def in_its_project(training: Training) -> Training:
    """Return a training as the environment has it, and files of settings where it names no project itself."""
    settings = read_settings()
    said = settings.values.get("project") if settings else None
    if said is None or (training.project is not None and not said.origin.startswith("environment")):
        return training
    return training.model_copy(update={"project": said.value})


def _marked(training: Training, tags: list[str] | None, label: str | None) -> Training:
    """Return a training with these tags, too, and with this label, if there is one. Raises UsageError."""
    if not tags and label is None:
        return training
    from panic.store.annotations import check_remark, check_tag

    joined = [*training.tags, *(check_tag(tag) for tag in tags or () if tag not in training.tags)]
    text = training.label if label is None else check_remark("label", label)
    return training.model_copy(update={"tags": joined, "label": text})


def perform_trainings(
    shared: Shared,
    config: Path,
    trainings: Sequence[Training],
    begun: Callable[[Training], None] = lambda one: None,
) -> None:
    """Perform trainings of a config, one after another; begun: is told of each that has begun."""
    for place, one in enumerate(trainings, start=1):
        if len(trainings) > 1 and not shared.quiet and os.environ.get("RANK", "0") == "0":
            console().print(f"Training {place:,} of {len(trainings):,}: {one.output}", soft_wrap=True)
        _train(shared, config, one, begun)


def print_trainings(trainings: Sequence[Training]) -> None:
    """Print which trainings there are to be, how far those are that have begun, and how long all take."""
    from panic.train.standing import standing_of

    out = console()
    out.print(f"{len(trainings):,} training{'s' * (len(trainings) != 1)}, one after another")
    rows, left = [], 0
    seconds, steps = 0.0, 0
    for one in trainings:
        beside = Path(f"{one.output}.training")
        known = standing_of(beside)
        state = f"at step {known.step:,}" if (beside / "recipe.json").exists() else "new"
        rows.append((one.output, one.steps, one.batch_size, state))
        left += max(0, one.steps - known.step)
        seconds, steps = seconds + known.seconds, steps + known.step
    print_table(["output", "steps #", "batch size #", ""], rows)
    out.print(f"{sum(one.steps for one in trainings):,} steps in all, {left:,} left")
    if seconds and steps and left:
        out.print(f"About {duration(left * seconds / steps)}, at the pace of what has been trained here.")


def _train(shared: Shared, config: Path, loaded: Training, begun: Callable[[Training], None]) -> None:
    from panic.train.training import train as perform

    is_first = os.environ.get("RANK", "0") == "0"
    talks = not shared.quiet and is_first
    out = console()
    shown_at, is_begun = 0.0, False

    def show(progress: TrainingProgress) -> None:
        nonlocal shown_at, is_begun
        if is_first and not is_begun:
            begun(loaded)
            is_begun = True
        now = time.monotonic()
        if progress.loss is None:
            return
        if talks and (now - shown_at > SHOW_EVERY_S or progress.step == progress.steps):
            left = timedelta(seconds=round((progress.steps - progress.step) * progress.seconds_per_step))
            out.print(
                f"step {progress.step:,} of {progress.steps:,}, loss {progress.loss:.4f}, "
                f"{progress.seconds_per_step:.2f} s per step, {left} left"
            )
            shown_at = now

    if not is_first:  # of several processes the first one speaks
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
            perform(loaded, show)
        return
    trained, file, trouble = follow(shared, config, loaded, show)
    if talks:
        if trained.step < trained.steps:
            out.print(
                f"Time is up after step {trained.step:,} of {trained.steps:,}; the same command goes on."
            )
        out.print(
            f"The model is in {trained.folder}; as a network's node: local:{trained.folder}\nLog: {file}",
            soft_wrap=True,
        )
    if trouble is not None:
        say(f"It stands beside its model alone: {trouble.message} {trouble.hint}".rstrip(), err=True)


def follow(
    shared: Shared, config: Path, loaded: Training, hear: Callable[[TrainingProgress], None]
) -> tuple[TrainedModel, Path, StoreError | None]:
    """Perform a training: its log, its sessions beside the model, its entry in the store, if there is one.

    hear: is told how far it is, and may end it. Returns the model, the log, and why it is not in the store.
    """
    from panic.cli import logs
    from panic.cli.training_course import TrainingSession, models_of, performing
    from panic.store.provenance import TRAINED, gpu_energy_j, provenance, training_uid
    from panic.train.training import train as perform

    beside = Path(f"{loaded.output}.training")
    place = shared.store_for_log()
    file = logs.log_file(place or beside, config.stem, "train").absolute()
    known = provenance(project=config.absolute().parent) | {"models": models_of(loaded)}
    session = TrainingSession(began_at=time.time(), log=file, provenance=known, energy=gpu_energy_j())
    store = shared.store_path().absolute()

    def both(progress: TrainingProgress) -> None:
        course.hear(progress)
        if progress.is_saved:  # also where a signal ended it
            uid = training_uid(json.loads((beside / "recipe.json").read_bytes()))
            said = json.dumps({"training": uid, "step": progress.step})
            Path(loaded.output, TRAINED).write_text(f"{said}\n")
        hear(progress)

    with (
        logs.logging_command(file, "info", stderr_level=shared.stderr_level, what=str(config)),
        logs.logging_prints(file),
        performing(loaded, session, store) as course,
    ):
        trained = perform(loaded, both)
    return trained, file, course.trouble
