"""Several processes and devices of one host on real GPUs: the same results, how much faster, and an end.

On one card two processes share it (`workers: 2`); on more, `device: cuda:all` has one process for each.
Both are compared with one process on cuda:0: dumps must be equal, and the speed is told. Then the process of
one is killed in the middle, and the dump must be the same again. The pocket models are used, which come with
the package: nothing is downloaded.

    python benchmarks/gpu/devices.py --json benchmarks/results/gpu_devices.json
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import torch

from panic import run
from panic.config import ExperimentConfig
from panic.engine.progress import Progress
from panic.store import Store
from panic.store.dump import dump

CONFIG: dict[str, Any] = {
    "name": "devices",
    "networks": [["PocketDiffusion", "PocketCaptioner"]],
    "prompts": [f"a small red circle above {number} large blue squares" for number in range(16)],
    "seeds": [-1],
    "repeats": 8,
    "max_length": 40,
    "embeddings": ["PocketText"],
    "batch_sizes": {"PocketDiffusion": 16, "PocketCaptioner": 16},
    "device": "cuda:0",
}


def perform(
    folder: Path, name: str, on_progress: Callable[[Progress], None], **changes: Any
) -> dict[str, Any]:
    """Perform the experiment with some settings changed; its seconds, calls by device, and dump."""
    config = ExperimentConfig.model_validate(CONFIG | changes)
    began = time.perf_counter()
    run(config, folder / name, on_progress=on_progress)
    wall_s = time.perf_counter() - began
    with sqlite3.connect(folder / name / "store.sqlite") as connection:
        calls = dict(connection.execute("SELECT device, count(*) FROM batch GROUP BY device"))
        begin, end, items = connection.execute(
            "SELECT min(started_at), max(started_at + duration_s), sum(size) FROM batch"
        ).fetchone()
    with Store(folder / name) as store:
        lines = [json.dumps(line, sort_keys=True) for line in dump(store)]
    return {"wall_s": wall_s, "items_per_s": items / (end - begin), "calls": calls, "dump": lines}


def kill_one(killed: list[int]) -> Callable[[Progress], None]:
    """An `on_progress` that kills one process of models, once there are results."""

    def on_progress(progress: Progress) -> None:
        if killed or progress.invocations < progress.invocations_total / 4:
            return
        children = psutil.Process().children()
        workers = [child for child in children if "process_worker" in " ".join(child.cmdline())]
        killed.append(workers[-1].pid)
        os.kill(workers[-1].pid, signal.SIGKILL)

    return on_progress


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="where the figures go")
    parser.add_argument("--rehearse", action="store_true", help="on simulated devices, without a GPU")
    arguments = parser.parse_args()
    small = {"max_length": 6, "repeats": 1, "batch_sizes": dict.fromkeys(CONFIG["batch_sizes"], 4)}
    one: dict[str, Any] = {"device": "sim:4GiB", **small} if arguments.rehearse else {}
    several: dict[str, Any] = {"device": ["sim:4GiB", "sim:4GiB"], **small}
    if not arguments.rehearse:
        if not torch.cuda.is_available():
            sys.exit("There is no CUDA device; --rehearse does without.")
        several = (
            {"device": "cuda:all"} if torch.cuda.device_count() > 1 else {"device": "cuda:0", "workers": 2}
        )
    killed: list[int] = []
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        found = {
            "one": perform(folder, "one", lambda progress: None, executor="process", **one),
            "several": perform(folder, "several", lambda progress: None, **several),
            "one of several killed": perform(folder, "killed", kill_one(killed), **several),
        }
    expected = found["one"]["dump"]
    for figures in found.values():
        figures["equals_one"] = figures.pop("dump") == expected
    told = {
        "devices": [torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())],
        "found": found,
    }
    print(json.dumps(told, indent=1))
    if arguments.json:
        arguments.json.write_text(json.dumps(told, indent=1) + "\n")
    if not killed or not all(figures["equals_one"] for figures in found.values()):
        sys.exit(1)


if __name__ == "__main__":
    main()
