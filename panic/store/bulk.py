"""Whole columns of a store at once, for those who analyse it: millions of steps and vectors in seconds.

Rows go from SQLite into NumPy arrays without a Python loop: 1,000,000 invocations and 500,000 vectors of 256
numbers take seconds, and little more memory than the result (benchmarks/results/frames.json). The store's own
connection is used, because another SQLite library in the same process would drop its locks.

    scope = Scope.of_experiment(reading.experiment(store, "latest").id)
    steps(store, scope)                  # (n, 6) in the order of STEP_COLUMNS
    vectors(store, scope, model=3)       # rows of outputs (n,), vectors (n, d)
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from panic.store.codec import decode_vectors
from panic.store.files import translated
from panic.store.reading import current_diagrams
from panic.store.store import Store

CHUNK = 8192  # vectors in flight: 8 MiB of 256 numbers each
STEP_COLUMNS = ("run", "step", "input", "output", "seed", "batch")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """The runs whose columns are asked for: a query for their rows ("" for all runs) and its parameters."""

    runs: str = ""
    parameters: tuple[Any, ...] = ()

    @staticmethod
    def of_experiment(experiment: int) -> Scope:
        """All runs of an experiment (row number)."""
        return Scope(runs="SELECT id FROM run WHERE experiment = ?1", parameters=(experiment,))

    @staticmethod
    def of_runs(runs: Iterable[int]) -> Scope:
        """These runs (row numbers)."""
        chosen = json.dumps(sorted({int(run) for run in runs}))
        return Scope(runs="SELECT value FROM json_each(?1)", parameters=(chosen,))

    def where(self, column: str) -> str:
        """A clause that restricts a column of run rows to this scope."""
        return f"WHERE {column} IN ({self.runs})" if self.runs else ""

    @property
    def used_outputs(self) -> str:
        """A query for the rows of the outputs of these runs, prompts included; "" for all outputs."""
        if not self.runs:
            return ""
        return (
            f"SELECT prompt FROM run WHERE id IN ({self.runs}) UNION"
            f" SELECT output FROM invocation WHERE run IN ({self.runs}) UNION"
            f" SELECT output FROM intervention WHERE run IN ({self.runs})"
        )


def steps(store: Store, scope: Scope) -> NDArray[np.int64]:
    """All steps (n, 6) in the order of runs and steps; columns as in STEP_COLUMNS."""
    where = scope.where("run")
    (count,) = _execute(store, f"SELECT count(*) FROM invocation {where}", scope).fetchone()
    rows = _execute(
        store, f"SELECT {', '.join(STEP_COLUMNS)} FROM invocation {where} ORDER BY run, step", scope
    )
    width = len(STEP_COLUMNS)
    return np.fromiter(chain.from_iterable(rows), np.int64, count * width).reshape(count, width)


def interventions(store: Store, scope: Scope) -> list[tuple[Any, ...]]:
    """Rows (run, step, place, kind, input, output) of what stepped into runs."""
    where = scope.where("run")
    sql = f"SELECT run, step, place, kind, input, output FROM intervention {where} ORDER BY 1, 2, 3"
    return _rows(store, sql, scope)


def batch_models(store: Store, scope: Scope) -> NDArray[np.int64]:
    """The batch and the row of its model (n, 2), of every batch that made an output of these runs."""
    where = f"WHERE id IN (SELECT batch FROM invocation {scope.where('run')})" if scope.runs else ""
    rows = _execute(store, f"SELECT id, model FROM batch {where}", scope).fetchall()
    return np.array(rows, dtype=np.int64).reshape(-1, 2)


def batches(store: Store, scope: Scope) -> list[tuple[Any, ...]]:
    """Rows (batch, session, model, device, size, padded_size, started_at, duration_s) of loops' calls."""
    made = (f"SELECT batch FROM {name} {scope.where('run')}" for name in ("invocation", "intervention"))
    where = f"WHERE id IN ({' UNION '.join(made)})" if scope.runs else ""
    sql = f"SELECT id, session, model, device, size, padded_size, started_at, duration_s FROM batch {where}"
    return _rows(store, sql, scope)


def outputs(store: Store, scope: Scope) -> list[tuple[Any, ...]]:
    """Rows (output, digest, modality, text, width, height) of distinct outputs, prompts included."""
    where = f"WHERE id IN ({scope.used_outputs})" if scope.runs else ""
    sql = f"SELECT id, lower(hex(digest)), modality, text, width, height FROM output {where} ORDER BY id"
    return _rows(store, sql, scope)


def vectors(store: Store, scope: Scope, model: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The rows (n,) of the outputs that have a vector under a model, in rising order, and these (n, d)."""
    of = f"FROM embedding WHERE model = {int(model)}"
    of += f" AND output IN ({scope.used_outputs})" if scope.runs else ""
    sized = _execute(store, f"SELECT count(*), coalesce(max(dimension), 1) {of}", scope)
    count, dimension = sized.fetchone()
    flat = chain.from_iterable(_execute(store, f"SELECT output {of} ORDER BY output", scope))
    rows = np.fromiter(flat, dtype=np.int64, count=count)
    found = np.empty((count, dimension), dtype=np.float32)
    blobs = chain.from_iterable(_execute(store, f"SELECT vector {of} ORDER BY output", scope))
    for start in range(0, count, CHUNK):
        some = decode_vectors(list(islice(blobs, CHUNK)), dimension)
        found[start : start + len(some)] = some
    return rows, found


def bars(store: Store, scope: Scope) -> list[tuple[Any, ...]]:
    """Rows (run, model, settings_digest, num_points, num_unique, dimension, metric, bars) of diagrams.

    `bars` are pairs of little-endian float64.
    """
    sql = (
        "SELECT run, model, settings_digest, num_points, num_unique, dimension, metric, bars"
        f" FROM ({_current(scope)}) AS d JOIN diagram_bars ON diagram = d.id"
        " ORDER BY run, model, settings_digest, dimension"
    )
    return _rows(store, sql, scope)


def vectorisations(store: Store, scope: Scope) -> list[tuple[Any, ...]]:
    """Rows (run, model, settings_digest, dimension, kind, settings, vector) of current diagrams."""
    sql = (
        "SELECT run, model, settings_digest, dimension, settings ->> 'kind', settings, vector"
        f" FROM ({_current(scope)}) AS d JOIN vectorisation ON diagram = d.id"
        " JOIN measure ON measure.id = measure ORDER BY run, model, settings_digest, measure, dimension"
    )
    return _rows(store, sql, scope)


def distances(store: Store, scope: Scope) -> list[tuple[Any, ...]]:
    """Rows (run, other, model, settings_digest, dimension, kind, settings, distance) of current diagrams."""
    current = _current(scope)
    sql = (
        "SELECT min(d.run, e.run), max(d.run, e.run), d.model, d.settings_digest, dimension,"
        " settings ->> 'kind', settings, distance"
        f" FROM ({current}) AS d JOIN distance ON a = d.id JOIN ({current}) AS e ON b = e.id"
        " JOIN measure ON measure.id = measure ORDER BY 1, 2, 3, 4, measure, dimension"
    )
    return _rows(store, sql, scope)


def _current(scope: Scope) -> str:
    """The diagrams with most points of the chosen runs."""
    return current_diagrams(scope.where("run.id"))


def _rows(store: Store, sql: str, scope: Scope) -> list[tuple[Any, ...]]:
    rows: list[tuple[Any, ...]] = _execute(store, sql, scope).fetchall()
    return rows


def _execute(store: Store, sql: str, scope: Scope) -> Any:
    """A cursor; its rows are iterated in C, other than those of `Database.stream`."""
    with translated(store.db.path):
        return store.db.connection.execute(sql, scope.parameters if "?1" in sql else ())
