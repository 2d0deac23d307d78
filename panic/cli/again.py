"""`panic again`, `extend`, `rerun`: once more from what is stored, changed, larger, or what has failed.

panic again demo --set max_length=500; panic extend demo --repeats 8; panic rerun demo --failed
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from panic.cli.common import DryRunOption, EitherArgument, Shared, command, tell_options
from panic.cli.finding import RunsWhereOption, runs_where
from panic.cli.one_training import (
    checked_remarks,
    extend_training,
    made_from,
    perform_again,
    rerun_training,
)
from panic.cli.plan import print_plan
from panic.cli.render import console
from panic.cli.run import (
    FailFastOption,
    TrustOption,
    bring_up_to_date,
    marked,
    perform,
)
from panic.cli.stored import trusted_config
from panic.cli.train import print_trainings
from panic.errors import ConflictError, UsageError

if TYPE_CHECKING:
    from panic.config import ExperimentConfig
    from panic.engine.plan import CheckedConfig
    from panic.store import Store
    from panic.store.records import NewRun, RunRow

OverridesOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY.KEY=VALUE", help="Change a setting; may be given several times."),
]


@command
def again(
    shared: Shared,
    experiment: EitherArgument = "latest",
    overrides: OverridesOption = None,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="What it is called; by default the next free NAME-2.")
    ] = None,
    tags: Annotated[
        list[str] | None, typer.Option("--tag", metavar="TAG", help="Give it a tag; may be repeated.")
    ] = None,
    label: Annotated[str | None, typer.Option(metavar="TEXT", help="Give it a label: one line.")] = None,
    dry_run: DryRunOption = False,
    fail_fast: FailFastOption = False,
    trust: TrustOption = False,
) -> None:
    """Perform a new experiment, or training, made from the stored config of another.

    Where it comes from is kept, and shown by `panic show`. A new training has a folder of its own, beside
    that of the other one.
    """
    from panic.arms import BASELINE
    from panic.cli.logs import silence_libraries
    from panic.engine.plan import check_config
    from panic.store import reading
    from panic.store.trainings import named_training

    silence_libraries()
    if not dry_run:
        bring_up_to_date(shared.store_path())
    with shared.open_store() as store:
        training = named_training(store, experiment)
        made = made_from(store, training, overrides or [], name, trust=trust) if training else []
    if training is not None:
        tell_options({"--fail-fast": fail_fast}, "for a training")
        remarks = checked_remarks(overrides or [], tags or [], label)
        return print_trainings(made) if dry_run else perform_again(shared, training, made, remarks)
    with shared.open_store() as store:
        row = reading.experiment(store, experiment)
        config = trusted_config(row, trust=trust)
        changes = list(overrides or [])
        if name is not None:
            changes.append(f"name={json.dumps(name)}")
        elif not any(change.startswith("name=") for change in changes):
            changes.append(f"name={json.dumps(_free_name(store, row.name))}")
        if fail_fast:
            changes.append("fail_fast=true")
        checked = check_config(config, changes, ask=not dry_run, store=lambda _: store.path)
        if reading.named(store, checked.config.name):
            raise ConflictError(
                f"There is an experiment called {checked.config.name} already.",
                hint="Give another name, or leave it out: --name NAME. panic extend makes that one larger.",
            )
    # What was said of the other one is not said of this one, but for what --set says; branches are of its
    # failed runs alone.
    said = {change.partition("=")[0].split(".")[0].strip() for change in overrides or []}
    kept = checked.config.arms_of_all
    arms = {} if kept == [BASELINE] else {name: checked.config.arms[name] for name in kept}
    unsaid: dict[str, Any] = {key: value for key, value in (("tags", []), ("label", None)) if key not in said}
    new = {"arms": arms, **unsaid}
    fresh = replace(checked, config=checked.config.model_copy(update=new))
    asked = [change for change in overrides or [] if not change.startswith("name=")]
    fresh = replace(marked(fresh, tags, label), origin={"name": row.name, "uid": row.uid, "changes": asked})
    if dry_run:
        return print_plan(fresh, store.path)
    return perform(shared, fresh, store.path, retry_failed=False, repair=False)


def _free_name(store: Store, name: str) -> str:
    """The first of NAME-2, NAME-3, ... that no experiment has."""
    from panic.store import reading

    taken = {row.name for row in reading.experiments(store)}
    number = 2
    while f"{name}-{number}" in taken:
        number += 1
    return f"{name}-{number}"


@command
def extend(
    shared: Shared,
    experiment: EitherArgument = "latest",
    max_length: Annotated[
        int | None, typer.Option("--max-length", min=1, metavar="STEPS", help="How long its runs get.")
    ] = None,
    prompts: Annotated[
        list[Path] | None,
        typer.Option("--prompts", metavar="FILE", help="More prompts, as a config reads them; repeatable."),
    ] = None,
    repeats: Annotated[
        int | None, typer.Option("--repeats", min=1, metavar="N", help="Runs of seed -1 in all.")
    ] = None,
    networks: Annotated[
        list[str] | None,
        typer.Option("--network", metavar="A,B", help="Another network of known models; may be repeated."),
    ] = None,
    steps: Annotated[
        int | None, typer.Option("--steps", min=1, metavar="N", help="Of a training: how many in all.")
    ] = None,
    dry_run: DryRunOption = False,
    fail_fast: FailFastOption = False,
    trust: TrustOption = False,
) -> None:
    """Make an experiment larger (longer runs, more prompts, repeats, networks), or a training longer.

    What is there is kept. A training goes on in its folder up to --steps; the decay of its learning rate ends
    there, too.
    """
    from panic.cli.logs import silence_libraries
    from panic.engine.plan import check_config
    from panic.store import reading
    from panic.store.trainings import named_training

    silence_libraries()
    given = (max_length, prompts, repeats, networks)
    of_experiments: dict[str, object] = dict(
        zip(("--max-length", "--prompts", "--repeats", "--network"), given, strict=True)
    )
    if not (any(of_experiments.values()) or steps):
        raise UsageError(
            "Nothing was said of what gets larger.",
            hint="--max-length, --prompts, --repeats or --network; of a training --steps.",
        )
    if not dry_run:
        bring_up_to_date(shared.store_path())
    with shared.open_store() as store:
        training = named_training(store, experiment)
    if training is not None:
        tell_options(of_experiments | {"--fail-fast": fail_fast}, "for a training")
        return extend_training(shared, training, steps, trust=trust, dry_run=dry_run)
    if steps:
        raise UsageError(
            f"{experiment} is no training, which --steps makes longer.",
            hint="--max-length makes the runs of an experiment longer.",
        )
    with shared.open_store() as store:
        row = reading.experiment(store, experiment)
        rows = reading.runs(store, row.id)
        config = trusted_config(row, trust=trust)
        _refuse_less(config, rows, max_length, repeats)
        changes = [f"max_length={max_length}"] if max_length and max_length > config.max_length else []
        changes += [f"repeats={repeats}"] if repeats else []
        changes += [
            f"networks.{place}={json.dumps([part.strip() for part in network.split(',')])}"
            for place, network in enumerate(networks or [], start=len(config.networks))
        ]
        changes += [
            f"prompts.{place}={json.dumps({'file': str(file.expanduser().absolute())})}"
            for place, file in enumerate(prompts or [], start=len(config.prompts))
        ]
        checked = check_config(config, changes, ask=not dry_run, store=lambda _: store.path)
    if fail_fast:
        checked = replace(checked, config=checked.config.model_copy(update={"fail_fast": True}))
    runs = _extended(config, checked.config, rows, max_length)
    if dry_run:
        return print_plan(checked, store.path, runs)
    return perform(shared, checked, store.path, retry_failed=False, repair=False, runs=runs)


def _refuse_less(
    config: ExperimentConfig, rows: Sequence[RunRow], max_length: int | None, repeats: int | None
) -> None:
    """Raise UsageError for an extension that extends nothing."""
    longest = max((row.max_length for row in rows), default=config.max_length)
    shortest = min((row.max_length for row in rows), default=config.max_length)
    if max_length is not None and max_length <= shortest:
        raise UsageError(
            f"The runs of {config.name} have a length of {longest:,} already.",
            hint="A larger --max-length extends them; panic end declares them complete as they are.",
        )
    if repeats is not None and repeats <= config.repeats:
        raise UsageError(f"{config.name} has {config.repeats:,} repeats already.", hint="A larger --repeats.")


def _extended(
    before: ExperimentConfig, after: ExperimentConfig, rows: Sequence[RunRow], max_length: int | None
) -> list[NewRun]:
    """The runs of the store, longer if that was asked for, and those that the extension adds.

    What networks and prompts of different times would give together, and nobody asked for, is not added.
    """
    from panic.engine.plan import expanded_runs, run_key, stored_runs

    stored = [replace(run, max_length=max(run.max_length, max_length or 0)) for run in stored_runs(rows)]
    known = {run_key(run) for run in (*stored, *expanded_runs(before))}
    return [*stored, *(run for run in expanded_runs(after) if run_key(run) not in known)]


@command
def rerun(
    shared: Shared,
    experiment: EitherArgument = "latest",
    failed: Annotated[bool, typer.Option("--failed", help="The runs, or the training, that failed.")] = False,
    where: RunsWhereOption = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY.KEY=VALUE",
            help="Branch off with other parameters, as arms from the failed steps.",
        ),
    ] = None,
    dry_run: DryRunOption = False,
    fail_fast: FailFastOption = False,
    trust: TrustOption = False,
) -> None:
    """Compute the failed runs of an experiment again, or go on with a training that has failed.

    They go on from where they failed, and no other run does. How they failed before is kept, and told by
    `panic show --run`. With --set models.NAME.KEY=VALUE each of them stays as it is and a branch of it, an
    arm, goes on from the failed step with a changed model: no model is exchanged within a run. A training
    goes on from its last checkpoint, with --set for what is no part of its recipe.
    """
    from panic.cli.logs import silence_libraries
    from panic.engine.plan import CheckedConfig, check_config, stored_runs
    from panic.store import reading
    from panic.store.trainings import named_training

    silence_libraries()
    if not failed:
        raise UsageError("--failed says which runs: those that have failed.")
    if not dry_run:
        bring_up_to_date(shared.store_path())
    with shared.open_store() as store:
        training = named_training(store, experiment)
    if training is not None:
        tell_options({"--where": where is not None, "--fail-fast": fail_fast}, "for a training")
        return rerun_training(shared, training, overrides or [], trust=trust, dry_run=dry_run)
    with shared.open_store() as store:
        row = reading.experiment(store, experiment)
        rows = [run for run in runs_where(store, row, where) if run.failure is not None]
    tell_options({"--trust": trust and not rows}, "where no run has failed")
    if not rows:
        return console().print(f"No run of {row.name} has failed.")
    config, runs = trusted_config(row, trust=trust), stored_runs(rows)
    if overrides:
        from panic.engine.branching import branches

        changed = check_config(config, overrides, ask=not dry_run, store=lambda _: store.path)
        config, runs = branches(config, changed.config, rows)
    if fail_fast:
        config = config.model_copy(update={"fail_fast": True})
    checked: CheckedConfig = CheckedConfig.of(config, ask=not dry_run)
    if dry_run:
        what = "would branch off" if overrides else "would be tried again"
        return console().print(f"{len(runs):,} runs of {row.name} {what}.")
    return perform(shared, checked, store.path, retry_failed=not overrides, repair=False, runs=runs)
