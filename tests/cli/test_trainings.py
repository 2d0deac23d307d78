"""Trainings in a store: beside a run, after a kill, found by filters."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from panic.store import Store
from panic.store.files import give_lock_back, take_lock
from panic.store.trainings import find_training, keep, list_trainings, state_of
from panic.train.standing import begin_session, standing_of
from tests.cli.conftest import ROOT, Invoke, write_config
from tests.store.sample import entry
from tests.train import small


@pytest.fixture
def store(written: Path) -> Path:
    return written


@pytest.fixture(autouse=True)
def _quiet_loggers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loggers of other packages keep the stream that CliRunner has closed since."""
    monkeypatch.setattr(logging, "raiseExceptions", False)


def write(folder: Path, **changes: Any) -> Path:
    """A training's config, with its output beside it."""
    path = folder / "train.yaml"
    path.write_text(yaml.safe_dump(small.raw("autoencoder", folder, **changes)))
    return path


def found(panic: Invoke, *arguments: object) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(panic("trainings", "--json", *arguments).stdout)
    return rows


@pytest.mark.slow
def test_a_training_enters_the_store(panic: Invoke, store: Path, tmp_path: Path) -> None:
    done = panic("train", write(tmp_path, steps=3, evaluate_every=2))
    assert done.exit_code == 0, done.output
    [row] = found(panic)
    assert (row["state"], row["step"], row["steps"], row["task"]) == ("complete", 3, 3, "autoencoder")
    evaluations = small.rows(small.config("autoencoder", tmp_path), "evaluation")
    assert row["val_loss"] == pytest.approx(float(evaluations[-1]["loss"]), rel=1e-4)
    assert row["best_loss"] == pytest.approx(min(float(one["loss"]) for one in evaluations), rel=1e-4)
    assert row["folder"] == str(tmp_path / "model")
    assert Path(row["log"]).parent == store / "logs"
    assert row["seconds"] > 0
    assert panic("tag", "model", "good").exit_code == 0
    assert [one["tags"] for one in found(panic, "--where", "config.steps = 3")] == [["good"]]


def test_a_training_is_found(panic: Invoke, store: Path) -> None:
    with Store(store) as opened:
        ended = {"ended_at": 5.0, "end_state": "complete"}
        keep(opened, entry("mine", config={"steps": 3, "learning_rate": 0.1}, best_loss=0.5, **ended))
        keep(opened, entry("other", config={"steps": 9, "learning_rate": 0.1}))
    assert panic("tag", "mine", "good").exit_code == 0
    uid = found(panic, "--where", "name = mine")[0]["id"]
    assert panic("label", uid[:8], "a label").exit_code == 0
    assert [one["label"] for one in found(panic, "--where", "'good' in tags and state = complete")] == [
        "a label"
    ]
    assert [one["name"] for one in found(panic, "--where", "config.steps > 3")] == ["other"]
    chosen = found(panic, "--columns", "name,config.steps", "--sort", "-best_loss")
    assert chosen[0] == {"name": "mine", "config.steps": 3}
    done = panic("trainings", "--where", "config.stesp > 3")
    assert (done.exit_code, "Did you mean config.steps?" in done.stderr) == (2, True)
    done = panic("trainings", "--where", "state = stuck")
    assert (done.exit_code, "It is one of running" in done.stderr) == (2, True)
    assert "config.learning_rate" in panic("fields", "learning_rate").stdout


def test_a_store_that_nobody_can_write_does_not_end_a_training(
    panic: Invoke, store: Path, tmp_path: Path
) -> None:
    with Store(store, write=True) as opened:
        opened.db.connection.execute("PRAGMA user_version = 99")
    done = panic("train", write(tmp_path, steps=2))
    assert done.exit_code == 0, done.output
    assert "It stands beside its model alone" in done.stderr
    assert (tmp_path / "model" / "config.json").is_file()


def test_two_trainings_do_not_share_a_folder(panic: Invoke, store: Path, tmp_path: Path) -> None:
    (tmp_path / "model.training").mkdir()
    lock = take_lock(tmp_path / "model.training")
    done = panic("train", write(tmp_path, steps=2))
    give_lock_back(lock)
    assert done.exit_code == 2
    assert f"is being trained by process {os.getpid()}" in done.stderr
    assert found(panic) == []


def test_one_whose_process_is_gone_is_interrupted() -> None:
    mine = (os.uname().nodename, os.getpid())
    assert state_of(None, *mine, time.time()) == "running"
    assert state_of(None, *mine, 1.0) == "interrupted"  # a process of this number began later
    assert state_of(None, "elsewhere", os.getpid(), time.time()) == "interrupted"
    assert state_of("failed", *mine, time.time()) == "failed"


def test_the_later_state_of_a_training_comes_along_in_a_merge(panic: Invoke, store: Path) -> None:
    with Store(store) as opened:
        keep(opened, entry("mine", step=3, updated_at=3.0))
        keep(opened, entry("other"))
    assert panic("snapshot", store, "copy").exit_code == 0
    with Store(store) as opened:
        keep(opened, entry("mine", step=5, updated_at=5.0))
    for sources in (("panic-store", "copy"), ("copy", "panic-store")):
        target = f"merged-{sources[0]}"
        assert panic("merge", *sources, "--into", target).exit_code == 0
        with Store(target) as opened:
            assert sorted((row.name, row.step) for row in list_trainings(opened)) == [
                ("mine", 5),
                ("other", 0),
            ]
            assert find_training(opened, "mine") == entry("mine", step=5, updated_at=5.0)
    before = panic("dump").stdout
    assert before == panic("dump", "--store", "copy").stdout


def test_trainings_are_compared(panic: Invoke, store: Path) -> None:
    with Store(store) as opened:
        keep(opened, entry("one", val_loss=0.5, config={"learning_rate": 0.1, "output": "/somewhere/one"}))
        keep(opened, entry("two", val_loss=0.25, config={"learning_rate": 0.2, "output": "/somewhere/two"}))
    found = json.loads(panic("compare", "one", "/somewhere/two", "--json").stdout)
    assert found["trainings"] == ["one", "two"]
    told = {(one["section"], one["field"]): one["values"] for one in found["differences"]}
    assert told == {
        ("config", "learning_rate"): {"one": "0.1", "two": "0.2"},
        ("metrics", "val_loss"): {"one": "0.5", "two": "0.25"},
    }
    assert "val_loss" in panic("compare", "one", "two").stdout
    assert "metrics,val_loss,two,0.25" in panic("compare", "one", "two", "--csv").stdout
    assert panic("compare", "one", "one").exit_code == 2
    assert "No experiment" in panic("compare", "one", "nothing").stderr


def test_a_session_that_was_killed_counts_until_it_was_last_heard_of(tmp_path: Path) -> None:
    begin_session(tmp_path, {"began_at": 100.0})
    os.utime(tmp_path / "session.json", (130.0, 130.0))
    begin_session(tmp_path, {"began_at": 200.0})
    with (tmp_path / "sessions.jsonl").open("a") as file:
        file.write('{"began_at": 3')  # a kill has cut it
    assert standing_of(tmp_path).seconds == 30.0


def start(*arguments: object) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "panic", *map(str, arguments)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def wait_for_step(panic: Invoke, process: subprocess.Popen[bytes], step: int) -> None:
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        rows = found(panic)
        if rows and rows[0]["step"] >= step:
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.2)
    pytest.fail("the training does not get on")


@pytest.mark.slow
def test_a_training_is_killed_beside_a_run_and_goes_on(panic: Invoke, tmp_path: Path) -> None:
    """Real processes in one store: nothing is lost of the run, the training, or remarks made meanwhile."""
    plain = write_config(tmp_path, "plain", max_length=200)
    assert panic("run", plain, "--store", "alone", "--quiet").exit_code == 0
    assert panic("run", write_config(tmp_path, "first"), "--quiet").exit_code == 0
    config = write(tmp_path, steps=4_000, evaluate_every=50)
    run = start("run", write_config(tmp_path, "plain", max_length=200, delay_s=0.02), "--quiet")
    training = start("train", config)
    wait_for_step(panic, training, 1)
    [row] = found(panic)
    assert row["state"] == "running"
    assert panic("tag", "model", "beside").exit_code == 0
    training.kill()
    training.communicate()
    [killed] = found(panic)
    assert (killed["state"], killed["ended"]) == ("interrupted", None)
    training = start("train", config, "--set", f"steps={killed['step'] + 400}")
    _, told = run.communicate(timeout=120)
    assert run.returncode == 0, told
    _, told = training.communicate(timeout=120)
    assert training.returncode == 0, told
    [row] = found(panic)
    assert (row["state"], row["step"], row["tags"]) == ("complete", killed["step"] + 400, ["beside"])
    assert row["seconds"] > killed["seconds"]
    assert row["created"] == killed["created"] < row["started"]
    sessions = (tmp_path / "model.training" / "sessions.jsonl").read_text().splitlines()
    assert [json.loads(one)["state"] for one in sessions] == ["killed", "complete"]
    lines = panic("dump").stdout.splitlines()
    assert {one for one in panic("dump", "--store", "alone").stdout.splitlines() if '"run"' in one} <= set(
        lines
    )
    assert panic("check").exit_code == 0
