"""Which parameters a config may set for each adapter, with their defaults and limits.

`None` means "not set": it is neither passed to the model nor part of the fingerprint, so a new optional
parameter leaves old fingerprints as they are. `problem` answers what is wrong with a value.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from panic.errors import ModelError


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """One settable value: its type, its default and its limits (`above` is exclusive).

    `is_folder`: a path, relative to the config's folder; what it holds is part of the fingerprint.
    """

    kind: type
    default: Any = None
    low: float | None = None
    above: float | None = None
    high: float | None = None
    multiple: int | None = None
    choices: tuple[str, ...] = ()
    is_folder: bool = False

    def problem(self, value: Any) -> str:
        """What is wrong with a value, or an empty string."""
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

_NORMALISE = Parameter(kind=bool, default=True)
_LORA = Parameter(kind=str, is_folder=True)

PARAMETERS: dict[str, dict[str, Parameter]] = {
    "diffusers": {
        "steps": Parameter(kind=int, low=1, high=1000),
        "guidance": Parameter(kind=float, low=0),
        "eta": Parameter(kind=float, low=0, high=1),
        "width": Parameter(kind=int, low=8, high=4096, multiple=8),
        "height": Parameter(kind=int, low=8, high=4096, multiple=8),
        "negative_prompt": Parameter(kind=str),
        "system_prompt": Parameter(kind=str),
        "max_sequence_length": Parameter(kind=int, low=1, high=512),
        "lora": _LORA,
    },
    "captioner": {
        "prompt": Parameter(kind=str),
        "max_new_tokens": Parameter(kind=int, default=48, low=1, high=4096),
        "do_sample": Parameter(kind=bool, default=False),
        "temperature": Parameter(kind=float, above=0),
        "top_p": Parameter(kind=float, above=0, high=1),
        "top_k": Parameter(kind=int, low=1),
        "lora": _LORA,
    },
    "text-embedder": {
        "pooling": Parameter(kind=str, choices=("mean", "cls", "last")),
        "normalise": Parameter(kind=bool),
        "prefix": Parameter(kind=str),
        "max_tokens": Parameter(kind=int, low=1, high=512),
    },
    "image-embedder": {
        "pooling": Parameter(kind=str, default="pooler", choices=("pooler", "cls", "mean")),
        "normalise": _NORMALISE,
    },
    "joint-embedder": {"normalise": _NORMALISE},
}

# Of the models in `panic.models.synthetic`, which check what they are given against it themselves.
SYNTHETIC: dict[str, Parameter] = {
    "states": Parameter(kind=int, default=8, low=1, high=4096),
    "size": Parameter(kind=int, default=64, low=3, high=4096),
    "kernel": Parameter(
        kind=str, default="cycle", choices=("identity", "column", "cycle", "dirichlet", "slow", "dead")
    ),
    "epsilon": Parameter(kind=float, default=0.0, low=0, high=1),
    "alpha": Parameter(kind=float, default=1.0, above=0),
    "kernel_seed": Parameter(kind=int, default=0, low=0),
    "distinct": Parameter(kind=bool, default=False),
    "delay_s": Parameter(kind=float, default=0.0, low=0),
    "fail_at": Parameter(kind=int),
    "dimension": Parameter(kind=int, default=16, low=2, high=4096),
    "angle": Parameter(kind=float, default=0.2),
}


def settled(model: str, parameters: Mapping[str, Parameter], given: Mapping[str, Any]) -> dict[str, Any]:
    """All of a model's parameters: what is given, else the default. ModelError tells what is wrong."""
    problems = [f"it has no parameter '{name}'" for name in given if name not in parameters]
    for name, parameter in parameters.items():
        if name in given and (reason := parameter.problem(given[name])):
            allowed = f" ({', '.join(parameter.choices)})" if parameter.choices else ""
            problems.append(f"{name} {reason}{allowed}: {given[name]!r}")
    if problems:
        raise ModelError(f"{model}: {'; '.join(problems)}")
    return {name: given.get(name, parameter.default) for name, parameter in parameters.items()}


def folders(adapter: str) -> list[str]:
    """The adapter's parameters that are paths of folders."""
    return [name for name, parameter in PARAMETERS.get(adapter, {}).items() if parameter.is_folder]


def defaults(adapter: str) -> dict[str, Any]:
    """The adapter's default values; empty for adapters without a list of their own."""
    return {name: parameter.default for name, parameter in PARAMETERS.get(adapter, {}).items()}


def conflicts(adapter: str, values: Mapping[str, Any]) -> dict[str, str]:
    """Settings that would silently do nothing, with the reason: name -> message."""
    unused: tuple[str, ...]
    if adapter == "captioner" and not values.get("do_sample"):
        unused, reason = ("temperature", "top_p", "top_k"), "has no effect while do_sample is false"
    elif (
        adapter == "diffusers" and isinstance(values.get("guidance"), int | float) and values["guidance"] <= 1
    ):
        unused, reason = ("negative_prompt",), "has no effect at a guidance of 1 or less"
    else:
        return {}
    return {name: reason for name in unused if values.get(name) is not None}
