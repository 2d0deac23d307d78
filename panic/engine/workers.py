"""The workers of an experiment, behind one inbox; and how many there are.

`Workers` is the only place with an inbox: the driver, the calibration and the diagram pool's answers all go
through it. A call of a small model on all cores spends its time waiting between short kernels; several
workers with one thread each, serving different batches, do not. One thread also rounds alike at every place
of a batch, more of them do not (LOG.md has the figures). The first worker of a CPU is a thread of this
process and begins at once; the others are processes, which load the same models meanwhile and join when
they are ready. Results do not depend on how many there are: shapes and threads per worker are pinned.

    with closing(Workers(start)) as workers:
        number = workers.submit(Call(model="blip", ...), workers.seats[0])
        result = workers.next(timeout_s=0.2)
"""

from __future__ import annotations

import logging
import queue
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from PIL.Image import Image

from panic.config import ExperimentConfig
from panic.devices.device import Device, DeviceGroup, members, open_devices
from panic.devices.shared import WORTH_SHARING, SharedWeights, share_weights
from panic.devices.transfers import format_bytes
from panic.engine.calls import Call, CallError, CallResult, Worker
from panic.engine.ledger import Ledger, Span
from panic.engine.memory import MemorySettings
from panic.engine.pinning import Shape, num_cores
from panic.engine.plan import Plan, small_bytes, weight_bytes
from panic.engine.pool import JobResult
from panic.engine.process_worker import WAITING, ProcessWorker
from panic.engine.serving import LocalWorker, ServerSettings
from panic.errors import UsageError
from panic.models import registry
from panic.store.codec import image_digest

if TYPE_CHECKING:
    from panic.engine.placing import Placing

log = logging.getLogger("panic.engine")

DEPTH = 2
"""Calls at a worker: one computing, one ready behind it."""
MOST = 8
"""Workers that start by themselves: beyond, the driver would have to be measured first."""
PROCESS_BYTES = 500 * 2**20
"""Memory of a process besides its models: the interpreter, torch, diffusers and transformers take 443 MB."""
MOST_ENDS = 3
"""So often in a row may one of several devices lose its process at calls of a model before it is left out."""
LEFT_OUT = "left out"
"""What the time of such a device is called in the ledger."""
WORTH_STARTING = 200
"""Missing invocations per worker; to start a process takes as long as some hundred calls of a tiny model."""

Message = CallResult | JobResult | BaseException
"""An exception has ended a thread that others wait for: whoever asks for messages gets it raised."""
Deliver = Callable[[Message], None]


@dataclass(slots=True)
class Seat:
    """A worker as the driver sees it, and what it was last known to hold.

    resident: models on its device. num_calls: calls that it has. model: of the call it was given last.
    upcoming: models that were foreseen to follow that one. place: its name where time is told. remote: the
    one model that it has, behind an endpoint; "" for a seat that has all others. depth: calls that it takes
    at the same time. unstored: of an endpoint, the numbers of the commits that its last results are in, as
    long as they are not stored: such a result still takes a place, so that no more is lost by a kill, and
    paid for again, than there are places.

    device: which of several devices it has, else "". ends: how often its process has ended at calls of a
    model since such a call last gave a result, by model. ended_at: the model at which its process has just
    ended; another device should get what it had. is_left_out: its device gets nothing more.
    """

    worker: Worker
    place: str
    remote: str = ""
    depth: int = DEPTH
    resident: frozenset[str] = frozenset()
    num_calls: int = 0
    model: str = ""
    upcoming: tuple[str, ...] = ()
    unstored: deque[int] = field(default_factory=deque)
    device: str = ""
    ends: Counter[str] = field(default_factory=Counter)
    ended_at: str = ""
    is_left_out: bool = False

    @property
    def num_ends(self) -> int:
        """How often in a row its process has ended at calls of one model."""
        return max(self.ends.values(), default=0)

    @property
    def has_room(self) -> bool:
        return not self.is_left_out and self.num_calls + len(self.unstored) < self.depth


class Workers:
    """All workers of an experiment. Used by the driver's thread; only `post` may be called from others.

    Args:
        start: makes the workers, given where they deliver their results.
        ledger: told what the workers spend their time on.
        placing: which of several devices serves which model, one device for each worker; None for one device,
            and where all serve all.
        devices: of each worker, where there are several and no placing.
    """

    def __init__(
        self,
        start: Callable[[Deliver], Sequence[Worker]],
        ledger: Ledger | None = None,
        placing: Placing | None = None,
        devices: Sequence[str] = (),
    ) -> None:
        self._ledger = ledger or Ledger()
        self._placing = placing
        self._inbox: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        self._calls: dict[int, tuple[Seat, Call]] = {}
        self._ended_on: dict[tuple[str, int, str | bytes], set[str]] = defaultdict(set)
        self._last_number = 0
        self._remote: frozenset[str] = frozenset()
        self.seats: list[Seat] = []
        before = Span("starting", "", self._ledger.started_at, time.monotonic())
        devices = devices or (list(placing.devices) if placing is not None else [])
        for number, one in enumerate(start(self.post), start=1):
            device = devices[number - 1] if devices else ""
            place = f"worker {number} on {device}" if device else f"worker {number}"
            self._seat(Seat(one, place, device=device), before)

    def _seat(self, seat: Seat, before: Span) -> None:
        self.seats.append(seat)
        self._ledger.add(seat.place, [before])

    def add_endpoint(self, worker: Worker, model: str, places: int) -> None:
        """Take in a worker that has one model, which no other worker has, and several calls at a time."""
        before = Span("starting", "", self._ledger.started_at, time.monotonic())
        place = f"endpoint {len(self._remote) + 1}"
        self._seat(Seat(worker, place, remote=model, depth=places, resident=frozenset({model})), before)
        self._remote |= {model}

    def serves(self, seat: Seat, model: str) -> bool:
        """Whether calls of a model may be given to a seat."""
        if seat.remote or model in self._remote:
            return model == seat.remote
        return self._placing is None or self._placing.serves(seat.device, model)

    def is_trusted(self, seat: Seat, model: str) -> bool:
        """Whether a call that may be its item's last attempt may be given to a seat.

        Not where a process has ended at such calls, as long as there is another device.
        """
        if not self.serves(seat, model):
            return False
        others = (other for other in self.seats if other is not seat and self.serves(other, model))
        return not seat.num_ends or all(other.num_ends for other in others)

    @property
    def num_calls(self) -> int:
        """Calls that have been submitted and not come back."""
        return len(self._calls)

    @property
    def resident(self) -> frozenset[str]:
        """Models on any device."""
        return frozenset().union(*(seat.resident for seat in self.seats))

    def open_seats(self) -> list[Seat]:
        """Workers that can take a call, idle ones first; those that still start only if all of them do.

        Endpoints are always there, and stand in for none of them. Those whose process has ended come last,
        and not before another device has given a result: what they had should not meet the same end there.
        """
        here = [seat for seat in self.seats if not seat.remote]
        started = [seat for seat in here if seat.worker.is_ready] or here
        endpoints = (seat for seat in self.seats if seat.remote)
        open_now = (seat for seat in (*started, *endpoints) if seat.has_room and not self._is_resting(seat))
        return sorted(open_now, key=lambda seat: (seat.num_ends, seat.num_calls))

    def _is_resting(self, seat: Seat) -> bool:
        """Whether its process has just ended, and a device that serves the same model is at work."""
        if not seat.ended_at:
            return False
        others = (other for other in self.seats if other.device and not other.ended_at and other.num_calls)
        return any(self.serves(other, seat.ended_at) for other in others)

    def submit(self, call: Call, seat: Seat) -> int:
        """Give a worker a call; returns the number that its result will bear."""
        self._last_number += 1
        call.number = self._last_number
        self._calls[call.number] = (seat, call)
        seat.num_calls += 1
        seat.resident |= {call.model}
        seat.worker.submit(call)
        return call.number

    def post(self, message: Message) -> None:
        """Put a message into the inbox; from any thread."""
        self._inbox.put(message)

    def wake(self) -> None:
        """Let `next` return at once, without a message; from any thread."""
        self._inbox.put(None)

    def stored(self, committed: int) -> None:
        """All commits up to this number are stored: the places of their results are free again."""
        for seat in self.seats:
            while seat.unstored and seat.unstored[0] <= committed:
                seat.unstored.popleft()

    def drain(self) -> None:
        """Let nothing begin that waits for its turn."""
        for seat in self.seats:
            seat.worker.drain()

    def next(self, timeout_s: float) -> CallResult | JobResult | None:
        """The next message, or None if there is none for so long. Raises what has ended a worker's thread."""
        try:
            message = self._inbox.get(timeout=timeout_s)
        except queue.Empty:
            return None
        if isinstance(message, BaseException):
            raise message
        if isinstance(message, CallResult):
            seat, call = self._calls.pop(message.number)
            seat.num_calls -= 1
            if seat.device:
                self._observe(seat, call, message)
            self._ledger.add(seat.place, message.spans)
            if not seat.remote:
                seat.resident = message.resident if message.error is None else frozenset()
        return message

    def _observe(self, seat: Seat, call: Call, result: CallResult) -> None:
        """Learn from a result how long a model takes, or that the process of one of several devices ended."""
        error, model = result.error, call.model
        if error is None:
            if self._placing is not None:
                self._placing.measured(model, result.duration_s, len(result.outputs))
            del seat.ends[model]
            for other in self.seats:
                other.ended_at = ""
        elif error.is_end:
            if error.kind == "crash" and self._is_fault_of_item(seat, call):
                for other in self.seats:
                    del other.ends[model]
            else:
                seat.ends[model] += 1
            seat.ended_at = model
            if not any(o.device and o is not seat and not o.is_left_out for o in self.seats):
                return
            if error.kind == "load":  # where others are left, no such end is that of the experiment
                result.error = replace(error, kind="untried")
            if seat.num_ends >= MOST_ENDS and not seat.is_left_out:
                self._leave_out(seat, error)

    def _is_fault_of_item(self, seat: Seat, call: Call) -> bool:
        """Whether a call that ended a process had one item, which has ended another device's, too."""
        for item, seed in zip(call.inputs, call.seeds, strict=True):
            key = call.model, seed, image_digest(item) if isinstance(item, Image) else str(item)
            self._ended_on[key].add(seat.device)
        return len(call.inputs) == 1 and len(self._ended_on[key]) > 1

    def _leave_out(self, seat: Seat, error: CallError) -> None:
        """Give a device nothing more."""
        seat.is_left_out = True
        told = "the others go on"
        if self._placing is not None:
            self._placing.leave_out(seat.device)
            told = self._placing.described()
        log.warning(
            "%s is left out from here on, its process has ended %d times in a row: %s; %s",
            *(seat.device, seat.num_ends, error.message, told),
        )

    def check(self) -> None:
        """End calls that have exceeded their time limit."""
        for seat in self.seats:
            seat.worker.check()

    def close(self) -> None:
        """Stop all workers, also where one of them raises; what has not come back may be lost."""
        with ExitStack() as stack:
            for seat in reversed(self.seats):
                stack.callback(self._close, seat)

    def _close(self, seat: Seat) -> None:
        spans = seat.worker.close()
        if seat.is_left_out:
            spans = [span._replace(name=LEFT_OUT) if span.name == WAITING else span for span in spans]
        self._ledger.add(seat.place, spans)


def open_places(config: ExperimentConfig, stack: ExitStack) -> Device:
    """The device or devices that a config names; those of a Ray cluster are given back with the stack.

    Raises UsageError for what is not there.
    """
    if config.executor == "ray":
        from panic.engine.ray_connection import open_cluster  # brings Ray

        return stack.enter_context(open_cluster(config))
    return open_devices(config.device)


def refuse_impossible(config: ExperimentConfig, device: Device) -> None:
    """Raise UsageError for settings that contradict each other or leave no memory of the device."""
    room = device.total_bytes() * config.memory_fraction - config.headroom
    if device.has_own_memory and room <= 0:
        raise UsageError(
            f"{device.name} has {format_bytes(device.total_bytes())}, of which memory_fraction and headroom"
            f" ({config.memory_fraction:g} and {format_bytes(config.headroom)}) leave nothing",
            hint="A smaller headroom, for example headroom: 0, or a larger device.",
        )
    if isinstance(device, DeviceGroup):
        _refuse_several(config, device)
    if config.executor != "local":
        return
    if config.timeout_s is not None:
        raise UsageError("timeout_s needs a process that can be ended", hint="executor: process, or auto")
    if config.workers is not None and config.workers > 1:
        raise UsageError("more than one worker needs processes", hint="executor: process, or auto")


def _refuse_several(config: ExperimentConfig, group: DeviceGroup) -> None:
    if config.devices == "same" and group.is_mixed:
        told = ", ".join(f"{one.name} {one.kind}, {format_bytes(one.total_bytes())}" for one in group.devices)
        raise UsageError(
            f"devices: same, and these are not: {told}",
            hint="Name devices of one model, or devices: any, which pins shapes to what the smallest can do.",
        )
    if config.executor == "local":
        raise UsageError("several devices need a process each", hint="executor: process, or auto")
    if config.workers not in (None, len(group.devices)):
        raise UsageError(
            f"workers is {config.workers}, and each of {len(group.devices)} devices has one process",
            hint="Leave workers out.",
        )


def count_workers(
    plan: Plan, shapes: Mapping[str, Shape], device: Device, num_runs: int, num_missing: int
) -> int:
    """The config's number of workers, or as many as small models on a CPU can keep busy.

    Each has a batch to serve, its threads a core each, and room for the models of its own.

    Args:
        num_runs: runs that have not ended.
        num_missing: invocations that are missing if no run gets stuck.
    """
    config = plan.config
    if isinstance(device, DeviceGroup):
        return len(device.devices)
    if config.executor == "ray":
        return 1  # the cluster knows
    if config.workers is not None:
        return config.workers
    weights_bytes = small_bytes(plan, device.kind)
    if weights_bytes is None or config.executor == "local":
        return 1
    smallest_batch = min(shapes[name].batch_size for name in plan.generative)
    room = int((device.free_bytes() - config.headroom) * config.memory_fraction)
    limits = (
        num_cores() // _threads(shapes),
        -(-num_runs // smallest_batch),
        num_missing // WORTH_STARTING,
        room // (PROCESS_BYTES + weights_bytes),
        MOST,
    )
    return max(1, min(limits))


def start_workers(
    plan: Plan,
    shapes: Mapping[str, Shape],
    device: Device,
    num_workers: int,
    memory: MemorySettings,
    fingerprints: Mapping[str, str],
    deliver: Deliver,
) -> list[Worker]:
    """So many workers for the models that are called here; none where all are behind endpoints.

    Results are stored under the session's `fingerprints`: a model that has another one is not called.
    They are in this process for the CPU; in a child for a GPU, for a time limit, for models in Python files
    of the user's, which may end their process, and for every worker but the first.
    """
    config, specs = plan.config, plan.local
    if not specs:
        return []
    threads = _threads({name: shapes[name] for name in specs})
    settings = ServerSettings(
        device=device.name,
        specs=specs,
        threads=threads,
        headroom_bytes=config.headroom,
        memory_fraction=config.memory_fraction,
        reject_constant_images=config.reject_constant_images,
        memory=replace(memory, num_workers=num_workers),
        hidden=tuple(plan.secrets),
        fingerprints={name: fingerprints[name] for name in specs},
        digests=registry.known_digests(),
    )
    if config.executor == "ray":
        from panic.engine.ray_connection import RayDevice

        assert isinstance(device, RayDevice)
        return device.start(settings, deliver, config.timeout_s)
    if num_workers > 1:
        settings = replace(settings, weights=_shared_weights(plan, num_workers))
    if isinstance(device, DeviceGroup):
        log.info("a process on each of %s", device.name)
        of_each = [replace(settings, device=one.name) for one in members(device)]
        return [ProcessWorker(one, deliver, timeout_s=config.timeout_s) for one in of_each]
    if num_workers > 1:
        log.info("%d workers on %s, threads of each: %d", num_workers, device.name, threads)
        if device.kind == "cpu" and num_workers * threads > num_cores():
            log.warning("%d workers with %d threads each share %d cores", num_workers, threads, num_cores())
        if device.kind == "sim":  # a budget of bytes is divided; of a real device all ask what is free
            settings = replace(settings, device=f"sim:{device.total_bytes() // num_workers}")
    runs_users_code = any(spec.source.startswith("python:") for spec in specs.values())
    in_process = config.executor == "local" or (
        config.executor == "auto"
        and device.kind in ("cpu", "sim")
        and config.timeout_s is None
        and not runs_users_code
    )
    if in_process and runs_users_code and settings.hidden:
        log.warning("executor: local lets models of yours see the keys in %s", ", ".join(settings.hidden))
    first: Worker
    if in_process:
        first = LocalWorker(settings, registry.build, deliver)
    else:
        first = ProcessWorker(settings, deliver, timeout_s=config.timeout_s)
    others = [
        ProcessWorker(settings, deliver, timeout_s=config.timeout_s, ahead=True)
        for _ in range(num_workers - 1)
    ]
    return [first, *others]


def _shared_weights(plan: Plan, num_workers: int) -> SharedWeights | None:
    """What so many workers share: the weights of models that are large enough."""
    large = [name for name in plan.local if weight_bytes(plan, name) >= WORTH_SHARING]
    return share_weights(large, num_workers)


def _threads(shapes: Mapping[str, Shape]) -> int:
    return max(shape.threads for shape in shapes.values())
