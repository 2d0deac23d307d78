"""`panic list`, `show`, `stuck`: the experiments of a store and their runs.

panic list; panic show demo; panic show demo --config > again.yaml
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from panic.cli import render
from panic.cli.common import ExperimentArgument, JsonOption, Shared, command, say, tell_options, visible
from panic.cli.render import console, moment, print_json, print_table
from panic.cli.stored import find_run, own_config
from panic.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from panic.store import Store
    from panic.store.records import ExperimentRow, FailureRow, RunRow

SHOWN_RUNS = 40
SHOWN_STEPS = 500


@command
def list_(shared: Shared, as_json: JsonOption = False) -> None:
    """List the experiments of the store."""
    from panic.store import reading, standing
    from panic.store.annotations import NO_MARKS, marks

    with shared.open_store() as store:
        said = marks(store, "experiment")
        sessions = standing.last_sessions(store)
        found = [
            (row, standing.standing(store, row, sessions.get(row.id))) for row in reading.experiments(store)
        ]
    if as_json:
        return print_json(
            [
                {
                    "name": row.name,
                    "id": row.uid,
                    "state": now.state,
                    "runs": now.counts.runs,
                    "done": now.counts.done,
                    "stuck": now.counts.stuck,
                    "repeated": now.counts.repeated,
                    "failed": now.counts.failed,
                    **now.counts.results,
                    "created_at": row.created_at,
                    "tags": list(said.get(row.uid, NO_MARKS).tags),
                    "label": said.get(row.uid, NO_MARKS).label,
                }
                for row, now in found
            ]
        )
    if not found:
        return console().print("No experiments yet. `panic run CONFIG` performs one.")
    columns = ["name", "id", "state", "runs #", "stuck #", "failed #", "invocations #", "created"]
    rows = [
        (
            *(row.name, row.uid[:12], now.state, now.counts.runs, now.counts.stuck, now.counts.failed),
            *(now.counts.invocations, moment(row.created_at)),
        )
        for row, now in found
    ]
    marked = [said.get(row.uid, NO_MARKS) for row, _ in found]
    more = {"label": [one.label for one in marked], "tags": [" ".join(one.tags) or None for one in marked]}
    shown = [name for name, values in more.items() if any(values)]
    wider = [(*row, *(more[name][place] for name in shown)) for place, row in enumerate(rows)]
    return print_table([*columns, *shown], wider)


@command
def show(
    shared: Shared,
    experiment: ExperimentArgument = "latest",
    config: Annotated[bool, typer.Option("--config", help="Print a config that reruns it.")] = False,
    run: Annotated[int | None, typer.Option(metavar="RUN", help="Show the steps of one run.")] = None,
    first: Annotated[
        int, typer.Option("--from", min=0, metavar="STEP", help="With --run: its steps from this one on.")
    ] = 0,
    everything: Annotated[
        bool, typer.Option("--all", help="Show all runs, or all steps of a run, however many.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Show an experiment: its settings, models, sessions and runs."""
    from panic.store import reading

    if config and run is not None:
        raise UsageError("Give either --config or --run.")
    tell_options({"--from": first and run is None}, "without --run")
    if config or (as_json and not first):
        tell_options({"--all": everything}, "here: it is shown whole")
    with shared.open_store() as store:
        row = reading.experiment(store, experiment)
        if config:
            _show_config(store, row, as_json)
        elif run is not None:
            last = None if everything or (as_json and not first) else first + SHOWN_STEPS - 1
            _show_run(store, find_run(store, row, run), (first, last), as_json)
        elif as_json:
            print_json(_experiment_as_dict(store, row))
        else:
            _show_experiment(store, row, everything)


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
    from panic.store.codec import prompt_label

    steps = contents.invocations(store, run.id, *part)
    remarks, earlier = mark.of_run(store, run), reading.earlier_failures(store, run.id)
    if as_json:
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
        return print_json(
            run_as_dict(run)
            | mark.as_dict(remarks)
            | {"earlier_failures": [_failure(one) for one in earlier]}
            | {"steps": [{key: getattr(step, key) for key in keys} for step in steps]}
        )
    console().print(
        f"run {run.id}  {render.network(run.network)}  seed {run.seed}  {run.state}, {details(run)}"
    )
    console().print(f"prompt: {prompt_label(run.prompt)}")
    mark.print_marks(console().print, remarks)
    for one in earlier:
        console().print(f"failed before: {moment(one.failed_at)}, at step {one.step}: {one.message}")
    rows = [(s.step, s.model, s.text if s.text is not None else f"image {s.output[:12]}") for s in steps]
    print_table(["step #", "model", "output"], rows)
    if steps and (left := run.num_steps - steps[-1].step - 1):
        console().print(f"... and {left:,} more: --from {steps[-1].step + 1}, --all or --json")
    return None


def run_as_dict(run: RunRow) -> dict[str, Any]:
    """The JSON of a run."""
    return {
        "run": run.id,
        "network": list(run.network),
        "prompt": run.prompt,
        "seed": run.seed,
        "repeat": run.repeat,
        "max_length": run.max_length,
        "num_steps": run.num_steps,
        "state": run.state,
        "entry_step": run.entry_step,
        "period": run.period,
        "repeated": None if run.repeated is None else run.repeated._asdict(),
        "is_repeatable": run.is_repeatable,
        "failure": None if run.failure is None else _failure(run.failure),
    }


def _failure(failure: FailureRow) -> dict[str, Any]:
    return {key: getattr(failure, key) for key in ("step", "kind", "message", "attempts")}


def details(run: RunRow) -> str:
    """What explains the state of a run."""
    if run.failure is not None:
        return f"at step {run.failure.step}: {run.failure.message}"
    if run.state == "stuck":
        return f"since step {run.entry_step}, period {run.period}"
    if run.repeated is not None:
        entry_step, period, times = run.repeated
        return f"{times} times through the period of {period} since step {entry_step}, not known to go on"
    told = f"{run.num_steps} of {run.max_length} steps"
    return told if run.is_repeatable else f"{told}, not repeatable"


def _experiment_as_dict(store: Store, row: ExperimentRow) -> dict[str, Any]:
    from panic.cli import mark
    from panic.store import reading, standing
    from panic.store.annotations import list_annotations

    unrepeatable = reading.unrepeatable(store)
    runs = reading.runs(store, row.id)
    return {
        "name": row.name,
        "id": row.uid,
        "state": standing.standing(store, row).state,
        "created_at": row.created_at,
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
        "runs": [
            run_as_dict(run) | {"tags": list(of.tags), "label": of.label}
            for run, of in zip(runs, mark.of_runs(store, row.name, runs), strict=True)
        ],
    }


def _asked_last(store: Store, row: ExperimentRow) -> dict[str, Any] | None:
    """The config of the last session that performed one, which may ask for less than the experiment's."""
    from panic.store import reading

    return next((s.config for s in reversed(reading.sessions(store, row.id)) if s.config is not None), None)


def _lineage(store: Store, row: ExperimentRow) -> list[str]:
    """Where prompts came from that are no texts of a config, as the sessions have kept it, each once."""
    from panic.store import reading

    found: dict[str, None] = {}
    for session in reading.sessions(store, row.id):
        entries = session.provenance.get("prompts")
        for entry in entries if isinstance(entries, list) else []:
            wanted = entry.get("from") if isinstance(entry, dict) else None
            if isinstance(wanted, dict) and isinstance(entry.get("prompts"), list):
                said = ", ".join(f"{key} {value}" for key, value in wanted.items())
                uid = f" ({str(entry['uid'])[:12]})" if "uid" in entry else ""
                found[f"{len(entry['prompts']):,} prompts of {said}{uid}"] = None
    return list(found)


def _extent(config: dict[str, Any]) -> str:
    """What a config asks for, in one line; of a stored config, whatever version stored it."""
    diagrams = config.get("diagrams") or []
    numbers = {
        "network": len(config.get("networks", [])),
        "prompt": len(config.get("prompts", [])),
        "seed": len(config.get("seeds", [])),
        "repeat": config.get("repeats", 1),
        "embedding model": len(config.get("embeddings", [])),
        "diagram setting": 1 if isinstance(diagrams, dict) else len(diagrams),
        "vectorisation": len(config.get("vectorisations", [])),
        "distance": len(config.get("distances", [])),
    }
    words = [f"{number:,} {what}{'s' * (number != 1)}" for what, number in numbers.items() if number]
    return ", ".join([*words, f"at most {config.get('max_length', 0):,} steps"])


def _show_experiment(store: Store, row: ExperimentRow, all_runs: bool) -> None:
    from panic.cli import mark
    from panic.store import reading, standing
    from panic.store.annotations import list_annotations
    from panic.store.codec import prompt_label

    now = standing.standing(store, row)
    out = console()
    out.print(f"{row.name}  {row.uid}  {now.state}, created {moment(row.created_at)}")
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
    sessions = [
        (
            moment(s.started_at),
            s.end_state or ("working" if now.pid == s.pid else "killed"),
            str(s.pid),
            s.host,
            s.command,
        )
        for s in reading.sessions(store, row.id)
    ]
    print_table(["began", "ended", "pid", "host", "command"], sessions, "Sessions")
    runs = reading.runs(store, row.id)
    shown = runs if all_runs else runs[:SHOWN_RUNS]
    rows = [
        (
            r.id,
            render.network(r.network),
            render.shorten(prompt_label(r.prompt)),
            str(r.seed),
            r.repeat,
            r.state,
            mark.beside(details(r), of),
        )
        for r, of in zip(shown, mark.of_runs(store, row.name, shown), strict=True)
    ]
    print_table(["run #", "network", "prompt", "seed #", "repeat #", "state", ""], rows, "Runs")
    if len(shown) < len(runs):
        out.print(f"... and {len(runs) - len(shown):,} more: --all or --json")


@command
def stuck(shared: Shared, experiment: ExperimentArgument = "latest", as_json: JsonOption = False) -> None:
    """List the runs that are stuck: since which step, with which period."""
    from panic.store import reading
    from panic.store.codec import prompt_label

    with shared.open_store() as store:
        row = reading.experiment(store, experiment)
        known = reading.runs(store, row.id)
    runs = [run for run in known if run.state == "stuck"]
    keys = ("run", "network", "prompt", "seed", "repeat", "entry_step", "period")
    if as_json:
        return print_json([{key: run_as_dict(run)[key] for key in keys} for run in runs])
    if number := sum(run.state == "repeated" for run in known):
        console(err=True).print(f"{number:,} runs were ended as repeated, which is not stuck: panic show")
    if not runs:
        return console().print(f"No run of {row.name} is stuck.")
    rows = [
        (
            r.id,
            render.network(r.network),
            render.shorten(prompt_label(r.prompt)),
            str(r.seed),
            r.repeat,
            r.entry_step,
            r.period,
        )
        for r in runs
    ]
    return print_table(["run #", "network", "prompt", "seed #", "repeat #", "entry step #", "period #"], rows)
