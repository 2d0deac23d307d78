"""Deleting an experiment: what only it used goes, what others use stays.

SQLite looks for children of every deleted row, which without indexes that nothing else needs is a scan
per row. So foreign keys are off while deleting, and checked as a whole before the end of the
transaction. The store's rows go first, then the pixels: pixels that nobody refers to are harmless.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from panic.store.reading import Selector, experiment, nulls
from panic.store.records import ExperimentRow
from panic.store.store import Store

# ?1 is a JSON list of rows of experiments: one, and its null models.
THESE = "IN (SELECT value FROM json_each(?1))"
# Outputs that no other experiment has. Inputs are prompts or outputs of the same run, or of what stepped in.
OWN_OUTPUTS = (
    f"SELECT prompt FROM run WHERE experiment {THESE}"
    f" UNION SELECT output FROM run JOIN invocation ON invocation.run = run.id WHERE experiment {THESE}"
    f" UNION SELECT output FROM run JOIN intervention AS i ON i.run = run.id WHERE experiment {THESE}"
    f" EXCEPT SELECT prompt FROM run WHERE experiment NOT {THESE}"
    f" EXCEPT SELECT output FROM run JOIN invocation ON invocation.run = run.id WHERE experiment NOT {THESE}"
    f" EXCEPT SELECT output FROM run JOIN intervention AS i ON i.run = run.id WHERE experiment NOT {THESE}"
)
OWN_RUNS = f"SELECT id FROM run WHERE experiment {THESE}"
OWN_DIAGRAMS = f"SELECT id FROM diagram WHERE run IN ({OWN_RUNS})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Deletion:
    """How many rows deleting an experiment and its null models removes.

    Outputs and embeddings that others use are not counted.
    """

    runs: int
    invocations: int
    outputs: int
    embeddings: int
    diagrams: int


def preview_deletion(store: Store, selector: Selector) -> Deletion:
    """What `delete_experiment` would remove."""
    these = _with_nulls(store, experiment(store, selector))

    def count(what: str) -> int:
        return int(store.db.value(f"SELECT count(*) FROM {what}", these))

    return Deletion(
        runs=count(f"run WHERE experiment {THESE}"),
        invocations=count(f"invocation WHERE run IN ({OWN_RUNS})"),
        outputs=count(f"({OWN_OUTPUTS})"),
        embeddings=count(f"embedding WHERE output IN ({OWN_OUTPUTS})"),
        diagrams=count(f"diagram WHERE run IN ({OWN_RUNS})"),
    )


def _with_nulls(store: Store, row: ExperimentRow) -> str:
    """The rows of an experiment and of its null models, as a JSON list."""
    return json.dumps([row.id, *(one.id for one in nulls(store, row.name))])


def own_image_bytes(store: Store, selector: Selector) -> int:
    """Bytes of the images that only an experiment and its null models use."""
    digests = store.db.rows(
        f"SELECT digest FROM output WHERE modality = 'image' AND id IN ({OWN_OUTPUTS})",
        _with_nulls(store, experiment(store, selector)),
    )
    sql = "SELECT length(bytes) FROM image WHERE digest = ?"
    return sum(store.images.value(sql, digest) or 0 for (digest,) in digests)


def delete_experiment(store: Store, selector: Selector) -> Deletion:
    """Remove an experiment and its null models with all that only they used, in one transaction."""
    row = experiment(store, selector)
    these, counts = _with_nulls(store, row), preview_deletion(store, row.id)
    store.db.foreign_keys(on=False)
    try:
        with store.transaction() as connection:
            connection.execute("CREATE TEMP TABLE own AS SELECT id, digest FROM output WHERE FALSE")
            connection.execute(
                f"INSERT INTO own SELECT id, digest FROM output WHERE id IN ({OWN_OUTPUTS})", (these,)
            )
            images = connection.execute(
                "SELECT digest FROM own JOIN output USING (id, digest) WHERE modality = 'image'"
            ).fetchall()
            for sql in (
                f"DELETE FROM distance WHERE a IN ({OWN_DIAGRAMS})",
                f"DELETE FROM vectorisation WHERE diagram IN ({OWN_DIAGRAMS})",
                f"DELETE FROM diagram_bars WHERE diagram IN ({OWN_DIAGRAMS})",
                *(
                    f"DELETE FROM {table} WHERE run IN ({OWN_RUNS})"
                    for table in (*("diagram", "stuck", "repeated", "failure", "intervention", "invocation"),)
                ),
                f"DELETE FROM run WHERE experiment {THESE}",
                f"DELETE FROM epoch WHERE experiment {THESE}",
                "DELETE FROM embedding WHERE output IN (SELECT id FROM own)",
                "DELETE FROM output WHERE id IN (SELECT id FROM own)",
                f"DELETE FROM batch WHERE session IN (SELECT id FROM session WHERE experiment {THESE})"
                " AND id NOT IN (SELECT batch FROM invocation UNION SELECT batch FROM embedding"
                " UNION SELECT batch FROM intervention WHERE batch NOTNULL)",
                "DELETE FROM answer WHERE batch NOT IN (SELECT id FROM batch)",
                f"DELETE FROM spending WHERE session IN (SELECT id FROM session WHERE experiment {THESE})",
                "DELETE FROM measure WHERE id NOT IN"
                " (SELECT measure FROM vectorisation UNION SELECT measure FROM distance)",
                f"UPDATE session SET experiment = NULL WHERE experiment {THESE}",
                f"DELETE FROM annotation WHERE target IN (SELECT uid FROM experiment WHERE id {THESE})",
                f"DELETE FROM experiment WHERE id {THESE}",
            ):
                connection.execute(sql, (these,) if "?1" in sql else ())
            connection.execute("DROP TABLE own")
            broken = connection.execute("PRAGMA foreign_key_check").fetchall()
            assert not broken, broken
    finally:
        store.db.foreign_keys(on=True)
    store.output_ids.clear()
    with store.images.transaction() as connection:
        connection.executemany("DELETE FROM image WHERE digest = ?", images)
    return counts


def compact(store: Store) -> None:
    """Give the space of what was deleted back to the disk; needs that much free space meanwhile.

    Also drops pixels that no output refers to, which a kill amid a deletion leaves behind.
    """
    known = {digest for (digest,) in store.db.rows("SELECT digest FROM output WHERE modality = 'image'")}
    stored = [digest for (digest,) in store.images.rows("SELECT digest FROM image")]
    with store.images.transaction() as connection:
        for digest in stored:
            if digest not in known:
                connection.execute("DELETE FROM image WHERE digest = ?", (digest,))
    for database in (store.db, store.images):
        database.execute("VACUUM")
