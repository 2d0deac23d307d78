"""Models in a child process: a crash, a poisoned CUDA context or a hang costs one batch, not the experiment.

The child serves calls with the same `CallServer` as the local worker. When it ends unexpectedly, the call it
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
from typing import Any

from panic.devices.device import is_poisoned
from panic.engine.calls import Call, CallError, CallResult, Outcome
from panic.engine.channel import Channel
from panic.engine.child import Child
from panic.engine.ledger import Clock, Span
from panic.engine.serving import CallServer, ServerSettings

log = logging.getLogger("panic.engine")

STARTING = "starting a process"
WAITING = "waiting for a call"
START_RETRIES = 1
"""How often a process may end before its first call of a model, for instance while loading."""


class ProcessWorker:
    """One child process for one device.

    Args:
        timeout_s: the longest a single model call may take (loading not counted), or None.
        ahead: start the process and load its models now, and be ready when that is done; otherwise the
            process starts with the first call.
    """

    def __init__(
        self,
        settings: ServerSettings,
        deliver: Callable[[CallResult | BaseException], None],
        *,
        timeout_s: float | None = None,
        ahead: bool = False,
    ) -> None:
        self.is_ready = not ahead
        self._deliver = deliver
        self._settings = settings
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._pending: OrderedDict[int, Call] = OrderedDict()
        self._invoking: tuple[int, float] | None = None
        self._begun: set[int] = set()  # calls whose model has been called and whose result has not come
        self._child: Child | None = None
        self._timed_out = False
        self._closing = False
        self._leaving = False
        self._failed_starts = 0
        self._clock = Clock(WAITING)  # for as long as there is no child, which has its own
        self._spawned_at = 0.0
        self._spans: list[Span] = []
        if ahead:
            with self._lock:
                self._start()

    @property
    def pid(self) -> int | None:
        """Process id of the child, None before the first call and after a crash."""
        child = self._child
        return child.pid if child else None

    def submit(self, call: Call) -> None:
        with self._lock:
            self._pending[call.number] = call
            child = self._child or self._start()
            child.send(call)

    def _start(self) -> Child:
        self._timed_out = False
        self._spans += self._clock.take()
        self._spawned_at = time.monotonic()
        arguments = (self._settings, not self.is_ready, self._spawned_at)
        self._child = Child(
            "panic.engine.process_worker:serve_connection",
            arguments,
            self._on_message,
            self._deliver,
            hidden=self._settings.hidden,
            files=self._settings.weights.fds if self._settings.weights else (),
        )
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

    def drain(self) -> None:
        """Do nothing: what waits here begins soon."""

    def close(self) -> list[Span]:
        with self._lock:
            self._closing = True
            child = self._child
        if child is None:
            return self._spans + self._clock.take()
        if not self.is_ready:
            child.kill()  # it would hear the request only after its imports
            self._spans.append(Span(STARTING, "", self._spawned_at, time.monotonic()))
        ending = Clock("ending a process")
        child.close()
        return self._spans + ending.take()

    def _on_message(self, message: Any) -> None:
        if message is None:
            self._child_ended()
        elif isinstance(message, CallResult):
            with self._lock:
                self._pending.pop(message.number)
                self._begun.discard(message.number)
            self._deliver(message)
        elif isinstance(message, list):
            with self._lock:
                self._spans += message
        else:
            word, number = message
            with self._lock:
                self.is_ready = True
                self._invoking = None
                if word == "invoking":
                    self._invoking = number, time.monotonic()
                    self._begun.add(number)
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
            kind = self._kind_of_end(is_idle=self.is_ready and not pending)
            began = [self._invoking[0]] if self._invoking else [n for n in pending if n in self._begun]
            guilty = next(iter([*began, *pending]), None)
            if self._invoking:  # what the child had not told yet
                self._spans.append(Span("lost with its process", "", self._invoking[1], time.monotonic()))
            self._child, self._invoking, self._leaving = None, None, False
            self._begun = set()
            self._clock = Clock(WAITING)
            if not self.is_ready:
                log.warning("a process that runs models did not start: %s", reason)
        for number in pending:
            own: Outcome = kind if number == guilty else "untried"
            message = f"the process that runs models ended: {reason}" if number == guilty else "not started"
            error = CallError(kind=own, message=message, is_end=number == guilty)
            self._deliver(CallResult(number=number, error=error))

    def _kind_of_end(self, *, is_idle: bool) -> Outcome:
        """What the end of the child means for the call it was at; that of an idle one is no failed start."""
        if self._leaving or is_idle:
            return "untried"
        if self._begun:
            return "crash"
        self._failed_starts += 1
        return "untried" if self._failed_starts <= START_RETRIES else "load"


def serve_connection(connection: Channel, settings: ServerSettings, ahead: bool, spawned_at: float) -> None:
    """The child's main loop: calls in, results out, until None or the end of the pipe.

    ahead: load the models before the first call, and tell when that is done. spawned_at: when the driver
    asked for this process.
    """
    clock = Clock(STARTING, since=spawned_at)
    from panic.models.registry import build

    server = CallServer(settings, build, clock)
    clock.switch("serving")
    lock = threading.Lock()
    calls: queue.SimpleQueue[Call | None] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(connection, calls), daemon=True).start()

    own = os.getpid()

    def send(message: Any) -> None:
        if os.getpid() != own:
            os._exit(0)  # a model has forked, and its copy came back: only one of them may answer
        with lock:
            connection.send(message)

    def deliver(call: Call, result: CallResult, raw: list[Any]) -> None:
        try:
            send(server.finish(call, result, raw))
        except BaseException as error:  # also what a model's object raises that is looked at
            text = f"its output cannot be sent: {type(error).__name__}: {error}"
            try:
                send(CallResult(number=call.number, error=CallError(kind="error", message=text)))
            except BaseException:
                os._exit(1)  # the driver learns of the end of a process, of that of a thread it would not

    if ahead:
        server.load_all()
        send(("ready", 0))
    with ThreadPoolExecutor(1) as finisher:
        while True:
            with clock.of(WAITING):
                call = calls.get()
            if call is None:
                break
            result, raw = server.serve(call, partial(send, ("invoking", call.number)))
            send(("invoked", call.number))
            finisher.submit(deliver, call, result, raw)
            if result.error is not None and is_poisoned(server.device):
                finisher.shutdown()
                send(("leaving", call.number))
                os._exit(1)
    clock.switch("closing")
    server.close()
    send(clock.take())


def _receive(connection: Channel, calls: queue.SimpleQueue[Call | None]) -> None:
    """Read calls while the device is busy, so that the next one's pixels are here when it is free."""
    call: Call | None = None
    while True:
        try:
            call = connection.recv()
        except (EOFError, OSError):  # a model may have closed what it does not know
            call = None
        except BaseException:
            log.exception("a call cannot be read")
            os._exit(1)
        calls.put(call)
        if call is None:
            return
