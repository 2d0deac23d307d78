"""The model cache: knows what comes next, keeps what will be needed, brings the next model early.

A lease makes a model resident and keeps it so until it is given back. Weights live in main memory
(`host`) as blocks that are copied to the device when needed and dropped when `planning` says so,
also in part; what is *then* free is read again after every eviction. What is leased is never evicted, nothing
is used before its copy has ended. Not thread safe: one cache belongs to the one thread that runs models on
its device.

    with cache.lease("sd-turbo", batch_size=8, upcoming=["blip", "sd-turbo"]) as model:
        model.invoke(prompts, seeds)
"""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from panic.devices import planning
from panic.devices.accounting import Room
from panic.devices.device import Device, format_bytes, is_out_of_memory
from panic.devices.events import CacheStats, EventLog
from panic.devices.host import HostTier
from panic.devices.offload import arrange, streamed
from panic.devices.planning import Evict, Prefetch, State, Use
from panic.devices.readahead import ReadAhead
from panic.devices.replay import Eagerness
from panic.devices.residency import Entry, Residency, smooth
from panic.devices.working import Need, WorkingMemory
from panic.errors import ModelDoesNotFit, OutOfMemory
from panic.models.protocol import Model

log = logging.getLogger("panic.devices")

MAX_CYCLES = 4
"""Cycles of a repeating order of work that are laid out for planning."""


@dataclass(slots=True)
class ModelCache:
    """Models resident on one device.

    Args:
        device: where they live.
        build: constructs a model by name, weights not yet on the device.
        headroom_bytes: left free for others.
        memory_fraction: share of the device's total memory that may be used.
        host: main memory for weights, perhaps shared with the caches of other devices.
        prefetching: bring the next model while one computes.
        files: weight files of a model by name, which are read ahead if it has to be constructed soon.
        working: what is known about the working memory of calls.
    """

    device: Device
    build: Callable[[str], Model]
    headroom_bytes: int = 0
    memory_fraction: float = 1.0
    host: HostTier = field(default_factory=HostTier)
    prefetching: bool = True
    files: Callable[[str], Sequence[Path]] = lambda name: ()
    stats: CacheStats = field(default_factory=CacheStats)
    working: WorkingMemory = field(default_factory=WorkingMemory)
    events: EventLog = field(default_factory=EventLog)
    _here: Residency = field(init=False)
    _room: Room = field(init=False)
    _reader: ReadAhead = field(init=False)
    _sizes: dict[str, int] = field(default_factory=dict)
    _whole: set[str] = field(default_factory=set)
    _eagerness: Eagerness = field(default_factory=Eagerness)

    def __post_init__(self) -> None:
        self._here = Residency(self.device, self.stats, self.events)
        self._room = Room(self.device)
        self._reader = ReadAhead(self.files)
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

        Raises: ModelDoesNotFit if the weights alone are too large and not even one layer at a time fits,
        OutOfMemory if there is no room for the call's working memory (both with the arithmetic), or what
        building or loading the model raises.
        """
        entry = self._entry(name, upcoming)
        told = getattr(entry.model, "working_bytes", None)
        need = self.working.need(entry.known_as, bucket, batch_size, told)
        uses, cycle = self._uses(entry, need, upcoming)
        entry.leases += 1
        try:
            self._here.arrive(entry)
            is_hit = entry.is_complete
            self._bring(entry, uses, need)
            self.stats.hits += is_hit
            self._here.touch(entry)
            if self.events.path is not None and not entry.is_offloaded:
                capacity_bytes = self._state().capacity_bytes
                self.events.add_call(name, entry.size, uses[0].working_bytes, capacity_bytes, is_hit=is_hit)
            if need.is_known and not entry.fell_short and not entry.is_offloaded:
                self._prefetch(uses, cycle)  # before the call: its memory is no working memory
            self._read_ahead(upcoming)
            with self._streamed(entry, need) as window_bytes:
                self.device.begin_call(self._granted(need, window_bytes))
                try:
                    started_s, device_started_s = time.perf_counter(), self.device.now()
                    entry.fell_short = True  # unless the call succeeds
                    yield entry.model
                    entry.fell_short = False
                    self.device.computed(time.perf_counter() - started_s)
                    entry.compute_s = smooth(entry.compute_s, self.device.now() - device_started_s)
                finally:
                    peak_bytes = self.device.end_call()
            is_more = peak_bytes is not None and self.working.observe(
                entry.known_as, bucket, batch_size, peak_bytes
            )
            if is_more and not entry.is_offloaded:
                self.events.add("working", model=name, bucket=bucket, batch=batch_size, bytes=peak_bytes)
        finally:
            entry.leases -= 1

    def offload(self, name: str) -> bool:
        """Bring a model's layers one after another from now on; False if it has none or does so already."""
        entry = self._here.entries.get(name)
        if entry is None or entry.is_offloaded or not entry.parcel.modules:
            return False
        if arrange(entry.parcel, entry.sizes, self.device.total_bytes()) is None:
            return False
        entry.is_offloaded = True
        log.warning("%s does not fit on %s: its layers come one after another", name, self.device.name)
        self.events.add("offload", model=name)
        return True

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
        self._here.entries.clear()
        self.events.close()
        self._reader.close()

    # Main memory

    def _entry(self, name: str, upcoming: Sequence[str]) -> Entry:
        if name in self._here.entries:
            return self._here.entries[name]
        model = self.build(name)
        if self.host.buffer(name) is None:
            self._make_host_room(model.size_bytes, upcoming)
        entry = self._here.add(name, model, self.host.take_in(name, model, self.device))
        self._reader.taken(name)
        self._sizes[name] = entry.size
        if entry.parcel.whole:
            self._whole.add(name)
        return entry

    def _read_ahead(self, upcoming: Sequence[str]) -> None:
        """Have the files of the next model read that must be constructed."""
        absent = next((name for name in upcoming if name not in self._here.entries), None)
        if self.prefetching and self.device.has_own_memory and absent is not None:
            self._reader.start(absent)

    def _make_host_room(self, needed: int, upcoming: Sequence[str]) -> None:
        """Forget models, furthest next use first. One that alone exceeds the budget is let in."""
        if not self.host.lacks(needed):
            return
        later = list(upcoming)
        names = sorted(self._here.entries, key=lambda n: -(later.index(n) if n in later else len(later)))
        for name in names:
            if self.host.lacks(needed):
                self._forget_idle(name)
        gc.collect()

    def _forget_idle(self, name: str) -> None:
        """Drop a model from main memory, too, if that makes room there."""
        entry = self._here.entries[name]
        if not entry.leases and self.host.is_only_user(name, entry.parcel):
            self._here.cancel()
            self._here.forget(entry)

    # The device

    def _bring(self, entry: Entry, uses: Sequence[Use], need: Need) -> None:
        """Make room for a use and load what is missing."""
        if entry.is_complete and not need.wanted:
            return  # asking the CPU how much is free takes 0.4 ms, at every call of a model
        missing = entry.size - entry.here
        if missing and not entry.is_offloaded:
            try:
                self._make_room(entry, uses, missing, missing)
            except OutOfMemory as error:
                if not self.offload(entry.name):
                    raise ModelDoesNotFit(error.message, hint=error.hint) from None
        if entry.is_offloaded:
            return
        self._make_room(entry, uses, missing + need.wanted, missing + need.least)
        if not entry.is_complete:  # also a model without weights is loaded
            self._load(entry)

    @contextmanager
    def _streamed(self, entry: Entry, need: Need) -> Iterator[int]:
        """Of an offloaded model: its layers during a call, as many of them staying as are known to fit.

        Yields bytes for those that come and go.
        """
        if not entry.is_offloaded:
            yield 0
            return
        self.evict_idle()
        if entry.num_here:
            self._here.drop(entry, None, "offload")
        usable = max(0, self._usable(prudent=False))
        layout = arrange(entry.parcel, entry.sizes, usable - need.wanted, fill=need.is_known)
        if layout is None:
            raise ModelDoesNotFit(
                f"{entry.name}: not even one layer at a time fits on {self.device.name} beside "
                f"{format_bytes(need.wanted)} for the call: {format_bytes(usable)} are free",
                hint="Use a smaller dtype, another device, or less headroom.",
            )
        with streamed(entry.parcel, entry.sizes, layout, self.device) as num_copied:
            try:
                yield layout.window_bytes
            finally:
                self.stats.streamed_bytes += num_copied()
                self.events.add("streamed", model=entry.name, bytes=num_copied())

    def ran_out(self, name: str) -> None:
        """Count that a model ran out of memory, while it was loaded or called."""
        self.stats.out_of_memory += 1
        self.events.add("out_of_memory", model=name)

    def _load(self, entry: Entry) -> None:
        """Load; if there is no room against all reckoning, once more with everything else gone."""
        failure = self._here.load(entry)
        if failure is not None and is_out_of_memory(failure):
            self.ran_out(entry.name)
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
        # Models that are not built have no bytes to copy, and offloaded ones are never there as a whole.
        movable = {name for name, entry in here.entries.items() if not entry.is_offloaded}
        foreseen = [uses[0], *(use for use in uses[1:] if use.model in movable)]
        for action in planning.prefetch(self._state(), foreseen, eager=self._is_eager(cycle)):
            if isinstance(action, Evict):
                here.drop(here.entries[action.model], action.num_bytes, "prefetch")
            elif isinstance(action, Prefetch) and not here.entries[action.model].parcel.whole:
                room = self._usable() - uses[0].working_bytes
                here.start(here.entries[action.model], min(action.num_bytes, room))

    def _is_eager(self, cycle: Sequence[Use]) -> bool:
        """Whether a repeating order of work gains from bringing the next model at the price of more bytes."""
        compute_s = {name: entry.compute_s for name, entry in self._here.entries.items()}
        capacity_bytes = self._state().capacity_bytes
        rate, whole = self._here.rate_bytes_per_s, frozenset(self._whole)
        return self._eagerness.pays(cycle, self._sizes, capacity_bytes, rate, compute_s, whole)

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

    def _granted(self, need: Need, window_bytes: int) -> int:
        """What is set aside for a call: all that is expected, or as much of it as there is."""
        if not need.wanted:
            return 0
        return max(need.least, min(need.wanted, self._usable(prudent=False) - window_bytes))

    def _usable(self, *, prudent: bool = True) -> int:
        self._room.headroom_bytes, self._room.memory_fraction = self.headroom_bytes, self.memory_fraction
        return self._room.usable_bytes(prudent=prudent)
