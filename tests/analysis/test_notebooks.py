"""Every notebook runs top to bottom without a screen, on the demo and on the controls."""

from __future__ import annotations

import ast
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image

from panic import load_config, run
from panic.store import Store, reading
from panic.train.journal import Journal, Profile

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "analysis").glob("*.py"))
OF_AN_EXPERIMENT = {"quickstart", "is_it_stuck", "topology", "controls", "compare_networks"}
OURS = "panic.analysis"
ALLOWED = {
    f"{OURS}.{name}"
    for name in ("charts", "dynamics", "nulls", "statistics", "evidence", "notebooks", "questions")
}
NAMES = OF_AN_EXPERIMENT | {"training_curves", "bring_your_own"}


SMALL = {  # by what it lacks; neither has vectors
    "texts": {"networks": [["jpeg", "blur"]], "models": {n: {"base": n} for n in ("jpeg", "blur")}},
    "pictures": {"networks": [["shuffle-words"]], "prompts": ["a red circle above a square"]},
    "steps": {"networks": [["shuffle-words"]], "prompts": ["a red circle"], "max_length": 2},
}


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The demo, shortened, and the synthetic controls with several networks."""
    folder = tmp_path_factory.mktemp("notebooks")
    for name, changes in {"demo": ["max_length=16"], "synthetic": ["max_length=40"]}.items():
        run(load_config(ROOT / "configs" / f"{name}.yaml", overrides=changes), store=folder / name)
    return {name: folder / name for name in ("demo", "synthetic")}


def performed(name: str, **environment: str | Path) -> subprocess.CompletedProcess[str]:
    """A notebook as a script, in this environment."""
    added = {key: str(value) for key, value in environment.items()} | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, str(ROOT / "analysis" / f"{name}.py")],
        env={**os.environ, **added}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip


def assert_good(done: subprocess.CompletedProcess[str]) -> None:
    assert done.returncode == 0, done.stderr[-3000:]
    assert not re.search(r"Traceback|Error", done.stderr), done.stderr[-3000:]


def test_all_notebooks_are_there_and_say_how_to_open_them():
    assert {path.stem for path in NOTEBOOKS} == NAMES
    for path in NOTEBOOKS:
        source = path.read_text(encoding="utf-8")
        assert f"marimo edit analysis/{path.name}" in source
        assert 'if __name__ == "__main__":\n    app.run()' in source
        assert ("experiment_choice(store)" in source) == (path.stem in OF_AN_EXPERIMENT)


def claims(source: str) -> set[str]:
    """What a notebook takes of panic.analysis beyond questions, and of its statistics beyond `decompose`.

    A module counts by whatever name it is imported, and wherever that name is used.
    """
    tree = ast.parse(source)
    modules, names = set(), {}  # what is imported; what a name of the notebook stands for
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for one in node.names:
                modules.add(one.name)
                names[one.asname or one.name] = one.name
        elif isinstance(node, ast.ImportFrom):
            for one in node.names:
                whole = f"{node.module}.{one.name}"
                modules.add(whole if node.module == "panic.analysis" else str(node.module))
                names[one.asname or one.name] = whole
                if node.module == f"{OURS}.statistics":
                    modules.add(whole)
    used = {
        f"{names[ast.unparse(node.value)]}.{node.attr}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) in names
    }
    taken = {one for one in modules | used if one.startswith(f"{OURS}.") or one == OURS}
    tests = {one for one in taken if one.startswith(f"{OURS}.statistics.")}
    others = {one for one in modules if one.startswith(OURS)} - tests - ALLOWED
    return others | (tests - {f"{OURS}.statistics.decompose"})


def test_what_notebooks_claim_is_claimed_by_the_questions():
    """Tests of their own, and a rule of their own on movement, said the opposite of the report."""
    for path in NOTEBOOKS:
        assert not claims(path.read_text(encoding="utf-8")), f"{path}: p values are the questions'"


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("from panic.analysis import statistics as st\nst.permanova(x)", "statistics.permanova"),
        ("from panic.analysis import statistics\nstatistics.permanova(x)", "statistics.permanova"),
        ("import panic.analysis.statistics as st\nst.kruskal(x)", "statistics.kruskal"),
        ("import panic.analysis.statistics\npanic.analysis.statistics.kruskal(x)", "statistics.kruskal"),
        ("from panic.analysis.statistics import kruskal as k", "statistics.kruskal"),
        ("from panic.analysis import chance", "chance"),
        ("from panic.analysis.chance import matching", "chance"),
        ("import panic.analysis.chance as chance", "chance"),
        ("import panic.analysis as a\na.statistics.kruskal(x)", ""),
    ],
)
def test_a_claim_of_a_notebooks_own_is_found_by_whatever_name(source, found):
    """`from panic.analysis import statistics as st` slipped past: the module was known by its name alone."""
    assert claims(source) == {f"{OURS}.{found}".rstrip(".")}


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", sorted(OF_AN_EXPERIMENT))
@pytest.mark.parametrize("store", ["demo", "synthetic"])
def test_it_runs_top_to_bottom(name, store, stores):
    assert_good(performed(name, PANIC_STORE=stores[store], PANIC_EXPERIMENT=store))


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("lacking", SMALL)
def test_it_says_what_an_experiment_lacks(lacking, tmp_path):
    """Of an experiment without texts, vectors or enough steps three of five ended with an error."""
    Image.new("RGB", (16, 16), "red").save(tmp_path / "red.png")
    values = {"name": "small", "prompts": {"images": str(tmp_path)}, "seeds": [42, -1], "max_length": 12}
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump({**values, **SMALL[lacking]}))
    assert run(path, tmp_path / "store").counts.failed == 0
    for name in sorted(OF_AN_EXPERIMENT):
        assert_good(performed(name, PANIC_STORE=tmp_path / "store"))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_trajectories_made_elsewhere_are_imported_embedded_and_asked(tmp_path):
    assert_good(performed("bring_your_own", PANIC_IMPORT_STORE=tmp_path / "store"))
    with Store(tmp_path / "store") as store:
        row = reading.experiment(store, "telephone")
        counts = reading.counts(store, row.id)
    assert (counts.done, counts.invocations, row.config["embeddings"]) == (15, 450, ["PocketText"])


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_trainings_are_shown_side_by_side(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        journal, profile = Journal(tmp_path / name, is_writer=True), Profile(torch.device("cpu"))
        for step in range(1, 101):
            journal.loss(step, 1 / step, 1e-3)
        journal.evaluation(100, {"accuracy": 0.5}, Image.new("RGB", (8, 8)) if name == "one" else "a text")
        journal.profile(100, profile)
    assert_good(performed("training_curves", PANIC_TRAINING=tmp_path))
    assert_good(performed("training_curves", PANIC_TRAINING=tmp_path / "one"))
    assert_good(performed("training_curves", PANIC_TRAINING=tmp_path / "none"))


@pytest.mark.slow
@pytest.mark.parametrize("named", [".", "one", "one.training"])
def test_a_training_is_found_by_its_models_name(named, tmp_path, monkeypatch):
    """Journals lie in NAME.training beside the model NAME, under which nothing was found."""
    (tmp_path / "one").mkdir()
    (tmp_path / "one.training").mkdir()
    Journal(tmp_path / "one.training", is_writer=True).loss(1, 0.5, 1e-3)
    monkeypatch.setenv("PANIC_TRAINING", str(tmp_path / named))
    notebook = runpy.run_path(str(ROOT / "analysis" / "training_curves.py"))
    _, found = notebook["app"].run()
    assert list(found["folders"]) == ["one"]


@pytest.mark.slow
@pytest.mark.parametrize(("store", "experiment"), [("none", ""), ("demo", "demq")])
def test_a_notebook_without_a_store_or_experiment_fails_with_the_reason(store, experiment, stores, tmp_path):
    place = stores.get(store, tmp_path / store)
    done = performed("quickstart", PANIC_STORE=place, PANIC_EXPERIMENT=experiment)
    assert done.returncode != 0
    assert (experiment or "none") in done.stderr
