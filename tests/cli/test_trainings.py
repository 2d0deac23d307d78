"""Trainings in a store: beside a run, after a kill, found by filters."""

from __future__ import annotations

import json
import logging
import math
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml

from panic.cli.common import Shared
from panic.cli.train import follow
from panic.cli.training_course import TrainingSession, entry_of, performing
from panic.errors import NotFound
from panic.store import Store
from panic.store.files import give_lock_back, take_lock
from panic.store.trainings import find_training, keep, list_trainings, state_of
from panic.train.loop import TrainingProgress
from panic.train.standing import Standing, begin_session, standing_of
from tests.cli.conftest import ROOT, Invoke, write_config
from tests.patience import LONGEST_S, until
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


def test_trainings_of_one_folder_are_told_apart_in_a_comparison(panic: Invoke, store: Path) -> None:
    """Begun anew with another recipe: in JSON one of the two stood in the place of both."""
    uids = ("a" * 64, "b" * 64)
    with Store(store) as opened:
        for uid, rate in zip(uids, (0.1, 0.2), strict=True):
            keep(opened, entry("one", uid=uid, config={"learning_rate": rate}))
    found = json.loads(panic("compare", uids[0][:8], uids[1][:8], "--json").stdout)
    assert found["trainings"] == [f"/somewhere/one ({uid[:12]})" for uid in uids]
    told = {one["field"]: list(one["values"].values()) for one in found["differences"]}
    assert told == {"learning_rate": ["0.1", "0.2"]}


def test_a_name_of_several_trainings_was_taken_for_one_that_lies_in_three_folders(store: Path) -> None:
    with Store(store) as opened:
        for number in range(4):
            keep(opened, entry("mine", folder=f"/somewhere/{number}/mine"))
        row = find_training(opened, "mine")
        assert row is not None
        assert row.folder == "/somewhere/3/mine"
        keep(opened, entry("mine", uid="b" * 64))
        with pytest.raises(NotFound, match="Several trainings"):
            find_training(opened, "mine")


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("config", "[]"),
        ("provenance", '"text"'),
        ("measures", "3"),
        ("provenance", '{"git": 3, "packages": [1], "hardware": "text"}'),
        ("provenance", '{"git": {"commit": 3}, "hardware": {"memory_bytes": "text", "gpus": [1]}}'),
    ],
)
def test_a_comparison_ended_in_an_error_of_python_for_a_training_of_a_strange_store(
    panic: Invoke, store: Path, column: str, value: str
) -> None:
    with Store(store, write=True) as opened:
        for name in ("one", "two"):
            keep(opened, entry(name))
        opened.db.connection.execute(f"UPDATE training SET {column} = ? WHERE name = 'two'", (value,))
    is_damaged = not value.startswith("{")
    for arguments in (("compare", "one", "two"), ("comment", "two", "text")):
        done = panic(*arguments)
        assert done.exit_code == 0, (arguments, done.output)
    problems = panic("check").output
    assert (f"training, row 2: {column} is a JSON" in problems) == is_damaged


def test_a_model_of_a_strange_store_that_is_no_object_stopped_exports(panic: Invoke, store: Path) -> None:
    """Of which trainings an experiment has used, which stand beside models of other names."""
    with Store(store, write=True) as opened:
        for name in ("one", "two"):
            keep(opened, entry(name))
        said = {"models": {"a": "text", 'b."c': {"training": entry("one").uid}, "d": [1]}}
        opened.db.connection.execute("UPDATE session SET provenance = ?", (json.dumps(said),))
    done = panic("export", "--output", "tables", "--where", "name = alpha")
    assert done.exit_code == 0, done.output
    assert pl.read_parquet("tables/training.parquet")["name"].to_list() == ["one"]


def test_a_session_that_was_killed_counts_until_it_was_last_heard_of(tmp_path: Path) -> None:
    begin_session(tmp_path, {"began_at": 100.0})
    os.utime(tmp_path / "session.json", (130.0, 130.0))
    begin_session(tmp_path, {"began_at": 200.0})
    with (tmp_path / "sessions.jsonl").open("a") as file:
        file.write('{"began_at": 3')  # a kill has cut it
    assert standing_of(tmp_path).seconds == 30.0


@pytest.mark.parametrize("state", ["killed", "complete"])
def test_a_session_was_counted_twice_after_a_kill_between_its_end_and_its_removal(
    tmp_path: Path, state: str
) -> None:
    """At its own end, or when the next session said that it had been killed."""
    session = {"began_at": 100.0, "host": "here", "pid": 7}
    begin_session(tmp_path, session)
    os.utime(tmp_path / "session.json", (130.0, 130.0))
    ended = session | {"ended_at": 130.0, "step": None, "state": state}
    (tmp_path / "sessions.jsonl").write_text(json.dumps(ended) + "\n")
    begin_session(tmp_path, {"began_at": 200.0, "host": "here", "pid": 8})
    assert [one["state"] for one in standing_of(tmp_path).sessions] == [state]
    assert standing_of(tmp_path).seconds == 30.0


def test_a_first_evaluation_that_is_no_number_hid_the_best_one() -> None:
    begun = Standing().after(1, loss=None, measures={"loss": math.nan})
    assert begun.best is None
    assert begun.after(2, loss=None, measures={"loss": 0.5}).best == (2, 0.5)


def test_a_loss_without_bounds_made_json_that_is_none(panic: Invoke, store: Path, tmp_path: Path) -> None:
    loaded = small.config("autoencoder", tmp_path)
    (tmp_path / "model.training").mkdir()
    (tmp_path / "model.training" / "recipe.json").write_text("{}")
    session = TrainingSession(began_at=1.0, log=tmp_path / "log", provenance={})
    standing = Standing(step=1, loss=math.inf, measures={"loss": math.inf, "other": math.nan})
    with Store(store) as opened:
        keep(opened, entry_of(loaded, session, standing))
    assert "Infinity" not in panic("trainings", "--json").stdout
    [row] = found(panic)
    assert (row["loss"], row["val_loss"], row["best_loss"]) == (None, None, None)


@pytest.mark.slow
def test_a_store_that_was_made_after_a_training_had_begun_never_knew_it(tmp_path: Path) -> None:
    def hear(progress: TrainingProgress) -> None:
        if progress.step == 0:
            with Store("panic-store", write=True, create=True):
                pass

    follow(Shared(), Path("train.yaml"), small.config("autoencoder", tmp_path, steps=2), hear)
    with Store("panic-store") as opened:
        [row] = list_trainings(opened)
    assert (row.state, row.step) == ("complete", 2)


def test_why_a_training_failed_was_lost_where_it_was_no_utf8(store: Path, tmp_path: Path) -> None:
    loaded = small.config("autoencoder", tmp_path)
    session = TrainingSession(began_at=1.0, log=tmp_path / "log", provenance={})

    def fail() -> None:
        with performing(loaded, session, store) as course:
            (tmp_path / "model.training" / "recipe.json").write_text("{}")
            course.hear(TrainingProgress(step=0, steps=6))
            raise OSError("cannot read \udcff")

    with pytest.raises(OSError, match="cannot"):
        fail()
    with Store(store) as opened:
        [row] = list_trainings(opened)
    assert (row.state, row.message) == ("failed", "OSError: cannot read \\udcff")


def start(*arguments: object) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "panic", *map(str, arguments)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def wait_for_step(panic: Invoke, process: subprocess.Popen[bytes], step: int) -> None:
    def is_there() -> bool:
        rows = found(panic)
        return bool(rows) and rows[0]["step"] >= step

    until(is_there, process)


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
    _, told = run.communicate(timeout=LONGEST_S)
    assert run.returncode == 0, told
    _, told = training.communicate(timeout=LONGEST_S)
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


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("loss.csv", "step,loss\ninf,1\n"),
        ("evaluation.csv", "step,loss\nnan,1\n"),
        ("best.json", '{"step": Infinity, "loss": 1}'),
        ("best.json", "[" * 5000),
        ("sessions.jsonl", '{"began_at": 1' + "0" * 400 + ', "ended_at": 2}\n' + "[" * 5000 + "\n"),
        ("session.json", "[1]"),
        ("session.json", "[" * 5000),
    ],
)
def test_a_damaged_file_beside_a_model_ended_its_training(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    begin_session(tmp_path, {"began_at": 1.0})
    standing = standing_of(tmp_path)
    assert (standing.step, standing.best, standing.sessions) == (0, None, ())


def test_a_pipe_in_the_place_of_a_journal_is_not_waited_for(tmp_path: Path) -> None:
    for name in ("loss.csv", "evaluation.csv", "best.json", "sessions.jsonl", "session.json"):
        os.mkfifo(tmp_path / name)
    assert standing_of(tmp_path).loss is None
