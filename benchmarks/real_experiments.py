"""A store of very many small experiments that the engine has performed, with models whose truth is known.

Four runs of ten steps each: 10,000 take a quarter of an hour or two. A call goes on where one was stopped.

python -m benchmarks.real_experiments /scratch/real 10000     # experiments
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from panic import run
from panic.config import ExperimentConfig
from panic.errors import StoreMissing
from panic.store import Store, reading

KERNELS = ("cycle", "identity", "dirichlet", "slow")


def config(number: int) -> ExperimentConfig:
    """The config of the experiment of this number."""
    chain = {"base": "synthetic/image-to-text", "states": 7, "kernel": KERNELS[number % 4]}
    return ExperimentConfig.model_validate(
        {
            "name": f"night-{number:06}",
            "project": f"project-{number % 12}",
            "tags": [f"night-{number % 30}"],
            "networks": [["draw", "chain"]],
            "models": {
                "draw": {"base": "synthetic/text-to-image", "states": 7, "size": 16},
                "chain": {**chain, "epsilon": number % 3 / 10},
            },
            "prompts": [f"state {number % 7}", f"a red circle {number % 500}"],
            "seeds": [42, -1],
            "max_length": 10,
            "device": "cpu",
            "executor": "local",
            "log_level": "warning",
        }
    )


def fill(path: Path, experiments: int) -> None:
    """Perform the experiments up to this number that the store lacks, and the last one it has once more."""
    try:
        with Store(path) as store:
            known = len(reading.experiments(store))
    except StoreMissing:
        known = 0
    for number in range(max(known, 1), experiments + 1):
        run(config(number), path)


if __name__ == "__main__":
    began = time.perf_counter()
    fill(Path(sys.argv[1]), int(sys.argv[2]))
    print(f"{time.perf_counter() - began:.1f} s")
