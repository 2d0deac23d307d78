"""Remarks that come with a source: in the order in which they were made, as the last of a kind holds."""

from __future__ import annotations

from panic.store.merging.walk import Walk

_COLUMNS = "target_kind, target, kind, text, author, at, signature"


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
