"""Where a training comes from: its config again, what to install, data and models, the energy it took."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from panic.cli import training_course
from panic.cli.training_course import TrainingSession, entry_of, performing
from panic.models.weights import folder_digest
from panic.store import Store, provenance
from panic.store.trainings import keep, list_trainings
from panic.train.config import load, recipe
from panic.train.loop import TrainingProgress
from panic.train.standing import Standing
from tests.cli.conftest import Invoke
from tests.cli.test_trainings import _quiet_loggers, found, write
from tests.store.sample import entry
from tests.train import small

__all__ = ["_quiet_loggers"]


@pytest.fixture
def store(written: Path) -> Path:
    return written


@pytest.mark.parametrize("task", sorted(small.MODELS))
def test_the_config_of_a_training_performs_it_again(
    panic: Invoke, store: Path, tmp_path: Path, task: str
) -> None:
    told = small.config(task, tmp_path, tags=["fast"], label="a [label]: one")
    with Store(store) as opened:
        keep(opened, entry("mine", config=told.model_dump(mode="json")))
    done = panic("show", "mine", "--config")
    assert done.exit_code == 0, done.output
    Path("again.yaml").write_text(done.stdout)
    assert load("again.yaml") == told
    assert recipe(load("again.yaml")) == recipe(told)
    assert "learning_rate" not in done.stdout
    assert json.loads(panic("show", "mine", "--config", "--json").stdout)["learning_rate"] == 5e-4
    done = panic("show", "mine", "--run", 1)
    assert (done.exit_code, done.stdout, "which has no runs" in done.stderr) == (2, "", True)


def test_a_config_of_another_version_is_printed_as_it_is(panic: Invoke, store: Path) -> None:
    with Store(store) as opened:
        keep(opened, entry("mine", config={"task": "weaving", "threads": 3}))
    done = panic("show", "mine", "--config")
    assert (done.exit_code, "task" in done.stderr) == (2, True)
    told = json.loads(panic("show", "mine", "--config", "--json").stdout)
    assert told == {"task": "weaving", "threads": 3}


@pytest.mark.slow
def test_a_training_says_what_to_install_and_what_it_learns_from(
    panic: Invoke, store: Path, tmp_path: Path
) -> None:
    """And a training that goes on from its model says which, both ways."""
    assert panic("train", write(tmp_path, steps=1), "--quiet").exit_code == 0
    lines = panic("requirements", "model").stdout.splitlines()
    with Store(store) as opened:
        [row] = list_trainings(opened)
    versions = row.provenance["packages"]
    assert lines[0] == "# To repeat model, as its last session had it."
    assert f"numpy=={versions['numpy']}" in lines
    assert not any(line.startswith("pytest==") for line in lines)
    assert f"pytest=={versions['pytest']}" in panic("requirements", row.uid[:12], "--all").stdout
    digest = json.loads((tmp_path / "model.training" / "recipe.json").read_text())["data_digest"]
    assert row.provenance["data"] == {"from": str(tmp_path / "pictures"), "digest": digest}
    assert f"# data: {tmp_path}/pictures, of digest {digest}" in lines
    assert all(line.startswith("#") or "==" in line for line in lines)
    told = panic("show", "model").stdout
    assert f"learns from:      {tmp_path}/pictures ({digest[:12]})" in told
    assert f"numpy {versions['numpy']}" in told
    based = {"model": {"base": str(tmp_path / "model")}, "output": str(tmp_path / "next"), "steps": 1}
    assert panic("train", write(tmp_path, **based), "--quiet").exit_code == 0
    with Store(store) as opened:
        row = list_trainings(opened)[-1]
    base = row.provenance["models"]["base"]
    assert base["digest"] == folder_digest(tmp_path / "model")
    assert base["training"] == found(panic)[0]["id"]
    assert base["training"][:12] in panic("show", "next").stdout
    assert f"# model base: the folder {tmp_path}/model" in panic("requirements", "next").stdout


def test_a_training_that_recorded_no_packages_says_so(panic: Invoke, store: Path) -> None:
    with Store(store) as opened:
        keep(opened, entry("mine"))
    done = panic("requirements", "mine")
    assert (done.exit_code, "No session of mine has recorded its packages" in done.stderr) == (2, True)


def test_what_gpus_have_used_is_recorded_when_a_training_ends(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provenance, "gpu_energy_j", lambda: {"GPU-1": 7.5})
    loaded = small.config("autoencoder", tmp_path)
    known: dict[str, Any] = {"began_at": 1.0, "log": tmp_path / "log", "provenance": {}}
    with performing(loaded, TrainingSession(**known, energy={"GPU-1": 5.0}), store) as course:
        (tmp_path / "model.training" / "recipe.json").write_text("{}")
        course.hear(TrainingProgress(step=6, steps=6))
    with Store(store) as opened:
        [row] = list_trainings(opened)
    assert row.provenance["gpu_energy_j"] == {"GPU-1": 2.5}
    [session] = (tmp_path / "model.training" / "sessions.jsonl").read_text().splitlines()
    assert json.loads(session)["provenance"]["gpu_energy_j"] == {"GPU-1": 2.5}
    without = entry_of(loaded, TrainingSession(**known), Standing(step=1))
    assert "gpu_energy_j" not in without.provenance


def test_models_that_are_not_there_are_told_by_the_training_itself(tmp_path: Path) -> None:
    loaded = small.config("contrastive", tmp_path, model={"base": "no/such-model"})
    assert training_course.models_of(loaded) == {"base": {"source": "no/such-model"}}
    loaded = small.config("contrastive", tmp_path)
    assert training_course.models_of(loaded) == {}
