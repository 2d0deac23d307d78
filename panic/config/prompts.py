"""Prompts of a config into texts: inline ones, files and data sets.

An entry is a text, or a mapping: `{file: prompts.csv, column: text, split: test, n: 20, seed: 0}` reads txt
(a prompt per line), csv, tsv, jsonl or parquet; `{dataset: pocket-world, split: test, n: 50, seed: 0}` asks a
data set; images and outputs of another experiment are in `panic.config.prompt_origins`; `{text: ...}` is one
text. Each of them may have labels (`panic.config.labels`). `split` keeps the
rows whose column `split` has that value. With a `seed`, `n` prompts are sampled
without replacement by the hash of seed and text: more of them later keep the earlier ones, and the order of
the file does not matter for the choice; without a seed the first `n` are taken. The order is the file's. A
text that a file repeats counts once.

Try it: `python -c "from panic.config import prompts; print(prompts.expand([{'file': 'p.txt'}], '.'))"`
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import Field, ValidationError
from pydantic_core import PydanticCustomError

from panic.config import problems, sources
from panic.config.fields import Count, Seed, Text, check_text
from panic.config.labels import Labels, PromptLabels, add_labels
from panic.config.problems import KeyPath, Problem, dotted
from panic.config.prompt_origins import (
    ImagePrompts,
    MistakesError,
    OriginsSource,
    OutputPrompts,
    from_images,
    from_outputs,
    sample,
)
from panic.errors import ConfigError, nearest, nearest_path

Datasets = Mapping[str, Callable[[str, int, int], list[str]]]


class TextPrompt(PromptLabels):
    """One prompt with its labels."""

    text: Text


class FilePrompts(PromptLabels):
    """Prompts from a file."""

    file: Text
    column: Text = "text"
    split: Text | None = None
    n: Count | None = None
    seed: Seed | None = None
    delimiter: Annotated[str | None, Field(min_length=1, max_length=1)] = None
    """Between the values of a CSV file; by default a tab for .tsv, else a comma, or a semicolon or tab where
    the first line has those and no comma."""


class DatasetPrompts(PromptLabels):
    """Prompts from a data set that the program knows."""

    dataset: Text
    split: Text = "test"
    n: Annotated[Count, Field(examples=[50])]
    seed: Seed = 0


AnyPrompts = TextPrompt | FilePrompts | DatasetPrompts | ImagePrompts | OutputPrompts


class Expansion(NamedTuple):
    """The texts that the `prompts` of a config stand for, each once; the mistakes in them; their labels."""

    texts: list[str]
    problems: list[Problem] = []  # noqa: RUF012
    labels: Labels = {}  # noqa: RUF012


def expand(
    raw: Any,
    base_folder: Path | str,
    datasets: Datasets | None = None,
    origins: OriginsSource | None = None,
    store: Path | None = None,
) -> Expansion:
    """Return the texts of the `prompts` entries, all mistakes in them, and the labels of the texts.

    Args:
        raw: the value of `prompts` as it was parsed: a list of entries, or one mapping.
        base_folder: what relative file names refer to.
        datasets: functions (split, n, seed) -> texts, by name; they raise ConfigError for a split that they
            do not have and for more texts than they have.
        origins: gives what reads images and other experiments, once they are named; without it neither can
            be.
        store: the folder of the store that the config names, if it does.
    """
    if isinstance(raw, Mapping):
        entries: list[tuple[KeyPath, Any]] = [(("prompts",), raw)]
    elif isinstance(raw, list):
        entries = [(("prompts", index), entry) for index, entry in enumerate(raw)]
    else:
        hint = "write it as a list: [...]" if isinstance(raw, str) else ""
        message = "prompts must be a list" if raw is not None else "prompts must be a list, and is empty"
        return Expansion([], [Problem(("prompts",), message, found=raw, hint=hint)])
    if not entries:
        hint = "give at least one text to start from"
        return Expansion([], [Problem(("prompts",), "there are no prompts", hint=hint)])
    texts: dict[str, None] = {}
    labels: Labels = {}
    mistakes: list[Problem] = []
    for path, entry in entries:
        try:
            wanted = _entry(path, entry)
            if isinstance(wanted, str):
                texts[wanted] = None
                continue
            found = _from(path, wanted, Path(base_folder), datasets or {}, origins, store)
            texts |= dict.fromkeys(found)
            mistakes += add_labels(labels, path, found, wanted)
        except MistakesError as error:
            mistakes += error.problems
    return Expansion(list(texts), mistakes, labels)


def _entry(path: KeyPath, entry: Any) -> str | AnyPrompts:
    """Return what an entry of the prompts says, checked by itself."""
    if isinstance(entry, str):
        try:
            return check_text(entry)
        except PydanticCustomError as error:
            message = f"{dotted(path)} {error.message()}"
            raise MistakesError(Problem(path, message, found=entry)) from None
    if not isinstance(entry, Mapping):
        hint = "put it in quotes to make it a text" if isinstance(entry, int | float) else ""
        message = f"a prompt must be a text, or a mapping with one of {', '.join(KINDS)}"
        raise MistakesError(Problem(path, message if entry is not None else f"{message}, and is empty",
                                found=entry, hint=hint))  # fmt: skip
    kind = _kind(path, entry)
    try:
        return kind.model_validate(entry)
    except ValidationError as error:
        found = problems.from_pydantic(error.errors(), lambda _: kind.model_fields, path)
        raise MistakesError(*found) from None


def _from(
    path: KeyPath,
    wanted: AnyPrompts,
    base_folder: Path,
    datasets: Datasets,
    origins: OriginsSource | None,
    store: Path | None,
) -> list[str]:
    """Return the prompts that a mapping stands for."""
    if isinstance(wanted, TextPrompt):
        return [wanted.text]
    if isinstance(wanted, DatasetPrompts):
        return _from_dataset(path, wanted, datasets)
    if isinstance(wanted, FilePrompts):
        file = base_folder / os.path.expanduser(wanted.file)
        found = _from_file(path, wanted, file)
        if origins is not None:
            origins().note_file(wanted, file, len(found))
        return found
    if origins is None:
        raise MistakesError(Problem(path, "images and other experiments cannot be read here"))
    if isinstance(wanted, ImagePrompts):
        return from_images(path, wanted, base_folder / os.path.expanduser(wanted.images), origins())
    return from_outputs(path, wanted, store, origins())


KINDS: dict[str, type[AnyPrompts]] = {
    "dataset": DatasetPrompts,
    "file": FilePrompts,
    "images": ImagePrompts,
    "experiment": OutputPrompts,
    "text": TextPrompt,
}
"""What an entry that is a mapping is, by the key that it has."""


def _kind(path: KeyPath, entry: Mapping[Any, Any]) -> type[AnyPrompts]:
    first = next(iter(entry), "")
    near = nearest(first, list(KINDS)) if isinstance(first, str) else []
    for key in [*(key for key in KINDS if key in entry), *near]:
        return KINDS[key]
    message = f"a prompt that is a mapping must have one of the keys {', '.join(KINDS)}"
    raise MistakesError(Problem(path, message, found=entry, hint="put a text that contains ': ' in quotes"))


def _from_dataset(path: KeyPath, wanted: DatasetPrompts, datasets: Datasets) -> list[str]:
    if wanted.dataset not in datasets:
        message = f"there is no data set '{wanted.dataset}'"
        raise MistakesError(
            Problem((*path, "dataset"), message, found=wanted.dataset, allowed=sorted(datasets))
        )
    try:
        return datasets[wanted.dataset](wanted.split, wanted.n, wanted.seed)
    except ConfigError as error:
        raise MistakesError(Problem(path, error.message, hint=error.hint)) from None


def _from_file(path: KeyPath, wanted: FilePrompts, file: Path) -> list[str]:
    """Return the different texts of a file in its order."""
    readers: dict[str, Callable[[Path, FilePrompts], Table]] = {
        ".txt": _txt,
        ".csv": _csv,
        ".tsv": _csv,
        ".jsonl": _jsonl,
        ".parquet": _parquet,
    }
    at = (*path, "file")
    if file.suffix.lower() not in readers:
        message = f"{wanted.file}: prompts can be read from {', '.join(readers)}"
        raise MistakesError(Problem(at, message))
    try:
        columns, rows = readers[file.suffix.lower()](file, wanted)
        return _usable(path, wanted, columns, rows)
    except FileNotFoundError:
        raise MistakesError(
            Problem(at, f"there is no file {file}", hint=_files_nearby(file, list(readers)))
        ) from None
    except OSError as error:
        raise MistakesError(Problem(at, f"{file} cannot be read: {error.strerror or error}")) from None
    except ConfigError as error:
        raise MistakesError(Problem(at, error.message, hint=error.hint)) from None


def _usable(path: KeyPath, wanted: FilePrompts, columns: list[str], rows: Iterator[Row]) -> list[str]:
    """Return the texts that are wanted of the rows of a file, or what is wrong with them."""
    at = (*path, "file")
    for key, name in (("column", wanted.column), ("split", "split")):
        if (key == "column" or wanted.split) and name not in columns:
            message = f"{wanted.file} has no column '{name}'"
            raise MistakesError(Problem((*path, key), message, found=name, allowed=columns))
    splits: dict[str, None] = {}
    unusable: list[int] = []

    def texts() -> Iterator[str]:
        for line, text, split in rows:
            if wanted.split:
                splits[str(split)] = None
                if str(split) != wanted.split:
                    continue
            if _is_text(text):
                yield text
            else:
                unusable.append(line)

    found = sample(texts(), wanted.n, wanted.seed)
    if wanted.split and wanted.split not in splits:
        message = f"{wanted.file} has no rows with split '{wanted.split}'"
        raise MistakesError(Problem((*path, "split"), message, found=wanted.split, allowed=sorted(splits)))
    if unusable:
        shown = ", ".join(map(str, unusable[:5])) + (" ..." if len(unusable) > 5 else "")
        rows_word = "rows" if len(unusable) > 1 else "row"
        message = f"{wanted.file} has no usable text in column '{wanted.column}' of {rows_word} {shown}"
        raise MistakesError(Problem(at, message))
    if not found:
        raise MistakesError(Problem(at, f"{wanted.file} has no prompts"))
    if wanted.n is not None and wanted.n > len(found):
        where = f" with split '{wanted.split}'" if wanted.split else ""
        message = f"n is {wanted.n}, and {wanted.file} has {len(found)} different prompts{where}"
        raise MistakesError(Problem((*path, "n"), message))
    return found


def _is_text(value: Any) -> bool:
    try:
        return isinstance(value, str) and bool(check_text(value))
    except PydanticCustomError:
        return False


Row = tuple[int, Any, Any]
"""The number of a row, its text, its split."""
Table = tuple[list[str], Iterator[Row]]
"""The columns of a file, and its rows one by one: it may have millions."""


def _files_nearby(file: Path, suffixes: Sequence[str]) -> str:
    if not file.parent.is_dir():
        return f"there is no folder {file.parent}"
    near = nearest_path(file, lambda other: other.suffix.lower() in suffixes and other.exists())
    return f"did you mean {near.name}?" if near else ""


def _txt(file: Path, wanted: FilePrompts) -> Table:
    lines = sources.decode(file.read_bytes(), str(file)).replace("\r", "\n").split("\n")
    return ["text"], ((number, line, None) for number, line in enumerate(lines, start=1) if line.strip())


def _csv(file: Path, wanted: FilePrompts) -> Table:
    text = sources.decode(file.read_bytes(), str(file))
    delimiter = wanted.delimiter or _delimiter(file, text)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=delimiter)
    rows = _csv_rows(file, reader, delimiter)
    columns = next(rows, (0, []))[1]
    if twice := [name for name in columns if columns.count(name) > 1]:
        raise ConfigError(f"{file} has several columns called '{twice[0]}'")
    places = [columns.index(name) if name in columns else len(columns) for name in (wanted.column, "split")]
    text_at, split_at = places
    # A short row lacks its last values.
    padded = ((number, [*row, *[None] * (len(columns) + 1 - len(row))]) for number, row in rows)
    return columns, ((number, row[text_at], row[split_at]) for number, row in padded)


def _csv_rows(file: Path, reader: Any, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows that are not empty with their numbers; the row 0 names the columns."""
    number, width = 0, 0
    try:
        for row in reader:
            if not row:
                continue
            width = width or len(row)
            if len(row) > width:
                raise ConfigError(
                    f"{file} has more values than columns in row {number}",
                    hint=f"values are parted by {delimiter!r}: put a text with it in quotes, or give another"
                    " delimiter",
                )
            yield number, row
            number += 1
    except csv.Error as error:
        raise ConfigError(f"{file}:{reader.line_num}:1: not valid CSV: {error}") from None


def _delimiter(file: Path, text: str) -> str:
    """Guess what parts the values of a CSV file from its first line, which names the columns."""
    if file.suffix.lower() == ".tsv":
        return "\t"
    head = text.lstrip("\n").split("\n", 1)[0]
    others = [sign for sign in (";", "\t") if sign in head]
    return others[0] if others and "," not in head else ","


class _GivenTwiceError(Exception):
    """A line of JSON has a key twice."""


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) < len(pairs):
        names = [name for name, _ in pairs]
        raise _GivenTwiceError(next(name for name in names if names.count(name) > 1))
    return row


def _jsonl(file: Path, wanted: FilePrompts) -> Table:
    columns: dict[str, None] = {}
    rows: list[Row] = []  # which columns there are is known at the end only
    for number, line in enumerate(sources.decode(file.read_bytes(), str(file)).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line, object_pairs_hook=_once)
        except _GivenTwiceError as error:
            raise ConfigError(f"{file}:{number}:1: the key '{error}' is given twice") from None
        except json.JSONDecodeError as error:
            raise ConfigError(f"{file}:{number}:{error.pos + 1}: not valid JSON") from None
        except (ValueError, RecursionError):  # thousands of digits, thousands of brackets
            raise ConfigError(f"{file}:{number}:1: a number or nesting too large") from None
        if not isinstance(row, dict):
            raise ConfigError(f'{file}:{number}:1: a line is {{"text": ...}}')
        columns |= dict.fromkeys(row)
        rows.append((number, row.get(wanted.column), row.get("split")))
    return list(columns), iter(rows)


def _parquet(file: Path, wanted: FilePrompts) -> Table:
    import polars

    try:
        with file.open("rb") as opened:  # polars itself finds names of UTF-8 alone
            columns = list(polars.read_parquet_schema(opened))
            opened.seek(0)
            names = [name for name in (wanted.column, "split") if name in columns]
            frame = polars.read_parquet(opened, columns=names)
    except polars.exceptions.PolarsError as error:
        raise ConfigError(f"{file} is no parquet file: {str(error).splitlines()[0]}") from None
    rows = enumerate(frame.iter_rows(named=True), start=1)
    return columns, ((number, row.get(wanted.column), row.get("split")) for number, row in rows)
