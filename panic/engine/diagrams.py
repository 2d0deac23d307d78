"""The diagrams stage: persistence diagrams of complete runs, in processes beside the models.

A child process reads a run's vectors from the store (read-only) and sends the bars back; the driver
writes them. Processes on all cores, which make way for the models (`nice`): a cloud that is beyond its
share of the memory then costs a diagram and not the experiment. Small diagrams are handed out several at a
time, so that no process waits for a message.
"""

from __future__ import annotations

import hashlib
import json
import os
import resource
import sys
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
ENVIRONMENT = {
    # Of the numeric libraries: the processes share the cores.
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    # glibc: keep the memory of one diagram for the next (1.3 instead of 2.0 ms for 100 points).
    "MALLOC_TRIM_THRESHOLD_": str(256 * 2**20),
    "MALLOC_MMAP_THRESHOLD_": str(32 * 2**20),
}
"""Of every process of the pool."""
NICE = 5
AHEAD = 16
"""Most tasks that a process holds; only one while diagrams take longer than `SHORT_S`."""
SHORT_S = 0.05
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
        self._num_workers = num_workers or os.cpu_count() or 1
        self._arguments = (store, settings, open_device("cpu").total_bytes() * 3 // 4 // self._num_workers)
        self._deliver = deliver
        self._lock = threading.Lock()
        self._waiting: deque[DiagramTask] = deque()
        self._children: dict[int, tuple[Child, deque[DiagramTask]]] = {}
        self._started = 0
        self._ahead = 1
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
            children = list(self._children.values())
        for child, tasks in children:
            if tasks:
                child.kill()
        for child, _ in children:
            child.close()

    def _assign(self) -> None:
        """Hand out what waits: to idle processes, to new ones, then ahead to those that hold least."""
        while self._waiting:
            tasks_of = {number: tasks for number, (_, tasks) in self._children.items()}
            number = min(tasks_of, key=lambda number: len(tasks_of[number]), default=-1)
            if number < 0 or (tasks_of[number] and len(self._children) < self._num_workers):
                number = self._start()
            child, tasks = self._children[number]
            if len(tasks) >= self._ahead:
                return
            task = self._waiting.popleft()
            tasks.append(task)
            child.send(task)

    def _start(self) -> int:
        number = self._started
        self._started += 1
        entry = "panic.engine.diagrams:serve_connection"
        child = Child(entry, self._arguments, partial(self._on_message, number), ENVIRONMENT)
        self._children[number] = (child, deque())
        return number

    def _on_message(self, number: int, message: NewDiagram | DiagramFailure | None) -> None:
        """A result, in the order of the tasks; None when the process has ended, which its first task did."""
        with self._lock:
            if self._closing or number not in self._children:
                return
            child, tasks = self._children[number]
            if message is None:
                del self._children[number]
                if tasks:
                    reason = f"its process ended: {child.exit_reason()}"
                    message = DiagramFailure(tasks.popleft(), reason, crashed=True)
                    self._waiting.extendleft(reversed(tasks))
            else:
                tasks.popleft()
                if isinstance(message, NewDiagram):
                    self._ahead = AHEAD if message.duration_s < SHORT_S else 1
            self._assign()
        if message is not None:
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
        generators=dict(enumerate(result.generators or ())),
        duration_s=time.perf_counter() - start,
    )


def serve_connection(
    connection: Connection[Any, Any], path: Path, settings: DiagramSettings, memory_bytes: int
) -> None:
    """A child's main loop: tasks in, diagrams out, until None or the end of the pipe."""
    os.nice(NICE)
    diagram([[0.0], [1.0]])  # imports the back end before anything is timed
    limit_memory(memory_bytes)
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
            except MemoryError:
                reason = f"it needs more than its share of the memory, {memory_bytes / 2**30:.1f} GiB"
                connection.send(DiagramFailure(task, reason))
            except Exception as error:
                connection.send(DiagramFailure(task, f"{type(error).__name__}: {error}"))


def limit_memory(more_bytes: int) -> None:
    """Let this process have `more_bytes` beyond what it has: an allocation fails, the system kills nobody.

    The estimate of `panic.topology.memory` bounds columns, not what reducing them may add. Linux only.
    """
    if sys.platform != "linux":
        return
    status = Path("/proc/self/status").read_text(encoding="ascii")
    used = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmData:")) * 1024
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    wanted = used + more_bytes
    if hard == resource.RLIM_INFINITY or wanted < hard:
        resource.setrlimit(resource.RLIMIT_DATA, (wanted, hard))
