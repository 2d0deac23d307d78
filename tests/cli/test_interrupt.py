"""Signals, for real: a process is interrupted in the middle, watched from outside, and gone on with."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.patience import LONGEST_S, until

from .conftest import Invoke, read_terminal, write_config, write_slowed

COMMAND = [sys.executable, "-P", "-m", "panic"]
LONG = {"delay_s": 0.05, "max_length": 4000, "prompts": ["state 0"]}


@contextlib.contextmanager
def started(*arguments: object, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """`panic` in a process of its own, which is gone at the end."""
    command = [*COMMAND, *map(str, arguments)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def wait_until_running(panic: Invoke, process: subprocess.Popen[str]) -> dict[str, Any]:
    """The JSON of `panic status` as soon as some steps are stored."""
    status: dict[str, Any] = {}

    def has_begun() -> bool:
        done = panic("status", "--json")
        if done.exit_code == 0:
            status.update(json.loads(done.stdout))
        return status.get("invocations", 0) > 8

    until(has_begun, process)
    return status


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_interrupted_in_the_middle_then_resumed_equals_uninterrupted(
    panic: Invoke, tmp_path: Path, number: signal.Signals
) -> None:
    config = write_slowed(tmp_path, max_length=60, prompts=["state 0"])
    with started("run", config) as process:
        status = wait_until_running(panic, process)
        assert status["state"] == "running"
        assert status["pid"] == process.pid
        assert status["runs"]["total"] == 3
        assert status["eta_s"] > 0
        process.send_signal(number)
        _, errors = process.communicate(timeout=LONGEST_S)
        assert process.returncode == 130
    assert "Stopping after the batch in flight" in errors
    assert "Stopped; what was computed is stored." in errors
    assert "Traceback" not in errors
    status = json.loads(panic("status", "--json").stdout)
    assert (status["state"], status["pid"], status["eta_s"]) == ("interrupted", None, None)
    assert 8 < status["invocations"] < 180
    assert panic("check").exit_code == 0
    (tmp_path / "go").touch()
    done = panic("resume", "--trust")
    assert done.exit_code == 0, done.output
    panic("run", config, "--store", "uninterrupted")
    assert panic("dump").stdout == panic("dump", "--store", "uninterrupted").stdout
    assert json.loads(panic("list", "--json").stdout)[0]["state"] == "complete"


def deaf(*arguments: object, **options: Any) -> subprocess.Popen[bytes]:
    """`panic` in a process of its own, whose messages nobody reads."""
    ours, theirs = os.pipe()
    process = subprocess.Popen(
        [*COMMAND, *map(str, arguments)], stdout=subprocess.DEVNULL, stderr=theirs, **options
    )
    os.close(theirs)
    os.close(ours)
    return process


def test_work_goes_on_where_nobody_reads_messages_and_is_interrupted_there(
    panic: Invoke, tmp_path: Path
) -> None:
    """`panic run CONFIG 2>&1 | tee`: what ended tee, Ctrl-C too, ended the work, as a success."""
    with deaf("run", write_config(tmp_path, "long", **LONG), "--quiet") as process:
        wait_until_running(panic, process)
        process.send_signal(signal.SIGINT)
        assert process.wait(LONGEST_S) == 130
    assert json.loads(panic("status", "--json").stdout)["state"] == "interrupted"
    with deaf("run", write_config(tmp_path)) as process:
        assert process.wait(LONGEST_S) == 0
    assert json.loads(panic("status", "--json").stdout)["state"] == "complete"
    with deaf("run", tmp_path / "nothing.yaml") as process:
        assert process.wait(LONGEST_S) == 2


@pytest.mark.slow
def test_an_interrupt_leaves_out_the_configs_that_follow(panic: Invoke, tmp_path: Path) -> None:
    configs = [write_config(tmp_path, name, **LONG) for name in ("one", "two")]
    with started("run", *configs) as process:
        wait_until_running(panic, process)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=LONGEST_S)
        assert process.returncode == 130
    assert [row["name"] for row in json.loads(panic("list", "--json").stdout)] == ["one"]


def test_a_killed_run_is_interrupted_and_a_second_driver_is_refused(panic: Invoke, tmp_path: Path) -> None:
    config = write_config(tmp_path, **LONG)
    with started("run", config) as process:
        wait_until_running(panic, process)
        refused = panic("run", config)
        assert refused.exit_code == 1
        assert f"process {process.pid}" in refused.stderr
        for command in (["resume"], ["delete", "demo", "-y"]):
            refused = panic(*command)
            assert refused.exit_code == 1
            assert f"process {process.pid}" in refused.stderr
        process.kill()
        process.wait(timeout=LONGEST_S)
    assert json.loads(panic("status", "--json").stdout)["state"] == "interrupted"
    assert panic("show").exit_code == 0


def test_watch_looks_again_until_it_ends(panic: Invoke, tmp_path: Path) -> None:
    with started("run", write_slowed(tmp_path, max_length=60, prompts=["state 0"])) as process:
        wait_until_running(panic, process)
        threading.Timer(1.0, (tmp_path / "go").touch).start()
        done = panic("status", "--watch", "--interval", "0.1")
        assert done.exit_code == 0, done.output
        process.communicate(timeout=LONGEST_S)
        assert process.returncode == 0
    assert "complete" in done.stdout
    done = panic("status", "--watch", "--json")  # one line each time
    assert [json.loads(line)["state"] for line in done.stdout.splitlines()] == ["complete"]


def in_terminal(*arguments: object) -> tuple[int, str]:
    """Exit code and output of `panic` on a terminal of its own."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100", "LINES": "30"}
    process = subprocess.Popen(
        [*COMMAND, *map(str, arguments)], stdin=theirs, stdout=theirs, stderr=theirs, env=environment
    )
    os.close(theirs)
    answered = []

    def answer(seen: bytes) -> None:
        if b"Delete this? [y/N]:" in seen and not answered:
            answered.append(os.write(ours, b"n\n"))

    seen = read_terminal(ours, answer)
    return process.wait(timeout=LONGEST_S), re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen.decode())


def test_a_terminal_shows_bars(tmp_path: Path) -> None:
    code, seen = in_terminal("run", write_config(tmp_path, delay_s=0.1))
    assert code == 0, seen
    assert re.search(r"runs +━+ +6/6", seen)
    assert re.search(r"embeddings +━+ +(\d+)/\1\b", seen)
    assert "model time: draw" in seen
    assert "demo is complete" in seen


def test_delete_asks_on_a_terminal(panic: Invoke, store: Path) -> None:
    code, seen = in_terminal("delete", "demo")
    assert code == 0, seen
    assert "Nothing was deleted." in seen
    assert "demo" in panic("list").stdout


def in_shell(line: str) -> subprocess.CompletedProcess[str]:
    """What bash makes of `panic LINE`."""
    return subprocess.run(
        ["bash", "-c", f"set -o pipefail; {' '.join(COMMAND)} {line}"],
        capture_output=True,
        text=True,
        timeout=LONGEST_S,
    )


def test_a_reader_that_leaves_early_is_no_error(store: Path) -> None:
    done = in_shell("dump | head -n 1")
    assert done.stdout.count("\n") == 1
    assert (done.returncode, done.stderr) == (0, "")
    done = in_shell("list | true")  # drawn by rich
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a disk that is always full")
@pytest.mark.parametrize("command", ["dump", "list"])
def test_a_full_disk_is_told_in_one_line(store: Path, command: str) -> None:
    done = in_shell(f"{command} > /dev/full")
    assert (done.returncode, done.stderr) == (1, "Error: No space left on device\n")
