"""Weights once per host: of each model one copy in memory that all processes of an experiment map.

The process that starts the others makes an anonymous file of memory for each model (`memfd_create`) and
hands its number on. The first that constructs a model copies the weights into the file; the others construct
theirs, find the same bytes there, and become views of them. Such a file has no name, so it is gone when the
last process that knows it has ended, by whatever signal, and no shared-memory file system limits it: what
limits it is main memory, which is asked before anything is copied. Where that has no room, or the system
has no such files, every process has a copy of its own, which is told.

Who maps a file holds its lock shared (`flock`), through the mapping itself; a file whose lock can be had
alone is in nobody's use and may be emptied. A second lock, `turn`, lets one process at a time construct a
model: beside the copy that all share there is one more for as long as that takes, not one for each process.
A file that ends with a mark is complete; without it, its filler was killed, and it is filled anew.

    weights = share_weights(["sd-turbo"], num_workers=4)
    with weights.turn():
        buffer = weights.mapped("sd-turbo") or weights.allocate("sd-turbo", num_bytes)
        ...
        weights.filled("sd-turbo")
"""

from __future__ import annotations

import ctypes
import fcntl
import logging
import mmap
import os
import sys
import weakref
from bisect import bisect
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from panic.devices.device import CpuDevice, Device
from panic.devices.parcels import ALIGNMENT, CannotFlatten, HostBuffer, new_buffer, slab
from panic.devices.transfers import format_bytes
from panic.models.protocol import Model

log = logging.getLogger("panic.devices")

WORTH_SHARING = 32 * 2**20
"""Bytes of weights below which a copy for each process costs less than the trouble."""
MARK = 1
"""Bytes at the end of a file that is complete, beyond the weights, which are multiples of ALIGNMENT."""


@dataclass(slots=True, weakref_slot=True)
class SharedWeights:
    """The files of an experiment's models. Picklable for child processes that are given its `fds`.

    numbers: of the file of each model. turn_number: of the file whose lock lets one construct. num_workers:
    processes that share. room: bytes of main memory that may be taken now.
    """

    numbers: dict[str, int]
    turn_number: int
    num_workers: int
    room: Callable[[], int] = field(default_factory=lambda: CpuDevice().free_bytes)

    @property
    def fds(self) -> tuple[int, ...]:
        """What a child process has to be given, under the same numbers."""
        return (*self.numbers.values(), self.turn_number)

    @property
    def held_bytes(self) -> int:
        """Bytes that are shared by now, by whichever processes."""
        return sum(os.fstat(number).st_size for number in self.numbers.values())

    def part(self, num_bytes: int) -> int:
        """What of shared bytes counts for one process."""
        return -(-num_bytes // self.num_workers)

    def has(self, name: str) -> bool:
        """Whether the weights of a model are there."""
        return name in self.numbers and os.fstat(self.numbers[name]).st_size % ALIGNMENT == MARK

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wait until no other process constructs a model. Not to be entered twice."""
        with _opened(self.turn_number) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
            _trim()

    def mapped(self, name: str, *, is_private: bool = False) -> HostBuffer | None:
        """The weights of a model that are there. In its turn.

        is_private: what is written goes to a page of this process's own, as befits weights that are computed
        with where they are.
        """
        if not self.has(name):
            return None
        size = os.fstat(self.numbers[name]).st_size
        return self._map(name, size - MARK, mmap.MAP_PRIVATE if is_private else mmap.MAP_SHARED)

    def allocate(self, name: str, num_bytes: int) -> HostBuffer:
        """Memory to be filled with the weights of a model: shared, or of this process alone. In its turn."""
        if name in self.numbers and not self.has(name):
            os.ftruncate(self.numbers[name], 0)  # what a killed process has left takes room, too
            if num_bytes <= self.room():
                os.ftruncate(self.numbers[name], num_bytes)
                return self._map(name, num_bytes, mmap.MAP_SHARED)
            log.warning(
                "%s: %s of main memory are free, too little for weights of %s that all share:"
                " each of %d processes has its own",
                *(name, format_bytes(self.room()), format_bytes(num_bytes), self.num_workers),
            )
        return new_buffer(num_bytes)

    def filled(self, name: str) -> None:
        """Take notice that what was allocated for a model is filled. In its turn."""
        size = os.fstat(self.numbers[name]).st_size
        if size % ALIGNMENT == 0 and size:
            os.ftruncate(self.numbers[name], size + MARK)

    def give_back(self) -> None:
        """Free the memory of models that no process maps any more. Not in a turn."""
        with self.turn():
            for number in self.numbers.values():
                with _opened(number) as file, suppress(BlockingIOError):
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    os.ftruncate(file, 0)

    def _map(self, name: str, num_bytes: int, flags: int) -> HostBuffer:
        import torch

        with _opened(self.numbers[name]) as file:
            fcntl.flock(file, fcntl.LOCK_SH)  # held by the mapping's own copy of the number from here on
            mapping = mmap.mmap(file, num_bytes, flags, mmap.PROT_READ | mmap.PROT_WRITE)
        return HostBuffer(torch.frombuffer(mapping, dtype=torch.uint8), is_shared=True)


def become_views(model: Model, name: str, weights: SharedWeights, device: Device) -> None:
    """Let a model that computes in main memory use the weights there that processes share. In its turn.

    A model whose tensors cannot lie in one buffer keeps its own; so does one whose weights are mapped from
    its files, as transformers does where they have the wanted type: the system has those pages once anyway.
    """
    modules: Callable[[], Sequence[Any]] | None = getattr(model, "weight_modules", None)
    if modules is None or are_mapped_from_files(modules()):
        return
    with suppress(CannotFlatten):
        known = weights.mapped(name, is_private=True)
        slab(modules(), device, known, pinned=False, allocate=partial(weights.allocate, name))
        weights.filled(name)
        if known is None and (filled := weights.mapped(name, is_private=True)) is not None:
            slab(modules(), device, filled, pinned=False)


def are_mapped_from_files(modules: Sequence[Any]) -> bool:
    """Whether most bytes of the modules' weights are pages of files."""
    tensors: dict[int, int] = {
        tensor.data_ptr(): tensor.nbytes for module in modules for tensor in module.parameters()
    }
    lines = [line.split() for line in Path("/proc/self/maps").read_text(errors="replace").splitlines()]
    files = [of[0].split("-") for of in lines if of[4] != "0" and not of[5].startswith("/memfd:")]
    starts, ends = zip(*sorted((int(a, 16), int(b, 16)) for a, b in files), strict=True)
    mapped = sum(
        size for at, size in tensors.items() if (place := bisect(starts, at)) and at < ends[place - 1]
    )
    return 2 * mapped > sum(tensors.values())


def share_weights(models: Collection[str], num_workers: int) -> SharedWeights | None:
    """Files for the weights of these models, which processes to come may share; None where there cannot be.

    They are closed here when nothing holds what is returned; the memory is free when the others have, too.
    """
    if not models or num_workers < 2:
        return None
    numbers: list[int] = []
    try:
        for _ in range(len(models) + 1):
            numbers.append(_new_file())
    except OSError as error:
        for number in numbers:
            os.close(number)
        log.warning("weights are not shared, each of %d processes has its own: %s", num_workers, error)
        return None
    shared = SharedWeights(dict(zip(models, numbers, strict=False)), numbers[-1], num_workers)
    weakref.finalize(shared, _close, numbers)
    return shared


def _trim() -> None:
    """Give memory that is free within this process, as of weights that were copied, back to the system."""
    with suppress(AttributeError):  # another C library than GNU's
        ctypes.CDLL(None).malloc_trim(0)


def _new_file() -> int:
    """The number of a new file in memory. Raises OSError."""
    if sys.platform != "linux":
        raise OSError("only Linux has files without a name in memory")
    return os.memfd_create("panic-weights", os.MFD_CLOEXEC)


def _close(numbers: Collection[int]) -> None:
    for number in numbers:
        os.close(number)


@contextmanager
def _opened(number: int) -> Iterator[int]:
    """A file anew by its number: with a lock of its own, which other processes' numbers do not share."""
    file = os.open(f"/proc/self/fd/{number}", os.O_RDWR | os.O_CLOEXEC)
    try:
        yield file
    finally:
        os.close(file)
