"""What takes long: standings, questions of the analysis, maps; made once at a time and kept for a while.

Questions are asked in a process of their own, one at a time per store, within limits of memory and time; it
is ended when whoever asked has gone. While a store changes, an answer is kept for `KEPT_S` at least, and says
of which revision and time it is.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from panic.errors import NotFound, PanicError, UsageError
from panic.store import Store
from panic.store.records import ExperimentRow
from panic.view.sources import Source

PATIENCE = 10.0
"""A standing that took so long is not made again before this many times as long has passed."""
KEPT_S = 60.0
KEPT_ANSWERS = 24
LONGEST_S = 300.0
LOOK_EVERY_S = 0.5
WORKER = "panic.view.worker"
THREADS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "POLARS_MAX_THREADS",
    "NUMBA_NUM_THREADS",
)

Gone = Callable[[], Awaitable[bool]]


class TooLong(PanicError):
    """A question has used up its time, or whoever asked has gone."""


class Computing:
    """Standings and answers, each kept as long as its store does not change or it is young."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: dict[tuple[str, str], tuple[str, float, float, Mapping[str, Any]]] = {}
        self._answers: OrderedDict[str, tuple[str, float, Mapping[str, Any]]] = OrderedDict()
        self._busy: dict[str, asyncio.Lock] = {}

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
        """Return what a worker answers to `asked`; `state` is that of the store now.

        Raises UsageError and NotFound as the worker says, TooLong.
        """
        key = json.dumps([source.key, asked], sort_keys=True)
        if found := self._known(key, state):
            return found
        async with self._busy.setdefault(source.key, asyncio.Lock()):
            if found := self._known(key, state):  # whoever came first has asked the same
                return found
            found = {**await _asked_of_worker(source, asked, is_gone), "at": time.time()}
            self._answers[key] = state, time.monotonic(), found
            while len(self._answers) > KEPT_ANSWERS:
                self._answers.popitem(last=False)
            return found

    def _known(self, key: str, state: str) -> Mapping[str, Any] | None:
        known, made_at, found = self._answers.get(key, ("", 0.0, {}))
        is_good = bool(found) and (known == state or time.monotonic() < made_at + KEPT_S)
        return found if is_good else None


async def _asked_of_worker(source: Source, asked: Mapping[str, Any], is_gone: Gone) -> Mapping[str, Any]:
    """Start a worker, wait for its answer, and end it when it takes too long or nobody waits any more."""
    environment = {**os.environ, **dict.fromkeys(THREADS, "2")}
    pipe = asyncio.subprocess.PIPE
    worker = await asyncio.create_subprocess_exec(
        sys.executable, "-m", WORKER, stdin=pipe, stdout=pipe, stderr=pipe, env=environment,
        start_new_session=True,
    )  # fmt: skip
    said = json.dumps({**asked, "path": str(source.path.resolve())}).encode()
    answer = asyncio.ensure_future(worker.communicate(said))
    deadline = time.monotonic() + LONGEST_S
    try:
        while not answer.done():
            await asyncio.wait([answer], timeout=LOOK_EVERY_S)
            if not answer.done() and time.monotonic() > deadline:
                hint = "The command line has no such limit: panic figure, panic table, panic report."
                raise TooLong(f"This takes longer than {LONGEST_S:.0f} s.", hint=hint)
            if not answer.done() and await is_gone():
                raise TooLong("Nobody waits for it any more.")
        out, problem = answer.result()
    finally:
        if worker.returncode is None:
            worker.kill()
        answer.cancel()
    try:
        found: dict[str, Any] = json.loads(out)
    except ValueError:
        last = problem.decode(errors="replace").strip().rpartition("\n")[2][:300]
        raise PanicError(f"The question could not be answered: {last or worker.returncode}.") from None
    if "error" in found:
        raise (NotFound if found["is_missing"] else UsageError)(found["error"], hint=found["hint"])
    return found
