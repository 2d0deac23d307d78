"""Every error a user can meet, as one tree by cause.

`PanicError` carries a message that stands alone and an optional hint (the nearest fix). The command
line prints both without a traceback and exits with `exit_code`: 1 failed, 2 usage. `nearest` and
`nearest_path` find what a misspelt name may have meant, for the hint.

    >>> nearest("dmeo", ["demo", "walk"])
    ['demo']
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path


class PanicError(Exception):
    """Base of all errors raised on purpose.

    Args:
        message: what went wrong and where, readable alone.
        hint: what to do about it.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message


class UsageError(PanicError):
    """The command or call was wrong; nothing was done."""

    exit_code = 2


class ConfigError(UsageError):
    """An experiment config has mistakes; the message lists all of them with their places."""


class ConflictError(UsageError):
    """A setting contradicts what was pinned with the experiment at its first start."""


class FilterError(UsageError):
    """A filter cannot be read, or names what there is not; the message points at the place."""


class StoreError(PanicError):
    """The store cannot be used as asked."""


class StoreMissing(StoreError):
    """There is no store at the path."""

    exit_code = 2


class NotAStore(StoreError):
    """A path that was named for a store, or for a copy of one, cannot be that."""

    exit_code = 2


class StoreReadOnly(StoreError):
    """The store cannot be written."""


class StoreLocked(StoreError):
    """Another process is writing results into the store."""


class StoreTooNew(StoreError):
    """The store's schema is newer than this version knows."""


class StoreTooOld(StoreError):
    """The store's schema is older; opening it for writing brings it up to date."""


class StoreCorrupt(StoreError):
    """A file of the store is damaged or is no store."""


class NotFound(UsageError):
    """No such experiment, run, output or model; the message names the nearest."""


class ModelError(PanicError):
    """A model cannot be built, loaded or called."""


class ModelMissing(ModelError):
    """Weights are not present locally; the hint says which command or token is needed."""


class ModelDoesNotFit(ModelError):
    """A model is larger than the device; the message gives the arithmetic."""


class OutputRejected(ModelError):
    """A model's output is not usable: empty text, not-a-number or constant image."""


class BudgetSpent(PanicError):
    """The next request might pass the experiment's budget; all finished work is stored."""


class OutOfMemory(PanicError):
    """A device has no room for an allocation. Not fatal while something can be evicted or shrunk."""


class Interrupted(PanicError):
    """The user asked to stop; all finished work is stored."""

    exit_code = 130


def nearest(word: str, candidates: Iterable[str], most: int = 1) -> list[str]:
    """Up to `most` candidates that are spelt like `word`, nearest first, upper and lower case alike."""
    import difflib

    by_lower = {candidate.lower(): candidate for candidate in candidates}
    return [by_lower[match] for match in difflib.get_close_matches(word.lower(), by_lower, n=most)]


def require_utf8(path: Path) -> None:
    """Raise UsageError for a path that polars cannot open by its name: others than UTF-8 it does not know."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise UsageError(
            f"{path}: Parquet files are found by names of UTF-8, and this is none.",
            hint="Rename the file, or its folder.",
        ) from None


def nearest_path(path: Path, fits: Callable[[Path], bool]) -> Path | None:
    """What lies beside a path that is not there, fits, and is spelt most like it.

    None if nothing is, or if the folder may not be listed.
    """
    with suppress(OSError):
        names = sorted(other.name for other in path.parent.iterdir() if fits(other))
        return next((path.parent / name for name in nearest(path.name, names)), None)
    return None
