"""Devices that this machine need not have: arithmetic and the order of copies, against a driver on paper.

What these cannot tell (that the kernels and the bus do the same) is in `test_contract.py -m gpu`.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from panic.devices import cuda
from panic.devices.cuda import CudaDevice, pin
from panic.devices.device import CpuDevice, MpsDevice, open_device
from panic.devices.host import HostTier
from panic.devices.room import Room
from tests.devices.test_contract import Layers

GIB, MIB = 2**30, 2**20


@dataclass
class Driver:
    """A GPU of 24 GiB: 2 GiB are other processes', torch holds 6, of which 5 are used."""

    total: int = 24 * GIB
    others: int = 2 * GIB
    reserved: int = 6 * GIB
    allocated: int = 5 * GIB
    peak: int = 5 * GIB

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
    assert [device.rounded(size) for size in (1, 512, 513, MIB - 512)] == [512, 512, 1024, MIB - 512]
    sizes = [MIB, MIB + 1, 2 * MIB, 2 * MIB + 1, 64 * MIB]
    assert [device.rounded(size) for size in sizes] == [MIB, 2 * MIB, 2 * MIB, 4 * MIB, 64 * MIB]


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
    device.trim()
    assert emptied


# Copies beside the computing


class Bus:
    """Streams and events on paper. What is queued on a stream ends when the bus is let through.

    journal: (stream, act) in the order in which they are queued. waited_for: events, by number.
    """

    def __init__(self) -> None:
        self.journal: list[tuple[str, str]] = []
        self.current = "computing"
        self.passing = threading.Event()
        self.passing.set()
        self.events: list[Event] = []
        self.waited_for: list[int] = []

    def note(self, act: str) -> None:
        self.journal.append((self.current, act))

    def wait(self) -> None:
        assert self.passing.wait(10)


@dataclass
class Stream:
    bus: Bus
    name: str

    def wait_event(self, event: Event) -> None:
        self.bus.journal.append((self.name, f"waits for event {event.number}"))

    def synchronize(self) -> None:
        self.bus.wait()
        self.bus.journal.append((self.name, "is waited for"))


class Event:
    def __init__(self, bus: Bus) -> None:
        self.bus, self.number = bus, len(bus.events)
        bus.events.append(self)

    def record(self, stream: Stream) -> None:
        self.bus.journal.append((stream.name, f"event {self.number}"))

    def synchronize(self) -> None:
        self.bus.wait()
        self.bus.waited_for.append(self.number)


@dataclass
class Copied:
    """A block that tells when its copy is queued, and on which stream."""

    number: int
    bus: Bus
    queued: threading.Event = field(default_factory=threading.Event)
    error: Exception | None = None
    num_bytes: int = MIB

    def fill(self) -> None:
        if self.error:
            raise self.error
        self.bus.note(f"copy {self.number}")
        self.queued.set()


@pytest.fixture
def bus(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> Bus:
    bus = Bus()

    @contextmanager
    def on(stream: Stream) -> Iterator[None]:
        bus.current, before = stream.name, bus.current
        try:
            yield
        finally:
            bus.current = before

    made = SimpleNamespace(Stream=lambda index: Stream(bus, "side"), Event=lambda blocking=False: Event(bus))
    monkeypatch.setattr(cuda, "_cuda", made)
    monkeypatch.setattr(torch.cuda, "stream", on)
    monkeypatch.setattr(torch.cuda, "set_device", lambda index: bus.note(f"device {index}"))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda index: Stream(bus, bus.current))
    return bus


def test_copies_ahead_are_on_the_side_stream_after_what_had_the_memory_before(bus: Bus) -> None:
    blocks = [Copied(number, bus) for number in range(3)]
    transfer = CudaDevice(1).transfer(blocks, ahead=True)
    transfer.wait()
    assert bus.journal == [
        ("computing", "event 0"),  # the memory was taken here
        ("computing", "device 1"),  # of the thread that copies
        ("side", "waits for event 0"),
        *[("side", act) for number in range(3) for act in (f"copy {number}", f"event {number + 1}")],
        ("side", "is waited for"),
    ]
    assert bus.waited_for == [1, 2], "the oldest first"
    assert transfer.cancel() == 3


@pytest.mark.parametrize("ahead", [True, False])
def test_nothing_is_done_before_its_copies_have_ended(bus: Bus, ahead: bool) -> None:
    bus.passing.clear()
    block = Copied(0, bus)
    ended = threading.Event()

    def use() -> None:
        CudaDevice(0).transfer([block], ahead=ahead).wait()
        ended.set()

    thread = threading.Thread(target=use)
    thread.start()
    assert block.queued.wait(10)
    assert not ended.wait(0.1)
    bus.passing.set()
    assert ended.wait(10)
    thread.join()


def test_a_cancelled_prefetch_begins_no_more_than_two_blocks(bus: Bus) -> None:
    bus.passing.clear()
    blocks = [Copied(number, bus) for number in range(6)]
    transfer: Any = CudaDevice(0).transfer(blocks, ahead=True)
    assert blocks[1].queued.wait(10)
    cancelled: list[int] = []
    thread = threading.Thread(target=lambda: cancelled.append(transfer.cancel()))
    thread.start()
    assert transfer._cancelled.wait(10)
    assert cancelled == [], "the two that are on the bus are waited for"
    bus.passing.set()
    thread.join(10)
    assert cancelled == [2]
    assert not any(block.queued.is_set() for block in blocks[2:])


def test_an_error_of_a_copy_is_raised_by_whoever_waits(bus: Bus) -> None:
    device = CudaDevice(0)
    broken = [Copied(0, bus), Copied(1, bus, error=OSError("disk")), Copied(2, bus)]
    transfer = device.transfer(broken, ahead=True)
    with pytest.raises(OSError, match="disk"):
        transfer.wait()
    assert transfer.cancel() == 1
    assert not broken[2].queued.is_set()
    assert bus.journal[-1] == ("side", "is waited for")
    whole = device.transfer([Copied(3, bus)], ahead=True)
    whole.wait()
    assert whole.cancel() == 1, "the copier has survived"


def test_copies_without_prefetch_are_done_when_they_return(bus: Bus) -> None:
    blocks = [Copied(0, bus), Copied(1, bus)]
    transfer = CudaDevice(0).transfer(blocks, ahead=False)
    assert bus.journal == [(bus.current, act) for act in ("copy 0", "copy 1", "is waited for")]
    assert transfer.cancel() == 2


def test_the_time_of_copies_without_prefetch_is_until_they_have_ended(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(now=100.0)

    def wait() -> None:
        clock.now += 3

    monkeypatch.setattr(cuda, "time", SimpleNamespace(perf_counter=lambda: clock.now))
    monkeypatch.setattr(bus, "wait", wait)
    assert CudaDevice(0).transfer([Copied(0, bus)], ahead=False).wait() == 3


# Page-locked memory


class Owner:
    """Something that can be referred to weakly."""


@dataclass
class Runtime:
    """Page-locks by address: bytes, flags, and the device whose context was used."""

    locked: dict[int, tuple[int, int, str]] = field(default_factory=dict)
    context: str = ""

    def cudaHostRegister(self, address: int, num_bytes: int, flags: int) -> int:  # noqa: N802
        if address in self.locked:
            return 712  # cudaErrorHostMemoryAlreadyRegistered
        self.locked[address] = num_bytes, flags, self.context
        return 0

    def cudaHostUnregister(self, address: int) -> None:  # noqa: N802
        del self.locked[address]


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> Runtime:
    runtime = Runtime()

    @contextmanager
    def of(device: str) -> Iterator[None]:
        runtime.context = device
        try:
            yield
        finally:
            runtime.context = ""

    monkeypatch.setattr(cuda, "_cuda", SimpleNamespace(cudart=lambda: runtime))
    monkeypatch.setattr(torch.cuda, "device", of)
    return runtime


def test_memory_is_locked_to_the_byte_for_as_long_as_its_owner_lives(runtime: Runtime) -> None:
    buffer, owner = torch.empty(5 * MIB + 3, dtype=torch.uint8), Owner()
    assert pin(buffer, owner, "cuda:1")
    portable = 1  # for every GPU of the process
    assert runtime.locked == {buffer.data_ptr(): (5 * MIB + 3, portable, "cuda:1")}
    del owner
    gc.collect()
    assert runtime.locked == {}


def test_memory_that_cannot_be_locked_is_told_and_its_error_cleared(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    kernels: list[str] = []
    monkeypatch.setattr(torch, "ones", lambda size, device: kernels.append(device))
    buffer, owner = torch.empty(MIB, dtype=torch.uint8), Owner()
    runtime.locked[buffer.data_ptr()] = MIB, 0, "somebody"
    assert not pin(buffer, owner, "cuda:1")
    assert kernels == ["cuda:1"], "torch asks for errors after its next kernel"
    assert "CUDA error 712" in caplog.text
    del owner
    gc.collect()
    assert runtime.locked, "what was not locked is not unlocked"


@pytest.mark.parametrize(("budget", "is_locked"), [(None, True), (8 * MIB, True), (2 * MIB, False)])
def test_a_model_that_exceeds_the_budget_of_main_memory_is_not_locked(
    runtime: Runtime, driver: Driver, budget: int | None, is_locked: bool
) -> None:
    parcel = HostTier(budget).take_in("a", Layers("a", 4 * MIB), CudaDevice(0))
    assert len(runtime.locked) == is_locked
    assert parcel.host_bytes == 4 * MIB
