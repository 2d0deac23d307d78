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
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import apsw

from panic.errors import StoreCorrupt, StoreError, StoreMissing
from panic.store.files import Database, LockHolder, lock_holder, refuse_network, take_lock


class Store:
    """A store at `path`.

    Args:
        write: become the driver: take the lock and bring the schema up to date.
        create: with `write`, create the store if there is none; of a store that has lost its file of pixels,
            that file (the engine computes its contents again).

    Raises StoreMissing, StoreLocked (naming the process), StoreReadOnly, StoreTooNew, StoreCorrupt, and
    StoreError for a path that cannot hold a store.
    """

    def __init__(self, path: str | os.PathLike[str], *, write: bool = False, create: bool = False) -> None:
        self.path = Path(path)
        self._lock: int | None = None
        self._images: Database | None = None
        _require_store(self.path, create=write and create)
        refuse_network(self.path)
        if write:
            self._lock = take_lock(self.path)
        try:
            if write:
                self._images = self._open_images(write=True, create=create)
            self.db = Database(self.path / "store.sqlite", "store", write=write)
            if write:
                # The driver is the only one who adds outputs and batches, so it numbers them itself.
                self.last_output_id: int = self.db.value("SELECT coalesce(max(id), 0) FROM output")
                self.last_batch_id: int = self.db.value("SELECT coalesce(max(id), 0) FROM batch")
                self.output_ids: dict[bytes, int] = {}
        except BaseException:
            self.close()
            raise

    def _open_images(self, *, write: bool, create: bool = False) -> Database:
        path = self.path / "images.sqlite"
        if not create and not path.exists() and (self.path / "store.sqlite").exists():
            raise StoreCorrupt(
                f"{path} is missing: the store has lost its pixels.",
                hint="A store is its whole folder: copy images.sqlite along with store.sqlite. If it is gone,"
                " performing an experiment again (panic resume) computes its images again.",
            )
        return Database(path, "images", write=write, synchronous="FULL")

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
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


DEFAULT_STORE = Path("panic-store")
OWN_NAMES = ("lock", "store.sqlite", "images.sqlite", "logs", "reports")
"""What a store's folder may hold before its first file is complete: creation can be killed, too."""


def _require_store(path: Path, *, create: bool) -> None:
    """Raise unless there is a store at the path, or one may be created there."""
    if path.exists() and not path.is_dir():
        raise StoreError(f"{path} is a file; a store is a folder.", hint="Choose another path with --store.")
    if (path / "store.sqlite").exists():
        return
    others = [name for name in _names(path) if not name.startswith(OWN_NAMES)]
    if not create:
        raise StoreMissing(
            f"There is no store at {path}." if not others else f"{path} holds other things, but no store.",
            hint="`panic run CONFIG` creates one. Name another with --store PATH or PANIC_STORE.",
        )
    if others:
        raise StoreError(
            f"{path} holds other things ({', '.join(sorted(others)[:3])}), but no store.",
            hint="Choose an empty or a new folder with --store PATH or PANIC_STORE.",
        )
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"{path} cannot be created: {error.strerror}.") from error


def _names(path: Path) -> list[str]:
    return os.listdir(path) if path.is_dir() else []
