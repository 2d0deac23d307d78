"""Main memory for weights: what counts, and how often."""

from __future__ import annotations

import gc
from typing import Any

from panic.devices.host import HostTier
from panic.devices.parcels import HostBuffer, Parcel
from panic.devices.simulated import SimulatedDevice

DEVICE = SimulatedDevice(name="sim", capacity_bytes=100)


class Sized:
    """A model of so many bytes."""

    def __init__(self, size_bytes: int) -> None:
        self.size_bytes = size_bytes


def parcel_of(host_bytes: int, buffer: HostBuffer | None = None) -> Parcel:
    return Parcel(blocks=[], whole=False, keeps_host=True, host_bytes=host_bytes, buffer=buffer)


def tier(budget_bytes: int | None, *parcels: Parcel) -> tuple[HostTier, list[dict[str, Any]]]:
    """A host tier that takes in these parcels one after another, and what packing was told."""
    told: list[dict[str, Any]] = []
    left = list(parcels)

    def pack(model: Any, device: Any, shared: Any = None, *, pinned: bool = True) -> Parcel:
        told.append({"shared": shared, "pinned": pinned})
        return left.pop(0)

    return HostTier(budget_bytes, pack), told


def test_a_buffer_counts_once_however_many_use_it() -> None:
    buffer = HostBuffer(b"")
    first, second, other = parcel_of(10, buffer), parcel_of(10, buffer), parcel_of(7)
    host, told = tier(None, first, second, other)
    for name in ("a", "a", "b"):
        host.take_in(name, Sized(10), DEVICE)  # type: ignore[arg-type]
    assert host.held_bytes == 17
    assert [item["shared"] for item in told] == [None, buffer, None]
    assert host.buffer("a") is buffer
    assert host.buffer("b") is None
    assert not host.is_only_user("a", first)
    assert host.is_only_user("b", other)
    del second
    gc.collect()
    assert host.is_only_user("a", first)


def test_of_many_instances_the_one_that_has_a_buffer_is_shared() -> None:
    buffer = HostBuffer(b"")
    parcels = [*(parcel_of(1) for _ in range(30)), parcel_of(1, buffer)]
    host, _ = tier(None, *parcels)
    for _ in parcels:
        host.take_in("a", Sized(1), DEVICE)  # type: ignore[arg-type]
    assert host.buffer("a") is buffer


def test_what_takes_no_memory_frees_none() -> None:
    nothing = parcel_of(0)
    host, _ = tier(None, nothing)
    host.take_in("a", Sized(0), DEVICE)  # type: ignore[arg-type]
    assert not host.is_only_user("a", nothing)


def test_two_copies_of_a_model_are_two() -> None:
    first, second = parcel_of(10, HostBuffer(b"")), parcel_of(10, HostBuffer(b""))
    host, _ = tier(None, first, second)
    for _ in range(2):
        host.take_in("a", Sized(10), DEVICE)  # type: ignore[arg-type]
    assert host.held_bytes == 20
    assert host.is_only_user("a", first)


def test_what_fits_to_the_byte_is_page_locked_and_what_exceeds_the_budget_is_not() -> None:
    parcels = [parcel_of(10), parcel_of(10), parcel_of(1)]
    host, told = tier(20, *parcels)
    for size in (10, 10, 1):
        host.take_in(str(size), Sized(size), DEVICE)  # type: ignore[arg-type]
    assert [item["pinned"] for item in told] == [True, True, False]
    assert host.lacks(0)
    assert not HostTier(None).lacks(10**18)
    assert not HostTier(5).lacks(5)
    assert HostTier(5).lacks(6)
    assert HostTier(0).lacks(1)
