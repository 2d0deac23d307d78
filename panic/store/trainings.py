"""Trainings in a store: how far each has come, with its config and where it was performed.

What a training writes lies beside its model. It never takes the driver's lock: like a remark, each entry is
one short transaction, at any time and beside a run. A training is no result: no dump or digest knows of it.

    with Store("panic-store") as store:
        keep(store, entry)
        find_training(store, "checkpoints/mine")
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from panic.errors import ConflictError, NotFound, StoreCorrupt
from panic.store import reading
from panic.store.annotations import (
    PREFIX_LENGTH,
    Target,
    annotate,
    list_annotations,
    say_configured,
    short_transaction,
)
from panic.store.codec import canonical_json, decode_object, readable
from panic.store.records import AnnotationRow, ExperimentRow
from panic.store.signing import Author, present_author, signed_if_possible
from panic.store.store import Store

if TYPE_CHECKING:
    import apsw

RUNNING, INTERRUPTED, FAILED, COMPLETE = "running", "interrupted", "failed", "complete"
JSON = ("config", "provenance", "measures")
CLOCK_SLACK_S = 1.0
"""By so much a process may seem to have begun after its training did: the kernel counts in ticks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRow:
    """A training, as far as it has come; times are Unix seconds.

    uid: digest of its recipe. folder: of its model, absolute. loss: of the last steps; val_loss: of the last
    evaluation, measures: all that this one told; best_loss: the least of all. seconds: of all its sessions.
    started_at: of the last session. end_state: None while it is performed, or where it was killed.
    """

    uid: str
    folder: str
    name: str
    task: str
    config: Mapping[str, Any]
    provenance: Mapping[str, Any]
    host: str
    pid: int
    log: str | None = None
    step: int = 0
    steps: int
    loss: float | None = None
    val_loss: float | None = None
    best_loss: float | None = None
    best_step: int | None = None
    measures: Mapping[str, float]
    seconds: float
    created_at: float
    started_at: float
    updated_at: float
    ended_at: float | None = None
    end_state: str | None = None
    message: str | None = None

    @property
    def state(self) -> str:
        """Where it stands: running, complete, out of time, interrupted or failed."""
        return state_of(self.end_state, self.host, self.pid, self.started_at)


NAMES = tuple(field.name for field in fields(TrainingRow))
ENTER = (
    f"INSERT INTO training ({', '.join(NAMES)}) VALUES ({', '.join('?' * len(NAMES))})"
    " ON CONFLICT (uid, folder) DO UPDATE SET "
    + ", ".join(f"{name} = excluded.{name}" for name in NAMES if name not in ("uid", "folder"))
)


def deleted_of(training: str = "training", remarks: str = "annotation") -> str:
    """Return SQL: whether a remark says of a training, in its folder, that it is deleted.

    If it goes on later it is not. training, remarks: what the two tables are called where it stands.
    """
    return (
        f"coalesce((SELECT said.kind = 'delete' AND said.at >= {training}.updated_at FROM {remarks} AS said"
        f" WHERE said.target_kind = 'training' AND said.target = {training}.uid"
        f" AND said.kind IN ({DELETIONS}) AND said.text = {training}.folder"
        " ORDER BY said.id DESC LIMIT 1), 0)"
    )


DELETIONS = "'delete', 'undelete'"
"""The kinds of remarks that say of a training whether it is deleted."""
DELETED = deleted_of()


def state_of(end_state: str | None, host: str, pid: int, started_at: float) -> str:
    """Return where a training stands: one whose process is gone, or was another machine's, is interrupted."""
    if end_state is not None:
        return end_state
    import psutil

    if host != socket.gethostname():
        return INTERRUPTED
    try:
        began = psutil.Process(pid).create_time()
    except (psutil.Error, ValueError, OverflowError):
        return INTERRUPTED
    return RUNNING if began <= started_at + CLOCK_SLACK_S else INTERRUPTED


def keep(store: Store, entry: TrainingRow) -> None:
    """Enter a training, or how far it is now, in one short transaction.

    Raises StoreReadOnly for a temporary copy of a store, StoreLocked where somebody writes for very long.
    """
    values = [
        canonical_json(value) if name in JSON else value
        for name, value in ((name, getattr(entry, name)) for name in NAMES)
    ]
    with short_transaction(store) as db:
        db.connection.execute(ENTER, values)


def declare_complete(store: Store, row: TrainingRow, step: int) -> None:
    """Say of a training that it is complete at a step; more steps reopen it. Raises as `keep`."""
    config, now = {**row.config, "steps": step}, time.time()
    at_step = replace(row, config=config, step=step, steps=step, updated_at=now)
    keep(store, replace(at_step, ended_at=now, end_state=COMPLETE, message=None))


def mark_as_configured(store: Store, entry: TrainingRow) -> None:
    """Say of a training the tags and the label of its config, before it is kept: so far the store has others.

    Unsigned if it has to be. Raises as `keep`.
    """
    sql = "SELECT config FROM training WHERE uid = ? AND folder = ?"
    before = _object(store.db.value(sql, entry.uid, entry.folder) or "{}")
    if any(entry.config.get(said) not in (None, [], before.get(said)) for said in ("tags", "label")):
        target = Target(kind="training", uid=entry.uid, name=entry.name)

        def say(author: Author) -> None:
            say_configured(store, target, before, entry.config, author)

        signed_if_possible(say, present_author(), f"what the config says of {entry.name} (tags and label)")


def bring(connection: apsw.Connection, rows: Iterable[Mapping[str, Any]]) -> None:
    """Enter trainings as another store's table has them; of one that is here, the later state stays.

    Raises StoreCorrupt, apsw.Error, LookupError and ValueError for what is no training.
    """
    for row in rows:
        for name in JSON:
            decode_object(row[name])
        later = " WHERE excluded.updated_at > training.updated_at"
        connection.execute(ENTER + later, [row[name] for name in NAMES])


def list_trainings(store: Store, *, are_deleted: bool = False) -> list[TrainingRow]:
    """Return all trainings, or those that are deleted, in the order in which they were entered."""
    which = DELETED if are_deleted else f"NOT {DELETED}"
    rows = store.db.rows(f"SELECT {', '.join(NAMES)} FROM training WHERE {which} ORDER BY id")
    return [_row(values) for values in rows]


def trainings_at(store: Store, ids: Sequence[int]) -> list[TrainingRow]:
    """Return the trainings in these rows, in this order."""
    these = "id IN (SELECT value FROM json_each(?))"
    found = store.db.rows(f"SELECT id, {', '.join(NAMES)} FROM training WHERE {these}", json.dumps(list(ids)))
    known = {id: _row(values) for id, *values in found}
    return [known[id] for id in ids if id in known]


def _row(values: Sequence[Any]) -> TrainingRow:
    named: dict[str, Any] = dict(zip(NAMES, values, strict=True))
    return TrainingRow(**{**named, **{name: _object(named[name]) for name in JSON}})


def _object(text: str) -> Mapping[str, Any]:
    """What a column says; nothing where that is no JSON object, of which `panic check` tells."""
    try:
        return decode_object(text)
    except StoreCorrupt:
        return {}


def find_training(store: Store, selector: str) -> TrainingRow | None:
    """Return the training that a text names: its folder, its name, or at least 8 digits of its uid.

    Of one that lies in several folders the last entry. None where there is none, or where it was deleted.
    Raises NotFound where there are several.
    """
    selector = readable(selector)
    begun = selector.lower() if len(selector) >= PREFIX_LENGTH else None
    called = "folder = ?1 OR name = ?1 OR substr(uid, 1, length(?2)) = ?2"
    found = store.db.rows(
        f"SELECT max(id) FROM training WHERE ({called}) AND NOT {DELETED} GROUP BY uid LIMIT 2",
        *(selector, begun),
    )
    if len(found) > 1:
        raise NotFound(
            f"Several trainings are called {selector!r}.",
            hint="Name the folder of one, or the beginning of its id: panic trainings.",
        )
    if not found:
        folder = readable(os.path.abspath(os.path.expanduser(selector)))
        return None if folder == selector else find_training(store, folder)
    return _row(store.db.row(f"SELECT {', '.join(NAMES)} FROM training WHERE id = ?", *found[0]))


def training_names(store: Store) -> list[tuple[str, str]]:
    """Return the name of each training, its folder where others are called so, too, and its uid."""
    rows = store.db.rows(
        f"SELECT name, folder, uid, max(id) AS last FROM training WHERE NOT {DELETED}"
        " GROUP BY uid ORDER BY last"
    )
    times = Counter(name for name, *_ in rows)
    return [(name if times[name] == 1 else folder, uid) for name, folder, uid, _ in rows]


def named_training(store: Store, selector: str) -> TrainingRow | None:
    """Return the training that a text names, if it names no experiment; one with a slash is a folder."""
    if os.sep not in selector:
        with contextlib.suppress(NotFound):
            reading.experiment(store, selector)
            return None
    return find_training(store, selector)


def naming_trainings(store: Store) -> list[ExperimentRow]:
    """Return the experiments with a session that names a training, oldest first: few of many do."""
    rows = store.db.rows(
        f"SELECT DISTINCT experiment FROM session WHERE experiment {reading.VISIBLE}"
        " AND instr(provenance, '\"training\"')"
    )
    return reading.experiment_rows(store, [experiment for (experiment,) in rows])


def place_of(store: Store, entry: TrainingRow) -> int:
    """Return the row of a training."""
    sql = "SELECT id FROM training WHERE uid = ? AND folder = ?"
    return int(store.db.value(sql, entry.uid, entry.folder))


def mark_deleted(store: Store, rows: Sequence[TrainingRow], author: Author) -> None:
    """Delete the entries of trainings, so that they can come back; what lies in their folders stays.

    Like every remark at any time, by anyone. One that goes on afterwards is there again. Raises ConflictError
    before anything is stored: for one that is performed, or was heard of in what is the future here.
    """
    if busy := next((row for row in rows if row.state == RUNNING), None):
        raise ConflictError(f"{busy.name} is being performed.", hint=f"panic stop {busy.folder}")
    if left := next((row for row in rows if row.updated_at > time.time()), None):
        raise ConflictError(f"{left.name} goes on elsewhere: its host {left.host} was heard of after this.")
    _annotate(store, "delete", rows, author)


def bring_back(store: Store, rows: Sequence[TrainingRow], author: Author) -> None:
    """Let the entries of trainings come back."""
    _annotate(store, "undelete", rows, author)


def _annotate(store: Store, kind: str, rows: Sequence[TrainingRow], author: Author) -> None:
    named = [(Target(kind="training", uid=row.uid, name=row.name), row.folder) for row in rows]
    annotate(store, kind, named, author)


def find_deleted(store: Store, selector: str) -> list[TrainingRow]:
    """Return the deleted trainings of a name, in a folder, or of at least 8 digits of a uid."""
    folder = readable(os.path.abspath(os.path.expanduser(selector)))
    is_begun = len(selector) >= PREFIX_LENGTH
    return [
        row
        for row in list_trainings(store, are_deleted=True)
        if selector in (row.name, row.folder)
        or row.folder == folder
        or (is_begun and row.uid.startswith(selector.lower()))
    ]


def deletion_of(store: Store, row: TrainingRow) -> AnnotationRow:
    """Return the remark that says that a training is deleted."""
    rows = list_annotations(store, "training", row.uid)
    return [one for one in rows if one.kind == "delete" and one.text == row.folder][-1]


def purge_trainings(store: Store, rows: Sequence[TrainingRow]) -> None:
    """Remove the entries of deleted trainings for good, and the remarks on those that lie in no other folder.

    What has come back meanwhile stays.
    """
    with short_transaction(store) as db:
        db.connection.executemany(
            f"DELETE FROM training WHERE uid = ? AND folder = ? AND {DELETED}",
            [(row.uid, row.folder) for row in rows],
        )
        db.connection.executemany(
            "DELETE FROM annotation WHERE target_kind = 'training' AND target = ?1"
            " AND ?1 NOT IN (SELECT uid FROM training)",
            [(row.uid,) for row in rows],
        )


def know_training_states(store: Store) -> None:
    """Let queries call `panic_training_state`, which says where a training stands."""

    def state(*values: Any) -> str:
        end_state, host, pid, started_at = values
        return state_of(end_state, host, pid, started_at)

    store.db.connection.create_scalar_function("panic_training_state", state)
