"""The store of all results: one folder, opened for reading unless told otherwise.

    with Store("panic-store") as store:
        for run in reading.runs(store, "latest"):
            print(run.prompt, run.state)

Any number of processes may read while one, the driver, writes. This class holds the open files, the lock
and the transactions. What is asked of a store are functions that take it: `reading.py` (experiments, runs,
models, sessions), `contents.py` (outputs, vectors, diagrams), `missing.py` (what the engine has to do),
`writing.py` (what it changes). A `Store` is used by one thread at a time; open another one for another
thread. In a process that has a `Store` open, do not open its files with another SQLite library (the standard
library's, connectorx): closing them there drops the locks that this one holds.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

import apsw

from panic.errors import NotAStore, PanicError, StoreCorrupt, StoreError, StoreMissing, StoreTooOld
from panic.store.files import (
    Database,
    LockHolder,
    copy_file,
    give_lock_back,
    has_content,
    lock_holder,
    log_of,
    refuse_network,
    take_lock,
)

if TYPE_CHECKING:
    import tempfile

log = logging.getLogger("panic.store")


class Store:
    """A store at `path`.

    Args:
        write: become the driver: take the lock and bring the schema up to date.
        create: with `write`, create the store if there is none; of a store that has lost its file of pixels,
            that file (the engine computes its contents again). A store that was created for what is then
            refused with an error of ours goes again, unless something is in it.
        copy_older: read a store of an older schema from a temporary copy of `store.sqlite` that is brought up
            to date, and warn of that; without it such a store is refused with StoreTooOld.
        is_whole: refuse a file that lacks tables with StoreCorrupt; `panic check` wants to see the rest.

    Raises StoreMissing, StoreLocked (naming the process), StoreReadOnly, StoreTooNew, StoreCorrupt, and
    StoreError for a path that cannot hold a store.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        write: bool = False,
        create: bool = False,
        copy_older: bool = False,
        is_whole: bool = True,
    ) -> None:
        self.path = Path(path)
        self._copy: tempfile.TemporaryDirectory[str] | None = None
        self._lock: int | None = None
        self._images: Database | None = None
        self._is_whole = is_whole
        self._opened: dict[Path, os.stat_result] = {}
        self._made: list[Path] | None = None  # folders, where the store is new
        if write:
            refuse_network(self.path)
        if write and create and not _names(self.path):
            self._made = [path for path in (self.path, *self.path.parents) if not path.exists()]
        require_store(self.path, create=write and create)
        if write:
            self._lock = take_lock(self.path)
        try:
            if write:
                self._images = self._open_images(write=True, create=create)
            self.db = self._open_main(write=write, copy_older=copy_older)
            if write:
                assert self._lock is not None
                self._opened = {self.path / name: os.stat(self.path / name) for name in FILES}
                self._opened[self.path / "lock"] = os.fstat(self._lock)
                # The driver is the only one who adds outputs and batches, so it numbers them itself.
                self.last_output_id: int = self.db.value("SELECT coalesce(max(id), 0) FROM output")
                self.last_batch_id: int = self.db.value("SELECT coalesce(max(id), 0) FROM batch")
                self.output_ids: dict[bytes, int] = {}
                self.experiments_of_runs: dict[int, int] = {}
                self.last_indexed_id: int = self.db.value(
                    "SELECT coalesce(max(value), 0) FROM meta WHERE key = 'captions'"
                )
        except BaseException:
            self.close()
            raise

    def _open_main(self, *, write: bool, copy_older: bool) -> Database:
        path = self.path / "store.sqlite"
        self._refuse_lost_content(path)
        try:
            return Database(path, "store", write=write, is_whole=self._is_whole)
        except StoreTooOld:
            if not copy_older:
                raise
        import tempfile  # which reading a store of this schema does without

        self._copy = tempfile.TemporaryDirectory(prefix="panic-store-")
        copy = Path(self._copy.name) / "store.sqlite"
        log.warning(
            "%s has an older schema: a temporary copy of %s is brought up to date and read. panic resume and"
            " panic run bring the store itself up to date.",
            *(self.path, path.name),
        )
        copy_file(path, copy)
        Database(copy, "store", write=True).close()
        return Database(copy, "store", write=False)

    def _refuse_lost_content(self, path: Path) -> None:
        """Raise StoreCorrupt for an empty file beside images: it was emptied, or copied without its log."""
        is_empty = path.is_file() and not has_content(path) and not has_content(log_of(path))
        if not is_empty or not self.has_images:
            return
        if self.images.value("SELECT 1 FROM image LIMIT 1"):
            raise StoreCorrupt(
                f"{path} is empty, but the images beside it are not: it was emptied, or copied while it was"
                f" written and without {path.name}-wal.",
                hint="Copy the whole folder again, or take it from a backup. Nothing was changed.",
            )

    @property
    def is_copy(self) -> bool:
        """Whether a temporary copy is read, in which nothing that is written would last."""
        return self._copy is not None

    def _open_images(self, *, write: bool, create: bool = False) -> Database:
        path = self.path / "images.sqlite"
        if not create and not path.exists() and (self.path / "store.sqlite").exists():
            raise StoreCorrupt(
                f"{path} is missing: the store has lost its pixels.",
                hint="A store is its whole folder: copy images.sqlite along with store.sqlite. If it is gone,"
                " performing an experiment again (panic resume) computes its images again.",
            )
        return Database(path, "images", write=write, synchronous="FULL", is_whole=self._is_whole)

    @property
    def has_images(self) -> bool:
        """Whether the file of pixels is there; without it, all of them are missing."""
        return self._images is not None or (self.path / "images.sqlite").exists()

    @property
    def images(self) -> Database:
        """The file of pixels, opened when first needed."""
        if self._images is None:
            self._images = self._open_images(write=False)
        return self._images

    @property
    def revision(self) -> int:
        """Rises with every change of the store."""
        revision: int = self.db.value("SELECT value FROM meta WHERE key = 'revision'")
        return revision

    @property
    def lock_holder(self) -> LockHolder | None:
        """The process that writes results into this store now, if any."""
        return lock_holder(self.path)

    def require_in_place(self) -> None:
        """Raise StoreError unless the path still names the files that are open, and the lock its file.

        Whoever removes or replaces them takes away what is written, and lets a second driver in.
        """
        for file, ours in self._opened.items():
            there = None
            with contextlib.suppress(OSError):
                there = os.stat(file, follow_symlinks=False)
            if there is None or (there.st_dev, there.st_ino) != (ours.st_dev, ours.st_ino):
                how = "was removed" if there is None else "was replaced by another file"
                raise StoreError(
                    f"{file} {how} while it was being written. What was computed since is not in a store.",
                    hint="Put the store back if you moved it, and run the same command again.",
                )

    @contextlib.contextmanager
    def transaction(self) -> Iterator[apsw.Connection]:
        """A transaction of `store.sqlite` that raises the revision."""
        with self.db.transaction() as connection:
            self.db.raise_revision()
            yield connection

    def close(self) -> None:
        """Close the files and let go of the lock."""
        if hasattr(self, "db"):
            self.db.close()
        if self._images is not None:
            self._images.close()
        if self._copy is not None:
            self._copy.cleanup()
            self._copy = None
        if self._lock is not None:
            give_lock_back(self._lock)
            self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is not None and issubclass(kind, PanicError) and self._made is not None:
                with contextlib.suppress(StoreError, apsw.Error):  # the refusal itself is what is told
                    self.require_in_place()
                    if self._is_empty():
                        self._remove(self._made)
        finally:
            self.close()

    def _is_empty(self) -> bool:
        holds = " OR ".join(
            f"EXISTS (SELECT 1 FROM {table})" for table in ("experiment", "output", "training")
        )
        is_other = any(not name.startswith(OWN_NAMES) for name in _names(self.path))
        return not is_other and not self.db.value(f"SELECT {holds}")

    def _remove(self, made: Sequence[Path]) -> None:
        """Remove the files of a store, and the folders that were made for it; its lock is still held."""
        self.db.close()
        self.images.close()
        shutil.rmtree(self.path / "logs", ignore_errors=True)
        names = [name for name in _names(self.path) if name.startswith(FILES)]
        with contextlib.suppress(OSError):
            for name in (*names, "lock"):
                (self.path / name).unlink()
            for folder in made:
                folder.rmdir()


FILES = ("store.sqlite", "images.sqlite")
DEFAULT_STORE = Path("panic-store")
OWN_NAMES = ("lock", "store.sqlite", "images.sqlite", "logs", "reports")
"""What a store's folder may hold before its first file is complete: creation can be killed, too."""


def require_store(path: Path, *, create: bool) -> None:
    """Raise unless there is a store at the path, or one may be created there."""
    if path.exists() and not path.is_dir():
        raise NotAStore(f"{path} is a file; a store is a folder.", hint="Choose another path with --store.")
    if path.is_symlink() and not path.exists():
        raise NotAStore(f"{path} is a link to what is not there.", hint="Choose another path with --store.")
    if (path / "store.sqlite").exists():
        return
    others = [name for name in _names(path) if not name.startswith(OWN_NAMES)]
    if not create:
        raise StoreMissing(
            f"There is no store at {path}." if not others else f"{path} holds other things, but no store.",
            hint="`panic run CONFIG` creates one. Name another with --store PATH or PANIC_STORE.",
        )
    if others:
        raise NotAStore(
            f"{path} holds other things ({', '.join(sorted(others)[:3])}), but no store.",
            hint="Choose an empty or a new folder with --store PATH or PANIC_STORE.",
        )
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"{path} cannot be created: {error.strerror}.") from error


def _names(path: Path) -> list[str]:
    return os.listdir(path) if path.is_dir() else []
