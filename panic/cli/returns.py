"""`panic returns`: which outputs came up in several runs or came back within one, and where runs meet.

panic returns demo --modality text; panic returns demo --meetings --csv > meetings.csv
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from panic.analysis.shortening import shorten
from panic.cli.common import ExperimentArgument, JsonOption, ProjectOption, Shared, command
from panic.cli.finding import RunsWhereOption, experiment_of, runs_where
from panic.cli.frames import rows
from panic.cli.render import console, print_csv, print_json, print_table
from panic.errors import UsageError

if TYPE_CHECKING:
    import polars as pl

SHOWN_ROWS = 40


@command
def returns(
    shared: Shared,
    experiment: ExperimentArgument = "latest",
    where: RunsWhereOption = None,
    project: ProjectOption = None,
    modality: Annotated[Literal["text", "image"] | None, typer.Option(help="Of these outputs only.")] = None,
    show_meetings: Annotated[
        bool, typer.Option("--meetings", help="With --csv: where runs meet, not the outputs.")
    ] = False,
    everything: Annotated[bool, typer.Option("--all", help="Show all rows, however many.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="CSV for other programs.")] = False,
    as_json: JsonOption = False,
) -> None:
    """List the outputs that came up in several runs or came back within one, and where runs meet.

    Outputs are the same if they are equal to the letter or the pixel.
    """
    if as_csv and as_json:
        raise UsageError("Give either --csv or --json.")
    if show_meetings and not as_csv:
        raise UsageError("--meetings goes with --csv; the others have both.")
    from panic.analysis.data import load
    from panic.analysis.meetings import meetings, returning

    with shared.open_store() as store:
        row = experiment_of(store, experiment, project)
        runs = None if where is None else [run.id for run in runs_where(store, row, where)]
        data = load(store, row.id) if runs is None else load(store, runs=runs)
        outputs, met = returning(data, modality), meetings(data, modality)
    if as_json:
        return print_json({"outputs": rows(outputs), "meetings": rows(met)})
    if as_csv:
        return print_csv(met if show_meetings else outputs)
    shown, met_shown = (outputs, met) if everything else (outputs.head(SHOWN_ROWS), met.head(SHOWN_ROWS))
    _show_outputs(shown, row.name, outputs.height)
    if not met.is_empty():
        _show_meetings(met_shown, met.height, modality or "output")
    return None


def _show_outputs(found: pl.DataFrame, name: str, total: int) -> None:
    if not total:
        return console().print(f"No output of {name} came up twice.")
    columns = [
        "output",
        "times #",
        "runs #",
        "came back #",
        "in runs #",
        "soonest after (model calls) #",
        "first at",
        "prompt",
    ]
    body = [
        (
            *(_named(one), one["times"], one["num_runs"], one["num_back"], one["runs_back"], one["shortest"]),
            *(f"run {one['run']}, model call {one['step']}", "yes" if one["is_prompt"] else None),
        )
        for one in found.iter_rows(named=True)
    ]
    print_table(columns, body, "Outputs that came up again")
    return _tell_rest(total - found.height)


def _show_meetings(found: pl.DataFrame, total: int, modality: str) -> None:
    body = [
        (
            *(one["run"], one["step"], one["other"], one["other_step"], one["together"]),
            *("yes" if one["until_end"] else None, _named(one)),
        )
        for one in found.iter_rows(named=True)
    ]
    columns = ["run #", "at model call #", "meets run #", "at its model call #"]
    columns += [f"alike for ({modality}s) #", "to the end", "output"]
    print_table(columns, body, "Where runs first meet")
    _tell_rest(total - found.height)


def _named(row: dict[str, str | None]) -> str:
    return shorten(row["text"]) if row["text"] is not None else f"image {(row['digest'] or '')[:12]}"


def _tell_rest(number: int) -> None:
    if number > 0:
        console().print(f"... and {number:,} more: --all, --csv or --json")
