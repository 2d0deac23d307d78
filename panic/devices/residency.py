"""What is on a device: models as blocks that are loaded, dropped, and brought ahead of time.

The mechanism below the cache: it does what it is asked to do, keeps the books (`CacheStats`, events) and
leaves nothing behind when something fails. A model's first `num_loaded` blocks are bound, that is on the
device and used by it; blocks on their way are bound only after their copy has ended. Everything here
belongs to the cache's thread: that of the device, which copies ahead, fills blocks that are bound to
nothing yet.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from panic.devices.device import OwnMemory
from panic.devices.events import CacheStats, EventLog
from panic.devices.main_memory import WORTH_COLLECTING
from panic.devices.parcels import Movable, Parcel
from panic.devices.transfers import Transfer
from panic.models.protocol import Model

log = logging.getLogger("panic.devices")

SMOOTHING = 0.3
"""Weight of the newest measurement of a call's duration and of the bus."""


@dataclass(slots=True, kw_only=True)
class CachedModel:
    """A model that a cache holds: constructed, its weights in main memory, and some or all on the device.

    sizes: what its blocks take on the device. num_loaded: how many of them are there. leases: calls under
    way. is_new: not yet loaded once. fell_short: its last call failed. compute_s: how long its calls take.
    outgrown_bytes: the room that was not enough for it as a whole, so that its layers come one after
    another while it computes; None for a model that is not offloaded so.
    """

    name: str
    model: Model
    parcel: Parcel
    sizes: list[int]
    num_loaded: int = 0
    leases: int = 0
    is_new: bool = True
    fell_short: bool = False
    outgrown_bytes: int | None = None
    compute_s: float = 0.0

    @property
    def size(self) -> int:
        return sum(self.sizes)

    @property
    def is_undivided(self) -> bool:
        """Whether its layers cannot come one after another: where it is quantised, or compiled."""
        return not self.parcel.modules or bool(getattr(self.model, "is_compiled", False))

    @property
    def is_offloaded(self) -> bool:
        return self.outgrown_bytes is not None

    @property
    def stated_working_bytes(self) -> Callable[[int], int] | None:
        """What the model says that a call of a batch size needs beyond the weights, if it says so."""
        stated: Callable[[int], int] | None = getattr(self.model, "working_bytes", None)
        return stated

    @property
    def working_name(self) -> str:
        """The name under which working memory is learnt: an offloaded model's has layers in it."""
        return f"{self.name} in layers" if self.is_offloaded else self.name

    @property
    def loaded_bytes(self) -> int:
        """Bytes on the device."""
        return sum(self.sizes[: self.num_loaded])

    @property
    def is_complete(self) -> bool:
        return self.num_loaded == len(self.sizes)


@dataclass(slots=True)
class Arrival:
    """Blocks of a model on their way to the device."""

    cached: CachedModel
    blocks: list[Movable]
    transfer: Transfer
    num_bytes: int


@dataclass(slots=True)
class Residency:
    """The models of one device, least recently used first.

    arriving: what is on its way, one model at a time. rate_bytes_per_s: how fast the bus is, as measured; 0
    until something was loaded from main memory.
    """

    device: OwnMemory
    stats: CacheStats
    events: EventLog
    models: dict[str, CachedModel] = field(default_factory=dict)
    arriving: Arrival | None = None
    rate_bytes_per_s: float = 0.0

    def held(self) -> dict[str, int]:
        """Bytes on the device or on their way there, by model."""
        held = {name: cached.loaded_bytes for name, cached in self.models.items()}
        if self.arriving:
            held[self.arriving.cached.name] += self.arriving.num_bytes
        return {name: num_bytes for name, num_bytes in held.items() if num_bytes}

    def in_use(self) -> frozenset[str]:
        """Names of the models with calls under way."""
        return frozenset(name for name, cached in self.models.items() if cached.leases)

    def idle_bytes(self, wanted: CachedModel) -> int:
        """Bytes that come free for a model if everything else that is idle goes; its own bytes count, too."""
        in_use = self.in_use() - {wanted.name}
        return sum(num_bytes for name, num_bytes in self.held().items() if name not in in_use)

    def add(self, name: str, model: Model, parcel: Parcel) -> CachedModel:
        """Take in a constructed model."""
        sizes = [self.device.rounded(block.num_bytes) for block in parcel.blocks]
        self.stats.builds += 1
        self.models[name] = CachedModel(name=name, model=model, parcel=parcel, sizes=sizes)
        return self.models[name]

    def touch(self, cached: CachedModel) -> None:
        """Count a model as the one used last."""
        self.models[cached.name] = self.models.pop(cached.name)

    def load(self, cached: CachedModel) -> BaseException | None:
        """Bring the missing blocks now. Returns what went wrong, if so with nothing left behind."""
        started, num_bytes = self.device.now(), cached.size - cached.loaded_bytes
        blocks = list(cached.parcel.blocks[cached.num_loaded :])
        failure = self._allocate(cached, blocks)
        if failure is None:
            try:
                self.device.transfer(blocks, ahead=False).wait()
            except BaseException as error:
                failure = error
        if failure is not None:
            self._free(cached, blocks)
            return failure
        self._bind(cached, len(blocks))
        seconds = self.device.now() - started
        tier = "disk" if cached.is_new else "host"
        if not cached.is_new and seconds > 0:
            self.rate_bytes_per_s = smooth(self.rate_bytes_per_s, num_bytes / seconds)
        cached.is_new = False
        self.stats.loads += 1
        self.stats.loaded_bytes += num_bytes
        self.stats.load_s += seconds
        self.stats.stall_s += seconds
        self.events.add("load", model=cached.name, bytes=num_bytes, tier=tier, seconds=round(seconds, 6))
        return None

    def drop(self, name: str, num_bytes: int | None, reason: str) -> None:
        """Drop blocks of a model from the end until at least `num_bytes` have come free; None drops all.

        A model that main memory does not keep is gone then, and its memory is asked back at once.
        """
        size = self.models[name].size
        self._drop_blocks(self.models[name], num_bytes, reason)
        if name not in self.models and size > WORTH_COLLECTING:
            gc.collect()  # models hold themselves by cycles, and by now nothing else holds this one

    def drop_idle(self, reason: str) -> int:
        """Drop everything that is not in use. Returns how many models that were."""
        self.cancel()
        idle = [name for name, cached in self.models.items() if not cached.leases and cached.num_loaded]
        for name in idle:
            self.drop(name, None, reason)
        self.device.trim()
        return len(idle)

    def forget(self, cached: CachedModel) -> None:
        """Drop a model from main memory, too."""
        if cached.num_loaded:
            self._drop_blocks(cached, None, "host budget")
        self.models.pop(cached.name, None)
        self.events.add("forget", model=cached.name, bytes=cached.parcel.host_bytes)

    def start(self, cached: CachedModel, budget_bytes: int) -> None:
        """Begin to copy as many of the missing blocks as fit; where memory runs out, nothing happens."""
        assert self.arriving is None
        blocks: list[Movable] = []
        num_bytes = 0
        for block, size in zip(
            cached.parcel.blocks[cached.num_loaded :], cached.sizes[cached.num_loaded :], strict=True
        ):
            if num_bytes + size > budget_bytes:
                break
            blocks.append(block)
            num_bytes += size
        if not blocks:
            return
        if self._allocate(cached, blocks) is not None:
            self._free(cached, blocks)
            return
        self.arriving = Arrival(cached, blocks, self.device.transfer(blocks, ahead=True), num_bytes)
        self.stats.prefetches += 1
        self.stats.loaded_bytes += num_bytes
        self.events.add("prefetch", model=cached.name, bytes=num_bytes)

    def arrive(self, cached: CachedModel) -> None:
        """If the model is on its way, wait for it. Raises what a copy raised."""
        arriving = self.arriving
        if arriving is None or arriving.cached is not cached:
            return
        try:
            waited = arriving.transfer.wait()
        except BaseException:
            self.cancel()
            raise
        self.arriving = None
        self._bind(cached, len(arriving.blocks))
        cached.is_new = False
        self.stats.prefetch_hits += 1
        self.stats.stall_s += waited
        self.events.add("arrived", model=cached.name, seconds=round(waited, 6))

    def cancel(self) -> None:
        """Stop what is on its way; the blocks that have arrived stay."""
        arriving, self.arriving = self.arriving, None
        if arriving is None:
            return
        arrived = arriving.transfer.cancel()
        cached = arriving.cached
        self._bind(cached, arrived)
        lost = arriving.blocks[arrived:]
        num_bytes = arriving.num_bytes - sum(cached.sizes[cached.num_loaded - arrived : cached.num_loaded])
        self._free(cached, lost)
        self.stats.loaded_bytes -= num_bytes
        self.events.add("cancelled", model=cached.name, bytes=num_bytes)

    def _drop_blocks(self, cached: CachedModel, num_bytes: int | None, reason: str) -> None:
        if self.arriving and self.arriving.cached is cached:
            self.cancel()
        freed = 0
        while cached.num_loaded and (num_bytes is None or freed < num_bytes):
            cached.num_loaded -= 1
            freed += self._release(cached, cached.num_loaded)
        self.stats.evictions += 1
        self.events.add("evict", model=cached.name, bytes=freed, reason=reason)

    def _allocate(self, cached: CachedModel, blocks: list[Movable]) -> BaseException | None:
        """Take memory for blocks. Returns what went wrong; then `blocks` holds those that have memory."""
        for position, block in enumerate(blocks):
            try:
                self.device.reserve(block.num_bytes)
            except BaseException as error:
                del blocks[position:]
                return error
            try:
                block.allocate()
            except BaseException as error:
                del blocks[position + 1 :]
                return error
        return None

    def _free(self, cached: CachedModel, blocks: Sequence[Movable]) -> None:
        """Give back memory of blocks that the model does not use."""
        for block in blocks:
            block.drop()
            self.device.release(block.num_bytes)
        if not cached.parcel.keeps_host:
            self.models.pop(cached.name, None)

    def _bind(self, cached: CachedModel, num_blocks: int) -> None:
        for block in cached.parcel.blocks[cached.num_loaded : cached.num_loaded + num_blocks]:
            block.bind()
        cached.num_loaded += num_blocks

    def _release(self, cached: CachedModel, position: int) -> int:
        try:
            cached.parcel.blocks[position].drop()
        except Exception as error:  # some quantised modules cannot be moved back: let go of them altogether
            log.warning("%s cannot be moved back and will be read again: %s", cached.name, str(error))
            cached.parcel.keeps_host = False
        if not cached.parcel.keeps_host:
            self.models.pop(cached.name, None)
        self.device.release(cached.parcel.blocks[position].num_bytes)
        return cached.sizes[position]


def smooth(old: float, new: float) -> float:
    """The running mean of measurements, the newest counting most."""
    return new if not old else old + SMOOTHING * (new - old)
