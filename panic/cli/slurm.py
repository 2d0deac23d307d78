"""`panic slurm`: experiments in shards, and trainings, as jobs of a cluster.

panic slurm demo.yaml --shards 16 --time 4:00:00 --gres gpu:1
"""

from __future__ import annotations

import shlex
import sys
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from panic.cli.common import JsonOption, Shared, check_given, command, say, say_error, tell_options
from panic.cli.origin import enforce_clean
from panic.cli.render import console, print_table
from panic.errors import PanicError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from panic.cluster.job import Job
    from panic.cluster.standing import Standing


@command
def slurm(
    shared: Shared,
    configs: Annotated[
        list[Path] | None,
        typer.Argument(metavar="CONFIG", help="Experiments, or one config of trainings."),
    ] = None,
    shards: Annotated[
        int, typer.Option(min=1, max=10_000, metavar="N", help="Parts of each experiment.")
    ] = 1,
    limit: Annotated[
        str | None, typer.Option("--time", metavar="TIME", help="Of each task: 4:00:00.")
    ] = None,
    gres: Annotated[str | None, typer.Option(metavar="NAME:N", help="Such as gpu:1.")] = None,
    partition: Annotated[str | None, typer.Option(metavar="NAME", help="Where tasks run.")] = None,
    account: Annotated[str | None, typer.Option(metavar="NAME", help="Who pays.")] = None,
    memory: Annotated[str | None, typer.Option("--mem", metavar="SIZE", help="Of each task: 32G.")] = None,
    cpus: Annotated[int | None, typer.Option(min=1, metavar="N", help="Cores of each task.")] = None,
    setup: Annotated[
        str | None,
        typer.Option(metavar="COMMAND", help="A line of shell before each task: module load cuda."),
    ] = None,
    scratch: Annotated[
        Path | None, typer.Option(metavar="PATH", help="The nodes' own disk (SLURM_TMPDIR, TMPDIR).")
    ] = None,
    folder: Annotated[
        Path | None, typer.Option(metavar="PATH", help="The job's folder, shared (panic-slurm/CONFIG).")
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY.KEY=VALUE", help="Change a setting.")
    ] = None,
    local: Annotated[
        bool, typer.Option("--local", help="The same tasks on this machine, one by one.")
    ] = False,
    status: Annotated[bool, typer.Option("--status", help="Tell where the tasks of a job stand.")] = False,
    resubmit: Annotated[bool, typer.Option("--resubmit", help="Submit what is not complete again.")] = False,
    cancel: Annotated[bool, typer.Option("--cancel", help="Cancel a job; snapshots stay.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print script and commands, do nothing.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Perform experiments, in shards, or trainings as jobs of Slurm, or see where such jobs stand.

    \b
    panic slurm CONFIG --shards 16 --time 4:00:00 --gres gpu:1    a job for the pins, an array, a merge
    panic slurm CONFIG --status                                   where they stand; or --folder PATH
    panic slurm CONFIG --resubmit                                 what has failed, timed out or was lost

    Tasks work on their node's disk and copy their store to the job's folder; the merged store is there, too.
    """
    from panic.cluster.job import load, save
    from panic.cluster.script import write_script

    given = configs or []
    if limit is not None:
        _look_at_limit(limit, is_told=not local)
    place = folder or (Path("panic-slurm") / given[0].stem if given else Path("panic-slurm"))
    tell_options({"--json": as_json and not status}, "without --status")
    options = {
        "time": limit,
        "gres": gres,
        "partition": partition,
        "account": account,
        "mem": memory,
        "cpus-per-task": cpus,
    }
    asked = {f"--{name}": value for name, value in options.items() if value is not None}
    if status or resubmit or cancel:
        others: dict[str, object] = {
            "--shards": shards > 1,
            "--setup": setup,
            "--scratch": scratch,
            "--set": overrides,
            "--local": local,
            "--dry-run": dry_run,
        }
        again = resubmit and not status and not cancel
        tell_options(others | ({} if again else asked), "for a job that is there")
        job = load(place.absolute())
        return _look_after(
            _with_options(job, asked) if again else job, status=status, cancel=cancel, as_json=as_json
        )
    if not given:
        raise UsageError("A config is needed.", hint="panic slurm CONFIG --shards N; --status --folder PATH.")
    job = _job(
        given,
        place.absolute(),
        shards,
        overrides or [],
        setup=setup or "",
        scratch=scratch,
        sbatch=tuple(f"{name}={value}" for name, value in asked.items()),
    )
    if dry_run:
        return _print(job)
    if local:
        tell_options(asked, "with --local")
    if (job.folder / "job.json").exists():
        _refuse_another(load(job.folder), job, local=local)
    save(job)
    write_script(job)
    return _perform_here(job) if local else _submit(job, None)


def _look_at_limit(limit: str, *, is_told: bool) -> None:
    """Raise UsageError for what is no time limit; tell of one within which little is computed."""
    from panic.cluster.slurm import WARNING_S, seconds_of

    if seconds_of(limit) <= WARNING_S and is_told:
        say(
            f"--time {limit}: tasks are warned {WARNING_S} s before their limit, here as soon as they begin,"
            " and begin again after the batch in flight.",
            err=True,
        )


def _refuse_another(known: Job, job: Job, *, local: bool) -> None:
    """Raise UsageError where a folder has a job that has begun, unless the same one goes on here."""
    has_begun = bool(known.ids) or any(known.state(task) for task in range(1, known.num_tasks + 1))
    if not has_begun:  # as where Slurm has refused it
        for pins in (known.folder / "pins").glob("*.json"):
            pins.unlink()
        return
    if known.ids or not local:
        raise UsageError(
            f"{job.folder} has a job already.",
            hint="--status tells where it stands, --resubmit goes on; --folder PATH makes another.",
        )
    asked: tuple[str, ...] = ("configs", "digests", "shards", "overrides")
    if not known.digests:  # an earlier version began it
        asked = ("configs", "shards", "overrides")
    if changed := [name for name in asked if getattr(known, name) != getattr(job, name)]:
        names = ", ".join("text of the configs" if name == "digests" else name for name in changed)
        raise UsageError(
            f"{job.folder} has a job that began with other settings: {names}.",
            hint="What it has computed was pinned for those. --folder PATH makes another job.",
        )


def _with_options(job: Job, asked: Mapping[str, object]) -> Job:
    """The job with options of sbatch in place of those of the same names."""
    from dataclasses import replace

    kept = [option for option in job.sbatch if option.partition("=")[0] not in asked]
    return replace(job, sbatch=(*kept, *(f"{name}={value}" for name, value in asked.items())))


def _job(
    configs: list[Path],
    folder: Path,
    shards: int,
    overrides: list[str],
    *,
    setup: str,
    scratch: Path | None,
    sbatch: tuple[str, ...],
) -> Job:
    """A job of checked configs. Raises ConfigError, and UsageError for what cannot stand in a script."""
    from panic.cluster.job import Job, require_plain

    if "\n" in setup or "\r" in setup:
        raise UsageError("--setup is one line.", hint="Join several commands by && or by a semicolon.")
    for path in (folder, *([scratch] if scratch else [])):
        require_plain(path)
    job = Job(
        folder=folder,
        configs=tuple(config.absolute() for config in configs),
        work=Path.cwd(),
        panic=(sys.executable, "-P", "-m", "panic"),
        shards=shards,
        overrides=tuple(overrides),
        sbatch=sbatch,
        setup=setup,
        scratch=scratch,
        ids={},
    )
    return _checked(job)


def _checked(job: Job) -> Job:
    """The job, with its configs checked, and how many trainings it has."""
    from dataclasses import replace

    from panic.cli.logs import silence_libraries
    from panic.store import DEFAULT_STORE

    silence_libraries()
    trainings = 0
    hidden: list[str] = []
    for config in job.configs:
        if _is_experiment(config):
            checked = check_given(
                config, job.overrides, ask=False, store=lambda named: named or DEFAULT_STORE
            )
            hidden += checked.config.secrets
        else:
            from panic.train.config import load_all

            trainings = len(load_all(config, job.overrides))
    if trainings and len(job.configs) > 1:
        raise UsageError("A config of trainings stands alone.", hint="Sweeps in it are an array, too.")
    if trainings and job.shards > 1:
        raise UsageError("Trainings have no shards: each of a sweep is a task.", hint="Leave --shards out.")
    enforce_clean(None, job.configs, [job.folder], hidden)
    digests = tuple(sha256(config.read_bytes()).hexdigest() for config in job.configs)
    return replace(job, num_trainings=trainings, digests=digests)


def _is_experiment(config: Path) -> bool:
    """Whether a config has networks; also where it cannot be read, which its check then tells."""
    from panic.config import sources

    try:
        found = sources.read(config).data
    except PanicError:
        return True
    return not isinstance(found, dict) or "networks" in found


def _print(job: Job) -> None:
    """Print what would be written and submitted."""
    from panic.cluster.script import script
    from panic.cluster.slurm import commands

    say(f"# {job.script}\n{script(job)}")
    for words in commands(job).values():
        say(f"# {shlex.join(words)}")


def _perform_here(job: Job) -> None:
    from panic.cluster.local import perform_here

    open_tasks = [task for task in range(1, job.num_tasks + 1) if not job.state(task).startswith("complete")]
    code = perform_here(job, open_tasks)
    if not job.is_training:
        console().print(f"Store: {job.folder / 'merged'}", soft_wrap=True)
    if code:
        raise typer.Exit(code)


def _submit(job: Job, tasks: list[int] | None) -> None:
    from panic.cluster.slurm import submit

    submitted = submit(job, tasks)
    told = ", ".join(f"{name} {ids[-1]}" for name, ids in submitted.ids.items())
    console().print(f"Submitted: {told}\nFolder: {job.folder}", soft_wrap=True)


def _look_after(job: Job, *, status: bool, cancel: bool, as_json: bool) -> None:
    """Tell where a job stands, cancel it, or submit again what is not complete."""
    from panic.cluster import slurm as cluster
    from panic.cluster.standing import standings

    if cancel:
        cluster.cancel(job)
        return console().print("Cancelled. What snapshots have stays; --resubmit goes on.")
    found = standings(job, cluster.states(job) if job.ids else {})
    if status:
        return _print_standings(job, found, as_json=as_json)
    open_tasks = [one.task for one in found if one.is_open]
    if not open_tasks:
        return console().print("All tasks are complete or at work.")
    if not job.is_training and not (job.folder / "pins" / f"{len(job.configs) - 1}.json").exists():
        return _submit(job, None)
    return _submit(job, open_tasks)


def _print_standings(job: Job, found: list[Standing], *, as_json: bool) -> None:
    from collections import Counter
    from dataclasses import asdict

    if as_json:
        import json

        from panic.cli.common import visible_json

        return typer.echo(visible_json(json.dumps([asdict(one) for one in found], ensure_ascii=False)))
    print_table(
        ["task #", "what", "state", "node"],
        [(one.task, job.what(one.task), one.state, one.node) for one in found],
    )
    counts = Counter(one.state for one in found)
    console().print(", ".join(f"{number:,} {state}" for state, number in counts.most_common()))
    if any(one.is_open for one in found):
        say_error("", f"panic slurm --resubmit --folder {job.folder} goes on with what is not complete.")
    return None
