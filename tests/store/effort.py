"""What a question costs, whatever else the machine does meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from panic.store import Store


@contextmanager
def counted(store: Store) -> Iterator[list[None]]:
    """Yield a list that grows by one with every thousand of SQLite's instructions on the store's rows."""
    thousands: list[None] = []
    store.db.connection.set_progress_handler(lambda: bool(thousands.append(None)), 1000)
    try:
        yield thousands
    finally:
        store.db.connection.set_progress_handler(None)
