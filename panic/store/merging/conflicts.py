"""Runs that two stores have with other content: finding them, leaving them out, and what else is doubtful.

`temp.refused` has the runs of the target of which nothing is taken; one that came in the same merge is
emptied, so that it does not matter which of the sources came first.
"""

from __future__ import annotations

from panic.store import reading
from panic.store.codec import PROMPT, decode_network
from panic.store.merging.tables import OF_RUNS
from panic.store.merging.walk import Walk
from panic.store.store import Store

RESULTS = ("invocation", "intervention", "stuck", "repeated", "failure", "attempt", "diagram")
MOST = 60
"""Characters of a prompt that are told."""
_STEPS = "(SELECT count(*) FROM {0}.invocation WHERE run = {1})"
_ENDED = (
    "(SELECT count(*) FROM {0}.stuck WHERE run = {1}) + (SELECT count(*) FROM {0}.repeated WHERE run = {1})"
)
_UNUSED = (
    "SELECT id FROM main.output EXCEPT SELECT prompt FROM main.run EXCEPT SELECT output FROM main.invocation"
    " EXCEPT SELECT output FROM main.intervention"
)


def open_refused(walk: Walk) -> None:
    """Begin a merge: no run is refused. Runs beyond those that the target has are of this merge."""
    walk.connection.execute("CREATE TEMP TABLE refused (run INTEGER PRIMARY KEY, is_new)")
    walk.connection.execute(
        "CREATE TEMP TABLE first AS SELECT (SELECT coalesce(max(id), 0) FROM main.run) AS run,"
        " (SELECT coalesce(max(id), 0) FROM main.output) AS output"
    )
    walk.connection.execute(
        "CREATE TEMP TABLE doubtful (output INTEGER, model INTEGER, PRIMARY KEY (output, model))"
    )


def differing_runs(walk: Walk) -> dict[int, str]:
    """The runs of the target that the source has with other content, and in what it differs.

    Runs that were refused before are left out of what comes.
    """
    connection = walk.connection
    connection.execute("DELETE FROM temp.map_run WHERE new IN (SELECT run FROM temp.refused)")
    found: dict[int, str] = {}
    for table in OF_RUNS:
        if table.agrees:
            for run, why in walk.disagreements(table):
                found.setdefault(run, why)
    mine, theirs = ("main", "own.new"), ("theirs", "own.old")
    for (run,) in connection.execute(
        "SELECT own.new FROM temp.map_run AS own WHERE own.new <= ?"
        f" AND ({_ENDED.format(*mine)} AND {_STEPS.format(*theirs)} > {_STEPS.format(*mine)}"
        f" OR {_ENDED.format(*theirs)} AND {_STEPS.format(*mine)} > {_STEPS.format(*theirs)})",
        (walk.last["run"],),
    ):
        found.setdefault(run, "it has ended in one store and gone on in the other")
    return found


def told(walk: Walk, run: int) -> str:
    """A run, for people."""
    [(name, network, prompt, seed, repeat, arm)] = walk.rows(
        f"SELECT name, network, {PROMPT}, seed, repeat, arm FROM main.run JOIN main.experiment"
        " ON experiment.id = experiment JOIN main.output ON output.id = prompt WHERE run.id = ?",
        run,
    )
    in_arm = "" if arm == "baseline" else f", arm {arm}"
    models = " → ".join(decode_network(network))
    return f"{name}: the run of {models} from {prompt[:MOST]!r}, seed {seed}, repeat {repeat}{in_arm}"


def leave(walk: Walk, run: int) -> None:
    """Take nothing of a run from the source in hand."""
    walk.connection.execute("DELETE FROM temp.map_run WHERE new = ?", (run,))


def refuse(walk: Walk, run: int) -> None:
    """Take nothing of a run from any source; what has come of it in this merge goes."""
    leave(walk, run)
    is_new = run > walk.value("SELECT run FROM temp.first")
    walk.connection.execute("INSERT OR IGNORE INTO temp.refused VALUES (?, ?)", (run, is_new))
    if is_new:
        clear(walk, run)


def clear(walk: Walk, run: int) -> None:
    """Remove the results of a run from the target."""
    for table in RESULTS:
        walk.connection.execute(f"DELETE FROM main.{table} WHERE run = ?", (run,))
    walk.connection.execute("DELETE FROM temp.memo WHERE run = ?", (run,))


def sweep(walk: Walk) -> None:
    """Remove the runs of this merge that were refused, and the new outputs that nothing refers to."""
    connection = walk.connection
    connection.execute("DELETE FROM main.run WHERE id IN (SELECT run FROM temp.refused WHERE is_new)")
    unused = f"SELECT id FROM ({_UNUSED}) WHERE id > (SELECT output FROM temp.first)"
    connection.execute(f"DELETE FROM main.embedding WHERE output IN ({unused})")
    connection.execute(f"DELETE FROM main.output WHERE id IN ({unused})")


def note_vectors(walk: Walk) -> None:
    """Note which outputs have another vector in the source than in the target."""
    walk.connection.execute("DELETE FROM temp.doubtful")
    walk.connection.execute(
        "INSERT INTO temp.doubtful SELECT t.output, t.model FROM theirs.embedding AS s"
        " CROSS JOIN temp.map_output AS o ON o.old = s.output"
        " CROSS JOIN temp.map_model AS m ON m.old = s.model"
        " CROSS JOIN main.embedding AS t ON t.output = o.new AND t.model = m.new"
        f" WHERE o.new <= {walk.last['output']} AND t.vector <> s.vector"
    )


def drop_doubtful_diagrams(walk: Walk) -> tuple[int, int]:
    """Remove the diagrams of vectors of which there were two: they are computed again, of the one that stays.

    (Outputs with two vectors, diagrams removed.)
    """
    connection = walk.connection
    num_vectors = walk.value("SELECT count(*) FROM temp.doubtful")
    if not num_vectors:
        return 0, 0
    connection.execute(
        "DELETE FROM main.diagram WHERE (run, model) IN (SELECT run, model FROM main.invocation"
        " JOIN temp.doubtful USING (output) UNION SELECT id, model FROM main.run"
        " JOIN temp.doubtful ON doubtful.output = prompt)"
    )
    return num_vectors, connection.changes()


def retire_failures(walk: Walk) -> None:
    """Make an attempt of a failure where the run has gone on beyond it in another store."""
    columns = "run, step, kind, message, detail, attempts, failed_at"
    gone_on = (
        "FROM main.failure WHERE run IN (SELECT new FROM temp.map_run) AND kind <> 'lost' AND EXISTS"
        " (SELECT 1 FROM main.invocation AS i WHERE i.run = failure.run AND i.step = failure.step)"
    )
    walk.connection.execute(
        f"INSERT INTO main.attempt ({columns}) SELECT {columns} {gone_on}"
        f" EXCEPT SELECT {columns} FROM main.attempt"
    )
    walk.connection.execute(f"DELETE {gone_on}")


def shrunk(store: Store) -> list[str]:
    """Sentences on runs that were computed in smaller batches than others, because memory was short."""
    found = []
    for row in reading.experiments(store):
        runs = store.db.rows(
            "SELECT DISTINCT run.id FROM run JOIN invocation ON invocation.run = run.id"
            " JOIN batch ON batch.id = batch JOIN epoch ON epoch.experiment = run.experiment"
            " AND epoch.model = batch.model AND epoch.number = batch.epoch"
            " WHERE run.experiment = ? AND epoch.reason = 'memory' AND epoch.number > 0 ORDER BY 1",
            row.id,
        )
        if runs:
            named = ", ".join(str(run) for (run,) in runs[:20]) + (", ..." if len(runs) > 20 else "")
            found.append(
                f"{row.name}: {len(runs):,} runs have steps in smaller batches, because memory was short, and"
                f" may differ from those of one store: runs {named}"
            )
    return found
