"""`panic best`: which experiments, runs or trainings have most or least of a number.

panic best --by drift --least; panic best --of run --by period; panic best --of training --by val_loss --least
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from panic.analysis.shortening import shorten
from panic.cli.common import JsonOption, ProjectOption, Shared, command, complete_experiment
from panic.cli.compare import chosen_experiments
from panic.cli.finding import (
    SHOWN_UID,
    CsvOption,
    OfOption,
    WhereOption,
    experiment_of,
    find,
    in_project,
    known_fields,
    write_csv,
)
from panic.cli.render import console, print_json, print_table
from panic.errors import NotFound, UsageError

if TYPE_CHECKING:
    from panic.store import Store
    from panic.store.finding.fields import Field, Target

COLUMNS: dict[Target, tuple[str, ...]] = {
    "experiment": ("name", "id"),
    "run": ("name", "run", "uid", "prompt"),
    "training": ("name", "id", "folder"),
}
"""What is told of each kind beside the number."""
Rows = list[tuple[Any, ...]]


def complete_metric(incomplete: str) -> list[str]:
    """The names of metrics, for the shell."""
    from panic.analysis.metrics import METRICS

    return [name for name in METRICS if name.startswith(incomplete)]


def complete_number(context: typer.Context, incomplete: str) -> list[str]:
    """The names of metrics, or of the numbers that are known of runs or trainings, for the shell."""
    if (of := context.params.get("of")) not in ("run", "training"):
        return complete_metric(incomplete)
    known = [name for name, field in known_fields().known(of).items() if field.type == "number"]
    return [name for name in known if name.startswith(incomplete)]


@command
def best(
    shared: Shared,
    by: Annotated[
        str,
        typer.Option(
            "--by",
            metavar="METRIC",
            help="A metric; of runs and trainings any field that is a number.",
            autocompletion=complete_number,
        ),
    ],
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="EXPERIMENT",
            help="Among these, or their runs; by default all of the store.",
            autocompletion=complete_experiment,
            show_default=False,
        ),
    ] = None,
    of: OfOption = None,
    where: WhereOption = None,
    project: ProjectOption = None,
    least: Annotated[bool, typer.Option("--least", help="The least first.")] = False,
    limit: Annotated[int, typer.Option("--limit", min=1, metavar="N", help="How many are listed.")] = 10,
    as_csv: CsvOption = False,
    as_json: JsonOption = False,
) -> None:
    """List the experiments by the mean of a metric over their runs; or runs, or trainings, by a number."""
    if as_csv and as_json:
        raise UsageError("Give either --csv or --json.")
    with shared.open_store() as store:
        if of is None or of == "experiment":
            about, found = _experiments(store, by, names, where, project)
            heads: tuple[str, ...] = ("name", "id", by, "runs")
            found.sort(key=lambda one: one[2], reverse=not least)
            shown = found[:limit]
        else:
            sort = by if least else f"-{by}"
            field = _number(by, of)
            ids = find(store, of, where, sort)
            ids = _among(store, of, ids, names, where, project)
            about, heads = field.about, (*COLUMNS[of], by)
            shown = _measured(store, of, ids, heads, limit)
    if as_json:
        return print_json([dict(zip(heads, one, strict=True)) for one in shown])
    if as_csv:
        return write_csv(heads, shown)
    if not shown:
        return console().print(f"No {of or 'run'} has a {by} ({about}).")
    numbers = (by, "runs", "run")
    body = [[_cell(head, value) for head, value in zip(heads, one, strict=True)] for one in shown]
    print_table([f"{head} #" if head in numbers else head for head in heads], body)
    return console().print(f"{by}: {about}{', mean over runs' if of in (None, 'experiment') else ''}")


def _experiments(
    store: Store, by: str, names: list[str] | None, where: str | None, project: str | None
) -> tuple[str, Rows]:
    """What a metric is, and name, id, mean and number of runs of the experiments that have it."""
    from panic.analysis.measured import means
    from panic.analysis.metrics import METRICS, require_metric
    from panic.store import reading

    require_metric(by)
    chosen = chosen_experiments(store, names, where, project)
    if not (names or where or project):
        chosen = [row for row in reading.experiments(store) if not reading.is_null(row.name)]
    known = means(store, by, [row.id for row in chosen])
    found = [(row.name, row.uid[:SHOWN_UID], *known[row.id]) for row in chosen if row.id in known]
    return METRICS[by].what, found


def _number(by: str, of: Target) -> Field:
    """The field that runs or trainings are ordered by. Raises UsageError for one that is no number."""
    from panic.store.finding.queries import column

    fields = known_fields()
    field = column(fields, by, of)
    if field.type not in ("number", "any"):
        known = [name for name, one in fields.known(of).items() if one.type == "number" and "." not in name]
        raise UsageError(f"{by} is no number.", hint=f"Numbers are: {', '.join(known)}.")
    return field


def _among(
    store: Store,
    of: Target,
    ids: Sequence[int],
    names: Sequence[str] | None,
    where: str | None,
    project: str | None,
) -> list[int]:
    """Those of runs or trainings that are of these experiments, or in a project; else all but null models."""
    from panic.store import reading

    if of == "training":
        if names:
            raise UsageError("Trainings are of no experiment.", hint="--where finds some of them.")
        of_project = set(ids) if project is None else in_project(store, of, project)
        return [id for id in ids if id in of_project]
    chosen = set(ids)
    if of == "run" and not (names or project or where):
        rows = [row for row in reading.experiments(store) if reading.is_null(row.name)]
        chosen -= {run.id for row in rows for run in reading.runs(store, row.id)}
    if project is not None:
        chosen &= in_project(store, "run", project)
    if names:
        rows = [experiment_of(store, name, project) for name in names]
        chosen &= {run.id for row in rows for run in reading.runs(store, row.id)}
    return [id for id in ids if id in chosen]


def _measured(store: Store, of: Target, ids: Sequence[int], heads: Sequence[str], limit: int) -> Rows:
    """The first rows that have a number; those without one come last. Raises NotFound for what is none."""
    from panic.store.finding.queries import table

    found = table(store, of, ids[:limit], heads, known_fields())
    shown = [row for row in found if row[-1] is not None]
    if strange := next((row[-1] for row in shown if not isinstance(row[-1], int | float)), None):
        raise NotFound(f"{heads[-1]} is no number everywhere: there is {shorten(str(strange))!r}.")
    return shown


def _cell(head: str, value: Any) -> Any:
    """A value as people read it."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if head in ("id", "uid"):
        return value[:SHOWN_UID]
    return shorten(value) if isinstance(value, str) else value
