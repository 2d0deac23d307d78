"""Devices that this machine need not have: arithmetic and the order of copies, against a driver on paper.

What these cannot tell (that the kernels and the bus do the same) is in `test_contract.py -m gpu`.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from panic.devices import cuda
from panic.devices.accounting import Room
from panic.devices.cuda import CudaDevice, pin
from panic.devices.device import CpuDevice, MpsDevice, open_device

GIB, MIB = 2**30, 2**20


@dataclass
class Driver:
    """A GPU of 24 GiB: 2 GiB are other processes', torch holds 6, of which 5 are used."""

    total: int = 24 * GIB
    others: int = 2 * GIB
    reserved: int = 6 * GIB
    allocated: int = 5 * GIB
    peak: int = 5 * GIB
    journal: list[str] = field(default_factory=list)

    def mem_get_info(self, index: int) -> tuple[int, int]:
        return self.total - self.others - self.reserved, self.total

    def empty_cache(self) -> None:
        self.reserved = self.allocated

    def reset_peak_memory_stats(self, index: int) -> None:
        self.peak = self.allocated


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Driver:
    driver = Driver()
    for name, value in {
        "is_available": lambda: True,
        "device_count": lambda: 2,
        "get_device_name": lambda index: "Paper 24",
        "mem_get_info": driver.mem_get_info,
        "memory_reserved": lambda index: driver.reserved,
        "memory_allocated": lambda index: driver.allocated,
        "max_memory_allocated": lambda index: driver.peak,
        "reset_peak_memory_stats": driver.reset_peak_memory_stats,
        "empty_cache": driver.empty_cache,
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    return driver


def test_free_is_what_the_driver_has_and_what_torch_holds_unused(driver: Driver) -> None:
    device = open_device("cuda")
    assert isinstance(device, CudaDevice)
    assert (device.name, device.kind) == ("cuda:0", "cuda Paper 24")
    assert device.total_bytes() == 24 * GIB
    assert device.free_bytes() == (24 - 2 - 6 + 1) * GIB
    assert device.others_bytes() == 2 * GIB
    device.trim()
    assert device.free_bytes() == (24 - 2 - 5) * GIB, "given back to the driver, and still free"


def test_room_on_a_shared_gpu_is_less_headroom_fraction_and_what_others_held(driver: Driver) -> None:
    device = CudaDevice(0)
    room = Room(device, headroom_bytes=GIB, memory_fraction=0.75)
    assert room.usable_bytes() == (17 - 1 - 6) * GIB
    driver.others = 9 * GIB
    assert room.usable_bytes() == 3 * GIB
    driver.others = 4 * GIB
    assert room.usable_bytes(prudent=False) == 8 * GIB
    assert room.usable_bytes() == 3 * GIB, "they may come back for it"


def test_a_calls_working_memory_is_its_peak_over_what_was_there(driver: Driver) -> None:
    device = CudaDevice(0)
    driver.peak = 20 * GIB  # of an earlier call
    device.begin_call(0)
    driver.peak = max(driver.peak, 8 * GIB)
    assert device.end_call() == 3 * GIB


def test_allocations_are_rounded_as_by_torchs_allocator(driver: Driver) -> None:
    device = CudaDevice(0)
    sizes = [1, 512, 513, MIB, MIB + 1, 64 * MIB]
    assert [device.rounded(size) for size in sizes] == [512, 512, 1024, MIB, 2 * MIB, 64 * MIB]


def test_devices_by_name(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    assert open_device("auto").name == "cuda:0"
    assert open_device("cuda:1").torch_name == "cuda:1"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert isinstance(open_device("auto"), MpsDevice)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert isinstance(open_device("auto"), CpuDevice)


def test_apples_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    emptied: list[bool] = []
    monkeypatch.setattr(torch.mps, "recommended_max_memory", lambda: 16 * GIB)
    monkeypatch.setattr(torch.mps, "driver_allocated_memory", lambda: 5 * GIB)
    monkeypatch.setattr(torch.mps, "empty_cache", lambda: emptied.append(True))
    device = MpsDevice()
    assert (device.total_bytes(), device.free_bytes()) == (16 * GIB, 11 * GIB)
    assert not device.has_own_memory
    device.release(GIB)
    assert emptied


# Copies beside the computing


class Bus:
    """Streams and events: what is queued on the side stream ends when it is let through."""

    def __init__(self) -> None:
        self.journal: list[str] = []
        self.passing = threading.Event()
        self.passing.set()

    def event(self, blocking: bool = False) -> Any:
        return SimpleNamespace(record=lambda stream: self.journal.append("record"), synchronize=self.wait)

    def stream(self, index: int) -> Any:
        return SimpleNamespace(
            wait_event=lambda event: self.journal.append("wait for memory"), synchronize=self.wait
        )

    def wait(self) -> None:
        assert self.passing.wait(10)


@dataclass
class Copied:
    """A block that tells when its copy is queued."""

    number: int
    bus: Bus
    queued: threading.Event = field(default_factory=threading.Event)
    error: Exception | None = None
    num_bytes: int = MIB

    def fill(self) -> None:
        if self.error:
            raise self.error
        self.bus.journal.append(f"copy {self.number}")
        self.queued.set()


@pytest.fixture
def bus(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> Bus:
    bus = Bus()

    @contextmanager
    def on(stream: Any) -> Iterator[None]:
        yield

    monkeypatch.setattr(cuda, "_cuda", SimpleNamespace(Stream=bus.stream, Event=bus.event))
    monkeypatch.setattr(torch.cuda, "stream", on)
    monkeypatch.setattr(torch.cuda, "set_device", lambda index: None)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda index: bus.stream(index))
    return bus


def test_a_prefetch_waits_for_its_memory_and_is_done_when_waited_for(bus: Bus) -> None:
    blocks = [Copied(number, bus) for number in range(4)]
    transfer = CudaDevice(0).transfer(blocks, ahead=True)
    assert transfer.wait() >= 0
    assert [line for line in bus.journal if line != "record"] == [
        "wait for memory", "copy 0", "copy 1", "copy 2", "copy 3",
    ]  # fmt: skip
    assert transfer.cancel() == 4


def test_a_cancelled_prefetch_begins_no_more_than_two_blocks(bus: Bus) -> None:
    bus.passing.clear()
    blocks = [Copied(number, bus) for number in range(6)]
    transfer = CudaDevice(0).transfer(blocks, ahead=True)
    assert blocks[1].queued.wait(10)
    threading.Timer(0.2, bus.passing.set).start()  # the two that are on the bus end while we wait for them
    assert transfer.cancel() == 2
    assert not any(block.queued.is_set() for block in blocks[2:])


def test_an_error_of_a_copy_is_raised_by_whoever_waits(bus: Bus) -> None:
    device = CudaDevice(0)
    broken = [Copied(0, bus), Copied(1, bus, error=OSError("disk")), Copied(2, bus)]
    transfer = device.transfer(broken, ahead=True)
    with pytest.raises(OSError, match="disk"):
        transfer.wait()
    assert transfer.cancel() == 1
    assert not broken[2].queued.is_set()
    whole = device.transfer([Copied(3, bus)], ahead=True)
    whole.wait()
    assert whole.cancel() == 1, "the copier has survived"


def test_copies_without_prefetch_are_done_when_they_return(bus: Bus) -> None:
    blocks = [Copied(0, bus), Copied(1, bus)]
    transfer = CudaDevice(0).transfer(blocks, ahead=False)
    assert all(block.queued.is_set() for block in blocks)
    assert transfer.cancel() == 2


# Page-locked memory


class Owner:
    """Something that can be referred to weakly."""


@pytest.fixture
def locked(monkeypatch: pytest.MonkeyPatch) -> dict[int, int]:
    """Bytes by address; a second lock of the same address is refused, as by the driver."""
    locked: dict[int, int] = {}

    def register(address: int, num_bytes: int, flags: int) -> int:
        if address in locked:
            return 712
        locked[address] = num_bytes
        return 0

    runtime = SimpleNamespace(cudaHostRegister=register, cudaHostUnregister=locked.pop)
    monkeypatch.setattr(cuda, "_cuda", SimpleNamespace(cudart=lambda: runtime))
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    return locked


def test_memory_is_locked_to_the_byte_for_as_long_as_its_owner_lives(locked: dict[int, int]) -> None:
    buffer, owner = torch.empty(5 * MIB + 3, dtype=torch.uint8), Owner()
    assert pin(buffer, owner, "cuda:0")
    assert locked == {buffer.data_ptr(): 5 * MIB + 3}
    del owner
    gc.collect()
    assert locked == {}


def test_memory_that_cannot_be_locked_is_told_and_its_error_cleared(
    locked: dict[int, int], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cleared: list[str] = []
    monkeypatch.setattr(cuda, "_clear_error", cleared.append)
    buffer, owner = torch.empty(MIB, dtype=torch.uint8), Owner()
    locked[buffer.data_ptr()] = MIB
    assert not pin(buffer, owner, "cuda:1")
    assert cleared == ["cuda:1"]
    assert "CUDA error 712" in caplog.text
    del owner
    gc.collect()
    assert locked == {buffer.data_ptr(): MIB}, "what was not locked is not unlocked"
