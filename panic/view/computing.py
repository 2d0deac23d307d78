"""What takes long: standings, questions of the analysis, maps; made once at a time and kept for a while.

Questions are asked in processes of their own (`processes.py`), one at a time per store. While a store
changes, an answer is kept for `KEPT_S` at least, and says of which revision and time it is.
"""

from __future__ import annotations

import json
import tempfile
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from panic.view.processes import Gone, Process
from panic.view.sources import Source

PATIENCE = 10.0
"""A standing that took so long is not made again before this many times as long has passed."""
KEPT_S = 60.0
KEPT_ANSWERS = 24
LONGEST_S = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Standing:
    """A standing, when it was made by the monotonic clock, and how long that took."""

    found: Mapping[str, Any]
    made_at: float
    took_s: float


class Computing:
    """Standings and answers, each kept as long as its store does not change or it is young.

    is_watched: tells whether a page is open; a process of its own is kept only then.
    """

    def __init__(self, is_watched: Callable[[], bool]) -> None:
        self._is_watched = is_watched
        self._lock = threading.Lock()
        self._turns: dict[tuple[str, ...], threading.Lock] = {}
        self._kept: dict[tuple[str, ...], _Standing] = {}
        self._answers: OrderedDict[str, tuple[str, float, Mapping[str, Any]]] = OrderedDict()
        self._processes: dict[str, Process] = {}
        self._drawing, self._library = Process(), ""
        self._own: tempfile.TemporaryDirectory[str] | None = None

    def status(
        self, key: tuple[str, ...], revision: int, make: Callable[[], dict[str, Any]]
    ) -> Mapping[str, Any]:
        """Return where an experiment (its store, files, uid) stands, with the revision and time of that.

        While a standing is made, others get the last one, and wait for the first.
        """
        with self._lock:
            turn = self._turns.setdefault(key, threading.Lock())
        if not turn.acquire(blocking=False):
            if last := self._kept.get(key):
                return last.found
            turn.acquire()
        try:
            last, now = self._kept.get(key), time.monotonic()
            is_young = last is not None and now < last.made_at + PATIENCE * last.took_s
            if last is None or not (last.found["revision"] == revision or is_young):
                found = {**make(), "at": time.time()}
                done = time.monotonic()
                last = self._kept[key] = _Standing(found=found, made_at=done, took_s=done - now)
            return last.found
        finally:
            turn.release()

    async def ask(
        self, source: Source, state: str, asked: Mapping[str, Any], is_gone: Gone
    ) -> Mapping[str, Any]:
        """Return what is answered to `asked`; `state` is that of the store, or with + those of stores, now.

        Raises UsageError and NotFound as the process says, TooLong.
        """
        files = [one.partition("-")[0] for one in state.split("+")]
        key = json.dumps([source.key, files, asked], sort_keys=True)
        if found := self._known(key, state):
            return found
        process = self._processes.setdefault(source.key, Process())
        async with process.lock:
            if found := self._known(key, state):  # whoever came first has asked the same
                return found
            said = {**asked, "path": str(source.path.resolve())}
            if any(len(one.get("stores", {})) > 1 for one in (asked, *asked.get("sides", ()))):
                said["folder"] = self._folder(source)
            try:
                found = {**await process.ask(said, LONGEST_S, is_gone), "at": time.time()}
            finally:
                if not self._is_watched():
                    process.close()
            self._answers[key] = state, time.monotonic(), found
            while len(self._answers) > KEPT_ANSWERS:
                self._answers.popitem(last=False)
            return found

    async def library(self, is_gone: Gone) -> str:
        """Return the script that draws charts, made once; no store's questions wait for it meanwhile.

        Raises PanicError where it cannot be made.
        """
        async with self._drawing.lock:
            if not self._library:
                try:
                    found = await self._drawing.ask({"kind": "library"}, LONGEST_S, is_gone)
                finally:
                    self._drawing.close()
                themes = json.dumps(found["themes"])
                self._library = f"{found['library']}\nwindow.panicThemes = {themes};\n"
            return self._library

    def _folder(self, source: Source) -> str:
        """A folder for stores that are merged with this one, gone with the server."""
        if self._own is None:
            self._own = tempfile.TemporaryDirectory(prefix="panic-view-", ignore_cleanup_errors=True)
        folder = Path(self._own.name) / source.key
        folder.mkdir(exist_ok=True)
        return str(folder)

    def _known(self, key: str, state: str) -> Mapping[str, Any] | None:
        known, made_at, found = self._answers.get(key, ("", 0.0, {}))
        is_good = bool(found) and (known == state or time.monotonic() < made_at + KEPT_S)
        return found if is_good else None

    def rest(self) -> None:
        """End the processes that work out nothing: nobody looks."""
        for process in self._processes.values():
            if not process.lock.locked():
                process.close()

    async def close(self) -> None:
        """End all processes."""
        for process in (*self._processes.values(), self._drawing):
            await process.end()
        if self._own is not None:
            self._own.cleanup()
