"""Models in main memory: files read ahead, no room to construct, models that hold themselves by cycles."""

from __future__ import annotations

import gc
import threading
import tracemalloc
import weakref
from pathlib import Path
from typing import Any

import pytest

from panic.devices.cache import ModelCache
from panic.devices.construction import CHUNK_BYTES, ReadAhead
from panic.devices.device import CpuDevice
from panic.devices.host import HostTier
from panic.devices.simulated import SimulatedDevice
from panic.errors import ModelDoesNotFit
from panic.models import registry
from tests import tiny
from tests.devices.paper import paper_cache
from tests.devices.test_contract import MIB, Layers, call
from tests.devices.test_residency import call as lease

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


def test_a_forgotten_model_that_holds_itself_leaves_main_memory() -> None:
    device = SimulatedDevice(name="sim", capacity_bytes=1024 * MIB)
    models: list[weakref.ref[Any]] = []
    cache = ModelCache(device, lambda name: Cyclic(name, 4 * MIB), host=HostTier(8 * MIB))
    gc.disable()
    try:
        for name in "abc":
            call(cache, name)
            models.append(weakref.ref(cache._residency.models[name].model))
        is_gone = [model() is None for model in models]
    finally:
        gc.enable()
    assert is_gone == [True, False, False]


def test_a_model_whose_call_is_under_way_is_not_forgotten_for_room() -> None:
    device = SimulatedDevice(name="sim", capacity_bytes=1024 * MIB)
    cache = ModelCache(device, lambda name: Layers(name, 4 * MIB), host=HostTier(8 * MIB))
    with cache.lease("a", 1, ()):
        for name in "bcd":
            call(cache, name)
        assert "a" in cache._residency.models
    call(cache, "e")
    assert "a" not in cache._residency.models, "it was used longest ago"


# Weight files read ahead: real files, a real thread


def test_every_byte_is_read_once_until_the_model_is_forgotten(tmp_path: Path) -> None:
    sizes = {"one": CHUNK_BYTES + 5, "two": 7}
    for name, size in sizes.items():
        (tmp_path / name).write_bytes(b"x" * size)
    reader = ReadAhead(lambda name: [tmp_path / "one", tmp_path / "two"])
    for _ in range(2):
        reader.start("a")
        reader.wait()
    assert reader.num_bytes == sum(sizes.values())
    reader.forget("a")
    reader.start("a")
    reader.close()
    reader.wait()
    assert reader.num_bytes <= 2 * sum(sizes.values())


def test_a_file_that_cannot_be_read_is_nobodys_problem_yet(tmp_path: Path) -> None:
    reader = ReadAhead(lambda name: [tmp_path / "gone"])
    reader.start("a")
    reader.wait()
    assert reader.num_bytes == 0


def test_closing_stops_in_the_middle_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(b"x" * (4 * CHUNK_BYTES))
    asked = threading.Event()
    go_on = threading.Event()

    def files(name: str) -> list[Path]:
        asked.set()
        go_on.wait(10)
        return [tmp_path / "large"]

    reader = ReadAhead(files)
    reader.start("a")
    assert asked.wait(10)
    reader._stop.set()
    go_on.set()
    reader.close()
    assert reader.num_bytes == 0


def test_the_cache_asks_for_the_next_model_that_must_be_constructed() -> None:
    asked: list[str] = []

    def files(name: str) -> list[Path]:
        asked.append(name)
        return []

    device = SimulatedDevice(name="sim", capacity_bytes=100)
    cache, _ = paper_cache(device, {name: [10] for name in "abc"}, files=files, host_bytes=20)
    order = "abcabc"
    for position, name in enumerate(order):
        lease(cache, name, [*order[position + 1 :], "a"])
        cache._construction.reader.wait()
    # Main memory holds two of them, so that the third is constructed again and again.
    assert asked[:3] == ["b", "c", "a"] or asked[:2] == ["b", "c"]
    assert len(asked) > 2
    cache.close()


def test_the_files_of_a_model_are_those_that_are_loaded(tmp_path: Path) -> None:
    folder = tiny.build_stable_diffusion(tmp_path / "sd")
    found = registry.files(registry.resolve("it", {"it": {"base": f"local:{folder}"}}))
    assert {path.suffix for path in found} == {".safetensors"}
    assert len(found) == 3
    assert registry.files(registry.resolve("synthetic/text-to-image")) == []
    assert registry.files(registry.resolve("sd-turbo")) == []
    assert len(registry.files(registry.resolve("PocketDiffusion"))) >= 1


@pytest.mark.parametrize(("free", "read"), [(149, 0), (150, 100)])
def test_files_that_would_push_others_out_of_memory_are_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, read: int
) -> None:
    """They are read where half as much again as they take is free."""
    (tmp_path / "one").write_bytes(b"x" * 60)
    (tmp_path / "two").write_bytes(b"x" * 40)
    monkeypatch.setattr(CpuDevice, "free_bytes", lambda self: free)
    reader = ReadAhead(lambda name: [tmp_path / "one", tmp_path / "two"])
    reader.start("a")
    reader.wait()
    assert reader.num_bytes == read


def test_one_model_is_read_at_a_time_and_each_once(tmp_path: Path) -> None:
    asked: list[str] = []
    go_on = threading.Event()

    def files(name: str) -> list[Path]:
        asked.append(name)
        go_on.wait(10)
        return []

    reader = ReadAhead(files)
    for name in ("a", "b", "a"):
        reader.start(name)
    [thread] = [one for one in threading.enumerate() if one.name == "read ahead"]
    assert thread.daemon, "a disk that never answers keeps no process alive"
    go_on.set()
    reader.wait()
    for name in ("a", "b", "b"):
        reader.start(name)
        reader.wait()
    assert asked == ["a", "b"]
    reader.forget("a")
    reader.start("a")
    reader.close()
    assert asked == ["a", "b", "a"]


def test_files_are_read_in_chunks_of_8_mib(tmp_path: Path) -> None:
    """However small they are, and whatever they hold: no more of them is in memory of this process."""
    (tmp_path / "small").write_bytes(b"x")
    reader = ReadAhead(lambda name: [tmp_path / "small"])
    reader.start("before")  # what is imported meanwhile does not count
    reader.wait()
    tracemalloc.start()
    try:
        reader.start("a")
        reader.wait()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert reader.num_bytes == 2
    assert 8 * MIB <= peak < 8.5 * MIB
