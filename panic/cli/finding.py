"""`panic fields`, and what all commands share that find experiments or runs by a filter.

panic list --where "state = complete and runs > 10" --sort -created --columns name,runs,drift
panic fields config
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from panic.analysis.shortening import shorten
from panic.cli.common import JsonOption, Shared, command, say
from panic.cli.render import moment, print_json, print_table
from panic.errors import NotFound

if TYPE_CHECKING:
    from panic.store import Store
    from panic.store.finding.fields import Field, Fields, Target
    from panic.store.records import ExperimentRow, RunRow
    from panic.store.trainings import TrainingRow

SHOWN_ROWS = 40
SHOWN_UID = 12  # characters
SHOWN_VALUE = 40

WhereOption = Annotated[
    str | None,
    typer.Option("--where", "-w", metavar="FILTER", help='Only where this holds, as in "started > -2d".'),
]
RunsWhereOption = Annotated[
    str | None,
    typer.Option("--where", "-w", metavar="FILTER", help='Only runs where this holds, as in "seed = -1".'),
]


def complete_run(context: typer.Context, incomplete: str) -> list[str]:
    """The runs of the store, for the shell: numbers, and uids where one is begun.

    While an option is being completed, nobody knows which experiment was named.
    """
    from panic.errors import PanicError
    from panic.store import Store, reading
    from panic.store.annotations import run_uid

    shared = context.obj or Shared()
    try:
        with Store(Shared(store=context.params.get("store") or shared.store).store_path()) as store:
            names = {row.id: row.name for row in reading.experiments(store)}
            runs = reading.runs(store)
    except PanicError:
        return []
    numbers = [str(run.id) for run in runs]
    uids = [run_uid(names[run.experiment], run) for run in runs] if incomplete else []
    return [name for name in [*numbers, *uids] if name.startswith(incomplete)]


RunOption = Annotated[
    str | None,
    typer.Option(
        "--run",
        metavar="RUN",
        help="This run: its number, or the beginning of its uid.",
        autocompletion=complete_run,
    ),
]
BothWhereOption = Annotated[
    str | None,
    typer.Option(
        "--where", "-w", metavar="FILTER",
        help="Of named experiments only the runs where this holds; else the experiments where it does.",
    ),
]  # fmt: skip
OfOption = Annotated[
    Literal["experiment", "run", "training"] | None,
    typer.Option("--of", help="Of which kind, all that --where finds."),
]
SortOption = Annotated[
    str | None,
    typer.Option("--sort", metavar="FIELD,...", help="Sort by these; -FIELD has the largest first."),
]
ColumnsOption = Annotated[
    str | None, typer.Option("--columns", metavar="FIELD,...", help="Show these; `panic fields` lists them.")
]
LimitOption = Annotated[
    int | None, typer.Option("--limit", min=1, metavar="N", help="At most so many, the first of the order.")
]
CsvOption = Annotated[bool, typer.Option("--csv", help="CSV for other programs.")]


def known_fields() -> Fields:
    """All fields that there are, those of metrics included."""
    from panic.analysis.measured import fields

    return fields(_telling)


def _telling() -> AbstractContextManager[Callable[[str, int, int], None]]:
    from panic.cli.progress import telling

    return telling("summary metrics", quiet=False)


def find(store: Store, target: Target, where: str | None, sort: str | None = None, **more: Any) -> list[int]:
    """The rows that a filter finds, in order. Raises FilterError and UsageError."""
    from panic.store.finding.queries import Query
    from panic.store.finding.queries import find as found

    query = Query(target=target, where=where, sort=sort or "", **more)
    return found(store, query, known_fields())


def experiments_where(store: Store, where: str | None, project: str | None = None) -> list[ExperimentRow]:
    """The experiments that a filter finds, of a project or of all. Raises NotFound where there is none."""
    from panic.store import reading

    ids = find(store, "experiment", where)
    if project is not None:
        of_project = in_project(store, "experiment", project)
        ids = [id for id in ids if id in of_project]
    if not ids:
        among = store.path if project is None else f"the project {project!r}"
        raise NotFound(f"No experiment in {among} is as --where says.", hint="panic list shows all.")
    known = {row.id: row for row in reading.experiments(store)}
    return [known[id] for id in ids]


def experiment_of(store: Store, name: str, project: str | None) -> ExperimentRow:
    """The experiment that is named; `latest` is the last of the project, if one is given.

    Raises NotFound, also for one that is not in the project.
    """
    from panic.store import reading

    if project is None:
        return reading.experiment(store, name)
    of_project = in_project(store, "experiment", project)
    row = reading.experiment(store, name, among=of_project if name == "latest" else None)
    if row.id not in of_project:
        raise NotFound(
            f"{row.name} is not in the project {project!r}.",
            hint=f"panic project {row.name} says which one it is in.",
        )
    return row


def in_project(store: Store, target: Target, project: str) -> set[int]:
    """The experiments of a project, their runs, or its trainings.

    Raises NotFound, naming the nearest, if there are none.
    """
    from panic.errors import nearest
    from panic.store.finding.queries import table

    quoted = project.replace("'", "''")
    if found := set(find(store, target, f"project = '{quoted}'")):
        return found
    kind: Target = "training" if target == "training" else "experiment"
    named = table(store, kind, find(store, kind, None), ["project"], known_fields())
    known = sorted({str(name) for (name,) in named if name is not None})  # null models are in none
    near = nearest(project, known)
    there_are = f"There are {', '.join(known[:SHOWN_ROWS])}." if known else "There are no projects yet."
    raise NotFound(
        f"No {kind} of {store.path} is in the project {project!r}.",
        hint=f"Did you mean {near[0]}?" if near else there_are,
    )


def trainings_where(store: Store, where: str | None, project: str | None) -> list[TrainingRow]:
    """The trainings that a filter finds, of a project or of all. Raises NotFound where there is none."""
    from panic.store.trainings import trainings_at

    ids = find(store, "training", where)
    if project is not None:
        of_project = in_project(store, "training", project)
        ids = [id for id in ids if id in of_project]
    if not ids:
        raise NotFound(f"No training in {store.path} is as --where says.", hint="panic trainings shows all.")
    return trainings_at(store, ids)


@contextmanager
def chosen(
    store: Store, names: Sequence[str] | None, where: str | None, project: str | None = None
) -> Iterator[tuple[list[ExperimentRow], str]]:
    """The experiments that are named, of which only the runs that a filter finds are seen, or that it finds.

    Without names and a filter those of a project, but for null models, if one is given. The text says which
    part of the runs that is; "" for all. Raises NotFound where nothing is found.
    """
    from panic.store import reading
    from panic.store.finding.narrowing import only_runs

    if not names and (where is not None or project is not None):
        found = experiments_where(store, where, project)
        yield [row for row in found if where is not None or not reading.is_null(row.name)], ""
        return
    rows = [experiment_of(store, name, project) for name in names or ["latest"]]
    if where is None:
        yield rows, ""
        return
    runs = [run.id for row in rows for run in runs_where(store, row, where)]
    total = sum(len(reading.runs(store, row.id)) for row in rows)
    with only_runs(store, runs):
        yield rows, f"{len(runs):,} of {total:,} runs: {where}"


def find_run(store: Store, row: ExperimentRow, selector: str) -> RunRow:
    """The run that a number or the beginning of a uid names. Raises NotFound."""
    from panic.store.finding import queries

    return queries.find_run(store, row, selector)


def runs_where(store: Store, row: ExperimentRow, where: str | None) -> list[RunRow]:
    """The runs of an experiment that a filter finds, or all. Raises NotFound where there is none."""
    from panic.store import reading

    runs = reading.runs(store, row.id)
    if where is None:
        return runs
    ids = set(find(store, "run", where, experiment=row.id))
    if not ids:
        raise NotFound(f"No run of {row.name} is as --where says.", hint=f"panic show {row.name} lists them.")
    return [run for run in runs if run.id in ids]


class Listing:
    """Columns of experiments or runs, to be printed as a table, CSV or JSON."""

    def __init__(self, store: Store, target: Target, columns: Sequence[str]) -> None:
        from panic.store.finding.queries import column

        self.store, self.target, self.columns = store, target, columns
        self.fields = known_fields()
        self.chosen: list[Field] = [column(self.fields, name, target) for name in columns]

    def rows(self, ids: Sequence[int]) -> list[tuple[Any, ...]]:
        """The values of rows with these numbers."""
        from panic.store.finding.queries import table

        return table(self.store, self.target, ids, self.columns, self.fields)

    def print_json(self, ids: Sequence[int], names: Sequence[str] | None = None) -> None:
        """Print a JSON list of objects; times are Unix seconds."""
        keys = names or self.columns
        flags = {place for place, field in enumerate(self.chosen) if field.type == "flag"}
        found = (
            [bool(value) if place in flags else value for place, value in enumerate(row)]
            for row in self.rows(ids)
        )
        print_json([dict(zip(keys, row, strict=True)) for row in found])

    def print_csv(self, ids: Sequence[int]) -> None:
        """Print CSV; times are Unix seconds, several texts are joined with commas."""
        write_csv(self.columns, self.rows(ids))

    def print_table(self, ids: Sequence[int]) -> None:
        """Print a table for people."""
        heads = [f"{f.name} #" if f.type == "number" else f.name for f in self.chosen]
        body = [
            [shown(f, value) for f, value in zip(self.chosen, row, strict=True)] for row in self.rows(ids)
        ]
        print_table(heads, body)


def write_csv(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write CSV on stdout; several texts are joined with commas. On a terminal it obeys nothing."""
    import csv
    import io
    import sys

    from panic.cli.common import visible

    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([", ".join(v) if isinstance(v, list) else v for v in row] for row in rows)
    sys.stdout.write(visible(out.getvalue()) if sys.stdout.isatty() else out.getvalue())


def shown(field: Field, value: Any) -> Any:
    """A value as people read it."""
    if value is None:
        return None
    if field.type == "time":
        return moment(value)
    if field.type == "flag":
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, float):
        return f"{value:.4g}"
    if field.name in ("id", "digest"):
        return value[:SHOWN_UID]
    return shorten(value) if isinstance(value, str) else value


def names_of(columns: str | None, otherwise: Sequence[str]) -> list[str]:
    """The names in --columns, or the usual ones."""
    return [name.strip() for name in columns.split(",")] if columns is not None else list(otherwise)


def tell_rest(number: int, what: str) -> None:
    """Say how many more there are than were shown."""
    if number > 0:
        say(f"... and {number:,} {what}: --all, --limit N, --csv or --json")


@command
def fields(
    shared: Shared,
    wanted: Annotated[
        str | None,
        typer.Argument(metavar="WORD", help="Only fields with this in their names.", show_default=False),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List the fields that --where, --sort and --columns know, with their types and an example."""
    rows = [
        {"field": f.name, "of": f.of, "type": f.type, "about": f.about, "example": f.example}
        for f in known_fields().all
    ]
    rows += _config_rows(shared)
    rows = [row for row in rows if wanted is None or wanted in row["field"]]
    if as_json:
        return print_json(rows)
    if not rows:
        return say(f"No field has {wanted!r} in its name.")
    return print_table(["field", "of", "type", "about", "example"], [tuple(row.values()) for row in rows])


def _config_rows(shared: Shared) -> Iterable[dict[str, str]]:
    """Rows of the fields that configs of the store have; none without a store."""
    from panic.errors import StoreMissing
    from panic.store.finding.fields import config_field
    from panic.store.finding.queries import config_paths

    targets: tuple[Target, ...] = ("experiment", "training")
    try:
        with shared.open_store() as store:
            paths = {of: config_paths(store, of=of) for of in targets}
    except StoreMissing:
        return []
    return [
        {"field": name, "of": of, "type": "any"}
        | {"about": config_field(name, of).about, "example": _example(name, value)}
        for of, found in paths.items()
        for name, value in sorted(found.items())
    ]


def _example(name: str, value: str) -> str:
    """A condition that a config with this value (JSON) meets; of a long text its beginning."""
    import json

    found = json.loads(value)
    if not isinstance(found, str):
        return f"{name} = {value}"
    text = found.replace("'", "''")
    if len(text) <= SHOWN_VALUE and text.isprintable():
        return f"{name} = '{text}'"
    beginning = found.split("\n")[0][: SHOWN_VALUE // 2].replace("'", "''")
    return f"{name} like '{beginning}%'"
