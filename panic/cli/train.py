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

from panic.cli.common import DryRunOption, Shared, command, say
from panic.cli.origin import CleanOption, enforce_clean
from panic.cli.render import console, print_table
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

    trainings = load_all(config, overrides or ())
    if only is not None:
        if only > len(trainings):
            raise UsageError(f"--only {only}: {config} stands for {len(trainings):,} trainings.")
        trainings = [trainings[only - 1]]
    results = [Path(f"{one.output}{ending}") for one in trainings for ending in ("", ".training")]
    enforce_clean(clean, [config], results)
    if dry_run:
        return print_trainings(trainings)
    return perform_trainings(shared, config, trainings)


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
    """Print which trainings there are to be, and which of them have begun."""
    out = console()
    out.print(f"{len(trainings):,} training{'s' * (len(trainings) != 1)}, one after another")
    rows = [
        (
            one.output,
            one.steps,
            one.batch_size,
            "begun" if Path(f"{one.output}.training", "recipe.json").exists() else "new",
        )
        for one in trainings
    ]
    print_table(["output", "steps #", "batch size #", ""], rows)
    out.print(f"{sum(one.steps for one in trainings):,} steps in all")


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
    from panic.cli.training_course import TrainingSession, performing
    from panic.store.provenance import TRAINED, provenance, training_uid
    from panic.train.training import train as perform

    beside = Path(f"{loaded.output}.training")
    place = shared.store_for_log()
    file = logs.log_file(place or beside, config.stem, "train").absolute()
    session = TrainingSession(
        began_at=time.time(), log=file, provenance=provenance(project=config.absolute().parent)
    )
    store = shared.store_path().absolute()
    with (
        logs.logging_command(file, "info", stderr_level=shared.stderr_level, what=str(config)),
        logs.logging_prints(file),
        performing(loaded, session, store) as course,
    ):

        def both(progress: TrainingProgress) -> None:
            course.hear(progress)
            hear(progress)

        trained = perform(loaded, both)
        uid = training_uid(json.loads((beside / "recipe.json").read_bytes()))
        (trained.folder / TRAINED).write_text(json.dumps({"training": uid, "step": trained.step}) + "\n")
    return trained, file, course.trouble
