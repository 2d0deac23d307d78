"""What is on a device: models as blocks that are loaded, dropped, and brought ahead of time.

The mechanism below the cache: it does what it is told, keeps the books (`CacheStats`, events) and leaves
nothing behind when something fails. A model's first `num_here` blocks are bound, that is on the device and
used by it; blocks on their way are bound only after their copy has ended.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from panic.devices.device import Device, Transfer
from panic.devices.events import CacheStats, EventLog
from panic.devices.parcels import Movable, Parcel
from panic.models.protocol import Model

log = logging.getLogger("panic.devices")

SMOOTHING = 0.3
"""Weight of the newest measurement of a call's duration and of the bus."""


@dataclass(slots=True, kw_only=True)
class Entry:
    """A constructed model.

    sizes: what its blocks take on the device. is_new: not yet loaded once. fell_short: its last call failed.
    outgrown_bytes: of an offloaded model, whose layers come one after another while it computes, the room
    that was not enough for it as a whole.
    """

    name: str
    model: Model
    parcel: Parcel
    sizes: list[int]
    num_here: int = 0
    leases: int = 0
    is_new: bool = True
    fell_short: bool = False
    outgrown_bytes: int | None = None
    compute_s: float = 0.0

    @property
    def size(self) -> int:
        return sum(self.sizes)

    @property
    def is_offloaded(self) -> bool:
        return self.outgrown_bytes is not None

    @property
    def told(self) -> Callable[[int], int] | None:
        """What the model says that a call of a batch size needs beyond the weights, if it does."""
        said: Callable[[int], int] | None = getattr(self.model, "working_bytes", None)
        return said

    @property
    def known_as(self) -> str:
        """Under which name working memory is learnt: an offloaded model's has layers in it."""
        return f"{self.name} in layers" if self.is_offloaded else self.name

    @property
    def here(self) -> int:
        """Bytes on the device."""
        return sum(self.sizes[: self.num_here])

    @property
    def is_complete(self) -> bool:
        return self.num_here == len(self.sizes)


@dataclass(slots=True)
class Coming:
    """Blocks of a model on their way to the device."""

    entry: Entry
    blocks: list[Movable]
    transfer: Transfer
    num_bytes: int


@dataclass(slots=True)
class Residency:
    """The models of one device, least recently used first.

    rate_bytes_per_s: of the bus, as measured; 0 until something was loaded from main memory.
    """

    device: Device
    stats: CacheStats
    events: EventLog
    entries: dict[str, Entry] = field(default_factory=dict)
    coming: Coming | None = None
    rate_bytes_per_s: float = 0.0

    def held(self) -> dict[str, int]:
        """Bytes on the device or on their way there, by model."""
        held = {name: entry.here for name, entry in self.entries.items()}
        if self.coming:
            held[self.coming.entry.name] += self.coming.num_bytes
        return {name: num_bytes for name, num_bytes in held.items() if num_bytes}

    def add(self, name: str, model: Model, parcel: Parcel) -> Entry:
        """Take in a constructed model."""
        sizes = [self.device.rounded(block.num_bytes) for block in parcel.blocks]
        self.stats.builds += 1
        self.entries[name] = Entry(name=name, model=model, parcel=parcel, sizes=sizes)
        return self.entries[name]

    def touch(self, entry: Entry) -> None:
        """Count a model as the one used last."""
        self.entries[entry.name] = self.entries.pop(entry.name)

    def load(self, entry: Entry) -> BaseException | None:
        """Bring the missing blocks now; what went wrong, if so with nothing left behind."""
        started, num_bytes = self.device.now(), entry.size - entry.here
        blocks = list(entry.parcel.blocks[entry.num_here :])
        failure = self._allocate(entry, blocks)
        if failure is None:
            try:
                self.device.transfer(blocks, ahead=False).wait()
            except BaseException as error:
                failure = error
        if failure is not None:
            self._free(entry, blocks)
            return failure
        self._bind(entry, len(blocks))
        seconds = self.device.now() - started
        tier = "disk" if entry.is_new else "host"
        if not entry.is_new and seconds > 0:
            self.rate_bytes_per_s = smooth(self.rate_bytes_per_s, num_bytes / seconds)
        entry.is_new = False
        self.stats.loads += 1
        self.stats.loaded_bytes += num_bytes
        self.stats.load_s += seconds
        self.stats.stall_s += seconds
        self.events.add("load", model=entry.name, bytes=num_bytes, tier=tier, seconds=round(seconds, 6))
        return None

    def drop(self, entry: Entry, num_bytes: int | None, reason: str) -> None:
        """Drop blocks from the end until at least `num_bytes` have come free; None drops all."""
        if self.coming and self.coming.entry is entry:
            self.cancel()
        freed = 0
        while entry.num_here and (num_bytes is None or freed < num_bytes):
            entry.num_here -= 1
            freed += self._release(entry, entry.num_here)
        self.stats.evictions += 1
        self.events.add("evict", model=entry.name, bytes=freed, reason=reason)

    def forget(self, entry: Entry) -> None:
        """Drop a model from main memory, too."""
        if entry.num_here:
            self.drop(entry, None, "host budget")
        self.entries.pop(entry.name, None)
        self.events.add("forget", model=entry.name, bytes=entry.parcel.host_bytes)

    def start(self, entry: Entry, budget_bytes: int) -> None:
        """Begin to copy as many of the missing blocks as fit; it is only a try."""
        assert self.coming is None
        blocks: list[Movable] = []
        num_bytes = 0
        for block, size in zip(
            entry.parcel.blocks[entry.num_here :], entry.sizes[entry.num_here :], strict=True
        ):
            if num_bytes + size > budget_bytes:
                break
            blocks.append(block)
            num_bytes += size
        if not blocks:
            return
        if self._allocate(entry, blocks) is not None:
            self._free(entry, blocks)
            return
        self.coming = Coming(entry, blocks, self.device.transfer(blocks, ahead=True), num_bytes)
        self.stats.prefetches += 1
        self.stats.loaded_bytes += num_bytes
        self.stats.prefetched_bytes += num_bytes
        self.events.add("prefetch", model=entry.name, bytes=num_bytes)

    def arrive(self, entry: Entry) -> None:
        """If the model is on its way, wait for it. Raises what a copy raised."""
        coming = self.coming
        if coming is None or coming.entry is not entry:
            return
        try:
            waited = coming.transfer.wait()
        except BaseException:
            self.cancel()
            raise
        self.coming = None
        self._bind(entry, len(coming.blocks))
        entry.is_new = False
        self.stats.prefetch_hits += 1
        self.stats.stall_s += waited
        self.events.add("arrived", model=entry.name, seconds=round(waited, 6))

    def cancel(self) -> None:
        """Stop what is on its way; the blocks that have arrived stay."""
        coming, self.coming = self.coming, None
        if coming is None:
            return
        arrived = coming.transfer.cancel()
        entry = coming.entry
        self._bind(entry, arrived)
        lost = coming.blocks[arrived:]
        num_bytes = coming.num_bytes - sum(entry.sizes[entry.num_here - arrived : entry.num_here])
        self._free(entry, lost)
        self.stats.loaded_bytes -= num_bytes
        self.stats.prefetched_bytes -= num_bytes
        self.events.add("cancelled", model=entry.name, bytes=num_bytes)

    def _allocate(self, entry: Entry, blocks: list[Movable]) -> BaseException | None:
        """Take memory for blocks; what went wrong. Then `blocks` holds those that have memory."""
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

    def _free(self, entry: Entry, blocks: Sequence[Movable]) -> None:
        """Give back memory of blocks that the model does not use."""
        for block in blocks:
            block.drop()
            self.device.release(block.num_bytes)
        if not entry.parcel.keeps_host:
            self.entries.pop(entry.name, None)

    def _bind(self, entry: Entry, num_blocks: int) -> None:
        for block in entry.parcel.blocks[entry.num_here : entry.num_here + num_blocks]:
            block.bind()
        entry.num_here += num_blocks

    def _release(self, entry: Entry, position: int) -> int:
        try:
            entry.parcel.blocks[position].drop()
        except Exception as error:  # some quantised modules cannot be moved back: let go of them altogether
            log.warning("%s cannot be moved back and will be read again: %s", entry.name, str(error))
            entry.parcel.keeps_host = False
        if not entry.parcel.keeps_host:
            self.entries.pop(entry.name, None)
        self.device.release(entry.parcel.blocks[position].num_bytes)
        return entry.sizes[position]


def smooth(old: float, new: float) -> float:
    """The running mean of measurements, the newest counting most."""
    return new if not old else old + SMOOTHING * (new - old)
