"""Experiments of two stores that are one: what has to agree, and what becomes of the rest.

One is the other by its uid, or by its name. The smaller uid stays, so that the order of stores does not
matter; remarks follow it, without their signatures, which are over the uid that they were written under.
"""

from __future__ import annotations

import json

from panic.config import ExperimentConfig, contradictions, stored, union
from panic.errors import ConfigError
from panic.store import reading
from panic.store.codec import decode_object
from panic.store.merging.walk import Walk
from panic.store.store import Store

PINNED = ("fingerprint", "batch_size", "device_kind", "threads", "mates")
"""What a shape epoch of one number has to be in both stores."""
_ALL = "SELECT id, uid, name, config, created_at FROM {0}.experiment ORDER BY id"


def join_experiments(walk: Walk, mine: Store, theirs: Store) -> list[str]:
    """Bring the experiments of the source into the target, but those that contradict it: sentences on them.

    Raises StoreCorrupt for names and ids that are none.
    """
    reading.experiments(theirs)
    connection, conflicts = walk.connection, []
    here = walk.rows(_ALL.format("main"))
    known = {uid: id for id, uid, *_ in here}
    named = {name: id for id, _, name, *_ in here}
    for id, uid, name, config, created_at in walk.rows(_ALL.format("theirs")):
        row = known.get(uid, named.get(name))
        if row is None:
            connection.execute(
                "INSERT INTO main.experiment (uid, name, config, created_at) VALUES (?, ?, ?, ?)",
                (uid, name, config, created_at),
            )
            row = connection.last_insert_rowid()
        else:
            try:
                if problems := _disagreements(mine, theirs, row, id):
                    conflicts += [f"{name}: {problem}" for problem in problems]
                    continue
                _join(walk, row, uid, config, created_at)
            except ConfigError as error:
                conflicts.append(f"{name}: {error.message}")
                continue
        connection.execute("INSERT INTO temp.map_experiment VALUES (?, ?)", (id, row))
    return conflicts


def _disagreements(mine: Store, theirs: Store, here: int, there: int) -> list[str]:
    """Sentences on what two experiments of one name began with, and what is not the same."""
    epochs = {(row.name, row.number): row for row in reading.epochs(mine, here)}
    found = []
    unchanged = set()
    for row in reading.epochs(theirs, there):
        known = epochs.get((row.name, row.number))
        if known is None:
            continue
        if known.fingerprint == row.fingerprint:
            unchanged.add(row.name)
        found += [
            f"{row.name} has {_short(getattr(row, what))} as its {what.replace('_', ' ')} in {theirs.path},"
            f" and {_short(getattr(known, what))} here (shape epoch {row.number})"
            for what in PINNED
            if getattr(known, what) != getattr(row, what)
        ]
    before, asked = _config(mine, here), _config(theirs, there)
    if before is not None and asked is not None:
        found += contradictions(before, asked, unchanged).values()
    return found


def _short(value: object) -> str:
    return str(value)[:40]


def _config(store: Store, row: int) -> ExperimentConfig | None:
    return _parsed(*store.db.row("SELECT config, name FROM experiment WHERE id = ?", row))


def _parsed(text: str, name: str) -> ExperimentConfig | None:
    """A stored config; None where it is not one of this version, as those of null models are not."""
    try:
        return stored(decode_object(text), name)
    except ConfigError:
        return None


def _join(walk: Walk, row: int, uid: str, config: str, created_at: float) -> None:
    """Make two experiments one: the union of what was asked, the smaller uid, the earlier time.

    Raises ConfigError for a union that is too large.
    """
    [(old, name, text)] = walk.rows("SELECT uid, name, config FROM main.experiment WHERE id = ?", row)
    before, asked = _parsed(text, name), _parsed(config, name)
    if before is not None and asked is not None and before != asked:
        text = json.dumps(union(before, asked).model_dump(mode="json"), ensure_ascii=False)
    stays, goes = min(old, uid), max(old, uid)
    walk.connection.execute(
        "UPDATE main.experiment SET uid = ?, config = ?, created_at = min(created_at, ?) WHERE id = ?",
        (stays, text, created_at, row),
    )
    if stays == goes:
        return
    walk.connection.execute("INSERT INTO temp.renamed VALUES (?, ?)", (goes, stays))
    walk.connection.execute(
        "UPDATE main.annotation SET target = ?, signature = NULL WHERE target = ?", (stays, goes)
    )
