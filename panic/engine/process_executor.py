"""Models in a child process: a crash, a poisoned CUDA context or a hang costs one batch, not the experiment.

The child serves tasks with the same `Worker` as the local executor. When it ends unexpectedly, the task it
was working on fails as a crash, those behind it come back untried, and the next submit starts a new child.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

from panic.engine.child import Child
from panic.engine.executor import Result, Task, TaskError, Worker, WorkerSettings


class ProcessExecutor:
    """One child process for one device.

    Args:
        timeout_s: the longest a single model call may take (loading not counted), or None.
    """

    def __init__(
        self, settings: WorkerSettings, deliver: Callable[[Result], None], *, timeout_s: float | None = None
    ) -> None:
        self._deliver = deliver
        self._settings = settings
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._pending: OrderedDict[int, Task] = OrderedDict()
        self._invoking: tuple[int, float] | None = None
        self._child: Child | None = None
        self._timed_out = False
        self._closing = False

    @property
    def pid(self) -> int | None:
        """Process id of the child, None before the first task and after a crash."""
        child = self._child
        return child.pid if child else None

    def submit(self, task: Task) -> None:
        with self._lock:
            self._pending[task.number] = task
            if self._child is None:
                self._timed_out = False
                self._child = Child(
                    "panic.engine.process_executor:serve_connection", (self._settings,), self._on_message
                )
            self._child.send(task)

    def check(self) -> None:
        with self._lock:
            if (
                self._timeout_s is not None
                and self._invoking is not None
                and self._child is not None
                and time.monotonic() - self._invoking[1] > self._timeout_s
            ):
                self._timed_out = True
                self._child.kill()

    def close(self) -> None:
        with self._lock:
            self._closing = True
            child = self._child
        if child is not None:
            child.close()

    def _on_message(self, message: Any) -> None:
        if message is None:
            self._child_ended()
        elif isinstance(message, Result):
            with self._lock:
                self._pending.pop(message.number)
            self._deliver(message)
        else:
            with self._lock:
                self._invoking = (message[1], time.monotonic()) if message[0] == "invoking" else None

    def _child_ended(self) -> None:
        with self._lock:
            if self._closing:
                return
            assert self._child is not None
            reason = self._child.exit_reason()
            if self._timed_out:
                reason = f"no answer within {self._timeout_s:g} s"
            pending, self._pending = self._pending, OrderedDict()
            guilty = self._invoking[0] if self._invoking else next(iter(pending), None)
            self._child, self._invoking = None, None
        for number in pending:
            crashed = number == guilty
            message = f"the process that runs models ended: {reason}" if crashed else "not started"
            error = TaskError(kind="crash" if crashed else "untried", message=message)
            self._deliver(Result(number=number, error=error))


def serve_connection(connection: Connection[Any, Any], settings: WorkerSettings) -> None:
    """The child's main loop: tasks in, results out, until None or the end of the pipe."""
    from panic.models.registry import build

    worker = Worker(settings, build)
    lock = threading.Lock()

    def send(message: Any) -> None:
        with lock:
            connection.send(message)

    def deliver(task: Task, result: Result, raw: list[Any]) -> None:
        send(worker.finish(task, result, raw))

    with ThreadPoolExecutor(1) as finisher:
        while True:
            try:
                task = connection.recv()
            except EOFError:
                break
            if task is None:
                break
            result, raw = worker.serve(task, partial(send, ("invoking", task.number)))
            send(("invoked", task.number))
            finisher.submit(deliver, task, result, raw)
    worker.close()
