"""The model cache on a simulated device: exact bytes, furthest next use first, nothing in use evicted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from panic.devices.cache import ModelCache
from panic.devices.device import open_device
from panic.devices.planning import Use
from panic.devices.room import Need
from panic.devices.simulated import SimulatedDevice
from panic.errors import ModelDoesNotFit, OutOfMemory, UsageError

MIB = 2**20


@dataclass
class Weights:
    """A model of a given size; `working` bytes per item of a batch."""

    size_bytes: int
    working: int = 0
    modality_in = modality_out = "text"
    broken: bool = False

    def load(self, device: str) -> None:
        if self.broken:
            raise OSError("disk error")

    def invoke(self, inputs: Sequence[Any], seeds: Sequence[int]) -> Sequence[Any]:
        return inputs

    def working_bytes(self, batch_size: int) -> int:
        return self.working * batch_size


def make_cache(capacity: int, **sizes: int | Weights) -> tuple[ModelCache, SimulatedDevice]:
    device = SimulatedDevice(name="sim", capacity_bytes=capacity)

    def build(name: str) -> Weights:
        size = sizes[name]
        return size if isinstance(size, Weights) else Weights(size)

    return ModelCache(device, build), device


def use(cache: ModelCache, *names: str, upcoming: Sequence[str] = ()) -> None:
    for name in names:
        with cache.lease(name, 1, upcoming):
            pass


def test_everything_that_fits_is_loaded_once() -> None:
    cache, device = make_cache(10, a=4, b=6)
    use(cache, "a", "b", "a", "b", "a")
    assert (cache.stats.loads, cache.stats.hits, cache.stats.evictions) == (2, 3, 0)
    assert device.allocated_bytes == 10


def test_evicts_what_is_needed_furthest_in_the_future() -> None:
    cache, _ = make_cache(10, a=5, b=5, c=5)
    use(cache, "a", "b")
    use(cache, "c", upcoming=["b", "a"])
    assert cache.resident == {"b", "c"}


def test_unknown_future_evicts_the_least_recently_used() -> None:
    cache, _ = make_cache(10, a=5, b=5, c=5)
    use(cache, "a", "b", "a", "c")
    assert cache.resident == {"a", "c"}


def test_in_use_is_never_evicted() -> None:
    cache, device = make_cache(10, a=6, b=6)
    with cache.lease("a", 1), pytest.raises(ModelDoesNotFit, match="6 B more"), cache.lease("b", 1):
        pass
    assert cache.resident == {"a"}
    assert device.allocated_bytes == 6


def test_working_memory_makes_room_and_is_given_back() -> None:
    cache, device = make_cache(10, a=4, b=Weights(4, working=1))
    use(cache, "a")
    with cache.lease("b", 4):
        assert device.allocated_bytes == 8
        assert cache.resident == {"b"}
    assert device.allocated_bytes == 4


def test_too_much_working_memory_is_out_of_memory_not_unfit() -> None:
    """A smaller batch may do, so the two are told apart."""
    cache, _ = make_cache(10, b=Weights(4, working=1))
    with pytest.raises(OutOfMemory), cache.lease("b", 7):
        pass
    use(cache, "b")


def test_other_tenants_are_respected() -> None:
    cache, device = make_cache(10, a=5, b=5)
    use(cache, "a")
    device.tenants_bytes = 5
    use(cache, "b")
    assert cache.resident == {"b"}


def test_a_failed_load_leaves_no_bytes_behind() -> None:
    cache, device = make_cache(10, a=Weights(5, broken=True))
    with pytest.raises(OSError, match="disk"), cache.lease("a", 1):
        pass
    assert device.allocated_bytes == 0
    assert cache.resident == frozenset()


def test_a_load_that_fails_for_another_reason_than_room_costs_no_other_model() -> None:
    """It is no lack of memory: nothing is evicted, nothing counted, and it is not tried again."""
    broken = Weights(5, broken=True)
    cache, _ = make_cache(10, a=broken, b=5)
    use(cache, "b")
    with pytest.raises(OSError, match="disk"), cache.lease("a", 1):
        pass
    assert cache.resident == {"b"}
    assert (cache.stats.out_of_memory, cache.stats.loads, cache.stats.evictions) == (0, 1, 0)
    broken.broken = False
    use(cache, "a")
    assert cache.resident == {"a", "b"}


def test_memory_fraction_and_headroom() -> None:
    cache, _ = make_cache(100, a=40, b=30)
    cache.room.memory_fraction, cache.room.headroom_bytes = 0.5, 10
    use(cache, "a", "b")
    assert cache.resident == {"b"}
    with pytest.raises(ModelDoesNotFit, match="headroom"):
        use(make_with_fraction(0.5, 11), "a")


def make_with_fraction(fraction: float, headroom: int) -> ModelCache:
    cache, _ = make_cache(100, a=40)
    cache.room.memory_fraction, cache.room.headroom_bytes = fraction, headroom
    return cache


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 10), min_size=1, max_size=6),
    capacity=st.integers(10, 30),
    uses=st.lists(st.integers(0, 5), max_size=40),
)
def test_bytes_are_conserved_whatever_happens(sizes: list[int], capacity: int, uses: list[int]) -> None:
    models: dict[str, int | Weights] = {f"m{i}": size for i, size in enumerate(sizes)}
    cache, device = make_cache(capacity, **models)
    for position, index in enumerate(uses):
        names = [f"m{i % len(sizes)}" for i in uses[position:]]
        with cache.lease(f"m{index % len(sizes)}", 1, names[1:]):
            assert f"m{index % len(sizes)}" in cache.resident
            resident = sum(sizes[int(name[1:])] for name in cache.resident)
            assert device.allocated_bytes == resident <= capacity
    cache.evict_idle()
    assert device.allocated_bytes == 0


@pytest.mark.parametrize(
    ("name", "capacity"), [("sim:8GiB", 8 * 2**30), ("sim:1.5MB", 1_500_000), ("sim:100", 100)]
)
def test_simulated_devices_by_name(name: str, capacity: int) -> None:
    device = open_device(name)
    assert device.total_bytes() == device.free_bytes() == capacity


@pytest.mark.parametrize("name", ["sim:8XiB", "gpu", "cuda:99", "cuda:x"])
def test_a_device_that_is_not_there_is_refused_with_what_is(name: str) -> None:
    with pytest.raises(UsageError) as caught:
        open_device(name)
    assert "cpu" in caught.value.hint


def test_the_cpu_reports_what_is_free() -> None:
    device = open_device("cpu")
    assert MIB < device.free_bytes() <= device.total_bytes()


def test_uses_that_repeat_are_laid_out_four_times() -> None:
    cache = ModelCache(SimulatedDevice(name="sim", capacity_bytes=100), lambda name: Weights(10, working=2))
    for name in "ab":
        with cache.lease(name, 1):
            pass
    cached = cache._residency.models["a"]
    a, b = Use("a"), Use("b")
    assert cache._uses(cached, Need(7, 0, True), ["b", "a"]) == ([Use("a", 7), *[b, a] * 4], [Use("a", 7), b])
    assert cache._uses(cached, Need(7, 0, True), ["a"]) == ([Use("a", 7), *[a] * 4], [])
    assert cache._uses(cached, Need(7, 0, True), ["a", "b"]) == ([Use("a", 7), a, b], [])
    assert cache._uses(cached, Need(7, 0, True), []) == ([Use("a", 7)], [])
