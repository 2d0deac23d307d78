"""`panic report`: an experiment, or several side by side, as one HTML file that needs nothing else.

panic report latest --output report.html; panic report demo other
"""

from __future__ import annotations

import re
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from panic.cli.common import ProjectOption, Shared, command, complete_experiment
from panic.cli.destinations import ForceOption, claim_file, claim_report
from panic.cli.finding import BothWhereOption, chosen
from panic.cli.render import console
from panic.errors import UsageError

if TYPE_CHECKING:
    from panic.store import Store
    from panic.store.records import ExperimentRow

MAX_TRAININGS = 8
MAX_STEM = 24  # characters of a training's name in that of a file
MAX_ABREAST = 4
"""Experiments on one page: charts of more would be too narrow to be read."""


@command
def report(
    shared: Shared,
    experiments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="EXPERIMENT",
            help="Name, beginning of an id, or latest (the default); several stand side by side.",
            autocompletion=complete_experiment,
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="By default reports/NAME.html in the store, which is written anew every time.",
        ),
    ] = None,
    of: Annotated[
        Literal["experiment", "training"] | None,
        typer.Option("--of", help="What the page is of: what is named, or what --where finds."),
    ] = None,
    where: BothWhereOption = None,
    project: ProjectOption = None,
    force: ForceOption = False,
) -> None:
    """Write a report of an experiment: pictures, stuck runs, time per model, drift, diagrams.

    Of several experiments it writes what differs in their configs, and the same questions side by side; of
    trainings (--of training) what differs, and their curves.
    """
    if of == "training":
        return _of_trainings(shared, experiments or [], output, where, project, force=force)
    from panic.store import reading

    with shared.open_store() as store, chosen(store, experiments, where, project) as (rows, told):
        _refuse(rows, is_part=bool(told))
        stem = "+".join(reading.file_stem(row.name) for row in rows) + ("-part" if told else "")
        with _claimed(store, f"{stem}.html", output, force=force) as file:
            if len(rows) == 1:
                from panic.analysis.report import write_report

                write_report(store, rows[0].id, file, part=told)
            else:
                from panic.analysis.comparison import write_comparison

                write_comparison(store, [row.id for row in rows], file)
        place = output or file
    if not shared.quiet:
        console().print(f"Report: {place}")


def _claimed(store: Store, name: str, output: Path | None, *, force: bool) -> AbstractContextManager[Path]:
    """Have the path to write a report to, for the file that is named or that of this name in the store."""
    return claim_report(store.path, name) if output is None else claim_file(output, force=force)


def _of_trainings(
    shared: Shared,
    names: list[str],
    output: Path | None,
    where: str | None,
    project: str | None,
    *,
    force: bool,
) -> None:
    """Write the page of trainings."""
    from panic.analysis.training_report import CURVES, MOST_POINTS, write_training_report
    from panic.cli.compare import chosen_trainings
    from panic.train.curves import columns

    with shared.open_store() as store:
        rows = chosen_trainings(store, names, "training", where, project, least=1) or []
        if len(rows) > MAX_TRAININGS:
            raise UsageError(
                f"{len(rows)} trainings are too many for one page: at most {MAX_TRAININGS}.",
                hint="panic compare --of training takes any number.",
            )
        # A folder may be called anything.
        stems = dict.fromkeys(re.sub(r"[^\w.-]", "-", row.name)[:MAX_STEM] for row in rows)
        with _claimed(store, f"trainings-{'+'.join(stems)}.html", output, force=force) as file:
            places = [Path(f"{row.folder}.training") for row in rows]
            journals = {
                name: [columns(place / f"{name}.csv", MOST_POINTS) for place in places] for name in CURVES
            }
            write_training_report(rows, journals, file)
        place = output or file
    if not shared.quiet:
        console().print(f"Report: {place}")


def _refuse(rows: list[ExperimentRow], *, is_part: bool) -> None:
    """Raise UsageError for experiments that cannot stand side by side; parts of several cannot."""
    if is_part and len(rows) > 1:
        raise UsageError(
            "A report of some runs is of one experiment.",
            hint="Name one, or none: --where finds experiments then.",
        )
    names = [row.name for row in rows]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UsageError(f"{twice} is named twice.", hint="Name different experiments: panic list.")
    if len(rows) > MAX_ABREAST:
        raise UsageError(
            f"{len(rows)} experiments are too many for one page: at most {MAX_ABREAST} stand side by side.",
            hint="panic table QUESTION EXPERIMENT... takes any number.",
        )
