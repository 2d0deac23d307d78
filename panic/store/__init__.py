"""The store room: everything that was computed, in a folder of two SQLite files.

from panic.store import Store
"""

from panic.store.records import (
    Commit,
    NewBatch,
    NewDiagram,
    NewEmbedding,
    NewFailure,
    NewInvocation,
    NewOutput,
    NewRun,
    NewStuck,
)
from panic.store.store import DEFAULT_STORE, Store

__all__ = [
    "DEFAULT_STORE",
    "Commit",
    "NewBatch",
    "NewDiagram",
    "NewEmbedding",
    "NewFailure",
    "NewInvocation",
    "NewOutput",
    "NewRun",
    "NewStuck",
    "Store",
]
