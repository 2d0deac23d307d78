"""Which of several devices serves which model, while an experiment is performed.

Where all generative models fit on each device, any device serves any batch. Otherwise `place` decides from
bytes and from seconds of computing: as seen in the store before, and as measured now; it is asked again when
a measurement has changed by a quarter, or a device is left out. What it decided stays unless a change is
worth it.

    placing = open_placing(plan, device, times=reading.model_times(store))
    placing.serves("cuda:1", "draw")
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from panic.devices.device import Device, members
from panic.devices.placement import Placement, place
from panic.engine.plan import Plan, weight_bytes
from panic.store.reading import ModelTime

log = logging.getLogger("panic.engine")

WORTH_ASKING = 0.25
"""Share by which the seconds of a model's item must have changed before its place is decided anew."""
RATE_BYTES_PER_S = 10e9
"""Of weights on their way to a device; a slow bus of today, pinned (docs/design.md, section 3)."""
GUESSED_S_PER_BYTE = 1e-9
"""Seconds of an item for each byte of weights, while no model has been measured: larger ones take longer."""


@dataclass(slots=True, kw_only=True)
class Placing:
    """The places of models, by name; none where every device serves all.

    devices: bytes for weights, by device. sizes: bytes of weights, by model. items: that each model is to
    compute in all. seconds: of an item, as the last decision took them. seen: models whose seconds were
    measured before.
    """

    devices: dict[str, int]
    sizes: Mapping[str, int]
    generative: frozenset[str]
    items: Mapping[str, float]
    seconds: dict[str, float]
    seen: frozenset[str] = frozenset()
    places: Placement = field(default_factory=dict)
    _measured: dict[str, tuple[float, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._decide()

    @property
    def is_copied(self) -> bool:
        """Whether every device serves every model."""
        return not self.places

    def serves(self, device: str, model: str) -> bool:
        """Whether calls of a model may be given to a device."""
        return device in self.devices and device in self.places.get(model, (device,))

    def measured(self, model: str, seconds: float, num_items: int) -> None:
        """Take notice of a call; where models have places, they are decided anew if it tells enough."""
        before_s, before_items = self._measured.get(model, (0.0, 0))
        total_s, total_items = before_s + seconds, before_items + num_items
        self._measured[model] = total_s, total_items
        if self.is_copied or model not in self.places or not total_items:
            return
        now, then = total_s / total_items, self.seconds[model]
        if abs(now - then) > WORTH_ASKING * then:
            self.seconds = {name: self._seconds(name) for name in self.seconds}
            self._decide()

    def leave_out(self, device: str) -> None:
        """Place the models of a device elsewhere."""
        del self.devices[device]
        self._decide()

    def _seconds(self, model: str) -> float:
        total_s, num_items = self._measured.get(model, (0.0, 0))
        return total_s / num_items if num_items else self.seconds[model]

    def _decide(self) -> None:
        most = max(self.devices.values())
        fitting = {name: min(size, most) for name, size in self.sizes.items()}  # else it comes in layers
        before = self.places
        if all(sum(fitting[name] for name in self.generative) <= room for room in self.devices.values()):
            self.places = {}
            return
        load = {name: self.items[name] * self.seconds[name] for name in self.sizes}
        self.places = place(
            load, fitting, self.devices, rate_bytes_per_s=RATE_BYTES_PER_S, before=before or None
        )
        if before and self.places != before:
            log.info("models are placed anew: %s", self.described())

    def described(self) -> str:
        """What each device serves, as a sentence without an end."""
        if self.is_copied:
            return "every device serves all models"
        served = {
            device: [name for name in self.sizes if self.serves(device, name)] for device in self.devices
        }
        return "; ".join(f"{device}: {', '.join(names) or 'nothing'}" for device, names in served.items())


def open_placing(
    plan: Plan,
    device: Device,
    times: Iterable[ModelTime] = (),
    peaks: Mapping[str, Mapping[int, Mapping[int, int]]] | None = None,
) -> Placing:
    """The places of a plan's models on the devices of a group.

    Args:
        times: what has been seen of models, by name.
        peaks: memory that calls took beyond the weights, as `MemorySettings` has it; the most stays free.
    """
    sizes = {name: weight_bytes(plan, name) for name in plan.local}
    seen = {time.model: time.duration_s / time.items for time in times if time.items and time.duration_s}
    working = max(
        (b for buckets in (peaks or {}).values() for one in buckets.values() for b in one.values()), default=0
    )
    config = plan.config
    return Placing(
        devices={
            one.name: max(0, int(one.total_bytes() * config.memory_fraction) - config.headroom - working)
            for one in members(device)
        },
        sizes=sizes,
        generative=frozenset(plan.generative) & sizes.keys(),
        items=_items(plan),
        seconds={name: seen.get(name) or max(1, size) * GUESSED_S_PER_BYTE for name, size in sizes.items()},
        seen=frozenset(seen) & sizes.keys(),
    )


def _items(plan: Plan) -> dict[str, float]:
    """How many items each model is to compute if no run gets stuck, in the long run."""
    found: Counter[str] = Counter()
    alike = Counter((run.network, run.arm, run.max_length) for run in plan.runs)
    example = {(run.network, run.arm, run.max_length): run for run in plan.runs}
    items: dict[str, float] = dict.fromkeys(plan.specs, 0.0)
    for key, number in alike.items():
        run = example[key]
        models = plan.models_of(run)
        for name in models:
            items[name] += number * run.max_length / len(models)
        for name, spec in plan.embedding.items():
            found[name] += number * sum(plan.num_outputs(run, kind) for kind in spec.modalities_in)
    return items | found
