"""A worker that is an actor of a Ray cluster: the driver's side of one `Place`.

The actor starts when the cluster has room for it, and is asked where it is; the node is checked, its models
are loaded, and then the worker is ready. When the actor is lost, the call that it was at has failed and those
behind it are untried; where its node is lost, all of them are. A new actor takes over when there is room, on
whatever node, also on one that has come later. Calls that wait for an actor are given back as soon as another
worker is ready.

Which thread owns what: `submit`, `check`, `drain` and `close` are called by the driver's thread, everything
that begins with `_on` by the cluster's; the lock guards what both touch.
"""

from __future__ import annotations

import logging
import pickle
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol

from panic.engine.calls import Call, CallError, CallResult, Outcome
from panic.engine.contents import Output, RemoteImage
from panic.engine.ledger import Span
from panic.engine.serving import ServerSettings
from panic.models.protocol import Modality

log = logging.getLogger("panic.engine")

WAITING = "waiting for room"
START_RETRIES = 1
"""How often an actor may end while it starts, before its worker gives up."""
END_S = 2.0
"""How long an actor may take to say what it did since its last result."""
DEVICE = re.compile(r".* on (.+), node [0-9a-f]{8}, worker \d+")
"""What results say of the device that they come from; its host."""
LOST_PIXELS = "pixels were lost with their node"


def host_of(device: str) -> str | None:
    """Return the host of a worker, as results name their device; None where it is none of a cluster's."""
    found = DEVICE.fullmatch(device)
    return found[1] if found else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What the workers of a session are for."""

    settings: ServerSettings
    deliver: Callable[[CallResult | BaseException], None]
    timeout_s: float | None = None


@dataclass(slots=True)
class Actor:
    """An actor that was asked for. node: where it is, once that is known. offset_s: what has to be added to
    the times of its node. asked: whether it is being asked how long its call takes."""

    handle: Any
    since: float = field(default_factory=time.monotonic)
    node: str = ""
    host: str = ""
    offset_s: float = 0.0
    is_checked: bool = False
    asked: bool = False
    timed_out: bool = False


class Cluster(Protocol):
    """What a worker asks of its cluster; each of it is described at `panic.engine.ray_cluster.RayCluster`."""

    device_name: str
    reason: str

    @property
    def is_any_ready(self) -> bool: ...

    @property
    def hopeless(self) -> str: ...

    def new_actor(self) -> Any: ...

    def ask(self, reference: Any, then: Callable[[Any, BaseException | None], None]) -> None: ...

    def tell_of_waiting(self) -> None: ...

    def accepts(self, found: Mapping[str, Any]) -> bool: ...

    def require(self, worker: RayWorker, actor: Actor) -> None: ...

    def refuse(self, node: str, reason: str) -> None: ...

    def num_workers_at(self, node: str) -> int: ...

    def is_alive(self, node: str) -> bool: ...

    def is_actor_lost(self, error: BaseException) -> bool: ...

    def is_object_lost(self, error: BaseException) -> bool: ...

    def is_nobodys_fault(self, error: BaseException, node: str) -> bool: ...

    def last_words(self, handle: Any, timeout_s: float) -> Any: ...

    def kill(self, handle: Any) -> None: ...


class RayWorker:
    """One of a cluster's workers, by its number; `begin` says what it is for."""

    def __init__(self, cluster: Cluster, number: int) -> None:
        self.is_ready = False
        self.is_given_up = False
        self._cluster = cluster
        self._number = number
        self._work: Work | None = None
        self._lock = threading.RLock()
        self._pending: OrderedDict[int, Call] = OrderedDict()
        self._actor: Actor | None = None
        self._failed_starts = 0
        self._spans: list[Span] = []
        self._told_until = 0.0
        self._closing = False
        self.sent_bytes = self.received_bytes = 0

    def start(self) -> None:
        """Ask for an actor, on a node that has not been refused."""
        with self._lock:
            if self._closing:
                return
            actor = self._actor = Actor(self._cluster.new_actor())
        asked = actor.handle.describe.remote(self._cluster.device_name)
        self._cluster.ask(asked, partial(self._on_described, actor))

    def begin(self, work: Work) -> None:
        """Serve calls with these settings, as soon as there is an actor whose node can be trusted."""
        with self._lock:
            self._work = work
            self._told_until = time.monotonic()
            actor = self._actor
        if actor is not None:
            self._require(actor)

    def submit(self, call: Call) -> None:
        with self._lock:
            self._pending[call.number] = call
            if self.is_ready:
                self._send(call)

    def check(self) -> None:
        """Give back what waits for an actor while others could do it; ask for what takes too long."""
        with self._lock:
            actor, has_calls = self._actor, bool(self._pending)
            waits = has_calls and not self.is_ready
        if waits:
            self._cluster.tell_of_waiting()
        if waits and (reason := self._cluster.hopeless):
            self._give_back("load", reason)
        elif waits and self._cluster.is_any_ready:
            self._give_back("untried", "")
        if actor is None or not has_calls or self._work is None or self._work.timeout_s is None:
            return
        if self.is_ready and not actor.asked:
            actor.asked = True
            self._cluster.ask(actor.handle.invoking.remote(), partial(self._on_invoking, actor))

    def drain(self) -> None:
        """Give back what no actor has."""
        if not self.is_ready:
            self._give_back("untried", "")

    def _give_back(self, kind: Outcome, reason: str) -> None:
        with self._lock:
            pending, self._pending = self._pending, OrderedDict()
        for number in pending:
            self._fail(number, CallError(kind=kind, message=reason))

    def close(self) -> list[Span]:
        with self._lock:
            self._closing = True
            actor, was_ready = self._actor, self.is_ready
            self.is_ready, self._actor = False, None
            self._pending.clear()
            if not was_ready:
                self._pass(WAITING)
        if actor is not None:
            if was_ready:
                self._take(actor, self._cluster.last_words(actor.handle, END_S))
            self._cluster.kill(actor.handle)
        return self._spans

    # Starting

    def _on_described(self, actor: Actor, found: Any, error: BaseException | None) -> None:
        if actor is not self._actor:
            return
        if error is not None:
            self.on_failed_start(actor, error)
            return
        if self._cluster.accepts(found):
            actor.node, actor.host = found["node"], found["host"]
            self._require(actor)
        else:
            self._replace(actor)

    def _require(self, actor: Actor) -> None:
        """Have its node's weights checked, once there is a node and it is known which weights."""
        with self._lock:
            if not actor.node or self._work is None or actor.is_checked:
                return
            actor.is_checked = True
        self._cluster.require(self, actor)

    def on_checked(self, actor: Actor, is_good: bool) -> None:
        """Take that its node's weights have been looked at: load models there, or look for another node."""
        work = self._work
        if actor is not self._actor or work is None:
            return
        if not is_good:
            self._replace(actor)
            return
        num_workers = self._cluster.num_workers_at(actor.node)
        settings = replace(
            work.settings, memory=replace(work.settings.memory, num_workers=num_workers, events=None)
        )
        begun = actor.handle.begin.remote(pickle.dumps(settings))
        self._cluster.ask(begun, partial(self._on_begun, actor))

    def _on_begun(self, actor: Actor, data: Any, error: BaseException | None) -> None:
        if actor is not self._actor:
            return
        if error is not None:
            self.on_failed_start(actor, error)
            return
        spans, there = pickle.loads(data)
        actor.offset_s = time.monotonic() - there
        if abs(actor.offset_s) < 1.0:  # the same machine, whose processes share a clock
            actor.offset_s = 0.0
        with self._lock:
            self._pass(WAITING, spans[0].start + actor.offset_s)
            self._take(actor, spans)
            self.is_ready, self._failed_starts = True, 0
            log.info("worker %d is on %s, node %s", self._number, actor.host, actor.node[:8])
            for call in list(self._pending.values()):
                self._send(call)

    def on_failed_start(self, actor: Actor, error: BaseException) -> None:
        """An actor has ended, or raised something, before it was ready: try another one, or give up."""
        if actor is not self._actor:
            return
        if actor.node and not self._cluster.is_actor_lost(error):
            self._cluster.refuse(actor.node, first_line(error))
        elif not actor.node or self._cluster.is_alive(actor.node):
            self._failed_starts += 1
            log.warning("a process that runs models did not start: %s", first_line(error))
        if self._failed_starts <= START_RETRIES:
            self._replace(actor)
            return
        self.is_given_up = True
        with self._lock:
            self._actor = None
        self._cluster.kill(actor.handle)
        self._cluster.reason = f"the process that runs models ended: {first_line(error)}"

    def _replace(self, actor: Actor) -> None:
        with self._lock:
            if actor is not self._actor:
                return
            self._pass("lost with its process" if self.is_ready else WAITING)
            self.is_ready, self._actor = False, None
        self._cluster.kill(actor.handle)
        self.start()

    # Calls

    def _send(self, call: Call) -> None:
        actor, work = self._actor, self._work
        assert actor is not None
        assert work is not None
        pixels: list[Any] = []
        inputs = [_wired(item, pixels) for item in call.inputs]
        if any(isinstance(one, RemoteImage) and one.pixels is None and not one.encoded for one in inputs):
            del self._pending[call.number]  # the store has it
            self._fail(call.number, CallError(kind="untried", message=LOST_PIXELS))
            return
        makes_images = work.settings.specs[call.model].modality_out is Modality.IMAGE
        num_pixels = len(inputs) if makes_images else 0
        data = pickle.dumps(replace(call, inputs=inputs))
        self.sent_bytes += len(data)
        serve = actor.handle.serve.options(num_returns=1 + num_pixels)
        answer = serve.remote(data, num_pixels, *pixels)
        first, arrays = (answer[0], answer[1:]) if num_pixels else (answer, [])
        self._cluster.ask(first, partial(self._on_answer, actor, call.number, arrays))

    def _on_answer(
        self, actor: Actor, number: int, arrays: list[Any], data: Any, error: BaseException | None
    ) -> None:
        with self._lock:
            if actor is not self._actor or number not in self._pending:
                return
            if error is None:
                call = self._pending.pop(number)
        if error is not None:
            self._on_error(actor, number, error)
            return
        self.received_bytes += len(data)
        try:
            result, is_leaving = _read_answer(data, call, arrays)
        except Exception as damage:  # bytes of another machine: whatever unpickling them raises
            self._fail(number, CallError(kind="error", message=f"its answer cannot be read: {damage!r:.200}"))
            return
        result.device = f"{result.device} on {actor.host}, node {actor.node[:8]}, worker {self._number}"
        with self._lock:
            self._take(actor, result.spans)
            result.spans, self._spans = self._spans, []
        self._deliver(result)
        if is_leaving:
            self._lose(actor, "untried", "its GPU's context was lost")

    def _on_error(self, actor: Actor, number: int, error: BaseException) -> None:
        if self._cluster.is_actor_lost(error):
            if actor.timed_out:
                self._lose(actor, "crash", f"no answer within {self._timeout_s:g} s")
            else:
                is_nobodys = self._cluster.is_nobodys_fault(error, actor.node)
                self._lose(actor, "untried" if is_nobodys else "crash", first_line(error))
            return
        with self._lock:
            call = self._pending.pop(number)
        if self._cluster.is_object_lost(error):
            for item in call.inputs:
                if isinstance(item, RemoteImage):
                    item.pixels = None  # it is read from the store
            self._fail(number, CallError(kind="untried", message=LOST_PIXELS))
        else:
            text = f"its output cannot be sent: {first_line(error)}"
            self._fail(number, CallError(kind="error", message=text))

    def _on_invoking(self, actor: Actor, found: Any, error: BaseException | None) -> None:
        actor.asked = False
        if error is not None or found is None or actor is not self._actor:
            return
        number, seconds = found
        if seconds > self._timeout_s and number in self._pending:
            with self._lock:
                self._pending.move_to_end(number, last=False)
            actor.timed_out = True
            self._cluster.kill(actor.handle)

    @property
    def _timeout_s(self) -> float:
        return (self._work.timeout_s if self._work else None) or float("inf")

    def _lose(self, actor: Actor, kind: Outcome, reason: str) -> None:
        """Let the first call that an actor had fail, and those behind it be handed out again."""
        with self._lock:
            if actor is not self._actor:
                return
            pending, self._pending = self._pending, OrderedDict()
        self._replace(actor)
        guilty = next(iter(pending), None)
        for number in pending:
            own: Outcome = kind if number == guilty else "untried"
            message = f"the process that runs models ended: {reason}" if own == kind else "not started"
            self._fail(number, CallError(kind=own, message=message, is_end=number == guilty))

    def _fail(self, number: int, error: CallError) -> None:
        self._deliver(CallResult(number=number, error=error))

    def _deliver(self, result: CallResult) -> None:
        assert self._work is not None
        self._work.deliver(result)

    # Its time

    def _take(self, actor: Actor, spans: list[Span]) -> None:
        """Add the spans of an actor, on this machine's clock, from where nothing has been told yet."""
        for span in spans:
            start, end = (max(self._told_until, at + actor.offset_s) for at in (span.start, span.end))
            if end > start:
                self._spans.append(span._replace(start=start, end=end))
                self._told_until = end

    def _pass(self, name: str, until: float | None = None) -> None:
        """Give the time since what was told last, up to now or to some time, a name."""
        end = time.monotonic() if until is None else until
        if self._work is not None and end > self._told_until:
            self._spans.append(Span(name, "", self._told_until, end))
            self._told_until = end


def _wired(item: Any, pixels: list[Any]) -> Any:
    """An input as it is sent: of an image in the cluster, its place among the pixels that come along."""
    if not isinstance(item, RemoteImage):
        return item
    reference, encoded = item.pixels, item.encoded
    if reference is None:
        return RemoteImage(size=item.size, encoded=encoded)
    pixels.append(reference)
    return RemoteImage(size=item.size, pixels=len(pixels) - 1)


def _read_answer(data: bytes, call: Call, arrays: Sequence[Any]) -> tuple[CallResult, bool]:
    """The result of a call, and whether its process has to end; images with what finds their pixels.

    Raises whatever reading damaged bytes raises, ValueError for the result of another call.
    """
    result, is_leaving = pickle.loads(data)
    if result.number != call.number:
        raise ValueError("it is that of another call")
    for output in result.outputs:
        if isinstance(output, Output) and isinstance(output.value, RemoteImage):
            place = output.value.pixels
            output.value.pixels = None if place is None else arrays[place]
    return result, bool(is_leaving)


def first_line(error: BaseException) -> str:
    """What an error says, without the trace of another process."""
    cause = getattr(error, "cause", None)
    text = f"{type(cause).__name__}: {cause}" if isinstance(cause, BaseException) else str(error)
    return next((line.strip() for line in text.splitlines() if line.strip()), type(error).__name__)[:300]
