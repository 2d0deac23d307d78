"""`panic compare`: what experiments, runs or trainings differ in.

panic compare demo other; panic compare --of run 3 5; panic compare --of training --where "name like 'quick%'"
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from panic.analysis.shortening import shorten
from panic.cli.common import JsonOption, ProjectOption, Shared, command, complete_either
from panic.cli.finding import (
    WhereOption,
    experiment_of,
    experiments_where,
    find,
    in_project,
    known_fields,
    trainings_where,
)
from panic.cli.render import console, print_csv, print_json, print_table
from panic.errors import NotFound, UsageError

if TYPE_CHECKING:
    from panic.analysis.contrasts import Contrast
    from panic.analysis.paired import Comparison, Pairing, Summary
    from panic.store import Store
    from panic.store.records import ExperimentRow
    from panic.store.trainings import TrainingRow

CsvOption = Annotated[bool, typer.Option("--csv", help="CSV for programs.")]
MAX_CELL = 60
LONGEST_RUN = 18
"""So many characters can name a run: 16 of its uid, or the digits of a number of 64 bits."""
Form = Literal["text", "csv", "json"]


@command
def compare(
    shared: Shared,
    experiments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="EXPERIMENT EXPERIMENT...",
            help="Two or more; each other one is compared with the first.",
            autocompletion=complete_either,
            show_default=False,
        ),
    ] = None,
    of: Annotated[
        Literal["experiment", "run", "training"] | None,
        typer.Option("--of", help="What is compared; a run is named by its number or uid."),
    ] = None,
    where: WhereOption = None,
    project: ProjectOption = None,
    everything: Annotated[bool, typer.Option("--all", help="Also what they have in common.")] = False,
    as_csv: CsvOption = False,
    as_json: JsonOption = False,
) -> None:
    """Tell what experiments differ in: config, models, code, versions, hardware, and summary metrics.

    Metrics are means over runs with their spread over seeds, paired by prompt; p values are corrected.
    Trainings of the store, by name or folder, are compared likewise, without tests, and so are single runs:
    what they are, how they went, and at which step their outputs part.
    """
    from panic.analysis.contrasts import contrasts
    from panic.analysis.paired import pairing

    if as_csv and as_json:
        raise UsageError("Give either --csv or --json.")
    form: Form = "csv" if as_csv else "json" if as_json else "text"
    with shared.open_store() as store:
        if of == "run":
            return _compare_runs(store, _runs(store, experiments or [], where, project), everything, form)
        trainings = (
            None if of == "experiment" else chosen_trainings(store, experiments or [], of, where, project)
        )
        if trainings is not None:
            return _compare_trainings(trainings, everything, form)
        rows = chosen_experiments(store, experiments, where, project)
        names = [row.name for row in rows]
        if len(rows) < 2:
            raise UsageError("Two experiments are needed.", hint="panic compare EXPERIMENT EXPERIMENT")
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise UsageError(f"{twice} is named twice.", hint="Name different experiments: panic list.")
        found = [one for one in contrasts(store, rows) if everything or not one.is_same]
        metrics = pairing(store, rows)
    if as_json:
        return print_json(as_dict(names, found, metrics))
    if as_csv:
        return _print_csv(names, found, metrics)
    return _print(names, found, metrics)


def chosen_trainings(
    store: Store,
    names: Sequence[str],
    of: str | None,
    where: str | None,
    project: str | None,
    *,
    least: int = 2,
) -> list[TrainingRow] | None:
    """The trainings that are named, or that a filter finds; None where experiments are meant.

    Unless trainings are asked for, all names have to be such, and the first that of no experiment. Raises
    NotFound for what is no training, UsageError for too few.
    """
    from panic.store import reading
    from panic.store.trainings import find_training

    if of is None and (where or project or len(names) < 2 or reading.named(store, names[0])):
        return None
    found = [find_training(store, name) for name in names]
    if of is None:
        return [row for row in found if row is not None] if all(found) else None
    if names and (where is not None or project is not None):
        raise UsageError("Name trainings, or find them by --where: not both.")
    if lacking := [name for name, row in zip(names, found, strict=True) if row is None]:
        raise NotFound(f"There is no training {lacking[0]!r}.", hint="panic trainings lists them.")
    chosen = [row for row in found if row is not None]
    if where is not None or project is not None:
        chosen = trainings_where(store, where, project)
    if len(chosen) < least:
        raise UsageError(
            f"{'Two trainings are' if least > 1 else 'A training is'} needed.",
            hint="panic trainings lists them.",
        )
    return chosen


def _runs(store: Store, names: Sequence[str], where: str | None, project: str | None) -> list[int]:
    """The rows of the runs that are named, or that a filter finds. Raises UsageError for fewer than two."""
    if names and (where is not None or project is not None):
        raise UsageError("Name runs, or find them by --where: not both.")
    ids = [_run(store, name) for name in names]
    if where is not None or project is not None:
        ids = find(store, "run", where)
        of_project = set(ids) if project is None else in_project(store, "run", project)
        ids = [id for id in ids if id in of_project]
    if len(ids) < 2:
        raise UsageError("Two runs are needed.", hint="panic list --runs lists them.")
    if len(set(ids)) < len(ids):
        raise UsageError("A run is named twice.", hint="Name different runs: panic list --runs.")
    return ids


def _run(store: Store, name: str) -> int:
    """The row of the run of this number, or whose uid begins so. Raises NotFound."""
    from panic.store import reading
    from panic.store.finding.queries import SHORTEST_UID

    if len(name) > LONGEST_RUN:
        raise NotFound(
            f"No run begins with {shorten(name, LONGEST_RUN)!r}.", hint="panic list --runs lists them."
        )
    if name.isdecimal() and (found := [run.id for run in reading.runs(store, only=[int(name)])]):
        return found[0]
    begun = []
    if len(name) >= SHORTEST_UID and name.isalnum():
        begun = find(store, "run", f"uid like '{name.lower()}%'")
    if len(begun) == 1:
        return begun[0]
    there_are = "panic list --runs lists them; the beginning of a uid has at least 4 characters."
    raise NotFound(f"{'Several runs begin' if begun else 'No run begins'} with {name!r}.", hint=there_are)


def _compare_runs(store: Store, ids: Sequence[int], everything: bool, form: Form) -> None:
    from panic.analysis.contrasts import run_contrasts
    from panic.store.finding.queries import table

    named = table(store, "run", ids, ["experiment.name", "run"], known_fields())
    names = [f"{experiment} run {number}" for experiment, number in named]
    found = [one for one in run_contrasts(store, ids) if everything or not one.is_same]
    _tell("run", names, found, form)


def _compare_trainings(rows: Sequence[TrainingRow], everything: bool, form: Form) -> None:
    from panic.analysis.contrasts import training_contrasts, training_names

    if len({(row.uid, row.folder) for row in rows}) < len(rows):
        raise UsageError("A training is named twice.", hint="Name different trainings: panic trainings.")
    found = [one for one in training_contrasts(rows) if everything or not one.is_same]
    _tell("training", training_names(rows), found, form)


def _tell(kind: str, names: Sequence[str], found: Sequence[Contrast], form: Form) -> None:
    """Tell what runs or trainings differ in."""
    if form == "json":
        return print_json({f"{kind}s": names, "differences": _plain(names, found)})
    if form == "csv":
        from panic.cli.finding import write_csv

        cells = [
            (one.section, one.field, name, value)
            for one in found
            for name, value in zip(names, one.values, strict=True)
        ]
        return write_csv(("section", "field", kind, "value"), cells)
    if not found:
        return console().print("They do not differ in config, metrics, code, versions or hardware.")
    return _print_sections(names, found)


def _plain(names: Sequence[str], found: Sequence[Contrast]) -> list[dict[str, Any]]:
    return [
        {"section": one.section, "field": one.field, "is_same": one.is_same}
        | {"values": dict(zip(names, one.values, strict=True))}
        for one in found
    ]


def as_dict(names: list[str], found: Sequence[Contrast], metrics: Pairing) -> dict[str, Any]:
    """Return what `--json` prints."""

    def plain(one: Summary | Comparison) -> dict[str, Any]:
        return {key: getattr(one, key) for key in one.__slots__}

    return {
        "experiments": names,
        "differences": _plain(names, found),
        "metrics": [
            {
                "metric": name,
                "summaries": [plain(one) for one in summaries],
                "comparisons": [plain(one) for one in comparisons],
            }
            for name, summaries, comparisons in metrics.rows()
        ],
    }


def _print_csv(names: list[str], found: Sequence[Contrast], metrics: Pairing) -> None:
    """Print one row per field or metric and experiment."""
    import polars as pl

    rows: list[tuple[Any, ...]] = [
        (one.section, one.field, name, value, *[None] * 6)
        for one in found
        for name, value in zip(names, one.values, strict=True)
    ]
    for metric, summaries, comparisons in metrics.rows():
        beside = {one.other: one for one in comparisons}
        for one in summaries:
            other = beside.get(one.experiment)
            tested = (
                [other.difference, other.num_starts, other.p_value, other.p_adjusted] if other else [None] * 4
            )
            value = None if one.mean is None else repr(one.mean)
            rows.append(("metrics", metric, one.experiment, value, one.spread, one.num_runs, *tested))
    text = dict.fromkeys(("section", "field", "experiment", "value"), pl.String)
    numbers = {"spread": pl.Float64, "num_runs": pl.Int64, "difference": pl.Float64, "num_starts": pl.Int64}
    schema = {**text, **numbers, "p_value": pl.Float64, "p_adjusted": pl.Float64}
    print_csv(pl.DataFrame(rows, schema=schema, orient="row"))


def _print_sections(names: Sequence[str], found: Sequence[Contrast]) -> None:
    """Print a table for each section."""
    for section in dict.fromkeys(one.section for one in found):
        rows = [
            (one.field, *(shorten(value, MAX_CELL) for value in one.values))
            for one in found
            if one.section == section
        ]
        print_table([section, *names], rows)


def _print(names: list[str], found: Sequence[Contrast], metrics: Pairing) -> None:
    from panic.analysis.contrasts import commit_range
    from panic.analysis.paired import CAVEAT

    out = console()
    _print_sections(names, found)
    for one in found:
        if one.section == "code" and one.field.endswith("commit") and (told := commit_range(one.values)):
            out.print(f"{one.field}s: git log {told}")
    if not any(not one.is_same for one in found):
        out.print("They do not differ in config, models, code, versions or hardware.")
    rows = [
        (metric, *map(_summary, summaries), *(_comparison(one) for one in comparisons))
        for metric, summaries, comparisons in metrics.rows()
    ]
    if not rows:
        return out.print("None of them has runs that have ended: there is nothing to measure yet.")
    print_table(["metric", *names, *(f"{name} - {names[0]}" for name in names[1:])], rows)
    out.print(CAVEAT)
    return None


def _summary(one: Summary) -> str:
    if one.mean is None:
        return "-"
    spread = "" if one.spread is None else f" ± {one.spread:.2g}"
    return f"{one.mean:.4g}{spread} ({one.num_runs:,} runs)"


def _comparison(one: Comparison) -> str:
    if one.difference is None:
        return "no prompt in common"
    tested = "" if one.p_adjusted is None else f", p {one.p_adjusted:.2g}"
    return f"{one.difference:+.4g} ({one.num_starts:,} start{'s' * (one.num_starts != 1)}{tested})"


def chosen_experiments(
    store: Store, names: list[str] | None, where: str | None, project: str | None
) -> list[ExperimentRow]:
    """The experiments that are named, or that a filter finds, or a project has but for null models.

    Raises UsageError where names and a filter are given.
    """
    from panic.store import reading

    if names and where is not None:
        raise UsageError("Name experiments, or find them by --where: not both.")
    if names or (where is None and project is None):
        return [experiment_of(store, name, project) for name in names or ()]
    found = experiments_where(store, where, project)
    return [row for row in found if where is not None or not reading.is_null(row.name)]
