"""`panic list` and `panic show`: the experiments of a store and their runs.

panic list; panic show demo; panic show demo --config > again.yaml
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from panic.analysis.shortening import shorten
from panic.arms import BASELINE
from panic.cli import render
from panic.cli.common import (
    EitherArgument,
    JsonOption,
    ProjectOption,
    Shared,
    command,
    say,
    tell_options,
    visible,
)
from panic.cli.finding import (
    SHOWN_ROWS,
    ColumnsOption,
    CsvOption,
    LimitOption,
    Listing,
    RunOption,
    RunsWhereOption,
    SortOption,
    WhereOption,
    experiment_of,
    find,
    find_run,
    in_project,
    names_of,
    runs_where,
    tell_rest,
)
from panic.cli.origin import print_origin
from panic.cli.render import console, moment, print_json, print_table
from panic.cli.stored import own_config
from panic.errors import ConfigError, NotFound, UsageError

if TYPE_CHECKING:
    from panic.store import Store
    from panic.store.finding.fields import Target
    from panic.store.records import ExperimentRow, FailureRow, InvocationRow, RunRow, SessionRow

SHOWN_RUNS = 40
SHOWN_STEPS = 500


IN_JSON = {
    **{name: name for name in ("name", "id", "state", "runs", "done", "stuck", "repeated", "failed")},
    **{name: name for name in ("invocations", "embeddings", "diagrams", "vectorisations", "distances")},
    "created": "created_at",
    **{name: name for name in ("tags", "label")},
}
"""The fields of an experiment in JSON, and their keys there."""


@command
def list_(
    shared: Shared,
    where: WhereOption = None,
    project: ProjectOption = None,
    sort: SortOption = None,
    columns: ColumnsOption = None,
    runs: Annotated[bool, typer.Option("--runs", help="List runs, of all experiments.")] = False,
    outputs: Annotated[bool, typer.Option("--outputs", help="List texts and images, of all runs.")] = False,
    limit: LimitOption = None,
    everything: Annotated[bool, typer.Option("--all", help="Show all, however many.")] = False,
    as_csv: CsvOption = False,
    as_json: JsonOption = False,
) -> None:
    """List the experiments of the store, or its runs or outputs, with a filter, an order and columns."""
    from panic.store.finding.found import COLUMNS

    if as_csv and as_json:
        raise UsageError("Give either --csv or --json.")
    if outputs and (runs or project is not None):
        raise UsageError("Outputs are of many runs.", hint="--outputs --where \"'night' in experiment\"")
    target: Target = "output" if outputs else "run" if runs else "experiment"
    is_usual = target == "experiment" and columns is None
    is_table = not (as_csv or as_json)
    tell_options({"--all": everything and (not is_table or limit is not None)}, "here")
    with shared.open_store() as store:
        names = names_of(columns, list(IN_JSON) if as_json and is_usual else COLUMNS[target])
        if is_usual and is_table:
            names += _mark_columns(store)
        listing = Listing(store, target, names)
        found = find(store, target, where, sort)
        if project is not None:
            of_project = in_project(store, target, project)
            found = [row for row in found if row in of_project]
        most = limit or (len(found) if everything or not is_table else SHOWN_ROWS)
        # The newest are of most interest, and stand at the end.
        chosen = found[:most] if sort or limit else found[max(0, len(found) - most) :]
        if as_json:
            return listing.print_json(chosen, [IN_JSON.get(n, n) for n in names] if columns is None else None)
        if as_csv:
            return listing.print_csv(chosen)
        if not found:
            return console().print(
                f"No {target} is as --where says."
                if where is not None
                else "No experiments yet. `panic run CONFIG` performs one."
            )
        listing.print_table(chosen)
    return tell_rest(len(found) - len(chosen), "more" if sort or limit else "older ones")


def _mark_columns(store: Store) -> list[str]:
    """The columns of labels and tags, where any experiment has some."""
    from panic.store.annotations import has_marks

    known = zip(("label", "tags"), has_marks(store, "experiment"), strict=True)
    return [name for name, is_there in known if is_there]


@command
def show(
    shared: Shared,
    experiment: EitherArgument = "latest",
    config: Annotated[bool, typer.Option("--config", help="Print a config that reruns it.")] = False,
    run: RunOption = None,
    where: RunsWhereOption = None,
    project: ProjectOption = None,
    first: Annotated[
        int,
        typer.Option(
            "--from", min=0, max=10**9, metavar="STEP", help="With --run: its steps from this one on."
        ),
    ] = 0,
    everything: Annotated[
        bool, typer.Option("--all", help="Show all runs, or all steps of a run, however many.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Show an experiment: its settings, models, sessions and runs; or a training, by name, id or folder."""
    from panic.store import standing

    if config and run is not None:
        raise UsageError("Give either --config or --run.")
    tell_options({"--where": where is not None and (config or run is not None)}, "with --config or --run")
    tell_options({"--from": first and run is None}, "without --run")
    if config or (as_json and not first):
        tell_options({"--all": everything}, "here: it is shown whole")
    with shared.open_store() as store:
        try:
            row = experiment_of(store, experiment, project)
        except NotFound:
            from panic.cli.trainings import show_training
            from panic.store.trainings import find_training

            training = find_training(store, experiment) if project is None else None
            if training is None:
                raise
            if run is not None:
                raise UsageError(f"{experiment} is a training, which has no runs.") from None
            tell_options({"--where": where, "--from": first, "--all": everything}, "for a training")
            return show_training(store, training, as_json=as_json, is_config=config)
        if config:
            _show_config(store, row, as_json)
        elif run is not None:
            last = None if everything or (as_json and not first) else first + SHOWN_STEPS - 1
            _show_run(store, find_run(store, row, run), (first, last), as_json)
        elif as_json:
            runs = runs_as_dicts(store, row, runs_where(store, row, where))
            state = standing.standing(store, row).state
            print_json(experiment_as_dict(store, row, state) | {"runs": runs})
        else:
            _show_experiment(store, row, runs_where(store, row, where), everything)
    return None


def _show_config(store: Store, row: ExperimentRow, as_json: bool) -> None:
    """Print the union of what was asked for; where it asks for more than that, say so; YAML does it, too.

    Raises: ConfigError for a config that another version stored, unless it is printed as JSON, as it is.
    """
    from panic.config import to_yaml
    from panic.engine.plan import more_than_asked
    from panic.store import reading

    try:
        config = own_config(row)
    except (ConfigError, UsageError):
        if as_json:
            return print_json(row.config)
        raise
    if more := more_than_asked(config, reading.runs(store, row.id)):
        say(more, err=True)
    if as_json:
        return print_json(row.config)
    # Such characters stand in double quotes in YAML, where their escapes mean the same.
    sys.stdout.write(visible((f"# {more}\n" if more else "") + to_yaml(config)))
    return None


def _show_run(store: Store, run: RunRow, part: tuple[int, int | None], as_json: bool) -> None:
    """Show a run and its steps from the first to the last of a part."""
    from panic.cli import mark
    from panic.store import contents, reading
    from panic.store.annotations import run_uid
    from panic.store.codec import prompt_label

    steps = contents.invocations(store, run.id, *part)
    remarks, earlier = mark.of_run(store, run), reading.earlier_failures(store, run.id)
    between = contents.interventions(store, run.id, *part)
    uid = run_uid(reading.experiment(store, run.experiment).name, run)
    if as_json:
        shown: dict[str, Any] = {"earlier_failures": [failure_as_dict(one) for one in earlier]}
        shown["steps"] = [step_as_dict(step) for step in steps]
        if between:
            shown["interventions"] = [one._asdict() for one in between]
        return print_json(run_as_dict(run) | {"uid": uid} | mark.as_dict(remarks) | shown)
    arm = "" if run.arm == BASELINE else f"  arm {run.arm}"
    whose = f"run {run.id}  {uid}  {render.network(run.network)}  seed {run.seed}{arm}"
    console().print(f"{whose}  {run.state}, {details(run)}")
    console().print(f"prompt: {prompt_label(run.prompt)}")
    mark.print_marks(console().print, remarks)
    for failure in earlier:
        console().print(
            f"failed before: {moment(failure.failed_at)}, at model call {failure.step}: {failure.message}"
        )
    rows = [(s.step, 1, 0, f"{s.step:,}", s.model, _shown(s.text, s.output)) for s in steps]
    for one in between:
        what = "another network" if one.kind == "network" else _shown(one.text, one.output)
        rows.append((one.step, 0, one.place, f"before {one.step:,}", one.model or one.kind, what))
    print_table(["step #", "model", "output"], [row[3:] for row in sorted(rows)])
    if steps and (left := run.num_steps - steps[-1].step - 1):
        console().print(f"... and {left:,} more: --from {steps[-1].step + 1}, --all or --json")
    return None


def _shown(text: str | None, digest: str) -> str:
    """An output in a table."""
    return text if text is not None else f"image {digest[:12]}"


def run_as_dict(run: RunRow) -> dict[str, Any]:
    """The JSON of a run."""
    return {
        "run": run.id,
        "network": list(run.network),
        "prompt": run.prompt,
        "seed": run.seed,
        "repeat": run.repeat,
        "arm": run.arm,
        "max_length": run.max_length,
        "num_steps": run.num_steps,
        "state": run.state,
        "entry_step": run.entry_step,
        "period": run.period,
        "repeated": None if run.repeated is None else run.repeated._asdict(),
        "is_repeatable": run.is_repeatable,
        "failure": None if run.failure is None else failure_as_dict(run.failure),
    }


def step_as_dict(step: InvocationRow) -> dict[str, Any]:
    """The JSON of a step of a run."""
    keys = (
        "step",
        "model",
        "seed",
        "input",
        "output",
        "modality",
        "text",
        "device",
        "started_at",
        "duration_s",
    )
    return {key: getattr(step, key) for key in keys}


def failure_as_dict(failure: FailureRow) -> dict[str, Any]:
    """The JSON of a failure."""
    return {key: getattr(failure, key) for key in ("step", "kind", "message", "attempts")}


def details(run: RunRow) -> str:
    """What explains the state of a run."""
    if run.failure is not None:
        return f"at model call {run.failure.step}: {run.failure.message}"
    if run.state == "stuck":
        return f"since model call {run.entry_step}, with a period of {run.period} model calls"
    if run.repeated is not None:
        entry_step, period, times = run.repeated
        return (
            f"{times} times through the period of {period} model calls since model call {entry_step}, not "
            "known to go on"
        )
    told = f"{run.num_steps} of {run.max_length} model calls"
    return told if run.is_repeatable else f"{told}, not repeatable"


def experiment_as_dict(store: Store, row: ExperimentRow, state: str) -> dict[str, Any]:
    """The JSON of an experiment, without its runs."""
    from panic.cli import mark
    from panic.cli.project import project_of
    from panic.store import reading
    from panic.store.annotations import list_annotations

    unrepeatable = reading.unrepeatable(store)
    return {
        "name": row.name,
        "id": row.uid,
        "state": state,
        "created_at": row.created_at,
        "project": project_of(store, row.uid, row.config),
        "config": row.config,
        "asked_last": _asked_last(store, row),
        **mark.as_dict(list_annotations(store, "experiment", row.uid)),
        "models": [
            {
                "name": epoch.name,
                "epoch": epoch.number,
                "fingerprint": epoch.fingerprint,
                "batch_size": epoch.batch_size,
                "device_kind": epoch.device_kind,
                "threads": epoch.threads,
                "is_repeatable": (row.id, epoch.name) not in unrepeatable,
            }
            for epoch in reading.epochs(store, row.id)
        ],
        "sessions": [
            {
                key: getattr(session, key)
                for key in ("command", "pid", "host", "started_at", "ended_at", "end_state", "provenance")
            }
            for session in reading.sessions(store, row.id)
        ],
    }


def runs_as_dicts(store: Store, row: ExperimentRow, runs: Sequence[RunRow]) -> list[dict[str, Any]]:
    """The JSON of runs of an experiment."""
    from panic.cli import mark
    from panic.store.annotations import run_uid

    return [
        run_as_dict(run) | {"uid": run_uid(row.name, run), "tags": list(of.tags), "label": of.label}
        for run, of in zip(runs, mark.of_runs(store, row.name, runs), strict=True)
    ]


def _asked_last(store: Store, row: ExperimentRow) -> dict[str, Any] | None:
    """The config of the last session that performed one, which may ask for less than the experiment's."""
    from panic.store import reading

    return next((s.config for s in reversed(reading.sessions(store, row.id)) if s.config is not None), None)


def _lineage(store: Store, row: ExperimentRow) -> list[str]:
    """Where prompts came from that are no texts of a config, as the sessions have kept it, each once."""
    from panic.analysis.origin import listed, mapping
    from panic.store import reading

    found: dict[str, None] = {}
    for session in reading.sessions(store, row.id):
        for entry in map(mapping, listed(session.provenance.get("prompts"))):
            given = entry.get("prompts")
            number = len(given) if isinstance(given, list) else entry.get("num_prompts")
            if isinstance(number, int):
                ids = {key: str(entry[key])[:12] for key in ("uid", "sha256", "md5") if key in entry}
                said = [f"{key} {value}" for key, value in {**mapping(entry.get("from")), **ids}.items()]
                found[f"{number:,} prompts of {', '.join(said)}"] = None
    return list(found)


def _extent(config: dict[str, Any]) -> str:
    """What a config asks for, in one line; of a stored config, whoever and whatever version stored it."""

    def entries(key: str) -> int:
        said = config.get(key)
        return len(said) if isinstance(said, list | dict) else 0

    def number(key: str, otherwise: int) -> int:
        said = config.get(key)
        return said if isinstance(said, int) else otherwise

    numbers = {
        "network": entries("networks"),
        "prompt": entries("prompts"),
        "seed": entries("seeds"),
        "repeat": number("repeats", 1),
        "arm": entries("arms"),
        "embedding model": entries("embeddings"),
        "diagram setting": 1 if isinstance(config.get("diagrams") or [], dict) else entries("diagrams"),
        "vectorisation": entries("vectorisations"),
        "distance": entries("distances"),
    }
    words = [f"{number:,} {what}{'s' * (number != 1)}" for what, number in numbers.items() if number]
    return ", ".join([*words, f"at most {number('max_length', 0):,} model calls a run"])


def _show_experiment(store: Store, row: ExperimentRow, runs: list[RunRow], all_runs: bool) -> None:
    from panic.cli import mark
    from panic.cli.project import project_of
    from panic.store import reading, standing
    from panic.store.annotations import list_annotations

    now = standing.standing(store, row)
    out = console()
    out.print(f"{row.name}  {row.uid}  {now.state}, created {moment(row.created_at)}")
    out.print(f"project:          {project_of(store, row.uid, row.config)}")
    out.print(f"asked for in all: {_extent(row.config)}")
    last = _asked_last(store, row)
    if last is not None and _extent(last) != _extent(row.config):
        out.print(f"asked for last:   {_extent(last)}")
    for line in _lineage(store, row):
        out.print(f"begins with:      {line}")
    mark.print_origins(out.print, store, row.uid)
    mark.print_marks(out.print, list_annotations(store, "experiment", row.uid))
    epochs = [
        (e.name, e.number, e.batch_size, e.device_kind, e.threads, e.fingerprint[:12])
        for e in reading.epochs(store, row.id)
    ]
    print_table(["model", "epoch #", "batch size #", "device", "threads #", "fingerprint"], epochs, "Models")
    on_several = any(" " in _devices(s) for s in reading.sessions(store, row.id))
    sessions = [
        (
            moment(s.started_at),
            s.end_state or ("working" if now.pid == s.pid else "killed"),
            str(s.pid),
            s.host,
            *([_devices(s)] if on_several else []),
            s.command,
        )
        for s in reading.sessions(store, row.id)
    ]
    columns = ["began", "ended", "pid", "host", *(["devices"] if on_several else []), "command"]
    print_table(columns, sessions, "Sessions")
    print_origin(reading.sessions(store, row.id))
    shown = runs if all_runs else runs[:SHOWN_RUNS]
    in_arms = ["arm"] if any(run.arm != BASELINE for run in runs) else []
    rows = [
        (*named(r, in_arms), r.state, mark.beside(details(r), of))
        for r, of in zip(shown, mark.of_runs(store, row.name, shown), strict=True)
    ]
    print_table(["run #", "network", "prompt", "seed #", "repeat #", *in_arms, "state", ""], rows, "Runs")
    if len(shown) < len(runs):
        out.print(f"... and {len(runs) - len(shown):,} more: --all or --json")


def _devices(session: SessionRow) -> str:
    """The devices that a session was asked to use."""
    asked = (session.config or {}).get("device", "")
    return asked if isinstance(asked, str) else " ".join(map(str, asked))


def named(run: RunRow, in_arms: Sequence[str]) -> tuple[Any, ...]:
    """What tells a run from others in a table; its arm, where any run has one."""
    from panic.store.codec import prompt_label

    prompt = shorten(prompt_label(run.prompt))
    arm = [run.arm] if in_arms else []
    return run.id, render.network(run.network), prompt, str(run.seed), run.repeat, *arm
