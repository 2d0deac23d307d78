"""run.sh for real: in the foreground and detached, from another directory, with good and with bad input.

The environment is the one that runs the tests (PANIC_VENV), so nothing is installed.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from panic import Store
from panic.errors import PanicError
from panic.store import reading
from tests.patience import LONGEST_S, until

ROOT = Path(__file__).parents[2]
CONFIG = """\
name: {name}
project: colours
networks: [[draw, chain]]
models:
  draw: {{base: synthetic/text-to-image, states: 5, size: 32, delay_s: {delay_s}}}
  chain: {{base: synthetic/image-to-text, states: 5, epsilon: 0.5}}
prompts: [state 0]
seeds: [-1]
max_length: {max_length}
device: cpu
"""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A working directory with a space in its name; what still runs in the end is stopped."""
    folder = tmp_path / "my experiments"
    folder.mkdir()
    yield folder
    if (folder / "logs").exists():
        run(folder, "--stop")


def config(folder: Path, name: str, *, delay_s: float = 0.0, max_length: int = 6) -> str:
    """The file name of a new config in the folder."""
    (folder / f"{name}.yaml").write_text(CONFIG.format(name=name, delay_s=delay_s, max_length=max_length))
    return f"{name}.yaml"


def variables(folder: Path) -> dict[str, str]:
    """The environment of run.sh."""
    ours = {key: value for key, value in os.environ.items() if key != "PANIC_STORE"}
    return ours | {"PANIC_VENV": sys.prefix, "PANIC_LOGS": str(folder / "logs"), "PYTHONPATH": str(ROOT)}


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(ROOT / "run.sh"), *arguments],
        capture_output=True,
        text=True,
        cwd=folder,
        env=variables(folder),
        timeout=250,
    )


def experiments(folder: Path) -> dict[str, str]:
    """Name and state of each experiment in the folder's store."""
    done = subprocess.run(
        [sys.executable, "-m", "panic", "list", "--json", "--store", str(folder / "panic-store")],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=250,
        check=True,
    )
    return {row["name"]: row["state"] for row in json.loads(done.stdout)}


def wait_until_nothing_runs(folder: Path) -> str:
    said: list[str] = []

    def is_over() -> bool:
        said.append(run(folder, "--status").stdout)
        return "Nothing runs" in said[-1]

    until(is_over)
    return said[-1]


def wait_until_known(folder: Path, name: str) -> None:
    """Until the store has an experiment of this name."""

    def is_known() -> bool:
        with contextlib.suppress(PanicError), Store(folder / "panic-store") as store:
            return name in [row.name for row in reading.experiments(store)]
        return False

    until(is_known)


def test_wait_performs_in_the_foreground_relative_to_the_callers_directory(folder: Path) -> None:
    done = run(folder, "--wait", config(folder, "here"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert experiments(folder) == {"here": "complete"}


def test_detached_experiments_are_performed_one_after_another(folder: Path) -> None:
    started = run(folder, config(folder, "one"), config(folder, "two"))
    assert started.returncode == 0, started.stdout + started.stderr
    assert re.search(r"PID \d+", started.stdout)
    log = Path(re.search(r"Log: +(.*)", started.stdout)[1])  # type: ignore[index]
    assert re.fullmatch(r"colours_run_\d{8}-\d{6}\.log", log.name)
    assert str(log) in wait_until_nothing_runs(folder)
    assert experiments(folder) == {"one": "complete", "two": "complete"}, log.read_text()


def test_status_and_stop_see_a_detached_experiment(folder: Path) -> None:
    started = run(folder, config(folder, "long", delay_s=0.1, max_length=5000))
    pid = int(re.search(r"PID (\d+)", started.stdout)[1])  # type: ignore[index]
    status = run(folder, "--status").stdout
    assert f"PID {pid}: long.yaml" in status
    wait_until_known(folder, "long")
    stopped = run(folder, "--stop")
    assert stopped.returncode == 0, stopped.stdout
    assert f"Asked PID {pid} to stop" in stopped.stdout
    # Where nobody reaps orphans, the remains of a process keep its PID.
    with contextlib.suppress(psutil.NoSuchProcess):
        assert psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    assert run(folder, "--stop").stdout == "Nothing runs in the background.\n"
    [log] = (folder / "logs").glob("*.log")
    assert "Traceback" not in log.read_text()
    assert experiments(folder)["long"] != "complete"


def test_a_job_that_dies_at_once_is_no_success(folder: Path) -> None:
    long = config(folder, "long", delay_s=0.1, max_length=5000)
    assert run(folder, long).returncode == 0
    wait_until_known(folder, "long")
    second = run(folder, config(folder, "other"))
    assert second.returncode == 1
    assert "is being written by process" in second.stdout
    assert "Started" not in second.stdout
    run(folder, "--stop")
    assert not list((folder / "logs").glob("*.pid"))


@pytest.mark.slow
def test_a_job_that_dies_late_is_no_success_either(folder: Path) -> None:
    """After ten seconds it counted as started, and on a busy machine it takes as long to refuse a store."""
    late = folder / "late" / "bin" / "python"
    late.parent.mkdir(parents=True)
    die_late = 'case "$*" in *dry-run*) ;; *"panic run"*) until [ -e go ]; do sleep 0.1; done; exit 3;; esac'
    late.write_text(f'#!/bin/sh\n{die_late}\nexec "{sys.executable}" "$@"\n')
    late.chmod(0o755)
    command = [str(ROOT / "run.sh"), config(folder, "one")]
    given = variables(folder) | {"PANIC_VENV": str(folder / "late")}
    with (folder / "told").open("w") as told:
        process = subprocess.Popen(command, cwd=folder, env=given, stdout=told, stderr=subprocess.STDOUT)
    try:
        until(lambda: "is getting ready" in (folder / "told").read_text(), process)
    finally:
        (folder / "go").touch()
    assert process.wait(LONGEST_S) == 1
    assert "It failed before its first step (code 3)" in (folder / "told").read_text()
    assert "Started" not in (folder / "told").read_text()


def test_stop_leaves_a_process_alone_that_has_only_the_same_pid(folder: Path) -> None:
    with subprocess.Popen(["sleep", "600"]) as other:
        (folder / "logs").mkdir()
        (folder / "logs" / "old_run_20200101-000000.pid").write_text(
            f"{other.pid}\n12345\n{socket.gethostname()}\nold.yaml\n"
        )
        assert run(folder, "--stop").stdout == "Nothing runs in the background.\n"
        assert other.poll() is None
        other.kill()


def test_mistakes_in_a_config_show_before_anything_starts(folder: Path) -> None:
    good = config(folder, "good")
    (folder / "bad.yaml").write_text(CONFIG.format(name="bad", delay_s=0, max_length=0))
    refused = run(folder, good, "bad.yaml")
    assert refused.returncode == 2
    assert "bad.yaml:" in refused.stdout + refused.stderr
    assert "max_length" in refused.stdout + refused.stderr
    assert not list(folder.glob("logs/*"))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["absent.yaml"], "There is no file absent.yaml"),
        (["--wait"], "Name at least one config"),
        (["--stauts"], "Unknown option --stauts"),
        (["--wait", "--quick"], "Unknown option --quick"),
    ],
)
def test_mistakes_in_the_command_exit_2(folder: Path, arguments: list[str], says: str) -> None:
    refused = run(folder, *arguments)
    assert refused.returncode == 2
    assert says in refused.stderr
    assert "Traceback" not in refused.stderr


def test_help_and_status_need_no_environment(folder: Path) -> None:
    for arguments, says in (["--help"], "--wait CONFIG"), (["--status"], "Nothing runs"):
        done = subprocess.run(
            [str(ROOT / "run.sh"), *arguments],
            capture_output=True,
            text=True,
            env={"PATH": os.environ["PATH"], "PANIC_VENV": str(folder), "PANIC_LOGS": str(folder / "logs")},
            timeout=250,
        )
        assert done.returncode == 0, done.stderr
        assert says in done.stdout
