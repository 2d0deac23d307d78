"""Merging stores: what any of them has, once, in one store, whatever the order and however often.

Each source comes in one transaction, its images before it: a kill leaves the target with some of the sources,
and the same command goes on (`unfinished.py`). A source that is being written is copied first. Runs that have
other content under one key are in conflict and do not come along, unless the caller says whose stay.

    merge([Path("shard-1"), Path("shard-2")], Path("merged"))
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import apsw

from panic.arms import BASELINE
from panic.errors import StoreCorrupt, StoreError, UsageError
from panic.store import writing
from panic.store.codec import decode_network, run_key, text_digest
from panic.store.files import (
    address,
    has_content,
    lock_holder,
    log_of,
    network_file_system,
    own_folder,
    translated,
)
from panic.store.merging import conflicts, unfinished
from panic.store.merging.experiments import join_experiments
from panic.store.merging.meetings import (
    Meeting,
    give_way,
    meetings,
    open_memo,
    remember,
    remember_refused,
)
from panic.store.merging.remarks import choose_remarks, open_remarks, order_remarks
from panic.store.merging.tables import BEFORE_RUNS, OF_RUNS, TABLES, Table
from panic.store.merging.walk import Walk
from panic.store.snapshot import STEPS_AT_ONCE, Tell, is_snapshot, snapshot
from panic.store.store import FILES, Store, require_store

Keep = Literal["mine", "theirs"]
IMAGES_AT_ONCE = 2**26
"""Bytes of images in one transaction."""


@dataclass(slots=True, kw_only=True)
class Merged:
    """What has come of one source, or of all.

    num_meeting: runs that met runs of other stores, equal to the bit. num_vectors: outputs with two vectors.
    num_diagrams: diagrams that are to be computed again because of that. num_settled: runs in conflict of
    which the caller's choice stays. shrunk, conflicts: sentences, on runs that memory was short
    for and on what does not agree.
    """

    num_runs: int = 0
    num_invocations: int = 0
    num_images: int = 0
    num_meeting: int = 0
    num_vectors: int = 0
    num_diagrams: int = 0
    num_settled: int = 0
    shrunk: list[str] = field(default_factory=list)
    conflicts: list[str] = field(default_factory=list)


def merge(
    sources: Sequence[Path],
    into: Path,
    *,
    keep: Keep | None = None,
    with_images: bool = True,
    tell: Tell = lambda what, done, total: None,
) -> Merged:
    """Bring the content of stores into one, which is created if it is not there.

    Args:
        keep: whose runs stay where two have other content under one key: the target's ("mine"), or the
            source's, except where others of the target's contradict it. By default neither is taken.
        with_images: whether the pixels of images come along; without them the store has lost them.
        tell: hears how far it is; what it raises ends the work, and nothing of the source in hand has come.

    Raises: StoreMissing, StoreTooNew, StoreLocked, StoreCorrupt for a source whose rows are not what they
        should be, and StoreError.
    """
    for source in sources:
        require_store(source, create=False)
        if into.exists() and source.samefile(into):
            raise UsageError(f"{source} is the store that all others come into.")
    if not network_file_system(into):
        return _merge_here(sources, into, keep, tell, with_images=with_images)
    with tempfile.TemporaryDirectory(prefix="panic-merge-") as folder:
        here = Path(folder) / "store"
        if (into / "store.sqlite").exists():
            if not is_snapshot(into):
                raise StoreError(f"{into} is on a network file system, and somebody has worked in it.")
            snapshot(into, here, tell=tell)
        merged = _merge_here(sources, here, keep, tell, with_images=with_images)
        snapshot(here, into, force=True, tell=tell)
        return merged


def _merge_here(
    sources: Sequence[Path], into: Path, keep: Keep | None, tell: Tell, *, with_images: bool
) -> Merged:
    """Merge into a store on a local disk."""
    total = Merged()
    with Store(into, write=True, create=True) as mine:
        connection = mine.db.connection
        _add_functions(connection)
        walk = Walk(connection)
        unfinished.begin(walk)
        open_memo(walk)
        conflicts.open_refused(walk)
        open_remarks(walk)
        with _scratch(into) as scratch, _swept_in_the_end(mine, walk):
            for number, source in enumerate(sources):
                is_last = number == len(sources) - 1
                is_whole = False
                while not is_whole:  # a snapshot may be renewed in between, and name images that are not here
                    with _readable(source, scratch / str(number), tell) as theirs:
                        read = _identity(theirs)
                        if with_images:
                            total.num_images += _take_images(mine, theirs, tell)
                        _take_source(walk, mine, theirs, source, keep, total, tell, is_last=is_last)
                        is_whole = _identity(theirs) == read
        total.shrunk = conflicts.shrunk(mine)
    return total


@contextlib.contextmanager
def _swept_in_the_end(mine: Store, walk: Walk) -> Iterator[None]:
    """Where a source is refused, the last one never comes: what earlier ones left behind goes here."""
    try:
        yield
    except StoreError:
        if walk.has_left:
            with mine.transaction():
                conflicts.sweep(walk)
        raise


def _identity(store: Store) -> list[tuple[int, int]]:
    """Which files there are by now where those of a store were."""
    found = [(store.path / name).stat() for name in FILES if (store.path / name).exists()]
    return [(file.st_ino, file.st_mtime_ns) for file in found]


def _add_functions(connection: apsw.Connection) -> None:
    """Give SQL the digests that rows are compared by, and what a run is called beside its number."""

    functions: dict[str, Callable[..., Any]] = {
        "sha256": lambda data: hashlib.sha256(data).digest(),
        "text_digest": text_digest,
        "run_uid": _run_uid,
    }
    for name, function in functions.items():
        connection.create_scalar_function(name, function, deterministic=True)


def _run_uid(experiment: str, network: str, prompt: str, seed: int, repeat: int, arm: str) -> str:
    in_arm = () if arm == BASELINE else (arm,)
    return run_key(experiment, decode_network(network), prompt, seed, repeat, *in_arm)


@contextlib.contextmanager
def _scratch(into: Path) -> Iterator[Path]:
    """A folder for copies, on the target's disk; what a killed merge has left there goes."""
    folder = own_folder(into, "merging")
    shutil.rmtree(folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _readable(source: Path, copy: Path, tell: Tell) -> Iterator[Store]:
    """A source that nobody writes: itself, or a snapshot; of an older one a copy, brought up to date."""
    is_written = lock_holder(source) is not None or any(has_content(log_of(source / name)) for name in FILES)
    if is_written:
        snapshot(source, copy, tell=tell)
    with Store(copy if is_written else source, copy_older=True) as store:
        yield store
    shutil.rmtree(copy, ignore_errors=True)


@contextlib.contextmanager
def _attached(connection: apsw.Connection, path: Path, name: str) -> Iterator[None]:
    """A file of a source beside the target's, for reading; as it is where it cannot be locked."""
    queries = ("mode=ro", "mode=ro&immutable=1")
    for query in queries[1:] if network_file_system(path.parent) else queries:
        try:
            connection.execute(f"ATTACH ? AS {name}", (address(path, query),))
            connection.execute(f"SELECT count(*) FROM {name}.sqlite_schema").fetchone()
            break
        except (apsw.CantOpenError, apsw.ReadOnlyError):
            if query == queries[-1]:
                raise
            with contextlib.suppress(apsw.SQLError):
                connection.execute(f"DETACH {name}")
    try:
        yield
    finally:
        connection.execute(f"DETACH {name}")


def _take_images(mine: Store, theirs: Store, tell: Tell) -> int:
    """Copy the images that the source names and the target lacks; how many."""
    if not theirs.has_images:
        return 0
    connection = mine.images.connection
    with (
        translated(theirs.path / "images.sqlite"),
        _attached(connection, theirs.images.path, "theirs"),
        _attached(connection, theirs.db.path, "known"),
    ):
        lacking = mine.images.rows(
            "SELECT s.rowid, length(s.bytes) FROM theirs.image AS s WHERE s.digest NOT IN"
            " (SELECT digest FROM main.image) AND s.digest IN"
            " (SELECT digest FROM known.output WHERE modality = 'image') ORDER BY s.rowid"
        )
        waiting, size = [], 0
        for number, (row, length) in enumerate(lacking, 1):
            waiting.append((row,))
            size += length
            if size >= IMAGES_AT_ONCE or number == len(lacking):
                tell(f"images of {theirs.path}", number, len(lacking))
                with mine.images.transaction():
                    connection.executemany(
                        "INSERT INTO main.image SELECT digest, encoding, bytes FROM theirs.image"
                        " WHERE rowid = ? ON CONFLICT DO NOTHING",
                        waiting,
                    )
                waiting, size = [], 0
    return len(lacking)


def _take_source(
    walk: Walk,
    mine: Store,
    theirs: Store,
    source: Path,
    keep: Keep | None,
    total: Merged,
    tell: Tell,
    *,
    is_last: bool,
) -> None:
    """Bring one source into the target, in one transaction."""
    connection = walk.connection
    done = 0

    def look() -> bool:
        tell(f"tables of {source}", done, len(TABLES))
        return False

    def take(tables: Sequence[Table]) -> None:
        nonlocal done
        for table in tables:
            walk.take(table)
            done += 1

    connection.set_progress_handler(look, STEPS_AT_ONCE)
    try:
        with _attached(connection, theirs.db.path, "theirs"), mine.transaction():
            walk.begin()
            _refuse_false_texts(walk, source)
            found = Merged(conflicts=join_experiments(walk, mine, theirs))
            take(BEFORE_RUNS)
            conflicts.leave_out(walk)
            _settle(walk, source, keep, found)
            found.num_runs = walk.value("SELECT count(*) FROM temp.map_run WHERE new > ?", walk.last["run"])
            before = walk.value("SELECT count(*) FROM main.invocation")
            conflicts.note_vectors(walk)
            choose_remarks(walk)
            take(OF_RUNS)
            order_remarks(walk)
            found.num_vectors, found.num_diagrams = conflicts.drop_doubtful_diagrams(walk)
            conflicts.retire_failures(walk)
            remember(walk)
            walk.has_left |= bool(found.num_settled or walk.value(f"SELECT {conflicts.IS_PART}"))
            if is_last and walk.has_left:
                conflicts.sweep(walk)
            (unfinished.end if is_last else unfinished.keep)(walk)
            writing.mark_changed(mine, _changed(walk, found))
            found.num_invocations = walk.value("SELECT count(*) FROM main.invocation") - before
    except apsw.ConstraintError as error:
        raise StoreCorrupt(
            f"{source} cannot be merged: what is in it is not sound ({error}).",
            hint=f"Nothing of it was taken. What is wrong: panic check --store {source}",
        ) from error
    finally:
        connection.set_progress_handler(None)
    for name in ("num_runs", "num_invocations", "num_meeting", "num_vectors", "num_diagrams", "num_settled"):
        setattr(total, name, getattr(total, name) + getattr(found, name))
    total.conflicts += found.conflicts


def _changed(walk: Walk, found: Merged) -> list[int]:
    """The experiments (rows) whose results are others now: a vector that was replaced may be of any."""
    of = "main.experiment" if found.num_vectors else "temp.map_experiment"
    return [row for (row,) in walk.rows(f"SELECT {'id' if found.num_vectors else 'new'} FROM {of}")]


def _refuse_false_texts(walk: Walk, source: Path) -> None:
    sql = "SELECT id FROM theirs.output WHERE modality = 'text' AND digest <> text_digest(text) LIMIT 1"
    if walk.connection.execute(sql).fetchone():
        raise StoreCorrupt(
            f"{source} has texts that are not what their digests say.",
            hint=f"Nothing of it was taken. panic check --store {source} names them.",
        )


def _settle(walk: Walk, source: Path, keep: Keep | None, found: Merged) -> None:
    """Find the runs in conflict, and let those come that shall."""
    differing = conflicts.differing_runs(walk)
    stay = give_way(walk, list(differing) if keep == "theirs" else [])
    if keep is None:
        for run, why in differing.items():
            found.conflicts.append(f"{conflicts.told(walk, run)}: {why} in {source}")
        conflicts.refuse(walk, list(differing))
    else:
        settled = list(differing.keys() - {one.run for one in stay})
        found.num_settled = len(settled)
        (conflicts.clear if keep == "theirs" else conflicts.leave)(walk, settled)
    _refuse(walk, source, stay, found)
    met = meetings(walk)
    found.num_meeting = sum(one.is_equal for one in met)
    _refuse(walk, source, [one for one in met if not one.is_equal], found)
    remember_refused(walk)


def _refuse(walk: Walk, source: Path, met: Sequence[Meeting], found: Merged) -> None:
    """Tell of runs that meet others and go on otherwise, and take nothing of them."""
    for one in met:
        where = f" in {source}" if one.is_new else ""
        other = "a run of another store" if one.other is None else conflicts.told(walk, one.other)
        found.conflicts.append(
            f"{conflicts.told(walk, one.run)}{where}: it meets {other}, and goes on otherwise"
        )
    conflicts.refuse(walk, [one.run for one in met])
