"""Mistakes in a config, and how they are shown to the user: all at once, each with its place.

A `Problem` says where (a path of keys and indices into the config), what is wrong, what was found and what
is allowed. `render` turns problems into text with file, line, column, the source line, a caret and the
nearest spelling. `from_pydantic` translates pydantic's errors into plain words.

Try it: `python -c "from panic.config import load; load('missing.yaml')"`
"""

from __future__ import annotations

import re
import textwrap
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NoReturn, TypeGuard

from panic.errors import nearest

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

KeyPath = tuple[str | int, ...]

MAX_DEPTH = 50
"""Levels of mappings and lists in a config, and parts of a key."""
MAX_SHOWN_COLUMNS = 100
HUGE = 10**99  # Python refuses to write numbers of more than 4,300 digits
MAX_SHOWN_ALLOWED = 12
MAX_SHOWN_WITHOUT_NEAREST = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A text that configs are made of: a file (number 0), or an override (numbered from 1)."""

    name: str
    text: str
    number: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Characters `start` to `end` of a source."""

    source: Source
    start: int
    end: int

    @property
    def line(self) -> int:
        """Line number, counted from 1."""
        return self.source.text.count("\n", 0, self.start) + 1

    @property
    def column(self) -> int:
        """Column number, counted from 1."""
        return self.start - (self.source.text.rfind("\n", 0, self.start) + 1) + 1


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake at `path` in the config.

    Args:
        path: keys and indices from the top, e.g. ("networks", 0, 1); a missing place points at the nearest
            enclosing one that exists.
        message: what is wrong, in plain words, naming the field.
        found: the value that was found; None means that there is nothing to show.
        allowed: what would have been right; the nearest spelling to `found` is offered.
        hint: what to do about it.
        on_key: the mistake is the key, not its value.
        first: path of an earlier entry that this one repeats.
        place: where it is, if no path leads there.
    """

    path: KeyPath
    message: str
    found: Any = None
    allowed: Sequence[str] = ()
    hint: str = ""
    on_key: bool = False
    first: KeyPath | None = None
    place: Place | None = None


@dataclass(slots=True, kw_only=True)
class Document:
    """A parsed config: plain data, and where each key and value of it was written."""

    source: Source
    data: Any = None
    keys: dict[KeyPath, Place] = field(default_factory=dict)
    values: dict[KeyPath, Place] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def add_key(self, key: str, path: KeyPath, place: Place, seen: Mapping[str, Any]) -> bool:
        """Note the place of a key of the mapping at `path`; a key that was seen before is a problem."""
        if key in seen:
            message = f"the key '{key}' is given twice"
            self.problems.append(Problem((), message, place=place, on_key=True, first=(*path, key)))
            return False
        self.keys[(*path, key)] = place
        return True

    def place(self, path: KeyPath, *, on_key: bool = False) -> Place | None:
        """Return where `path` is written, or the nearest enclosing entry; None for the whole document."""
        for length in range(len(path), 0, -1):
            prefix = path[:length]
            first, second = (
                (self.keys, self.values) if on_key or length < len(path) else (self.values, self.keys)
            )
            if (found := first.get(prefix) or second.get(prefix)) is not None:
                return found
        return None


_Placed = tuple[Problem, Place | None]


class NotParsedError(Exception):
    """A text breaks the rules of its format; `problem` says where."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem


def fail(source: Source, start: int, message: str, hint: str = "") -> NoReturn:
    """Raise NotParsedError that points at one character of a source."""
    place = Place(source=source, start=start, end=start + 1)
    raise NotParsedError(Problem((), message, hint=hint, place=place))


def dotted(path: KeyPath) -> str:
    """Return a path as it is written in an override: `networks.0.1`."""
    return ".".join(f'"{part}"' if isinstance(part, str) and "." in part else str(part) for part in path)


def is_number(value: Any) -> TypeGuard[float]:
    """Whether a value is a number (true and false are none)."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def describe(value: Any) -> str:
    """Return a value with its kind, as a user would call it."""
    match value:
        case None:
            return "nothing"
        case bool():
            return "true" if value else "false"
        case int():
            return f"the whole number {value}" if abs(value) < HUGE else "a whole number of too many digits"
        case float():
            return f"the number {value}"
        case str():
            return f"the text {shorten(value)!r}"
        case Mapping():
            return f"a mapping with {', '.join(map(str, list(value)[:3]))}" if value else "an empty mapping"
        case list() | tuple():
            return f"a list of {len(value)}" if value else "an empty list"
        case _:
            return f"{value} (a {type(value).__name__})"


def shorten(text: str, limit: int = 60) -> str:
    """Return a text in one piece, cut where it is longer than `limit` characters."""
    return text if len(text) <= limit else text[: limit - 3] + "..."


def render(problems: Sequence[Problem], document: Document) -> str:
    """Return one message with all problems in the order of their places."""
    placed = _without_secrets(
        [
            (problem, problem.place or document.place(problem.path, on_key=problem.on_key))
            for problem in problems
        ]
    )

    def position(item: _Placed) -> tuple[int, int]:
        place = item[1]
        return (-1, 0) if place is None else (place.source.number, place.start)

    parts = [_render_one(problem, place, document) for problem, place in sorted(placed, key=position)]
    heading = [f"{document.source.name} has {len(parts)} mistakes"] if len(parts) > 1 else []
    return "\n\n".join(heading + parts)


def _without_secrets(placed: Sequence[_Placed]) -> list[_Placed]:
    """Problems with asterisks for what stands where the name of a variable should, and may be its secret."""
    hidden = [place for problem, place in placed if place is not None and _is_of_secret(problem, place)]
    return [
        (
            replace(problem, found=None) if _is_of_secret(problem, place) else problem,
            None if place is None else replace(place, source=_masked(place.source, hidden)),
        )
        for problem, place in placed
    ]


def _is_of_secret(problem: Problem, place: Place | None) -> bool:
    """Whether the value that a problem is about may be a key, or an address that holds one."""
    path = problem.path
    text = str(problem.found) if place is None else place.source.text[place.start : place.end]
    is_address = path[:2] == ("notify", "to") or path == ("notify",)
    is_key = path[-1:] == ("api_key_env",) or (path[-1:] == ("base_url",) and "@" in text)
    return not problem.on_key and (is_address or is_key)


def _masked(source: Source, hidden: Iterable[Place]) -> Source:
    text = source.text
    for place in hidden:
        if place.source == source:
            stars = re.sub(r"[^\n]", "*", text[place.start : place.end])
            text = text[: place.start] + stars + text[place.end :]
    return replace(source, text=text)


def _render_one(problem: Problem, place: Place | None, document: Document) -> str:
    if place is None:
        lines = [f"{document.source.name}: {problem.message}"]
    elif place.source.number:
        lines = [f"override {place.source.text!r}: {problem.message}", *excerpt(place, "")]
    else:
        where = f"{place.source.name}:{place.line}:{place.column}"
        lines = [f"{where}: {problem.message}", *excerpt(place, str(place.line))]
    remarks = []
    if problem.found is not None and not problem.on_key:
        remarks.append(f"found {describe(problem.found)}")
    first = document.place(problem.first, on_key=problem.on_key) if problem.first else None
    if first is not None:
        remarks.append("" if first.source.number else f"the first one is in line {first.line}")
    if problem.allowed:
        near = nearest(problem.found, problem.allowed) if isinstance(problem.found, str) else []
        remarks += [f"did you mean {name!r}?" for name in near]
        if not near or len(problem.allowed) <= MAX_SHOWN_ALLOWED:
            allowed = f"allowed: {_listed(problem.allowed)}"
            remarks += textwrap.wrap(allowed, MAX_SHOWN_COLUMNS, break_on_hyphens=False)
    remarks.append(problem.hint)
    return "\n".join(lines + [f"    {remark}" for remark in remarks if remark])


def _listed(names: Sequence[str]) -> str:
    """Names in a row, the first ones of many."""
    shown = ", ".join(names[:MAX_SHOWN_WITHOUT_NEAREST])
    rest = len(names) - MAX_SHOWN_WITHOUT_NEAREST
    return f"{shown} and {rest} more" if rest > 0 else shown


def excerpt(place: Place, label: str) -> list[str]:
    """Return the source line of a place and a line with carets under it."""
    text = place.source.text
    begin = text.rfind("\n", 0, place.start) + 1
    stop = text.find("\n", begin)
    line = text[begin : stop if stop >= 0 else len(text)].rstrip("\r")
    start = min(place.start - begin, len(line))
    end = max(start, min(place.end - begin, len(line)))
    cut = max(0, start - MAX_SHOWN_COLUMNS // 2) if len(line) > MAX_SHOWN_COLUMNS else 0
    before, marked = (_printable(line[cut:start]), _printable(line[start:end].rstrip()))
    shown = _printable(line[cut : cut + MAX_SHOWN_COLUMNS])
    room = MAX_SHOWN_COLUMNS - len(before)
    gutter = " " * len(label)
    return [
        f"  {label} | {shown}".rstrip(),
        f"  {gutter} | {' ' * _columns(before)}{'^' * max(1, _columns(marked[:room]))}",
    ]


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else " " for character in text)


def _columns(text: str) -> int:
    """Return how many terminal columns a text takes: wide characters take two, combining ones none."""
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text
    )


PLAIN_WORDS = {
    "string_type": "must be a text",
    "string_unicode": "must be a text that can be written as UTF-8",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "int_parsing_size": "is too large a number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "bool_type": "must be true or false",
    "list_type": "must be a list",
    "dict_type": "must be a mapping (key: value)",
    "model_type": "must be a mapping (key: value)",
    "model_attributes_type": "must be a mapping (key: value)",
    "path_type": "must be a path",
    "finite_number": "must be a finite number",
    "greater_than_equal": "must be at least {ge}",
    "greater_than": "must be more than {gt}",
    "less_than_equal": "must be at most {le}",
    "less_than": "must be less than {lt}",
    "too_short": "must not be empty",
    "invalid-json-value": "must be made of texts, numbers, true, false, null, lists and mappings",
}
TYPE_ERRORS = {"int_type", "float_type", "bool_type"}


def from_pydantic(
    errors: Iterable[Any], fields_at: Callable[[KeyPath], Mapping[str, FieldInfo]], prefix: KeyPath = ()
) -> list[Problem]:
    """Translate pydantic's error dictionaries into problems; a misspelt key is not also a missing one.

    Args:
        fields_at: gives the known fields of the mapping at a path.
        prefix: path of the validated part within the whole config.
    """
    errors = list(errors)
    misspelt = {
        (*error["loc"][:-1], near)
        for error in errors
        if error["type"] == "extra_forbidden"
        for near in nearest(str(error["loc"][-1]), fields_at(prefix + tuple(error["loc"][:-1])))
    }
    return [
        _translate(error, fields_at, prefix)
        for error in errors
        if not (error["type"] == "missing" and tuple(error["loc"]) in misspelt)
    ]


def _translate(
    error: Any, fields_at: Callable[[KeyPath], Mapping[str, FieldInfo]], prefix: KeyPath
) -> Problem:
    path, kind, found = prefix + tuple(error["loc"]), error["type"], error["input"]
    context = error.get("ctx", {})
    if kind == "invalid-json-value":  # the location goes on with names of pydantic's own
        path = path[:3]
    name = dotted(path)
    inside = f" in {dotted(path[:-1])}" if len(path) > 1 else ""
    if kind == "missing":
        examples = fields_at(path[:-1])[str(path[-1])].examples
        hint = f"for example {path[-1]}: {examples[0]}" if examples else ""
        return Problem(path[:-1], f"the key '{path[-1]}' is missing{inside}", on_key=True, hint=hint)
    if kind == "extra_forbidden":
        allowed = tuple(fields_at(path[:-1]))
        return Problem(
            path, f"unknown key '{path[-1]}'{inside}", found=path[-1], allowed=allowed, on_key=True
        )
    if kind == "literal_error":
        allowed = tuple(re.findall(r"'([^']*)'", context["expected"])) or (context["expected"],)
        return Problem(path, f"{name} is not one of the allowed values", found=found, allowed=allowed)
    limits = {key: f"{value:g}" if isinstance(value, float) else value for key, value in context.items()}
    words = PLAIN_WORDS[kind].format(**limits) if kind in PLAIN_WORDS else error["msg"]
    empty = f"{name} {words}, and is empty" if found is None else f"{name} {words}"
    hint = str(context.get("hint", ""))
    if kind in TYPE_ERRORS and isinstance(found, str) and re.fullmatch(r"[-+.\deE]+|true|false", found):
        hint = "remove the quotes"
    if kind == "string_type" and isinstance(found, int | float):
        hint = "put it in quotes to make it a text"
    return Problem(path, empty, found=found, allowed=tuple(context.get("allowed", ())), hint=hint)
