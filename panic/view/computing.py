"""What takes long: standings, questions of the analysis, maps; made once at a time and kept for a while.

Questions are asked in processes of their own (`processes.py`), one at a time per store. While a store
changes, an answer is kept for `KEPT_S` at least, and says of which revision and time it is.
"""

from __future__ import annotations

import json
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

from panic.store import Store
from panic.store.records import ExperimentRow
from panic.view.processes import Gone, Process
from panic.view.sources import Source

PATIENCE = 10.0
"""A standing that took so long is not made again before this many times as long has passed."""
KEPT_S = 60.0
KEPT_ANSWERS = 24
LONGEST_S = 300.0


class Computing:
    """Standings and answers, each kept as long as its store does not change or it is young.

    is_watched: tells whether a page is open; a process of its own is kept only then.
    """

    def __init__(self, is_watched: Callable[[], bool]) -> None:
        self._is_watched = is_watched
        self._lock = threading.Lock()
        self._kept: dict[tuple[str, str], tuple[str, float, float, Mapping[str, Any]]] = {}
        self._answers: OrderedDict[str, tuple[str, float, Mapping[str, Any]]] = OrderedDict()
        self._processes: dict[str, Process] = {}

    def status(
        self,
        source: Source,
        store: Store,
        row: ExperimentRow,
        make: Callable[[Store, ExperimentRow], Mapping[str, Any]],
    ) -> Mapping[str, Any]:
        """Return where an experiment stands, with the revision and time that this is of."""
        key, revision = (source.key, row.uid), str(store.revision)
        with self._lock:
            state, made_at, took_s, found = self._kept.get(key, ("", 0.0, 0.0, {}))
            now = time.monotonic()
            if found and (state == revision or now < made_at + PATIENCE * took_s):
                return found
            found = {**make(store, row), "revision": store.revision, "at": time.time()}
            done = time.monotonic()
            self._kept[key] = revision, done, done - now, found
            return found

    async def ask(
        self, source: Source, state: str, asked: Mapping[str, Any], is_gone: Gone
    ) -> Mapping[str, Any]:
        """Return what is answered to `asked`; `state` is that of the store, or of the stores, now.

        Raises UsageError and NotFound as the process says, TooLong.
        """
        key = json.dumps([source.key, asked], sort_keys=True)
        if found := self._known(key, state):
            return found
        process = self._processes.setdefault(source.key, Process())
        async with process.lock:
            if found := self._known(key, state):  # whoever came first has asked the same
                return found
            said = {**asked, "path": str(source.path.resolve())}
            try:
                found = {**await process.ask(said, LONGEST_S, is_gone), "at": time.time()}
            finally:
                if not self._is_watched():
                    process.close()
            self._answers[key] = state, time.monotonic(), found
            while len(self._answers) > KEPT_ANSWERS:
                self._answers.popitem(last=False)
            return found

    def _known(self, key: str, state: str) -> Mapping[str, Any] | None:
        known, made_at, found = self._answers.get(key, ("", 0.0, {}))
        is_good = bool(found) and (known == state or time.monotonic() < made_at + KEPT_S)
        return found if is_good else None

    def rest(self) -> None:
        """End the processes that work out nothing: nobody looks."""
        for process in self._processes.values():
            if not process.lock.locked():
                process.close()

    def close(self) -> None:
        """End all processes."""
        for process in self._processes.values():
            process.close()
