"""A snapshot: a copy of a store as it was at one moment, whoever writes it meanwhile, in a folder of its own.

Both files are copied by SQLite page by page, proven, written beside the old ones and renamed, the images
first: also after a kill in the middle `store.sqlite` names no images that `images.sqlite` lacks, but for
those that were purged between the two snapshots. The folder may be on a network file system, where every
reading command reads it. A snapshot has no write-ahead log, which tells it from a store that somebody has
worked in: only snapshots are overwritten.

    snapshot(Path("panic-store"), Path("/shared/demo"))
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import apsw

from panic.errors import ConflictError, NotAStore, PanicError, StoreCorrupt, StoreError
from panic.store import reading
from panic.store.files import (
    FLAGS,
    Database,
    address,
    give_lock_back,
    has_content,
    log_of,
    refuse_link,
    take_lock,
    translated,
)
from panic.store.store import FILES, Store, require_store

PAGES_AT_ONCE = 256  # 4 MiB
STEPS_AT_ONCE = 100_000  # of SQLite's machine, between two looks at whether to stop
ATTEMPTS = 3
VERSIONS_AT = 18
"""Where the header of a file says by two bytes how it is written: 1 a rollback journal, 2 a log."""

Tell = Callable[[str, int, int], None]
"""Hears what is done, how much of it, and of how much; what it raises ends the work."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What was copied. num_lost: images whose pixels the store itself has lost."""

    revision: int
    num_bytes: int
    num_lost: int


def snapshot(
    source: Path, target: Path, *, force: bool = False, tell: Tell = lambda what, done, total: None
) -> Snapshot:
    """Copy a store into the folder `target`, in place of an older snapshot of it.

    Args:
        force: also in place of a store that is no snapshot of this one.

    Raises: StoreError for a target that holds something else, StoreMissing and the like of the source,
        StoreCorrupt if the copy is not sound. The older snapshot stays then, as it does after a kill.
    """
    with Store(source) as store:
        require_target(store, target, force=force)
        with _alone(target), _one_state(store) as num_lost, contextlib.ExitStack() as stack:
            parts = [_copied(database, target, tell, stack) for database in (store.images, store.db)]
            num_bytes = sum(part.stat().st_size for part in parts)
            for part in parts:
                _replace(part)
            _sync(target)
            return Snapshot(revision=store.revision, num_bytes=num_bytes, num_lost=num_lost)


def go_on_from(taken: Path, store: Path, *, tell: Tell = lambda what, done, total: None) -> bool:
    """Put a snapshot where a store is to go on from it; False if that store is there and has all of it.

    Two copies that went on apart have revisions that tell nothing of each other: what one has of the other is
    told by their sessions. Raises ConflictError for another store there, or one that lacks something.
    """
    with Store(taken, copy_older=True) as before:
        if not (store / "store.sqlite").exists():
            snapshot(taken, store, tell=tell)
            return True
        with Store(store, copy_older=True) as now:
            others = _uids(before) - _uids(now)
            if not others and now.revision >= before.revision and _has_work_of(now, before):
                return False
    why = "is another store than the one of" if others else "lacks what is in"
    raise ConflictError(
        f"{store} {why} the snapshot {taken}.",
        hint="Nothing was changed. Go on from the snapshot in another folder: --store PATH.",
    )


def is_snapshot(folder: Path) -> bool:
    """Whether nobody has worked in a store since it was written as a snapshot."""
    for name in FILES:
        file = folder / name
        if has_content(log_of(file)) or not file.is_file():
            return False
        with file.open("rb") as opened:
            opened.seek(VERSIONS_AT)
            if opened.read(2) != b"\1\1":
                return False
    return True


def _has_work_of(store: Store, other: Store) -> bool:
    """Whether a store has all sessions of another one, with at least as many calls of models in each."""
    own, theirs = _calls(store), _calls(other)
    return all(own.get(session, -1) >= number for session, number in theirs.items())


def _calls(store: Store) -> dict[tuple[float, str, int], int]:
    """How many calls of models each session has made, by when and where it was."""
    rows = store.db.rows(
        "SELECT session.started_at, host, pid, count(batch.id) FROM session LEFT JOIN batch"
        " ON batch.session = session.id GROUP BY session.id"
    )
    return {(started_at, host, pid): number for started_at, host, pid, number in rows}


def _uids(store: Store) -> set[str]:
    return {row.uid for row in reading.experiments(store)}


@contextlib.contextmanager
def _alone(target: Path) -> Iterator[None]:
    """Keep others out of a snapshot while it is written; where locks are not to be had, without."""
    for name in FILES:
        refuse_link(target / name)
    lock = None
    with contextlib.suppress(OSError):  # a network file system without locks
        lock = take_lock(target)
    try:
        yield
    finally:
        if lock is not None:
            give_lock_back(lock)


def require_target(store: Store, target: Path, *, force: bool = False) -> None:
    """Make the folder of a snapshot. Raises StoreError if it holds other things than an older one.

    Args:
        force: also take a folder with another store.
    """
    if target.exists() and os.path.samefile(store.path, target):
        raise NotAStore(f"{target} is the store itself.", hint="A snapshot is written into another folder.")
    if Path(os.path.realpath(store.path)) in Path(os.path.realpath(target)).parents:
        raise NotAStore(
            f"{target} lies in the store itself.", hint="A snapshot is written into another folder."
        )
    require_store(target, create=True)
    if force or not (target / "store.sqlite").exists():
        return
    advice = "Choose another folder; --force writes over what is there."
    if not is_snapshot(target):
        raise StoreError(f"{target} is a store that somebody has worked in, and no snapshot.", hint=advice)
    try:
        with Store(target, copy_older=True) as older:
            others = [row.name for row in reading.experiments(older) if row.uid not in _uids(store)]
            has_gone_on = bool(_calls(older).keys() - _calls(store).keys())
    except PanicError as error:
        raise StoreError(f"{target} cannot be replaced: {error.message}", hint=advice) from error
    if others:
        raise StoreError(
            f"{target} is a snapshot of another store: of the experiments {', '.join(others[:5])}.",
            hint=advice,
        )
    if has_gone_on:
        raise StoreError(
            f"{target} is a snapshot of a copy of {store.path} that has gone on by itself.",
            hint="panic merge brings both into one. " + advice,
        )


@contextlib.contextmanager
def _one_state(store: Store) -> Iterator[int]:
    """A state of both files that belongs together; how many images it knows whose pixels are lost.

    Pixels are stored before what names them and removed after it, so the images are looked at second. Whoever
    removes something just between the two looks makes a third one necessary.
    """
    for attempt in range(ATTEMPTS):
        with store.db.snapshot(), store.images.snapshot():
            store.db.value("SELECT count(*) FROM meta")  # a transaction begins with its first question
            num_lost = _num_lost(store)
            if num_lost and attempt < ATTEMPTS - 1:
                continue
            yield num_lost
            return


def _num_lost(store: Store) -> int:
    """How many images have no pixels; both files are read in the order of their digests."""
    known = store.db.stream("SELECT digest FROM output WHERE modality = 'image' ORDER BY digest")
    there = store.images.stream("SELECT digest FROM image ORDER BY digest")
    num_lost, last = 0, next(there, (b"\xff" * 33,))
    for (digest,) in known:
        while last[0] < digest:
            last = next(there, (b"\xff" * 33,))
        num_lost += last[0] != digest
    return num_lost


def _copied(database: Database, target: Path, tell: Tell, stack: contextlib.ExitStack) -> Path:
    """Write a proven copy of a file beside the one that it will replace; its path. It goes with the stack."""
    name = database.path.name
    part = target / f"{name}.new"
    part.unlink(missing_ok=True)
    stack.callback(part.unlink, missing_ok=True)
    with translated(part), contextlib.closing(_connect(part, "mode=rwc")) as copy:
        for setting in ("journal_mode=OFF", "synchronous=OFF"):
            copy.execute(f"PRAGMA {setting}").fetchall()
        with copy.backup("main", database.connection, "main") as backup:
            while not backup.done:
                backup.step(PAGES_AT_ONCE)
                tell(f"pages of {name} copied", backup.page_count - backup.remaining, backup.page_count)
    with translated(part), contextlib.closing(_connect(part, "mode=rw")) as copy:
        for setting in ("locking_mode=EXCLUSIVE", "journal_mode=DELETE"):
            copy.execute(f"PRAGMA {setting}").fetchall()
    _prove(part, tell)
    _sync(part)
    return part


def _replace(part: Path) -> None:
    """Put a copy where it belongs, without the log of what was there, which is not the new one's."""
    file = part.with_suffix("")
    for old in (log_of(file), file.with_name(f"{file.name}-shm")):
        old.unlink(missing_ok=True)
    os.replace(part, file)


def _connect(path: Path, query: str) -> apsw.Connection:
    """A connection to a file that nobody else knows: without locks, which network file systems may lack."""
    return apsw.Connection(address(path, f"vfs=unix-none&{query}"), flags=FLAGS)


def _prove(path: Path, tell: Tell) -> None:
    """Read a copy as a whole. Raises StoreCorrupt."""

    def look() -> bool:
        tell(f"copy of {path.stem} checked", 0, 0)
        return False

    with translated(path), contextlib.closing(_connect(path, "mode=ro&immutable=1")) as copy:
        copy.set_progress_handler(look, STEPS_AT_ONCE)
        found = [message for (message,) in copy.execute("PRAGMA quick_check(5)")]
    if found != ["ok"]:
        raise StoreCorrupt(
            f"The copy {path} is not sound: {'; '.join(found)}.",
            hint="panic check tells whether the store is. The older snapshot, if any, is as it was.",
        )


def _sync(path: Path) -> None:
    """Wait until a file or folder is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
