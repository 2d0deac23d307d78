"""A store of which only some experiments or runs are seen, for as long as a block lasts.

What reads the store says `run`, `invocation` and so on; a view of this connection alone, with the same name
and fewer rows, stands before the table. So nobody who reads has to know of filters.

    with only_runs(store, [3, 5]):
        load(store, "latest").runs      # two rows
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from panic.store.finding.queries import know_run_uids
from panic.store.store import Store

THESE = "(SELECT id FROM temp.chosen)"
RUNS = "(SELECT id FROM temp.run)"
DIAGRAMS = "(SELECT id FROM temp.diagram)"
OUTPUTS = "(SELECT id FROM temp.output)"

OF_EXPERIMENTS: Mapping[str, str] = {
    "experiment": f"id IN {THESE}",
    "run": f"experiment IN {THESE}",
    "session": f"experiment IN {THESE}",
    "epoch": f"experiment IN {THESE}",
    "invocation": f"run IN {RUNS}",
    "intervention": f"run IN {RUNS}",
    "stuck": f"run IN {RUNS}",
    "repeated": f"run IN {RUNS}",
    "failure": f"run IN {RUNS}",
    "attempt": f"run IN {RUNS}",
    "deletion": f"experiment IN {THESE}",
    "batch": "id IN (SELECT batch FROM temp.invocation UNION SELECT batch FROM temp.intervention"
    " UNION SELECT batch FROM temp.embedding)",
    "answer": "batch IN (SELECT id FROM temp.batch)",
    "spending": "session IN (SELECT id FROM temp.session)",
    "output": "id IN (SELECT prompt FROM temp.run UNION SELECT output FROM temp.invocation"
    " UNION SELECT output FROM temp.intervention)",
    "embedding": f"output IN {OUTPUTS}",
    "diagram": f"run IN {RUNS}",
    "diagram_bars": f"diagram IN {DIAGRAMS}",
    "vectorisation": f"diagram IN {DIAGRAMS}",
    "distance": f"a IN {DIAGRAMS} AND b IN {DIAGRAMS}",
    "training": "uid IN (SELECT json_extract(session.provenance, one.fullkey || '.training')"
    " FROM temp.session, json_each(session.provenance, '$.models') AS one)",
    "annotation": "target IN (SELECT uid FROM temp.experiment)"
    " OR target IN (SELECT lower(hex(digest)) FROM temp.output)"
    " OR target IN (SELECT panic_run_uid(experiment.name, network,"
    " coalesce(text, 'image:' || lower(hex(digest))), seed, repeat, arm) FROM temp.run"
    " JOIN temp.experiment ON experiment.id = run.experiment JOIN main.output ON output.id = prompt)",
}
"""Which rows of each table are of some experiments; what is of no experiment stays as it is."""
OF_RUNS: Mapping[str, str] = {"run": f"id IN {THESE}"}
"""What belongs to other runs is found by no question that begins with runs."""


@contextmanager
def only_experiments(store: Store, ids: Sequence[int]) -> Iterator[None]:
    """See these experiments (rows) alone, with all that is theirs."""
    know_run_uids(store)
    with _narrowed(store, ids, OF_EXPERIMENTS):
        yield


@contextmanager
def only_runs(store: Store, ids: Sequence[int]) -> Iterator[None]:
    """See these runs (rows) alone; experiments, models and sessions stay as they are."""
    with _narrowed(store, ids, OF_RUNS):
        yield


@contextmanager
def _narrowed(store: Store, ids: Sequence[int], conditions: Mapping[str, str]) -> Iterator[None]:
    connection = store.db.connection
    connection.execute("CREATE TEMP TABLE chosen (id INTEGER PRIMARY KEY)")
    try:
        connection.executemany("INSERT OR IGNORE INTO temp.chosen VALUES (?)", [(id,) for id in ids])
        for table, condition in conditions.items():
            connection.execute(
                f"CREATE TEMP VIEW {table} AS SELECT * FROM main.{table} AS whole WHERE {condition}"
            )
        yield
    finally:
        for table in conditions:
            connection.execute(f"DROP VIEW IF EXISTS temp.{table}")
        connection.execute("DROP TABLE temp.chosen")
