"""The models of a device with memory of its own: a cache that knows what comes next, keeps what will be
needed and brings the next model early.

A lease makes a model resident and keeps it so until it is given back. Weights live in main memory
(`host`) as blocks that are copied to the device when needed and dropped when `planning` says so,
also in part; what is *then* free is read again after every eviction. What is leased is never evicted, nothing
is used before its copy has ended.

A cache, its residency, room and books belong to the one thread that runs models on its device, and have no
locks. Two helpers run beside it and touch none of them: a device's copying thread (see `cuda`) fills blocks
that are bound to nothing yet, and the thread that reads ahead (see `construction`) only reads files. Caches
of several devices share the host tier, which has a lock of its own.

    with cache.lease("sd-turbo", batch_size=8, upcoming=["blip", "sd-turbo"]) as model:
        model.invoke(prompts, seeds)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import InitVar, dataclass, field
from pathlib import Path

from panic.devices import planning
from panic.devices.construction import Construction
from panic.devices.device import OwnMemory, is_out_of_memory
from panic.devices.events import CacheStats, EventLog
from panic.devices.host import HostTier
from panic.devices.offload import Offloading
from panic.devices.planning import Evict, Prefetch, State, Use
from panic.devices.replay import Eagerness
from panic.devices.residency import CachedModel, Residency, smooth
from panic.devices.room import Need, Room, WorkingMemory
from panic.devices.transfers import format_bytes
from panic.errors import ModelDoesNotFit, OutOfMemory
from panic.models.protocol import Model

MAX_CYCLES = 4
"""Cycles of a repeating order of work that are laid out for planning."""


@dataclass(slots=True)
class ModelCache:
    """Models resident on one device.

    Args:
        device: where they live.
        build: constructs a model by name, weights not yet on the device.
        headroom_bytes, memory_fraction: how much is left to others (see `Room`).
        host: main memory for weights, perhaps shared with the caches of other devices.
        prefetching: bring the next model while one computes.
        files: weight files of a model by name, which are read ahead if it has to be constructed soon.
        working: what is known about the working memory of calls.

    `room` says how much of the device may be taken, now and for each call.
    """

    device: OwnMemory
    build: Callable[[str], Model]
    headroom_bytes: InitVar[int] = 0
    memory_fraction: InitVar[float] = 1.0
    host: HostTier = field(default_factory=HostTier)
    prefetching: bool = True
    files: Callable[[str], Sequence[Path]] = lambda name: ()
    stats: CacheStats = field(default_factory=CacheStats)
    working: WorkingMemory = field(default_factory=WorkingMemory)
    events: EventLog = field(default_factory=EventLog)
    room: Room = field(init=False)
    _residency: Residency = field(init=False)
    _construction: Construction = field(init=False)
    _offloading: Offloading = field(init=False)
    _sizes: dict[str, int] = field(default_factory=dict)
    _whole: set[str] = field(default_factory=set)
    _eagerness: Eagerness = field(default_factory=Eagerness)

    def __post_init__(self, headroom_bytes: int, memory_fraction: float) -> None:
        self.room = Room(self.device, headroom_bytes, memory_fraction)
        self._residency = Residency(self.device, self.stats, self.events)
        self._construction = Construction(self.build, self.host, self.device, self.files)
        self._offloading = Offloading(self._residency, self.room, self.working)
        self.events.add("start", device=self.device.name)

    @property
    def resident(self) -> frozenset[str]:
        """Names of the models that are on the device as a whole."""
        return frozenset(name for name, cached in self._residency.models.items() if cached.is_complete)

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
        cached = self._cached(name, upcoming)
        self._offloading.end_where_it_fits(cached, bucket, batch_size)
        need = self.working.need(cached.working_name, bucket, batch_size, cached.stated_working_bytes)
        uses, cycle = self._uses(cached, need, upcoming)
        cached.leases += 1
        try:
            tier = self._tier(cached)
            self._bring(cached, uses, need)
            self.stats.hits += tier in ("device", "prefetch")
            self._residency.touch(cached)
            if self.events.path is not None and not cached.is_offloaded:
                capacity_bytes = self._state().capacity_bytes
                self.events.add_call(name, cached.size, uses[0].working_bytes, capacity_bytes, tier)
            if need.is_known and not cached.fell_short and not cached.is_offloaded:
                self._prefetch(uses, cycle)  # before the call: its memory is no working memory
            if self.prefetching:
                self._construction.read_ahead(self._residency, upcoming)
            layers = self._offloading.call(cached, need) if cached.is_offloaded else nullcontext(0)
            with layers as window_bytes:
                self.device.begin_call(self._granted(need, window_bytes))
                try:
                    started_s, device_started_s = time.perf_counter(), self.device.now()
                    cached.fell_short = True  # unless the call succeeds
                    yield cached.model
                    cached.fell_short = False
                    self.device.computed(time.perf_counter() - started_s)
                    cached.compute_s = smooth(cached.compute_s, self.device.now() - device_started_s)
                finally:
                    peak_bytes = self.device.end_call()
            is_more = peak_bytes is not None and self.working.observe(
                cached.working_name, bucket, batch_size, peak_bytes
            )
            if is_more and not cached.is_offloaded:
                self.events.add("working", model=name, bucket=bucket, batch=batch_size, bytes=peak_bytes)
        finally:
            cached.leases -= 1

    def bring(self, name: str) -> None:
        """Load a model ahead of its first call, unless it comes in layers. Raises what loading raises."""
        cached = self._cached(name, ())
        self._residency.arrive(cached)
        self._bring(cached, [Use(name)], Need(0, 0, False))
        self._residency.touch(cached)

    def offload(self, name: str) -> bool:
        """Bring a model's layers one after another as long as there is no more room than now.

        Returns False if it has none or does so already.
        """
        return self._offloading.begin(name)

    def evict_idle(self, reason: str = "memory") -> int:
        """Drop everything that is not in use. Returns how many models that were."""
        return self._residency.drop_idle(reason)

    def ran_out(self, name: str) -> None:
        """Count that a model ran out of memory, while it was loaded or called."""
        self.stats.out_of_memory += 1
        self.events.add("out_of_memory", model=name)

    def close(self) -> None:
        """Drop all models, from main memory, too."""
        self.evict_idle()
        self._residency.models.clear()
        self.events.close()
        self._construction.close()

    def _cached(self, name: str, upcoming: Sequence[str]) -> CachedModel:
        """The model of a name, constructed if it was not there."""
        if name not in self._residency.models:
            cached = self._construction.make(self._residency, name, upcoming)
            self._sizes[name] = cached.size
            if cached.parcel.whole:
                self._whole.add(name)
        return self._residency.models[name]

    # The device

    def _tier(self, cached: CachedModel) -> str:
        """Say where a call finds its model: "device", "prefetch" (brought ahead of it), "host", "disk"."""
        was_there = cached.is_complete
        self._residency.arrive(cached)
        if cached.is_complete:
            return "device" if was_there else "prefetch"
        return "disk" if cached.is_new else "host"

    def _bring(self, cached: CachedModel, uses: Sequence[Use], need: Need) -> None:
        """Make room for a use and load what is missing."""
        if cached.is_complete and not need.wanted:
            return  # asking the CPU how much is free takes 0.4 ms, at every call of a model
        missing = cached.size - cached.loaded_bytes
        if missing and not cached.is_offloaded:
            try:
                self._make_room(cached, uses, missing, missing)
            except OutOfMemory as error:
                if not self.offload(cached.name):
                    why = "Quantised and compiled models come as a whole. " if cached.is_undivided else ""
                    raise ModelDoesNotFit(error.message, hint=why + error.hint) from None
        if cached.is_offloaded:
            return
        self._make_room(cached, uses, missing + need.wanted, missing + need.least)
        if not cached.is_complete:  # also a model without weights is loaded
            self._load(cached)

    def _load(self, cached: CachedModel) -> None:
        """Load a model; without room against all reckoning once more with all else gone, then in layers."""
        failure = self._residency.load(cached)
        if failure is not None and is_out_of_memory(failure):
            self.ran_out(cached.name)
            failure = None  # its traceback would keep alive what is in the way
            self.evict_idle()
            if cached.name not in self._residency.models:
                self._residency.models[cached.name] = cached
            failure = self._residency.load(cached)
            if failure is not None and is_out_of_memory(failure):
                self.ran_out(cached.name)
                if self.offload(cached.name):
                    return
                raise ModelDoesNotFit(
                    f"{cached.name}: no room on {self.device.name} while its weights were loaded "
                    f"({format_bytes(cached.size)}): {self._describe()}"
                )
        if failure is not None:
            raise failure

    def _make_room(self, cached: CachedModel, uses: Sequence[Use], wanted: int, least: int) -> None:
        """Evict as planned until `wanted` bytes can be taken; free memory is read after each eviction.

        Raises OutOfMemory if not even `least` bytes can: what is only expected is no reason to give up.
        """
        while (short := wanted - self.room.usable_bytes()) > 0:
            victims = planning.evictions(self._state(), uses, short)
            if victims:
                self._residency.drop(victims[0].model, victims[0].num_bytes, "room")
            elif self._residency.arriving:
                self._residency.cancel()
            elif least <= max(0, self.room.usable_bytes(prudent=False)):
                return
            else:
                raise OutOfMemory(
                    f"{cached.name} needs {format_bytes(least)} more on {self.device.name}: "
                    f"{self._describe()}",
                    hint="Use a smaller batch size, a smaller dtype, another device, or less headroom.",
                )

    def _prefetch(self, uses: Sequence[Use], cycle: Sequence[Use]) -> None:
        """Bring the next model beside the call that is about to begin."""
        residency = self._residency
        if not self.prefetching or residency.arriving:
            return
        following = next((use.model for use in uses if use.model != uses[0].model), "")
        cached = residency.models.get(following)
        # One that is not built has no bytes to copy, and an offloaded one is never there as a whole.
        if cached is None or cached.is_offloaded:
            return
        for action in planning.prefetch(self._state(), uses, eager=self._is_eager(cycle)):
            if isinstance(action, Evict):
                residency.drop(action.model, action.num_bytes, "prefetch")
            elif isinstance(action, Prefetch):
                room = self.room.usable_bytes() - uses[0].working_bytes
                residency.start(residency.models[action.model], min(action.num_bytes, room))

    def _is_eager(self, cycle: Sequence[Use]) -> bool:
        """Whether a repeating order of work gains from bringing the next model at the price of more bytes."""
        if any(use.model in self._whole for use in cycle):
            return False  # they are not brought ahead
        compute_s = {name: cached.compute_s for name, cached in self._residency.models.items()}
        return self._eagerness.pays(self._state(), cycle, self._residency.rate_bytes_per_s, compute_s)

    # What planning takes

    def _state(self) -> State:
        """The device as planning sees it; what arrives counts as there and as in use."""
        held, arriving = self._residency.held(), self._residency.arriving
        return State(
            capacity_bytes=self.room.usable_bytes() + sum(held.values()),
            sizes=self._sizes,
            resident=held,
            in_use=self._residency.in_use() | ({arriving.cached.name} if arriving else set()),
            whole=frozenset(self._whole),
        )

    def _uses(self, cached: CachedModel, need: Need, upcoming: Sequence[str]) -> tuple[list[Use], list[Use]]:
        """Lay out the uses that are known, of models whose size is known, and the cycle that they repeat.

        Both begin with this use. Several cycles are laid out if the uses repeat; the cycle is empty if they
        do not or if no other model is in it.
        """
        # The shape of later calls is not known here: they count with the most that they have needed so far.
        later = [Use(name, self.working.most(name)) for name in upcoming if name in self._sizes]
        first = Use(cached.name, need.wanted)
        if not later or later[-1].model != cached.name:
            return [first, *later], []
        return [first, *later * MAX_CYCLES], [first, *later[:-1]] if len(set(later)) > 1 else []

    def _granted(self, need: Need, window_bytes: int) -> int:
        """Bytes that are set aside for a call: all that is expected, or as much of it as there is."""
        if not need.wanted:
            return 0
        return max(need.least, min(need.wanted, self.room.usable_bytes(prudent=False) - window_bytes))

    def _describe(self) -> str:
        """Say in words what there is on the device."""
        return self.room.describe(sum(self._residency.held().values()))
