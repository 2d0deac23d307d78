"""Models in a child process: a crash, a poisoned CUDA context or a hang costs one batch, not the experiment.

The child serves tasks with the same `Worker` as the local executor. When it ends unexpectedly, the task it
was working on fails as a crash, those behind it come back untried, and the next submit starts a new child.
A child whose CUDA context no longer answers after an error leaves by itself.
"""

from __future__ import annotations

import logging
import os
import queue
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

from panic.devices.device import is_poisoned
from panic.engine.child import Child
from panic.engine.executor import Result, Task, TaskError, Worker, WorkerSettings

log = logging.getLogger("panic.engine")

START_RETRIES = 1
"""How often a process may end before its first call of a model, for instance while loading."""


class ProcessExecutor:
    """One child process for one device.

    Args:
        timeout_s: the longest a single model call may take (loading not counted), or None.
        ahead: start the process and load its models now, and be ready when that is done; otherwise the
            process starts with the first task.
    """

    def __init__(
        self,
        settings: WorkerSettings,
        deliver: Callable[[Result], None],
        *,
        timeout_s: float | None = None,
        ahead: bool = False,
    ) -> None:
        self.device = settings.device
        self.is_ready = not ahead
        self._deliver = deliver
        self._settings = settings
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._pending: OrderedDict[int, Task] = OrderedDict()
        self._invoking: tuple[int, float] | None = None
        self._child: Child | None = None
        self._timed_out = False
        self._closing = False
        self._leaving = False
        self._failed_starts = 0
        if ahead:
            with self._lock:
                self._start()

    @property
    def pid(self) -> int | None:
        """Process id of the child, None before the first task and after a crash."""
        child = self._child
        return child.pid if child else None

    def submit(self, task: Task) -> None:
        with self._lock:
            self._pending[task.number] = task
            child = self._child or self._start()
            child.send(task)

    def _start(self) -> Child:
        self._timed_out = False
        arguments = (self._settings, not self.is_ready)
        self._child = Child("panic.engine.process_executor:serve_connection", arguments, self._on_message)
        return self._child

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
            if not self.is_ready:
                child.kill()  # it would hear the request only after its imports
            child.close()

    def _on_message(self, message: Any) -> None:
        if message is None:
            self._child_ended()
        elif isinstance(message, Result):
            with self._lock:
                self._pending.pop(message.number)
            self._deliver(message)
        else:
            word, number = message
            with self._lock:
                self.is_ready = True
                self._invoking = (number, time.monotonic()) if word == "invoking" else None
                self._leaving = word == "leaving"
                self._failed_starts = 0

    def _child_ended(self) -> None:
        with self._lock:
            if self._closing:
                return
            assert self._child is not None
            reason = self._child.exit_reason()
            if self._timed_out:
                reason = f"no answer within {self._timeout_s:g} s"
            pending, self._pending = self._pending, OrderedDict()
            kind = self._kind_of_end()
            guilty = self._invoking[0] if self._invoking else next(iter(pending), None)
            self._child, self._invoking, self._leaving = None, None, False
            if not self.is_ready:
                log.warning("a process that runs models did not start: %s", reason)
        for number in pending:
            own = kind if number == guilty else "untried"
            message = f"the process that runs models ended: {reason}" if own != "untried" else "not started"
            self._deliver(Result(number=number, error=TaskError(kind=own, message=message)))

    def _kind_of_end(self) -> str:
        """What the end of the child means for the task it was at."""
        if self._invoking:
            return "crash"
        if self._leaving:
            return "untried"
        self._failed_starts += 1
        return "untried" if self._failed_starts <= START_RETRIES else "load"


def serve_connection(connection: Connection[Any, Any], settings: WorkerSettings, ahead: bool) -> None:
    """The child's main loop: tasks in, results out, until None or the end of the pipe.

    ahead: load the models before the first task, and tell when that is done.
    """
    from panic.models.registry import build

    worker = Worker(settings, build)
    lock = threading.Lock()
    tasks: queue.SimpleQueue[Task | None] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(connection, tasks), daemon=True).start()

    def send(message: Any) -> None:
        with lock:
            connection.send(message)

    def deliver(task: Task, result: Result, raw: list[Any]) -> None:
        try:
            send(worker.finish(task, result, raw))
        except Exception as error:
            text = f"its output cannot be sent: {type(error).__name__}: {error}"
            send(Result(number=task.number, error=TaskError(kind="error", message=text)))

    if ahead:
        worker.load_all()
        send(("ready", 0))
    with ThreadPoolExecutor(1) as finisher:
        while (task := tasks.get()) is not None:
            result, raw = worker.serve(task, partial(send, ("invoking", task.number)))
            send(("invoked", task.number))
            finisher.submit(deliver, task, result, raw)
            if result.error is not None and is_poisoned(worker.device):
                finisher.shutdown()
                send(("leaving", task.number))
                os._exit(1)
    worker.close()


def _receive(connection: Connection[Any, Any], tasks: queue.SimpleQueue[Task | None]) -> None:
    """Read tasks while the device is busy, so that the next one's pixels are here when it is free."""
    task: Task | None = None
    while True:
        try:
            task = connection.recv()
        except EOFError:
            task = None
        tasks.put(task)
        if task is None:
            return
