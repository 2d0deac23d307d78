"""Promise 1: kill it at any moment, run it again, and the store is that of an unhindered run."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from panic import run
from panic.config import ExperimentConfig
from panic.store import Store, check, reading
from tests.engine.conftest import dump, make_config
from tests.faults.experiment import require_sound

CHILD = """
import sys
from panic import run
from panic.config import ExperimentConfig
from panic.store import check
from panic.store import reading
run(ExperimentConfig.model_validate_json(sys.argv[1]), sys.argv[2])
"""


def perform_in_child(config: ExperimentConfig, store: Path) -> subprocess.Popen[bytes]:
    text = json.dumps(config.model_dump(mode="json"))
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, text, str(store)], stderr=subprocess.PIPE, env=dict(os.environ)
    )


def kill_and_rerun(config: ExperimentConfig, folder: Path, *, kills: int, seed: int, within_s: float) -> int:
    """Kill the experiment at random moments of its work, then let it finish; how many kills hit."""
    random_moments = random.Random(seed)
    store, hits = folder / "killed", 0
    for _ in range(kills):
        process = perform_in_child(config, store)
        wait_for_work(store, process)
        time.sleep(random_moments.uniform(0.0, within_s))
        hits += process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.communicate()
        require_sound(store)
    final = perform_in_child(config, store)
    errors = final.communicate()[1]
    assert final.returncode == 0, errors.decode()
    return hits


def wait_for_work(store: Path, process: subprocess.Popen[bytes]) -> None:
    """Wait until the child has taken the store's lock, so that kills hit the work and not the imports."""
    while process.poll() is None:
        try:
            driver = json.loads((store / "lock").read_text() or "{}")
        except (OSError, json.JSONDecodeError):
            driver = {}
        if driver.get("pid") == process.pid:
            return
        time.sleep(0.005)


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("kills", "least", "max_length"), [(2, 1, 120), pytest.param(20, 5, 300, marks=pytest.mark.slow)]
)
def test_kills_at_random_moments_change_nothing(
    tmp_path: Path, kills: int, least: int, max_length: int
) -> None:
    config = make_config(
        models={
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
        prompts=[f"prompt {number}" for number in range(6)],
        seeds=[1, 2, -1],
        repeats=max_length // 75,
        max_length=max_length,
        embeddings=["circle"],
        diagrams={"max_dimension": 1},
        vectorisations=["entropy"],
        distances=["wasserstein"],
    )
    hits = kill_and_rerun(config, tmp_path, kills=kills, seed=0, within_s=0.4)
    run(config, tmp_path / "whole")
    assert hits >= least, "the kills came too late to mean anything"
    assert dump(tmp_path / "killed") == dump(tmp_path / "whole")
    with Store(tmp_path / "killed") as store:
        assert check.check(store) == []
        counts = reading.counts(store)
        assert counts.diagrams == counts.runs
        assert counts.vectorisations == 2 * counts.runs
        assert counts.distances == counts.runs * (counts.runs - 1)  # half of it, in two dimensions


@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    ("kills", "least", "max_length"),
    [pytest.param(4, 1, 20, marks=pytest.mark.slow), pytest.param(20, 3, 60, marks=pytest.mark.long)],
)
def test_kills_of_the_pocket_pair_change_nothing(
    tmp_path: Path, kills: int, least: int, max_length: int
) -> None:
    """The same with real diffusers and transformers pipelines and their trained weights."""
    config = ExperimentConfig.model_validate(
        {
            "name": "pocket",
            "networks": [["PocketDiffusion", "PocketCaptioner"]],
            "models": {"PocketDiffusion": {"base": "PocketDiffusion", "steps": 2}},
            "prompts": ["a small red circle above a large blue square", "a horse riding an astronaut"],
            "seeds": [42, -1],
            "repeats": 2,
            "max_length": max_length,
            "embeddings": ["PocketText", "PocketPixels"],
            "diagrams": {"max_dimension": 1},
            "device": "cpu",
            "threads": 1,
            "batch_sizes": {"PocketDiffusion": 6, "PocketCaptioner": 6},
        }
    )
    hits = kill_and_rerun(config, tmp_path, kills=kills, seed=1, within_s=max_length / 5)
    run(config, tmp_path / "whole")
    assert hits >= least, "the kills came too late to mean anything"
    assert dump(tmp_path / "killed") == dump(tmp_path / "whole")
