"""`panic run`, `panic resume`, `run-experiments`: perform experiments.

panic run configs/demo.yaml --set max_length=20 --dry-run
"""

from __future__ import annotations

import contextlib
import json
import logging
import sys
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from panic.analysis.shortening import shorten
from panic.cli.common import (
    INTERRUPTED,
    DryRunOption,
    EitherArgument,
    Shared,
    check_given,
    command,
    guarded,
    read_devices,
    read_settings,
    say,
    say_error,
    tell_fields,
    tell_options,
)
from panic.cli.origin import CleanOption, enforce_clean
from panic.cli.plan import print_plan
from panic.cli.render import console
from panic.cli.stored import trusted_config
from panic.cli.stores import take_up
from panic.errors import StoreTooOld, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from panic.cli.progress import OnProgress
    from panic.engine.plan import CheckedConfig
    from panic.engine.progress import Progress
    from panic.store.records import NewRun

log = logging.getLogger("panic.cli")
LARGE = 100_000
"""Outputs that an earlier version left out of the index; fewer are taken in while results are written."""
SHOWN_REASONS = 3

RetryOption = Annotated[bool, typer.Option("--retry-failed", help="Try the runs again that failed.")]
RepairOption = Annotated[
    bool,
    typer.Option("--repair", help="Look for damaged images, too, and compute them again as missing ones."),
]
FailFastOption = Annotated[bool, typer.Option("--fail-fast", help="Stop everything at the first failure.")]
TrustOption = Annotated[
    bool,
    typer.Option("--trust", help="Use files of models that the store names; they may run code."),
]
FractionOption = Annotated[
    float | None, typer.Option(metavar="SHARE", help="Share of the device's memory that may be used.")
]
DeviceOption = Annotated[
    str | None,
    typer.Option(metavar="DEVICES", help="auto, cpu, mps, cuda:N, cuda:all, sim:SIZE, or cuda:0,cuda:1."),
]
HeadroomOption = Annotated[
    str | None, typer.Option(metavar="SIZE", help="Device memory that stays free, such as 2GiB.")
]


@command
def run(
    shared: Shared,
    configs: Annotated[
        list[Path], typer.Argument(metavar="CONFIG", help="Experiment configs: YAML, JSON or TOML.")
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY.KEY=VALUE", help="Change a setting; may be given several times."),
    ] = None,
    name: Annotated[str | None, typer.Option(metavar="NAME", help="Another name for the experiment.")] = None,
    tags: Annotated[
        list[str] | None, typer.Option("--tag", metavar="TAG", help="Give it a tag; may be repeated.")
    ] = None,
    label: Annotated[str | None, typer.Option(metavar="TEXT", help="Give it a label: one line.")] = None,
    dry_run: DryRunOption = False,
    retry_failed: RetryOption = False,
    repair: RepairOption = False,
    fail_fast: FailFastOption = False,
    device: DeviceOption = None,
    memory_fraction: FractionOption = None,
    headroom: HeadroomOption = None,
    repin: Annotated[
        bool,
        typer.Option("--repin", help="First give the models the batch sizes that fit the work as it is now."),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before --repin.")] = False,
    clean: CleanOption = None,
    taken: Annotated[
        Path | None,
        typer.Option("--from", metavar="SNAPSHOT", help="Begin with a copy of a snapshot of the store."),
    ] = None,
    shard: Annotated[
        str | None,
        typer.Option(metavar="N/COUNT", help="Only this part of the runs, such as 3/8; auto: Slurm's task."),
    ] = None,
    pins: Annotated[
        Path | None,
        typer.Option("--pins", metavar="FILE", help="Call models as panic pin has decided for all shards."),
    ] = None,
    allow_epochs: Annotated[
        bool,
        typer.Option("--allow-epochs", help="Let a shard go on with smaller batches where memory is short."),
    ] = False,
) -> None:
    """Perform experiments, one after another. The same command again goes on where it stopped.

    An experiment is its name: a config under a known name continues it, with what is new in the config.
    Ctrl-C finishes the batch in flight and keeps everything done; a second one leaves at once.
    """
    if name is not None and len(configs) > 1:
        raise UsageError("--name names one experiment, and there are several configs.")
    if repin and dry_run:
        raise UsageError("--dry-run alone tells what --repin would change.")
    tell_options({"--yes": yes and not repin}, "without --repin")
    is_part = shard is not None or pins is not None
    if is_part and (repin or len(configs) > 1):
        raise UsageError("--shard and --pins are of one config, and without --repin.")
    tell_options({"--allow-epochs": allow_epochs and not is_part}, "without --shard or --pins")
    if dry_run:
        tell_options(
            {
                "--retry-failed": retry_failed,
                "--repair": repair,
                "--fail-fast": fail_fast,
                "--from": taken,
                "--shard": shard,
                "--pins": pins,
            },
            "in a dry run",
        )
    changes = list(overrides or [])
    if name is not None:
        changes.append(f"name={json.dumps(name)}")
    if fail_fast:
        changes.append("fail_fast=true")
    if device is not None:
        changes.append(f"device={json.dumps(read_devices(device))}")
    if memory_fraction is not None:
        changes.append(f"memory_fraction={memory_fraction}")
    if headroom is not None:
        changes.append(f"headroom={headroom}")
    from panic.cli.logs import silence_libraries

    silence_libraries()

    loaded: list[CheckedConfig] = []

    def load(path: Path) -> None:
        checked = check_given(path, changes, ask=not dry_run, store=shared.store_path)
        if clean or read_settings() is not None:
            taken_to = [checked.config.snapshot.to] if checked.config.snapshot else []
            results = [shared.store_path(checked.config.store), *taken_to]
            enforce_clean(clean, [path], results, checked.config.secrets)
        loaded.append(marked(checked, tags, label))

    def do(checked: CheckedConfig) -> None:
        tell_fields(checked)
        path = shared.store_path(checked.config.store)
        if dry_run:
            return print_plan(checked, path)
        if taken is not None:
            take_up(shared, taken, path)
        if is_part:
            from panic.cli.shards import begin_shard

            part, runs = begin_shard(
                checked, configs[0], path, shard=shard, pins=pins, allow_epochs=allow_epochs
            )
            perform(shared, part, path, retry_failed=retry_failed, repair=repair, runs=runs)
        elif not repin or pin_anew(shared, checked, path, yes=yes):
            perform(shared, checked, path, retry_failed=retry_failed, repair=repair)
        return None

    # All configs are checked before any is performed.
    for actions in ([partial(load, path) for path in configs], (partial(do, checked) for checked in loaded)):
        code = 0
        for action in actions:
            code = max(code, guarded(action, verbose=shared.verbose))
            if code == INTERRUPTED:
                break
        if code:
            raise typer.Exit(code)


def marked(checked: CheckedConfig, tags: list[str] | None, label: str | None) -> CheckedConfig:
    """Return a config with these tags, too, and with this label, if there is one.

    Raises: UsageError for what cannot be one.
    """
    if not tags and label is None:
        return checked
    from panic.store.annotations import check_remark, check_tag

    config = checked.config
    joined = [*config.tags, *(check_tag(tag) for tag in tags or () if tag not in config.tags)]
    text = config.label if label is None else check_remark("label", label)
    return replace(checked, config=config.model_copy(update={"tags": joined, "label": text}))


@command
def resume(
    shared: Shared,
    experiment: EitherArgument = "latest",
    dry_run: DryRunOption = False,
    retry_failed: RetryOption = False,
    repair: RepairOption = False,
    fail_fast: FailFastOption = False,
    trust: TrustOption = False,
) -> None:
    """Go on with an experiment: all that it was ever asked for, in the store that it is found in.

    Or with a training, in its folder, as its last session had it.
    """
    from panic.cli.logs import silence_libraries
    from panic.cli.one_training import resume_training
    from panic.engine.plan import CheckedConfig, stored_runs
    from panic.store import missing, reading, standing
    from panic.store.trainings import named_training

    silence_libraries()
    if dry_run:
        tell_options(
            {"--retry-failed": retry_failed, "--repair": repair, "--fail-fast": fail_fast}, "in a dry run"
        )
    if not dry_run:
        bring_up_to_date(shared.store_path())
    with shared.open_store() as store:
        training = named_training(store, experiment)
    if training is not None:
        given = {"--retry-failed": retry_failed, "--repair": repair, "--fail-fast": fail_fast}
        tell_options({} if dry_run else given, "for a training")
        return resume_training(shared, training, trust=trust, dry_run=dry_run)
    with shared.open_store() as store:
        row = reading.experiment(store, experiment)
        # None of them: it was killed between its own row and theirs, and its config says which there will be.
        runs = stored_runs(reading.runs(store, row.id)) or None
        is_complete = standing.standing(store, row).state == "complete" and not any(
            missing.images(store, row.id)
        )
    if is_complete and not repair:
        return console().print(f"{row.name} is complete.")
    config = trusted_config(row, trust=trust)
    if fail_fast:
        config = config.model_copy(update={"fail_fast": True})
    checked = CheckedConfig.of(config, ask=not dry_run)
    if dry_run:
        return print_plan(checked, store.path, runs)
    return perform(shared, checked, store.path, retry_failed=retry_failed, repair=repair, runs=runs)


def bring_up_to_date(path: Path) -> None:
    """Give a store of an earlier version the present schema."""
    from panic.store import Store

    try:
        with Store(path):
            pass
    except StoreTooOld:
        with Store(path, write=True, create=True):
            pass


def pin_anew(shared: Shared, checked: CheckedConfig, path: Path, *, yes: bool) -> bool:
    """Change pinned shapes to what fits the work, after asking; whether to go on."""
    from contextlib import ExitStack

    from panic.engine import pinning
    from panic.engine.plan import make_plan
    from panic.engine.workers import open_places
    from panic.models import registry
    from panic.store import Store, reading

    config = checked.config
    with ExitStack() as stack:
        device = open_places(config, stack)
        plan = make_plan(checked, device.kind)
        store = stack.enter_context(Store(path, write=True, create=True))
        row = reading.named(store, config.name)
        plan, fingerprints = pinning.as_started(store, plan, registry.fingerprints(plan.specs))
        found = pinning.changes(store, row.id, plan, device) if row else []
        if row is None or not found:
            if not shared.quiet:
                console().print(f"The shapes of {config.name} fit its work: nothing is pinned anew.")
            return True
        for change in found:
            before, after = change.before, change.after
            what = f"batches of {before.batch_size} → {after.batch_size}"
            if before.threads != after.threads:
                what += f", threads {before.threads} → {after.threads}"
            if before.mates != after.mates:
                what += ", of items with as many tokens" if after.mates == "length" else ", of any items"
            say(f"{change.name}: {what}", err=True)
        say(
            "What was computed stays. What comes is computed in these shapes, whose rounding differs.",
            err=True,
        )
        if not yes:
            if not sys.stdin.isatty():
                raise UsageError(
                    "Nothing was changed: nobody is there to be asked.", hint="-y pins anew without asking."
                )
            if not typer.confirm("Pin these shapes?"):
                console().print("Nothing was changed.")
                return False
        pinning.repin(store, row.id, plan, fingerprints, device)
    return True


def perform(
    shared: Shared,
    checked: CheckedConfig,
    path: Path,
    *,
    retry_failed: bool,
    repair: bool,
    runs: Sequence[NewRun] | None = None,
    hear: OnProgress | None = None,
) -> None:
    """Perform one experiment in the store at `path`: log, bars, summary. Raises Exit(1) if runs failed.

    runs: exactly these, by default all that the config asks for. hear: hears of all progress, too.
    """
    from panic.cli import logs
    from panic.cli.progress import showing_progress
    from panic.engine.perform import run as perform_config
    from panic.store import Store

    config = checked.config
    # There must be a store before there can be a log in it; then bars, so that messages go through them.
    with (
        Store(path, write=True, create=True) as store,
        contextlib.nullcontext(lambda _: None) if shared.quiet else showing_progress() as show,
        logs.logging_command(
            file := logs.log_file(path, config.project),
            config.log_level,
            stderr_level=shared.stderr_level,
            what=config.name,
        ),
    ):
        if store.last_output_id - store.last_indexed_id > LARGE:
            from panic.cli.search import index_rest  # not imported where nothing can wait

            index_rest(store, quiet=shared.quiet)

        def on_progress(progress: Progress) -> None:
            show(progress)
            if hear is not None:
                hear(progress)

        outcome = perform_config(
            checked, store, on_progress=on_progress, retry_failed=retry_failed, repair=repair, runs=runs
        )
        summary = f"{outcome.name} is {outcome.state}: {outcome.counts}"
        log.info(summary)
    if not shared.quiet:
        console().print(f"{summary}\nStore: {outcome.store}\nLog:   {file}")
    if outcome.state == "failed" and tell_failures(outcome.store, outcome.experiment, runs):
        raise typer.Exit(1)


def tell_failures(path: Path, experiment: str, of: Sequence[NewRun] | None = None) -> int:
    """Say on stderr why runs, or these of them, have failed, the most frequent reasons first; how many."""
    from panic.engine.plan import run_key
    from panic.store import Store, reading

    asked = None if of is None else {run_key(run) for run in of}
    with Store(path) as store:
        name = reading.experiment(store, experiment).name
        failures = [
            run.failure
            for run in reading.runs(store, experiment)
            if run.failure is not None and (asked is None or run_key(run) in asked)
        ]
    if not failures:
        return 0
    reasons = Counter(failure.message.split("\n", 1)[0] for failure in failures).most_common()
    lines = [f"{shorten(reason, 200)} ({number:,} x)" for reason, number in reasons[:SHOWN_REASONS]]
    if len(reasons) > SHOWN_REASONS:
        lines.append(f"and {len(reasons) - SHOWN_REASONS:,} other reasons")
    told = "1 run has failed" if len(failures) == 1 else f"{len(failures):,} runs have failed"
    say_error(
        f"{told}: {lines[0]}" if len(lines) == 1 else "\n  ".join([f"{told}:", *lines]),
        f"panic show {name} tells where. panic rerun {name} --failed tries them again.",
    )
    return len(failures)
