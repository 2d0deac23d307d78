"""Where models run, and how much room there is: one small protocol over CUDA, MPS, the CPU and a simulation.

A device answers how many bytes are free *now* and keeps a ledger of what our cache put there. On a real
device the ledger is advisory, since the driver knows better; on a simulated one it is the truth, so the
whole cache can be tested on a CPU with exact arithmetic.

Of main memory a container or a job of a cluster may have less than the machine: limits of Linux control
groups, of versions 1 and 2, of the group and of all that it is in. Files that the system keeps in memory
count as used there, but are given up when memory is asked for: here they are free.

    open_device("sim:8GiB").free_bytes()
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import ClassVar, Protocol

from panic.devices.transfers import Block, Transfer
from panic.errors import OutOfMemory, UsageError

_UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}
_NO_ROOM = ("out of memory", "ALLOC_FAILED", "can't allocate memory", "not enough memory")
"""What CUDA and MPS, cuBLAS and cuDNN, and torch's allocator in main memory say when there is no room."""

ALL = "cuda:all"
"""Names all GPUs that are visible."""


class Device(Protocol):
    """A place with a byte budget where models run."""

    @property
    def name(self) -> str:
        """The name that the user wrote: "cpu", "cuda:0", "sim:8GiB"."""

    @property
    def kind(self) -> str:
        """What results depend on: "cpu", "mps", "sim", "cuda NVIDIA H200"."""

    @property
    def torch_name(self) -> str:
        """The torch device that models are loaded onto."""

    @property
    def has_own_memory(self) -> bool:
        """Whether weights are copied from main memory, so that a copy there makes a reload cheap."""

    def total_bytes(self) -> int:
        """Bytes of memory that the device has."""

    def free_bytes(self) -> int:
        """Memory that could be taken now, other tenants and our own allocator's reserve considered."""

    def trim(self) -> None:
        """Give unused memory back to the driver."""


class OwnMemory(Device, Protocol):
    """A device to whose memory weights are copied from main memory."""

    def others_bytes(self) -> int:
        """Memory that others hold now."""

    def rounded(self, num_bytes: int) -> int:
        """What an allocation of this size takes."""

    def reserve(self, num_bytes: int) -> None:
        """Take room before weights are loaded. Raises OutOfMemory where the ledger is exact."""

    def release(self, num_bytes: int) -> None:
        """Give room back after weights were dropped."""

    def begin_call(self, working_bytes: int) -> None:
        """Take notice that a model is about to compute. Raises OutOfMemory where the ledger is exact."""

    def end_call(self) -> int | None:
        """End a call. Returns the most memory it held beyond the weights, None if that cannot be known."""

    def transfer(self, blocks: Sequence[Block], *, ahead: bool) -> Transfer:
        """Begin to fill blocks; with `ahead` beside the computing, else done when this returns."""

    def now(self) -> float:
        """Seconds on the device's clock."""

    def computed(self, seconds: float) -> None:
        """Take notice of how long a call took; a simulated clock moves by it."""


@dataclass(slots=True)
class CpuDevice:
    """Main memory, within the container's limit where there is one."""

    has_own_memory: ClassVar[bool] = False
    name: str = "cpu"
    kind: str = "cpu"
    torch_name: str = "cpu"

    def total_bytes(self) -> int:
        physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        return min(physical, container_limit_bytes() or physical)

    def free_bytes(self) -> int:
        import psutil

        available = int(psutil.virtual_memory().available)
        left = container_free_bytes()
        return available if left is None else min(available, left)

    def trim(self) -> None:
        """Do nothing: no memory is held back."""


@dataclass(slots=True)
class MpsDevice:
    """Apple's GPU, which shares main memory."""

    has_own_memory: ClassVar[bool] = False
    name: str = "mps"
    kind: str = "mps"
    torch_name: str = "mps"

    def total_bytes(self) -> int:
        import torch

        return int(torch.mps.recommended_max_memory())

    def free_bytes(self) -> int:
        import torch

        return self.total_bytes() - int(torch.mps.driver_allocated_memory())

    def trim(self) -> None:
        import torch

        torch.mps.empty_cache()


MainMemory = CpuDevice | MpsDevice
"""The devices whose memory is main memory."""


def open_device(name: str) -> MainMemory | OwnMemory:
    """The device a config names: cpu, mps, cuda, cuda:N, sim:8GiB, or auto (the best that is there).

    Raises UsageError for a device that is not there: nothing falls back silently.
    """
    if name == "cpu":
        return CpuDevice()
    if match := re.fullmatch(r"sim:(\d{1,18}(?:\.\d+)?)\s*([a-zA-Z]*)(?:#\d+)?", name):
        unit = _UNITS.get(match[2].lower())
        if unit is not None:
            from panic.devices.simulated import SimulatedDevice

            capacity_bytes = int(float(match[1]) * unit)
            return SimulatedDevice(name=name, capacity_bytes=capacity_bytes, follows_real_time=True)
    if name == "auto" or name == "mps" or name.startswith("cuda"):
        return _open_torch_device(name)
    raise UsageError(
        f"unknown device {name!r}",
        hint="Allowed: auto, cpu, mps, cuda, cuda:N, cuda:all, sim:8GiB (a simulated budget).",
    )


def _open_torch_device(name: str) -> MainMemory | OwnMemory:
    import torch

    from panic.devices.cuda import CudaDevice

    num_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    has_mps = torch.backends.mps.is_available()
    if name == "auto":
        return CudaDevice(0) if num_gpus else MpsDevice() if has_mps else CpuDevice()
    if name == "mps" and has_mps:
        return MpsDevice()
    index = name.removeprefix("cuda").removeprefix(":") or "0"
    is_number = index.isdecimal() and len(index) <= 4
    if name.startswith("cuda") and is_number and int(index) < num_gpus:
        return CudaDevice(int(index))
    present = [f"cuda:{i}" for i in range(num_gpus)] + ["mps"] * has_mps + ["cpu"]
    raise UsageError(f"device {name!r} is not here", hint=f"This machine has: {', '.join(present)}.")


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceGroup:
    """Several devices of one kind with memory of their own, the smallest first; `open_devices` makes it.

    To whoever plans work it is one device, with the memory of the smallest: a shape that fits there fits all.
    Cards of several models are of a joint kind of their own, since results depend on which one computes.
    """

    devices: tuple[OwnMemory, ...]
    has_own_memory: ClassVar[bool] = True

    @property
    def name(self) -> str:
        return ", ".join(device.name for device in self.devices)

    @property
    def kind(self) -> str:
        sorts = sorted({device.kind for device in self.devices})
        first, *others = sorts
        return " + ".join([first, *(other.removeprefix("cuda ") for other in others)])

    @property
    def torch_name(self) -> str:
        return self.devices[0].torch_name

    @property
    def is_mixed(self) -> bool:
        """Whether devices differ in kind, or in memory by more than a gibibyte."""
        sizes = [device.total_bytes() for device in self.devices]
        return len({device.kind for device in self.devices}) > 1 or max(sizes) - min(sizes) > 2**30

    def total_bytes(self) -> int:
        return min(device.total_bytes() for device in self.devices)

    def free_bytes(self) -> int:
        return min(device.free_bytes() for device in self.devices)

    def trim(self) -> None:
        for device in self.devices:
            device.trim()


def open_devices(asked: str | Sequence[str]) -> MainMemory | OwnMemory | DeviceGroup:
    """The device or devices that a config names: as `open_device`, cuda:all, or a list.

    Raises UsageError for one that is not there.
    """
    if isinstance(asked, str) and asked != ALL:
        return open_device(asked)
    names = _all_gpus() if isinstance(asked, str) else _told_apart(asked)
    if len(names) == 1:
        return open_device(names[0])
    found = [device for name in names if not isinstance(device := open_device(name), MainMemory)]
    return DeviceGroup(devices=tuple(sorted(found, key=lambda device: device.total_bytes())))


def members(device: Device) -> tuple[Device, ...]:
    """The single devices of what `open_devices` has given."""
    return device.devices if isinstance(device, DeviceGroup) else (device,)


def _all_gpus() -> list[str]:
    import torch

    num_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not num_gpus:
        raise UsageError("device 'cuda:all': this machine has no CUDA device", hint="Allowed: cpu, auto.")
    return [f"cuda:{index}" for index in range(num_gpus)]


def _told_apart(names: Sequence[str]) -> list[str]:
    """Names under which equal budgets are several devices: sim:8GiB#1, sim:8GiB#2."""
    return [
        f"{name}#{1 + list(names[:place]).count(name)}"
        if name.startswith("sim:") and len(names) > 1
        else name
        for place, name in enumerate(names)
    ]


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a device has no room.

    Only torch's allocator has an exception of its own for that; libraries that take memory beside it, the
    driver, Apple's GPU and main memory say so in words.
    """
    torch = sys.modules.get("torch")
    if isinstance(error, OutOfMemory | MemoryError) or (torch and isinstance(error, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _NO_ROOM)


def is_poisoned(device: Device) -> bool:
    """Whether a GPU's context is lost: after a device-side assert every later call in this process fails."""
    if not device.torch_name.startswith("cuda"):
        return False
    import torch

    try:
        torch.cuda.synchronize(device.torch_name)
    except RuntimeError:
        return True
    return False


# Limits of control groups

VERSIONS = {
    2: ("", "memory.max", "memory.current", ("inactive_file", "active_file")),
    1: (
        "memory",
        "memory.limit_in_bytes",
        "memory.usage_in_bytes",
        ("total_inactive_file", "total_active_file"),
    ),
}
"""Each version has a folder below /sys/fs/cgroup, files of limit and usage, and lines of `memory.stat`."""
NO_LIMIT = 2**60
"""Version 1 says that there is none with a number of this size."""


def container_limit_bytes(root: Path = Path("/")) -> int | None:
    """Bytes of the smallest limit; None outside of any limit."""
    return min((limit for limit, _ in _limits(root)), default=None)


def container_free_bytes(root: Path = Path("/")) -> int | None:
    """Bytes that the fullest group has left; None outside of any limit."""
    return min((max(0, limit - used) for limit, used in _limits(root)), default=None)


def _limits(root: Path) -> list[tuple[int, int]]:
    """(limit, bytes used that cannot be had back) of every group with a limit."""
    found = []
    for version, path in _groups(root):
        folder, limit_file, usage_file, lines = VERSIONS[version]
        base = root / "sys/fs/cgroup" / folder
        for group in [base / path, *(base / path).parents]:
            limit, usage = _number(group / limit_file), _number(group / usage_file)
            if limit is not None and limit < NO_LIMIT and usage is not None:
                files = sum(_stat(group / "memory.stat", line) for line in lines)
                found.append((limit, max(0, usage - files)))
            if group == base:
                break
    return found


@cache
def _groups(root: Path) -> list[tuple[int, str]]:
    """(version, path) of the groups of this process that may limit its memory; asked once.

    In a container the path may be that of the machine, which cannot be seen there: then the root's files are
    the container's.
    """
    groups = []
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers or "memory" in controllers.split(","):
            groups.append((1 if controllers else 2, path.strip("/")))
    return groups or [(2, "")]


def _stat(path: Path, name: str) -> int:
    lines = dict(line.split(" ", 1) for line in _text(path).splitlines() if " " in line)
    return int(lines.get(name, "0"))


def _number(path: Path) -> int | None:
    text = _text(path).strip()
    return int(text) if text.isdigit() else None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return ""
