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
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from panic import Store
from panic.errors import PanicError
from panic.store import reading

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


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    variables = {key: value for key, value in os.environ.items() if key != "PANIC_STORE"}
    variables |= {"PANIC_VENV": sys.prefix, "PANIC_LOGS": str(folder / "logs"), "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [str(ROOT / "run.sh"), *arguments],
        capture_output=True,
        text=True,
        cwd=folder,
        env=variables,
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


def wait_until_nothing_runs(folder: Path, timeout_s: float = 200) -> str:
    deadline = time.monotonic() + timeout_s
    while "Nothing runs" not in (text := run(folder, "--status").stdout):
        assert time.monotonic() < deadline, text
        time.sleep(0.3)
    return text


def wait_until_known(folder: Path, name: str, timeout_s: float = 200) -> None:
    """Until the store has an experiment of this name."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        with contextlib.suppress(PanicError), Store(folder / "panic-store") as store:
            if name in [row.name for row in reading.experiments(store)]:
                return
        time.sleep(0.2)
    raise AssertionError(f"{name} did not begin in {timeout_s} s")


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


def test_stop_leaves_a_process_alone_that_has_only_the_same_pid(folder: Path) -> None:
    with subprocess.Popen(["sleep", "60"]) as other:
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
            timeout=30,
        )
        assert done.returncode == 0, done.stderr
        assert says in done.stdout
