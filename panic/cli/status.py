"""`panic status`: where an experiment stands, also while another process performs it.

panic status --watch
"""

from __future__ import annotations

import sys
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from panic.cli import served as telling
from panic.cli.common import EitherArgument, JsonOption, ProjectOption, Shared, command, tell_options
from panic.cli.render import STATE_STYLES, console, count, duration, make_table, moment, print_json
from panic.errors import NotFound

if TYPE_CHECKING:
    from rich.console import RenderableType

    from panic.store import Store
    from panic.store.records import Counts, ExperimentRow
    from panic.store.standing import Standing
    from panic.store.trainings import TrainingRow


@command
def status(
    shared: Shared,
    experiment: EitherArgument = "latest",
    project: ProjectOption = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Look again until it ends.")] = False,
    interval: Annotated[
        float | None, typer.Option(min=0.1, metavar="SECONDS", help="How often to look again; 2 by default.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show where an experiment, or a training, stands; works while it runs elsewhere.

    With --watch --json one line of JSON every time.
    """
    from panic.cli.finding import experiment_of
    from panic.store.trainings import named_training

    tell_options({"--interval": interval and not watch}, "without --watch")
    interval = interval or 2.0
    with shared.open_store() as store:
        training = named_training(store, experiment) if project is None else None
        if training is not None:
            _tell_training(store, training, interval if watch else None, as_json=as_json)
        elif as_json:
            while True:
                row = experiment_of(store, experiment, project)
                found = as_dict(store, row)
                print_json(found, indent=None if watch else 2)
                sys.stdout.flush()
                if not watch or found["state"] != "running":
                    return
                time.sleep(interval)
        elif watch:
            _watch(store, experiment_of(store, experiment, project).id, interval)
        else:
            console().print(_panel(store, experiment_of(store, experiment, project)))


def as_dict(store: Store, row: ExperimentRow) -> dict[str, Any]:
    """The JSON of an experiment's standing."""
    from panic.store import reading, served, standing

    now = standing.standing(store, row)
    counts = now.counts
    return {
        "state": now.state,
        "runs": {
            "total": counts.runs,
            **{state: getattr(counts, state) for state in ("done", "stuck", "repeated", "failed")},
        },
        **counts.results,
        "models": [
            {name: getattr(time, name) for name in time.__slots__}
            for time in reading.model_times(store, row.id)
        ],
        "devices": [asdict(device) for device in standing.device_times(store, row.id)],
        "endpoints": served.served(store, row),
        "budget": row.config.get("budget"),
        "eta_s": standing.eta_s(store, row, now),
        "pid": now.pid,
    }


def _tell_training(store: Store, row: TrainingRow, interval: float | None, *, as_json: bool) -> None:
    """Tell how far a training is; again after every interval, until it is over."""
    from panic.store.trainings import place_of, trainings_at

    place = place_of(store, row)
    while True:
        found = trainings_at(store, [place])
        if not found:
            raise NotFound(f"{row.name} was deleted.")
        [row] = found
        is_last = interval is None or row.state != "running"
        if as_json:
            print_json(training_as_dict(row), indent=2 if interval is None else None)
        else:
            left = training_as_dict(row)["eta_s"]
            losses = {"loss": row.loss, "on validation items": row.val_loss, "least": row.best_loss}
            told = [f"{what} {value:.4g}" for what, value in losses.items() if value is not None]
            told += [f"about {duration(left)} left"] if left is not None else []
            told += [row.message] if row.message else []
            name = f"{row.name}  {row.uid[:12]}  {row.state}"
            console().print(", ".join([f"{name}, step {row.step:,} of {row.steps:,}", *told]), soft_wrap=True)
        sys.stdout.flush()
        if is_last:
            return
        time.sleep(interval or 0.0)


def training_as_dict(row: TrainingRow) -> dict[str, Any]:
    """The JSON of a training's standing; eta_s: seconds left at the pace of all of its sessions."""
    names = (
        "step",
        "steps",
        "loss",
        "val_loss",
        "best_loss",
        "best_step",
        "seconds",
        "host",
        "pid",
        "message",
    )
    left = (row.steps - row.step) * row.seconds / row.step if row.step else None
    state = row.state
    eta_s = left if state == "running" else None
    return {"state": state, **{name: getattr(row, name) for name in names}, "eta_s": eta_s}


def _watch(store: Store, experiment: int, interval: float) -> None:
    from rich.live import Live

    from panic.store import reading, standing

    with Live(console=console(), auto_refresh=False) as live:
        while True:
            [row] = [row for row in reading.experiments(store) if row.id == experiment]
            now = standing.standing(store, row)
            live.update(_panel(store, row, now), refresh=True)
            if now.state != "running":
                return
            time.sleep(interval)


def _panel(store: Store, row: ExperimentRow, now: Standing | None = None) -> RenderableType:
    """What a person wants to know: state, counts as bars, time per model."""
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    from panic.store import reading, served, standing

    now = now or standing.standing(store, row)
    counts = now.counts
    title = Text.assemble((row.name, "bold"), f"  {row.uid[:12]}  ", (now.state, STATE_STYLES[now.state]))
    lines = Table.grid(padding=(0, 2))
    parts = [f"{counts.ended:,} of {counts.runs:,}"]
    parts += [f"{n:,} {what}" for n, what in _ended_early(counts) if n]
    lines.add_row("runs", ProgressBar(max(1, counts.runs), counts.ended, width=30), ", ".join(parts))
    for what, number in counts.results.items():
        if number:
            lines.add_row(what, "", f"{number:,}")
    if now.state == "running":
        lines.add_row("time left", "", f"at most {duration(standing.eta_s(store, row, now))}")
    if now.session is not None:
        verb = "process" if now.session.is_alive else "last process"
        lines.add_row(
            verb,
            "",
            f"{now.session.pid} on {now.session.host}, since {moment(now.session.started_at)}"
            if now.session.is_alive
            else f"{now.session.pid} on {now.session.host}, {moment(now.session.started_at)}",
        )
    if told := served.budget(store, row):
        lines.add_row("budget", "", told)
    endpoints = telling.rows(served.served(store, row))
    more = [make_table(telling.COLUMNS, endpoints)] if endpoints else []
    times = reading.model_times(store, row.id)
    if not times:
        return Group(title, lines, *more)
    devices = standing.device_times(store, row.id)
    if len(devices) > 1:
        each = [(one.device, one.batches, one.items, duration(one.duration_s)) for one in devices]
        more.insert(0, make_table(["device", "batches #", "items #", "time #"], each))
    rows = [
        (
            t.model,
            t.batches,
            t.items,
            f"{t.padding_items / (t.items + t.padding_items):.0%}",
            duration(t.duration_s),
            duration(t.padding_s),
            count(t.items / t.duration_s if t.duration_s else None),
        )
        for t in times
    ]
    columns = ["model", "batches #", "items #", "padding #", "time #", "of it padding #", "items/s #"]
    return Group(title, lines, make_table(columns, rows), *more)


def _ended_early(counts: Counts) -> list[tuple[int, str]]:
    return [(getattr(counts, state), state) for state in ("stuck", "repeated", "failed")]
