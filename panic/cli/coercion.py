"""Options whose values need no conversion, for which typer would import pydantic: 0.1 s of every command.

spared(command.params)
"""

from __future__ import annotations

from pathlib import Path
from typing import Any


class Unconverted:
    """What typer asks to convert a value: texts, lists of texts and what was not given stay as they are.

    Everything else, mistakes above all, goes typer's own way.
    """

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        """Return the value that a command is called with."""
        wanted = param.type_descriptor.annotation
        if value is None:
            return () if param.multiple or param.nargs == -1 else None
        if wanted is str and isinstance(value, str):
            return value
        if wanted is Path and isinstance(value, str) and param.name == "store":
            return Path(value)
        if wanted == list[str] and isinstance(value, list | tuple):
            return list(value)
        param._runtime_param = None
        return param.get_runtime_param().coerce(value, param=param, ctx=ctx)


def spared(parameters: list[Any]) -> list[Any]:
    """Let parameters of a command take values that need no conversion without converting them; return them.

    typer makes its converter when it is first needed; this one stands there before. A version of typer that
    keeps it elsewhere does not notice.
    """
    for parameter in parameters:
        if getattr(parameter, "_runtime_param", ...) is None and hasattr(parameter, "type_descriptor"):
            parameter._runtime_param = Unconverted()
    return parameters
