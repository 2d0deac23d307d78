"""No line of prose is longer than 120 columns: comments and docstrings of the code, and all documents.

Rows of tables, what stands between fences, and lines with an address are no prose. Only files that git knows
count, so that nobody's notes beside them can fail this.
"""

from __future__ import annotations

import ast
import io
import subprocess
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MAX_COLUMNS = 120


def committed(pattern: str) -> list[Path]:
    """The files of a pattern that git knows and that are there."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--", pattern], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def prose_of_document(text: str) -> Iterator[tuple[int, str]]:
    """Numbered lines of Markdown outside of fences and tables."""
    is_code = False
    for number, line in enumerate(text.splitlines(), start=1):
        if line.lstrip().startswith("```"):
            is_code = not is_code
        elif not is_code and not line.lstrip().startswith("|"):
            yield number, line


def prose_of_code(source: str) -> Iterator[tuple[int, str]]:
    """Numbered lines of Python that hold a comment or a part of a docstring; none where no line is long."""
    lines = source.splitlines()
    if max(map(len, lines), default=0) <= MAX_COLUMNS:
        return
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string
    for node in ast.walk(ast.parse(source)):  # texts that stand alone: docstrings, also those of constants
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            end = node.end_lineno or node.lineno
            if isinstance(node.value.value, str):
                yield from enumerate(lines[node.lineno - 1 : end], start=node.lineno)


def too_long(lines: Iterator[tuple[int, str]]) -> list[int]:
    """The numbers of lines that are too long and hold no address."""
    return [number for number, line in lines if len(line) > MAX_COLUMNS and "://" not in line]


@pytest.mark.parametrize(("pattern", "prose"), [("*.md", prose_of_document), ("*.py", prose_of_code)])
def test_no_line_of_prose_is_too_long(pattern: str, prose) -> None:
    files = committed(pattern)
    assert len(files) > 10
    found = {
        str(path.relative_to(ROOT)): numbers
        for path in files
        if (numbers := too_long(prose(path.read_text(encoding="utf-8"))))
    }
    assert found == {}


def test_the_rule_of_prose_can_fail() -> None:
    long = "word " * 30
    document = f"{long}\n| {long} |\n```\n{long}\n```\nshort\n- {long}\nhttps://example.org/{'x' * 130}\n"
    assert too_long(prose_of_document(document)) == [1, 7]
    code = f'"""Short.\n\n{long}\n"""\ntext = """{long}"""\nx = 1  # {long}\nNAME = 2\n"""{long}"""\n'
    assert sorted(too_long(prose_of_code(code))) == [3, 6, 8]
