"""What does the engine cost beside plain diffusers and transformers? Three networks, eager and compiled.

Random weights in real sizes: sd-turbo, FLUX.2-klein-4B, a captioner of 2 B (`loops_parts/nets.py`). Needs
torch with CUDA, diffusers and transformers, 40 GB on the GPU, 32 GB of main memory, 24 GB below --folder;
downloads nothing. The engine's share is 1 - (seconds of as many plain calls) / (seconds from the first call
that is warm to the last result of a network's runs), at most 5 %.

It has never run on a GPU so far: only its rehearsal has run.

    python -m benchmarks.gpu.loops                # figures to results/gpu_loops.json
    python -m benchmarks.gpu.loops --rehearse     # in miniature, on the CPU; keeps no figures, has no goal

Ends with 1 if a goal is missed.
"""

from __future__ import annotations

import argparse
import gc
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.loops_parts.nets import BUILDERS, build
from benchmarks.gpu.loops_parts.plain import Setting, plain_seconds
from benchmarks.record import record
from panic import run
from panic.config import ExperimentConfig
from panic.store import Store

NETWORKS = (("turbo", "captioner"), ("klein", "captioner"), ("turbo", "captioner", "klein", "captioner"))
SHARE_GOAL = 0.05
WARM = 2
"""Calls of each model of a network that are not counted: constructed, compiled, proven before."""
COMMAND = "python -m benchmarks.gpu.loops"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rehearse", action="store_true", help="in miniature, without a GPU")
    parser.add_argument("--eager", action="store_true", help="nothing compiled")
    parser.add_argument("--batch-size", type=int, default=0, help="by default 16, in a rehearsal 2")
    parser.add_argument("--folder", type=Path, help="for weights, 24 GB; by default a temporary one")
    arguments = parser.parse_args()
    if arguments.rehearse:
        torch.set_num_threads(1)
    elif not torch.cuda.is_available():
        print("no CUDA device: nothing was measured (--rehearse needs none)", file=sys.stderr)
        return 1
    device = "cpu" if arguments.rehearse else "cuda"
    batch_size = arguments.batch_size or (2 if arguments.rehearse else 16)
    missed: list[str] = []
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        for model in BUILDERS:
            build(model, folder / model, device=device, rehearse=arguments.rehearse)
        for compiled in (False,) if arguments.eager else (False, True):
            setting = Setting(
                device=device, batch_size=batch_size, compiled=compiled, rehearse=arguments.rehearse
            )
            missed += measure(folder, setting)
    for goal in missed:
        print(f"missed: {goal}", file=sys.stderr)
    return 1 if missed else 0


def measure(folder: Path, setting: Setting) -> list[str]:
    """All networks in one setting, each beside plain calls. Returns the goals that were missed."""
    how = "compiled" if setting.compiled else "eager"
    plain: dict[str, float] = {}
    for model in BUILDERS:
        plain[model] = plain_seconds(model, folder / model, setting)
        keep(f"plain.{model}.{how}", setting.batch_size / plain[model], setting, unit="1/s")
        clean(setting)
    missed = []
    for network in NETWORKS:
        title = f"{'_'.join(network)}.{how}"
        calls, wall_s = engine_seconds(network, folder, setting)
        clean(setting)
        draws = sum(number for model, number in calls.items() if model != "captioner")
        share = 1 - sum(plain[model] * number for model, number in calls.items()) / wall_s
        keep(f"{title}.images", setting.batch_size * draws / wall_s, setting, unit="1/s")
        keep(f"{title}.captions", setting.batch_size * calls["captioner"] / wall_s, setting, unit="1/s")
        keep(
            f"{title}.engine_share", share, setting, unit="share", limit=SHARE_GOAL, wall_s=wall_s,
            plain_s=plain, calls=dict(calls),
        )  # fmt: skip
        if not setting.rehearse and not share <= SHARE_GOAL:
            missed.append(f"{title}.engine_share: {share:.3f}, goal {SHARE_GOAL}")
    return missed


def engine_seconds(network: Sequence[str], folder: Path, setting: Setting) -> tuple[Counter[str], float]:
    """Calls of each model once all are warm, and the seconds from the first of them to the last's end."""
    with tempfile.TemporaryDirectory() as store_folder:
        outcome = run(config_of(network, folder, setting), Path(store_folder) / "store")
        assert not outcome.counts.failed, outcome.counts
        with Store(Path(store_folder) / "store") as store:
            rows = store.db.rows(
                "SELECT model.name, size, started_at, duration_s FROM batch"
                " JOIN model ON model.id = batch.model ORDER BY started_at"
            )
    seen: Counter[str] = Counter()
    counted: Counter[str] = Counter()
    begin = end = 0.0
    for model, size, started_at, duration_s in rows:
        assert size == setting.batch_size, "every batch is full"
        if all(seen[name] >= WARM for name in network):
            begin = begin or started_at
            counted[model] += 1
            end = max(end, started_at + duration_s)
        seen[model] += 1
    return counted, end - begin


def config_of(network: Sequence[str], folder: Path, setting: Setting) -> ExperimentConfig:
    """Two batches of runs, so that one is ready while the other is computed."""
    more: dict[str, Any] = {"compile": True} if setting.compiled else {}
    models: dict[str, dict[str, Any]] = {
        "turbo": {"steps": 1, "guidance": 0.0},
        "klein": {"steps": 4, "guidance": 1.0, "max_sequence_length": 512},
        "captioner": {"max_new_tokens": setting.max_new_tokens},
    }  # fmt: skip
    for name in ("turbo", "klein"):
        models[name] |= dict.fromkeys(("width", "height"), setting.side(name))
    names = dict.fromkeys(network)
    return ExperimentConfig.model_validate(
        {
            "name": "loops",
            "networks": [list(network)],
            "models": {
                name: {"base": f"local:{folder / name}", "dtype": "bfloat16", **models[name], **more}
                for name in names
            },
            "prompts": ["a small red circle above a large blue square"],
            "seeds": [-1],
            "repeats": 2 * setting.batch_size,
            "max_length": len(network) * (3 if setting.rehearse else 8),
            "device": setting.device,
            "workers": 1,
            "batch_sizes": dict.fromkeys(names, setting.batch_size),
            "reject_constant_images": False,
        }
    )


def clean(setting: Setting) -> None:
    """Give the memory of models that are gone back."""
    gc.collect()
    if setting.device == "cuda":
        torch.cuda.empty_cache()


def keep(name: str, value: float, setting: Setting, *, unit: str, **fields: Any) -> None:
    """Print a figure, and store it if it is none of a rehearsal."""
    print(f"{name:<60} {value:10.4g} {unit}", flush=True)
    if not setting.rehearse:
        record(
            f"gpu_loops.{name}", value, unit=unit, file="gpu_loops", command=COMMAND,
            batch_size=setting.batch_size, **fields,
        )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
