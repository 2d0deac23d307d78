"""Models in main memory: constructed when they are first needed, given up when there are too many.

models = Construction(build, host, device, files)
entry = models.make(residency, "sd-turbo", upcoming=["blip", "sd-turbo"])
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from panic.devices.device import CpuDevice, Device, format_bytes, is_out_of_memory
from panic.devices.host import HostTier
from panic.devices.readahead import ReadAhead
from panic.devices.residency import Entry, Residency
from panic.errors import ModelDoesNotFit
from panic.models.protocol import Model


@dataclass(slots=True)
class Construction:
    """Builds the models of one cache, whose arguments these are."""

    build: Callable[[str], Model]
    host: HostTier
    device: Device
    files: Callable[[str], Sequence[Path]]
    reader: ReadAhead = field(init=False)

    def __post_init__(self) -> None:
        self.reader = ReadAhead(self.files)

    def make(self, here: Residency, name: str, upcoming: Sequence[str]) -> Entry:
        """A new entry of the residency, its weights in main memory.

        Raises: ModelDoesNotFit if main memory has no room, or what building the model raises.
        """
        with _as_unfit(name):
            model = self.build(name)
            if self.host.buffer(name) is None:
                self._make_room(here, model.size_bytes, upcoming)
            entry = here.add(name, model, self.host.take_in(name, model, self.device))
        self.reader.taken(name)
        return entry

    def read_ahead(self, here: Residency, upcoming: Sequence[str]) -> None:
        """Have the files of the next model read that must be constructed."""
        absent = next((name for name in upcoming if name not in here.entries), None)
        if absent is not None and self.device.has_own_memory:
            self.reader.start(absent)

    def close(self) -> None:
        """Stop reading."""
        self.reader.close()

    def _make_room(self, here: Residency, needed: int, upcoming: Sequence[str]) -> None:
        """Forget models, furthest next use first. One that alone exceeds the budget is let in."""
        if not self.host.lacks(needed):
            return
        later = list(upcoming)
        for name in sorted(here.entries, key=lambda n: -(later.index(n) if n in later else len(later))):
            if self.host.lacks(needed):
                self._forget_idle(here, name)
        gc.collect()  # models hold themselves by cycles

    def _forget_idle(self, here: Residency, name: str) -> None:
        """Drop a model from main memory, too, if that makes room there."""
        entry = here.entries[name]
        if not entry.leases and self.host.is_only_user(name, entry.parcel):
            here.cancel()
            here.forget(entry)


@contextmanager
def _as_unfit(name: str) -> Iterator[None]:
    """A smaller batch does not help where the weights have no room in main memory, so it is told apart."""
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        free = format_bytes(CpuDevice().free_bytes())
        raise ModelDoesNotFit(
            f"{name}: no room in memory to construct it ({free} of main memory are free now): {error}",
            hint="Use a smaller dtype, or fewer models at once.",
        ) from None
