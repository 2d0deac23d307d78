"""The search space of `panic optimize`: which values of a config are looked for, and among what.

    models:
      quick: {base: PocketDiffusion, steps: {optimize: {from: 1, to: 8, whole: true}}}
      warm: {base: PocketDiffusion, guidance: {optimize: {from: 0.1, to: 7, scale: log}}}
      other: {base: PocketDiffusion, sampler: {optimize: {values: [a, b]}}}

Where nothing says `optimize`, the sweeps of the config are the space: {values: [...]}, {from: ..., to: ...}
(with `n` its values alone), {random: uniform, low: ..., high: ...}. Otherwise sweeps stay sweeps in every
trial.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from panic.config import problems
from panic.config.problems import Document, KeyPath, Problem, dotted, is_number
from panic.config.prompt_origins import MistakesError
from panic.config.sweeps import SCALES, form_of, values_of
from panic.errors import ConfigError

OPTIMIZE = "optimize"
EXAMPLE = "for example {optimize: {from: 1, to: 8, whole: true}} or {optimize: {values: [a, b]}}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Dimension:
    """A place in a config and what may stand there: one of some values, or a number between two."""

    path: KeyPath
    values: Sequence[Any] = ()
    low: float = 0.0
    high: float = 0.0
    is_log: bool = False
    is_whole: bool = False

    @property
    def name(self) -> str:
        """The place, as an override names it."""
        return dotted(self.path)

    @property
    def least(self) -> float | int:
        """The least number, of a range."""
        return round(self.low) if self.is_whole else self.low

    def told(self) -> str:
        """What may stand there, for people."""
        if self.values:
            return f"one of {', '.join(map(str, self.values))}"
        what = "a whole number" if self.is_whole else "a number"
        return f"{what} from {self.low:g} to {self.high:g}{', on a logarithmic scale' if self.is_log else ''}"


def search_space(document: Document) -> list[Dimension]:
    """Return what is looked for in a config. Raises ConfigError with all mistakes and their places."""
    said = list(_said(document.data, ()))
    if not said:
        said = list(_sweeps(document.data, ()))
    found: list[Dimension] = []
    mistakes: list[Problem] = []
    for path, place, value in said:
        try:
            found.append(_dimension(path, place, value))
        except MistakesError as error:
            mistakes += error.problems
    if mistakes:
        raise ConfigError(problems.render(mistakes, document))
    if not found:
        raise ConfigError(f"{document.source.name}: nothing in it is to be optimized", hint=EXAMPLE)
    return found


def _said(raw: Any, at: KeyPath) -> Iterator[tuple[KeyPath, KeyPath, Any]]:
    """The places that say `optimize`, where they say it, and what."""
    if isinstance(raw, Mapping):
        if at and set(raw) == {OPTIMIZE}:
            yield at, (*at, OPTIMIZE), raw[OPTIMIZE]
            return
        for key, value in raw.items():
            yield from _said(value, (*at, key))


def _sweeps(raw: Any, at: KeyPath) -> Iterator[tuple[KeyPath, KeyPath, Any]]:
    if at and form_of(raw):
        yield at, at, raw
    elif isinstance(raw, Mapping):
        for key, value in raw.items():
            yield from _sweeps(value, (*at, key))


def _dimension(path: KeyPath, place: KeyPath, said: Any) -> Dimension:
    """What one place of a config says, at a place below it. Raises MistakesError."""
    form = form_of(said)
    if form is None:
        raise _mistake(place, f"{dotted(path)} says no values and no range", hint=EXAMPLE)
    if form == "values" or (form == "from" and "n" in said):
        return Dimension(path=path, values=values_of(said, place))
    names = ("low", "high") if form == "random" else ("from", "to")
    known = {*names, "random", "n", "seed", "scale", "whole"}
    if wrong := [key for key in said if key not in known]:
        raise _mistake((*place, wrong[0]), f"a range has no {wrong[0]!r}", hint=EXAMPLE, on_key=True)
    low, high = (said.get(name) for name in names)
    for name, value in zip(names, (low, high), strict=True):
        if not is_number(value):
            raise _mistake((*place, name), f"a range has numbers as {' and '.join(names)}", found=value)
    assert is_number(low)
    assert is_number(high)
    scale = said.get("scale", "log" if said.get("random") == "log" else "linear")
    if scale not in SCALES:
        raise _mistake((*place, "scale"), "no such scale", found=scale, allowed=SCALES)
    if low >= high:
        raise _mistake((*place, names[1]), f"{names[1]} must be more than {names[0]}", found=high)
    if scale == "log" and low <= 0:
        raise _mistake((*place, names[0]), "a logarithmic scale begins above 0", found=low)
    for name, value in zip(names, (low, high), strict=True):
        if not abs(value) <= sys.float_info.max:  # a whole number may be larger than any other one
            raise _mistake((*place, name), "a range ends somewhere", found=value)
    is_whole = said.get("whole", False)
    if not isinstance(is_whole, bool):
        raise _mistake((*place, "whole"), "must be true or false", found=is_whole)
    if is_whole and (low := math.ceil(low)) > (high := math.floor(high)):
        raise _mistake((*place, names[0]), "no whole number lies in this range", found=said[names[0]])
    return Dimension(path=path, low=float(low), high=float(high), is_log=scale == "log", is_whole=is_whole)


def _mistake(path: KeyPath, message: str, **more: Any) -> MistakesError:
    return MistakesError(Problem(path, message, **more))
