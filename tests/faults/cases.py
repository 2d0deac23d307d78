"""The kinds of faults by name, and how one case of a kind is tried: a seed makes it what it is.

attempt("kill", 7, Path("/scratch"))
"""

from __future__ import annotations

import random
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from panic import run
from tests.faults import experiment, fuzzing, interruptions, power

Fault = Callable[[Path, random.Random, Path], str]
FAULTS: dict[str, Fault] = {
    "kill": interruptions.kill,
    "worker": interruptions.kill_worker,
    "stop": interruptions.stop_and_go_on,
    "terminate": interruptions.terminate,
    "driver": interruptions.second_driver,
    "reader": interruptions.reader_with_snapshot,
    "memory": interruptions.little_memory,
    "disk": interruptions.full_disk,
    "power": power.power_cut,
    "clock": interruptions.clock_jumps,
    "configs": fuzzing.configs,
    "commands": fuzzing.command_lines,
    "values": fuzzing.values,
    "stores": fuzzing.stores,
}


def attempt(kind: str, seed: int, scratch: Path) -> str:
    """Inject a fault and return what was done. AssertionError if a promise is broken; Unavailable.

    scratch: a folder in which the unhindered run is kept for the next case.
    """
    whole = scratch / "whole"
    if not whole.exists():
        run(experiment.config(), whole)
    folder = Path(tempfile.mkdtemp(dir=scratch))
    try:
        return FAULTS[kind](folder, random.Random(f"{kind} {seed}"), whole)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
