"""The index of captions: drivers keep it as they write, and it can be made anew.

with Store("panic-store", write=True) as store:
    complete(store)

It is always some outputs behind, which `captions.search` reads itself: few at a time take far longer.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable

import apsw

from panic.errors import StoreCorrupt
from panic.store.store import Store

log = logging.getLogger("panic.store")

INDEXED_AT_ONCE = 1 << 14  # outputs
NEVER = sys.maxsize
Tell = Callable[[int, int], None]
"""Hears how many outputs are done, and how many there are."""


def index_some(store: Store) -> int:
    """Take the words of the next outputs into the index; the last of them, 0 where none are left.

    In a transaction of its own, so that an index that is damaged costs no result: that is said once.
    """
    begin = store.last_indexed_id
    end = min(store.last_output_id, begin + INDEXED_AT_ONCE)
    if begin >= end:
        return 0
    try:
        with store.db.transaction() as connection:
            connection.execute(
                "INSERT INTO caption (rowid, text)"
                " SELECT id, text FROM output WHERE id > ? AND id <= ? AND text NOTNULL",
                (begin, end),
            )
            connection.execute("INSERT OR REPLACE INTO meta VALUES ('captions', ?)", (end,))
    except (StoreCorrupt, apsw.Error):  # what FTS5 says of damage is not always that
        store.last_indexed_id = NEVER
        log.warning(
            "%s: the index of captions is damaged. panic search --reindex makes a new one.", store.path
        )
        return 0
    store.last_indexed_id = end
    return end


def complete(store: Store, tell: Tell = lambda done, total: None) -> int:
    """Take what is not in the index yet into it; how many outputs it knows. Can be stopped at any time."""
    while done := index_some(store):
        tell(done, store.last_output_id)
    return store.last_indexed_id


def reindex(store: Store, tell: Tell = lambda done, total: None) -> int:
    """Make the index of captions anew; how many outputs it knows. `complete` goes on with what is stopped."""
    with store.db.transaction() as connection:
        connection.execute("INSERT INTO caption (caption) VALUES ('delete-all')")
        connection.execute("INSERT OR REPLACE INTO meta VALUES ('captions', 0)")
    store.last_indexed_id = 0
    return complete(store, tell)
