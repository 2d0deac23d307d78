"""One style for all that the command line says, and output on every kind of terminal."""

from __future__ import annotations

import ast
import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import typer

from panic import load_config
from panic.cli.app import COMMANDS, app
from panic.cli.progress import steady
from panic.cli.topics import TOPICS
from panic.config.problems import Source
from panic.config.sources import parse
from panic.errors import ConfigError
from tests.cli.conftest import ROOT, Invoke, read_terminal

TREE = typer.main.get_command(app)
ERRORS = {
    *("UsageError", "ConflictError", "NotFound", "PanicError", "StoreError", "ModelError", "FilterError"),
    *("StoreMissing", "StoreReadOnly", "StoreLocked", "ModelMissing", "Interrupted", "BudgetSpent"),
}


def commands(tree: Any = TREE, above: str = "panic") -> Iterator[tuple[str, Any]]:
    for name in tree.commands:
        child = tree.commands[name]
        yield f"{above} {name}", child
        if hasattr(child, "commands"):
            yield from commands(child, f"{above} {name}")


def test_every_help_is_sentences() -> None:
    for name, command in commands():
        text = " ".join((command.help or "").split())
        assert re.match(r"[A-Z\"]", text), f"{name}: {text[:40]!r}"
        first = (command.help or "").strip().split("\n\n")[0]
        assert first.rstrip()[-1] in ".:", f"{name}: {first!r}"
    for name, (_, sentence) in COMMANDS.items():
        assert sentence[0].isupper(), name
        assert sentence.endswith("."), name


def test_every_option_is_explained_in_a_sentence_and_names_its_value_in_capitals() -> None:
    for name, command in commands():
        for parameter in command.params:
            if parameter.name == "help" or getattr(parameter, "hidden", False):
                continue
            text, where = parameter.help or "", f"{name} {parameter.name}"
            assert text, f"{where} is not explained"
            assert text[0].isupper() or not text[0].isalpha() or text.split()[0].endswith(","), where
            assert text.rstrip("`)\"'").endswith((".", "?")), f"{where}: {text!r}"
            if parameter.metavar:
                word = re.sub(r"\.[a-z]+|[^A-Za-z]", "", parameter.metavar)
                assert word.isupper(), f"{where}: {parameter.metavar}"


def raised(path: Path) -> Iterator[tuple[int, str, ast.expr]]:
    """(line, what, text) of messages and hints of errors that a module raises itself."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ERRORS:
            if node.args:
                yield node.lineno, "message", node.args[0]
            for keyword in node.keywords:
                if keyword.arg == "hint":
                    yield node.lineno, "hint", keyword.value


def ends_of(text: ast.expr) -> Iterator[tuple[str, str]]:
    """(first, last) literal parts of a text, "" where a value stands there; of both sides of a choice."""
    if isinstance(text, ast.IfExp):
        yield from ends_of(text.body)
        yield from ends_of(text.orelse)
    elif isinstance(text, ast.Constant) and isinstance(text.value, str) and text.value:
        yield text.value, text.value
    elif isinstance(text, ast.JoinedStr) and text.values:
        one, other = text.values[0], text.values[-1]
        yield tuple(str(p.value) if isinstance(p, ast.Constant) else "" for p in (one, other))  # type: ignore[misc]


@pytest.mark.parametrize("path", sorted((ROOT / "panic" / "cli").glob("*.py")), ids=lambda path: path.name)
def test_errors_are_sentences_with_a_full_stop(path: Path) -> None:
    for line, what, text in raised(path):
        for first, last in ends_of(text):
            if first and first[0].isalpha() and what == "message":
                assert first[0].isupper() or first.split()[0] in {"panic"}, f"{path.name}:{line}: {first!r}"
            if last and not (what == "hint" and first.startswith(("panic ", "-"))):  # a command to copy
                assert last.rstrip("`)\"'\n").endswith((".", "?", ":", "!")), f"{path.name}:{line}: {last!r}"


# --- topics


def test_every_topic_is_a_text_that_80_columns_take(panic: Invoke) -> None:
    for topic in TOPICS:
        done = panic("help", topic)
        assert done.exit_code == 0, done.output
        assert done.stdout.startswith(topic.upper())
        assert max(map(len, done.stdout.splitlines())) <= 80, topic
        for name in re.findall(r"`?panic ([a-z]+)\b", done.stdout):
            assert name in COMMANDS, f"{topic}: panic {name}"
    assert {path.stem for path in (ROOT / "panic" / "cli" / "help").glob("*.txt")} == set(TOPICS)
    assert panic("help").stdout.count("\n") == len(TOPICS)
    for topic, told in (("confgs", "Did you mean configs?"), ("run", "panic run --help"), ("x", "There are")):
        done = panic("help", topic)
        assert (done.exit_code, told in done.stderr) == (2, True)


def test_the_configs_of_the_help_are_configs(panic: Invoke, tmp_path: Path) -> None:
    text = panic("help", "configs").stdout
    config = "\n".join(line[4:] for line in text.splitlines() if line.startswith("    "))
    (tmp_path / "demo.yaml").write_text(config[: config.index("panic run")])
    assert load_config(tmp_path / "demo.yaml").repeats == 4


# --- terminals


def on_terminal(*arguments: object, columns: int = 80, **environment: str) -> str:
    """What a command writes to a terminal of so many columns."""
    main, other = pty.openpty()
    clean = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "COLUMNS", "FORCE_COLOR")}
    process = subprocess.Popen(
        [sys.executable, "-m", "panic", *map(str, arguments)],
        stdin=other, stdout=other, stderr=other,
        env={**clean, "TERM": "xterm-256color", "COLUMNS": str(columns), **environment},
    )  # fmt: skip
    os.close(other)
    seen = read_terminal(main)
    process.wait()
    return seen.decode()


@pytest.mark.slow
def test_terminals_of_every_kind(store: Path) -> None:
    coloured = on_terminal("list", "--store", store)
    assert "\x1b[" in coloured
    for environment in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
        plain = on_terminal("list", "--store", store, **environment)
        assert not re.search(r"\x1b\[[0-9;]*3[0-9]", plain), environment  # no colours
        assert "demo" in plain
    for command in (["list"], ["show", "demo"], ["config"], ["requirements", "demo"]):
        lines = on_terminal(*command, "--store", store, NO_COLOR="1").replace("\r", "").split("\n")
        longest = max(len(re.sub(r"\x1b\[[0-9;]*m", "", line)) for line in lines)
        assert longest <= 80 or command[0] == "requirements", (command, longest)


@pytest.mark.slow
def test_a_terminal_without_utf_8_gets_escapes_and_no_traceback(store: Path) -> None:
    for command in (["show", "demo"], ["help", "configs"], ["config"]):
        said = on_terminal(*command, "--store", store, PYTHONIOENCODING="ascii", LC_ALL="C", PYTHONUTF8="0")
        assert "Traceback" not in said
        assert said.isascii()


def test_an_estimate_changes_at_most_once_a_second() -> None:
    now = [0.0]
    show = steady(lambda: now[0])
    shown = []
    for tick in range(50):  # five seconds
        now[0] = tick / 10
        shown.append(show(100.0 - tick))
    changes = sum(a != b for a, b in pairwise(shown))
    assert 3 <= changes <= 5
    assert steady(lambda: 0.0)(None) is None


# --- configs


def test_json_configs_may_have_comments(panic: Invoke, tmp_path: Path) -> None:
    text = """{
  // what it is called; "quotes" here are no text
  "name": "x // no comment", /* several
  lines */ "url": "http://a/*b*/"
}
"""
    document = parse(Source(name="x.json", text=text), "JSON")
    assert document.data == {"name": "x // no comment", "url": "http://a/*b*/"}
    place = document.values[("url",)]
    assert (place.line, text[place.start : place.end]) == (4, '"http://a/*b*/"')
    for wrong in ("{ /* never closed", "/", '{"a": 1 / 2}'):
        with pytest.raises(ConfigError, match="not valid JSON"):
            parse(Source(name="x.json", text=wrong), "JSON")
    parse(Source(name="x.json", text="{}" + "/* " * 200_000), "JSON")  # at once, not in hours


def test_nu_is_nushell(panic: Invoke) -> None:
    assert panic("completion", "nu").stdout == panic("completion", "nushell").stdout
