"""Waiting for what comes when it comes: a machine that is busy with other things may take its time."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from typing import Any

LONGEST_S = 200.0
"""For what takes moments on a free machine. Whoever waits so long waits for nothing."""


def until(is_so: Callable[[], object], process: subprocess.Popen[Any] | None = None) -> None:
    """Wait until something is so; a process that has ended without it ends the waiting."""
    deadline = time.monotonic() + LONGEST_S
    while True:
        has_ended = process is not None and process.poll() is not None
        if is_so():
            return
        assert not has_ended, "the process has ended before"
        assert time.monotonic() < deadline, f"it was not so within {LONGEST_S} s"
        time.sleep(0.02)
