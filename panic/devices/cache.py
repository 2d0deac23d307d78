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
from panic.devices.construction import Construction
from panic.devices.device import Device, format_bytes, is_out_of_memory
from panic.devices.events import CacheStats, EventLog
from panic.devices.host import HostTier
from panic.devices.offload import arrange, streamed
from panic.devices.planning import Evict, Prefetch, State, Use
from panic.devices.replay import Eagerness
from panic.devices.residency import Entry, Residency, smooth
from panic.devices.working import Need, WorkingMemory
from panic.errors import ModelDoesNotFit, OutOfMemory
from panic.models.protocol import Model

log = logging.getLogger("panic.devices")

GROWN = 1.05
"""Of the room that a model outgrew, before it is tried as a whole again."""
WORTH_COLLECTING = 16 * 2**20
"""Bytes of a dropped model from which on its memory is asked back at once; that takes 20-50 ms."""
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
    _models: Construction = field(init=False)
    _sizes: dict[str, int] = field(default_factory=dict)
    _whole: set[str] = field(default_factory=set)
    _eagerness: Eagerness = field(default_factory=Eagerness)

    def __post_init__(self) -> None:
        self._here = Residency(self.device, self.stats, self.events)
        self._room = Room(self.device)
        self._models = Construction(self.build, self.host, self.device, self.files)
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
        if entry.is_offloaded:
            self._take_back(entry, bucket, batch_size)
        need = self.working.need(entry.known_as, bucket, batch_size, entry.told)
        uses, cycle = self._uses(entry, need, upcoming)
        entry.leases += 1
        try:
            tier = self._tier(entry)
            self._bring(entry, uses, need)
            self.stats.hits += tier in ("device", "prefetch")
            self._here.touch(entry)
            if self.events.path is not None and not entry.is_offloaded:
                capacity_bytes = self._state().capacity_bytes
                self.events.add_call(name, entry.size, uses[0].working_bytes, capacity_bytes, tier)
            if need.is_known and not entry.fell_short and not entry.is_offloaded:
                self._prefetch(uses, cycle)  # before the call: its memory is no working memory
            if self.prefetching:
                self._models.read_ahead(self._here, upcoming)
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

    def bring(self, name: str) -> None:
        """Load a model ahead of its first call, unless it comes in layers. Raises what loading raises."""
        entry = self._entry(name, ())
        self._here.arrive(entry)
        self._bring(entry, [Use(name)], Need(0, 0, False))
        self._here.touch(entry)

    def offload(self, name: str) -> bool:
        """Bring a model's layers one after another as long as there is no more room than now.

        False if it has none or does so already.
        """
        entry = self._here.entries.get(name)
        if entry is None or entry.is_offloaded or not entry.parcel.modules:
            return False
        if arrange(entry.parcel, entry.sizes, self.device.total_bytes()) is None:
            return False
        entry.outgrown_bytes = max(0, self._room_for(entry, prudent=False))
        log.warning("%s does not fit on %s: its layers come one after another", name, self.device.name)
        self.events.add("offload", model=name)
        return True

    def evict(self, name: str) -> None:
        """Drop a model that is not in use from the device."""
        self._here.cancel()
        assert self._here.entries[name].leases == 0, f"{name} is in use"
        self._drop(name, None, "asked")

    def evict_idle(self, reason: str = "memory") -> int:
        """Drop everything that is not in use; returns how many models that were."""
        self._here.cancel()
        idle = [name for name, entry in self._here.entries.items() if not entry.leases and entry.num_here]
        for name in idle:
            self._drop(name, None, reason)
        self.device.trim()
        return len(idle)

    def close(self) -> None:
        """Drop all models, from main memory, too."""
        self.evict_idle()
        self._here.entries.clear()
        self.events.close()
        self._models.close()

    def _entry(self, name: str, upcoming: Sequence[str]) -> Entry:
        if name not in self._here.entries:
            entry = self._models.make(self._here, name, upcoming)
            self._sizes[name] = entry.size
            if entry.parcel.whole:
                self._whole.add(name)
        return self._here.entries[name]

    # The device

    def _tier(self, entry: Entry) -> str:
        """Where a call finds its model: "device", "prefetch" (brought ahead of the call), "host", "disk"."""
        was_there = entry.is_complete
        self._here.arrive(entry)
        if entry.is_complete:
            return "device" if was_there else "prefetch"
        return "disk" if entry.is_new else "host"

    def _drop(self, name: str, num_bytes: int | None, reason: str) -> None:
        """Drop bytes of a model; of one that main memory does not keep, have the memory back at once."""
        size = self._here.entries[name].size
        self._here.drop(self._here.entries[name], num_bytes, reason)
        if name not in self._here.entries and size > WORTH_COLLECTING:
            gc.collect()  # models hold themselves by cycles

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
        self.evict_idle("offload")  # a layer that stays is copied once per call, not once per pass through it
        if entry.num_here:
            self._drop(entry.name, None, "offload")
        usable = max(0, self._usable(prudent=False))
        layout = arrange(entry.parcel, entry.sizes, usable - need.wanted, fill=need.is_known)
        if layout is None:
            raise ModelDoesNotFit(
                f"{entry.name}: not even one layer at a time fits on {self.device.name} beside "
                f"{format_bytes(need.wanted)} for the call: {self._told()}",
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
        """Load. Without room against all reckoning: once more with everything else gone, then in layers."""
        failure = self._here.load(entry)
        if failure is not None and is_out_of_memory(failure):
            self.ran_out(entry.name)
            failure = None  # its traceback would keep alive what is in the way
            self.evict_idle()
            if entry.name not in self._here.entries:
                self._here.entries[entry.name] = entry
            failure = self._here.load(entry)
            if failure is not None and is_out_of_memory(failure):
                self.ran_out(entry.name)
                if self.offload(entry.name):
                    return
                raise ModelDoesNotFit(
                    f"{entry.name}: no room on {self.device.name} while its weights were loaded "
                    f"({format_bytes(entry.size)}): {self._told()}"
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
                self._drop(victims[0].model, victims[0].num_bytes, "room")
            elif self._here.coming:
                self._here.cancel()
            elif least <= max(0, self._usable(prudent=False)):
                return
            else:
                raise OutOfMemory(
                    f"{entry.name} needs {format_bytes(least)} more on {self.device.name}: {self._told()}",
                    hint="Use a smaller batch size, a smaller dtype, another device, or less headroom.",
                )

    def _room_for(self, entry: Entry, *, prudent: bool = True) -> int:
        """Bytes that a model and its call may take if everything else that is idle goes."""
        held, in_use = self._here.held(), self._leased() - {entry.name}
        idle = sum(num_bytes for name, num_bytes in held.items() if name not in in_use)
        return self._usable(prudent=prudent) + idle

    def _take_back(self, entry: Entry, bucket: int, batch_size: int) -> None:
        """Have an offloaded model whole again where there is clearly more room than when it outgrew it."""
        assert entry.outgrown_bytes is not None
        # What is known of its calls in layers has layers in it, so it is more than enough.
        names = (entry.name, entry.known_as)
        wanted = max(self.working.need(name, bucket, batch_size, entry.told).wanted for name in names)
        if self._room_for(entry) >= max(entry.size + wanted, GROWN * entry.outgrown_bytes):
            entry.outgrown_bytes = None
            log.warning("%s fits on %s again", entry.name, self.device.name)
            self.events.add("fits", model=entry.name)

    def _prefetch(self, uses: Sequence[Use], cycle: Sequence[Use]) -> None:
        here = self._here
        if not self.prefetching or not self.device.has_own_memory or here.coming:
            return
        following = next((use.model for use in uses if use.model != uses[0].model), "")
        entry = here.entries.get(following)
        # One that is not built has no bytes to copy, and an offloaded one is never there as a whole.
        if entry is None or entry.is_offloaded:
            return
        for action in planning.prefetch(self._state(), uses, eager=self._is_eager(cycle)):
            if isinstance(action, Evict):
                self._drop(action.model, action.num_bytes, "prefetch")
            elif isinstance(action, Prefetch):
                room = self._usable() - uses[0].working_bytes
                here.start(here.entries[action.model], min(action.num_bytes, room))

    def _is_eager(self, cycle: Sequence[Use]) -> bool:
        """Whether a repeating order of work gains from bringing the next model at the price of more bytes."""
        if any(use.model in self._whole for use in cycle):
            return False  # they are not brought ahead
        compute_s = {name: entry.compute_s for name, entry in self._here.entries.items()}
        capacity_bytes = self._state().capacity_bytes
        rate = self._here.rate_bytes_per_s
        return self._eagerness.pays(cycle, self._sizes, capacity_bytes, rate, compute_s)

    # What planning is told

    def _state(self) -> State:
        held, coming = self._here.held(), self._here.coming
        return State(
            capacity_bytes=self._usable() + sum(held.values()),
            sizes=self._sizes,
            resident=held,
            in_use=self._leased() | ({coming.entry.name} if coming else set()),
            whole=frozenset(self._whole),
        )

    def _leased(self) -> frozenset[str]:
        return frozenset(name for name, entry in self._here.entries.items() if entry.leases)

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

    def _told(self) -> str:
        return self._room.told(sum(self._here.held().values()))

    def _usable(self, *, prudent: bool = True) -> int:
        self._room.headroom_bytes, self._room.memory_fraction = self.headroom_bytes, self.memory_fraction
        return self._room.usable_bytes(prudent=prudent)
