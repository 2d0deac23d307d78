"""The model cache: knows what comes next, keeps what will be needed, brings the next model early.

A lease makes a model resident and keeps it so until it is given back. Weights live in main memory (within
`host_budget_bytes`) as blocks that are copied to the device when needed and dropped when `planning` says so,
also in part; what is *then* free is read again after every eviction. What is leased is never evicted, nothing
is used before its copy has ended. Not thread safe: one cache belongs to the one thread that runs models on
its device.

    with cache.lease("sd-turbo", batch_size=8, upcoming=["blip", "sd-turbo"]) as model:
        model.invoke(prompts, seeds)
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from panic.devices import planning
from panic.devices.accounting import Room
from panic.devices.device import Device, format_bytes, is_out_of_memory
from panic.devices.events import CacheStats, EventLog, Stretch
from panic.devices.parcels import Parcel, pack
from panic.devices.planning import Evict, Prefetch, State, Use
from panic.devices.replay import better_ahead
from panic.devices.residency import Entry, Residency, smooth
from panic.devices.working import WorkingMemory
from panic.errors import ModelDoesNotFit, OutOfMemory
from panic.models.protocol import Model

MAX_CYCLES = 4
"""Cycles of a repeating order of work that are laid out for planning."""
ASK_AGAIN = 64
"""Prefetches after which it is asked again whether eager ones pay: durations and rates drift slowly."""


@dataclass(frozen=True, slots=True)
class Need:
    """Working memory of a call: bytes to make room for, bytes without which it fails for sure, whether any of
    that is more than a guess."""

    wanted: int
    least: int
    is_known: bool


@dataclass(slots=True)
class ModelCache:
    """Models resident on one device.

    Args:
        device: where they live.
        build: constructs a model by name, weights not yet on the device.
        headroom_bytes: left free for others.
        memory_fraction: share of the device's total memory that may be used.
        host_budget_bytes: main memory for weights of a device with its own memory; None is no limit.
        prefetching: bring the next model while one computes.
        working: what is known about the working memory of calls.
        pack: how a model's weights move.
    """

    device: Device
    build: Callable[[str], Model]
    headroom_bytes: int = 0
    memory_fraction: float = 1.0
    host_budget_bytes: int | None = None
    prefetching: bool = True
    stats: CacheStats = field(default_factory=CacheStats)
    working: WorkingMemory = field(default_factory=WorkingMemory)
    events: EventLog = field(default_factory=EventLog)
    pack: Callable[[Model, Device], Parcel] = pack
    _here: Residency = field(init=False)
    _room: Room = field(init=False)
    _sizes: dict[str, int] = field(default_factory=dict)
    _whole: set[str] = field(default_factory=set)
    _ahead: dict[tuple[str, ...], tuple[int, str]] = field(default_factory=dict)
    _stretch: Stretch | None = None

    def __post_init__(self) -> None:
        self._here = Residency(self.device, self.stats, self.events)
        self._room = Room(self.device)
        self.events.add("start", device=self.device.name)

    @property
    def resident(self) -> frozenset[str]:
        """Names of the models that are on the device as a whole."""
        return frozenset(name for name, entry in self._here.entries.items() if entry.is_complete)

    def resident_bytes(self) -> dict[str, int]:
        """What is on the device or on its way there, by model, least recently used first."""
        return self._here.held()

    @contextmanager
    def lease(
        self, name: str, batch_size: int, upcoming: Sequence[str] = (), *, bucket: int = 0
    ) -> Iterator[Model]:
        """Yield the named model, loaded, with room for a call of the given batch size.

        Args:
            upcoming: names of the models needed next, in order; empty means unknown (then LRU). An order
                that ends with `name` repeats.
            bucket: the shape of the call's items, where the model's need follows it.

        Raises: ModelDoesNotFit if the weights alone are too large, OutOfMemory if there is no room for the
        call's working memory (both with the arithmetic), or what building or loading the model raises.
        """
        entry = self._entry(name, upcoming)
        need = self._need(entry, bucket, batch_size)
        uses, cycle = self._uses(entry, need, upcoming)
        entry.leases += 1
        try:
            self._here.arrive(entry)
            is_hit = entry.is_complete
            self._bring(entry, uses, need)
            self.stats.hits += is_hit
            self._here.touch(entry)
            self._tell(entry, uses[0], is_hit)
            if need.is_known and not entry.fell_short:
                self._prefetch(uses, cycle)  # before the call: its memory is no working memory
            self.device.begin_call(self._granted(need))
            try:
                started_s, device_started_s = time.perf_counter(), self.device.now()
                entry.fell_short = True  # unless the call succeeds
                yield entry.model
                entry.fell_short = False
                self.device.computed(time.perf_counter() - started_s)
                entry.compute_s = smooth(entry.compute_s, self.device.now() - device_started_s)
            finally:
                peak_bytes = self.device.end_call()
            if peak_bytes is not None and self.working.observe(name, bucket, batch_size, peak_bytes):
                self.events.add("working", model=name, bucket=bucket, batch=batch_size, bytes=peak_bytes)
        finally:
            entry.leases -= 1

    def evict(self, name: str) -> None:
        """Drop a model that is not in use from the device."""
        self._here.cancel()
        entry = self._here.entries[name]
        assert entry.leases == 0, f"{name} is in use"
        self._here.drop(entry, None, "asked")

    def evict_idle(self) -> int:
        """Drop everything that is not in use; returns how many models that were."""
        self._here.cancel()
        idle = [entry for entry in self._here.entries.values() if not entry.leases and entry.num_here]
        for entry in idle:
            self._here.drop(entry, None, "memory")
        self.device.trim()
        return len(idle)

    def close(self) -> None:
        """Drop all models, from main memory, too."""
        self.evict_idle()
        self._end_stretch()
        self._here.entries.clear()
        self.events.close()

    # Main memory

    def _entry(self, name: str, upcoming: Sequence[str]) -> Entry:
        if name in self._here.entries:
            return self._here.entries[name]
        model = self.build(name)
        self._make_host_room(model.size_bytes, upcoming)
        entry = self._here.add(name, model, self.pack(model, self.device))
        self._sizes[name] = entry.size
        if entry.parcel.whole:
            self._whole.add(name)
        return entry

    def _make_host_room(self, needed: int, upcoming: Sequence[str]) -> None:
        """Forget models, furthest next use first. One that alone exceeds the budget is let in."""
        entries = list(self._here.entries.values())
        held = sum(entry.parcel.host_bytes for entry in entries)
        if self.host_budget_bytes is None or held + needed <= self.host_budget_bytes:
            return
        later = list(upcoming)
        entries.sort(key=lambda e: -(later.index(e.name) if e.name in later else len(later)))
        for entry in entries:
            if not entry.leases and entry.parcel.host_bytes and held + needed > self.host_budget_bytes:
                held -= entry.parcel.host_bytes
                self._here.cancel()
                self._here.forget(entry)
        del entries
        gc.collect()

    # The device

    def _bring(self, entry: Entry, uses: Sequence[Use], need: Need) -> None:
        """Make room for a use and load what is missing."""
        if entry.is_complete and not need.wanted:
            return  # asking the CPU how much is free takes 0.4 ms, at every call of a model
        missing = entry.size - entry.here
        if missing:
            try:
                self._make_room(entry, uses, missing, missing)
            except OutOfMemory as error:
                raise ModelDoesNotFit(error.message, hint=error.hint) from None
        self._make_room(entry, uses, missing + need.wanted, missing + need.least)
        if not entry.is_complete:  # also a model without weights is loaded
            self._load(entry)

    def _load(self, entry: Entry) -> None:
        """Load; if there is no room against all reckoning, once more with everything else gone."""
        failure = self._here.load(entry)
        if failure is not None and is_out_of_memory(failure):
            self.stats.out_of_memory += 1
            self.events.add("out_of_memory", model=entry.name)
            failure = None  # its traceback would keep alive what is in the way
            self.evict_idle()
            if entry.name not in self._here.entries:
                self._here.entries[entry.name] = entry
            failure = self._here.load(entry)
            if failure is not None and is_out_of_memory(failure):
                usable = format_bytes(self._usable(prudent=False))
                raise ModelDoesNotFit(
                    f"{entry.name}: no room on {self.device.name} while its weights were loaded "
                    f"({format_bytes(entry.size)}; {usable} are free now)"
                )
        if failure is not None:
            raise failure

    def _make_room(self, entry: Entry, uses: Sequence[Use], wanted: int, least: int) -> None:
        """Evict as planned until `wanted` bytes can be taken; free memory is read after each eviction.

        Raises OutOfMemory if not even `least` bytes can: what is only expected is no reason to give up.
        """
        while (short := wanted - self._usable()) > 0:
            victims = planning.evictions(self._state(), uses, short)
            if victims:
                self._here.drop(self._here.entries[victims[0].model], victims[0].num_bytes, "room")
            elif self._here.coming:
                self._here.cancel()
            elif least <= self._usable(prudent=False):
                return
            else:
                raise self._no_room(entry, least)

    def _no_room(self, entry: Entry, needed: int) -> OutOfMemory:
        device, free = self.device, max(0, self._usable(prudent=False))
        in_use = sum(self._here.held().values())
        return OutOfMemory(
            f"{entry.name} needs {format_bytes(needed)} more on {device.name}: {format_bytes(free)} "
            f"are free of {format_bytes(device.total_bytes())} ({format_bytes(in_use)} held by "
            f"models in use, {format_bytes(self.headroom_bytes)} kept as headroom)",
            hint="Use a smaller batch size, a smaller dtype, another device, or less headroom.",
        )

    def _prefetch(self, uses: Sequence[Use], cycle: Sequence[Use]) -> None:
        here = self._here
        if not self.prefetching or not self.device.has_own_memory or here.coming or len(uses) < 2:
            return
        # Models that are not built have no bytes to copy.
        foreseen = [uses[0], *(use for use in uses[1:] if use.model in here.entries)]
        for action in planning.prefetch(self._state(), foreseen, eager=self._is_eager(cycle)):
            if isinstance(action, Evict):
                here.drop(here.entries[action.model], action.num_bytes, "prefetch")
            elif isinstance(action, Prefetch) and not here.entries[action.model].parcel.whole:
                room = self._usable() - uses[0].working_bytes
                here.start(here.entries[action.model], min(action.num_bytes, room))

    def _is_eager(self, cycle: Sequence[Use]) -> bool:
        """Whether a repeating order of work gains from bringing the next model at the price of more bytes."""
        compute_s = {name: entry.compute_s for name, entry in self._here.entries.items()}
        if not self._here.rate_bytes_per_s or not cycle or not all(compute_s.get(u.model) for u in cycle):
            return False
        key = tuple(use.model for use in cycle)
        asked, answer = self._ahead.get(key, (0, ""))
        if asked % ASK_AGAIN == 0:
            try:
                answer = better_ahead(
                    cycle,
                    self._sizes,
                    self._state().capacity_bytes,
                    rate_bytes_per_s=self._here.rate_bytes_per_s,
                    compute_s=compute_s,
                    whole=frozenset(self._whole),
                )
            except ModelDoesNotFit:
                answer = "free"
        self._ahead[key] = asked + 1, answer
        return answer == "eager"

    # What planning is told

    def _state(self) -> State:
        held, coming = self._here.held(), self._here.coming
        leased = {name for name, entry in self._here.entries.items() if entry.leases}
        return State(
            capacity_bytes=self._usable() + sum(held.values()),
            sizes=self._sizes,
            resident=held,
            in_use=frozenset(leased | ({coming.entry.name} if coming else set())),
            whole=frozenset(self._whole),
        )

    def _uses(self, entry: Entry, need: Need, upcoming: Sequence[str]) -> tuple[list[Use], list[Use]]:
        """This use and those to come of models whose size is known, several cycles if they repeat; one cycle.

        The cycle begins with this use and is empty if nothing repeats or no other model is in it.
        """
        # Of later ones the shape is not known here: they count with the most that they have needed so far.
        later = [Use(name, self.working.most(name)) for name in upcoming if name in self._sizes]
        first = Use(entry.name, need.wanted)
        if not later or later[-1].model != entry.name:
            return [first, *later], []
        return [first, *later * MAX_CYCLES], [first, *later[:-1]] if len(set(later)) > 1 else []

    def _need(self, entry: Entry, bucket: int, batch_size: int) -> Need:
        """Working memory of a call: what was seen or, of a model that was not seen, what it says itself."""
        learnt = self.working.estimate(entry.name, bucket, batch_size)
        if learnt is not None:
            return Need(learnt, self.working.seen(entry.name, bucket, batch_size), True)
        told: Callable[[int], int] | None = getattr(entry.model, "working_bytes", None)
        said = told(batch_size) if told else 0
        return Need(said, said, told is not None)

    def _granted(self, need: Need) -> int:
        """What is set aside for a call: all that is expected, or as much of it as there is."""
        if not need.wanted:
            return 0
        return max(need.least, min(need.wanted, self._usable(prudent=False)))

    def _usable(self, *, prudent: bool = True) -> int:
        self._room.headroom_bytes, self._room.memory_fraction = self.headroom_bytes, self.memory_fraction
        return self._room.usable_bytes(prudent=prudent)

    # What is told

    def _tell(self, entry: Entry, use: Use, is_hit: bool) -> None:
        if self.events.path is None:
            return
        stretch = self._stretch
        if stretch is None or (stretch.model, stretch.working) != (entry.name, use.working_bytes):
            self._end_stretch()
            capacity = self._state().capacity_bytes
            stretch = Stretch(entry.name, entry.size, use.working_bytes, capacity)
            self._stretch = stretch
        stretch.calls += 1
        stretch.hits += is_hit

    def _end_stretch(self) -> None:
        if self._stretch is not None:
            self.events.add_use(self._stretch)
        self._stretch = None
