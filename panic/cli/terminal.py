r"""The one place that makes text safe for terminals and log files.

Prompts, captions, names and messages come from configs, models and stores of other people, and a terminal
obeys what is written into them: ESC sequences rename windows and hide lines, a carriage return overwrites
what stands before it, U+202E turns what follows around. `visible` shows such characters as Python writes
them. Everything that people read passes it: consoles (`render.console`), single lines and errors (`say`),
log records (`logs.SafeFormatter`). JSON and YAML stay exact, since the same characters become escapes of
their own there; Parquet keeps the characters.

    >>> visible("red\x1b[2Jcircle\u202e")
    'red\\x1b[2Jcircle\\u202e'
"""

from __future__ import annotations

import json
import sys
import traceback
import unicodedata
from collections.abc import Callable

import typer

OBEYED = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Unicode's categories of controls, invisible formats, halves of characters and separators of lines."""
HARMLESS = frozenset("\n\t\u200c\u200d")
"""What is kept of them: lines, tabs, and the joiners that scripts and emoji are written with."""


def _python_escape(character: str) -> str:
    """Return a character as Python and YAML write it within double quotes."""
    return character.encode("unicode_escape").decode()


def _json_escape(character: str) -> str:
    return json.dumps(character)[1:-1]


def visible(text: str, escape: Callable[[str], str] = _python_escape) -> str:
    """Return a text in which every character that a terminal might obey is written as an escape."""
    if text.isprintable():
        return text
    return "".join(escape(c) if unicodedata.category(c) in OBEYED and c not in HARMLESS else c for c in text)


def visible_json(text: str) -> str:
    """Return JSON in which the same characters are escaped as JSON does it: it still means the same."""
    escaped = visible(text, _json_escape)
    return escaped.replace("\x7f", "\\u007f")  # json leaves DEL as it is


def say(text: str, *, err: bool = False) -> None:
    """Print a text that may hold anything as a line on stdout or stderr."""
    typer.echo(visible(text), err=err)


def say_traceback(error: BaseException) -> None:
    """Print an exception with its traceback on stderr."""
    sys.stderr.write(visible("".join(traceback.format_exception(error))))
