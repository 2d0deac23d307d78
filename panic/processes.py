"""Python processes of ours: each finds modules where this one does, and never first in the working folder.

What lies there may bear the name of a library: a `numpy.py` of the user's is no numpy.

    subprocess.Popen(python("panic.engine.child:main", "7"))
"""

from __future__ import annotations

import sys


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
