"""Several devices as one: what a plan sees of them, and what a list of names opens."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from panic.devices.cuda import CudaDevice
from panic.devices.device import (
    CpuDevice,
    DeviceGroup,
    MpsDevice,
    is_poisoned,
    members,
    open_device,
    open_devices,
)
from panic.devices.simulated import SimulatedDevice
from panic.errors import UsageError

GIB = 2**30


def group(*sizes: float, kinds: str = "AA") -> DeviceGroup:
    made = [
        SimulatedDevice(name=f"cuda:{n}", capacity_bytes=int(size * GIB), kind=f"cuda {kind}")
        for n, (size, kind) in enumerate(zip(sizes, kinds, strict=True))
    ]
    return DeviceGroup(devices=tuple(made))


def test_a_group_has_the_memory_of_its_smallest() -> None:
    both = group(24, 25)
    assert (both.name, both.torch_name, both.kind) == ("cuda:0, cuda:1", both.devices[0].torch_name, "cuda A")
    assert (both.total_bytes(), both.free_bytes(), both.has_own_memory) == (24 * GIB, 24 * GIB, True)
    both.devices[1].reserve(2 * GIB)
    assert (both.total_bytes(), both.free_bytes()) == (24 * GIB, 23 * GIB)
    assert not both.is_mixed, "a gibibyte apart"
    assert group(24, 25.1).is_mixed
    assert group(24, 24, kinds="BA").is_mixed
    assert group(8, 8, 8, kinds="BAB").kind == "cuda A + B"


def test_all_of_a_group_are_trimmed() -> None:
    trimmed: list[int] = []
    devices: Any = tuple(SimpleNamespace(trim=lambda n=n: trimmed.append(n)) for n in range(3))
    DeviceGroup(devices=devices).trim()
    assert trimmed == [0, 1, 2]


def test_a_list_of_names_is_a_group_smallest_first() -> None:
    found = open_devices(["sim:8GiB", "sim:4GiB", "sim:8GiB"])
    assert [one.name for one in members(found)] == ["sim:4GiB#1", "sim:8GiB#1", "sim:8GiB#2"]
    one = open_devices(["sim:8GiB"])
    assert (one.name, members(one)) == ("sim:8GiB", (one,))
    assert open_devices("sim:8GiB").name == "sim:8GiB"


def test_all_cards_of_a_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: "Paper 24")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda index: (GIB, (3 - index) * GIB))
    assert [one.name for one in members(open_devices("cuda:all"))] == ["cuda:1", "cuda:0"]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert isinstance(open_devices("cuda:all"), CudaDevice)
    for gone in ({"is_available": lambda: False}, {"device_count": lambda: 0}):
        with monkeypatch.context() as patched:
            for name, value in gone.items():
                patched.setattr(torch.cuda, name, value)
            with pytest.raises(UsageError, match="this machine has no CUDA device") as refused:
                open_devices("cuda:all")
            assert refused.value.hint == "Allowed: cpu, auto."


def test_a_device_that_is_not_here_is_told_with_those_that_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: "Paper 24")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda index: (GIB, 3 * GIB))
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert open_device("cuda").name == "cuda:0"
    assert isinstance(open_device("mps"), MpsDevice)
    for name in ("cuda:2", "cuda:00001", "cuda:x"):
        with pytest.raises(UsageError, match="is not here") as refused:
            open_device(name)
        assert refused.value.hint == "This machine has: cuda:0, cuda:1, mps, cpu."
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(UsageError, match="device 'mps' is not here") as refused:
        open_device("mps")
    assert refused.value.hint == "This machine has: cuda:0, cuda:1, cpu."


def test_a_lost_context_is_found_by_waiting_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(torch.cuda, "synchronize", asked.append)
    card: Any = SimpleNamespace(torch_name="cuda:1")
    assert not is_poisoned(card)
    assert asked == ["cuda:1"]
    assert not is_poisoned(CpuDevice())
    assert asked == ["cuda:1"], "main memory has no context"

    def lost(name: str) -> None:
        raise RuntimeError("CUDA error: device-side assert triggered")

    monkeypatch.setattr(torch.cuda, "synchronize", lost)
    assert is_poisoned(card)
