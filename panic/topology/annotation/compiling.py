"""How kernels are compiled, and where they are kept then: in the user's cache, from the first use on.

Importing this package compiles nothing and touches no file. The first call of `keep` looks for a folder:
the one numba is told of (`NUMBA_CACHE_DIR`), the user's cache, or one of the user's own among the temporary
files. Where none of them can be written, every process compiles for itself (10 to 20 s of one core).

    @compiled
    def total(numbers): ...         # numbers and arrays only; lets go of Python's lock

    keep()                          # the folder, or None
"""

from __future__ import annotations

import getpass
import hashlib
import logging
import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar, cast

from numba import config, njit
from numba.core import caching

log = logging.getLogger("panic.topology")

_numba: Any = config
_caching: Any = caching
_kernels: list[Any] = []  # those that `keep` has not seen yet
_Function = TypeVar("_Function", bound=Callable[..., Any])


def compiled(function: _Function) -> _Function:
    """Declare a function of numbers and arrays to be compiled, for this machine, when it is first called."""
    kernel: Any = njit(nogil=True)(function)
    _kernels.append(kernel)
    return cast(_Function, kernel)


def keep() -> Path | None:
    """Keep on disk what is compiled from now on, and use what is there; None where nothing can be kept.

    Kernels of modules that are imported later need another call.
    """
    folder = _folder()
    while folder is not None and _kernels:
        kernel = _kernels.pop()
        kernel._cache = _cache_in(folder)(kernel.py_func)
    return folder


@lru_cache(1)
def _folder() -> Path | None:
    folder = next(_folders(), None)
    if folder is None:
        log.warning(
            "no folder can be written in which compiled kernels are kept: every process compiles anew"
        )
    return folder


def _folders() -> Iterator[Path]:
    """Writable folders for the kernels of these sources: numba alone looks at a kernel's own file only."""
    sources = b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))
    name = f"kernels-{hashlib.sha256(sources).hexdigest()[:16]}"
    for base in (_user_cache, _temporary):
        try:
            folder = base() / name
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
        except (OSError, RuntimeError, KeyError):  # RuntimeError: no home; KeyError: no user's name
            continue
        yield folder


def _user_cache() -> Path:
    base = _numba.CACHE_DIR or os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "panic"


def _temporary() -> Path:
    """The user's own folder among the temporary files; OSError if someone else could write into it."""
    folder = Path(tempfile.gettempdir()) / f"panic-{getpass.getuser()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    facts = folder.lstat()
    if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.getuid() or facts.st_mode & 0o022:
        raise PermissionError(f"{folder} is not this user's own")
    return folder


@lru_cache(1)
def _cache_in(folder: Path) -> Any:
    """A kind of numba's caches, in one folder. (`njit(cache=True)` takes it from a global setting only.)"""

    class Locator(_caching._CacheLocator):  # type: ignore[misc]
        def __init__(self, function: Any) -> None:
            self.line = function.__code__.co_firstlineno

        def get_cache_path(self) -> str:
            return str(folder)

        def get_source_stamp(self) -> str:
            return folder.name

        def get_disambiguator(self) -> str:
            return str(self.line)

        @classmethod
        def from_function(cls, function: Any, file: str) -> Any:
            return cls(function)

    class Implementation(_caching.CompileResultCacheImpl):  # type: ignore[misc]
        _locator_classes = (Locator,)

    class Cache(_caching.FunctionCache):  # type: ignore[misc]
        _impl_class = Implementation

        def save_overload(self, signature: Any, data: Any) -> None:
            try:
                super().save_overload(signature, data)
            except OSError as error:  # a full disk, a folder that has gone: the kernel itself is there
                log.debug("a compiled kernel was not kept: %s", error)

    return Cache
