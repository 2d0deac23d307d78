"""Working memory learnt from observation: what calls have needed beyond the weights, as an upper envelope.

The need of a model for items of one shape (its bucket) grows with the batch like a + b * n. The envelope is
the straight line of least squares through the largest need seen at every batch size, lifted until no
observation lies above. Of one batch size only, nothing is known about a: then larger batches count in
proportion and smaller ones as much as the one seen, both upper bounds as long as a >= 0 and b >= 0.

    envelope({1: 300, 4: 600}, 8) -> 1000
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

Peaks = Mapping[int, int]
"""Largest need seen in bytes, by batch size."""


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

    margin: added to what they say.
    """

    peaks: dict[str, dict[int, dict[int, int]]] = field(default_factory=dict)
    margin: float = 0.05

    def observe(self, model: str, bucket: int, batch_size: int, peak_bytes: int) -> bool:
        """Take in what a call needed; whether it is more than was known."""
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
        self, model: str, bucket: int, batch_size: int, told: Callable[[int], int] | None = None
    ) -> Need:
        """Of a call: what was seen or, of a model that has not been seen, what it says itself."""
        learnt = self.estimate(model, bucket, batch_size)
        if learnt is not None:
            return Need(learnt, self.seen(model, bucket, batch_size), True)
        said = told(batch_size) if told else 0
        return Need(said, said, told is not None)
