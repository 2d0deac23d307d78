"""Several processes and devices of one host on real GPUs: the same results, how much faster, and an end.

On one card two processes share it (`workers: 2`); on more, `device: cuda:all` has one process for each.
Both are compared with one process on cuda:0: dumps must be equal, and the speed is told. Then the process of
one is killed in the middle, and the dump must be the same again. The pocket models are used, which come with
the package: nothing is downloaded. Then two processes load one model of 1.6 GB, made here: their weights must
be in main memory once (proportional set size), page-locked by both, and give the same vectors.

    python -m benchmarks.gpu.devices --json benchmarks/results/gpu_devices.json
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
from queue import SimpleQueue
from typing import Any

import psutil
import torch

from panic import run
from panic.config import ExperimentConfig
from panic.devices.shared import share_weights
from panic.engine.calls import Call
from panic.engine.process_worker import ProcessWorker
from panic.engine.progress import Progress
from panic.engine.serving import ServerSettings
from panic.models import registry
from panic.store import Store
from panic.store.dump import dump
from tests import tiny

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

REHEARSED: dict[str, Any] = {
    "networks": [["draw", "tell"]],
    "models": {
        "draw": {"base": "synthetic/text-to-image", "states": 7, "delay_s": 0.02, "distinct": True},
        "tell": {"base": "synthetic/image-to-text", "states": 7, "delay_s": 0.02, "distinct": True},
        "place": {"base": "synthetic/state-embedding", "states": 7},
    },
    "embeddings": ["place"],
    "repeats": 1,
    "batch_sizes": {"draw": 4, "tell": 4},
    "device": "sim:1GiB",
}
"""What is performed without a GPU: models that start at once, so that a rehearsal takes seconds."""


def perform(
    folder: Path, name: str, on_progress: Callable[[Progress], None], **changes: Any
) -> dict[str, Any]:
    """Perform the experiment with some settings changed; its seconds, calls by device, and dump."""
    config = ExperimentConfig.model_validate(CONFIG | changes)
    print(f"{name} ...", file=sys.stderr, flush=True)
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


def shared_weights(folder: Path, device: str, hidden_size: int) -> dict[str, Any]:
    """Two processes with one model on a device: what they hold, and what they say on stderr."""
    from transformers import BertConfig, BertModel

    print("weights of two processes ...", file=sys.stderr, flush=True)
    tiny.build_sentence_bert(folder / "model")
    config = BertConfig(
        vocab_size=tiny.VOCABULARY,
        hidden_size=hidden_size,
        num_hidden_layers=8,
        num_attention_heads=8,
        intermediate_size=4 * hidden_size,
        max_position_embeddings=128,
    )
    BertModel(config).save_pretrained(folder / "model")
    spec = registry.resolve(f"local:{folder / 'model'}", device_kind=device.partition(":")[0])
    settings = ServerSettings(device=device, specs={"m": spec}, weights=share_weights(["m"], 2))
    results: SimpleQueue[Any] = SimpleQueue()
    before = os.dup(2)
    with (folder / "stderr").open("w") as said:
        os.dup2(said.fileno(), 2)
        try:
            workers = [ProcessWorker(settings, results.put) for _ in range(2)]
            for worker in workers:
                worker.submit(Call(model="m", batch_size=1, inputs=["hello"], seeds=[0]))
            found = [results.get(timeout=300) for _ in workers]
        finally:
            os.dup2(before, 2)
            os.close(before)
    if failed := [one.error.message for one in found if one.error is not None]:
        sys.exit(f"A process could not use the model: {failed[0]}")
    held = sum(_shared_bytes(worker.pid) for worker in workers if worker.pid)
    for worker in workers:
        worker.close()
    assert settings.weights is not None
    size = settings.weights.held_bytes
    return {
        "weights_bytes": size,
        "held_by_both_bytes": held,
        "is_once": abs(held - size) < 0.05 * size,
        "is_page_locked": "no page-locked memory" not in (folder / "stderr").read_text(),
        "is_equal": len({one.outputs[0].value.tobytes() for one in found}) == 1,
    }


def _shared_bytes(pid: int) -> int:
    """Shared memory of a process, each page in proportion to those that map it."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("Pss_Shmem"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="where the figures go")
    parser.add_argument("--rehearse", action="store_true", help="on simulated devices, without a GPU")
    arguments = parser.parse_args()
    one: dict[str, Any] = {}
    if arguments.rehearse:
        one, several = REHEARSED, REHEARSED | {"device": ["sim:1GiB", "sim:1GiB"]}
    elif not torch.cuda.is_available():
        sys.exit("There is no CUDA device; --rehearse does without.")
    elif torch.cuda.device_count() > 1:
        several = {"device": "cuda:all"}
    else:
        several = {"device": "cuda:0", "workers": 2}
    killed: list[int] = []
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        found = {
            "one": perform(folder, "one", lambda progress: None, executor="process", **one),
            "several": perform(folder, "several", lambda progress: None, **several),
            "one of several killed": perform(folder, "killed", kill_one(killed), **several),
        }
        device, hidden_size = ("sim:1GiB", 256) if arguments.rehearse else ("cuda:0", 2048)
        weights = shared_weights(folder, device, hidden_size)
    expected = found["one"]["dump"]
    for figures in found.values():
        figures["equals_one"] = figures.pop("dump") == expected
    told = {
        "devices": [torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())],
        "found": found,
        "weights of two processes": weights,
    }
    print(json.dumps(told, indent=1))
    if arguments.json:
        arguments.json.write_text(json.dumps(told, indent=1) + "\n")
    is_shared = all(weights[name] for name in ("is_once", "is_page_locked", "is_equal"))
    if not killed or not is_shared or not all(figures["equals_one"] for figures in found.values()):
        sys.exit(1)


if __name__ == "__main__":
    main()
