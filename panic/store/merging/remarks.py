"""Remarks that come with a source: those on what comes, in the order in which they were made."""

from __future__ import annotations

from panic.store.codec import PROMPT
from panic.store.merging.walk import Walk
from panic.store.trainings import deleted_of

_RUNS = (
    f"SELECT 'run', run_uid(coalesce(deletion.name, experiment.name), network, {PROMPT}, seed, repeat, arm)"
    " FROM theirs.run JOIN theirs.experiment ON experiment.id = run.experiment"
    " LEFT JOIN theirs.deletion ON deletion.experiment = experiment.id"
    " JOIN theirs.output ON output.id = prompt WHERE"
)
_COMES = (
    "run.experiment IN (SELECT old FROM temp.map_experiment)"
    " AND run.id NOT IN (SELECT run FROM temp.left_out)"
)
_COLUMNS = "target_kind, target, kind, text, author, at, signature"


def open_remarks(walk: Walk) -> None:
    """Begin a merge. `temp.silent` has what did not come of the source in hand: its remarks stay there."""
    walk.connection.execute("CREATE TEMP TABLE silent (kind TEXT, target TEXT, PRIMARY KEY (kind, target))")


def choose_remarks(walk: Walk) -> None:
    """Say of what of the source no remark is taken: experiments, runs and trainings of which nothing is."""
    connection = walk.connection
    connection.execute("DELETE FROM temp.silent")
    connection.execute(
        "INSERT INTO temp.silent SELECT 'experiment', uid FROM theirs.experiment"
        " WHERE id NOT IN (SELECT old FROM temp.map_experiment)"
    )
    connection.execute(
        "INSERT INTO temp.silent SELECT 'training', uid FROM theirs.training AS t"
        f" GROUP BY uid HAVING min({deleted_of('t', 'theirs.annotation')})"
    )
    if walk.value("SELECT EXISTS (SELECT 1 FROM theirs.annotation WHERE target_kind = 'run')"):
        connection.execute(f"INSERT OR IGNORE INTO temp.silent {_RUNS} NOT ({_COMES})")
    if walk.value("SELECT EXISTS (SELECT 1 FROM temp.silent WHERE kind = 'run')"):
        # Runs of two experiments that had one name, one after the other, are called the same.
        connection.execute(f"DELETE FROM temp.silent WHERE (kind, target) IN ({_RUNS} {_COMES})")


def order_remarks(walk: Walk) -> None:
    """Put the remarks on whatever got new ones from the source into the order of their times.

    Readers go by row numbers, in which a store has them in that order. Of equal times the text decides, so
    that the order of sources does not matter.
    """
    connection = walk.connection
    connection.execute(
        "CREATE TEMP TABLE remarked AS SELECT DISTINCT target_kind, target FROM main.annotation WHERE id > ?",
        (walk.last["annotation"],),
    )
    connection.execute(
        "CREATE TEMP TABLE said AS SELECT annotation.* FROM temp.remarked"
        " CROSS JOIN main.annotation USING (target_kind, target)"
    )
    last = walk.value("SELECT coalesce(max(id), 0) FROM main.annotation")
    connection.execute("DELETE FROM main.annotation WHERE id IN (SELECT id FROM temp.said)")
    connection.execute(
        f"INSERT INTO main.annotation (id, {_COLUMNS}) SELECT ? + row_number() OVER"
        f" (ORDER BY at, author, kind, text, signature), {_COLUMNS} FROM temp.said",
        (last,),
    )
    connection.execute("DROP TABLE temp.remarked")
    connection.execute("DROP TABLE temp.said")
