"""Who runs the models: one protocol, two executors (in this process; in a child process).

The driver submits tasks (a batch for one model, already pinned in shape); results are delivered by a call,
from another thread, in the order they finish. An executor owns its device's model cache. `serve` is what
both do with a task: lease the model, pad the batch to its pinned size, invoke, drop the padding. Checking
and hashing the outputs happens in a second thread, while the device is already busy with the next batch.
Several executors make several workers (`workers.py`).

    executor = LocalExecutor(WorkerSettings(device="cpu", specs={...}), build, inbox.put)
    executor.submit(Task(number=1, model="blip", batch_size=8, inputs=images, seeds=seeds))
    inbox.get()

A model gets copies of pictures, and copies of what it gives are kept: it may shrink its inputs in place or
draw every picture into one buffer, while others still need what they were given.
"""

from __future__ import annotations

import logging
import queue
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from PIL import Image

from panic.devices.cache import ModelCache
from panic.devices.device import Device, is_out_of_memory, open_device
from panic.devices.host import HostTier
from panic.engine.memory import MemorySettings
from panic.engine.outputs import Output, Rejected, finish
from panic.errors import ModelDoesNotFit, ModelMissing, OutputRejected, PanicError
from panic.models import registry
from panic.models.protocol import Model
from panic.models.spec import ModelSpec

log = logging.getLogger("panic.engine")


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSettings:
    """What a worker must know to serve tasks; picklable."""

    device: str
    specs: dict[str, ModelSpec]
    threads: int | None = None
    headroom_bytes: int = 0
    memory_fraction: float = 1.0
    reject_constant_images: bool = False
    memory: MemorySettings = field(default_factory=MemorySettings)


@dataclass(slots=True, kw_only=True)
class Task:
    """One model call: at most `batch_size` inputs of one bucket, padded to it."""

    number: int
    model: str
    batch_size: int
    inputs: list[Any]
    seeds: list[int]
    bucket: int = 0
    upcoming: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskError:
    """Why a task gave no outputs.

    kind: "memory" (a smaller batch may do), "unfit" (the weights alone are too large), "missing" (no
    weights here), "load" (building or loading failed), "error" (the call failed), "rejected" (its output
    is unusable), "crash" (the process ended or hung), "untried" (it was behind a crash).
    """

    kind: str
    message: str
    detail: str = ""
    hint: str = ""


@dataclass(slots=True, kw_only=True)
class Result:
    """A finished task: outputs, one per input, or an error. duration_s is the model call alone."""

    number: int
    outputs: list[Output | Rejected] = field(default_factory=list)
    error: TaskError | None = None
    started_at: float = 0.0
    duration_s: float = 0.0
    resident: frozenset[str] = frozenset()


class Executor(Protocol):
    """Runs tasks of one device in the order they are submitted; each gives exactly one `Result`."""

    @property
    def device(self) -> str:
        """Name of the device, as it is stored with every batch."""

    @property
    def is_ready(self) -> bool:
        """False while it starts: others that are ready should be asked first."""

    def submit(self, task: Task) -> None:
        """Queue a task."""

    def check(self) -> None:
        """Called now and then by the driver; kills a worker that exceeded its time limit."""

    def close(self) -> None:
        """Stop. What is submitted and not delivered may be lost."""


class Worker:
    """Serves tasks on one device; used by both executors. One thread calls `serve`."""

    def __init__(self, settings: WorkerSettings, build: Callable[[ModelSpec], Model]) -> None:
        self.settings = settings
        self.device: Device = open_device(settings.device)
        self._build_spec = build
        self._threads_before: int | None = None
        self.cache = ModelCache(
            self.device,
            self._build,
            headroom_bytes=settings.headroom_bytes,
            memory_fraction=settings.memory_fraction,
            files=lambda name: registry.files(settings.specs[name]),
            host=HostTier(settings.memory.host_budget(self.device)),
            working=settings.memory.working(),
            events=settings.memory.event_log(self.device),
        )

    def _build(self, name: str) -> Model:
        model = self._build_spec(self.settings.specs[name])
        if self.settings.threads and (torch := sys.modules.get("torch")):
            if self._threads_before is None:
                self._threads_before = torch.get_num_threads()
            torch.set_num_threads(self.settings.threads)
        return model

    def close(self) -> None:
        """Drop all models and give torch its threads back."""
        self.cache.close()
        if self._threads_before is not None:
            sys.modules["torch"].set_num_threads(self._threads_before)

    def load_all(self) -> None:
        """Load the models ahead of their first use; what does not load is told when it is asked for."""
        for name in self.settings.specs:
            try:
                self.cache.bring(name)
            except Exception:
                log.debug("%s could not be loaded ahead", name, exc_info=True)

    def serve(self, task: Task, on_invoke: Callable[[], None] = lambda: None) -> tuple[Result, list[Any]]:
        """Run a task; returns the result without outputs, and the raw outputs."""
        result = Result(number=task.number)
        raw = self._try(task, result, on_invoke)
        # Outside the handler of the first attempt: its traceback would keep the tensors alive.
        if result.error and result.error.kind in ("memory", "unfit") and self.cache.evict_idle():
            result.error = None
            raw = self._try(task, result, on_invoke)
        is_last_resort = result.error and result.error.kind == "memory" and task.batch_size == 1
        if is_last_resort and self.cache.offload(task.model):
            result.error = None
            raw = self._try(task, result, on_invoke)
        result.resident = self.cache.resident
        return result, raw

    def _try(self, task: Task, result: Result, on_invoke: Callable[[], None]) -> list[Any]:
        try:
            return self._invoke(task, result, on_invoke)
        except BaseException as error:  # a model that calls sys.exit must not end this thread unheard
            result.error = _task_error(error, loaded=result.started_at > 0)
            if result.error.kind == "memory":
                self.cache.ran_out(task.model)
            return []

    def _invoke(self, task: Task, result: Result, on_invoke: Callable[[], None]) -> list[Any]:
        count = len(task.inputs)
        missing = task.batch_size - count
        inputs = [_own(item) for item in task.inputs + task.inputs[-1:] * missing]
        seeds = task.seeds + task.seeds[-1:] * missing
        with self.cache.lease(task.model, task.batch_size, task.upcoming, bucket=task.bucket) as model:
            result.started_at = time.time()
            on_invoke()
            start = time.perf_counter()
            outputs = list(model.invoke(inputs, seeds))
            result.duration_s = time.perf_counter() - start
        if len(outputs) != task.batch_size:
            raise RuntimeError(
                f"{task.model} returned {len(outputs)} outputs for a batch of {task.batch_size} inputs"
            )
        return [_own(item) for item in outputs[:count]]

    def finish(self, task: Task, result: Result, raw: Sequence[Any]) -> Result:
        """Check and hash raw outputs; may run in another thread than `serve`."""
        if result.error is None:
            modality = self.settings.specs[task.model].modality_out
            reject_constant = self.settings.reject_constant_images
            try:
                result.outputs = [finish(item, modality, reject_constant) for item in raw]
            except Exception as error:
                result.error = _task_error(error, loaded=True)
        return result


def _own(item: Any) -> Any:
    """A picture or array that nobody else will change; 2 us at 64 px, 0.4 ms at 1024 px."""
    return item.copy() if isinstance(item, Image.Image | np.ndarray) else item


def _task_error(error: BaseException, *, loaded: bool) -> TaskError:
    if is_out_of_memory(error):
        kind = "memory"
    elif isinstance(error, ModelDoesNotFit):
        kind = "unfit"
    elif isinstance(error, ModelMissing):
        kind = "missing"
    elif not loaded:
        kind = "load"
    else:
        kind = "rejected" if isinstance(error, OutputRejected) else "error"
    message = error.message if isinstance(error, PanicError) else f"{type(error).__name__}: {error}"
    detail = "".join(traceback.format_exception(error))[-8000:]
    return TaskError(kind=kind, message=message, detail=detail, hint=getattr(error, "hint", ""))


class LocalExecutor:
    """Runs models in a thread of this process: for the CPU and the simulated device."""

    is_ready = True

    def __init__(
        self,
        settings: WorkerSettings,
        build: Callable[[ModelSpec], Model],
        deliver: Callable[[Result], None],
    ) -> None:
        self.device = settings.device
        self._deliver = deliver
        self._tasks: queue.SimpleQueue[Task | None] = queue.SimpleQueue()
        self._worker = Worker(settings, build)
        self._finisher = ThreadPoolExecutor(1, thread_name_prefix="finish")
        self._thread = threading.Thread(target=self._run, name="models", daemon=True)
        self._thread.start()

    def submit(self, task: Task) -> None:
        self._tasks.put(task)

    def check(self) -> None:
        """A thread cannot be killed: time limits need the process executor."""

    def close(self) -> None:
        self._tasks.put(None)
        self._thread.join()
        self._finisher.shutdown()

    def _run(self) -> None:
        while (task := self._tasks.get()) is not None:
            result, raw = self._worker.serve(task)
            self._finisher.submit(self._finish, task, result, raw)
        self._worker.close()

    def _finish(self, task: Task, result: Result, raw: list[Any]) -> None:
        self._deliver(self._worker.finish(task, result, raw))
