"""The stores that are looked at: open files, lists of runs in an order, what has changed.

A store is known by its files, not by its path: one that is replaced while it is open is opened anew.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from panic.cli.finding import known_fields
from panic.errors import NotFound, StoreMissing
from panic.store import Store
from panic.store.finding.queries import Query
from panic.store.finding.queries import find as find_rows
from panic.store.store import FILES
from panic.store.thumbnails import Thumbnails
from panic.store.wall import use_little_memory

READERS = 3
"""Open files per store: as many requests read it at once."""
CACHE_KIB = 8 * 1024
KEPT_LISTS = 8

Shrink = Callable[[bytes, int], bytes]
"""What makes small copies of encoded images."""
Identity = tuple[tuple[int, int, int], ...]


class Source:
    """One store, open for any number of threads, and the lists of its runs that were asked for last."""

    def __init__(self, path: Path, key: str, shrink: Shrink | None = None) -> None:
        self.path, self.key, self._shrink = path, key, shrink
        self._free = threading.BoundedSemaphore(READERS)
        self._lock = threading.Lock()
        self._idle: list[Store] = []
        self._identity: Identity = ()
        self._lists: OrderedDict[tuple[Identity, Query], tuple[int, list[int]]] = OrderedDict()
        self._thumbnails: Thumbnails | None = None
        self._is_copy = False

    @property
    def name(self) -> str:
        """The last part of its path, which is all that is told of it."""
        return self.path.resolve().name

    @property
    def thumbnails(self) -> Thumbnails:
        """Small copies of its images."""
        with self._lock:
            if self._thumbnails is None:
                self._thumbnails = Thumbnails(self.path, self._shrink)
            return self._thumbnails

    def identity(self) -> Identity:
        """Which files are at the path now. Raises StoreMissing.

        Of a store of an older schema copies are read, which any change of the files makes outdated.
        """
        names = (*FILES, f"{FILES[0]}-wal") if self._is_copy else FILES
        found = []
        for name in names:
            with suppress(OSError):
                about = os.stat(self.path / name)
                if about.st_size or not name.endswith("-wal"):
                    changed = about.st_mtime_ns if self._is_copy else 0
                    found.append((about.st_dev, about.st_ino, changed))
        if not found:
            raise StoreMissing(f"The store {self.name} is gone.", hint="It was moved or removed.")
        return tuple(found)

    @contextmanager
    def reading(self) -> Iterator[Store]:
        """Open files for one thread, those of the store that is at the path now."""
        now = self.identity()
        with self._free:
            with self._lock:
                if now != self._identity:
                    outdated, self._idle, self._identity = self._idle, [], now
                else:
                    outdated = []
                store = self._idle.pop() if self._idle else None
            for old in outdated:
                old.close()
            if store is None:
                store = Store(self.path, copy_older=True)
                use_little_memory(store, CACHE_KIB)
                self._is_copy = store.is_copy
            try:
                yield store
            finally:
                with self._lock:
                    is_current = now == self._identity
                    if is_current:
                        self._idle.append(store)
                if not is_current:
                    store.close()

    def state(self) -> str:
        """What changes with every change of the store: which files, and their revision."""
        with self.reading() as store:
            return self.state_of(store)

    def state_of(self, store: Store) -> str:
        """The same of files that are open."""
        return f"{self.files}-{store.revision}"

    @property
    def files(self) -> str:
        """Which files were at the path when it was last read: a store that replaced it has others."""
        there = [about[:2] for about in self._identity[:1]]  # a copy of an older store has times beside
        return hashlib.sha256(repr(there).encode()).hexdigest()[:8]

    def find(self, store: Store, query: Query) -> list[int]:
        """The rows that a query finds, kept until the store changes. Raises FilterError and UsageError."""
        key, revision = (self._identity, query), store.revision
        with self._lock:
            known = self._lists.get(key)
        if known is None or known[0] != revision:
            known = revision, find_rows(store, query, known_fields())
        with self._lock:
            self._lists[key] = known
            self._lists.move_to_end(key)
            while len(self._lists) > KEPT_LISTS:
                self._lists.popitem(last=False)
        return known[1]

    def close(self) -> None:
        """Close what is open and idle."""
        with self._lock:
            idle, self._idle = self._idle, []
            if self._thumbnails is not None:
                self._thumbnails.close()
        for store in idle:
            store.close()


class Sources:
    """All stores that one server shows, by key."""

    def __init__(self, paths: Sequence[Path], shrink: Shrink | None = None) -> None:
        self.all = [Source(path, str(number), shrink) for number, path in enumerate(paths)]
        self._by_key = {source.key: source for source in self.all}

    def __getitem__(self, key: str) -> Source:
        """The store of this key. Raises NotFound."""
        if key not in self._by_key:
            raise NotFound(f"There is no store {key!r} here.", hint=f"There are: {', '.join(self._by_key)}.")
        return self._by_key[key]

    def close(self) -> None:
        """Close all."""
        for source in self.all:
            source.close()
