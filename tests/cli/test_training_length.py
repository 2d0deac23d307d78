"""How long a training is: made longer, gone on with after a failure, declared complete."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from panic.store import Store
from panic.store.files import give_lock_back, take_lock
from panic.store.provenance import trained_step
from panic.store.trainings import keep
from tests.cli.conftest import Invoke
from tests.cli.test_trainings import _quiet_loggers, found, write
from tests.store.sample import entry
from tests.train import small

__all__ = ["_quiet_loggers"]


@pytest.fixture
def store(written: Path) -> Path:
    return written


def failing(folder: Path, **changes: Any) -> Path:
    """A config whose first evaluation fails until what is in its way, which is returned, is away."""
    write(folder, **changes)
    obstacle = folder / "model.training" / "samples"
    obstacle.parent.mkdir()
    obstacle.write_text("a file where a folder is to be")
    return obstacle


@pytest.mark.slow
def test_an_extended_training_is_as_if_it_had_been_that_long_at_once(
    panic: Invoke, store: Path, tmp_path: Path
) -> None:
    values = {"evaluate_every": 10, "decay": 0.0}
    assert panic("train", write(tmp_path, steps=2, **values), "--quiet").exit_code == 0
    [before] = found(panic)
    done = panic("extend", "model", "--steps", 4)
    assert (done.exit_code, "data.folder: " in done.stderr, "--trust" in done.stderr) == (2, True, True)
    done = panic("extend", "model", "--steps", 4, "--trust", "--dry-run")
    assert (done.exit_code, "4 steps in all" in done.stdout) == (0, True), done.output
    assert found(panic)[0]["step"] == 2
    done = panic("extend", "model", "--steps", 4, "--trust", "--quiet")
    assert done.exit_code == 0, done.output
    [row] = found(panic)
    assert (row["state"], row["step"], row["steps"], row["id"]) == ("complete", 4, 4, before["id"])
    at_once = small.config("autoencoder", tmp_path, steps=4, output=str(tmp_path / "once"), **values)
    small.fit(at_once)
    extended = small.averages(small.newest(small.config("autoencoder", tmp_path)))
    for name, weight in small.averages(small.newest(at_once)).items():
        assert torch.equal(extended[name], weight), name
    done = panic("extend", "model", "--steps", 4, "--trust")
    assert (done.exit_code, "is to have 4 steps already" in done.stderr) == (2, True)


def test_what_makes_an_experiment_larger_does_not_make_a_training_longer(panic: Invoke, store: Path) -> None:
    with Store(store) as opened:
        keep(opened, entry("mine", ended_at=2.0, end_state="complete"))
    done = panic("extend", "mine", "--max-length", 9)
    assert done.exit_code == 2
    assert "--max-length: without effect for a training." in done.stderr
    assert "mine is a training: --steps says how many it gets in all." in done.stderr
    done = panic("extend", "alpha", "--steps", 9)
    assert (done.exit_code, "alpha is no training" in done.stderr) == (2, True)
    done = panic("extend", "mine")
    assert (done.exit_code, "of a training --steps" in done.stderr) == (2, True)


@pytest.mark.slow
def test_a_training_that_failed_goes_on_from_its_last_checkpoint(
    panic: Invoke, store: Path, tmp_path: Path
) -> None:
    obstacle = failing(tmp_path, steps=4, evaluate_every=3)
    assert panic("train", tmp_path / "train.yaml", "--quiet").exit_code == 1
    [failed] = found(panic)
    assert (failed["state"], "FileExistsError" in failed["message"]) == ("failed", True)
    done = panic("rerun", "model")
    assert (done.exit_code, "--failed" in done.stderr) == (2, True)
    done = panic("rerun", "model", "--failed")
    assert (done.exit_code, "--trust" in done.stderr) == (2, True)
    done = panic("rerun", "model", "--failed", "--set", "learning_rate=0.01", "--trust")
    assert done.exit_code == 2
    assert "With --set learning_rate=0.01 it would be another training than model." in done.stderr
    assert "panic again model --set learning_rate=0.01" in done.stderr
    assert panic("rerun", "model", "--failed", "--trust", "--quiet").exit_code == 1
    assert found(panic)[0]["state"] == "failed"
    obstacle.unlink()
    done = panic("rerun", "model", "--failed", "--set", "steps=5", "--where", "run = 1", "--trust")
    assert done.exit_code == 0, done.output
    assert "--where: without effect for a training." in done.stderr
    [row] = found(panic)
    assert (row["state"], row["step"], row["id"], row["message"]) == ("complete", 5, failed["id"], None)
    steps = [int(one["step"]) for one in small.rows(small.config("autoencoder", tmp_path), "loss")]
    assert steps == [1, 2, 3, 4, 5]
    assert "model has not failed" in panic("rerun", "model", "--failed").stdout


@pytest.mark.slow
def test_a_training_out_of_time_is_declared_complete_and_a_longer_config_reopens_it(
    panic: Invoke, store: Path, tmp_path: Path
) -> None:
    """Its model is there: nothing is computed, and nobody has to trust the store."""
    assert panic("train", write(tmp_path, steps=3, minutes=1e-9), "--quiet").exit_code == 0
    [row] = found(panic)
    assert (row["state"], row["step"], row["steps"]) == ("out of time", 1, 3)
    weights = next((tmp_path / "model").glob("*.safetensors"))
    written_at = weights.stat().st_mtime_ns
    done = panic("end", "model")
    assert (done.exit_code, "model is complete at step 1." in done.stdout) == (0, True), done.output
    [ended] = found(panic)
    assert (ended["state"], ended["step"], ended["steps"], ended["id"]) == ("complete", 1, 1, row["id"])
    assert weights.stat().st_mtime_ns == written_at
    assert panic("resume", "model").stdout == "model is complete.\n"
    assert panic("end", "model").stdout == "model is complete.\n"
    assert panic("train", write(tmp_path, steps=3), "--quiet").exit_code == 0
    [row] = found(panic)
    assert (row["state"], row["step"], row["steps"]) == ("complete", 3, 3)


@pytest.mark.slow
def test_the_model_of_an_ended_training_is_that_of_its_last_checkpoint(
    panic: Invoke, store: Path, tmp_path: Path
) -> None:
    failing(tmp_path, steps=4, evaluate_every=3)
    assert panic("train", tmp_path / "train.yaml", "--quiet").exit_code == 1
    assert not (tmp_path / "model").exists()
    done = panic("end", "model")
    assert (done.exit_code, "--trust" in done.stderr) == (2, True)
    done = panic("end", "model", "--trust", "--quiet")
    assert done.exit_code == 0, done.output
    [row] = found(panic)
    assert (row["state"], row["step"], row["steps"]) == ("complete", 2, 2)
    assert trained_step(tmp_path / "model", row["id"]) == 2
    assert (tmp_path / "model" / "config.json").is_file()


def test_what_cannot_end_is_told(panic: Invoke, store: Path, tmp_path: Path) -> None:
    with Store(store) as opened:
        keep(opened, entry("mine"))
        keep(opened, entry("busy", host=os.uname().nodename, pid=os.getpid(), started_at=time.time()))
    done = panic("end", "mine")
    assert (done.exit_code, "There is no checkpoint in /somewhere/mine.training" in done.stderr) == (2, True)
    done = panic("end", "busy")
    assert (done.exit_code, "panic stop /somewhere/busy" in done.stderr) == (2, True)
    beside = Path(f"{tmp_path}/there.training")
    beside.mkdir()
    with Store(store) as opened:
        keep(opened, entry("there", folder=f"{tmp_path}/there"))
    held = take_lock(beside)  # by a process that another store knows
    try:
        done = panic("end", "there")
        assert (done.exit_code, f"panic stop {tmp_path}/there" in done.stderr) == (2, True)
    finally:
        give_lock_back(held)
    done = panic("end", "alpha", "--trust")
    assert "--trust: without effect for an experiment" in done.stderr


def test_a_plan_counts_steps_and_tells_how_long_they_take(panic: Invoke, tmp_path: Path) -> None:
    config = write(tmp_path, steps=100)
    sweep = ("--set", "learning_rate={values: [0.1, 0.2]}", "--dry-run")
    told = panic("train", config, *sweep).stdout
    assert "200 steps in all, 200 left" in told
    assert "About" not in told
    beside = tmp_path / "model-learning_rate=0.1.training"
    beside.mkdir()
    (beside / "recipe.json").write_text("{}")
    (beside / "loss.csv").write_text("step,loss\n20,0.5\n40,0.25\n")
    session = {"began_at": 100.0, "ended_at": 180.0}
    (beside / "sessions.jsonl").write_text(json.dumps(session) + "\n")
    told = panic("train", config, *sweep).stdout
    assert "at step 40" in told
    assert "200 steps in all, 160 left" in told
    assert "About 5 min 20 s, at the pace" in told  # 2 s per step


def test_how_far_a_training_is(panic: Invoke, store: Path) -> None:
    here = {"host": os.uname().nodename, "pid": os.getpid(), "started_at": time.time()}
    with Store(store) as opened:
        keep(opened, entry("busy", step=20, steps=30, seconds=10.0, loss=0.5, **here))
        keep(opened, entry("mine", step=3, ended_at=2.0, end_state="failed", message="the disk is full"))
    told = json.loads(panic("status", "busy", "--json").stdout)
    assert (told["state"], told["step"], told["steps"], told["eta_s"]) == ("running", 20, 30, 5.0)
    assert "running, step 20 of 30, loss 0.5, about 5.0 s left" in panic("status", "busy").stdout
    done = panic("status", "/somewhere/mine", "--watch", "--interval", 1)
    assert "failed, step 3 of" in done.stdout
    assert "the disk is full" in done.stdout
    assert json.loads(panic("status", "mine", "--watch", "--json").stdout)["eta_s"] is None
    assert panic("status", "mine", "--project", "night").exit_code == 2


def test_what_is_asked_of_experiments_says_what_tells_of_trainings(panic: Invoke, store: Path) -> None:
    with Store(store) as opened:
        keep(opened, entry("mine"))
    for command in ("verify", "stuck", "report", "returns", "check"):
        done = panic(command, "mine")
        assert done.exit_code == 2, (command, done.output)
        assert "A training is called so, or was: panic show, status, compare and report" in done.stderr
    assert "A training is called so" not in panic("verify", "nothing").stderr
