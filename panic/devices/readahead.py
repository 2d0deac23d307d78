"""From the disk into main memory ahead of time: a thread reads the weight files of the model that comes next.

It only reads, so that the operating system has the files in its cache when the model is constructed. To
construct it meanwhile would not be safe: loaders change torch's default dtype and patch its modules for the
whole process, and the model that computes would notice.

    reader = ReadAhead(lambda name: sorted(Path("models", name).glob("*.safetensors")))
    reader.start("sd-turbo")
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from panic.devices.device import CpuDevice

log = logging.getLogger("panic.devices")

CHUNK_BYTES = 8 * 2**20
SPARE = 1.5
"""Files are read if main memory has as many times their bytes to spare: else they push others out."""


class ReadAhead:
    """Reads files of models by name, one model at a time, each once until it is `taken`.

    Args:
        files: of a model; empty if there are none. Called in the thread.
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
        self._thread = threading.Thread(target=self._read, args=(name,), name="read ahead", daemon=True)
        self._thread.start()

    def taken(self, name: str) -> None:
        """The model has been constructed; if that is needed once more, it may be read once more."""
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
        except Exception as error:  # whoever needs the model will tell what is wrong with it
            log.debug("%s was not read ahead: %s", name, error)
