"""Sweeps: values that a config says to try one after another, and the variants that they become.

A plain list stays a value. A sweep is said explicitly, in the place of a value:

    steps: {values: [1, 2, 4]}
    guidance: {from: 0, to: 7, n: 4, scale: log}         # 0, 1, 3, 7; `whole: true` rounds
    strength: {random: uniform, low: 0, high: 1, n: 5, seed: 0}
    rows: grid.csv                                       # of a whole model or training: a row, a combination

A variant `quick` with sweeps becomes one variant per combination, named by what it says: `quick-steps=2`.
Networks, embeddings and batch sizes that name `quick` have all of them. More values, or a larger n of random
ones, add variants and leave those that there were, so that an experiment that grows computes the new ones.

Try it: `values_of({"from": 1, "to": 8, "n": 4, "scale": "log"})`
"""

from __future__ import annotations

import csv
import hashlib
import io
import math
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from pathlib import Path
from typing import Any

from panic.config import sources
from panic.config.problems import (
    Document,
    KeyPath,
    NotParsedError,
    Place,
    Problem,
    Source,
    describe,
    dotted,
    is_number,
)
from panic.config.prompt_origins import MistakesError
from panic.errors import ConfigError

MAX_VALUES = 1000
MAX_COMBINATIONS = 10_000
MAX_BOUND = 1e100  # differences and quotients of such numbers are finite
ROWS = "rows"
FORMS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "values": (("values",), ()),
    "from": (("from", "to", "n"), ("scale", "whole")),
    "random": (("random", "low", "high", "n"), ("seed", "whole")),
}
"""By the key that marks a form of a sweep: the keys that it must have, and those that it may have."""
SCALES = ("linear", "log")
RANDOM = ("uniform", "log")
EXAMPLE = "for example {values: [1, 2]}, {from: 0, to: 1, n: 5} or {random: uniform, low: 0, high: 1, n: 5}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Combination:
    """One of the mappings that a mapping with sweeps stands for: what tells it apart, and its values."""

    suffix: str
    values: dict[str, Any]


def form_of(value: Any) -> str | None:
    """Return the key that marks a value as a sweep; None for a value that is none."""
    if not isinstance(value, Mapping):
        return None
    if "values" in value and len(value) == 1:
        return "values"
    return next(
        (mark for mark in ("from", "random") if mark in value and len(value.keys() & FORM_KEYS) > 1), None
    )


FORM_KEYS = {key for required, optional in FORMS.values() for key in (*required, *optional)}


def values_of(sweep: Mapping[str, Any], path: KeyPath = ()) -> list[Any]:
    """Return the values of a sweep, in order.

    Raises: MistakesError for what is wrong with it.
    """
    form = form_of(sweep) or "values"
    required, optional = FORMS[form]
    wrong = [key for key in sweep if key not in (*required, *optional)]
    lacking = [key for key in required if key not in sweep]
    if wrong or lacking:
        what = f"has no '{lacking[0]}'" if lacking else f"has no use for '{wrong[0]}'"
        raise _mistake((*path, wrong[0]) if wrong else path, f"this sweep {what}", hint=EXAMPLE)
    if form == "values":
        found = sweep["values"]
        if not isinstance(found, list) or not found:
            raise _mistake((*path, "values"), "values must be a list of values to try", found=found)
        return _distinct(found[:], path)
    n = sweep["n"]
    if not isinstance(n, int) or isinstance(n, bool) or not 1 <= n <= MAX_VALUES:
        raise _mistake((*path, "n"), f"n must be a whole number from 1 to {MAX_VALUES:,}", found=n)
    whole = sweep.get("whole", False)
    if not isinstance(whole, bool):
        raise _mistake((*path, "whole"), "whole must be true or false", found=whole)
    numbers = _grid(sweep, path, n) if form == "from" else _drawn(sweep, path, n)
    return list(dict.fromkeys(map(round, numbers))) if whole else list(dict.fromkeys(map(_plain, numbers)))


def _plain(number: float) -> float | int:
    """A number of six digits, so that its name says all of it; whole numbers are such."""
    short = float(f"{number:.6g}")
    return int(short) if short.is_integer() and abs(short) < 1e15 else short


def _bounds(
    sweep: Mapping[str, Any], path: KeyPath, names: tuple[str, str], *, log: bool
) -> tuple[float, float]:
    for name in names:
        value = sweep[name]
        if not is_number(value) or not -MAX_BOUND <= value <= MAX_BOUND:
            raise _mistake(
                (*path, name), f"{name} must be a number from {-MAX_BOUND:g} to {MAX_BOUND:g}", found=value
            )
    low, high = (float(sweep[name]) for name in names)
    if low > high:
        raise _mistake((*path, names[1]), f"{names[1]} must be at least {names[0]}", found=sweep[names[1]])
    if log and low < 0:
        raise _mistake((*path, names[0]), "a logarithmic scale begins at 0 or above", found=sweep[names[0]])
    return low, high


def _grid(sweep: Mapping[str, Any], path: KeyPath, n: int) -> Iterator[float]:
    """n numbers from one bound to the other: in equal steps, or in equal factors; from 0, those of x + 1."""
    scale = sweep.get("scale", "linear")
    if scale not in SCALES:
        raise _mistake(
            (*path, "scale"), "scale is not one of the allowed values", found=scale, allowed=SCALES
        )
    low, high = _bounds(sweep, path, ("from", "to"), log=scale == "log")
    for place in range(n):
        share = place / (n - 1) if n > 1 else 0.0
        yield _between(low, high, share, log=scale == "log")


def _between(low: float, high: float, share: float, *, log: bool) -> float:
    if not log:
        return low + (high - low) * share
    if low > 0:
        return math.exp(math.log(low) + (math.log(high) - math.log(low)) * share)
    return math.expm1(math.log1p(high) * share)


def _drawn(sweep: Mapping[str, Any], path: KeyPath, n: int) -> Iterator[float]:
    """n numbers drawn between two bounds; the first ones are the same for any n."""
    kind, seed = sweep["random"], sweep.get("seed", 0)
    if kind not in RANDOM:
        raise _mistake(
            (*path, "random"), "random is not one of the allowed values", found=kind, allowed=RANDOM
        )
    if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
        raise _mistake((*path, "seed"), "seed must be a whole number, and not below 0", found=seed)
    low, high = _bounds(sweep, path, ("low", "high"), log=kind == "log")
    dice = random.Random(seed)
    for _ in range(n):
        yield _between(low, high, dice.random(), log=kind == "log")


def _distinct(values: list[Any], path: KeyPath) -> list[Any]:
    seen: dict[str, int] = {}
    for place, value in enumerate(values):
        name = name_of(value)
        if name in seen:
            at = (*path, "values", place)
            raise _mistake(at, f"the same value as values.{seen[name]}", found=value)
        seen[name] = place
    if len(values) > MAX_VALUES:
        raise _mistake((*path, "values"), f"a sweep has at most {MAX_VALUES:,} values", found=values)
    return values


def name_of(value: Any) -> str:
    """Return what stands for a value in a name: itself, if it is short and plain, else with a digest."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "none"}[value]
    text = str(value)
    if isinstance(value, float) and float(short := f"{value:.6g}") == value:
        text = short
    if re.fullmatch(r"[\w.+-]{1,24}", text):
        return text
    short = re.sub(r"[^\w.+-]+", "-", text)[:16].strip("-")
    return f"{short}-{hashlib.sha256(repr(value).encode()).hexdigest()[:6]}"


def combinations(raw: Mapping[str, Any], folder: Path, path: KeyPath = ()) -> list[Combination]:
    """Return all that a mapping with sweeps at any depth stands for; one without suffix if it has none.

    folder: what the name of a file of rows refers to.

    Raises: MistakesError.
    """
    axes: list[list[tuple[str, dict[KeyPath, Any]]]] = []
    if ROWS in raw:
        axes.append(_rows(raw[ROWS], folder, (*path, ROWS)))
    found = list(_sweeps(raw, ()))
    names = [at[-1] for at, _ in found]
    for at, sweep in found:
        name = dotted(at) if names.count(at[-1]) > 1 else str(at[-1])
        axes.append([(f"{name}={name_of(value)}", {at: value}) for value in values_of(sweep, (*path, *at))])
    _require_separate([*(axes[0][0][1] if ROWS in raw else ()), *(at for at, _ in found)], path)
    number = math.prod(map(len, axes))
    if number > MAX_COMBINATIONS:
        raise _mistake(
            path, f"these sweeps have {number:,} combinations, and {MAX_COMBINATIONS:,} is the most"
        )
    plain = {key: value for key, value in raw.items() if key != ROWS}
    return [
        Combination(
            suffix="-".join(suffix for suffix, _ in chosen),
            values=_with(plain, {at: value for _, part in chosen for at, value in part.items()}),
        )
        for chosen in product(*axes)
    ]


def first_sweep(raw: Mapping[str, Any]) -> KeyPath | None:
    """Return where a mapping has a sweep, or a file of rows, which is not read; None if it has none."""
    return (ROWS,) if ROWS in raw else next((at for at, _ in _sweeps(raw, ())), None)


def _require_separate(places: Sequence[KeyPath], path: KeyPath) -> None:
    """Raise MistakesError where two sweeps say what one parameter is, or what is within it."""
    ordered = sorted(places, key=lambda place: [str(key) for key in place])
    for one, other in pairwise(ordered):
        if other[: len(one)] == one:
            raise _mistake(path, f"two sweeps say what '{dotted(one)}' is")


def _sweeps(raw: Any, at: KeyPath) -> Iterator[tuple[KeyPath, Mapping[str, Any]]]:
    """The sweeps in a mapping with their places below it; none is looked for in lists."""
    if form_of(raw) and at:
        yield at, raw
    elif isinstance(raw, Mapping):
        for key, value in raw.items():
            yield from _sweeps(value, (*at, key))


def _with(raw: Any, values: Mapping[KeyPath, Any], at: KeyPath = ()) -> Any:
    """A mapping with values in the places of sweeps, and those of rows added."""
    if at in values:
        return values[at]
    added = {path[len(at)]: None for path in values if len(path) > len(at) and path[: len(at)] == at}
    if not isinstance(raw, Mapping):
        if not added:
            return raw
        raw = {}
    return {key: _with(raw.get(key), values, (*at, key)) for key in dict.fromkeys([*raw, *added])}


def _rows(given: Any, folder: Path, path: KeyPath) -> list[tuple[str, dict[KeyPath, Any]]]:
    """The rows of a CSV file as values of the parameters that its first line names."""
    name = given.get("file") if isinstance(given, Mapping) and len(given) == 1 else given
    if not isinstance(name, str) or "\0" in name:
        raise _mistake(
            path, "rows must be the name of a CSV file", found=given, hint="for example rows: grid.csv"
        )
    file = folder / Path(name).expanduser()
    try:
        table = list(csv.reader(io.StringIO(sources.decode(file.read_bytes(), str(file)), newline="")))
    except OSError as error:
        raise _mistake(path, f"{file} cannot be read: {error.strerror}", found=name) from None
    except (csv.Error, ConfigError) as error:
        raise _mistake(path, f"{file} is no CSV file: {error}") from None
    head, *rows = [[cell.strip() for cell in row] for row in table if any(cell.strip() for cell in row)] or [
        []
    ]
    if not rows or not all(part for name in head for part in name.split(".")) or len(set(head)) < len(head):
        raise _mistake(path, f"{file} needs a first line of different names of parameters, and rows below it")
    if odd := next((place for place, row in enumerate(rows, 2) if len(row) != len(head)), None):
        raise _mistake(path, f"{file}: row {odd} has not as many values as the first line has names")
    found: dict[str, dict[KeyPath, Any]] = {}
    for row in rows:
        values = [_cell(file, cell) for cell in row]
        suffix = "-".join(f"{key}={name_of(value)}" for key, value in zip(head, values, strict=True))
        found[suffix] = {tuple(key.split(".")): value for key, value in zip(head, values, strict=True)}
    return list(found.items())


def _cell(file: Path, text: str) -> Any:
    """A cell as YAML reads a value, if it can: 2 is a number, true a truth value, nothing is none."""
    try:
        value = sources.parse_value(Source(name=str(file), text=text), 0).data if text else None
    except NotParsedError:
        return text
    return value if not isinstance(value, list | Mapping) else text


def _mistake(path: KeyPath, message: str, **more: Any) -> MistakesError:
    found = more.get("found")
    if found is not None and not isinstance(found, str | int | float | list | Mapping):
        more["found"] = describe(found)
    return MistakesError(Problem(path, message, **more))


# --- in experiment configs


def expand_models(document: Document, folder: Path) -> list[Problem]:
    """Put variants in the place of those with sweeps, in models, networks, embeddings and batch sizes.

    Returns what is wrong with them; nothing is changed then.
    """
    models = document.data.get("models")
    if not isinstance(models, Mapping):
        return []
    swept: dict[str, list[str]] = {}
    expanded: dict[str, Any] = {}
    for name, variant in models.items():
        try:
            found = combinations(variant, folder, ("models", name)) if isinstance(variant, Mapping) else []
        except MistakesError as error:
            return list(error.problems)
        if [one.suffix for one in found] in ([], [""]):
            expanded[name] = variant
            continue
        swept[name] = [f"{name}-{one.suffix}" for one in found]
        if taken := next((new for new in swept[name] if new in models or new in expanded), None):
            return [Problem(("models", name), f"it has a variant '{taken}', and so is another model called")]
        expanded |= dict(zip(swept[name], (one.values for one in found), strict=True))
        _copy_places(document, ("models", name), [("models", new) for new in swept[name]])
    for name, variant in models.items():
        base = variant.get("base") if isinstance(variant, Mapping) else None
        if isinstance(base, str) and base in swept:
            hint = f"its variants are {', '.join(swept[base][:5])}"
            return [
                Problem(("models", name, "base"), f"'{base}' is a sweep, and no model to vary", hint=hint)
            ]
    document.data["models"] = expanded
    _expand_list(document, "networks", lambda network: _networks(network, swept))
    _expand_list(
        document, "embeddings", lambda name: swept.get(name, [name]) if isinstance(name, str) else [name]
    )
    _expand_batch_sizes(document, swept)
    return []


def _networks(network: Any, swept: Mapping[str, Sequence[str]]) -> list[Any]:
    """The networks that a network stands for: one per combination of the variants of the sweeps in it."""
    if not isinstance(network, list):
        return [network]
    names = list(dict.fromkeys(name for name in network if isinstance(name, str) and name in swept))
    if math.prod(len(swept[name]) for name in names) > MAX_COMBINATIONS:
        return [network]  # whose names are unknown, which is told
    return [
        [chosen.get(name, name) if isinstance(name, str) else name for name in network]
        for values in product(*(swept[name] for name in names))
        for chosen in [dict(zip(names, values, strict=True))]
    ]


def _expand_list(document: Document, field: str, expand: Any) -> None:
    """Put several entries of a list in the place of one; places of the file move with them."""
    entries = document.data.get(field)
    if not isinstance(entries, list):
        return
    found: list[Any] = []
    moved: dict[int, list[KeyPath]] = {}
    for index, entry in enumerate(entries):
        new = expand(entry)
        moved[index] = [(field, len(found) + place) for place in range(len(new))]
        found += new
    document.data[field] = found
    for places in (document.keys, document.values):
        old = {path: place for path, place in places.items() if path[:1] == (field,) and len(path) > 1}
        for path in old:
            del places[path]
        for path, written in old.items():
            places.update({(*at, *path[2:]): written for at in moved.get(int(path[1]), ())})


def _expand_batch_sizes(document: Document, swept: Mapping[str, Sequence[str]]) -> None:
    sizes = document.data.get("batch_sizes")
    if isinstance(sizes, Mapping):
        document.data["batch_sizes"] = {
            new: size for name, size in sizes.items() for new in swept.get(name, [name])
        }
        for name in sizes.keys() & swept.keys():
            _copy_places(document, ("batch_sizes", name), [("batch_sizes", new) for new in swept[name]])


def _copy_places(document: Document, old: KeyPath, new: Sequence[KeyPath]) -> None:
    for places in (document.keys, document.values):
        below: dict[KeyPath, Place] = {p: at for p, at in places.items() if p[: len(old)] == old}
        for path, place in below.items():
            places.update({(*to, *path[len(old) :]): place for to in new})
