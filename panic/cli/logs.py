"""Where panic's own messages go, and how chatty libraries are kept quiet.

Ours ("panic" and below) go to a file in the store, each line with time, level, host, process and resident
memory; warnings also to stderr. Libraries are silenced at their own loggers; nothing else is changed.

    panic run configs/demo.yaml; less panic-store/logs/*.log
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from panic.cli.common import visible
from panic.store.files import own_folder

CHATTY = (
    "accelerate",
    "datasets",
    "diffusers",
    "filelock",
    "fsspec",
    "httpcore",
    "httpx",
    "huggingface_hub",
    "matplotlib",
    "PIL",
    "sentence_transformers",
    "torch",
    "transformers",
    "urllib3",
)
# What these libraries read when they are imported, in worker processes, too. Their bars would break ours.
ENVIRONMENT = {
    "TRANSFORMERS_VERBOSITY": "error",
    "DIFFUSERS_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TQDM_DISABLE": "1",
}
FORMAT = "%(asctime)s %(levelname)-7s %(host)s %(process)d %(rss_mb)d MB %(name)s: %(message)s"


class AddPlace(logging.Filter):
    """Puts the host's name and this process's resident memory into every record."""

    def __init__(self) -> None:
        super().__init__()
        self._host = socket.gethostname()

    def filter(self, record: logging.LogRecord) -> bool:
        import psutil

        record.host = self._host
        record.rss_mb = psutil.Process().memory_info().rss // 1_000_000
        return True


class SafeFormatter(logging.Formatter):
    """Writes records that no terminal obeys; further lines are indented, so that none passes for a record."""

    def format(self, record: logging.LogRecord) -> str:
        return visible(super().format(record)).replace("\n", "\n    ")


class LogFile(logging.FileHandler):
    """A log that stays incomplete on a full disk: what the disk stops says so, not its log."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - a name of logging
        if not isinstance(sys.exception(), OSError):
            super().handleError(record)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            super().close()


def silence_libraries() -> None:
    """Let libraries report errors only, before they are imported; what the user's environment says stays."""
    for name in CHATTY:
        logging.getLogger(name).setLevel(logging.ERROR)
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)


def log_file(store: Path, project: str) -> Path:
    """A name for a new log in a store."""
    folder = own_folder(store, "logs")
    stem = f"{project}_run_{time.strftime('%Y%m%d-%H%M%S')}"
    candidates = [folder / f"{stem}.log", *(folder / f"{stem}-{number}.log" for number in range(2, 100))]
    return next(path for path in candidates if not os.path.lexists(path))


@contextlib.contextmanager
def logging_to(path: Path, level: str, *, stderr_level: int) -> Iterator[None]:
    """Write our log to a file, and what is at least `stderr_level` to stderr, for a while."""
    ours = logging.getLogger("panic")
    to_file, to_stderr = LogFile(path, encoding="utf-8", errors="backslashreplace"), logging.StreamHandler()
    to_file.addFilter(AddPlace())
    to_file.setFormatter(SafeFormatter(FORMAT))
    to_file.setLevel(level.upper())
    to_stderr.setFormatter(SafeFormatter("%(levelname)s: %(message)s"))
    to_stderr.setLevel(stderr_level)
    before = ours.level
    ours.setLevel(min(to_file.level, stderr_level))
    ours.addHandler(to_file)
    ours.addHandler(to_stderr)
    try:
        yield
    finally:
        for handler in (to_file, to_stderr):
            ours.removeHandler(handler)
            handler.close()
        ours.setLevel(before)
