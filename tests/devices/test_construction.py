"""Models in main memory: no room to construct them, and models that hold themselves by cycles."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest

from panic.devices.cache import ModelCache
from panic.devices.host import HostTier
from panic.devices.simulated import SimulatedDevice
from panic.errors import ModelDoesNotFit
from tests.devices.test_contract import MIB, Layers, call

loaded: weakref.WeakSet[Cyclic] = weakref.WeakSet()


class Cyclic(Layers):
    """As many models of libraries are: reachable from itself."""

    def __init__(self, name: str, size_bytes: int) -> None:
        super().__init__(name, size_bytes)
        self.itself = self

    def load(self, device: str) -> None:
        loaded.add(self)


def test_no_room_in_main_memory_is_no_reason_for_a_smaller_batch() -> None:
    def build(name: str) -> Any:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory")

    cache = ModelCache(SimulatedDevice(name="sim", capacity_bytes=64 * MIB), build)
    with pytest.raises(ModelDoesNotFit, match=r"a: no room in memory to construct it \(.* are free now\)"):
        call(cache, "a")


def test_what_building_raises_comes_through() -> None:
    def build(name: str) -> Any:
        raise ValueError("a bug")

    cache = ModelCache(SimulatedDevice(name="sim", capacity_bytes=64 * MIB), build)
    with pytest.raises(ValueError, match="a bug"):
        call(cache, "a")


class MainMemory(SimulatedDevice):
    """As the CPU: no copy is kept of what is dropped, and free is what the models leave."""

    def free_bytes(self) -> int:
        return self.capacity_bytes - sum(model.size_bytes for model in loaded)


def test_memory_of_models_that_hold_themselves_comes_free_before_another_one_goes() -> None:
    gc.collect()
    gc.disable()
    try:
        device = MainMemory(name="cpu", capacity_bytes=100 * MIB, has_own_memory=False)
        cache = ModelCache(device, lambda name: Cyclic(name, 32 * MIB))
        for name in "abcd":
            call(cache, name)
    finally:
        gc.enable()
    assert cache.stats.evictions == 1
    assert cache.resident == {"b", "c", "d"}


def test_a_forgotten_model_that_holds_itself_leaves_main_memory() -> None:
    device = SimulatedDevice(name="sim", capacity_bytes=1024 * MIB)
    models: list[weakref.ref[Any]] = []
    cache = ModelCache(device, lambda name: Cyclic(name, 4 * MIB), host=HostTier(8 * MIB))
    gc.disable()
    try:
        for name in "abc":
            call(cache, name)
            models.append(weakref.ref(cache._here.entries[name].model))
        is_gone = [model() is None for model in models]
    finally:
        gc.enable()
    assert is_gone == [True, False, False]
