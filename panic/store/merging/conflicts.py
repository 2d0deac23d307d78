"""Runs that two stores have with other content: finding them, leaving them out, and what else is doubtful.

`temp.refused` has the keys of the runs of which nothing is taken from any source; one that came in the same
merge goes again, so that it does not matter which of the sources came first. `temp.left_out` has the runs of
the source in hand of which nothing is taken, because they are refused or were deleted here.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from panic.store import reading
from panic.store.codec import PROMPT, decode_network
from panic.store.merging.meetings import forget
from panic.store.merging.tables import OF_RUNS
from panic.store.merging.walk import THESE, Walk
from panic.store.store import Store

RESULTS = ("invocation", "intervention", "stuck", "repeated", "failure", "attempt", "diagram")
MOST = 60
"""Characters of a prompt that are told."""
_STEPS = "(SELECT count(*) FROM {0}.invocation WHERE run = {1})"
_ENDED = (
    "(SELECT count(*) FROM {0}.stuck WHERE run = {1}) + (SELECT count(*) FROM {0}.repeated WHERE run = {1})"
)
_UNUSED = (
    "SELECT id FROM main.output WHERE id > (SELECT output FROM temp.first) EXCEPT SELECT prompt FROM main.run"
    " EXCEPT SELECT output FROM main.invocation EXCEPT SELECT output FROM main.intervention"
)
IS_PART = "EXISTS (SELECT 1 FROM theirs.run WHERE id NOT IN (SELECT old FROM temp.map_run))"
"""Whether there are runs of the source that did not come."""
_REFUSED = (
    "SELECT own.old, own.new FROM temp.map_run AS own CROSS JOIN main.run ON run.id = own.new"
    " CROSS JOIN main.output ON output.id = run.prompt CROSS JOIN temp.refused AS r"
    " USING (digest, experiment, network, seed, repeat, arm)"
)
_DELETED = (
    "SELECT own.old, own.new FROM main.deletion CROSS JOIN main.run AS hidden"
    " ON hidden.experiment = deletion.experiment CROSS JOIN main.run ON run.experiment = deletion.origin"
    " AND (run.network, run.prompt, run.seed, run.repeat, run.arm) ="
    " (hidden.network, hidden.prompt, hidden.seed, hidden.repeat, hidden.arm)"
    " CROSS JOIN temp.map_run AS own ON own.new = run.id"
    " WHERE deletion.experiment <= (SELECT experiment FROM temp.first) AND run.id > ?"
)


def open_refused(walk: Walk) -> None:
    """Begin a merge: no run is refused."""
    walk.connection.execute(
        "CREATE TEMP TABLE refused (digest BLOB, experiment INTEGER, network TEXT, seed INTEGER,"
        " repeat INTEGER, arm TEXT, PRIMARY KEY (digest, experiment, network, seed, repeat, arm))"
    )
    walk.connection.execute("CREATE TEMP TABLE left_out (run INTEGER PRIMARY KEY, is_refused INTEGER)")
    walk.connection.execute(
        "CREATE TEMP TABLE doubtful (output INTEGER, model INTEGER, PRIMARY KEY (output, model))"
    )


def leave_out(walk: Walk) -> None:
    """Take nothing of runs that were refused before, nor of those that were deleted here before the merge."""
    connection, last = walk.connection, walk.last["run"]
    connection.execute("DELETE FROM temp.left_out")
    refused = walk.rows(_REFUSED)
    found = [*refused, *walk.rows(_DELETED, last)]
    connection.executemany(
        "INSERT OR IGNORE INTO temp.left_out VALUES (?, ?)",
        [(old, place < len(refused)) for place, (old, _) in enumerate(found)],
    )
    connection.executemany("DELETE FROM main.run WHERE id = ? AND id > ?", [(new, last) for _, new in found])
    connection.execute("DELETE FROM temp.map_run WHERE old IN (SELECT run FROM temp.left_out)")


def differing_runs(walk: Walk) -> dict[int, str]:
    """The runs of the target that the source has with other content, and in what it differs."""
    found: dict[int, str] = {}
    for table in OF_RUNS:
        if table.agrees:
            for run, why in walk.disagreements(table):
                found.setdefault(run, why)
    mine, theirs = ("main", "own.new"), ("theirs", "own.old")
    for (run,) in walk.connection.execute(
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


def leave(walk: Walk, runs: Sequence[int]) -> None:
    """Take nothing of these runs from the source in hand."""
    walk.connection.execute(f"DELETE FROM temp.map_run WHERE new IN {THESE}", (json.dumps(runs),))


def refuse(walk: Walk, runs: Sequence[int]) -> None:
    """Take nothing of these runs from any source; what has come of them in this merge goes."""
    if not runs:
        return
    connection, these = walk.connection, (json.dumps(runs),)
    connection.execute(
        f"INSERT INTO temp.left_out SELECT old, TRUE FROM temp.map_run WHERE new IN {THESE}", these
    )
    leave(walk, runs)
    connection.execute(
        "INSERT OR IGNORE INTO temp.refused SELECT digest, experiment, network, seed, repeat, arm"
        f" FROM main.run JOIN main.output ON output.id = prompt WHERE run.id IN {THESE}",
        these,
    )
    first = walk.value("SELECT run FROM temp.first")
    came = [run for run in runs if run > first]
    forget(walk, came)
    these = (json.dumps(came),)
    connection.execute(
        "DELETE FROM main.annotation WHERE target_kind = 'run' AND target IN"
        f" (SELECT run_uid(name, network, {PROMPT}, seed, repeat, arm) FROM main.run JOIN main.experiment"
        f" ON experiment.id = experiment JOIN main.output ON output.id = prompt WHERE run.id IN {THESE})",
        these,
    )
    connection.execute(f"DELETE FROM main.run WHERE id IN {THESE}", these)  # with all that is theirs


def clear(walk: Walk, runs: Sequence[int]) -> None:
    """Remove the results of these runs from the target."""
    for table in RESULTS:
        walk.connection.execute(f"DELETE FROM main.{table} WHERE run IN {THESE}", (json.dumps(runs),))


def sweep(walk: Walk) -> None:
    """Remove the outputs that came in this merge and that nothing refers to, with what was made of them."""
    connection = walk.connection
    connection.execute(f"CREATE TEMP TABLE unused AS {_UNUSED}")
    these = "IN (SELECT id FROM temp.unused)"
    connection.execute(
        "DELETE FROM main.annotation WHERE target_kind = 'output' AND target IN"
        f" (SELECT lower(hex(digest)) FROM main.output WHERE id {these})"
    )
    connection.execute(f"DELETE FROM main.output WHERE id {these}")  # and its vectors
    connection.execute("DROP TABLE temp.unused")


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
