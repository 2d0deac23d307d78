"""What was deleted and can come back: it is marked first, and purged on request.

An experiment that is deleted keeps its rows and loses its name; runs that are deleted move to an experiment
of their own. Both are named in the table `deletion`, and no question sees an experiment that is: `reading`
leaves it out, and everything else asks for runs by their experiment. So what reads runs need not know of it.

    hide(store, reading.experiment(store, "demo"), author)
    hide_runs(store, row, [3, 4], author)
    restore(store, deleted(store)[-1])
    purge(store, deleted(store))
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass

from panic.arms import BASELINE
from panic.errors import ConflictError, NotFound
from panic.store import reading
from panic.store.codec import PROMPT, decode_network, run_key
from panic.store.delete import Deletion, compact, preview, remove
from panic.store.reading import HIDDEN, NULL_NAME, nulls
from panic.store.records import ExperimentRow
from panic.store.store import Store
from panic.store.writing import mark_changed, new_uid


@dataclass(frozen=True, slots=True, kw_only=True)
class Tombstone:
    """A deletion: a hidden experiment, and its name or that of the experiment `origin` whose runs it has."""

    experiment: int
    uid: str
    name: str
    origin: int | None
    num_runs: int
    author: str
    at: float

    @property
    def is_part(self) -> bool:
        """Whether these are runs of an experiment that may still be there."""
        return self.origin is not None


def deleted(store: Store) -> list[Tombstone]:
    """What was deleted and is still there, oldest first."""
    rows = store.db.rows(
        "SELECT experiment, uid, deletion.name, origin,"
        " (SELECT count(*) FROM run WHERE run.experiment = deletion.experiment), author, at"
        " FROM deletion JOIN experiment ON experiment.id = deletion.experiment ORDER BY at, experiment"
    )
    names = Tombstone.__slots__
    return [Tombstone(**dict(zip(names, row, strict=True))) for row in rows]


def hide(store: Store, row: ExperimentRow, author: str) -> None:
    """Delete an experiment with its null models, so that they can come back; its name is free then.

    Raises NotFound where another process has deleted it since it was read.
    """
    row, at = reading.experiment(store, row.uid), time.time()
    with store.transaction() as connection:
        for one in [row, *nulls(store, row.name)]:
            connection.execute(f"UPDATE experiment SET name = '{HIDDEN}' || uid WHERE id = ?", (one.id,))
            connection.execute(
                "INSERT INTO deletion VALUES (?, ?, NULL, ?, ?)", (one.id, one.name, author, at)
            )


def hide_runs(store: Store, row: ExperimentRow, runs: Sequence[int], author: str) -> None:
    """Delete runs of an experiment, so that they can come back.

    Distances between them and runs that stay are removed: they can be computed again. Raises NotFound where
    another process has deleted the experiment since it was read.
    """
    row = reading.experiment(store, row.uid)
    uid, chosen = new_uid(), json.dumps(list(runs))
    these = "IN (SELECT value FROM json_each(?1))"
    with store.transaction() as connection:
        hidden = store.db.insert(
            "INSERT INTO experiment (uid, name, config, created_at)"
            " SELECT ?, ?, config, created_at FROM experiment WHERE id = ?",
            *(uid, HIDDEN + uid, row.id),
        )
        connection.execute(
            "INSERT INTO epoch (experiment, name, number, model, batch_size, device_kind, threads, opened_at,"
            " reason, mates) SELECT ?, name, number, model, batch_size, device_kind, threads, opened_at,"
            " reason, mates FROM epoch WHERE experiment = ?",
            (hidden, row.id),
        )
        mine = f"(SELECT id FROM diagram WHERE run {these})"
        connection.execute(f"DELETE FROM distance WHERE (a IN {mine}) <> (b IN {mine})", (chosen,))
        connection.execute(
            f"UPDATE run SET experiment = ?2 WHERE id {these} AND experiment = ?3", (chosen, hidden, row.id)
        )
        connection.execute(
            "INSERT INTO deletion VALUES (?, ?, ?, ?, ?)", (hidden, row.name, row.id, author, time.time())
        )
        store.experiments_of_runs.clear()
        mark_changed(store, [row.id, hidden])


def _still_deleted(store: Store, tombstones: Sequence[Tombstone]) -> list[Tombstone]:
    """Those that are still there: others may have come back, or left the number of their row to another."""
    there = {(one.experiment, one.uid, one.at) for one in deleted(store)}
    return [one for one in tombstones if (one.experiment, one.uid, one.at) in there]


def find(store: Store, selector: str) -> Tombstone:
    """The newest deletion of a name, or the one whose id begins so. Raises NotFound, also for several.

    Null models that were deleted with what they are of come back with it, and are not found.
    """
    there = deleted(store)
    whole = {one.at for one in there if not NULL_NAME.fullmatch(one.name)}
    known = [one for one in there if not (NULL_NAME.fullmatch(one.name) and one.at in whole)]
    found = [one for one in known if one.name == selector]
    if found:
        return found[-1]
    found = [one for one in known if len(selector) >= 4 and one.uid.startswith(selector)]
    if len(found) == 1:
        return found[0]
    if found:
        raise NotFound(
            f"Several deletions in {store.path} begin with {selector!r}.",
            hint=f"They are: {', '.join(f'{one.uid} ({one.name})' for one in found[-10:])}.",
        )
    names = ", ".join(dict.fromkeys(one.name for one in known))
    raise NotFound(
        f"Nothing called {selector!r} was deleted from {store.path}, or it was purged.",
        hint=f"Deleted are: {names}." if names else "Nothing is there to come back.",
    )


def restore(store: Store, tombstone: Tombstone, name: str | None = None) -> int:
    """Let what was deleted come back, an experiment also under another name; how many runs stay deleted.

    Under another name its runs have other uids: remarks on them are copied, without their signatures.
    Those stay that the experiment has again, having computed them anew. Raises ConflictError where a name is
    taken, or the experiment of the runs is itself deleted; NotFound where it has come back, or was purged.
    """
    if not _still_deleted(store, [tombstone]):
        raise NotFound(f"{tombstone.name} is not deleted any more: another process was faster.")
    if tombstone.is_part:
        return _restore_runs(store, tombstone)
    wanted = name or tombstone.name
    of = NULL_NAME.fullmatch(wanted)
    if of and not reading.named(store, of[1]):
        raise ConflictError(f"There is no experiment {of[1]} any more, of which these are null models.")
    own = [one for one in deleted(store) if one.at == tombstone.at and not one.is_part]
    names = {one.experiment: wanted + one.name.removeprefix(tombstone.name) for one in own}
    if taken := [one for one in names.values() if reading.named(store, one)]:
        raise ConflictError(
            f"There is an experiment called {taken[0]}.",
            hint="--name NAME lets it come back under another name.",
        )
    with store.transaction() as connection:
        for row, new in names.items():
            connection.execute("UPDATE experiment SET name = ? WHERE id = ?", (new, row))
            connection.execute("DELETE FROM deletion WHERE experiment = ?", (row,))
        if name:
            connection.execute(
                "UPDATE experiment SET config = json_set(config, '$.name', ?) WHERE id = ?",
                (name, tombstone.experiment),
            )
            connection.executemany(
                "INSERT INTO annotation (target_kind, target, kind, text, author, at)"
                " SELECT target_kind, ?, kind, text, author, at FROM annotation"
                " WHERE target_kind = 'run' AND target = ? ORDER BY id",
                zip(
                    _run_uids(store, name, tombstone.experiment),
                    _run_uids(store, tombstone.name, tombstone.experiment),
                    strict=True,
                ),
            )
    return 0


def _restore_runs(store: Store, tombstone: Tombstone) -> int:
    if tombstone.origin in {one.experiment for one in deleted(store)}:
        raise ConflictError(
            f"These are runs of {tombstone.name}, which is deleted itself.",
            hint="Let the experiment come back first: panic undelete lists what was deleted.",
        )
    hidden = tombstone.experiment
    with store.transaction() as connection:
        connection.execute(
            "UPDATE OR IGNORE run SET experiment = ? WHERE experiment = ?", (tombstone.origin, hidden)
        )
        store.experiments_of_runs.clear()
        mark_changed(store, [hidden] if tombstone.origin is None else [hidden, tombstone.origin])
        left = int(store.db.value("SELECT count(*) FROM run WHERE experiment = ?", hidden))
        if not left:
            connection.execute("DELETE FROM experiment WHERE id = ?", (hidden,))  # its deletion goes with it
    return left


def preview_purge(store: Store, tombstones: Sequence[Tombstone]) -> Deletion:
    """What `purge` would remove."""
    return preview(store, [one.experiment for one in tombstones])


def purge(store: Store, tombstones: Sequence[Tombstone]) -> Deletion:
    """Remove what was deleted for good, and give its space back to the disk.

    What has come back since it was listed stays. Remarks on runs go, unless the runs are there again or can
    come back. Raises StoreError where the space cannot be given back yet; what is removed is removed then.
    """
    tombstones = _still_deleted(store, tombstones)
    remarks = {uid for one in tombstones for uid in _run_uids(store, one.name, one.experiment)}
    names, going = ({getattr(one, key) for one in tombstones} for key in ("name", "experiment"))
    staying = [(row.name, row.id) for row in reading.experiments(store) if row.name in names]
    staying += [(one.name, one.experiment) for one in deleted(store) if one.name in names]
    remarks -= {uid for name, row in staying if row not in going for uid in _run_uids(store, name, row)}
    removed = remove(store, [one.experiment for one in tombstones], remarks)
    compact(store)
    return removed


def _run_uids(store: Store, name: str, experiment: int) -> list[str]:
    """What stands for the runs of an experiment that has or had a name."""
    rows = store.db.stream(
        f"SELECT network, {PROMPT}, seed, repeat, nullif(arm, '{BASELINE}') FROM run"
        " JOIN output ON output.id = prompt WHERE experiment = ? ORDER BY run.id",
        experiment,
    )
    return [
        run_key(name, decode_network(network), prompt, seed, repeat, *([arm] if arm else []))
        for network, prompt, seed, repeat, arm in rows
    ]
