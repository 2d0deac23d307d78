"""Where panic's own messages go, and how chatty libraries are kept quiet.

Ours ("panic" and below) go to a file in the store, each line with time, level, host, process and resident
memory; warnings also to stderr. Libraries' warnings go to that file alone; where there is none, they are
silenced at their own loggers. What they print goes there, too, where models run in this process and a command
asks for that. Nothing else is changed.

    panic run configs/demo.yaml; less panic-store/logs/*.log
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import shlex
import socket
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

from panic.cli.common import visible
from panic.errors import PanicError
from panic.store.files import own_folder

log = logging.getLogger("panic.cli")

CHATTY = (
    "accelerate",
    "aiohttp",
    "datasets",
    "diffusers",
    "filelock",
    "fsspec",
    "httpcore",
    "httpx",
    "huggingface_hub",
    "matplotlib",
    "PIL",
    "ray",
    "sentence_transformers",
    "torch",
    "torchao",
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
LONGEST_LINE = 4096
"""Of what is printed: a bar that is drawn over and over is one line."""
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


class Prints(io.TextIOBase):
    """A stdout whose lines are records of our log, up to so many characters."""

    def __init__(self, room: int = 2**20) -> None:
        self._room = room
        self._rest = ""

    def write(self, text: str) -> int:
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._tell(line)
        if len(self._rest) > LONGEST_LINE:
            self.end_line()
        return len(text)

    def end_line(self) -> None:
        """Log what has no end of a line yet."""
        rest, self._rest = self._rest, ""
        if rest:
            self._tell(rest)

    def _tell(self, line: str) -> None:
        if self._room > 0:
            log.info("printed: %s", line[: self._room])
            self._room -= len(line) + 1
            if self._room <= 0:
                log.info("what else is printed is not logged")


def silence_libraries() -> None:
    """Let libraries report errors only, before they are imported; what the user's environment says stays."""
    for name in CHATTY:
        logging.getLogger(name).setLevel(logging.ERROR)
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)


def log_file(store: Path, project: str, command: str = "run") -> Path:
    """A name for a new log in a store, in the folder where one may come to be, or in that of a training."""
    store.mkdir(parents=True, exist_ok=True)
    folder = own_folder(store, "logs")
    stem = f"{project}_{command}_{time.strftime('%Y%m%d-%H%M%S')}"
    candidates = [folder / f"{stem}.log", *(folder / f"{stem}-{number}.log" for number in range(2, 100))]
    return next(path for path in candidates if not os.path.lexists(path))


@contextlib.contextmanager
def logging_command(path: Path | None, level: str, *, stderr_level: int, what: str) -> Iterator[None]:
    """Write the log of a command: how it was called, what it and libraries say, and how it ended.

    path: None changes nothing: libraries stay silenced, and our warnings go where Python puts them.
    what: the experiment, config or model that it is about.
    """
    if path is None:
        yield
        return
    from panic.store.provenance import without_tokens

    with logging_to(path, level, stderr_level=stderr_level):
        log.info("%s: %s", what, without_tokens(shlex.join(sys.argv)))
        try:
            yield
        except PanicError as error:
            log.info("%s ended: %s", what, error.message)
            raise
        except Exception as error:
            with contextlib.suppress(OSError), path.open("a", encoding="utf-8") as out:
                out.write(visible("".join(traceback.format_exception(error))))
            error.add_note(f"The traceback is in {path}; -v shows it here.")
            raise


@contextlib.contextmanager
def logging_prints(path: Path | None) -> Iterator[None]:
    """Write what libraries and models print on stdout into the log, for a while: stdout is for answers.

    Where there is no log (`path` is None), it goes to stderr. A console that was made before still prints.
    """
    prints = Prints()
    with contextlib.redirect_stdout(sys.stderr if path is None else prints):
        try:
            yield
        finally:
            prints.end_line()


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
        with _chatter_to(to_file):
            yield
    finally:
        for handler in (to_file, to_stderr):
            ours.removeHandler(handler)
            handler.close()
        ours.setLevel(before)


@contextlib.contextmanager
def _chatter_to(handler: logging.Handler) -> Iterator[None]:
    """Give a handler alone what libraries log and warn of, for a while."""
    loggers = [logging.getLogger(name) for name in (*CHATTY, "py.warnings")]
    before = [(logger, logger.level, logger.propagate, logger.handlers) for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
        logger.propagate, logger.handlers = False, [handler]
    logging.captureWarnings(True)
    try:
        yield
    finally:
        logging.captureWarnings(False)
        for logger, level, propagate, handlers in before:
            logger.setLevel(level)
            logger.propagate, logger.handlers = propagate, handlers
