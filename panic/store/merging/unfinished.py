"""What a merge has brought until it ends, also when a kill comes between its sources.

`temp.first` has the last rows that the target had before the merge; what is beyond them came with it. The
table `meta` keeps them between two sources, and the next merge takes them up unless somebody has worked in
the target since, or the index of captions has gone on: then all that is there is the target's own.
"""

from __future__ import annotations

from collections.abc import Mapping

from panic.store.merging.walk import Walk

TABLES = ("experiment", "run", "output")
WORKED_ON = ("experiment", "run", "session")
"""Tables that get rows by whatever else is done in a store that matters here, deleting runs included."""
_KEY = "merge: "
_NOW = "(SELECT coalesce(max(id), 0) FROM main.{0})"


def begin(walk: Walk) -> None:
    """Say what the target had before this merge, or before the one that was killed and goes on with it."""
    known = dict(walk.rows(f"SELECT key, value FROM main.meta WHERE key GLOB '{_KEY}*'"))
    is_same = bool(known) and _as_left(walk, known)
    walk.has_left = is_same  # what those sources have left out is swept with the last one
    values = (
        str(known[f"{_KEY}first {name}"]) if is_same else _NOW.format(name)  # as numbers, or as SQL
        for name in TABLES
    )
    columns = ", ".join(f"{value} AS {name}" for value, name in zip(values, TABLES, strict=True))
    walk.connection.execute(f"CREATE TEMP TABLE first AS SELECT {columns}")


def _as_left(walk: Walk, known: Mapping[str, int]) -> bool:
    """Whether nobody has worked in the target since."""
    indexed = walk.value("SELECT coalesce(max(value), 0) FROM main.meta WHERE key = 'captions'")
    return indexed <= known[f"{_KEY}first output"] and all(
        known[f"{_KEY}last {name}"] == walk.value(f"SELECT {_NOW.format(name)}") for name in WORKED_ON
    )


def keep(walk: Walk) -> None:
    """Keep it for the time between two sources, in the transaction of the first of them."""
    values = [(f"{_KEY}first {name}", f"(SELECT {name} FROM temp.first)") for name in TABLES]
    values += [(f"{_KEY}last {name}", _NOW.format(name)) for name in WORKED_ON]
    for key, value in values:
        walk.connection.execute(f"INSERT OR REPLACE INTO main.meta SELECT ?, {value}", (key,))


def end(walk: Walk) -> None:
    """Forget it, in the transaction of the last source: all that came is the target's own now."""
    walk.connection.execute(f"DELETE FROM main.meta WHERE key GLOB '{_KEY}*'")
