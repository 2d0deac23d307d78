"""Models in main memory: files read ahead, models constructed when first needed, given up when too many.

The thread that reads ahead only reads, so that the operating system has the files in its cache when the
model is constructed. To construct it meanwhile would not be safe: loaders change torch's default dtype and
patch its modules for the whole process, and the model that computes would notice.

    construction = Construction(build, host, device, files)
    cached = construction.make(residency, "sd-turbo", upcoming=["blip", "sd-turbo"])
"""

from __future__ import annotations

import gc
import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from panic.devices.device import CpuDevice, OwnMemory
from panic.devices.host import HostTier
from panic.devices.main_memory import constructing
from panic.devices.residency import CachedModel, Residency
from panic.models.protocol import Model

log = logging.getLogger("panic.devices")

CHUNK_BYTES = 8 * 2**20
SPARE = 1.5
"""Files are read if main memory has as many times their bytes to spare: else they push others out."""


@dataclass(slots=True)
class Construction:
    """Builds the models of one cache, whose arguments these are."""

    build: Callable[[str], Model]
    host: HostTier
    device: OwnMemory
    files: Callable[[str], Sequence[Path]]
    reader: ReadAhead = field(init=False)

    def __post_init__(self) -> None:
        self.reader = ReadAhead(self.files)

    def make(self, residency: Residency, name: str, upcoming: Sequence[str]) -> CachedModel:
        """Take a new model into the residency, its weights in main memory.

        Raises: ModelDoesNotFit if main memory has no room, or what building the model raises.
        """
        with constructing(name):
            model = self.build(name)
            if needed := self.host.needed(name, model.size_bytes):
                self._make_room(residency, needed, upcoming)
            cached = residency.add(name, model, self.host.take_in(name, model, self.device))
        self.reader.forget(name)
        return cached

    def read_ahead(self, residency: Residency, upcoming: Sequence[str]) -> None:
        """Have the files of the next model that must be constructed read."""
        absent = next((name for name in upcoming if name not in residency.models), None)
        if absent is not None:
            self.reader.start(absent)

    def close(self) -> None:
        """Stop reading."""
        self.reader.close()

    def _make_room(self, residency: Residency, needed: int, upcoming: Sequence[str]) -> None:
        """Forget models, furthest next use first. One that alone exceeds the budget is let in."""
        if not self.host.lacks(needed):
            return
        self.host.give_back()
        later = list(upcoming)
        for name in sorted(residency.models, key=lambda n: -(later.index(n) if n in later else len(later))):
            if self.host.lacks(needed):
                self._forget_idle(residency, name)
                self.host.give_back()
        gc.collect()  # models hold themselves by cycles

    def _forget_idle(self, residency: Residency, name: str) -> None:
        """Drop a model from main memory, too, if that makes room there."""
        cached = residency.models[name]
        if not cached.leases and self.host.is_only_user(name, cached.parcel):
            residency.cancel()
            residency.forget(cached)


class ReadAhead:
    """Reads files of models by name, one model at a time, each once until it is forgotten.

    All methods are called by the cache's thread. A reading thread lives from `start` until its files are
    read or `close` stops it; it counts `num_bytes` and holds nothing that another thread changes.

    Args:
        files: gives the files of a model, none if there are none. Called in the reading thread.
    """

    def __init__(self, files: Callable[[str], Sequence[Path]]) -> None:
        self._files = files
        self._asked: set[str] = set()
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self.num_bytes = 0

    def start(self, name: str) -> None:
        """Begin to read, unless it was asked for already or another model is being read."""
        if name in self._asked or (self._thread is not None and self._thread.is_alive()):
            return
        self._asked.add(name)
        # A daemon: a read that hangs on a disk must not keep the process alive.
        self._thread = threading.Thread(target=self._read, args=(name,), name="read ahead", daemon=True)
        self._thread.start()

    def forget(self, name: str) -> None:
        """Let a model that has been constructed be read once more, if that is needed."""
        self._asked.discard(name)

    def wait(self) -> None:
        """Return when what was begun has ended."""
        if self._thread is not None:
            self._thread.join()

    def close(self) -> None:
        """Stop reading."""
        self._stop.set()
        self.wait()

    def _read(self, name: str) -> None:
        try:
            files = self._files(name)
            if SPARE * sum(path.stat().st_size for path in files) > CpuDevice().free_bytes():
                return
            buffer = bytearray(CHUNK_BYTES)
            for path in files:
                with path.open("rb", buffering=0) as file:
                    while not self._stop.is_set() and (num_bytes := file.readinto(buffer)):
                        self.num_bytes += num_bytes
        except Exception as error:  # whoever needs the model will find what is wrong with it
            log.debug("%s was not read ahead: %s", name, error)
