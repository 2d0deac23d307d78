"""The rows of a file or folder that is to be imported: one per step of a run, as it is written there.

JSON lines, CSV (both also with .gz) and Parquet have one row per step and name what is in it by columns; a
folder has a folder of images per run. Whatever cannot be read becomes a line among the problems, with its
file and line, and the rest is still read. Nothing of what is read is executed or followed. Rows come one by
one, because files may be larger than the memory.

    for row in read_rows(Path("chains.jsonl"), columns={}, problems=[]): ...
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, TextIO, cast

from panic.config.fields import MAX_COUNT, MAX_SEED
from panic.errors import NotFound, UsageError, nearest, nearest_path, require_utf8

FIELDS = ("run", "step", "text", "image", "network", "model", "prompt", "seed", "repeat")
"""What a row can say; `columns` tells what that is called in a file."""
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
PROMPT_FILE = "prompt.txt"
MAX_LINE = 64 * 2**20
"""Bytes, or characters, of a line: a packed file of a few kB could hold one that fills the memory."""
PARQUET_ROWS = 2**16
"""Rows of a Parquet file that are in memory at a time."""
TWICE = object()
"""What stands in a line under a name that is there twice: which of the two is meant, nobody knows."""
_LAST_NUMBER = re.compile(r"(\d+)\D*$", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One step of a run; `where` is its file and line, `image` a path relative to the file's folder."""

    where: str
    run: str
    step: int
    text: str | None = None
    image: str | None = None
    network: tuple[str, ...] | None = None
    model: str | None = None
    prompt: str | None = None
    seed: int | None = None
    repeat: int | None = None


def read_rows(
    path: Path,
    columns: Mapping[str, str],
    problems: list[str],
    remark: Callable[[str], None] = lambda text: None,
) -> Iterator[Row]:
    """Read the rows of a .jsonl, .csv or .parquet file, or of a folder of folders of images, one by one.

    Args:
        columns: by field, the column that has it; several with commas between them are joined; "" leaves the
            field out. By default a field's column has its name.
        problems: takes a sentence for everything that is wrong, with its place.
        remark: told which columns are not read.

    Raises: NotFound for a path or field that is not there, UsageError for a kind of file that is not read.
    """
    for field in columns:
        if field not in FIELDS:
            near = nearest(field, FIELDS)
            raise NotFound(
                f"A row has no {field!r}.",
                hint=f"Did you mean {near[0]}?" if near else f"It has: {', '.join(FIELDS)}.",
            )
    if path.is_dir():
        yield from _folder_rows(path, problems)
        return
    if not path.is_file():
        other = nearest_path(path, lambda other: other.is_dir() or _reader(other) is not None)
        raise NotFound(f"There is no file or folder {path}.", hint=f"Did you mean {other}?" if other else "")
    reader = _reader(path)
    if reader is None:
        raise UsageError(f"{path} is none of {', '.join(_READERS)}, and no folder.")
    named = {field: columns.get(field, field) for field in FIELDS}
    names = {field: tuple(filter(None, text.split(","))) for field, text in named.items()}
    num_rows, unread = 0, set[str]()
    for where, values in reader(path, problems):
        unread |= values.keys() - set(chain(*names.values()))
        try:
            row = _row(where, values, names)
        except (ValueError, RecursionError) as error:  # of a network in JSON
            problems.append(f"{where}: {error}")
            continue
        num_rows += 1
        yield row
    if not num_rows and not problems:
        problems.append(f"{path.name}: it has no rows")
    if unread:
        remark(
            f"{path.name}: not read are the columns {', '.join(sorted(unread))}"
            " (--column FIELD=COLUMN says what is in one)"
        )


def _row(where: str, values: Mapping[str, Any], names: Mapping[str, tuple[str, ...]]) -> Row:
    """Make a row of what stands in a line. Raises ValueError with what is wrong."""
    found = {field: _value(values, names[field]) for field in FIELDS}
    for field in ("run", "step"):
        if found[field] is None:
            raise ValueError(f"{field} is missing")
    run = found["run"]
    if isinstance(run, bool) or not isinstance(run, int | str):
        raise ValueError(f"run should be a text or a whole number: {_short(run)}")
    texts = {field: _text(field, found[field]) for field in ("text", "image", "model", "prompt")}
    if (texts["text"] is None) == (texts["image"] is None):
        has = "neither a text nor" if texts["text"] is None else "both a text and"
        raise ValueError(f"it has {has} an image")
    return Row(
        where=where,
        run=str(run),
        step=_whole("step", found["step"], MAX_COUNT),
        network=None if found["network"] is None else _network(found["network"]),
        seed=None if found["seed"] is None else _whole("seed", found["seed"], MAX_SEED),
        repeat=None if found["repeat"] is None else _whole("repeat", found["repeat"], MAX_COUNT - 1),
        **texts,
    )


def _value(values: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    """What the columns of a field say; None if they say nothing. Raises ValueError for a doubled column."""
    if twice := next((name for name in names if values.get(name) is TWICE), None):
        raise ValueError(f"{_short(twice)} is there twice")
    if len(names) <= 1:
        value = values.get(names[0]) if names else None
        return None if value == "" else value
    parts = [values.get(name) for name in names]
    return None if any(part in (None, "") for part in parts) else " / ".join(map(str, parts))


def _text(field: str, value: Any) -> str | None:
    if value is not None and not isinstance(value, str):
        raise ValueError(f"{field} should be a text: {_short(value)}")
    return value


def _whole(field: str, value: Any, high: int) -> int:
    if isinstance(value, str) and re.fullmatch(r"\d{1,19}", value, re.ASCII):
        value = int(value)
    if isinstance(value, float) and value.is_integer():  # as a column with gaps in it is stored
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= high:
        raise ValueError(f"{field} should be a whole number from 0 on: {_short(value)}")
    return value


def _network(value: Any) -> tuple[str, ...]:
    if isinstance(value, str) and value.lstrip().startswith("["):
        value = json.loads(value)
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise ValueError(f"network should be a name or a list of names: {_short(value)}")
    return tuple(names)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


Lines = Iterator[tuple[str, Mapping[str, Any]]]


def _jsonl(path: Path, problems: list[str]) -> Lines:
    with _opened(path) as file:
        number = 0
        try:
            for number, line in enumerate(_lines(file), 1):
                where = f"{path.name}:{number}"
                if not line.strip():
                    continue
                try:
                    text = line.decode("utf-8-sig" if number == 1 else "utf-8")
                    values = json.loads(text, object_pairs_hook=_object)
                except (ValueError, RecursionError) as error:
                    problems.append(f"{where}: it is no JSON ({error})")
                    continue
                if isinstance(values, dict):
                    yield where, values
                else:
                    problems.append(f"{where}: it is no JSON object: {_short(values)}")
        except _UNREADABLE as error:
            problems.append(f"{path.name}:{number + 1}: it cannot be read ({error})")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON; of names that are there twice json.loads would keep the last value alone."""
    found = dict(pairs)
    return found if len(found) == len(pairs) else found | _twice(name for name, _ in pairs)


def _twice(names: Iterable[str]) -> dict[str, Any]:
    return {name: TWICE for name, count in Counter(names).items() if count > 1}


def _csv(path: Path, problems: list[str]) -> Lines:
    with _opened(path) as file, io.TextIOWrapper(file, encoding="utf-8-sig", newline="") as texts:
        reader = csv.reader(_lines(texts), strict=True)
        names: list[str] | None = None
        line = 0
        try:
            for cells in reader:
                where, line = f"{path.name}:{line + 1}", reader.line_num
                if names is None:
                    if only := _other_separator(cells):
                        problems.append(f"{where}: its cells are separated by {only!r}: commas are needed")
                        return
                    names = cells
                elif cells and len(cells) != len(names):
                    problems.append(f"{where}: it has another number of cells than the first line")
                elif cells:  # no empty line
                    yield where, dict(zip(names, cells, strict=True)) | _twice(names)
        except (csv.Error, UnicodeDecodeError, *_UNREADABLE) as error:
            problems.append(f"{path.name}:{line + 1}: it cannot be read ({error})")


def _other_separator(names: Sequence[str]) -> str:
    """What seems to separate the cells of a first line that has no commas; "" if nothing does."""
    return next((mark for mark in ";\t|" if len(names) == 1 and mark in names[0]), "")


class _TooLong(Exception):
    """A line is longer than may be read."""


_UNREADABLE = (OSError, EOFError, zlib.error, _TooLong)


def _opened(path: Path) -> BinaryIO:
    """A file's bytes, unpacked where its name ends in .gz."""
    if path.suffix.lower() == ".gz":
        return cast(BinaryIO, gzip.open(path, "rb"))
    return path.open("rb")


def _lines(file: BinaryIO | TextIO) -> Iterator[Any]:
    """The lines of a file, bytes or texts as it gives them. Raises _TooLong."""
    while line := file.readline(MAX_LINE):
        if len(line) == MAX_LINE:
            raise _TooLong(f"a line is longer than {MAX_LINE:,}")
        yield line


def _parquet(path: Path, problems: list[str]) -> Lines:
    import polars

    require_utf8(path)
    try:
        whole = polars.scan_parquet(path, glob=False)
        # In batches, since each slice would decode its row group from its start.
        batches = whole.collect_batches(chunk_size=PARQUET_ROWS, maintain_order=True)
        rows = chain.from_iterable(batch.iter_rows(named=True) for batch in batches)
        for number, values in enumerate(rows, 1):
            yield f"{path.name}:{number}", values
    except (polars.exceptions.PolarsError, OSError) as error:
        problems.append(f"{path.name}: it cannot be read ({error})")


_READERS: dict[str, Callable[[Path, list[str]], Lines]] = {
    ".jsonl": _jsonl,
    ".jsonl.gz": _jsonl,
    ".ndjson": _jsonl,
    ".ndjson.gz": _jsonl,
    ".csv": _csv,
    ".csv.gz": _csv,
    ".parquet": _parquet,
}


def _reader(path: Path) -> Callable[[Path, list[str]], Lines] | None:
    """What reads a file of this name."""
    return next((reader for ending, reader in _READERS.items() if path.name.lower().endswith(ending)), None)


def _folder_rows(path: Path, problems: list[str]) -> Iterator[Row]:
    """The rows of a folder of folders: each is a run, named by its folder; a file's last number is its step.

    The prompt is what stands in prompt.txt, or else the folder's name. Steps may count from 0 or 1.
    """
    folders = [entry for entry in sorted(path.iterdir()) if not entry.name.startswith(".")]
    if not folders:
        problems.append(f"{path.name}: it has no folders of images")
    for folder in folders:
        if folder.is_symlink() or not folder.is_dir():
            problems.append(f"{folder.name}: it is no folder of images")
            continue
        yield from _run_rows(folder, problems)


def _run_rows(folder: Path, problems: list[str]) -> Iterator[Row]:
    prompt = folder.name
    steps: list[tuple[int, str]] = []
    for entry in sorted(folder.iterdir()):
        where = f"{folder.name}/{entry.name}"
        number = _LAST_NUMBER.search(entry.stem)
        if entry.name.startswith("."):
            continue
        if entry.is_symlink() or not entry.is_file():
            problems.append(f"{where}: it is no file")
        elif entry.name == PROMPT_FILE:
            try:
                prompt = entry.read_text(encoding="utf-8").removesuffix("\n")
            except ValueError as error:
                problems.append(f"{where}: it is no UTF-8 ({error})")
        elif entry.suffix.lower() not in IMAGE_SUFFIXES or number is None or len(number[1]) > 9:
            problems.append(f"{where}: it is no image with its step in its name, such as step_0.png")
        else:
            steps.append((int(number[1]), where))
    if not steps:
        problems.append(f"{folder.name}: it has no images")
    first = min((step for step, _ in steps), default=0)
    make = partial(Row, run=folder.name, prompt=prompt)
    yield from (make(where=where, step=step - min(first, 1), image=where) for step, where in steps)
