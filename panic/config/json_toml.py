"""Configs in JSON and TOML into plain data, with the place of every key and value.

Both are parsed by the standard library, which gives values without places; so a valid text is scanned a
second time. The scan of TOML only finds ends of strings, arrays and tables, and reads nothing but keys.

Try it: `python -c "from panic.config.json_toml import scan; print(*scan('a.b = [1, 2]'))"`
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Generator, Iterator
from typing import Any, NoReturn

from panic.config.problems import MAX_DEPTH, Document, KeyPath, Place, Source, fail

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


def parse_json(document: Document) -> None:
    """Fill a document from its source, which may have comments. NotParsedError if it is no JSON."""
    source = document.source
    text = COMMENT.sub(_blank, source.text)
    if not text.strip():
        return
    try:
        json.loads(text, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        fail(source, error.pos, f"not valid JSON: {JSON_WORDS.get(error.msg, error.msg.lower())}")
    except _NoNumberError as error:
        fail(source, max(0, text.find(str(error))), f"not valid JSON: {error} is no JSON number")
    except ValueError:
        _fail_of_digits(source, "JSON")
    document.data, _ = _scan_json(text, _next_json(text, 0), (), document)


COMMENT = re.compile(r'"(?:[^"\\]|\\.)*"|//[^\n]*|/\*.*?(?:\*/|\Z)', re.DOTALL)
"""A string, in which nothing is a comment, or a comment: to the end of its line, or between /* and */."""


def _blank(found: re.Match[str]) -> str:
    """A string as it is; spaces in the place of a comment, so that all places stay what they are."""
    return found[0] if found[0].startswith('"') else re.sub(r"[^\n]", " ", found[0])


class _NoNumberError(ValueError):
    """NaN or Infinity stands where JSON has a number."""


def _refuse_constant(name: str) -> NoReturn:
    raise _NoNumberError(name)


LONG_NUMBER = re.compile(r"\d{4000,}")
"""More digits than Python reads as a number (4,300, of which some may be in front of a point)."""


def _fail_of_digits(source: Source, kind: str) -> NoReturn:
    found = LONG_NUMBER.search(source.text)
    fail(source, found.start() if found else 0, f"not valid {kind}: a number has too many digits")


def _scan_json(text: str, index: int, path: KeyPath, document: Document) -> tuple[Any, int]:
    """Return the value at `index` of a valid JSON text and the index behind it, noting all places."""
    begin = index
    value: Any
    if text[index] == "{":
        value, index = {}, _next_json(text, index + 1)
        while text[index] != "}":
            key, end = json.JSONDecoder().raw_decode(text, index)
            place = Place(source=document.source, start=index, end=end)
            is_new = document.add_key(key, path, place, value)
            index = _next_json(text, _next_json(text, end) + 1)
            of = document if is_new else Document(source=document.source)
            item, end = _scan_json(text, index, (*path, key), of)
            value.setdefault(key, item)
            index = _next_json(text, end)
        index += 1
    elif text[index] == "[":
        value, index = [], _next_json(text, index + 1)
        while text[index] != "]":
            item, end = _scan_json(text, index, (*path, len(value)), document)
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


def parse_toml(document: Document) -> None:
    """Fill a document from its source. NotParsedError if it is no TOML."""
    source = document.source
    if (long := long_key(source.text, MAX_DEPTH)) is not None:  # tomllib takes gigabytes for it
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
    for path, is_key, start, end in scan(source.text):
        places = document.keys if is_key else document.values
        places.setdefault(path, Place(source=source, start=start, end=end))


Found = tuple[KeyPath, bool, int, int]

BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
SPACE = re.compile(r"[ \t]*")
KEY = re.compile(r"[A-Za-z0-9_-]+|\"(?:\\.|[^\"\\\n])*\"|'[^'\n]*'")
SCALAR = re.compile(
    r"\"\"\"(?:\\.|(?!\"\"\")[^\\])*\"{3,5}|'''(?:(?!''').)*'{3,5}|\"(?:\\.|[^\"\\\n])*\"|'[^'\n]*'|[^,\]}#\n]+",
    re.DOTALL,
)


QUOTED = re.compile(
    r"\"{3}(?:\\.|(?!\"{3})[^\\])*\"{3,5}|'{3}(?:(?!'{3}).)*'{3,5}|\"(?:\\.|[^\"\\\n])*\"|'[^'\n]*'|#[^\n]*",
    re.DOTALL,
)


def long_key(text: str, most: int) -> int | None:
    """Return where a dotted key of more than `most` parts begins; None if there is none. Any text will do."""
    bare = QUOTED.sub(lambda match: "_" * len(match[0]), text)
    found = re.search(rf"(?<![\w-])[\w-]++(?:[ \t]*+\.[ \t]*+[\w-]++){{{most},}}", bare)
    return found.start() if found else None


def scan(text: str) -> Iterator[Found]:
    """Yield (path, is it the key, start, end) of all keys and values."""
    table: KeyPath = ()
    num_tables: dict[KeyPath, int] = {}
    index = _end(BLANK, text, 0)
    while index < len(text):
        if text[index] == "[":
            is_array = text.startswith("[[", index)
            parts, index = _keys(text, _end(SPACE, text, index + 1 + is_array))
            table = ()
            for position, (part, start, end) in enumerate(parts):
                table = (*table, part)
                yield table, True, start, end
                if is_array and position == len(parts) - 1:
                    num_tables[table] = num_tables.get(table, 0) + 1
                if table in num_tables:
                    table = (*table, num_tables[table] - 1)
                yield table, False, start, end
            index += 1 + is_array
        else:
            index = yield from _assignment(text, index, table)
        index = _end(BLANK, text, index)


def _assignment(text: str, index: int, table: KeyPath) -> Generator[Found, None, int]:
    parts, index = _keys(text, index)
    path = table
    for part, start, end in parts:
        path = (*path, part)
        yield path, True, start, end
    index = yield from _value(text, _end(SPACE, text, index + 1), path)
    return index


def _value(text: str, index: int, path: KeyPath) -> Generator[Found, None, int]:
    begin = index
    if text[index] == "[":
        index, position = _end(BLANK, text, index + 1), 0
        while text[index] != "]":
            index = yield from _value(text, index, (*path, position))
            position += 1
            index = _next_entry(text, index)
        index += 1
    elif text[index] == "{":
        index = _end(BLANK, text, index + 1)
        while text[index] != "}":
            index = yield from _assignment(text, index, path)
            index = _next_entry(text, index)
        index += 1
    else:
        match = SCALAR.match(text, index)
        assert match is not None
        index += len(match[0].rstrip())
    yield path, False, begin, index
    return index


def _next_entry(text: str, index: int) -> int:
    index = _end(BLANK, text, index)
    return _end(BLANK, text, index + 1) if text[index] == "," else index


def _keys(text: str, index: int) -> tuple[list[tuple[str, int, int]], int]:
    """Return the parts of a dotted key with their places, and the index of what follows."""
    parts = []
    while True:
        match = KEY.match(text, index)
        assert match is not None
        part = next(iter(tomllib.loads(f"{match[0]} = 0")))
        parts.append((part, *match.span()))
        index = _end(SPACE, text, match.end())
        if text[index] != ".":
            return parts, index
        index = _end(SPACE, text, index + 1)


def _end(pattern: re.Pattern[str], text: str, index: int) -> int:
    match = pattern.match(text, index)
    assert match is not None
    return match.end()
