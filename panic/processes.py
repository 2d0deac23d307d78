"""Python processes of ours: each finds modules where this one does, and never first in the working folder.

What lies there may bear the name of a library: a `numpy.py` of the user's is no numpy.

    subprocess.Popen(python("panic.engine.child:main", "7"))
"""

from __future__ import annotations

import errno
import io
import sys
from typing import Any


def python(entry: str, *arguments: str) -> list[str]:
    """Return the command that calls a function of ours in a new process.

    Args:
        entry: "package.module:function".
        arguments: what the function is given.
    """
    module, function = entry.split(":")
    paths = [path for path in sys.path if path and isinstance(path, str)]
    code = f"import sys; sys.path[:] = {paths!r}; from {module} import {function}; {function}(*sys.argv[1:])"
    return [sys.executable, "-P", "-u", "-c", code, *arguments]


class _Heedless(io.FileIO):
    """A file that takes what nobody reads any more."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            if error.errno not in (errno.EPIPE, errno.EIO):  # a pipe's reader, or the terminal
                raise
            return len(data)


def lose_unread() -> None:
    """Let this process lose what it says on a stderr that nobody reads any more; for processes of ours alone.

    A progress bar of a user's would end the call of a model, or keep the lock that all bars share.
    """
    raw: Any = _Heedless(2, "w", closefd=False)  # as with -u, text goes straight to the file
    sys.stderr = io.TextIOWrapper(raw, encoding="utf-8", errors="backslashreplace", write_through=True)
