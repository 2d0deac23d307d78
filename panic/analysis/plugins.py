"""What other installed packages add to the analysis, found by the entry points in their metadata.

It runs in the process that asks for it, as its packages do: it may end that process. What it raises and what
it prints by mistake costs its own answer and nothing else (`performed`).
"""

from __future__ import annotations

import logging
import re
import sys
import traceback
from collections.abc import Callable, Collection, Iterator
from contextlib import redirect_stdout
from functools import cache
from importlib import metadata
from typing import Any, TypeVar

from panic.analysis.checks import AnalysisError
from panic.errors import PanicError, UsageError
from panic.store.codec import writable

log = logging.getLogger("panic.analysis")
Found = TypeVar("Found")

NAME = re.compile(r"\w[\w.+-]{0,99}", re.ASCII)
"""Such names can stand in a command line, a table and the name of an experiment."""


def added(group: str, taken: Collection[str] = ()) -> Iterator[tuple[str, Any]]:
    """Names and objects that packages add to a group ("panic.questions", "panic.nulls"), by their names.

    taken: names that are given already; what else is called so is left out with a warning, once.

    UsageError, naming the entry point, for one that cannot be loaded.
    """
    known = set(taken)
    for point in sorted(metadata.entry_points(group=group), key=lambda point: point.name):
        where = f"{point.name} ({point.value}) of {group}"
        if point.name in known:
            _tell_taken(where)
            continue
        known.add(point.name)
        if not NAME.fullmatch(point.name):
            raise UsageError(f"{where} cannot be loaded: a name has letters, digits and . _ + - only")
        try:
            yield point.name, _loaded(point)
        except (Exception, SystemExit) as error:  # whatever its import raises
            raise UsageError(f"{where} cannot be loaded: {told(error)}") from error


def _loaded(point: metadata.EntryPoint) -> Any:
    with redirect_stdout(sys.stderr):
        return point.load()


@cache
def _tell_taken(where: str) -> None:
    log.warning("%s is left out: the name is taken", where)


def performed(who: str, action: Callable[..., Found], *arguments: Any) -> Found:
    """Call what another package has added; what it prints goes to stderr, since stdout is for answers.

    AnalysisError, naming it, for whatever it raises; errors of ours stay as they are.
    """
    try:
        with redirect_stdout(sys.stderr):
            return action(*arguments)
    except (PanicError, MemoryError):
        raise
    except (Exception, SystemExit) as error:
        log.debug("%s: %s", who, error, exc_info=True)
        raise AnalysisError(f"{who}, which another package adds, failed: {told(error)}") from error


def told(error: BaseException) -> str:
    """An exception in a line; one that cannot even say what it is has its name alone."""
    return writable(" ".join(traceback.format_exception_only(error)[-1].split()))[:300]
