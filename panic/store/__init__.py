"""The store room: everything that was computed, in a folder of two SQLite files.

from panic.store import Store
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from panic.store.store import DEFAULT_STORE, Store

if TYPE_CHECKING:
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


def __getattr__(name: str) -> Any:
    # Records take 50 ms to import, and who only searches needs none.
    if name in __all__:
        return getattr(import_module("panic.store.records"), name)
    raise AttributeError(f"module 'panic.store' has no attribute '{name}'")
