"""The diagrams stage: persistence diagrams of complete runs, in processes beside the models.

A child process reads a run's vectors from the store (read-only) and sends the bars back; the driver
writes them. Processes, because the library that computes them keeps Python's lock all the while.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from panic.config import DiagramSettings
from panic.devices.device import open_device
from panic.engine.child import Child
from panic.engine.pending import Pending
from panic.engine.writer import Entry
from panic.store import Store
from panic.store.records import NewDiagram
from panic.topology import diagram

MAX_RETRIES = 2
ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
"""Of the numeric libraries in every process of the pool: the processes share the cores."""
LOOKUP_EVERY_S = 0.5
LOOKUP_SHARE = 0.05
"""Most of the driver's time that may go into asking the store which diagrams are due."""


@dataclass(frozen=True, slots=True)
class DiagramTask:
    """The diagram of one run under one embedding model."""

    run: int
    model: int
    attempts: int = 0


@dataclass(frozen=True, slots=True)
class DiagramFailure:
    """Why a diagram was not computed."""

    task: DiagramTask
    message: str
    crashed: bool = False


def settings_digest(settings: DiagramSettings) -> str:
    """Identifies diagram settings: SHA-256 (hex) of their canonical JSON."""
    text = json.dumps(settings.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


class DiagramPool:
    """Child processes that compute diagrams; started when the first diagram is due.

    Args:
        deliver: called from another thread with a NewDiagram or a DiagramFailure for every task.
    """

    def __init__(
        self,
        store: Path,
        settings: DiagramSettings,
        deliver: Callable[[NewDiagram | DiagramFailure], None],
        *,
        num_workers: int | None = None,
    ) -> None:
        self._num_workers = num_workers or max(1, (os.cpu_count() or 2) - 1)
        self._arguments = (store, settings, open_device("cpu").total_bytes() * 3 // 4 // self._num_workers)
        self._deliver = deliver
        self._lock = threading.Lock()
        self._waiting: deque[DiagramTask] = deque()
        self._busy: dict[int, tuple[Child, DiagramTask]] = {}
        self._idle: list[tuple[int, Child]] = []
        self._started = 0
        self._closing = False

    def submit(self, task: DiagramTask) -> None:
        """Compute a diagram as soon as a process is free."""
        with self._lock:
            self._waiting.append(task)
            self._assign()

    def close(self) -> None:
        """Stop; diagrams in the making are given up."""
        with self._lock:
            self._closing = True
            self._waiting.clear()
            children = [child for child, _ in self._busy.values()]
            idle = [child for _, child in self._idle]
        for child in children:
            child.kill()
        for child in [*children, *idle]:
            child.close()

    def _assign(self) -> None:
        while self._waiting and (self._idle or len(self._busy) < self._num_workers):
            if self._idle:
                number, child = self._idle.pop()
            else:
                number = self._started
                self._started += 1
                child = Child(
                    "panic.engine.diagrams:serve_connection",
                    self._arguments,
                    partial(self._on_message, number),
                    ONE_THREAD,
                )
            task = self._waiting.popleft()
            self._busy[number] = (child, task)
            child.send(task)

    def _on_message(self, number: int, message: NewDiagram | DiagramFailure | None) -> None:
        with self._lock:
            if self._closing:
                return
            if number not in self._busy:  # an idle process ended
                self._idle = [(other, child) for other, child in self._idle if other != number]
                return
            child, task = self._busy.pop(number)
            if message is None:
                message = DiagramFailure(task, f"its process ended: {child.exit_reason()}", crashed=True)
            else:
                self._idle.append((number, child))
            self._assign()
        self._deliver(message)


class DiagramStage:
    """Finds the runs whose diagrams are due and keeps account of them.

    Args:
        store: for reading.
        models: rows of the embedding models.
    """

    def __init__(
        self, pool: DiagramPool, store: Store, experiment: int, models: list[int], settings: DiagramSettings
    ) -> None:
        self._pool, self._store, self._experiment = pool, store, experiment
        self._models, self._settings = models, settings
        self._pending: Pending[tuple[int, int]] = Pending()
        self._next_lookup_at = 0.0
        self.num_busy = 0
        self.num_found = 0
        self.num_done = 0
        self.given_up: list[str] = []

    def refill(self, committed: int, *, force: bool = False) -> int:
        """Start the diagrams that the store lacks; how many. Does nothing if asked too often."""
        start = time.monotonic()
        if not force and start < self._next_lookup_at:
            return 0
        self._pending.settle(committed)
        found = 0
        digest = settings_digest(self._settings)
        for model in self._models:
            due = self._store.ready_for_diagram(self._experiment, model, digest, self._settings.modality)
            for run in due:
                if self._pending.claim((run, model)):
                    self._pool.submit(DiagramTask(run, model))
                    found += 1
        self.num_busy += found
        self.num_found += found
        now = time.monotonic()
        self._next_lookup_at = now + max(LOOKUP_EVERY_S, (now - start) / LOOKUP_SHARE)
        return found

    def absorb(self, message: NewDiagram | DiagramFailure) -> Entry | None:
        """Take a diagram; a failed one is tried again if its process ended, and given up otherwise."""
        if isinstance(message, NewDiagram):
            self.num_busy -= 1
            self.num_done += 1
            return Entry(diagrams=[message])
        task = message.task
        if message.crashed and task.attempts < MAX_RETRIES:
            self._pool.submit(replace(task, attempts=task.attempts + 1))
        else:
            self.num_busy -= 1
            self.given_up.append(f"run {task.run} has no diagram: {message.message}")
        return None

    def written(self, entry: Entry, entry_number: int) -> None:
        """The entry's diagrams were handed to the writer."""
        self._pending.written([(row.run, row.model) for row in entry.diagrams], entry_number)


def compute(store: Store, task: DiagramTask, settings: DiagramSettings, memory_bytes: int) -> NewDiagram:
    """The persistence diagram of one run, from the vectors in the store.

    Raises: TopologyError with the arithmetic for a cloud that needs more memory than there is.
    """
    points = store.run_vectors(task.run, task.model, settings.modality)
    start = time.perf_counter()
    result = diagram(
        points,
        max_dimension=settings.max_dimension,
        metric=settings.metric,
        generators=settings.generators,
        memory_limit_bytes=memory_bytes,
    )
    return NewDiagram(
        run=task.run,
        model=task.model,
        settings=settings.model_dump(mode="json"),
        settings_digest=settings_digest(settings),
        num_points=len(points),
        num_unique=result.num_unique,
        bars={dimension: result.bars(dimension) for dimension in range(settings.max_dimension + 1)},
        duration_s=time.perf_counter() - start,
    )


def serve_connection(
    connection: Connection[Any, Any], path: Path, settings: DiagramSettings, memory_bytes: int
) -> None:
    """A child's main loop: tasks in, diagrams out, until None or the end of the pipe."""
    diagram([[0.0], [1.0]])  # imports the back end before anything is timed
    with Store(path) as store:
        while True:
            try:
                task = connection.recv()
            except EOFError:
                return
            if task is None:
                return
            try:
                connection.send(compute(store, task, settings, memory_bytes))
            except Exception as error:
                connection.send(DiagramFailure(task, f"{type(error).__name__}: {error}"))
