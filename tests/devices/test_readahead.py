"""Weight files read ahead: real files, a real thread."""

from __future__ import annotations

import threading
from pathlib import Path

from panic.devices.readahead import CHUNK_BYTES, ReadAhead
from panic.devices.simulated import SimulatedDevice
from panic.models import registry
from tests import tiny
from tests.devices.paper import paper_cache
from tests.devices.test_residency import call


def test_every_byte_is_read_once_until_the_model_was_taken(tmp_path: Path) -> None:
    sizes = {"one": CHUNK_BYTES + 5, "two": 7}
    for name, size in sizes.items():
        (tmp_path / name).write_bytes(b"x" * size)
    reader = ReadAhead(lambda name: [tmp_path / "one", tmp_path / "two"])
    for _ in range(2):
        reader.start("a")
        reader.wait()
    assert reader.num_bytes == sum(sizes.values())
    reader.taken("a")
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
        call(cache, name, [*order[position + 1 :], "a"])
        cache._models.reader.wait()
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
