"""What takes long: kept for a while, made once at a time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from panic.store import Store
from panic.store.records import ExperimentRow
from panic.view.sources import Source

PATIENCE = 10.0
"""A standing that took so long is not made again before this many times as long has passed."""


class Computing:
    """Standings of experiments, each kept as long as its store does not change or it took long to make."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: dict[tuple[str, str], tuple[str, float, float, Mapping[str, Any]]] = {}

    def status(
        self,
        source: Source,
        store: Store,
        row: ExperimentRow,
        make: Callable[[Store, ExperimentRow], Mapping[str, Any]],
    ) -> Mapping[str, Any]:
        """Return where an experiment stands, with the revision and time that this is of."""
        key, revision = (source.key, row.uid), f"{source.path}{store.revision}"
        with self._lock:
            state, made_at, took_s, found = self._kept.get(key, ("", 0.0, 0.0, {}))
            now = time.monotonic()
            if found and (state == revision or now < made_at + PATIENCE * took_s):
                return found
            found = {**make(store, row), "revision": store.revision, "at": time.time()}
            done = time.monotonic()
            self._kept[key] = revision, done, done - now, found
            return found
