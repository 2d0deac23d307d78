"""The index of captions, made or brought up to date at once; drivers otherwise keep it as they write.

with Store("panic-store", write=True) as store:
    complete(store)
"""

from __future__ import annotations

from collections.abc import Callable

from panic.store import writing
from panic.store.captions import num_indexed
from panic.store.store import Store


def reindex(store: Store, tell: Callable[[int, int], None] = lambda done, total: None) -> int:
    """Make the index of captions anew; how many outputs it knows. What is stopped, `complete` goes on with.

    tell: told the outputs done and all there are.
    """
    with store.db.transaction() as connection:
        connection.execute("INSERT INTO caption (caption) VALUES ('delete-all')")
        connection.execute("INSERT OR REPLACE INTO meta VALUES ('captions', 0)")
    store.keeps_captions = True
    return complete(store, tell)


def complete(store: Store, tell: Callable[[int, int], None] = lambda done, total: None) -> int:
    """Take what is not in the index yet into it; how many outputs it knows. Can be stopped at any time."""
    while done := writing.index_captions(store):
        tell(done, store.last_output_id)
    return num_indexed(store)
