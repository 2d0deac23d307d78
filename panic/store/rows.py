"""Values of a store that no row should have, whatever SQLite accepts: texts that are no UTF-8, JSON that is
none or of another kind, times that are no dates, counts and durations beyond what anything could have asked
for or taken. Each is told with its table and row.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

from panic.config.fields import MAX_COUNT
from panic.store.codec import config_problems
from panic.store.files import Database
from panic.store.reading import HIDDEN, is_name, is_uid

LATEST = 253_402_300_800.0
"""The end of the year 9999, beyond which no calendar goes."""
LONGEST_S = 1e10
"""Three centuries: nothing in a store took longer."""
COUNTS = frozenset({"attempts", "entry_step", "max_length", "num_points", "period", "repeat"})
"""Columns of counts that a command or a report may go through one by one."""


def bad_values(database: Database) -> Iterator[str]:
    """One line for each such value of a file."""
    tables = database.rows("SELECT name, sql FROM sqlite_schema WHERE type = 'table' ORDER BY name")
    for table, sql in tables:
        columns = database.rows("SELECT name, type FROM pragma_table_info(?)", table)
        key = "NULL" if "WITHOUT ROWID" in sql else "rowid"
        for column, kind in columns:
            if column in COUNTS:
                for row, found in database.rows(
                    f"SELECT {key}, {column} FROM {table} WHERE {column} > ?", MAX_COUNT
                ):
                    yield f"{table}, row {row or '?'}: {column} is more than {MAX_COUNT:,}: {found:,}"
            test = _test(table, column, kind)
            if test is None:
                continue
            value = f"CAST({column} AS BLOB)" if kind == "TEXT" else column
            query = f"SELECT {key}, {value} FROM {table} WHERE {column} NOTNULL"
            for number, (row, found) in enumerate(database.stream(query), 1):
                if problem := test(found):
                    yield f"{table}, row {row or number}: {column} {problem}"


def _is_any_name(text: str) -> bool:
    """Whether an experiment can have this name, deleted or not."""
    return is_name(text) or (text.startswith(HIDDEN) and is_uid(text.removeprefix(HIDDEN)))


def _test(table: str, column: str, kind: str) -> Callable[[Any], str] | None:
    """What tells the problem of a column's value, if it can have one that is not found elsewhere."""
    if (table, column) == ("experiment", "uid"):
        return lambda value: "" if is_uid(value.decode(errors="replace")) else "is no id"
    if (table, column) == ("experiment", "name"):
        return lambda value: "" if _is_any_name(value.decode(errors="replace")) else "is no name"
    if (table, column) == ("session", "timeline"):
        return _timeline_problem
    if (table, column) == ("experiment", "config"):
        return _config_problem
    if (table, column) in JSON_KINDS:
        expected = JSON_KINDS[table, column]
        return lambda value: _json_problem(value, expected)
    if kind == "REAL" and (column == "at" or column.endswith("_at")):
        return lambda value: "" if 0 <= value < LATEST else f"is no time: {value:g}"
    if kind == "REAL" and column.endswith("_s"):
        return lambda value: "" if 0 <= value < LONGEST_S else f"is no duration: {value:g}"
    if kind == "TEXT" and (table, column) != ("output", "text"):
        return _text_problem
    return None


def _text_problem(value: bytes) -> str:
    try:
        value.decode()
    except UnicodeDecodeError as error:
        return f"is no UTF-8 ({error.reason})"
    return ""


def _config_problem(value: bytes) -> str:
    if problem := _json_problem(value, dict):
        return problem
    parts = config_problems(json.loads(value))
    return f"has {', '.join(f'{name} that are {what}' for name, what in parts.items())}" if parts else ""


def _timeline_problem(value: bytes) -> str:
    """What is wrong with a session's timeline, whose rows are as `reading.timelines` gives them."""
    try:
        rows = json.loads(value.decode())  # of bytes it would guess the encoding
    except (ValueError, RecursionError):
        return _text_problem(value) or "is no JSON"
    if not isinstance(rows, list):
        return f"is a JSON {type(rows).__name__}"
    wrong = next((number for number, row in enumerate(rows, 1) if not _is_stretch(row)), None)
    return "" if wrong is None else f"has as entry {wrong:,} what is no stretch of a place's time"


def _is_stretch(row: Any) -> bool:
    if not isinstance(row, dict) or not all(isinstance(row.get(name), str) for name in NAMES):
        return False
    seconds: list[Any] = [value for name in SECONDS if type(value := row.get(name)) in (int, float)]
    if len(seconds) < len(SECONDS):
        return False
    since, *durations = seconds
    # Other hosts' clocks are set by ours, to some milliseconds: a stretch may seem to begin before all.
    return abs(since) < LONGEST_S and all(0 <= value < LONGEST_S for value in durations)


def _json_problem(value: bytes, expected: type) -> str:
    if problem := _text_problem(value):
        return problem
    try:
        found = json.loads(value.decode())
    except (ValueError, RecursionError):
        return "is no JSON"
    if not isinstance(found, expected):
        return f"is a JSON {type(found).__name__}"
    if isinstance(found, list) and (not found or not all(isinstance(name, str) for name in found)):
        return f"is no list of names: {value[:60].decode(errors='replace')}"
    return ""


NAMES, SECONDS = ("place", "name", "model"), ("start_s", "width_s", "seconds")
"""Texts and numbers of each entry of a session's timeline."""
JSON_KINDS: dict[tuple[str, str], type] = {
    ("model", "spec"): dict,
    ("session", "provenance"): dict,
    ("session", "config"): dict,
    ("run", "network"): list,
    ("diagram", "settings"): dict,
    ("measure", "settings"): dict,
    ("training", "config"): dict,
    ("training", "provenance"): dict,
    ("training", "measures"): dict,
}
