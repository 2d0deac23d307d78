"""Room on a device and the working memory of calls: small functions with known answers."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from panic.devices.device import is_out_of_memory
from panic.devices.room import Need, Room, WorkingMemory, envelope
from panic.devices.simulated import SimulatedDevice
from panic.errors import OutOfMemory


def test_two_sizes_give_the_line_through_them() -> None:
    assert envelope({1: 300, 4: 600}, 8) == 1000
    assert envelope({1: 300, 4: 600}, 2) == 400


def test_one_size_gives_bounds() -> None:
    assert envelope({4: 600}, 4) == 600
    assert envelope({4: 600}, 8) == 1200
    assert envelope({4: 600}, 1) == 600
    assert envelope({}, 4) is None


def test_a_need_that_shrinks_with_the_batch_counts_as_constant() -> None:
    assert envelope({1: 500, 4: 400}, 16) == 500


@given(
    st.dictionaries(st.integers(1, 64), st.integers(0, 10**10), min_size=1, max_size=6), st.integers(1, 64)
)
def test_no_observation_lies_above_the_envelope(peaks: dict[int, int], batch_size: int) -> None:
    for size, peak in peaks.items():
        assert (envelope(peaks, size) or 0) >= peak - 1
    smaller, larger = envelope(peaks, batch_size), envelope(peaks, batch_size + 1)
    assert smaller is not None
    assert larger is not None
    assert smaller <= larger


def test_only_more_than_was_known_is_new() -> None:
    memory = WorkingMemory({"m": {0: {2: 100}}})
    assert not memory.observe("m", 0, 2, 90)
    assert memory.observe("m", 0, 2, 110)
    assert memory.observe("m", 0, 4, 10)
    assert memory.peaks == {"m": {0: {2: 110, 4: 10}}}
    assert memory.estimate("m", 0, 2) == round(110 * 1.05)
    assert memory.estimate("other", 0, 2) is None


def test_every_shape_of_the_items_has_an_envelope_of_its_own() -> None:
    memory = WorkingMemory({"m": {64: {1: 100}, 512: {1: 700, 2: 900}}}, margin=0.0)
    assert memory.estimate("m", 64, 4) == 400
    assert memory.estimate("m", 512, 4) == 1300
    assert memory.estimate("m", 128, 4) == 1300, "as much as the most demanding one that was seen"
    assert (memory.seen("m", 512, 2), memory.seen("m", 512, 4), memory.seen("m", 128, 1)) == (900, 0, 0)
    assert (memory.most("m"), memory.most("other")) == (900, 0)


def test_the_most_others_held_within_the_window_counts() -> None:
    device = SimulatedDevice(
        name="sim", capacity_bytes=100, tenants_trace=[(0, 10), (10, 50), (20, 30), (25, 40), (30, 20)]
    )
    room = Room(device, headroom_bytes=5, window_s=20)
    seen = []
    for time in (0, 10, 20, 25, 30, 31, 46, 100):
        device.now_s = time
        seen.append((room.usable_bytes(), room.usable_bytes(prudent=False)))
    assert [100 - 5 - prudent for prudent, _ in seen] == [10, 50, 50, 50, 50, 40, 20, 20]
    assert [100 - 5 - now for _, now in seen] == [10, 50, 30, 40, 20, 20, 20, 20]


def test_the_fraction_is_of_the_whole_device() -> None:
    device = SimulatedDevice(name="sim", capacity_bytes=100, tenants_bytes=30)
    assert Room(device, memory_fraction=0.5).usable_bytes() == pytest.approx(20)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OutOfMemory("full"), True),
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate"), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 8.00 GB)"), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), True),
        (RuntimeError("CUDA error: device-side assert triggered"), False),
        (ValueError("out of memory is a fine prompt"), False),
    ],
)
def test_every_way_to_say_that_there_is_no_room(error: Exception, expected: bool) -> None:
    assert is_out_of_memory(error) is expected


def test_the_line_is_lifted_until_nothing_lies_above() -> None:
    """Through 10, 30 and 20 the slope is 5; the middle one lies highest: 20 + 5 n."""
    peaks = {1: 10, 2: 30, 3: 20}
    assert [envelope(peaks, size) for size in (1, 2, 3, 6)] == [25, 30, 35, 50]


def test_a_line_that_would_begin_below_zero_begins_at_zero() -> None:
    assert [envelope({1: 1, 2: 10}, size) for size in (1, 2, 4)] == [9, 18, 36]


def test_one_size_is_rounded_up() -> None:
    assert envelope({2: 5}, 3) == 8
    assert envelope({2: 5}, 1) == envelope({2: 5}, 2) == 5


def test_a_reading_counts_until_it_is_older_than_the_window() -> None:
    device = SimulatedDevice(name="sim", capacity_bytes=100, tenants_trace=[(0.0, 40), (1.0, 10), (5.0, 20)])
    room = Room(device, window_s=60.0)
    assert room.usable_bytes() == 60
    device.advance(1.0)
    assert (room.usable_bytes(), room.usable_bytes(prudent=False)) == (60, 90)
    assert room.describe(0).startswith("90 B are free of 100 B (10 B held by others)")  # as it is now
    device.advance(4.0)
    assert room.usable_bytes() == 60
    device.advance(55.0)
    assert room.usable_bytes() == 60  # read 60 s ago
    device.advance(0.5)
    assert room.usable_bytes() == 80


def test_headroom_and_fraction_are_taken_off_and_may_leave_less_than_nothing() -> None:
    device = SimulatedDevice(name="sim", capacity_bytes=100, tenants_bytes=10)
    assert Room(device, 5, 0.5).usable_bytes() == 100 - 10 - 5 - 50
    assert Room(device, 100, 1.0).usable_bytes() == -10
    assert Room(device, 5, 0.5).describe(3) == (
        "35 B are free of 100 B (3 B held by models in use, 10 B held by others, 5 B kept as headroom, "
        "50 B beyond the memory fraction)"
    )
    assert Room(device, 100).describe(0).startswith("0 B are free of 100 B (10 B held by others, ")
    assert Room(SimulatedDevice(name="sim", capacity_bytes=9)).describe(0) == "9 B are free of 9 B"


def test_a_need_is_what_was_seen_and_else_what_the_model_says() -> None:
    memory = WorkingMemory()
    assert memory.need("m", 0, 4) == Need(0, 0, False)
    assert memory.need("m", 0, 4, lambda batch_size: 10 * batch_size) == Need(40, 40, True)
    assert memory.observe("m", 0, 2, 0)
    assert not memory.observe("m", 0, 2, 0)
    assert memory.need("m", 0, 2, lambda batch_size: 10 * batch_size) == Need(0, 0, True)
    memory.observe("m", 0, 2, 100)
    assert memory.need("m", 0, 2) == Need(105, 100, True)
    assert memory.need("m", 0, 4) == Need(210, 0, True)
    assert memory.need("m", 9, 2) == Need(105, 0, True)
