"""A parameter is what a config may set of a model; it has a type, a default and limits.

Every kind of model declares its own parameters beside its implementation (`panic.models.kinds` lists the
kinds). `None` means "not set": it is neither passed to the model nor part of the fingerprint, so a new
optional parameter leaves old fingerprints as they are. `Parameter.problem` answers what is wrong with a
value.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from panic.errors import ModelError

ANY = "**"
"""In place of a name: the model takes parameters of any other name, too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """One settable value: its type, its default and its limits (`above` is exclusive).

    Args:
        kind: int, float, bool or str; object takes any value.
        is_required: a config has to say it.
        is_folder: a path, relative to the config's folder; what it holds is part of the fingerprint.
        in_identity: its kind's `identity` says what it means, and the fingerprint leaves the value out.
        idle: tells why a value would silently do nothing beside the other values ("has no effect while ..."),
            or gives an empty string.
    """

    kind: type
    default: Any = None
    low: float | None = None
    above: float | None = None
    high: float | None = None
    multiple: int | None = None
    choices: tuple[str, ...] = ()
    is_required: bool = False
    is_folder: bool = False
    in_identity: bool = False
    idle: Callable[[Mapping[str, Any]], str] | None = None

    def problem(self, value: Any) -> str:
        """Say what is wrong with a value, or return an empty string."""
        if value is None and self.default is None:
            return ""
        if not self._has_kind(value):
            return f"should be {_KIND_NAMES[self.kind]}"
        if self.choices and value not in self.choices:
            return "is not one of the allowed values"
        if self.is_folder and not Path(value).is_dir():
            return "should be a folder, and there is none of this name"
        if self.kind in (int, float):
            return self._range_problem(value)
        return ""

    def _has_kind(self, value: Any) -> bool:
        if self.kind is float:
            return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if self.kind is int:
            return isinstance(value, int) and not isinstance(value, bool)
        return isinstance(value, self.kind)

    def _range_problem(self, value: float) -> str:
        if self.low is not None and value < self.low:
            return f"should be at least {self.low:g}"
        if self.above is not None and value <= self.above:
            return f"should be more than {self.above:g}"
        if self.high is not None and value > self.high:
            return f"should be at most {self.high:g}"
        if self.multiple is not None and value % self.multiple:
            return f"should be a multiple of {self.multiple}"
        return ""


_KIND_NAMES = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}


def settled(model: str, parameters: Mapping[str, Parameter], given: Mapping[str, Any]) -> dict[str, Any]:
    """All of a model's parameters: what is given, else the default. Raises ModelError with all problems."""
    problems = [f"it has no parameter '{name}'" for name in given if name not in parameters]
    for name, parameter in parameters.items():
        if name in given and (reason := parameter.problem(given[name])):
            allowed = f" ({', '.join(parameter.choices)})" if parameter.choices else ""
            problems.append(f"{name} {reason}{allowed}: {given[name]!r}")
    if problems:
        raise ModelError(f"{model}: {'; '.join(problems)}")
    return {name: given.get(name, parameter.default) for name, parameter in parameters.items()}
