"""A pool of processes that compute what is taken of the store's vectors: diagrams, then measures of them.

A child process reads what a task needs from the store (read-only) and sends back what the driver shall write.
Processes on all cores, which make way for the models (`nice`): a cloud that is beyond its share of the memory
then costs a diagram and not the experiment. Small tasks are handed out several at a time, so that no process
waits for a message.
"""

from __future__ import annotations

import os
import resource
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

from panic.config import DiagramSettings
from panic.devices.device import open_device
from panic.engine.child import Child
from panic.engine.writer import Entry
from panic.store import Store
from panic.topology import diagram

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
CACHE_KIB = 256
"""Of SQLite, per process: every vector is read once, so the store's own 64 MiB would only fill up."""
NICE = 5
AHEAD = 16
"""Most tasks that a process holds; only one while tasks take longer than `SHORT_S`."""
SHORT_S = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """What a process computes with."""

    store: Store
    settings: DiagramSettings
    memory_bytes: int


class Task(Protocol):
    """Something to compute; equal tasks have equal results."""

    @property
    def attempts(self) -> int:
        """How often it was tried before."""

    @property
    def num_results(self) -> int:
        """How many results it gives."""

    def __str__(self) -> str: ...

    def __hash__(self) -> int: ...

    def compute(self, bench: Bench) -> Entry:
        """What to write into the store; runs in a process of the pool."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What has become of a task: what to write, or why there is nothing. crashed: its process ended."""

    task: Task
    entry: Entry | None = None
    problem: str = ""
    crashed: bool = False
    duration_s: float = 0.0


class Pool:
    """Child processes; started when the first task is due.

    Args:
        deliver: called from another thread with an Answer for every task.
    """

    def __init__(
        self,
        store: Path,
        settings: DiagramSettings,
        deliver: Callable[[Answer], None],
        *,
        num_workers: int | None = None,
    ) -> None:
        self._num_workers = num_workers or os.cpu_count() or 1
        self._arguments = (store, settings, open_device("cpu").total_bytes() * 3 // 4 // self._num_workers)
        self._deliver = deliver
        self._lock = threading.Lock()
        self._waiting: deque[Task] = deque()
        self._children: dict[int, tuple[Child, deque[Task]]] = {}
        self._started = 0
        self._ahead = 1
        self._closing = False

    def submit(self, task: Task) -> None:
        """Compute it as soon as a process is free."""
        with self._lock:
            self._waiting.append(task)
            self._assign()

    def close(self) -> None:
        """Stop; what is in the making is given up."""
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
        entry = "panic.engine.pool:serve_connection"
        child = Child(entry, self._arguments, partial(self._on_message, number), ENVIRONMENT)
        self._children[number] = (child, deque())
        return number

    def _on_message(self, number: int, answer: Answer | None) -> None:
        """An answer, in the order of the tasks; None when the process has ended, which its first task did."""
        with self._lock:
            if self._closing or number not in self._children:
                return
            child, tasks = self._children[number]
            if answer is None:
                del self._children[number]
                if tasks:
                    reason = f"its process ended: {child.exit_reason()}"
                    answer = Answer(task=tasks.popleft(), problem=reason, crashed=True)
                    self._waiting.extendleft(reversed(tasks))
            else:
                tasks.popleft()
                if answer.entry is not None:
                    self._ahead = AHEAD if answer.duration_s < SHORT_S else 1
            self._assign()
        if answer is not None:
            self._deliver(answer)


def serve_connection(
    connection: Connection[Any, Any], path: Path, settings: DiagramSettings, memory_bytes: int
) -> None:
    """A child's main loop: tasks in, answers out, until None or the end of the pipe."""
    os.nice(NICE)
    # Imports the back ends, and compiles ours where that is the first time, before anything is timed.
    for backend in ("auto", "collapse"):
        diagram([[0.0], [1.0]], max_dimension=settings.max_dimension, backend=backend)
    limit_memory(memory_bytes)
    with Store(path) as store:
        store.db.execute(f"PRAGMA cache_size=-{CACHE_KIB}")
        bench = Bench(store=store, settings=settings, memory_bytes=memory_bytes)
        while True:
            try:
                task = connection.recv()
            except EOFError:
                return
            if task is None:
                return
            connection.send(_answer(task, bench))


def _answer(task: Task, bench: Bench) -> Answer:
    start = time.perf_counter()
    try:
        entry = task.compute(bench)
    except MemoryError:
        share = f"{bench.memory_bytes / 2**30:.1f} GiB"
        return Answer(task=task, problem=f"it needs more than its share of the memory, {share}")
    except Exception as error:
        return Answer(task=task, problem=f"{type(error).__name__}: {error}")
    return Answer(task=task, entry=entry, duration_s=time.perf_counter() - start)


def limit_memory(more_bytes: int) -> None:
    """Let this process have `more_bytes` beyond what it has: an allocation fails, the system kills nobody.

    The estimate of `panic.topology.budget` bounds columns, not what reducing them may add. Linux only.
    """
    if sys.platform != "linux":
        return
    status = Path("/proc/self/status").read_text(encoding="ascii")
    used = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmData:")) * 1024
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    wanted = used + more_bytes
    if hard == resource.RLIM_INFINITY or wanted < hard:
        resource.setrlimit(resource.RLIMIT_DATA, (wanted, hard))
