"""Models in main memory, on a device of a given size: what goes for whom, what is said where nothing can."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from panic.devices.device import CpuDevice
from panic.devices.main_memory import MainMemoryCache
from panic.errors import ModelDoesNotFit, OutOfMemory

MIB = 2**20
loaded: weakref.WeakSet[Weights] = weakref.WeakSet()


class Weights:
    """A model of some bytes that holds itself by a cycle, as many models of libraries do."""

    modality_in = modality_out = "text"

    def __init__(self, size_bytes: int, failures: list[BaseException]) -> None:
        self.size_bytes = size_bytes
        self.failures = failures
        self.itself = self

    def load(self, device: str) -> None:
        assert device == "cpu"
        if self.failures:
            raise self.failures.pop()
        loaded.add(self)

    def invoke(self, inputs: Sequence[Any], seeds: Sequence[int]) -> list[Any]:
        return list(inputs)


class Working(Weights):
    """It says that each item of a call needs 10 MiB."""

    def working_bytes(self, batch_size: int) -> int:
        return 10 * MIB * batch_size


class Quantised(Weights):
    """Half of what its files have is left when it is loaded."""

    def load(self, device: str) -> None:
        super().load(device)
        self.size_bytes //= 2


@dataclass(slots=True)
class SmallMemory(CpuDevice):
    """100 MiB, of which the loaded models of this module take their part."""

    def total_bytes(self) -> int:
        return 100 * MIB

    num_trims: int = 0

    def free_bytes(self) -> int:
        return 100 * MIB - sum(model.size_bytes for model in loaded)

    def trim(self) -> None:
        self.num_trims += 1


@pytest.fixture(autouse=True)
def _nothing_is_loaded() -> None:
    gc.collect()
    loaded.clear()


def cache_of(
    failures: list[BaseException] | None = None, *, size: int = 32, **options: Any
) -> MainMemoryCache:
    def build(name: str) -> Weights:
        return {"w": Working, "q": Quantised}.get(name, Weights)(size * MIB, failures)

    failures = [] if failures is None else failures
    return MainMemoryCache(SmallMemory(), build, **options)


def call(cache: MainMemoryCache, name: str, batch_size: int = 1) -> None:
    with cache.lease(name, batch_size) as model:
        model.invoke(["x"], [0])


def test_a_model_is_built_and_loaded_once() -> None:
    cache = cache_of()
    for _ in range(3):
        call(cache, "a")
    stats = cache.stats
    assert (stats.builds, stats.loads, stats.hits, stats.evictions) == (1, 1, 2, 0)
    assert cache.resident == {"a"}


def test_what_was_used_longest_ago_goes_first() -> None:
    cache = cache_of()
    for name in "abcad":
        call(cache, name)
    assert cache.resident == {"a", "c", "d"}
    call(cache, "b")
    assert cache.resident == {"a", "d", "b"}
    assert cache.stats.builds == 5


def test_memory_of_models_that_hold_themselves_comes_free_before_another_one_goes() -> None:
    gc.disable()
    try:
        cache = cache_of()
        for name in "abcd":
            call(cache, name)
    finally:
        gc.enable()
    assert cache.stats.evictions == 1
    assert cache.resident == {"b", "c", "d"}


def test_what_is_in_use_never_goes() -> None:
    cache = cache_of(size=60)
    with cache.lease("a", 1), pytest.raises(ModelDoesNotFit) as caught:
        call(cache, "b")
    assert caught.value.message == (
        "b needs 60.0 MiB more on cpu: 40.0 MiB are free of 100.0 MiB (60.0 MiB held by models in use)"
    )
    call(cache, "b")
    assert cache.resident == {"b"}


@pytest.mark.parametrize(
    ("options", "left"), [({"headroom_bytes": 40 * MIB}, "headroom"), ({"memory_fraction": 0.6}, "fraction")]
)
def test_others_keep_their_share(options: dict[str, Any], left: str) -> None:
    cache = cache_of(**options)
    call(cache, "a")
    call(cache, "b")
    assert cache.resident == {"b"}
    cache.close()
    gc.collect()
    with pytest.raises(ModelDoesNotFit, match=f"60.0 MiB are free of 100.0 MiB .40.0 MiB .*{left}"):
        call(cache_of(size=61, **options), "c")


def test_a_call_that_needs_more_than_is_left_is_one_for_a_smaller_batch() -> None:
    cache = cache_of()
    call(cache, "a")
    call(cache, "w", batch_size=6)
    assert cache.resident == {"w"}
    with pytest.raises(OutOfMemory, match=r"w needs 70.0 MiB more on cpu: 68.0 MiB are free"):
        call(cache, "w", batch_size=7)
    assert cache.resident == {"w"}


def test_weights_that_are_fewer_than_their_files_had_count_as_what_they_are() -> None:
    cache = cache_of(size=60)
    with cache.lease("q", 1), pytest.raises(OutOfMemory) as caught:
        call(cache, "w", batch_size=2)
    assert caught.value.message == (
        "w needs 20.0 MiB more on cpu: 10.0 MiB are free of 100.0 MiB (90.0 MiB held by models in use)"
    )


def test_a_model_without_room_against_all_reckoning_is_loaded_with_all_else_gone() -> None:
    failures: list[BaseException] = []
    cache = cache_of(failures)
    call(cache, "a")
    failures.append(MemoryError())
    call(cache, "b")
    assert (cache.resident, cache.stats.out_of_memory) == ({"b"}, 1)
    failures += [MemoryError(), MemoryError()]
    with pytest.raises(ModelDoesNotFit, match="c: no room on cpu while its weights were loaded"):
        call(cache, "c")
    assert (cache.resident, cache.stats.out_of_memory) == (frozenset(), 3)


def test_a_model_that_cannot_be_loaded_is_built_anew() -> None:
    cache = cache_of([ValueError("cut off")])
    with pytest.raises(ValueError, match="cut off"):
        cache.bring("a")
    assert cache.resident == frozenset()
    cache.bring("a")
    assert (cache.resident, cache.stats.builds) == ({"a"}, 2)


def test_a_model_that_is_brought_is_in_use_until_it_is_loaded_and_no_longer() -> None:
    """What is dropped to make room for it once more is not itself."""
    cache = cache_of([MemoryError()])
    cache.bring("a")
    assert cache.resident == {"a"}
    assert cache.evict_idle() == 1
    assert cache.resident == frozenset()


@pytest.mark.parametrize(
    ("error", "told"), [(ValueError("no such layer"), ValueError), (MemoryError(), ModelDoesNotFit)]
)
def test_lack_of_memory_alone_is_told_as_such_where_a_model_is_built(
    error: Exception, told: type[Exception]
) -> None:
    def build(name: str) -> Weights:
        raise error

    with pytest.raises(told, match=r"no such layer|a: no room in memory to construct it"):
        call(MainMemoryCache(SmallMemory(), build), "a")


def test_closing_lets_go_of_what_is_in_use_too() -> None:
    cache = cache_of()
    with cache.lease("a", 1):
        cache.close()
        assert cache.resident == frozenset()


def test_closing_gives_the_memory_of_models_that_hold_themselves_back_at_once() -> None:
    cache = cache_of()
    for name in "ab":
        call(cache, name)
    assert isinstance(cache.device, SmallMemory)
    gc.disable()
    try:
        cache.close()
        assert (len(loaded), cache.device.num_trims, cache.stats.evictions) == (0, 2, 2)
    finally:
        gc.enable()


def test_memory_is_given_back_to_the_machine_with_each_model_that_goes() -> None:
    cache = cache_of()
    for name in "abcde":
        call(cache, name)
    assert isinstance(cache.device, SmallMemory)
    assert (cache.device.num_trims, cache.stats.evictions) == (2, 2)


def test_idle_models_can_be_dropped() -> None:
    cache = cache_of()
    call(cache, "a")
    with cache.lease("b", 1):
        assert cache.evict_idle() == 1
        assert cache.resident == {"b"}
        assert not cache.offload("b")
    cache.close()
    assert cache.resident == frozenset()


@pytest.mark.parametrize(("size", "is_gone"), [(16, False), (17, True)])
def test_memory_of_a_small_model_is_left_to_the_next_collection(size: int, is_gone: bool) -> None:
    """Asking it back at once takes longer than it is worth."""
    gc.disable()
    try:
        cache = cache_of(size=size)
        call(cache, "a")
        cache.evict_idle()
        assert (len(loaded) == 0) == is_gone
    finally:
        gc.enable()
        gc.collect()


def test_numbers_of_a_cache_are_those_of_what_happened() -> None:
    failures: list[BaseException] = []
    cache = cache_of(failures, size=60)
    cache.bring("a")
    cache.bring("a")
    call(cache, "a")
    call(cache, "b")
    stats = cache.stats
    assert (stats.builds, stats.loads, stats.hits, stats.evictions) == (2, 2, 1, 1)
    failures.append(ValueError("cut off"))
    with pytest.raises(ValueError, match="cut off"):
        call(cache, "c")
    assert (stats.builds, stats.loads, stats.evictions, stats.out_of_memory) == (3, 2, 2, 0)
    cache.ran_out("b")
    assert stats.out_of_memory == 1
    assert cache.evict_idle() == 0


def test_what_is_withheld_is_told_and_a_model_that_is_not_loaded_holds_nothing() -> None:
    cache = cache_of(size=101, headroom_bytes=10 * MIB, memory_fraction=0.95)
    with pytest.raises(ModelDoesNotFit) as caught:
        call(cache, "a")
    assert caught.value.message == (
        "a needs 101.0 MiB more on cpu: 85.0 MiB are free of 100.0 MiB (10.0 MiB kept as headroom, "
        "5.0 MiB beyond the memory fraction)"
    )
    with pytest.raises(ModelDoesNotFit, match=r"0 B are free of 100.0 MiB \(101.0 MiB kept as headroom\)"):
        call(cache_of(size=1, headroom_bytes=101 * MIB), "a")
