"""Configs and stores with random mistakes: an answer each time, never an exception of another kind."""

from __future__ import annotations

import json
import os
import random
import shutil
import sqlite3
from collections import Counter
from copy import deepcopy
from functools import cache, partial
from pathlib import Path
from typing import Any

import typer
import yaml
from typer.testing import CliRunner

from panic.cli.app import app
from panic.engine.plan import load_config
from panic.errors import PanicError
from panic.store import Store, check, contents, reading
from panic.store.dump import dump
from tests.faults import experiment as tried

PIECES = [
    *("", "\x00", "\x1b[2J", "\u202e", "[", "]", "{", "}", ": ", "#", "&a ", "*a", "<<: "),
    *("!!python/object:os.system ", "'", '"', "\t", "\n", "\r", "- ", "-1", "1e999", "0x" + "f" * 5000),
    *("null", "~", "../../x", "/etc/passwd", "python:x.py:X", "latest", "\ud7ff", "é" * 200, "[" * 200),
]
VALUES: list[Any] = [
    *(None, True, 0, -1, 2**63, 2**70, 1e308, "", " ", "x", [], [[]], {}, {"a": {}}, [None], ["x", "x"])
]
CONFIGS = 40
LINES = 20
"""Of one case."""
QUICK = [
    *("list", "status", "show", "stuck", "images", "dump", "check", "delete", "models", "completion", "run")
]
LINE_VALUES = [
    *("latest", "faults", "1", "99", "0", "-5", "1e9", "x.png", "config.yaml", "KEY=1", "max_length=2")
]
MISFITS = 40
LEFT_OUT = ("view", "report", "evaluate", "train", "optimize", "diagrams", "verify", "cache")
"""What takes seconds with any values, goes on until it is stopped, or is of the machine."""
MISFITTING = [
    *("", "-", "folder", "fifo", "/dev/zero", "/dev/full", "nul", "loop", "..", "/", "9" * 5000, "-1", "-0"),
    *(
        "nan",
        "inf",
        "1e999",
        "n" * 300,
        "x" * 70_000,
        os.fsdecode(b"\xff\xfe"),
        "a\x1b[2Jb",
        "\u202e",
        "a\nb",
    ),
    *("~nobody/x", "%s", "{}", "'", ",", "=", "a=b", "\u00b2", "1_0", "0x10", "config.yaml", "latest"),
]
FITTING = {"config": "config.yaml", "configs": "config.yaml", "question": "time", "kinds": "shuffled"} | {
    "query": "state", "shell": "bash", "source": "panic-store", "sources": "panic-store"
}  # fmt: skip
COMMANDS = [
    *(["list"], ["status"], ["stuck"], ["check"], ["dump"], ["cache", "stats"], ["show", "--run", "1"]),
    *(["show"], ["show", "--config"], ["images", "--run", "1", "-o", "OUT"], ["resume", "--dry-run"]),
    *(["delete", "faults", "-y"],),
]
"""What answers within a second of a store, whatever is in it."""


def configs(folder: Path, chance: random.Random, whole: Path) -> str:
    """Configs with characters and parts changed, as YAML, JSON and TOML-like text."""
    good = 0
    before = sorted(folder.iterdir())
    for number in range(CONFIGS):
        text, suffix = _broken_config(chance)
        file = folder / f"config{number}{suffix}"
        file.write_text(text, encoding="utf-8", errors="surrogatepass")
        try:
            load_config(file)
            good += 1
        except PanicError:
            pass  # an answer
        finally:
            file.unlink()
    assert sorted(folder.iterdir()) == before, "something was written"
    return f"{CONFIGS} configs, {good} of them valid"


def _broken_config(chance: random.Random) -> tuple[str, str]:
    values = json.loads(json.dumps(tried.CONFIG))
    for _ in range(chance.randint(0, 3)):
        _change(values, chance)
    suffix = chance.choice([".yaml", ".json", ".toml"])
    text = yaml.safe_dump(values) if suffix == ".yaml" else json.dumps(values, indent=1)
    if suffix == ".toml":
        text = "\n".join(f"{key} = {json.dumps(value)}" for key, value in values.items())
    for _ in range(chance.randint(0, 3)):
        at = chance.randrange(len(text))
        text = text[:at] + chance.choice(PIECES) + text[at + chance.randint(0, 3) :]
    return text, suffix


def _change(values: Any, chance: random.Random) -> None:
    """Change, remove or add one part somewhere in a tree."""
    while True:
        keys = list(values) if isinstance(values, dict) else list(range(len(values)))
        if not keys:
            return
        key = chance.choice(keys)
        if isinstance(values[key], dict | list) and chance.random() < 0.6:
            values = values[key]
            continue
        match chance.randrange(3):
            case 0:
                values[key] = deepcopy(chance.choice(VALUES))  # a case must not change the next one
            case 1:
                del values[key]
            case _ if isinstance(values, dict):
                values[chance.choice(["x", "", "nmae", key + "s", "\x1b"])] = deepcopy(values[key])
            case _:
                values.append(deepcopy(values[key]))
        return


def command_lines(folder: Path, chance: random.Random, whole: Path) -> str:
    """Commands with options and values at random: an answer each time, and nothing outside of the folder."""
    copy = folder / "store"
    shutil.copytree(whole, copy)
    before, around = Path.cwd(), sorted(folder.parent.iterdir())
    os.chdir(folder)
    codes: Counter[int] = Counter()
    try:
        for _ in range(LINES):
            line = _command_line(chance)
            done = CliRunner().invoke(app, [*line, "--store", str(copy)])
            assert done.exit_code in (0, 1, 2), (line, done.exit_code)
            assert "-v shows the traceback" not in done.stderr, (line, done.stderr[-500:])
            codes[done.exit_code] += 1
    finally:
        os.chdir(before)
    assert sorted(folder.parent.iterdir()) == around, "something was written outside"
    return f"{LINES} command lines, exit codes {dict(codes)}"


def _command_line(chance: random.Random) -> list[str]:
    """A command that answers at once, with some of its options and values that may be wrong."""
    commands = click_commands()
    name = chance.choice(QUICK)
    line = [name]
    for parameter in commands[name].params:
        if chance.random() < 0.6:
            continue
        value = chance.choice([*PIECES, *LINE_VALUES]).replace("\x00", "")
        if parameter.param_type_name == "argument":
            line.append(value)
        elif parameter.name != "store":
            is_flag = getattr(parameter, "is_flag", False)
            line += [chance.choice(parameter.opts), *([] if is_flag and chance.random() < 0.9 else [value])]
    return line


def values(folder: Path, chance: random.Random, whole: Path) -> str:
    """Most commands with values that no option or argument of them is made for: an answer each time."""
    here = folder / "here"
    shutil.copytree(whole, here / "panic-store")
    (here / "folder").mkdir()
    (here / "nul").write_bytes(b"\0" * 3000)
    (here / "config.yaml").write_text(yaml.safe_dump(tried.CONFIG))
    os.mkfifo(here / "fifo")
    (here / "loop").symlink_to("loop")
    before, around, environment = Path.cwd(), sorted(folder.iterdir()), dict(os.environ)
    os.chdir(here)
    codes: Counter[int] = Counter()
    try:
        for name in [name for name in environment if name.startswith("PANIC_")]:
            del os.environ[name]  # or a store of the user's would be what is found
        os.environ |= {name: str(here / "user") for name in ("XDG_CONFIG_HOME", "XDG_CACHE_HOME")}
        for _ in range(MISFITS):
            line = _misfit(chance)
            done = CliRunner().invoke(app, line)
            told = [part[:60] for part in line]
            assert done.exit_code in (0, 1, 2), (told, done.exit_code, done.exception)
            assert "-v shows the traceback" not in done.stderr, (told, done.stderr[-500:])
            assert done.exit_code == 0 or done.output.strip(), (told, "says nothing")
            assert done.output.replace("\n", "").replace("\t", "").isprintable(), (told, done.output[-500:])
            assert sorted(folder.iterdir()) == around, (told, "something was written outside")
            codes[done.exit_code] += 1
    finally:
        os.chdir(before)
        os.environ.clear()
        os.environ.update(environment)
    return f"{MISFITS} command lines with one value that does not fit, exit codes {dict(codes)}"


def _misfit(chance: random.Random) -> list[str]:
    """A command whose arguments fit, but for one option or argument."""
    commands = click_commands()
    name = chance.choice([name for name in commands if name not in LEFT_OUT])
    parameters = [one for one in commands[name].params if not getattr(one, "is_flag", False)]
    odd = chance.choice([one.name for one in parameters])
    line, arguments = [name], []
    for parameter in commands[name].params:
        value = chance.choice(MISFITTING) if parameter.name == odd else FITTING.get(parameter.name, "latest")
        if parameter.param_type_name == "argument":
            arguments += [value] if parameter.required or parameter.name == odd else []
        elif parameter.name == odd:
            line += [parameter.opts[0], value]
        elif "--dry-run" in parameter.opts:
            line.append("--dry-run")
    return [*line, "--", *arguments]


@cache
def click_commands() -> dict[str, Any]:
    """All commands by name."""
    group: Any = typer.main.get_command(app)
    return dict(group.commands)


def stores(folder: Path, chance: random.Random, whole: Path) -> str:
    """A store with bits flipped or values changed: checked, dumped and read, with an answer each time."""
    copy = folder / "store"
    shutil.copytree(whole, copy)
    what = _flip_bits(copy, chance) if chance.random() < 0.5 else _change_value(copy, chance)
    command = chance.choice(COMMANDS)
    for action in (_check, _dump, _read, partial(_command, command)):
        try:
            action(copy)
        except PanicError:
            pass  # an answer
        except Exception as error:
            raise AssertionError(
                f"{what}, then {getattr(action, '__name__', command)}: {type(error).__name__}: {error}"
            ) from error
    return f"{what}; panic {' '.join(command)}"


def _flip_bits(store: Path, chance: random.Random) -> str:
    file = store / chance.choice(["store.sqlite", "images.sqlite"])
    data = bytearray(file.read_bytes())
    places = [chance.randrange(len(data)) for _ in range(chance.choice([1, 1, 10, 1000]))]
    for place in places:
        data[place] ^= 1 << chance.randrange(8)
    file.write_bytes(data)
    return f"{len(places)} bits of {file.name} flipped"


def _change_value(store: Path, chance: random.Random) -> str:
    with sqlite3.connect(store / "store.sqlite") as connection:
        connection.execute("PRAGMA ignore_check_constraints=ON")
        tables = [
            name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")
        ]
        table = chance.choice([name for name in tables if not name.startswith("sqlite_")])
        column = chance.choice([row[1] for row in connection.execute(f"PRAGMA table_info({table})")])
        value = chance.choice([None, -1, 0, 2**62, 1e300, "", "[]", "{", "x\x00y", b"", b"\xff" * 7])
        try:
            connection.execute(f"UPDATE {table} SET {column} = ?", (value,))
        except sqlite3.Error as error:
            return f"{table}.{column} = {value!r} is refused: {error}"
    connection.close()
    return f"{table}.{column} = {value!r}"


def _check(store: Path) -> None:
    with Store(store) as opened:
        check.check(opened)


def _dump(store: Path) -> None:
    with Store(store) as opened:
        for line in dump(opened):
            json.dumps(line)


def _read(store: Path) -> None:
    with Store(store) as opened:
        reading.models(opened)
        for row in reading.experiments(opened):
            for run in reading.runs(opened, row.id):
                contents.invocations(opened, run.id)
            reading.sessions(opened, row.id)
            reading.timelines(opened, row.id)
            reading.epochs(opened, row.id)
            contents.diagrams(opened, row.id)


def _command(arguments: list[str], store: Path) -> None:
    """A command answers with its exit code and no exception that it does not know."""
    arguments = [argument.replace("OUT", str(store / "reports" / "x.png")) for argument in arguments]
    done = CliRunner().invoke(app, [*arguments, "--store", str(store)])
    assert done.exit_code in (0, 1, 2), done.exit_code
    assert "-v shows the traceback" not in done.stderr, done.stderr[-500:]
