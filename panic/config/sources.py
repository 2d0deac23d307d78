"""Texts of configs into plain data, with the place of every key and value.

`yaml_places` reads YAML; JSON and TOML are parsed by the standard library, and their places come from a small
scan of the text. Keys that are given twice are problems of the document; what cannot be parsed at
all raises ConfigError with its place.

Try it: `python -c "from panic.config.sources import read; print(read('configs/demo.yaml').keys)"`
"""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Callable
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any, NoReturn

from panic.config import problems, toml_places, yaml_places
from panic.config.problems import Document, KeyPath, NotParsedError, Place, Source, fail
from panic.errors import ConfigError, nearest

MAX_DEPTH = 50
MAX_SHOWN_FILES = 10
FORMATS = {".yaml": "YAML", ".yml": "YAML", ".json": "JSON", ".toml": "TOML"}

EXAMPLE = """\
    name: demo
    networks: [[PocketDiffusion, PocketCaptioner]]
    prompts: [a small red circle above a large blue square]
    seeds: [42, -1]
    max_length: 20
"""
"""A config that runs everywhere, for those who have none yet."""


def read(path: Path) -> Document:
    """Read and parse a config file; its suffix says what it is."""
    if path.is_dir():
        raise ConfigError(f"{path}: is a folder, not a config file", hint=_configs_in(path))
    if path.suffix.lower() not in FORMATS and path.exists():
        raise ConfigError(f"{path}: a config ends in {', '.join(FORMATS)}")
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file", hint=_configs_in(path.parent, like=path)) from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    return parse(Source(name=str(path), text=decode(data, str(path))), FORMATS[path.suffix.lower()])


def decode(data: bytes, name: str) -> str:
    """Decode UTF-8, also with a byte order mark; ConfigError names the place of the first wrong byte."""
    try:
        return data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        before = error.object[: error.start]
        line = before.count(b"\n") + 1
        column = len(before[before.rfind(b"\n") + 1 :].decode("utf-8", "replace")) + 1
        is_utf16 = data[:2] in (b"\xff\xfe", b"\xfe\xff")
        what = "this is UTF-16" if is_utf16 else f"byte 0x{error.object[error.start]:02x} is not UTF-8"
        raise ConfigError(f"{name}:{line}:{column}: {what}", hint="save the file as UTF-8") from None


def parse(source: Source, kind: str) -> Document:
    """Parse a source as "YAML", "JSON" or "TOML"."""
    document = Document(source=source)
    try:
        _parse({"YAML": yaml_places.parse, "JSON": _parse_json, "TOML": _parse_toml}[kind], document)
    except NotParsedError as error:
        raise ConfigError(problems.render([error.problem], document)) from None
    if document.data is None:
        hint = "a config has at least name, networks, prompts, seeds and max_length"
        raise ConfigError(f"{source.name}: is empty", hint=hint)
    return document


def parse_value(source: Source, begin: int) -> Document:
    """Parse the YAML value of an override, which starts at `begin`; its places are within the whole text.

    Raises:
        NotParsedError: when it is not YAML.
    """
    document = Document(source=source)
    if source.text[begin:].strip():
        _parse(partial(yaml_places.parse, begin=begin), document)
    return document


def _parse(parser: Callable[[Document], None], document: Document) -> None:
    """Parse a document; one that is nested too deep is answered with the place where it gets so."""
    text = document.source.text
    try:
        parser(document)
        starts = [place.start for path, place in document.values.items() if len(path) > MAX_DEPTH]
    except RecursionError:
        depths = accumulate((character in "[{") - (character in "]}") for character in text)
        starts = [next((index for index, depth in enumerate(depths) if depth > MAX_DEPTH), 0)]
    if starts:
        fail(document.source, min(starts), f"this is nested more than {MAX_DEPTH} deep")


def _configs_in(folder: Path, like: Path | None = None) -> str:
    """Say which configs there are in a folder and its `configs`, or how to begin without any."""
    if not folder.is_dir():
        return f"there is no folder {folder}"
    places = [place for place in (folder, folder / "configs") if os.access(place, os.R_OK | os.X_OK)]
    files = sorted(
        file
        for place in places
        for file in place.iterdir()
        if file.suffix.lower() in FORMATS and file.exists()
    )
    if like is not None:
        by_name = {file.name if like.suffix else file.stem: file for file in reversed(files)}
        if near := nearest(like.name, by_name):
            return f"did you mean {by_name[near[0]]}?"
    if not files:
        return f"there are no configs in {folder}; to begin, save this as demo.yaml:\n\n{EXAMPLE}"
    names = [str(file.relative_to(folder)) for file in files[:MAX_SHOWN_FILES]]
    more = f" and {len(files) - len(names)} more" if len(files) > len(names) else ""
    return f"configs in {folder}: {', '.join(names)}{more}"


# --- JSON


JSON_WORDS = {
    "Expecting property name enclosed in double quotes": (
        "a key in double quotes is expected here (and no comma after the last entry)"
    ),
    "Expecting ',' delimiter": "a comma or a closing bracket is expected here",
    "Expecting ':' delimiter": "a ':' is expected here",
    "Expecting value": "a value is expected here",
    "Unterminated string starting at": "this quote is never closed",
    "Extra data": "the config ended before this",
}


def _parse_json(document: Document) -> None:
    source = document.source
    if not source.text.strip():
        return
    try:
        json.loads(source.text, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        fail(source, error.pos, f"not valid JSON: {JSON_WORDS.get(error.msg, error.msg.lower())}")
    except _NoNumberError as error:
        fail(source, max(0, source.text.find(str(error))), f"not valid JSON: {error} is no JSON number")
    except ValueError:
        _fail_of_digits(source, "JSON")
    document.data, _ = _scan_json(_next_json(source.text, 0), (), document)


class _NoNumberError(ValueError):
    """NaN or Infinity stands where JSON has a number."""


def _refuse_constant(name: str) -> NoReturn:
    raise _NoNumberError(name)


LONG_NUMBER = re.compile(r"\d{4000,}")
"""More digits than Python reads as a number (4,300, of which some may be in front of a point)."""


def _fail_of_digits(source: Source, kind: str) -> NoReturn:
    found = LONG_NUMBER.search(source.text)
    fail(source, found.start() if found else 0, f"not valid {kind}: a number has too many digits")


def _scan_json(index: int, path: KeyPath, document: Document) -> tuple[Any, int]:
    """Return the value at `index` of a valid JSON text and the index behind it, noting all places."""
    text, begin = document.source.text, index
    value: Any
    if text[index] == "{":
        value, index = {}, _next_json(text, index + 1)
        while text[index] != "}":
            key, end = json.JSONDecoder().raw_decode(text, index)
            place = Place(source=document.source, start=index, end=end)
            is_new = document.add_key(key, path, place, value)
            index = _next_json(text, _next_json(text, end) + 1)
            item, end = _scan_json(
                index, (*path, key), document if is_new else Document(source=document.source)
            )
            value.setdefault(key, item)
            index = _next_json(text, end)
        index += 1
    elif text[index] == "[":
        value, index = [], _next_json(text, index + 1)
        while text[index] != "]":
            item, end = _scan_json(index, (*path, len(value)), document)
            value.append(item)
            index = _next_json(text, end)
        index += 1
    else:
        value, index = json.JSONDecoder().raw_decode(text, index)
    document.values[path] = Place(source=document.source, start=begin, end=index)
    return value, index


def _next_json(text: str, index: int) -> int:
    """Return the index of the next character that is neither white space nor a comma."""
    while text[index] in " \t\r\n,":
        index += 1
    return index


# --- TOML

TOML_PLACE = re.compile(r"\s*\(at (?:line (\d+), column (\d+)|end of document)\)$")


def _parse_toml(document: Document) -> None:
    source = document.source
    if (long := toml_places.long_key(source.text, MAX_DEPTH)) is not None:  # tomllib takes gigabytes for it
        fail(source, long, f"a key has at most {MAX_DEPTH} parts")
    try:
        document.data = tomllib.loads(source.text) or None
    except tomllib.TOMLDecodeError as error:
        match = TOML_PLACE.search(str(error))
        message = TOML_PLACE.sub("", str(error))
        lines = source.text.split("\n")
        start = len(source.text.rstrip())
        if match and match[1]:
            start = sum(len(line) + 1 for line in lines[: int(match[1]) - 1]) + int(match[2]) - 1
        if "Cannot overwrite" in message or "twice" in message:
            start = source.text.rfind("\n", 0, start) + 1
            message = "this key is given twice"
        elif message == "Illegal character '\\n'":
            message = "a quote in this line is never closed"
        hint = "texts stand in quotes" if message == "Invalid value" else ""
        fail(source, start, f"not valid TOML: {message[0].lower() + message[1:]}", hint)
    except ValueError:
        _fail_of_digits(source, "TOML")
    for path, is_key, start, end in toml_places.scan(source.text):
        places = document.keys if is_key else document.values
        places.setdefault(path, Place(source=source, start=start, end=end))
