"""What the parts of this benchmark share: models, a device, clocks, and figures with goals."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_model

from benchmarks.gpu.cache_parts.nets import Net, synchronise
from benchmarks.record import record
from panic.devices.cache import ModelCache
from panic.devices.device import Device
from panic.devices.simulated import SimulatedDevice

GB = 10**9
COMMAND = "python -m benchmarks.gpu.cache"
REHEARSED_BYTES = {"unet": 2_000_000, "transformer": 500_000, "captioner": 300_000}
"""Working memory of a call in a rehearsal, where no allocator tells it."""


@dataclass(slots=True, kw_only=True)
class Bench:
    """Models, a device, a folder, what is known about the bus, and which goals were missed."""

    device: Device
    rehearse: bool
    folder: Path
    pinned_rate: float = 0.0
    nets: dict[str, Net] = field(default_factory=dict)
    missed: list[str] = field(default_factory=list)

    def net(self, name: str) -> Net:
        if name not in self.nets:
            self.nets[name] = Net(name, self.rehearse, self.device.torch_name)
            self.clean()
        return self.nets[name]

    def clean(self) -> None:
        gc.collect()
        if not self.rehearse:
            torch.cuda.empty_cache()

    def keep(
        self,
        name: str,
        value: float,
        *,
        at_least: float | None = None,
        at_most: float | None = None,
        **fields: Any,
    ) -> None:
        """Print and store a figure; note it if it misses its goal."""
        is_low = at_least is not None and not value >= at_least  # also where it is no number
        is_high = at_most is not None and not value <= at_most
        if is_low or is_high:
            self.missed.append(f"{name}: {value:.4g}, goal {at_least if is_low else at_most:g}")
        print(f"{name:<45} {value:10.4g} {fields}")
        if not self.rehearse:
            limit = at_most if at_least is None else at_least
            record(f"gpu_cache.{name}", value, limit=limit, file="gpu_cache", command=COMMAND, **fields)

    def seconds(self, action: Callable[[], Any], times: int = 3) -> float:
        """The shortest of some runs, everything on the device included."""
        return min(self._timed(action, time.perf_counter) for _ in range(times))

    def device_seconds(self, action: Callable[[], Any], times: int = 3) -> float:
        """The same on the device's clock, which on a simulated one counts copies as if there were a bus."""
        return min(self._timed(action, self.device.now) for _ in range(times))

    def _timed(self, action: Callable[[], Any], clock: Callable[[], float]) -> float:
        synchronise(self.device.torch_name)
        started = clock()
        action()
        synchronise(self.device.torch_name)
        return clock() - started

    @contextmanager
    def cache(self, num_bytes: float) -> Iterator[ModelCache]:
        """A cache that may use that many bytes of what is free."""
        fraction = 1 - (self.device.free_bytes() - num_bytes) / self.device.total_bytes()
        cache = ModelCache(self.device, self.net, memory_fraction=min(1.0, fraction))
        try:
            yield cache
        finally:
            cache.close()
            self.clean()

    def call(self, cache: ModelCache, name: str, calls: int, upcoming: Sequence[str] = ()) -> None:
        """Lease a model and have it compute."""
        num_bytes = REHEARSED_BYTES[name] if self.rehearse else 0
        with cache.lease(name, 1, upcoming) as model, taken(self.device, num_bytes):
            model.invoke([0] * calls, [])

    # Weights in files

    def file(self, name: str) -> Path:
        """The weights of a model, written when they are first asked for."""
        path = self.folder / f"{name}.safetensors"
        if not path.exists():
            save_model(self.net(name).net, str(path))
        return path

    def read(self, name: str) -> None:
        """What a program without a cache does before a step: weights from a file to the device."""
        for tensor in load_file(str(self.file(name))).values():
            tensor.to(self.device.torch_name)

    def move(self, name: str) -> None:
        """What a program does that makes room by hand: there and back again."""
        self.net(name).load(self.device.torch_name)
        self.net(name).load("cpu")


@contextmanager
def taken(device: Device, num_bytes: int) -> Iterator[None]:
    """Working memory of a call. Raises what the device's allocator raises."""
    if isinstance(device, SimulatedDevice):
        device.use(num_bytes)
        yield
        device.use(-num_bytes)
    else:
        memory = torch.empty(num_bytes, dtype=torch.uint8, device=device.torch_name)
        yield
        del memory
