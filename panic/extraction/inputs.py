"""What there is to embed: the images of folders and the texts of files, each with an id of its own.

The id of an image is its path within its folder, without the ending; with a pattern it is the part of that
which the pattern's one group matches, and a group of digits loses its leading zeros ("COCO_000042" and
`_(\\d+)` give "42"). The id of a text is the value of a column `id` where its file has one, else the number
of its row. Ids are unique within a folder or file; whichever is not is refused with both places.

    >>> [item.id for item in list_images("photos", re.compile(r"(\\d+)$")).items]
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from panic.config.sources import decode
from panic.engine.contents import Output, finish
from panic.engine.importing.images import decode_image
from panic.errors import UsageError, nearest, nearest_path
from panic.models.protocol import Modality

ENDINGS = (".png", ".jpg", ".jpeg", ".webp")
TEXT_ENDINGS = (".txt", ".csv", ".jsonl")
MOST_SHOWN = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """An image or text that is to be embedded.

    source: the folder or file that it is from, as the user named it. place: where it is in there: a path, or
    the number of a row. stamp: another one means another content. text: what is embedded; None for an image.
    """

    source: str
    id: str
    place: str
    stamp: str
    text: str | None = None

    @property
    def key(self) -> tuple[str, str, str]:
        """What a row is known by."""
        return readable(self.source), self.id, self.stamp


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """The items of a source in the order of their places; what else was seen there, counted by its name."""

    items: list[Item]
    others: Counter[str] = field(default_factory=Counter)


class Unusable(Exception):
    """An item cannot be embedded; its text says why."""


def list_images(folder: str, pattern: re.Pattern[str] | None = None) -> Listing:
    """List the images of a folder and of those in it; hidden files and links to folders are left out.

    Raises UsageError for a folder without images, for names that the pattern does not match, for equal ids.
    """
    root, others, found, unmatched = Path(folder), Counter[str](), [], []
    if not folder or root.is_file():
        raise UsageError(f"{folder or 'An empty name'} is no folder.", hint="A folder of images is needed.")
    if not root.is_dir():
        raise UsageError(f"There is no folder {folder}.", hint=_near_path(root, Path.is_dir))
    for path in _files_below(root, others):
        name = path.relative_to(root)
        if path.suffix.lower() not in ENDINGS:
            others[path.suffix.lower() or "no ending"] += 1
            continue
        id = _id_of(name.with_suffix("").as_posix(), pattern)
        if not id:
            unmatched.append(name.as_posix())
            continue
        status = path.stat()
        stamp = f"{status.st_size}-{status.st_mtime_ns}"
        found.append(Item(source=folder, id=readable(id), place=name.as_posix(), stamp=stamp))
    if unmatched:
        raise UsageError(f"--id matches nothing in {_some(unmatched)} of {folder}.")
    if not found:
        raise UsageError(f"There are no images in {folder}.", hint=f"Read are {', '.join(ENDINGS)}.")
    return Listing(items=_unique(found, "images"), others=others)


def _files_below(root: Path, others: Counter[str]) -> Iterator[Path]:
    """Yield the files below a folder in the order of their names."""
    for folder, folders, files in os.walk(root, onerror=_refuse):
        if num_links := sum((Path(folder) / name).is_symlink() for name in folders):
            others["link to a folder"] += num_links
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            path = Path(folder) / name
            if name.startswith(".") or not path.is_file():
                continue
            yield path


def _refuse(error: OSError) -> None:
    raise error


def _id_of(name: str, pattern: re.Pattern[str] | None) -> str:
    """Return the id of a file's name without its ending; an empty one where the pattern does not match."""
    if pattern is None:
        return name
    match = pattern.search(name)
    id = match[1] if match else None
    return (id.lstrip("0") or "0") if id and id.isdecimal() else id or ""


def pattern_of(text: str) -> re.Pattern[str]:
    """The pattern of ids in file names. Raises UsageError if it is none, or has not exactly one group."""
    try:
        pattern = re.compile(text)
    except re.error as error:
        raise UsageError(f"--id {text}: no regular expression ({error})") from None
    if pattern.groups != 1:
        raise UsageError(
            f"--id {text}: it has {pattern.groups} groups, and the one of the id is needed.",
            hint=r"For example --id '_(\d+)$', which is matched with the name without its ending.",
        )
    return pattern


def list_texts(file: str, column: str = "text") -> Listing:
    """List the texts of a .txt (one a line), .csv or .jsonl file (in a column); empty lines of .txt are left
    out.

    Raises UsageError for what cannot be read, with the row, and for equal ids.
    """
    path = Path(file)
    if not _has_texts(path):
        raise UsageError(f"{file}: texts are read from {', '.join(TEXT_ENDINGS)}.")
    if not path.is_file():
        raise UsageError(f"There is no file {file}.", hint=_near_path(path, _has_texts))
    content, found = decode(path.read_bytes(), file), []
    rows = {".txt": _txt, ".csv": _csv, ".jsonl": _jsonl}[path.suffix.lower()](file, content)
    for number, row in rows:
        text = row.get(column)
        if column in row and not isinstance(text, str):
            raise UsageError(f"{file}: what row {number} has in the column '{column}' is no text.")
        if not isinstance(text, str):
            near = nearest(column, row) or sorted(row)
            raise UsageError(
                f"{file}: row {number} has no text in a column '{column}'.",
                hint=f"--column {near[0]}" if near else "",
            )
        checked = finish(text, Modality.TEXT, False)
        stamp = checked.digest.hex()[:32] if isinstance(checked, Output) else "unusable"
        id = str(number) if row.get("id") is None else str(row["id"])
        if not _is_unicode(id):
            raise UsageError(f"{file}: the id of row {number} is not valid Unicode.")
        found.append(Item(source=file, id=id, place=str(number), stamp=stamp, text=text))
    if not found:
        raise UsageError(f"There are no texts in {file}.")
    return Listing(items=_unique(found, "rows"))


def _is_unicode(text: str) -> bool:
    """Whether a text can be written: JSON may have halves of characters."""
    return not any("\ud800" <= letter <= "\udfff" for letter in text)


Rows = Iterator[tuple[int, dict[str, object]]]


def _txt(file: str, content: str) -> Rows:
    for number, line in enumerate(content.replace("\r", "\n").split("\n"), start=1):
        if line.strip():
            yield number, {"text": line}


def _csv(file: str, content: str) -> Rows:
    reader = csv.DictReader(io.StringIO(content, newline=""), strict=True)
    try:
        names = reader.fieldnames or ()
        if twice := next((name for name in names if name and names.count(name) > 1), None):
            raise UsageError(f"{file} has several columns called {twice!r}.")
        for number, row in enumerate(reader, start=1):
            if None in row:
                raise UsageError(
                    f"{file}: row {number} has more values than there are columns.",
                    hint="A text with a comma stands in quotes.",
                )
            yield number, dict(row)
    except csv.Error as error:
        raise UsageError(f"{file}:{reader.line_num}: not valid CSV: {error}") from None


def _jsonl(file: str, content: str) -> Rows:
    for number, line in enumerate(content.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line, object_pairs_hook=partial(_once, file, number))
        except (ValueError, RecursionError) as error:
            raise UsageError(f"{file}:{number}: not valid JSON: {error}") from None
        if not isinstance(row, dict):
            raise UsageError(f'{file}:{number}: a line is {{"text": ...}}')
        yield number, row


def _once(file: str, number: int, pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Return a row of JSON. Raises UsageError for a name that is in it twice: nobody knows which is meant."""
    row = dict(pairs)
    if len(row) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise UsageError(f"{file}:{number}: {twice!r} is there twice")
    return row


def _unique(items: list[Item], what: str) -> list[Item]:
    """Return the items. Raises UsageError where two have the same id, with the places of both."""
    places: dict[str, str] = {}
    twice = []
    for item in items:
        if item.id in places:
            twice.append(f"{places[item.id]} and {item.place} ({item.id})")
        places[item.id] = item.place
    if twice:
        where = items[0].source
        raise UsageError(
            f"Two {what} of {where} have the same id: {_some(twice)}.",
            hint="--id is the way out." if what == "images" else "The ids are those of the column 'id'.",
        )
    return items


def _some(names: list[str]) -> str:
    more = f" and {len(names) - MOST_SHOWN:,} more" if len(names) > MOST_SHOWN else ""
    return f"{', '.join(map(readable, names[:MOST_SHOWN]))}{more}"


def _has_texts(path: Path) -> bool:
    return path.suffix.lower() in TEXT_ENDINGS


def _near_path(path: Path, fits: Callable[[Path], bool]) -> str:
    near = nearest_path(path, fits)
    return f"Did you mean {near}?" if near else ""


def readable(text: str) -> str:
    """A file's name as UTF-8, which its bytes need not be: others become \\xff."""
    return os.fsencode(text).decode("utf-8", "backslashreplace")


def read(item: Item) -> Output:
    """Read and decode an item: its text or RGB image, turned as its EXIF orientation says, and the digest of
    that.

    Raises Unusable for what is damaged, too large or empty.
    """
    if item.text is not None:
        checked = finish(item.text, Modality.TEXT, False)
    else:
        try:
            with (Path(item.source) / item.place).open("rb") as file:
                image = decode_image(file)
            checked = finish(image, Modality.IMAGE, False)
        except OSError as error:
            raise Unusable(error.strerror or str(error)) from None
        except (ValueError, MemoryError) as error:
            raise Unusable(str(error) or type(error).__name__) from None
    if not isinstance(checked, Output):
        raise Unusable(checked.reason)
    return checked


def listed(sources: Iterable[str], listings: Iterable[Listing]) -> list[Item]:
    """All items of several listings. Raises UsageError for a source that is named twice."""
    seen: dict[str, str] = {}
    for source in sources:
        real = os.path.realpath(source)
        if real in seen:
            raise UsageError(
                f"{source} is named twice" + (f", also as {seen[real]}." if seen[real] != source else ".")
            )
        seen[real] = source
    return [item for listing in listings for item in listing.items]
