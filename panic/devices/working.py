"""Working memory learnt from observation: what calls have needed beyond the weights, as an upper envelope.

The need of a model at one image size grows with the batch like a + b * n. The envelope is the straight line
of least squares through the largest need seen at every batch size, lifted until no observation lies above.
Of one batch size only, nothing is known about a: then larger batches count in proportion and smaller ones
as much as the one seen, both upper bounds as long as a >= 0 and b >= 0.

    envelope({1: 300, 4: 600}, 8) -> 1000
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

Peaks = Mapping[int, int]
"""Largest need seen in bytes, by batch size."""


def envelope(peaks: Peaks, batch_size: int) -> int | None:
    """Bytes that a call of this batch size is expected to need at most; None if nothing was seen."""
    if not peaks:
        return None
    if batch_size in peaks and len(peaks) == 1:
        return peaks[batch_size]
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


@dataclass(slots=True)
class WorkingMemory:
    """The observations of one device kind, by model name; `margin` is added to what they say."""

    peaks: dict[str, dict[int, int]] = field(default_factory=dict)
    margin: float = 0.05

    def observe(self, model: str, batch_size: int, peak_bytes: int) -> bool:
        """Take in what a call needed; whether it is more than was known."""
        known = self.peaks.setdefault(model, {})
        if peak_bytes <= known.get(batch_size, -1):
            return False
        known[batch_size] = peak_bytes
        return True

    def estimate(self, model: str, batch_size: int) -> int | None:
        """Bytes to keep free for a call; None if the model has not been seen."""
        bytes_ = envelope(self.peaks.get(model, {}), batch_size)
        return None if bytes_ is None else round(bytes_ * (1 + self.margin))
