"""Which of several devices serves which model: copies where all fit, else a balanced and sticky partition.

When every device holds all models, each gets all: then any of them can serve what is waiting, and none waits
for another. Otherwise every model has one device, so that the busiest one is done as early as possible:
computing as measured, and the bytes that must move where a device's models do not fit together. To place a
model elsewhere means to read it there, so what was decided stays unless a change is worth it.

    place({"draw": 8.0, "say": 2.0, "look": 3.0}, sizes, {"cuda:0": 24 * GB, "cuda:1": 24 * GB})
    -> {"draw": ("cuda:0",), "say": ("cuda:1",), "look": ("cuda:1",)}
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import product

from panic.devices.planning import State, Use
from panic.devices.replay import replay
from panic.errors import ModelDoesNotFit

MIN_GAIN = 0.1
"""Share of a cycle's seconds that a new placement must save to replace the old one."""
MAX_TRIED = 4096
"""Partitions that are all looked at; where there are more, one is improved step by step."""

Placement = dict[str, tuple[str, ...]]
"""The devices of every model."""


@dataclass(slots=True)
class Costs:
    """Seconds per cycle of a device with some models.

    Args:
        load_s: seconds of computing per cycle, by model, as measured.
        sizes: bytes by model.
        devices: bytes that may be used, by device.
        rate_bytes_per_s: how fast weights come from main memory to a device.
    """

    load_s: Mapping[str, float]
    sizes: Mapping[str, int]
    devices: Mapping[str, int]
    rate_bytes_per_s: float = float("inf")
    _known: dict[tuple[int, frozenset[str]], float] = field(default_factory=dict)

    def fits(self, device: str, models: Iterable[str]) -> bool:
        """Whether models fit together."""
        return sum(self.sizes[name] for name in models) <= self.devices[device]

    def of(self, device: str, models: frozenset[str]) -> float:
        """Seconds of computing and of moving what does not fit; infinite if a model does not fit at all."""
        key = (self.devices[device], models)
        if key not in self._known:
            self._known[key] = sum(self.load_s[name] for name in models) + self._moving(device, models)
        return self._known[key]

    def _moving(self, device: str, models: frozenset[str]) -> float:
        if self.fits(device, models):
            return 0.0
        cycle = [Use(name) for name in sorted(models)]
        state = State(capacity_bytes=self.devices[device], sizes=self.sizes)
        try:
            return replay(state, cycle).bytes_per_cycle / self.rate_bytes_per_s
        except ModelDoesNotFit:
            return float("inf")

    def of_all(self, partition: Mapping[str, str]) -> tuple[float, float]:
        """(seconds of the busiest device, of all together)."""
        each = [
            self.of(device, frozenset(name for name, place in partition.items() if place == device))
            for device in self.devices
        ]
        return max(each), sum(each)


def place(
    load_s: Mapping[str, float],
    sizes: Mapping[str, int],
    devices: Mapping[str, int],
    *,
    rate_bytes_per_s: float = float("inf"),
    before: Mapping[str, tuple[str, ...]] | None = None,
) -> Placement:
    """The devices of every model.

    Args: see `Costs`.
        before: the placement that there is; models may have come and devices gone since.
    Raises: ModelDoesNotFit if a model is larger than every device.
    """
    costs = Costs(load_s, sizes, devices, rate_bytes_per_s)
    too_large = [name for name in load_s if sizes[name] > max(devices.values())]
    if too_large:
        raise ModelDoesNotFit(f"{', '.join(sorted(too_large))}: larger than every device")
    if all(costs.fits(device, load_s) for device in devices):
        return {name: tuple(devices) for name in load_s}
    stays = {
        name: places[0]
        for name, places in (before or {}).items()
        if name in load_s and len(places) == 1 and sizes[name] <= devices.get(places[0], -1)
    }
    old = _completed(stays, costs)
    new = _exact(costs) if len(devices) ** len(load_s) <= MAX_TRIED else _improved(old, costs)
    is_kept = bool(stays) and costs.of_all(new)[0] >= (1 - MIN_GAIN) * costs.of_all(old)[0]
    return {name: (device,) for name, device in (old if is_kept else new).items()}


def _completed(partition: Mapping[str, str], costs: Costs) -> dict[str, str]:
    """Place what has no place, longest computing first, each where the busiest device stays least busy."""
    placed = dict(partition)
    missing = [name for name in costs.load_s if name not in placed]
    for name in sorted(missing, key=lambda name: (-costs.load_s[name], name)):
        choices = [placed | {name: device} for device in costs.devices]
        placed = min(choices, key=costs.of_all)
    return {name: placed[name] for name in costs.load_s}


def _exact(costs: Costs) -> dict[str, str]:
    names = list(costs.load_s)
    places = product(costs.devices, repeat=len(names))
    return min((dict(zip(names, each, strict=True)) for each in places), key=costs.of_all)


def _improved(partition: Mapping[str, str], costs: Costs) -> dict[str, str]:
    """Move single models, and exchange two, as long as that helps."""
    best = dict(partition)
    while True:
        moves = [best | {name: device} for name in best for device in costs.devices]
        swaps = [best | {a: best[b], b: best[a]} for a in best for b in best if best[a] < best[b]]
        found = min([*moves, *swaps], key=costs.of_all)
        if costs.of_all(found) >= costs.of_all(best):
            return best
        best = found
