"""Experiments, runs, outputs and trainings that a filter finds, in an order, and columns of them.

ids = find(store, Query(target="run", where="state = stuck and period > 2", sort="-period,run"), fields)
table(store, "run", ids, ["run", "prompt", "period"], fields)
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import apsw

from panic.arms import BASELINE
from panic.errors import NotFound, StoreCorrupt, UsageError
from panic.store import reading, standing
from panic.store.annotations import run_uid
from panic.store.codec import decode_network, run_key
from panic.store.finding.conditions import Conditions
from panic.store.finding.fields import JOINS, Asked, Field, Fields, Target, as_column, meant
from panic.store.finding.matching import TooSlow
from panic.store.finding.syntax import conditions, parse
from panic.store.reading import IN_USE, VISIBLE
from panic.store.records import ExperimentRow, RunRow
from panic.store.store import Store
from panic.store.trainings import DELETED, know_training_states

MAX_KEYS = 20  # columns to sort by
NEWEST = 1_000  # experiments, or trainings, whose configs are looked at: all of 100,000 take minutes
MAX_COLUMNS = 200  # of one table: SQLite has 2,000 at most
LIMIT_S = 60.0
"""The longest that a question may take: a list of 10,000,000 invocations takes less than a second."""
STEPS_AT_ONCE = 100_000  # of SQLite's machine, between two looks at the clock: some milliseconds
SHORTEST_UID = 4  # characters that name a run


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """What is asked for: rows of a kind, a filter, an order, and of which experiment (its row) alone.

    where: None is all. sort: names of fields with commas between them, `-` before one for the largest first;
    by default the order in which they were created. What has no value comes last. limit_s: after so long the
    question is given up.
    """

    target: Target
    where: str | None = None
    sort: str = ""
    experiment: int | None = None
    limit_s: float = LIMIT_S


def find(store: Store, query: Query, fields: Fields) -> list[int]:
    """The rows of the experiments or runs that a query finds, in its order.

    Raises FilterError and UsageError for what cannot be read or is not there.
    """
    asked = Conditions(fields, query.target)
    test = "TRUE"
    if query.where is not None:
        tree = parse(query.where)
        test = asked.add(tree)
        _require_paths(store, asked, tree)
    seen = {"training": f"NOT {DELETED}", "output": IN_USE}.get(query.target, f"experiment.id {VISIBLE}")
    test = f"({test}) AND {seen}"
    if query.experiment is not None:
        test = f"({test}) AND experiment.id = {asked.parameter(query.experiment)}"
    id = f"{query.target}.id"
    # By `+id` experiments are taken from an index and sorted: their rows are long, by the configs in them.
    order = ", ".join([*_order(store, asked, query), f"+{id}" if query.target == "experiment" else id])
    tables = _tables(asked.used.values(), query.target)
    if query.target == "experiment" and "run" in tables:
        # An experiment is found if one of its runs is: whatever is asked of runs is asked of one run.
        within = f"SELECT experiment.id FROM {_joined('experiment', tables)} WHERE {test}"
        test = f"experiment.id IN ({within})"
        tables = [name for name in tables if "run" not in name and name not in RUN_TABLES]
    sql = f"SELECT {id} FROM {_joined(query.target, tables)} WHERE {test} ORDER BY {order}"
    return [row for (row,) in _perform(store, sql, asked, limit_s=query.limit_s)]


RUN_TABLES = ("stuck", "repeated", "failure", "prompt", "labelled")
"""Those that are joined to a run, beside those that have it in their names."""


def table(
    store: Store, target: Target, ids: Sequence[int], columns: Sequence[str], fields: Fields
) -> list[tuple[Any, ...]]:
    """The values of columns (names of fields) of rows of experiments or runs; several texts are one list.

    Raises UsageError.
    """
    if len(columns) > MAX_COLUMNS:
        raise UsageError(f"At most {MAX_COLUMNS} columns can be shown.")
    asked = Conditions(fields, target)
    chosen = [column(fields, name, target) for name in columns]
    for field in chosen:
        require_path(store, field)
    values = [asked.use(field) for field in map(as_column, chosen)]
    id, these = f"{target}.id", asked.parameter(json.dumps(list(ids)))
    tables = _tables(asked.used.values(), target)
    sql = f"SELECT {', '.join([id, *values])} FROM {_joined(target, tables)}"
    sql += f" WHERE {id} IN (SELECT value FROM json_each({these}))"
    by_id = {row[0]: row[1:] for row in _perform(store, sql, asked, ids)}
    lists = [place for place, field in enumerate(chosen) if field.type == "texts"]
    return [_read(by_id[one], lists) for one in ids if one in by_id]


def column(fields: Fields, name: str, target: Target) -> Field:
    """Return the field that a column or a sort key names.

    Raises UsageError for what is none, and for one of runs where experiments are asked for: they have many.
    """
    field = fields.find(name, target)
    if target == "experiment" and field.of == "run":
        known = [one for one, f in fields.known(target).items() if f.of == "experiment" and "." not in one]
        raise UsageError(
            f"{name} is a field of runs, of which an experiment has many.",
            hint=f"Fields of experiments: {', '.join(known)}.",
        )
    return field


def _order(store: Store, asked: Conditions, query: Query) -> list[str]:
    keys = [key.strip() for key in query.sort.split(",")] if query.sort else []
    if len(keys) > MAX_KEYS:
        raise UsageError(f"At most {MAX_KEYS} fields can be sorted by.")
    order = []
    for key in keys:
        is_falling = key.startswith("-")
        field = column(asked.fields, key.lstrip("+-"), query.target)
        require_path(store, field)
        sql = asked.use(as_column(field))
        order.append(f"{sql} {'DESC' if is_falling else 'ASC'} NULLS LAST")
    return order


def _tables(used: Iterable[Field], target: Target) -> list[str]:
    """The names of JOINS that fields need, in their order."""
    needed = {name for field in used for name in field.needs} | ({"run"} if target == "run" else set())
    return [name for name in JOINS if name in needed]


def _joined(target: Target, tables: Iterable[str]) -> str:
    """What stands after FROM."""
    first = target if target in ("output", "training") else "experiment"
    return " ".join([first, *(JOINS[name] for name in tables)])


def _perform(
    store: Store,
    sql: str,
    asked: Conditions,
    ids: Sequence[int] | None = None,
    *,
    limit_s: float = LIMIT_S,
) -> list[Any]:
    """Run a query, with the tables and functions that it needs; ids: of these rows alone. Raises TooSlow."""
    if any("standing" in field.needs for field in asked.used.values()):
        _keep_standings(store, ids if asked.target == "experiment" else None)
    _show_metrics(store, asked, ids)
    connection = store.db.connection
    connection.create_scalar_function("panic_matches", asked.matcher, 2, deterministic=True)
    know_run_uids(store)
    know_training_states(store)
    deadline = time.monotonic() + limit_s
    connection.set_progress_handler(lambda: time.monotonic() > deadline, STEPS_AT_ONCE)
    try:
        if any("labelled" in field.needs for field in asked.used.values()):
            _keep_labels(store)
        return store.db.rows(sql, *asked.parameters)
    except Exception as error:
        if isinstance(error, apsw.InterruptError):
            raise TooSlow(
                f"The question takes longer than {limit_s:g} s, and was given up.",
                hint="Ask for less at once: fewer conditions on fields with several texts, fewer patterns.",
            ) from None
        if isinstance(error, apsw.SQLError) and "malformed JSON" in str(error):
            raise StoreCorrupt(
                f"{store.path} is damaged: a config or a network in it is no JSON.",
                hint=f"What is affected: panic check --store {store.path}",
            ) from error
        raise
    finally:
        connection.set_progress_handler(None)


def _show_metrics(store: Store, asked: Conditions, ids: Sequence[int] | None) -> None:
    """Let a query ask for the metrics that it names."""
    runs, experiments = (
        tuple(dict.fromkeys(field.name for field in asked.used.values() if source in field.needs))
        for source in ("of_run", "of_experiment")
    )
    if (runs or experiments) and asked.fields.show:
        if ids is not None and asked.target == "run":
            sql = "SELECT DISTINCT experiment FROM run WHERE id IN (SELECT value FROM json_each(?))"
            ids = [experiment for (experiment,) in store.db.rows(sql, json.dumps(list(ids)))]
        asked.fields.show(store, Asked(of_runs=runs, of_experiments=experiments), ids)


def find_run(store: Store, experiment: ExperimentRow, selector: str) -> RunRow:
    """The run of an experiment with this number, or whose uid begins so; a number is first one.

    Raises NotFound, which tells which there are.
    """
    runs = reading.runs(store, experiment.id)
    for run in runs:
        if str(run.id) == selector:
            return run
    begun = []
    if len(selector) >= SHORTEST_UID:
        begun = [run for run in runs if run_uid(experiment.name, run).startswith(selector.lower())]
    if len(begun) == 1:
        return begun[0]
    if begun:
        listed = ", ".join(f"{run_uid(experiment.name, run)} (run {run.id})" for run in begun[:10])
        raise NotFound(
            f"Several runs of {experiment.name} begin with {selector!r}.", hint=f"They are: {listed}."
        )
    there_are = f"Its runs are {runs[0].id} to {runs[-1].id}." if len(runs) > 1 else "It has no runs."
    there_are = f"Its only run is {runs[0].id}." if len(runs) == 1 else there_are
    if not selector.isdigit() and len(selector) < SHORTEST_UID:
        there_are += f" The beginning of a uid has at least {SHORTEST_UID} characters."
    raise NotFound(f"{experiment.name} has no run {selector}.", hint=there_are)


def know_run_uids(store: Store) -> None:
    """Let queries call `panic_run_uid`, which is what a run is called beside its number."""

    def uid(*key: Any) -> str:
        experiment, network, prompt, seed, repeat, arm = key
        in_arm = () if arm == BASELINE else (arm,)
        return run_key(experiment, decode_network(network), prompt, seed, repeat, *in_arm)

    store.db.connection.create_scalar_function("panic_run_uid", uid, deterministic=True)


def _keep_standings(store: Store, experiments: Sequence[int] | None) -> None:
    """Put the standings of experiments into a table of this connection alone."""
    columns = ("experiment", "state", *standing.RUN_COUNTS)
    fresh = list(standing.standings(store, experiments))
    connection = store.db.connection
    connection.execute("DROP TABLE IF EXISTS temp.standing")
    connection.execute(
        f"CREATE TEMP TABLE standing ({columns[0]} INTEGER PRIMARY KEY, {', '.join(columns[1:])})"
    )
    with connection:  # as one transaction: alone, 10,000 rows take 22 ms, so 9
        connection.executemany(f"INSERT INTO temp.standing VALUES ({', '.join('?' * len(columns))})", fresh)


def _keep_labels(store: Store) -> None:
    """Put the labels of all configs into a table of this connection alone: each config is read once.

    Labels are as large as the prompts are many; looked up in the config for every run they take minutes.
    """
    connection = store.db.connection
    connection.execute("DROP TABLE IF EXISTS temp.labelled")
    connection.execute(
        "CREATE TEMP TABLE labelled (experiment INTEGER NOT NULL, prompt TEXT NOT NULL, tags TEXT,"
        " in_group TEXT, PRIMARY KEY (experiment, prompt)) WITHOUT ROWID"
    )
    connection.execute(
        "INSERT OR IGNORE INTO temp.labelled SELECT experiment.id, label.key, label.value -> '$.tags',"
        " label.value ->> '$.group' FROM experiment, json_each(experiment.config, '$.labels') AS label"
    )


def _read(values: tuple[Any, ...], lists: Sequence[int]) -> tuple[Any, ...]:
    return tuple(json.loads(value) if place in lists else value for place, value in enumerate(values))


def _require_paths(store: Store, asked: Conditions, tree: Any) -> None:
    """Raise FilterError for a place in configs that no config has: a name may be misspelt."""
    for condition in conditions(tree):
        field = asked.fields.find(condition.subject.text, asked.target)
        if condition.operator != "null":
            try:
                require_path(store, field)
            except UsageError as error:
                raise condition.subject.place.error(error.message, error.hint) from None


def require_path(store: Store, field: Field) -> None:
    """Raise UsageError for a place in configs, or measures, that none has, naming the nearest.

    Where there are no rows at all, nothing can be said against it.
    """
    if not field.path:
        return
    column = field.column.rpartition(".")[2]
    if store.db.value(f"SELECT 1 FROM {field.of} WHERE json_type({column}, ?) NOTNULL LIMIT 1", field.path):
        return
    if not store.db.value(f"SELECT 1 FROM {field.of} LIMIT 1"):
        return
    whose = "No training" if field.of == "training" else "No experiment"
    what = "config" if field.column.endswith("config") else "last evaluation"
    raise UsageError(
        f"{whose}'s {what} has this: {field.name}.",
        hint=f"{meant(field.name, config_paths(store, of=field.of))}`panic fields` lists those of new ones.",
    )


def config_paths(store: Store, most: int = 1_000, *, of: Target = "experiment") -> dict[str, str]:
    """The fields that the newest configs of this store have, with one value each as JSON; at most so many.

    of: experiments, or trainings, which have measures, too.
    """
    found: dict[str, str] = {}
    shown = f"id {VISIBLE} AND name NOT LIKE '%/null-%'" if of == "experiment" else "TRUE"
    for source in ("config",) if of == "experiment" else ("config", "measures"):
        for path, value in store.db.stream(
            "SELECT fullkey, CASE WHEN json_tree.type IN ('true', 'false') THEN json_tree.type"
            f" ELSE json_quote(atom) END FROM {of}, json_tree({of}.{source})"
            f" WHERE {of}.id IN (SELECT id FROM {of} WHERE {shown} ORDER BY id DESC LIMIT {NEWEST})"
            " AND atom NOTNULL AND typeof(key) = 'text'"
        ):
            name = re.sub(r"\[(\d+)\]", r".\1", path[1:])
            found.setdefault(source + re.sub(r'\."([A-Za-z_]\w*)"', r".\1", name), value)
            if len(found) >= most:
                return found
    return found
