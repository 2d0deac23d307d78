"""Experiments of two stores that are one: what has to agree, and what becomes of the rest.

One is the other by its uid, or by its name where neither store has the other's uid under another name. The
smaller uid stays, so that the order of stores does not matter; remarks follow it, without their signatures,
which are over the uid that they were written under. Null models and deleted runs come with what they are of.

What one source has deleted and another has comes undeleted: a merge loses nothing that anybody sees. What the
target had deleted before stays so. Where a source has deleted an experiment and begun another of its name,
the name is the new one's, and the older one comes deleted, with its null models, from any source.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from panic.config import ExperimentConfig, contradictions, stored, union
from panic.errors import ConfigError, ConflictError
from panic.store import reading
from panic.store.codec import decode_object
from panic.store.merging.walk import Walk
from panic.store.reading import HIDDEN, NULL_NAME
from panic.store.store import Store

PINNED = ("fingerprint", "batch_size", "device_kind", "threads", "mates")
"""What a shape epoch of one number has to be in both stores."""
_THEIRS = (
    "SELECT id, uid, experiment.name, config, created_at, origin FROM theirs.experiment"
    " LEFT JOIN theirs.deletion ON deletion.experiment = id ORDER BY id"
)
_CAME = "SELECT 1 FROM temp.map_experiment WHERE old = ?"


def join_experiments(walk: Walk, mine: Store, theirs: Store) -> list[str]:
    """Bring the experiments of the source into the target, but those that contradict it: sentences on them.

    Raises StoreCorrupt for names and ids that are none.
    """
    reading.experiments(theirs)
    conflicts: list[str] = []
    for there in _sorted(walk):
        if there.of is not None and not walk.rows(_CAME, there.of):
            continue
        try:
            deleted_with = _deleted_with(walk, there)
            here = _same(walk, there, theirs, is_deleted=deleted_with is not None)
            if here is None and deleted_with is not None:
                here = _begin(walk, there, HIDDEN + there.uid)
                _note_deletion(walk, here, deleted_with, there.name)
            elif here is None:
                here = _begin(walk, there, there.name)
            elif problems := _disagreements(mine, theirs, here, there.id):
                conflicts += [f"{there.name}: {problem}" for problem in problems]
                continue
            else:
                _join(walk, here, there)
            walk.connection.execute("INSERT INTO temp.map_experiment VALUES (?, ?)", (there.id, here))
        except (ConfigError, ConflictError) as error:
            conflicts.append(f"{there.name}: {error.message}")
    return conflicts


@dataclass(frozen=True, slots=True, kw_only=True)
class _Experiment:
    """An experiment of the source. of: the row of the one whose null models or deleted runs it has."""

    id: int
    uid: str
    name: str
    config: str
    created_at: float
    of: int | None


def _sorted(walk: Walk) -> list[_Experiment]:
    """The experiments of the source, each behind the one that it belongs to."""
    rows = walk.rows(_THEIRS)
    named = {name: id for id, _, name, *_ in rows}
    found = []
    for id, uid, name, config, created_at, origin in rows:
        null = NULL_NAME.fullmatch(name)
        of = named.get(null[1]) if null else origin
        found.append(_Experiment(id=id, uid=uid, name=name, config=config, created_at=created_at, of=of))
    return sorted(found, key=lambda one: (one.name.startswith(HIDDEN), one.of is not None))


def _same(walk: Walk, there: _Experiment, theirs: Store, *, is_deleted: bool) -> int | None:
    """The row of the target that is an experiment of the source, None for a new one.

    The name of null models of a deleted experiment (`is_deleted`) is that of another one's by now.
    Raises ConflictError where its name is that of another experiment, which the source has, too.
    """
    if rows := walk.rows("SELECT id, name FROM main.experiment WHERE uid = ?", there.uid):
        [(known, name)] = rows
        if _came(walk, known) and name.startswith(HIDDEN):
            _bring_back(walk, known, there)
        return int(known)
    rows = walk.rows("SELECT id, uid FROM main.experiment WHERE name = ?", there.name)
    if is_deleted or not rows:
        return None
    [(row, uid)] = rows
    if other := walk.rows("SELECT name FROM theirs.experiment WHERE uid = ?", uid):
        [(name,)] = other
        if _came(walk, row) and name.startswith(HIDDEN):
            _give_name_away(walk, row, there.name, uid)
            return None
        what = "was deleted" if name.startswith(HIDDEN) else f"is called {name}"
        raise ConflictError(
            f"the experiment of this name here is another one, which {what} in {theirs.path}"
            f" (panic delete {there.name} here makes room for both: it can come back under another name)"
        )
    return int(row)


def _came(walk: Walk, row: int) -> bool:
    """Whether an experiment of the target came in this merge."""
    return row > walk.value("SELECT experiment FROM temp.first")


def _bring_back(walk: Walk, row: int, there: _Experiment) -> None:
    """Let an experiment be there that another source had deleted, unless its name is taken.

    That is by a new one, or by itself, where this source has deleted it, too.
    """
    taken = walk.rows("SELECT 1 FROM main.experiment WHERE name = ?", there.name)
    if not taken and _deleted_with(walk, there) is None:
        walk.connection.execute("UPDATE main.experiment SET name = ? WHERE id = ?", (there.name, row))
        walk.connection.execute("DELETE FROM main.deletion WHERE experiment = ?", (row,))


def _deleted_with(walk: Walk, there: _Experiment) -> int | None:
    """The row of the deleted experiment whose null models these are; None for all others."""
    if there.of is None or there.name.startswith(HIDDEN):
        return None
    of = "id = (SELECT new FROM temp.map_experiment WHERE old = ?)"
    found = walk.rows(f"SELECT id FROM main.experiment WHERE {of} AND name GLOB '{HIDDEN}*'", there.of)
    return int(found[0][0]) if found else None


def _give_name_away(walk: Walk, row: int, name: str, uid: str) -> None:
    """Delete an experiment of this uid that came, with its null models, as the source in hand has done."""
    null_models = walk.rows("SELECT id FROM main.experiment WHERE name GLOB ? || '/null-*'", name)
    walk.connection.execute(
        "INSERT INTO main.deletion SELECT ?, deletion.name, NULL, author, at FROM theirs.deletion"
        " JOIN theirs.experiment AS e ON e.id = deletion.experiment WHERE e.uid = ?",
        (row, uid),
    )
    for one in (row, *(null for (null,) in null_models)):
        _hide(walk, one, row)


def _hide(walk: Walk, row: int, of: int) -> None:
    """Delete an experiment as and when another one was, of which it has the null models, or which it is."""
    [(name,)] = walk.rows("SELECT name FROM main.experiment WHERE id = ?", row)
    _note_deletion(walk, row, of, name)
    walk.connection.execute(f"UPDATE main.experiment SET name = '{HIDDEN}' || uid WHERE id = ?", (row,))


def _note_deletion(walk: Walk, row: int, of: int, name: str) -> None:
    """Say that an experiment of this name was deleted when another one was, and by whom."""
    walk.connection.execute(
        "INSERT OR IGNORE INTO main.deletion SELECT ?, ?, NULL, author, at FROM main.deletion"
        " WHERE deletion.experiment = ?",
        (row, name, of),
    )


def _begin(walk: Walk, there: _Experiment, name: str) -> int:
    """Create an experiment as it is in the source, under a name; its row."""
    walk.connection.execute(
        "INSERT INTO main.experiment (uid, name, config, created_at) VALUES (?, ?, ?, ?)",
        (there.uid, name, there.config, there.created_at),
    )
    return walk.connection.last_insert_rowid()


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


def _join(walk: Walk, row: int, there: _Experiment) -> None:
    """Make two experiments one: the union of what was asked, the smaller uid, the earlier time.

    Raises ConfigError for a union that is too large.
    """
    [(old, name, text)] = walk.rows("SELECT uid, name, config FROM main.experiment WHERE id = ?", row)
    before, asked = _parsed(text, name), _parsed(there.config, name)
    if before is not None and asked is not None and before != asked:
        text = json.dumps(union(before, asked).model_dump(mode="json"), ensure_ascii=False)
    stays, goes = min(old, there.uid), max(old, there.uid)
    walk.connection.execute(
        "UPDATE main.experiment SET uid = ?, config = ?, created_at = min(created_at, ?) WHERE id = ?",
        (stays, text, there.created_at, row),
    )
    if stays == goes:
        return
    walk.connection.execute("INSERT INTO temp.renamed VALUES (?, ?)", (goes, stays))
    walk.connection.execute(
        "UPDATE main.annotation SET target = ?, signature = NULL WHERE target = ?", (stays, goes)
    )
