"""Jobs: what is computed from the store's vectors in processes beside the models, and the pool of processes.

A child process reads what a job needs from the store (read-only) and sends back what the driver shall write.
Processes on all cores, which make way for the models (`nice`): a cloud that is beyond its share of the memory
then costs a diagram and not the experiment. Small jobs are handed out several at a time, so that no process
waits for a message. A job whose process ended is tried again.

Which thread owns what: `submit` and `close` are called by the driver's thread, `_on_message` by the reader
thread of each child; `_lock` guards everything that both touch, and is not held while a result is
delivered.
"""

from __future__ import annotations

import os
import resource
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol

from panic.config import DiagramSettings
from panic.devices.device import open_device
from panic.engine.channel import Channel
from panic.engine.child import Child
from panic.engine.ledger import Clock, Ledger, Span
from panic.store import Commit, Store
from panic.topology import prepare

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
"""Most jobs that a process holds; only one while jobs take longer than `SHORT_S`."""
SHORT_S = 0.05
PREPARED = "prepared"
"""What a process says when its kernels are compiled or found in the cache."""
MAX_RETRIES = 2
"""How often a job is tried again whose process ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """What a process computes with."""

    store: Store
    settings: tuple[DiagramSettings, ...]
    memory_bytes: int


class Job(Protocol):
    """Something to compute; picklable, and equal jobs have equal results. `name`: what is computed."""

    name: ClassVar[str]

    @property
    def num_results(self) -> int:
        """How many results it gives."""

    def __str__(self) -> str: ...

    def __hash__(self) -> int: ...

    def compute(self, bench: Bench) -> Commit:
        """What to write into the store; runs in a process of the pool."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobResult:
    """What has become of a job: what to write, or why there is nothing."""

    job: Job
    rows: Commit | None = None
    problem: str = ""
    duration_s: float = 0.0
    stage: Any = None
    """Who submitted it; set by the pool."""
    spans: Sequence[Span] = ()
    """What the process has spent its time on since the result before."""


class _Queued(NamedTuple):
    """A job in the pool, and the stage that submitted it."""

    job: Job
    stage: Any


class Pool:
    """Child processes; started when the first job is due.

    Args:
        settings: of all diagrams that jobs may ask for.
        deliver: called from another thread with the result of every job, or with what has ended that thread.
        ledger: told what the processes spend their time on.
        hidden: variables of the environment that the processes do not get.
    """

    def __init__(
        self,
        store: Path,
        settings: Sequence[DiagramSettings],
        deliver: Callable[[JobResult | BaseException], None],
        *,
        num_workers: int | None = None,
        ledger: Ledger | None = None,
        hidden: Sequence[str] = (),
    ) -> None:
        self._hidden = tuple(hidden)
        self._ledger = ledger or Ledger()
        self._num_workers = num_workers or os.cpu_count() or 1
        self._arguments = (
            store,
            tuple(settings),
            open_device("cpu").total_bytes() * 3 // 4 // self._num_workers,
        )
        self._deliver = deliver
        self._lock = threading.Lock()
        self._waiting: deque[_Queued] = deque()
        self._children: dict[int, tuple[Child, deque[_Queued]]] = {}
        self._crashes: Counter[Job] = Counter()
        self._started = 0
        self._ahead = 1
        self._is_prepared = False
        self._closing = False

    @property
    def is_preparing(self) -> bool:
        """Whether jobs wait for the first process to compile its kernels, which the others then find."""
        return bool(self._children) and not self._is_prepared

    def submit(self, job: Job, stage: Any) -> None:
        """Compute a job as soon as a process is free; its result bears the stage."""
        with self._lock:
            self._waiting.append(_Queued(job, stage))
            self._assign()

    def close(self) -> None:
        """Stop; what is in the making is given up.

        Processes that wait have nothing to lose, and their orderly end took a second each on a busy machine.
        """
        with self._lock:
            self._closing = True
            self._waiting.clear()
            children = [child for child, _ in self._children.values()]
        for child in children:
            child.kill()
        for child in children:
            child.close()

    def _assign(self) -> None:
        """Hand out what waits: to idle processes, to new ones, then ahead to those that hold least."""
        while self._waiting:
            jobs_of = {number: jobs for number, (_, jobs) in self._children.items()}
            number = min(jobs_of, key=lambda number: len(jobs_of[number]), default=-1)
            most = self._num_workers if self._is_prepared else 1
            if number < 0 or (jobs_of[number] and len(self._children) < most):
                number = self._start()
            child, jobs = self._children[number]
            if len(jobs) >= self._ahead:
                return
            queued = self._waiting.popleft()
            jobs.append(queued)
            child.send(queued.job)

    def _start(self) -> int:
        number = self._started
        self._started += 1
        entry = "panic.engine.pool:serve_connection"
        arguments = (*self._arguments, time.monotonic())
        on_message = partial(self._on_message, number)
        child = Child(entry, arguments, on_message, self._deliver, ENVIRONMENT, self._hidden)
        self._children[number] = (child, deque())
        return number

    def _on_message(self, number: int, result: JobResult | str | None) -> None:
        """Take a result, in the order of the jobs; None when the process has ended, which its first job
        did."""
        with self._lock:
            if self._closing or number not in self._children:
                return
            child, jobs = self._children[number]
            done: JobResult | None = None
            if result == PREPARED:
                self._is_prepared = True
            elif isinstance(result, JobResult):
                done = replace(result, stage=jobs.popleft().stage)
                self._ledger.add(f"pool {number + 1}", result.spans)
                if result.rows is not None:
                    self._ahead = AHEAD if result.duration_s < SHORT_S else 1
            else:
                del self._children[number]
                done = self._crashed(jobs, f"its process ended: {child.exit_reason()}")
            self._assign()
        if done is not None:
            self._deliver(done)

    def _crashed(self, jobs: deque[_Queued], reason: str) -> JobResult | None:
        """Put the jobs of a process that has ended back; give the first one up if it has done so too
        often."""
        if not jobs:
            return None
        guilty = jobs.popleft()
        self._waiting.extendleft(reversed(jobs))
        self._crashes[guilty.job] += 1
        if self._crashes[guilty.job] > MAX_RETRIES:
            return JobResult(job=guilty.job, problem=reason, stage=guilty.stage)
        self._waiting.append(guilty)
        return None


def serve_connection(
    connection: Channel,
    path: Path,
    settings: tuple[DiagramSettings, ...],
    memory_bytes: int,
    spawned_at: float,
) -> None:
    """A child's main loop: jobs in, results out, until None or the end of the pipe.

    spawned_at: when the driver asked for this process.
    """
    clock = Clock("starting a process", since=spawned_at)
    os.nice(NICE)
    if settings:
        with clock.of("compiling"):
            prepare()
    connection.send(PREPARED)
    limit_memory(memory_bytes)
    with Store(path) as store:
        store.db.execute(f"PRAGMA cache_size=-{CACHE_KIB}")
        bench = Bench(store=store, settings=settings, memory_bytes=memory_bytes)
        clock.switch("serving")
        while True:
            try:
                with clock.of("waiting for a job"):
                    job = connection.recv()
            except EOFError:
                return
            if job is None:
                return
            with clock.of(f"computing {job.name}"):
                result = _perform(job, bench)
            connection.send(replace(result, spans=clock.take()))


def _perform(job: Job, bench: Bench) -> JobResult:
    start = time.perf_counter()
    try:
        rows = job.compute(bench)
    except MemoryError:
        share = f"{bench.memory_bytes / 2**30:.1f} GiB"
        return JobResult(job=job, problem=f"it needs more than its share of the memory, {share}")
    except Exception as error:
        return JobResult(job=job, problem=f"{type(error).__name__}: {error}")
    return JobResult(job=job, rows=rows, duration_s=time.perf_counter() - start)


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
