"""Memory of a device in numbers: how much may be ours now, and how much a call needs beyond the weights.

Others on a shared GPU take and give memory over time. What they hold now is respected as a matter of
fact; the most they held within the last minute is respected as a matter of prudence: room that they have
just given back is used only if there is no other.

What calls need is learnt from observation, as an upper envelope. The need of a model for items of one shape
(its bucket) grows with the batch like a + b * n. The envelope is the straight line of least squares through
the largest need seen at every batch size, lifted until no observation lies above. From one batch size alone
nothing is known about a: then larger batches count in proportion and smaller ones as much as the one seen,
both upper bounds as long as a >= 0 and b >= 0.

    Room(device, headroom_bytes=2**28, memory_fraction=0.9).usable_bytes()
    envelope({1: 300, 4: 600}, 8) -> 1000
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from panic.devices.device import OwnMemory
from panic.devices.transfers import format_bytes

WINDOW_S = 60.0
Peaks = Mapping[int, int]
"""Largest need seen in bytes, by batch size."""


@dataclass(slots=True)
class Room:
    """Reads a device's memory and remembers what others held.

    headroom_bytes: left free for others. memory_fraction: share of the device's total memory that may be
    used. window_s: for how long what others held is remembered.
    """

    device: OwnMemory
    headroom_bytes: int = 0
    memory_fraction: float = 1.0
    window_s: float = WINDOW_S
    _held: deque[tuple[float, int]] = field(default_factory=deque)

    def usable_bytes(self, *, prudent: bool = True) -> int:
        """Bytes that we may take now; below zero if we have too much already.

        prudent: others count as if they held the most that they held within the window.
        """
        device = self.device
        free = device.free_bytes() - self.headroom_bytes - self._withheld_bytes()
        others = device.others_bytes()
        most = self._most(others)
        return free - (most - others) if prudent else free

    def describe(self, held_bytes: int) -> str:
        """Say the arithmetic in words. held_bytes: what our own models hold."""
        device = self.device
        parts = {
            "held by models in use": held_bytes,
            "held by others": device.others_bytes(),
            "kept as headroom": self.headroom_bytes,
            "beyond the memory fraction": self._withheld_bytes(),
        }
        taken = ", ".join(f"{format_bytes(num)} {what}" for what, num in parts.items() if num)
        free = format_bytes(max(0, self.usable_bytes(prudent=False)))
        return f"{free} are free of {format_bytes(device.total_bytes())}{f' ({taken})' if taken else ''}"

    def _withheld_bytes(self) -> int:
        """Bytes that the memory fraction leaves alone."""
        whole = self.memory_fraction >= 1.0
        return 0 if whole else round(self.device.total_bytes() * (1.0 - self.memory_fraction))

    def _most(self, others: int) -> int:
        """Rolling maximum in constant time: the deque holds readings that no later one exceeds."""
        now = self.device.now()
        while self._held and self._held[-1][1] <= others:
            self._held.pop()
        self._held.append((now, others))
        while self._held[0][0] < now - self.window_s:
            self._held.popleft()
        return self._held[0][1]


def envelope(peaks: Peaks, batch_size: int) -> int | None:
    """Bytes that a call of this batch size is expected to need at most; None if nothing was seen."""
    if not peaks:
        return None
    if len(peaks) == 1:
        ((size, peak),) = peaks.items()
        return -(-peak * max(batch_size, size) // size)
    sizes, needs = list(peaks), list(peaks.values())
    mean_size, mean_need = sum(sizes) / len(sizes), sum(needs) / len(needs)
    variance = sum((size - mean_size) ** 2 for size in sizes)
    slope = sum((s - mean_size) * (n - mean_need) for s, n in peaks.items()) / variance
    slope = max(0.0, slope)
    base = max(need - slope * size for size, need in peaks.items())
    return round(max(0.0, base) + slope * batch_size)


@dataclass(frozen=True, slots=True)
class Need:
    """Working memory of a call: bytes to make room for, bytes without which it fails for sure, whether any of
    that is more than a guess."""

    wanted: int
    least: int
    is_known: bool


@dataclass(slots=True)
class WorkingMemory:
    """The observations of one device kind, by model name, bucket and batch size.

    margin: the share that is added to what they say.
    """

    peaks: dict[str, dict[int, dict[int, int]]] = field(default_factory=dict)
    margin: float = 0.05

    def observe(self, model: str, bucket: int, batch_size: int, peak_bytes: int) -> bool:
        """Take in what a call needed. Returns whether it is more than was known."""
        known = self.peaks.setdefault(model, {}).setdefault(bucket, {})
        if peak_bytes <= known.get(batch_size, -1):
            return False
        known[batch_size] = peak_bytes
        return True

    def seen(self, model: str, bucket: int, batch_size: int) -> int:
        """The most that a call of this very shape has needed; 0 if there was none."""
        return self.peaks.get(model, {}).get(bucket, {}).get(batch_size, 0)

    def most(self, model: str) -> int:
        """The most that any call of a model has needed."""
        return max(
            (need for peaks in self.peaks.get(model, {}).values() for need in peaks.values()), default=0
        )

    def estimate(self, model: str, bucket: int, batch_size: int) -> int | None:
        """Bytes to keep free for a call; None if the model has not been seen.

        Items of a shape that has not been seen count as the most demanding one that has.
        """
        buckets = self.peaks.get(model, {})
        known = [buckets[bucket]] if bucket in buckets else list(buckets.values())
        needs = [envelope(peaks, batch_size) or 0 for peaks in known]
        return round(max(needs) * (1 + self.margin)) if needs else None

    def need(
        self, model: str, bucket: int, batch_size: int, stated: Callable[[int], int] | None = None
    ) -> Need:
        """The need of a call: what was seen or, for a model that has not been seen, what it states itself.

        stated: the bytes that the model says a call of a batch size needs.
        """
        learnt = self.estimate(model, bucket, batch_size)
        if learnt is not None:
            return Need(learnt, self.seen(model, bucket, batch_size), True)
        num_bytes = stated(batch_size) if stated else 0
        return Need(num_bytes, num_bytes, stated is not None)
