"""One training of a store, looked after like an experiment: stopped, gone on with, made again."""

from __future__ import annotations

import fcntl
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from panic.store import Store
from panic.store.annotations import list_annotations
from panic.store.provenance import trained_step
from panic.store.trainings import keep
from tests.cli.conftest import Invoke
from tests.cli.test_trainings import _quiet_loggers, found, start, wait_for_step, write
from tests.patience import LONGEST_S
from tests.store.sample import entry
from tests.train import small

__all__ = ["_quiet_loggers"]


@pytest.fixture
def store(written: Path) -> Path:
    return written


def shown(panic: Invoke, name: str) -> dict[str, Any]:
    row: dict[str, Any] = json.loads(panic("show", name, "--json").stdout)
    return row


@pytest.mark.slow
def test_a_training_is_stopped_goes_on_and_is_made_again(panic: Invoke, store: Path, tmp_path: Path) -> None:
    """A real process: it is asked, saves a checkpoint, and its stored config goes on without a file."""
    config = write(tmp_path, steps=100_000, evaluate_every=100_000)
    process = start("train", config)
    try:
        wait_for_step(panic, process, 1)
        done = panic("stop", "model", "--wait")
        assert done.exit_code == 0, done.output
        assert f"Process {process.pid} was asked to stop" in done.stdout
        assert process.wait(timeout=LONGEST_S) == 130
    finally:
        process.kill()
    [stopped] = found(panic)
    assert stopped["state"] == "interrupted"
    assert trained_step(tmp_path / "model", stopped["id"]) == stopped["step"]
    assert panic("stop", "model").stdout == "Nobody performs model.\n"
    config.unlink()
    with Store(store) as opened:  # it is to end some time
        row = opened.db.value("SELECT config FROM training")
        few = json.dumps(json.loads(row) | {"steps": stopped["step"] + 2})
    with Store(store, write=True) as opened:
        opened.db.connection.execute("UPDATE training SET config = ?", (few,))
    done = panic("resume", "model")
    assert (done.exit_code, "data.folder: " in done.stderr, "--trust" in done.stderr) == (2, True, True)
    assert panic("resume", "model", "--trust", "--quiet").exit_code == 0
    [row] = found(panic)
    assert (row["state"], row["step"], row["id"]) == ("complete", stopped["step"] + 2, stopped["id"])
    assert panic("resume", "model").stdout == "model is complete.\n"
    changed = ("--set", "learning_rate=0.01", "--set", "steps=2", "--tag", "fast", "--label", "a label")
    done = panic("again", "model", *changed, "--trust")
    assert done.exit_code == 0, done.output
    made = found(panic)[-1]
    assert (made["name"], made["folder"]) == ("model-2", str(tmp_path / "model-2"))
    assert (made["state"], made["step"], made["tags"]) == ("complete", 2, ["fast"])
    assert made["label"] == "a label"
    assert made["id"] != stopped["id"]
    config_of = shown(panic, "model-2")["config"]
    assert (config_of["learning_rate"], config_of["image_size"]) == (0.01, small.SIDE)
    told = panic("show", "model-2").stdout
    assert f"made from:        model ({stopped['id'][:12]}), with learning_rate=0.01, steps=2" in told
    assert f"again as:         model-2 ({made['id'][:12]})" in panic("show", "model").stdout


@pytest.mark.parametrize("task", sorted(small.MODELS))
def test_a_training_made_again_unchanged_has_the_same_recipe(task: str, tmp_path: Path) -> None:
    """The stored config says all fields, also those that the ones that were said exclude."""
    from panic.train.config import load_stored, recipe

    told = small.config(task, tmp_path)
    again = load_stored(told.model_dump(mode="json"), "mine")
    assert again == [told]
    assert recipe(again[0]) == recipe(told)


def test_what_a_store_names_is_not_trained_on_without_trust(
    panic: Invoke, store: Path, tmp_path: Path
) -> None:
    told = small.config("autoencoder", tmp_path).model_dump(mode="json")
    with Store(store) as opened:
        keep(opened, entry("mine", folder=str(tmp_path / "mine"), config=told))
    done = panic("again", "mine", "--dry-run")
    assert done.exit_code == 2
    assert f"output: {tmp_path}/mine-2, data.folder: {tmp_path}/pictures" in done.stderr
    own = ("--set", "output=own", "--set", f"data.folder={tmp_path}/pictures")
    done = panic("again", "mine", *own, "--set", "learning_rate={values: [0.1, 0.2]}", "--dry-run")
    assert done.exit_code == 0, done.output
    assert "2 trainings, one after another" in done.stdout
    assert "own-learning_rate=0.2" in done.stdout
    (tmp_path / "mine-2.training").mkdir()
    assert "mine-3" in panic("again", "mine", "--dry-run", "--trust").stdout
    done = panic("again", "mine", "--name", "mine-2", "--dry-run", "--trust")
    assert (done.exit_code, "There is a training in" in done.stderr) == (2, True)
    done = panic("again", "mine", "--name", "../mine", "--dry-run", "--trust")
    assert (done.exit_code, "cannot be the name of a folder" in done.stderr) == (2, True)
    done = panic("again", "mine", "--set", "learning_rat=1", "--dry-run", "--trust")
    assert (done.exit_code, "learning_rate" in done.stderr) == (2, True)
    assert not (tmp_path / "mine").exists()


def test_a_stored_sweep_is_refused_and_no_file_of_rows_is_read(
    panic: Invoke, store: Path, tmp_path: Path
) -> None:
    told = small.config("autoencoder", tmp_path).model_dump(mode="json")
    secret = tmp_path / "secret.csv"
    secret.write_text("hunter2\n")
    evil = {"model": {"base": {"values": ["PocketDiffusion", "/evil/model"]}, "autoencoder": None}}
    stored: dict[str, dict[str, Any]] = {
        "swept": {**told, **evil},
        "rows": {**told, "rows": str(secret)},
        "deep": {**told, "model": {"autoencoder": {"a": {"from": 0, "to": 1, "n": 2}}}},
    }
    own = ("--set", "output=own", "--set", f"data.folder={tmp_path}/pictures", "--dry-run")
    for name, config in stored.items():
        with Store(store) as opened:
            keep(opened, entry(name, folder=str(tmp_path / name), config=config))
        for command in (
            ("again", name, *own),
            ("again", name, *own, "--trust"),
            ("resume", name, "--dry-run"),
        ):
            done = panic(*command)
            assert (done.exit_code, "has a sweep in" in done.stderr) == (2, True), done.output
            assert "hunter2" not in done.output


def test_every_training_of_a_sweep_is_asked_about(panic: Invoke, store: Path, tmp_path: Path) -> None:
    told = small.config("autoencoder", tmp_path).model_dump(mode="json")
    with Store(store) as opened:
        keep(opened, entry("mine", folder=str(tmp_path / "mine"), config=told))
    Path("grid.csv").write_text("learning_rate,data.captions\n0.1,\n0.2,/evil/captions.csv\n")
    own = ("--set", "output=own", "--set", f"data.folder={tmp_path}/pictures", "--set", "rows=grid.csv")
    done = panic("again", "mine", *own, "--dry-run")
    assert (done.exit_code, "data.captions: /evil/captions.csv" in done.stderr) == (2, True), done.output


def test_a_sweep_made_again_takes_the_next_number(panic: Invoke, store: Path, tmp_path: Path) -> None:
    told = small.config("autoencoder", tmp_path).model_dump(mode="json")
    sweep = ("--set", "learning_rate={values: [0.1, 0.2]}", "--trust", "--dry-run")
    with Store(store) as opened:
        keep(opened, entry("mine", folder=str(tmp_path / "mine"), config=told))
    (tmp_path / "mine-2-learning_rate=0.1.training").mkdir()
    with Store(store) as opened:
        keep(opened, entry("mine-3-seed=1", folder=str(tmp_path / "mine-3-seed=1")))
    done = panic("again", "mine", *sweep)
    assert done.exit_code == 0, done.output
    assert f"{tmp_path}/mine-4-learning_rate=0.2" in done.stdout.replace("\n", "")
    done = panic("again", "mine", "--name", "mine-2", *sweep)
    assert (done.exit_code, "another name" in done.stderr) == (2, True)
    done = panic("again", "mine", "--set", f"output={tmp_path}/mine-2", *sweep)
    assert (done.exit_code, "another path: --set output=PATH" in done.stderr) == (2, True)
    done = panic("again", "mine", "--name", "other", "--set", "output=own", "--trust", "--dry-run")
    assert (done.exit_code, "Give either --name" in done.stderr) == (2, True)


@pytest.mark.slow
def test_what_has_the_same_recipe_was_made_from_none_and_keeps_its_label(
    panic: Invoke, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where git signs, and the key is nowhere."""
    assert panic("train", write(tmp_path, steps=1, evaluate_every=2), "--quiet").exit_code == 0
    assert panic("label", tmp_path / "model", "the first").exit_code == 0
    settings = tmp_path / "gitconfig"
    settings.write_text(f"[user]\nname = me\nsigningkey = {tmp_path}/none.pub\n[gpg]\nformat = ssh\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(settings))
    done = panic(
        "again", "model", "--set", "steps=2", "--tag", "fast", "--label", "long", "--trust", "--quiet"
    )
    assert done.exit_code == 0, done.output
    assert "has the recipe of model: tags and label are of both" in done.stderr
    assert "Its label stays as it was: the first." in done.stderr
    first, second = found(panic)
    assert (first["label"], second["name"], second["step"]) == ("the first", "model-2", 2)
    assert second["tags"] == ["fast"]
    assert "made from" not in panic("show", "model-2").stdout
    changed = ("--set", "steps=1", "--set", "learning_rate=0.01", "--label", "other")
    done = panic("again", "model", *changed, "--trust", "--quiet")
    assert done.exit_code == 0, done.output
    assert found(panic)[-1]["label"] == "other"
    assert "made from:        model (" in panic("show", "model-3").stdout
    with Store(store) as opened:
        remarks = [row for row in list_annotations(opened, "training") if row.kind != "folder"]
    told = [(row.kind, row.text if row.kind != "origin" else "") for row in remarks]
    assert told == [("label", "the first"), ("tag", "fast"), ("origin", ""), ("label", "other")]
    assert all(row.signature is None for row in remarks)


def test_a_training_of_another_host_is_not_stopped(panic: Invoke, store: Path, tmp_path: Path) -> None:
    beside = tmp_path / "mine.training"
    beside.mkdir()
    with Store(store) as opened:
        keep(opened, entry("mine", folder=str(tmp_path / "mine")))
    assert panic("stop", "mine").stdout == "Nobody performs mine.\n"
    assert panic("stop", "nothing").exit_code == 2
    with (beside / "lock").open("w") as lock:
        lock.write(json.dumps({"pid": 1, "host": "elsewhere", "started_at": 1.0}))
        lock.flush()
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = panic("stop", "mine")
    assert (done.exit_code, "process 1 on elsewhere" in done.stderr) == (1, True)


def test_a_training_is_deleted_comes_back_and_is_purged(panic: Invoke, store: Path) -> None:
    """Its entry, that is: nothing in its folder is the store's."""
    with Store(store) as opened:
        for name in ("mine", "other"):
            keep(opened, entry(name, ended_at=2.0, end_state="failed"))
        keep(opened, entry("busy", host=os.uname().nodename, pid=os.getpid(), started_at=time.time()))
    assert panic("tag", "mine", "good").exit_code == 0
    dump = panic("dump").stdout
    done = panic("delete", "mine")
    assert (done.exit_code, "nobody is there to be asked" in done.stderr) == (2, True)
    done = panic("delete", "busy", "-y")
    assert (done.exit_code, "panic stop /somewhere/busy" in done.stderr) == (2, True)
    done = panic("delete", "mine", "-y")
    assert done.exit_code == 0, done.output
    assert "what is in /somewhere/mine stays" in done.stdout
    assert [row["name"] for row in found(panic)] == ["other", "busy"]
    assert found(panic, "--where", "name = mine") == []
    assert panic("show", "mine").exit_code == 2
    assert panic("dump").stdout == dump
    [row] = json.loads(panic("undelete", "--json").stdout)
    assert (row["name"], row["kind"], row["folder"]) == ("mine", "training", "/somewhere/mine")
    assert "training" in panic("undelete").stdout
    assert panic("undelete", "mine").stdout == "mine is back.\n"
    [row] = found(panic, "--where", "name = mine")
    assert row["tags"] == ["good"]
    assert panic("delete", "--of", "training", "--where", "state = failed", "-y").exit_code == 0
    assert [row["name"] for row in found(panic)] == ["busy"]
    with Store(store) as opened:  # it goes on
        keep(opened, entry("other", step=5, updated_at=time.time() + 1))
    assert [row["name"] for row in found(panic)] == ["other", "busy"]
    done = panic("purge", "mine", "-y")
    assert done.exit_code == 0, done.output
    assert "mine: the entry of a training; /somewhere/mine stays" in done.stdout
    assert panic("undelete", "mine").exit_code == 2
    with Store(store) as opened:
        assert [row.target for row in list_annotations(opened, "training")] == [entry("other").uid]
    assert panic("check").exit_code == 0


def test_of_several_to_delete_none_goes_if_one_cannot(panic: Invoke, store: Path) -> None:
    with Store(store) as opened:
        keep(opened, entry("mine", ended_at=2.0, end_state="failed"))
        keep(opened, entry("ahead", ended_at=2.0, end_state="failed", updated_at=time.time() + 1e6))
    done = panic("delete", "--of", "training", "--where", "state = failed", "-y")
    assert (done.exit_code, "ahead goes on elsewhere" in done.stderr) == (2, True)
    assert [row["name"] for row in found(panic)] == ["mine", "ahead"]
    with Store(store) as opened:
        assert list_annotations(opened, "training") == []


def test_what_any_source_shows_of_trainings_is_there_unless_the_target_deleted_it(
    panic: Invoke, store: Path
) -> None:
    with Store(store) as opened:
        keep(opened, entry("mine", ended_at=2.0, end_state="failed"))
    assert panic("snapshot", store, "copy").exit_code == 0
    assert panic("tag", "mine", "odd").exit_code == 0
    assert panic("delete", "mine", "-y").exit_code == 0
    for sources in (("panic-store", "copy"), ("copy", "panic-store")):
        assert panic("merge", *sources, "--into", sources[0] + "-merged").exit_code == 0
        assert [row["tags"] for row in found(panic, "--store", sources[0] + "-merged")] == [[]]
    assert panic("merge", "panic-store", "--into", "alone").exit_code == 0
    assert found(panic, "--store", "alone") == []
    assert panic("merge", "panic-store", "--into", "copy").exit_code == 0
    assert [row["name"] for row in found(panic, "--store", "copy")] == ["mine"]
    assert panic("merge", "copy", "--into", "panic-store").exit_code == 0
    assert found(panic) == []
    with Store("copy") as opened:
        keep(opened, entry("mine", step=5, updated_at=time.time() + 1))
    assert panic("merge", "copy", "--into", "panic-store").exit_code == 0
    assert [row["step"] for row in found(panic)] == [5]
    assert panic("check").exit_code == 0


def test_a_training_has_a_project(panic: Invoke, store: Path) -> None:
    with Store(store) as opened:
        for name, loss in (("mine", 0.5), ("other", 0.25), ("third", 0.75)):
            keep(opened, entry(name, val_loss=loss, config={"learning_rate": loss}))
    assert "is in no project" in panic("project", "mine").stdout
    for name in ("mine", "third"):
        assert panic("project", f"/somewhere/{name}", "night").exit_code == 0
    assert [row["name"] for row in found(panic, "--project", "night")] == ["mine", "third"]
    assert [row["project"] for row in found(panic, "--where", "project = night")] == ["night"] * 2
    ranked = panic("best", "--of", "training", "--by", "val_loss", "--least", "--project", "night", "--json")
    assert [row["name"] for row in json.loads(ranked.stdout)] == ["mine", "third"]
    compared = panic("compare", "--of", "training", "--project", "night", "--json")
    assert json.loads(compared.stdout)["trainings"] == ["mine", "third"]
    done = panic("trainings", "--project", "nigth")
    assert (done.exit_code, "Did you mean night?" in done.stderr) == (2, True)
    assert panic("project", "mine", "").exit_code == 0
    assert [row["name"] for row in found(panic, "--project", "night")] == ["third"]


@pytest.mark.slow
def test_what_a_training_is_called_in_its_config_is_said_of_it(
    panic: Invoke, store: Path, tmp_path: Path
) -> None:
    """As of an experiment: what people said since holds, and none of it is part of the recipe."""
    said = {"tags": ["fast", "first"], "label": "a label", "project": "night"}
    config = write(tmp_path, steps=1, evaluate_every=5, **{**said, "tags": ["fast"], "label": "old"})
    given = ("--tag", "fast", "--tag", "first", "--label", "a label")
    assert panic("train", config, *given, "--quiet").exit_code == 0
    [row] = found(panic, "--project", "night")
    assert (row["tags"], row["label"], row["project"]) == (["fast", "first"], "a label", "night")
    assert "is in the project night" in panic("project", "model").stdout
    assert panic("untag", "model", "fast").exit_code == 0
    assert panic("label", "model", "another").exit_code == 0
    assert panic("project", "model", "day").exit_code == 0
    changed = write(tmp_path, steps=2, evaluate_every=5, **{**said, "tags": ["fast", "first", "late"]})
    assert panic("train", changed, "--quiet").exit_code == 0
    [row] = found(panic)
    assert (row["step"], row["tags"], row["label"]) == (2, ["first", "late"], "another")
    assert row["project"] == "day"
    assert panic("project", "model", "").exit_code == 0
    assert found(panic)[0]["project"] == "night"
    again = ("--set", "learning_rate=0.01", "--set", "label=its own", "--trust", "--quiet")
    assert panic("again", "model", *again).exit_code == 0
    made = found(panic)[-1]
    assert (made["name"], made["tags"], made["label"]) == ("model-2", [], "its own")
    assert made["project"] == "night"


def test_what_cannot_be_said_of_a_training_is_told(panic: Invoke, store: Path, tmp_path: Path) -> None:
    wrong: dict[str, Any] = {"tags": ["two words"], "label": "two\nlines", "project": "no such/"}
    done = panic("train", write(tmp_path, **wrong), "--dry-run")
    assert done.exit_code == 2
    for place in ("tags", "label", "project"):
        assert place in done.stderr
    assert panic("train", write(tmp_path), "--tag", "two words", "--dry-run").exit_code == 2


@pytest.mark.slow
def test_the_settings_say_the_project_of_a_training_that_names_none(
    panic: Invoke, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("panic.toml").write_text('project = "ours"\n')
    assert panic("train", write(tmp_path, steps=1), "--quiet").exit_code == 0
    assert found(panic)[0]["project"] == "ours"
    assert panic("train", write(tmp_path, steps=2, project="own"), "--quiet").exit_code == 0
    assert found(panic)[0]["project"] == "own"
    monkeypatch.setenv("PANIC_PROJECT", "night")
    assert panic("train", write(tmp_path, steps=3, project="own"), "--quiet").exit_code == 0
    assert found(panic)[0]["project"] == "night"
