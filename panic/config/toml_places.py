"""Where the keys and values of a valid TOML text are written.

The standard library's parser gives values without places, so this scans the text a second time. The text is
known to be valid: `scan` only finds ends of strings, arrays and tables, and reads nothing but keys.

Try it: `python -c "from panic.config.toml_places import scan; print(*scan('a.b = [1, 2]'))"`
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Generator, Iterator

from panic.config.problems import KeyPath

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
