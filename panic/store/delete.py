"""Deleting an experiment: what only it used goes, what others use stays.

SQLite looks for children of every deleted row, which without indexes that nothing else needs is a scan
per row. So foreign keys are off while deleting, and checked as a whole before the end of the
transaction. The store's rows go first, then the pixels: pixels that nobody refers to are harmless.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from panic.store.captions import num_indexed
from panic.store.reading import Selector, experiment, nulls
from panic.store.records import ExperimentRow
from panic.store.store import Store

# ?1 is a JSON list of rows of experiments: one, and its null models.
THESE = "IN (SELECT value FROM json_each(?1))"
CHOSEN = "run.experiment IN (SELECT value FROM json_each(?1))"
CHOSEN_RUNS = "run.id IN (SELECT value FROM json_each(?1))"


def own_outputs(chosen: str) -> str:
    """A query for the outputs that no other runs have.

    Inputs are prompts or outputs of the same run, or of what stepped in.
    """
    of_runs = (
        "SELECT prompt FROM run WHERE {0}",
        "SELECT output FROM run JOIN invocation ON invocation.run = run.id WHERE {0}",
        "SELECT output FROM run JOIN intervention ON intervention.run = run.id WHERE {0}",
    )
    own = " UNION ".join(sql.format(chosen) for sql in of_runs)
    return " EXCEPT ".join([own, *(sql.format(f"NOT {chosen}") for sql in of_runs)])


OWN_OUTPUTS = own_outputs(CHOSEN)
OWN_RUNS = f"SELECT id FROM run WHERE experiment {THESE}"
OWN_DIAGRAMS = f"SELECT id FROM diagram WHERE run IN ({OWN_RUNS})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Deletion:
    """How many rows deleting an experiment and its null models removes.

    Outputs and embeddings that others use are not counted. image_bytes: of the images among these outputs.
    """

    runs: int
    invocations: int
    outputs: int
    embeddings: int
    diagrams: int
    image_bytes: int


def preview_deletion(store: Store, selector: Selector) -> Deletion:
    """What `delete_experiment` would remove."""
    return preview(store, _with_nulls(store, experiment(store, selector)))


def preview(store: Store, rows: Sequence[int], *, are_runs: bool = False) -> Deletion:
    """What removing experiments or, if the rows are such, runs would remove."""
    these, chosen = json.dumps(rows), CHOSEN_RUNS if are_runs else CHOSEN
    runs, outputs = f"SELECT id FROM run WHERE {chosen}", own_outputs(chosen)

    def count(what: str) -> int:
        return int(store.db.value(f"SELECT count(*) FROM {what}", these))

    digests = store.db.rows(
        f"SELECT digest FROM output WHERE modality = 'image' AND id IN ({outputs})", these
    )
    sql = "SELECT length(bytes) FROM image WHERE digest = ?"
    return Deletion(
        runs=count(f"run WHERE {chosen}"),
        invocations=count(f"invocation WHERE run IN ({runs})"),
        outputs=count(f"({outputs})"),
        embeddings=count(f"embedding WHERE output IN ({outputs})"),
        diagrams=count(f"diagram WHERE run IN ({runs})"),
        image_bytes=sum(store.images.value(sql, digest) or 0 for (digest,) in digests),
    )


def _with_nulls(store: Store, row: ExperimentRow) -> list[int]:
    """The rows of an experiment and of its null models."""
    return [row.id, *(one.id for one in nulls(store, row.name))]


def delete_experiment(store: Store, selector: Selector) -> Deletion:
    """Remove an experiment and its null models with all that only they used, in one transaction."""
    return remove(store, _with_nulls(store, experiment(store, selector)))


def remove(store: Store, experiments: Sequence[int], remarks: Collection[str] = ()) -> Deletion:
    """Remove these rows of experiments with all that only they used, in one transaction.

    remarks: uids of runs whose remarks go with them.
    """
    counts, these = preview(store, experiments), json.dumps(experiments)
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
                    for table in (
                        "diagram",
                        "stuck",
                        "repeated",
                        "failure",
                        "attempt",
                        "intervention",
                        "invocation",
                    )
                ),
                f"DELETE FROM run WHERE experiment {THESE}",
                f"DELETE FROM epoch WHERE experiment {THESE}",
                "DELETE FROM embedding WHERE output IN (SELECT id FROM own)",
                "INSERT INTO caption (caption, rowid, text) SELECT 'delete', id, text FROM output"
                " WHERE id IN (SELECT id FROM own) AND text NOTNULL"
                " AND id <= (SELECT value FROM meta WHERE key = 'captions')",
                "DELETE FROM annotation WHERE target_kind = 'output' AND target IN"
                " (SELECT lower(hex(digest)) FROM output WHERE id IN (SELECT id FROM own))",
                "DELETE FROM output WHERE id IN (SELECT id FROM own)",
                "UPDATE meta SET value = min(value, (SELECT coalesce(max(id), 0) FROM output))"
                " WHERE key = 'captions'",
                f"DELETE FROM batch WHERE session IN (SELECT id FROM session WHERE experiment {THESE})"
                " AND id NOT IN (SELECT batch FROM invocation UNION SELECT batch FROM embedding"
                " UNION SELECT batch FROM intervention WHERE batch NOTNULL)",
                "DELETE FROM answer WHERE batch NOT IN (SELECT id FROM batch)",
                f"DELETE FROM spending WHERE session IN (SELECT id FROM session WHERE experiment {THESE})",
                "DELETE FROM measure WHERE id NOT IN"
                " (SELECT measure FROM vectorisation UNION SELECT measure FROM distance)",
                f"UPDATE session SET experiment = NULL WHERE experiment {THESE}",
                f"DELETE FROM annotation WHERE target IN (SELECT uid FROM experiment WHERE id {THESE})",
                f"DELETE FROM change WHERE experiment {THESE}",
                f"DELETE FROM deletion WHERE experiment {THESE}",
                f"UPDATE deletion SET origin = NULL WHERE origin {THESE}",
                f"DELETE FROM experiment WHERE id {THESE}",
            ):
                connection.execute(sql, (these,) if "?1" in sql else ())
            connection.execute("DROP TABLE own")
            connection.executemany(
                "DELETE FROM annotation WHERE target_kind = 'run' AND target = ?", [(uid,) for uid in remarks]
            )
            broken = connection.execute("PRAGMA foreign_key_check").fetchall()
            assert not broken, broken
    finally:
        store.db.foreign_keys(on=True)
    store.output_ids.clear()
    store.experiments_of_runs.clear()
    store.last_indexed_id = min(store.last_indexed_id, num_indexed(store))
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
