"""A small experiment that has every stage, performed in a child process that faults are injected into."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil

from panic import run
from panic.config import ExperimentConfig
from panic.errors import StoreMissing, StoreTooOld
from panic.store import Store, check, reading
from panic.store.dump import dump
from tests.patience import LONGEST_S

CHILD = """
import sys
from panic import run
from panic.config import ExperimentConfig
from panic.errors import Interrupted, PanicError
try:
    run(ExperimentConfig.model_validate_json(sys.argv[1]), sys.argv[2])
except Interrupted:
    sys.exit(130)
except (PanicError, OSError) as error:
    print(error, file=sys.stderr)
    sys.exit(1)
"""
CONFIG: dict[str, Any] = {
    "name": "faults",
    "networks": [["draw", "chain"]],
    "models": {
        "draw": {"base": "synthetic/text-to-image", "states": 12, "size": 16, "delay_s": 0.004},
        "chain": {
            "base": "synthetic/image-to-text",
            "states": 12,
            "kernel": "cycle",
            "epsilon": 0.3,
            "delay_s": 0.004,
        },
        "circle": {"base": "synthetic/state-embedding", "states": 12, "delay_s": 0.02},
    },
    "prompts": [f"prompt {number}" for number in range(4)],
    "seeds": [1, -1],
    "max_length": 60,
    "embeddings": ["circle"],
    "diagrams": {"max_dimension": 1},
    "vectorisations": ["entropy"],
    "distances": ["wasserstein"],
    "device": "cpu",
    "batch_sizes": {"draw": 4, "chain": 4},
    "diagram_workers": 1,
}


def config(**changes: Any) -> ExperimentConfig:
    """The experiment with some fields changed."""
    return ExperimentConfig.model_validate({**CONFIG, **changes})


def start(wanted: ExperimentConfig, store: Path, prefix: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    """Perform it in a process group of its own; `prefix` is a command that the interpreter is given to."""
    text = json.dumps(wanted.model_dump(mode="json"))
    return subprocess.Popen(
        [*prefix, sys.executable, "-c", CHILD, text, str(store)],
        stderr=subprocess.PIPE,
        env=dict(os.environ),
        start_new_session=True,
        text=True,
    )


def wait_for_work(store: Path, process: subprocess.Popen[str]) -> None:
    """Wait until the child has taken the store's lock, so that faults hit the work and not the imports."""
    end = time.monotonic() + LONGEST_S
    while process.poll() is None:
        assert time.monotonic() < end, f"it did not begin within {LONGEST_S:.0f} s"
        try:
            if json.loads((store / "lock").read_text() or "{}").get("pid"):
                return
        except (OSError, json.JSONDecodeError):
            pass
        time.sleep(0.005)


def children(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """Worker and diagram processes of a driver."""
    try:
        return psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def send_all(process: subprocess.Popen[str], number: int) -> None:
    """Send a signal to a driver and all its children, whose groups are their own."""
    for one in [psutil.Process(process.pid), *children(process)] if process.poll() is None else []:
        with contextlib.suppress(psutil.NoSuchProcess):
            one.send_signal(number)


def end(process: subprocess.Popen[str], within_s: float = LONGEST_S) -> tuple[int, str]:
    """Wait for a driver; its exit code and stderr. Kills its group if it does not end."""
    try:
        errors = process.communicate(timeout=within_s)[1]
    except subprocess.TimeoutExpired:
        send_all(process, signal.SIGKILL)
        process.communicate()
        raise AssertionError(f"it did not end within {within_s:.0f} s") from None
    assert "Traceback" not in errors, errors
    return process.returncode, errors


def require_sound(store: Path) -> None:
    """Raise AssertionError if `panic check` would find something in a store, as far as there is one."""
    with (
        contextlib.suppress(StoreMissing, StoreTooOld),
        Store(store) as opened,
    ):  # it may have been hit while it was made
        problems = check.check(opened)
        assert not problems, problems


def lines(store: Path) -> list[str]:
    """The canonical content of a store."""
    with Store(store) as opened:
        return [json.dumps(line, sort_keys=True) for line in dump(opened)]


def require_same_as_whole(wanted: ExperimentConfig, store: Path, whole: Path) -> None:
    """Finish an experiment and compare its dump with that of an unhindered one, made once at `whole`."""
    code, errors = end(start(wanted, store))
    assert code == 0, errors
    if not whole.exists():
        run(wanted, whole)
    require_same(store, whole)


def require_same(store: Path, whole: Path) -> None:
    """Raise AssertionError unless a store is complete, sound, and has the dump of an unhindered run."""
    assert lines(store) == lines(whole), "the dump differs from that of an unhindered run"
    require_sound(store)
    with Store(store) as opened:
        counts = reading.counts(opened)
        assert counts.failed == 0
        assert counts.diagrams in (0, counts.runs)
