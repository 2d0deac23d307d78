"""Numbers that were worked out of results, kept beside the store, so that listings are quick.

They stand in `summaries.sqlite`, which is no part of the store: no dump, export, snapshot or check knows it,
and whoever deletes it loses time alone. A number is of one state of an experiment's results: the table
`change` has another stamp for every one. Readers write the file, drivers never; where it cannot be written,
numbers are worked out each time.

    run_counts(store, [3, 5])
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import apsw

from panic.store import reading
from panic.store.files import connect, network_file_system
from panic.store.store import Store

Taken = TypeVar("Taken")
FILE = "summaries.sqlite"
WORTH_S = 0.05
"""Counts that take less to work out are not kept."""
STATES = ("complete", "incomplete", "failed", "interrupted", "budget spent")
"""Of experiments that nobody works on."""
WORTH_STATES = 1_000
"""Fewer states than this are not kept."""
FRESH_S = 30.0
"""While a driver writes, numbers are good enough for so long."""
COUNTS = ("runs", "todo", "begun", "done", "stuck", "repeated", "failed", "invocations")
SCHEMA = (
    "CREATE TABLE counts (uid TEXT PRIMARY KEY, stamp INTEGER NOT NULL, at REAL NOT NULL,"
    f" {' INTEGER NOT NULL, '.join(COUNTS)} INTEGER NOT NULL) STRICT, WITHOUT ROWID",
    "CREATE TABLE settled (uid TEXT PRIMARY KEY, stamp INTEGER NOT NULL, state TEXT NOT NULL)"
    " STRICT, WITHOUT ROWID",
    "CREATE TABLE measured (uid TEXT NOT NULL, metric TEXT NOT NULL, version INTEGER NOT NULL,"
    " stamp INTEGER NOT NULL, at REAL NOT NULL, mean REAL, PRIMARY KEY (uid, metric)) STRICT, WITHOUT ROWID",
    "CREATE TABLE run_value (uid TEXT NOT NULL, metric TEXT NOT NULL, run INTEGER NOT NULL,"
    " value REAL NOT NULL, PRIMARY KEY (uid, metric, run)) STRICT, WITHOUT ROWID",
)
"""Numbers of runs by experiment; states where nobody works; which metrics were measured of which, with their
means; those of runs."""


@contextlib.contextmanager
def opened(store: Store, *, anyway: bool = False) -> Iterator[apsw.Connection | None]:
    """The file, made anew where it is another or damaged; None where there can be none that can be written.

    anyway: where there can be none, one in memory; of a file that may only be read, a copy of it.
    """
    connection = None
    if not store.is_copy and not network_file_system(store.path):
        for _ in range(2):
            with contextlib.suppress(apsw.Error, OSError):
                connection = _open(store.path / FILE)
                if anyway and connection.readonly("main"):
                    with contextlib.closing(connection) as file:
                        connection = None
                        connection = _in_memory(file)
                break
    if connection is None and anyway:
        connection = _in_memory()
    try:
        yield connection
    finally:
        if connection is not None:
            connection.close()


def using(store: Store, take: Callable[[apsw.Connection], Taken]) -> Taken:
    """What `take` makes of the file, or of one in memory where the file cannot be read or written.

    A file whose damage shows only now is removed, and made anew.
    """
    for _ in range(2):
        try:
            with opened(store, anyway=True) as file:
                assert file is not None
                return take(file)
        except (apsw.CorruptError, apsw.NotADBError, UnicodeDecodeError):
            with contextlib.suppress(OSError):
                (store.path / FILE).unlink()
        except (apsw.BusyError, apsw.CantOpenError, apsw.FullError, apsw.IOError, apsw.ReadOnlyError):
            break
    with contextlib.closing(_in_memory()) as file:
        return take(file)


def _in_memory(of: apsw.Connection | None = None) -> apsw.Connection:
    """A file that is kept nowhere, empty or with what another one has."""
    connection = apsw.Connection(":memory:")
    if of is None:
        connection.execute("; ".join(SCHEMA))
        return connection
    with connection.backup("main", of, "main") as backup:
        while not backup.done:
            backup.step(10_000)
    return connection


def _open(path: Path) -> apsw.Connection:
    """Raises apsw.Error where that cannot be; a file of another kind is removed first."""
    if path.is_symlink():
        raise apsw.CantOpenError(f"{path} is a link")
    connection = connect(path)
    try:
        connection.set_busy_timeout(1_000)
        connection.execute("PRAGMA synchronous=OFF")
        schema = "SELECT CAST(sql AS BLOB) FROM sqlite_schema ORDER BY rowid"  # damaged texts are no UTF-8
        found = [sql for (sql,) in connection.execute(schema)]
        if not found:
            connection.execute(f"BEGIN IMMEDIATE; {'; '.join(SCHEMA)}; COMMIT")
        elif found != [sql.encode() for sql in SCHEMA]:
            raise apsw.CorruptError(f"{path} is another file")
    except (apsw.CorruptError, apsw.NotADBError):
        connection.close()
        path.unlink()
        raise
    except BaseException:
        connection.close()
        raise
    return connection


def stamps(store: Store, experiments: Sequence[int] | None = None) -> list[tuple[int, str, int]]:
    """(row, uid, stamp) of experiments, or of all."""
    these, parameters = reading.one_of("id", experiments)
    rows: list[tuple[int, str, int]] = store.db.rows(
        "SELECT id, uid, coalesce(stamp, 0) FROM experiment LEFT JOIN change ON change.experiment = id"
        f" WHERE {these}",
        *parameters,
    )
    return rows


def is_fresh(known: int, at: float, stamp: int, oldest: float) -> bool:
    """Whether what is known, of a stamp and from a time, is of this stamp or not older than it may be."""
    return known == stamp or at > oldest


def oldest(store: Store) -> float:
    """From when numbers of earlier results are good enough: never, or a while ago while a driver writes."""
    return time.time() - FRESH_S if store.lock_holder else float("inf")


def run_counts(
    store: Store, experiments: Sequence[int] | None = None, *, exact: bool = False
) -> list[tuple[int, ...]]:
    """What `reading.run_counts` gives, as far as possible without counting.

    exact: also while a driver writes, when numbers may be a little older otherwise.
    """
    wanted = stamps(store, experiments)
    with opened(store) if has_file(store) else contextlib.nullcontext() as file:
        known = (
            {} if file is None else _known(file, None if experiments is None else [u for _, u, _ in wanted])
        )
    since = float("inf") if exact else oldest(store)
    found, lacking = [], []
    for row, uid, stamp in wanted:
        if uid in known and is_fresh(known[uid][0], known[uid][1], stamp, since):
            found.append((row, *known[uid][2:]))
        else:
            lacking.append(row)
    if lacking:
        began = time.monotonic()
        counted = reading.run_counts(store, None if len(lacking) == len(wanted) > 1_000 else lacking)
        chosen = set(lacking)
        counted = [row for row in counted if row[0] in chosen]
        found += counted
        if time.monotonic() - began > WORTH_S:
            _keep(store, wanted, counted)
    return found


def settled(
    store: Store, experiments: Sequence[int] | None = None
) -> tuple[dict[int, str], list[tuple[int, str, int]]]:
    """The states that were kept, by row of an experiment; (row, uid, stamp) of those of which none was."""
    wanted = stamps(store, experiments)
    known: dict[tuple[str, int], str] = {}
    if has_file(store):
        with opened(store) as file, contextlib.suppress(apsw.Error, UnicodeDecodeError):
            if file is not None:
                uids = None if experiments is None else [uid for _, uid, _ in wanted]
                these, parameters = reading.one_of("uid", uids)
                rows = file.execute(f"SELECT uid, stamp, state FROM settled WHERE {these}", parameters)
                known = {(uid, stamp): state for uid, stamp, state in rows if state in STATES}
    found = {row: known[uid, stamp] for row, uid, stamp in wanted if (uid, stamp) in known}
    return found, [one for one in wanted if one[0] not in found]


def keep_settled(store: Store, states: Sequence[tuple[str, int, str]]) -> None:
    """Keep (uid, stamp, state) of experiments that nobody works on, if they are many and it is possible."""
    if len(states) < WORTH_STATES or store.lock_holder is not None:
        return
    with opened(store) as file, contextlib.suppress(apsw.Error):
        if file is not None:
            with file:
                file.executemany("INSERT OR REPLACE INTO settled VALUES (?, ?, ?)", states)


def has_file(store: Store) -> bool:
    """Whether anything was kept."""
    return (store.path / FILE).exists()


def _known(file: apsw.Connection, uids: Sequence[str] | None) -> dict[str, list[Any]]:
    these, parameters = reading.one_of("uid", uids)
    sql = f"SELECT uid, stamp, at, {', '.join(COUNTS)} FROM counts WHERE {these}"
    try:
        rows = file.execute(sql, parameters).fetchall()
    except (apsw.Error, UnicodeDecodeError):
        return {}
    return {str(uid): rest for uid, *rest in rows}


def _keep(store: Store, wanted: Sequence[tuple[int, str, int]], counted: Sequence[tuple[int, ...]]) -> None:
    """Keep counts, if that is possible: they were counted after their stamps were read."""
    now, of = time.time(), {row: (uid, stamp) for row, uid, stamp in wanted}
    marks = ", ".join("?" * (3 + len(COUNTS)))
    with opened(store) as file, contextlib.suppress(apsw.Error):
        if file is not None:
            with file:
                file.executemany(
                    f"INSERT OR REPLACE INTO counts VALUES ({marks})",
                    [(*of[row[0]], now, *row[1:]) for row in counted],
                )


def keep_metric(
    file: apsw.Connection,
    name: str,
    version: int,
    experiments: Sequence[tuple[int, str, int]],
    values: Mapping[int, Sequence[tuple[int, float]]],
) -> None:
    """Keep a metric of experiments (row, uid, stamp): pairs of run and value, by row of experiment."""
    now = time.time()
    with file:
        for row, uid, stamp in experiments:
            pairs = values.get(row, ())
            mean = sum(value for _, value in pairs) / len(pairs) if pairs else None
            file.execute("DELETE FROM run_value WHERE uid = ? AND metric = ?", (uid, name))
            file.executemany(
                "INSERT INTO run_value VALUES (?, ?, ?, ?)", [(uid, name, run, value) for run, value in pairs]
            )
            file.execute(
                "INSERT OR REPLACE INTO measured VALUES (?, ?, ?, ?, ?, ?)",
                (uid, name, version, stamp, now, mean),
            )


def measured(file: apsw.Connection, version: int) -> dict[tuple[str, str], tuple[int, float]]:
    """Stamp and time by uid of an experiment and metric, of those of a version of the definitions."""
    rows = file.execute("SELECT uid, metric, stamp, at FROM measured WHERE version = ?", (version,))
    return {(uid, name): (stamp, at) for uid, name, stamp, at in rows}


def means(file: apsw.Connection, name: str) -> dict[str, float]:
    """The mean of a metric by uid of an experiment, where it has one."""
    return dict(file.execute("SELECT uid, mean FROM measured WHERE metric = ? AND mean NOTNULL", (name,)))


def num_measured(file: apsw.Connection, name: str) -> dict[str, int]:
    """How many runs have a metric, by uid of an experiment."""
    return dict(file.execute("SELECT uid, count(*) FROM run_value WHERE metric = ? GROUP BY uid", (name,)))


def run_values(file: apsw.Connection, name: str) -> Iterator[tuple[str, int, float]]:
    """(uid of the experiment, run, value) of a metric."""
    return iter(file.execute("SELECT uid, run, value FROM run_value WHERE metric = ?", (name,)))


def show(store: Store, key: str, names: Sequence[str], rows: Mapping[int, Mapping[str, float]]) -> None:
    """Put metrics by run or by experiment, as `key` says, into a table of this connection alone."""
    connection = store.db.connection
    connection.execute(f"DROP TABLE IF EXISTS temp.{key}_metric")
    connection.execute(
        f"CREATE TEMP TABLE {key}_metric ({', '.join([f'{key} INTEGER PRIMARY KEY', *names])})"
    )
    with connection:
        connection.executemany(
            f"INSERT INTO temp.{key}_metric VALUES ({', '.join('?' * (1 + len(names)))})",
            ((row, *map(known.get, names)) for row, known in rows.items()),
        )


def runs_of(store: Store, experiments: Sequence[int]) -> list[int]:
    """The runs (rows) of experiments."""
    sql = "SELECT id FROM run WHERE experiment IN (SELECT value FROM json_each(?))"
    return [run for (run,) in store.db.rows(sql, json.dumps(list(experiments)))]
