"""`panic stuck`: the runs that are stuck, of one experiment or of all of a project.

panic stuck demo --where "period > 2"; panic stuck --project colours
"""

from __future__ import annotations

from typing import Annotated

import typer

from panic.arms import BASELINE
from panic.cli.common import JsonOption, ProjectOption, Shared, command, complete_experiment
from panic.cli.experiments import named, run_as_dict
from panic.cli.finding import (
    RunsWhereOption,
    experiment_of,
    experiments_where,
    find,
    runs_where,
)
from panic.cli.render import console, print_json, print_table
from panic.errors import NotFound

KEYS = ("run", "network", "prompt", "seed", "repeat", "arm", "entry_step", "period")


@command
def stuck(
    shared: Shared,
    experiment: Annotated[
        str | None,
        typer.Argument(
            metavar="EXPERIMENT",
            help="Name, beginning of an id, or latest (the default; with --project all of it).",
            autocompletion=complete_experiment,
            show_default=False,
        ),
    ] = None,
    where: RunsWhereOption = None,
    project: ProjectOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the runs that are stuck: since which model call, with which period."""
    from panic.store import reading

    is_whole = experiment is None and project is not None
    with shared.open_store() as store:
        if is_whole:
            found = experiments_where(store, None, project)
            rows = [row for row in found if not reading.is_null(row.name)]
            wanted = set(find(store, "run", where))
            runs = [run for row in rows for run in reading.runs(store, row.id) if run.id in wanted]
            if where is not None and not runs:
                raise NotFound(f"No run of the project {project} is as --where says.")
        else:
            rows = [experiment_of(store, experiment or "latest", project)]
            runs = runs_where(store, rows[0], where)
    names = {row.id: row.name for row in rows}
    shown = [run for run in runs if run.state == "stuck"]
    if as_json:
        whose = [{"experiment": names[run.experiment]} if is_whole else {} for run in shown]
        plain = ({key: run_as_dict(run)[key] for key in KEYS} for run in shown)
        return print_json([of | one for of, one in zip(whose, plain, strict=True)])
    if number := sum(run.state == "repeated" for run in runs):
        console(err=True).print(f"{number:,} runs were ended as repeated, which is not stuck: panic show")
    if not shown:
        of = f"the project {project}" if is_whole else rows[0].name
        return console().print(f"No run of {of} is stuck.")
    in_arms = ["arm"] if any(run.arm != BASELINE for run in runs) else []
    body = [
        (*([names[run.experiment]] if is_whole else []), *named(run, in_arms), run.entry_step, run.period)
        for run in shown
    ]
    columns = ["run #", "network", "prompt", "seed #", "repeat #", *in_arms, "entered at model call #"]
    columns.append("period (model calls) #")
    return print_table([*(["experiment"] if is_whole else []), *columns], body)
