"""The model cache: loads on use, evicts what is needed furthest in the future.

A lease makes a model resident and keeps it so until it is given back. Before a load, models are evicted
one at a time, furthest next use first, until the weights and the working memory of a call fit into what
is *then* free on the device. What is leased is never evicted. Not thread safe: one cache belongs to the
one thread that runs models on its device.

    with cache.lease("sd-turbo", batch_size=8, upcoming=["blip", "sd-turbo"]) as model:
        model.invoke(prompts, seeds)
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from panic.devices.device import Device, format_bytes, is_out_of_memory
from panic.errors import ModelDoesNotFit, OutOfMemory
from panic.models.protocol import Model


@dataclass(slots=True, kw_only=True)
class CacheStats:
    """What the cache did: counts, and seconds spent loading."""

    hits: int = 0
    loads: int = 0
    evictions: int = 0
    loaded_bytes: int = 0
    load_s: float = 0.0


@dataclass(slots=True)
class _Resident:
    model: Model
    size_bytes: int
    leases: int = 0
    last_use: int = 0


@dataclass(slots=True)
class ModelCache:
    """Models resident on one device.

    Args:
        device: where they live.
        build: constructs a model by name, weights not yet on the device.
        headroom_bytes: left free for others.
        memory_fraction: share of the device's total memory that may be used.
    """

    device: Device
    build: Callable[[str], Model]
    headroom_bytes: int = 0
    memory_fraction: float = 1.0
    stats: CacheStats = field(default_factory=CacheStats)
    _resident: dict[str, _Resident] = field(default_factory=dict)
    _clock: int = 0

    @property
    def resident(self) -> frozenset[str]:
        """Names of the models on the device."""
        return frozenset(self._resident)

    @contextmanager
    def lease(self, name: str, batch_size: int, upcoming: Sequence[str] = ()) -> Iterator[Model]:
        """Yield the named model, loaded, with room for a call of the given batch size.

        Args:
            upcoming: names of the models needed next, in order; empty means unknown (then LRU).

        Raises: ModelDoesNotFit if the weights alone are too large, OutOfMemory if there is no room for the
        call's working memory (both with the arithmetic), or what building or loading the model raises.
        """
        self._clock += 1
        entry = self._resident.get(name)
        if entry is None:
            entry = self._load(name, batch_size, upcoming)
        else:
            self.stats.hits += 1
        entry.leases += 1
        entry.last_use = self._clock
        try:
            working = _working_bytes(entry.model, batch_size)
            self._make_room(name, working, upcoming)
            self.device.reserve(working)
            try:
                yield entry.model
            finally:
                self.device.release(working)
        finally:
            entry.leases -= 1

    def evict(self, name: str) -> None:
        """Drop a model that is not in use."""
        entry = self._resident[name]
        assert entry.leases == 0, f"{name} is in use"
        del self._resident[name]
        size_bytes = entry.size_bytes
        del entry
        gc.collect()
        self.device.release(size_bytes)
        self.stats.evictions += 1

    def evict_idle(self) -> int:
        """Drop everything that is not in use; returns how many models that were."""
        idle = [name for name, entry in self._resident.items() if not entry.leases]
        for name in idle:
            self.evict(name)
        return len(idle)

    def _load(self, name: str, batch_size: int, upcoming: Sequence[str]) -> _Resident:
        start = time.perf_counter()
        model = self.build(name)
        size = model.size_bytes
        try:
            self._make_room(name, size, upcoming)
        except OutOfMemory as error:
            raise ModelDoesNotFit(error.message, hint=error.hint) from None
        self._make_room(name, size + _working_bytes(model, batch_size), upcoming)
        self.device.reserve(size)
        try:
            model.load(self.device.torch_name)
        except BaseException as error:
            del model
            self.device.release(size)
            if is_out_of_memory(error):
                raise ModelDoesNotFit(
                    f"{name}: no room on {self.device.name} while its weights were loaded "
                    f"({format_bytes(size)}; {format_bytes(self._usable_bytes())} are free now)"
                ) from None
            raise
        entry = _Resident(model, size)
        self._resident[name] = entry
        self.stats.loads += 1
        self.stats.loaded_bytes += size
        self.stats.load_s += time.perf_counter() - start
        return entry

    def _make_room(self, name: str, needed: int, upcoming: Sequence[str]) -> None:
        if not needed:
            return  # asking the CPU how much is free takes 0.4 ms, at every call of a model
        while (free := self._usable_bytes()) < needed:
            victim = self._victim(name, upcoming)
            if victim is None:
                in_use = sum(entry.size_bytes for entry in self._resident.values())
                raise OutOfMemory(
                    f"{name} needs {format_bytes(needed)} more on {self.device.name}: {format_bytes(free)} "
                    f"are free of {format_bytes(self.device.total_bytes())} ({format_bytes(in_use)} held by "
                    f"models in use, {format_bytes(self.headroom_bytes)} kept as headroom)",
                    hint="Use a smaller batch size, a smaller dtype, another device, or less headroom.",
                )
            self.evict(victim)

    def _usable_bytes(self) -> int:
        free = self.device.free_bytes()
        if self.memory_fraction < 1.0:
            total = self.device.total_bytes()
            free -= int(total * (1.0 - self.memory_fraction))
        return free - self.headroom_bytes

    def _victim(self, wanted: str, upcoming: Sequence[str]) -> str | None:
        """The idle model that is needed furthest in the future; least recently used among the unknown."""
        idle = [(n, entry) for n, entry in self._resident.items() if not entry.leases and n != wanted]
        if not idle:
            return None
        next_use: dict[str, int] = {}
        for distance, name in enumerate(upcoming):
            next_use.setdefault(name, distance)
        return max(idle, key=lambda pair: (next_use.get(pair[0], len(upcoming)), -pair[1].last_use))[0]


def _working_bytes(model: Model, batch_size: int) -> int:
    estimate: Callable[[int], int] | None = getattr(model, "working_bytes", None)
    return estimate(batch_size) if estimate else 0
