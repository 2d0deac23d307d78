"""The device on paper by itself: bytes, what others hold, a call's working memory, the bus."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from panic.devices.device import open_device
from panic.devices.simulated import SimulatedDevice
from panic.errors import OutOfMemory, UsageError


@dataclass
class Block:
    """A block that notes when it is copied, or cannot be."""

    num_bytes: int
    times: list[int]
    error: Exception | None = None

    def fill(self) -> None:
        if self.error:
            raise self.error
        self.times.append(self.num_bytes)


def sim(capacity: int = 100, **options: object) -> SimulatedDevice:
    return SimulatedDevice(name="sim", capacity_bytes=capacity, **options)  # type: ignore[arg-type]


def test_what_others_hold_is_as_the_trace_has_it_from_each_second_on() -> None:
    device = sim(tenants_bytes=7, tenants_trace=[(1.0, 20), (2.0, 120)])
    held = []
    for now in (0.0, 1.0, 1.5, 2.0, 9.0):
        device.now_s = now
        held.append((device.others_bytes(), device.free_bytes()))
    assert held == [(7, 93), (20, 80), (20, 80), (120, 0), (120, 0)]
    assert (sim(tenants_bytes=7).others_bytes(), device.total_bytes()) == (7, 100)


def test_allocations_are_rounded_up_and_the_nth_may_find_no_room() -> None:
    device = sim(96, granularity_bytes=8, fail_at=3)
    assert [device.rounded(size) for size in (0, 1, 8, 9)] == [0, 8, 8, 16]
    device.reserve(9)
    device.reserve(0)  # takes nothing, and is no allocation
    device.reserve(80)
    assert (device.allocated_bytes, device.free_bytes(), device.num_allocations) == (96, 0, 2)
    device.release(79)
    with pytest.raises(OutOfMemory) as refused:
        device.reserve(1)
    assert refused.value.message == "sim: 8 B asked for, 80 B free of 96 B"
    device.reserve(80)
    assert (device.allocated_bytes, device.peak_bytes) == (96, 96)
    with pytest.raises(OutOfMemory, match="sim: 8 B asked for, 0 B free of 96 B"):
        device.reserve(1)
    with pytest.raises(AssertionError, match="more released than reserved"):
        device.release(97)


def test_a_call_uses_what_was_set_aside_first_and_gives_all_back() -> None:
    device = sim()
    device.begin_call(30)
    taken = []
    for num_bytes in (10, 20, 5, 40, -50, -25):
        device.use(num_bytes)
        taken.append(device.allocated_bytes)
    assert taken == [30, 30, 35, 75, 30, 30]
    assert (device.end_call(), device.allocated_bytes, device.peak_bytes) == (75, 0, 75)
    device.begin_call(0)
    device.use(12)
    assert (device.end_call(), device.allocated_bytes) == (12, 0)


def test_a_call_without_room_keeps_what_it_had() -> None:
    device = sim(granularity_bytes=8)
    device.reserve(40)
    device.begin_call(8)
    device.use(20)
    assert device.allocated_bytes == 64
    with pytest.raises(OutOfMemory):
        device.use(37)
    assert device.allocated_bytes == 64
    device.use(12)  # 32 in all
    assert device.allocated_bytes == 72
    device.use(-1)  # 31 take as much as 32
    assert device.allocated_bytes == 72
    assert (device.end_call(), device.allocated_bytes) == (32, 40)


def test_copies_take_their_bytes_over_the_rate_one_after_another() -> None:
    device, times = sim(rate_bytes_per_s=10.0), []
    first = device.transfer([Block(20, times), Block(10, times)], ahead=True)
    assert (device.now(), times, device.copied_bytes) == (0.0, [], 0)
    second = device.transfer([Block(5, times)], ahead=True)
    device.advance(1.0)
    assert first.wait() == 2.0
    assert (device.now(), times) == (3.0, [20, 10])
    assert second.wait() == 0.5, "behind the others"
    assert second.wait() == 0.0
    assert (times, device.copied_bytes) == ([20, 10, 5], 35)
    device.transfer([Block(10, times)], ahead=False)
    assert (device.now(), times[-1], device.bus_free_at_s) == (4.5, 10, 4.5)
    device.advance(10.0)
    assert device.transfer([Block(10, times)], ahead=True).arrives_at_s == [15.5], "the bus was free"
    assert device.transfer([], ahead=True).wait() == 0.0


@pytest.mark.parametrize(
    ("at", "arrived", "ends"),
    [(0.0, 1, 2.0), (1.9, 1, 2.0), (2.0, 2, 3.0), (2.5, 2, 3.0), (3.0, 3, 4.0), (9.0, 3, 9.0)],
)
def test_a_cancelled_transfer_ends_the_block_that_is_on_the_bus(at: float, arrived: int, ends: float) -> None:
    device, times = sim(rate_bytes_per_s=10.0), []
    transfer = device.transfer([Block(20, times), Block(10, times), Block(10, times)], ahead=True)
    device.advance(at)
    assert transfer.cancel() == arrived == len(times)
    assert device.now() == ends
    assert transfer.cancel() == arrived
    assert device.copied_bytes == sum(times)
    if arrived < 3:
        assert device.bus_free_at_s == ends


def test_of_a_transfer_that_waits_for_the_bus_nothing_is_under_way() -> None:
    """A block that waits behind another transfer is not begun; without a bus all is there at once."""
    device, times = sim(rate_bytes_per_s=10.0), []
    device.transfer([Block(50, times)], ahead=True)
    assert sim().transfer([Block(50, []), Block(9, [])], ahead=True).cancel() == 2
    broken = device.transfer([Block(10, times, OSError("disk"))], ahead=True)
    device.advance(9.0)
    assert broken.cancel() == 0
    with pytest.raises(OSError, match="disk"):
        broken.wait()


def test_the_clock_follows_real_calls_where_it_is_told_to() -> None:
    device = sim()
    device.computed(2.0)
    assert device.now() == 0.0
    device.follows_real_time = True
    device.computed(2.0)
    assert device.now() == 2.0


@pytest.mark.parametrize(
    "name", ["sim:", "sim:.", "sim:1.2.3GiB", f"sim:{'9' * 400}", "sim:8XB", "simulated"]
)
def test_a_budget_that_is_no_size_is_no_device(name: str) -> None:
    with pytest.raises(UsageError, match="unknown device"):
        open_device(name)


@pytest.mark.parametrize(
    ("name", "capacity"),
    [
        *(("sim:12", 12), ("sim:12b", 12), ("sim:12 KB", 12_000), ("sim:2mb", 2_000_000)),
        *(("sim:3GB", 3_000_000_000), ("sim:1.5KiB", 1536), ("sim:2MiB", 2**21), ("sim:3gib#2", 3 * 2**30)),
    ],
)
def test_budgets_by_their_units(name: str, capacity: int) -> None:
    device = open_device(name)
    assert (device.name, device.total_bytes(), device.kind, device.torch_name) == (
        name,
        capacity,
        "sim",
        "cpu",
    )
    assert device.has_own_memory
    device.computed(1.0)  # type: ignore[union-attr]
    assert device.now() == 1.0  # type: ignore[union-attr]
