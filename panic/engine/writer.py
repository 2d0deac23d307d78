"""The one thread that writes results: encodes, batches, commits, in the order things happened.

Entries wait in a bounded queue; several are stored in one transaction. Images are encoded by a small pool
meanwhile. An entry is durable once `committed` has reached its number. When writing fails (a full disk)
the error is kept and raised in the driver; what was committed before stays.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from PIL import Image

from panic.engine.contents import size_bytes
from panic.engine.outputs import Output
from panic.models.protocol import Modality
from panic.store.codec import encode_image
from panic.store.records import (
    Commit,
    NewBatch,
    NewDiagram,
    NewDistance,
    NewEmbedding,
    NewFailure,
    NewInvocation,
    NewOutput,
    NewStuck,
    NewVectorisation,
)

QUEUED_ENTRIES = 48
"""Entries that may wait: with the batches in flight, the most that is recomputed after a kill."""
QUEUED_BYTES = 256 * 2**20
"""Pixels and texts that may wait, whatever the size of a picture."""
COMMIT_ROWS = 4096
COMMIT_ENTRIES = QUEUED_ENTRIES // 2
"""Fewer than may wait: otherwise small batches fill the queue, and the driver waits for the next commit."""
COMMIT_EVERY_S = 0.25


@dataclass(slots=True, kw_only=True)
class Entry:
    """What one batch (or one coalesced run, failure, diagram) adds to the store."""

    batches: list[NewBatch] = field(default_factory=list)
    outputs: list[Output] = field(default_factory=list)
    invocations: list[NewInvocation] = field(default_factory=list)
    stuck: list[NewStuck] = field(default_factory=list)
    failures: list[NewFailure] = field(default_factory=list)
    embeddings: list[NewEmbedding] = field(default_factory=list)
    diagrams: list[NewDiagram] = field(default_factory=list)
    vectorisations: list[NewVectorisation] = field(default_factory=list)
    distances: list[NewDistance] = field(default_factory=list)

    @property
    def num_rows(self) -> int:
        of_diagrams = len(self.diagrams) + len(self.vectorisations) + len(self.distances)
        return len(self.invocations) + len(self.embeddings) + of_diagrams + 1

    @property
    def num_bytes(self) -> int:
        return sum(size_bytes(output.value) for output in self.outputs)


_Queued = tuple[Entry, list[Future[list[bytes]]]]
_FLUSH: _Queued = (Entry(), [])
"""Somebody waits for what is queued before it."""


class Writer:
    """Writes entries in a thread of its own.

    Args:
        commit: stores one transaction; called from the writer's thread only.
        on_saved: called with the digest of every output that is now in the store.
    """

    def __init__(self, commit: Callable[[Commit], None], on_saved: Callable[[bytes], None]) -> None:
        self._commit = commit
        self._on_saved = on_saved
        self._queue: queue.SimpleQueue[_Queued | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._num_bytes = 0
        self._num_encoders = max(1, min(8, os.cpu_count() or 1))
        self._encoders = ThreadPoolExecutor(self._num_encoders, thread_name_prefix="encode")
        self.added = 0
        self.committed = 0
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)
        self._thread.start()

    def add(self, entry: Entry) -> int:
        """Queue an entry; blocks while too much is queued. Returns the entry's number.

        Raises what writing raised, if it failed.
        """
        if self.error is not None:
            raise self.error
        while self._num_bytes > QUEUED_BYTES:
            self._wait()
        images = [output.value for output in entry.outputs if output.modality is Modality.IMAGE]
        futures = [self._encoders.submit(_encode, chunk) for chunk in _chunks(images, self._num_encoders)]
        while self.added - self.committed >= QUEUED_ENTRIES:
            self._wait()
        with self._lock:
            self._num_bytes += entry.num_bytes
        self._queue.put((entry, futures))
        self.added += 1
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
        try:
            more = True
            while more:
                more = self._store_some()
        except BaseException as error:
            self.error = error

    def _store_some(self) -> bool:
        """Commit the entries that gather within a moment; False once the end was seen."""
        more = True
        gathered: list[_Queued] = []
        rows, deadline = 0, 0.0
        while rows < COMMIT_ROWS and len(gathered) < COMMIT_ENTRIES:
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
            if not gathered:
                deadline = time.monotonic() + COMMIT_EVERY_S
            gathered.append(got)
            rows += got[0].num_rows
        if gathered:
            self._store(gathered)
        return more

    def _store(self, gathered: Sequence[_Queued]) -> None:
        commit = Commit()
        for entry, futures in gathered:
            encoded = (data for future in futures for data in future.result())
            commit.outputs.extend(_row(output, encoded) for output in entry.outputs)
            commit.batches.extend(entry.batches)
            commit.invocations.extend(entry.invocations)
            commit.stuck.extend(entry.stuck)
            commit.failures.extend(entry.failures)
            commit.embeddings.extend(entry.embeddings)
            commit.diagrams.extend(entry.diagrams)
            commit.vectorisations.extend(entry.vectorisations)
            commit.distances.extend(entry.distances)
        self._commit(commit)
        for entry, _ in gathered:
            for output in entry.outputs:
                self._on_saved(output.digest)
        with self._lock:
            self._num_bytes -= sum(entry.num_bytes for entry, _ in gathered)
        self.committed += len(gathered)


def _row(output: Output, encoded: Iterator[bytes]) -> NewOutput:
    if output.modality is Modality.TEXT:
        return NewOutput(digest=output.digest, modality="text", text=output.value)
    width, height = output.value.size
    return NewOutput(digest=output.digest, modality="image", width=width, height=height, image=next(encoded))


def _chunks(items: Sequence[Image.Image], num_chunks: int) -> list[Sequence[Image.Image]]:
    size = max(1, -(-len(items) // num_chunks))
    return [items[start : start + size] for start in range(0, len(items), size)]


def _encode(images: Sequence[Image.Image]) -> list[bytes]:
    return [encode_image(image) for image in images]
