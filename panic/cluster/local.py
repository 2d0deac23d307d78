"""The tasks of a job on this machine, one after another, by the script that Slurm would run."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterable, Mapping

from panic.cluster.job import Job
from panic.errors import Interrupted
from panic.interrupts import stop_on_signals

LOOK_EVERY_S = 0.1


def perform_here(job: Job, tasks: Iterable[int]) -> int:
    """Pin, perform these tasks, also after one that fails, and merge; the exit code of the first, else 0.

    Raises Interrupted where one was asked to stop.
    """
    worst = 0
    if not job.is_training and (code := _step(job, "pin", {})):
        return code
    for task in tasks:
        code = _step(job, "task", {"SLURM_ARRAY_TASK_ID": str(task)})
        worst = worst or code
    return worst if job.is_training else _step(job, "merge", {}) or worst


def _step(job: Job, what: str, environment: Mapping[str, str]) -> int:
    """Run one step of the script, in a group of its own; what it prints goes to the terminal."""
    ours = {"SLURM_JOB_ID": f"local-{os.getpid()}"}
    given = {name: text for name, text in os.environ.items() if not name.startswith("SLURM_")}
    given.setdefault("TMPDIR", tempfile.gettempdir())
    with stop_on_signals() as stop_requested:
        step = subprocess.Popen(
            ["bash", job.script, what], env={**given, **ours, **environment}, start_new_session=True
        )
        while step.poll() is None and not stop_requested():
            time.sleep(LOOK_EVERY_S)
        if stop_requested():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(step.pid, signal.SIGTERM)  # the batch in flight is finished
        code = step.wait()
        if stop_requested():
            raise Interrupted(f"{job.folder}: stopped; the same command goes on.")
    return code
