"""The one thread that writes results: encodes, batches, commits, in the order things happened.

Commits wait in a bounded queue; several are stored in one transaction. Images are encoded by a small pool
meanwhile. A commit is durable once `committed` has reached its number. When writing fails (a full disk) the
error is kept and raised in the driver; what was committed before stays. Where it is an item's fault, the
others are written (`salvage.py`).

Which thread owns what: `add`, `flush` and `close` are called by the driver's thread. The thread "writer"
stores, and its clock is its own; while nothing is queued it touches nothing, and the driver's thread stores
what is urgent. `_lock` guards the bytes that wait, which both count.
"""

from __future__ import annotations

import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

from PIL import Image

from panic.engine.ledger import Clock, Ledger
from panic.engine.salvage import Salvage, is_nobodys_fault
from panic.store.codec import encode_image
from panic.store.records import Commit

log = logging.getLogger("panic.engine")

QUEUED_COMMITS = 48
"""Commits that may wait: with the batches in flight, the most that is recomputed after a kill."""
QUEUED_BYTES = 256 * 2**20
"""Images and texts that may wait, whatever their size."""
COMMIT_ROWS = 4096
MERGED_COMMITS = QUEUED_COMMITS // 2
"""Fewer are stored at a time than may wait: otherwise small batches fill the queue, and the driver waits
for the next commit."""
COMMIT_EVERY_S = 0.25


_Queued = tuple[Commit, list[Future[list[bytes]]], bool]
"""A commit, its images being encoded, and whether it is urgent."""
_FLUSH: _Queued = (Commit(), [], True)
"""It ends what is gathered, because somebody waits for what is queued before it."""


class Writer:
    """Writes commits in a thread of its own.

    Args:
        commit: stores one transaction; called by one thread at a time, as said above.
        on_saved: called with the digest of every output that is now in the store.
        ledger: told what the thread spends its time on.

    broken: runs that have ended because a step of theirs cannot be stored. incomplete: numbers of the commits
    of which rows other than steps are missing, and `problems`: what is to be said of those rows. on_urgent:
    called from the writer's thread when urgent commits are stored.
    """

    def __init__(
        self,
        commit: Callable[[Commit], None],
        on_saved: Callable[[bytes], None],
        ledger: Ledger | None = None,
    ) -> None:
        self._ledger = ledger or Ledger()
        self._clock = Clock("starting", since=self._ledger.started_at)
        self._commit = commit
        self._salvage: Salvage | None = None
        self._on_saved = on_saved
        self._queue: queue.SimpleQueue[_Queued | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._num_bytes = 0
        self._num_encoders = max(1, min(8, os.cpu_count() or 1))
        self._encoders = ThreadPoolExecutor(self._num_encoders, thread_name_prefix="encode")
        self.added = 0
        self.committed = 0
        self.error: BaseException | None = None
        self.broken: set[int] = set()
        self.incomplete: set[int] = set()
        self.problems: list[str] = []
        self.on_urgent: Callable[[], None] = lambda: None
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)
        self._thread.start()

    def add(self, commit: Commit, *, is_urgent: bool = False) -> int:
        """Queue a commit; blocks while too much is queued. Returns the commit's number.

        is_urgent: it does not wait for others to be stored together with it. Where nothing waits before it,
        and no image has to be encoded, it is stored here: to hand it over takes longer.

        Raises what writing raised, if it failed.
        """
        if self.error is not None:
            raise self.error
        while self._num_bytes > QUEUED_BYTES:
            self._wait()
        images = [output.image for output in commit.outputs if isinstance(output.image, Image.Image)]
        futures = [self._encoders.submit(_encode, chunk) for chunk in _chunks(images, self._num_encoders)]
        while self.added - self.committed >= QUEUED_COMMITS:
            self._wait()
        with self._lock:
            self._num_bytes += _num_bytes(commit)
        is_stored_here = is_urgent and not futures and self.committed == self.added
        self.added += 1
        if is_stored_here:
            try:
                self._store([(commit, [], False)])
            except BaseException as error:
                self.error = error
                raise
        else:
            self._queue.put((commit, futures, is_urgent))
        return self.added

    def flush(self) -> None:
        """Wait until everything added is committed. Raises what writing raised, if it failed."""
        self._queue.put(_FLUSH)
        while self.committed < self.added:
            self._wait()

    def close(self) -> None:
        """Commit what is queued (unless writing failed) and stop."""
        self._queue.put(None)
        self._thread.join()
        self._encoders.shutdown(cancel_futures=True)

    def _wait(self) -> None:
        if self.error is not None:
            raise self.error
        time.sleep(0.002)

    def _run(self) -> None:
        self._clock.switch("waiting for results")
        try:
            more = True
            while more:
                more = self._store_some()
                self._ledger.add("writer", self._clock.take())
        except BaseException as error:
            self.error = error

    def _store_some(self) -> bool:
        """Store the commits that gather within a moment; False once the end was seen."""
        more = True
        gathered: list[_Queued] = []
        rows, deadline = 0, 0.0
        while rows < COMMIT_ROWS and len(gathered) < MERGED_COMMITS:
            wait_s = max(0.0, deadline - time.monotonic()) if gathered else None
            try:
                got = self._queue.get(timeout=wait_s)
            except queue.Empty:
                break
            if got is None:
                more = False
                break
            if got is _FLUSH:
                break
            if got[2]:
                deadline = 0.0  # it is stored with what waits already
            elif not gathered:
                deadline = time.monotonic() + COMMIT_EVERY_S
            gathered.append(got)
            rows += got[0].num_rows
        if gathered:
            with self._clock.of("writing"):
                self._store(gathered)
        return more

    def _store(self, gathered: Sequence[_Queued]) -> None:
        try:
            self._store_at_once(gathered)
        except BaseException as error:
            if is_nobodys_fault(error):
                raise
            log.warning("a batch cannot be written, so its items are one by one: %s", error)
            salvage = self._salvage = self._salvage or Salvage(
                self._commit, self.broken, self.incomplete, self.problems
            )
            for number, (commit, *_) in enumerate(gathered, self.committed + 1):
                salvage.store(commit, number)
                for output in commit.outputs:
                    if salvage.is_stored(output.digest):
                        self._on_saved(output.digest)
        with self._lock:
            self._num_bytes -= sum(_num_bytes(commit) for commit, *_ in gathered)
        self.committed += len(gathered)
        if any(is_urgent for *_, is_urgent in gathered):
            self.on_urgent()

    def _store_at_once(self, gathered: Sequence[_Queued]) -> None:
        merged = Commit()
        for commit, futures, _ in gathered:
            merged.extend(self._encoded(commit, futures) if futures else commit)
        if self._salvage is not None:
            merged = self._salvage.without_broken(merged)
        self._commit(merged)
        for output in merged.outputs:
            self._on_saved(output.digest)

    def _encoded(self, commit: Commit, futures: Sequence[Future[list[bytes]]]) -> Commit:
        """A commit with the bytes of its images in place of their pixels."""
        with self._clock.of("encoding images"):
            encoded = iter([data for future in futures for data in future.result()])
        return replace(
            commit,
            outputs=[
                replace(output, image=next(encoded)) if isinstance(output.image, Image.Image) else output
                for output in commit.outputs
            ],
        )


def _num_bytes(commit: Commit) -> int:
    """Memory of a commit's images and texts."""
    return sum(
        3 * (output.width or 0) * (output.height or 0) + 2 * len(output.text or "")
        for output in commit.outputs
    )


def _chunks(items: Sequence[Image.Image], num_chunks: int) -> list[Sequence[Image.Image]]:
    size = max(1, -(-len(items) // num_chunks))
    return [items[start : start + size] for start in range(0, len(items), size)]


def _encode(images: Sequence[Image.Image]) -> list[bytes]:
    return [encode_image(image) for image in images]
