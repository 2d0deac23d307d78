"""Commands that take experiments, runs and trainings alike, and projects wherever experiments are found."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from panic.cli.finding import experiment_of
from panic.store import Store, reading, writing
from panic.store.annotations import list_annotations
from panic.store.trainings import keep
from tests.cli.conftest import Invoke
from tests.store.sample import entry


@pytest.fixture
def store(written: Path) -> Path:
    return written


@pytest.fixture
def kinds(store: Path) -> Path:
    """The store with trainings: two of one recipe in two folders, one of another; one has no measure yet."""
    with Store(store) as opened:
        keep(opened, entry("one", val_loss=0.5, measures={"accuracy": 0.75}))
        keep(opened, entry("one", folder="/elsewhere/one", val_loss=0.125))
        keep(opened, entry("two", val_loss=0.25))
        keep(opened, entry("three"))
    return store


def test_trainings_and_runs_are_ranked_by_their_numbers(panic: Invoke, kinds: Path) -> None:
    of_trainings = ("best", "--of", "training", "--by", "val_loss", "--json")
    least = json.loads(panic(*of_trainings, "--least").stdout)
    assert [(one["folder"], one["val_loss"]) for one in least] == [
        ("/elsewhere/one", 0.125), ("/somewhere/two", 0.25), ("/somewhere/one", 0.5),
    ]  # fmt: skip
    [most] = json.loads(panic(*of_trainings, "--limit", 1).stdout)
    assert most["val_loss"] == 0.5
    measured = panic("best", "--of", "training", "--by", "measures.accuracy", "--where", "val_loss > 0.2")
    assert "0.75" in measured.stdout
    runs = json.loads(panic("best", "--of", "run", "--by", "period", "alpha", "--json").stdout)
    with Store(kinds) as opened:
        known = [run.period for run in reading.runs(opened, "alpha") if run.state == "stuck"]
    assert [one["period"] for one in runs] == sorted(known, reverse=True) != []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("best", "--of", "training", "--by", "val_los"), "Did you mean val_loss?"),
        (("best", "--of", "training", "--by", "name"), "name is no number"),
        (("best", "--of", "training", "--by", "loss", "alpha"), "Trainings are of no experiment"),
        (
            ("best", "--of", "training", "--by", "loss", "--project", "colours"),
            "No training of panic-store is in the project",
        ),
        (("compare", "--of", "training", "one", "nothing"), "There is no training 'nothing'"),
        (("compare", "--of", "training", "one"), "Two trainings are needed"),
        (("tag", "odd", "--of", "training"), "--where says which ones"),
        (("tag", "odd", "--of", "training", "--where", "name = nothing"), "No training in"),
        (("tag", "--of", "training", "--where", "name = one"), "Missing argument"),
        (("tag", "alpha"), "A tag is needed"),
        (("label", "a", "b", "--of", "run", "--where", "run > 0"), "put it in quotes"),
        (("stuck", "beta", "--project", "colour"), "Did you mean colours?"),
    ],
)
def test_what_is_no_such_kind_is_told(
    panic: Invoke, kinds: Path, arguments: tuple[str, ...], said: str
) -> None:
    done = panic(*arguments)
    assert done.exit_code in (1, 2)
    assert said in done.stderr
    with Store(kinds) as opened:
        assert list_annotations(opened) == []


def test_many_trainings_are_marked_at_once(panic: Invoke, kinds: Path) -> None:
    assert panic("tag", "good", "first", "--of", "training", "--where", "val_loss < 0.3").exit_code == 0
    assert panic("label", "a label", "--of", "training", "--where", "'good' in tags").exit_code == 0
    assert panic("comment", "well done", "--of", "training", "--where", "name = two").exit_code == 0
    found = json.loads(panic("trainings", "--json").stdout)
    marked = {one["folder"]: (one["tags"], one["label"]) for one in found}
    both = (["good", "first"], "a label")
    # Remarks are on a recipe, wherever its model lies.
    same = dict.fromkeys(("/somewhere/one", "/elsewhere/one", "/somewhere/two"), both)
    assert marked == same | {"/somewhere/three": ([], None)}
    assert "well done" in panic("comment", "--of", "training", "--where", "name = two").stdout
    assert panic("untag", "first", "--of", "training", "--where", "name = two").exit_code == 0
    with Store(kinds) as opened:
        assert len(list_annotations(opened)) == 2 * 2 + 2 + 1 + 1


def test_experiments_and_runs_of_the_whole_store_are_marked_at_once(panic: Invoke, kinds: Path) -> None:
    assert panic("tag", "odd", "--of", "experiment", "--where", "failed > 0").stdout.startswith("alpha")
    assert panic("tag", "seen", "--of", "run", "--where", "run > 0").stdout == "5 runs\n"
    listed = json.loads(panic("list", "--runs", "--json", "--where", "'seen' in tags").stdout)
    assert {one["name"] for one in listed} == {"alpha", "beta"}


def test_trainings_that_a_filter_finds_are_compared(panic: Invoke, kinds: Path) -> None:
    found = json.loads(panic("compare", "--of", "training", "--where", "val_loss > 0.2", "--json").stdout)
    assert found["trainings"] == ["one", "two"]
    assert {one["field"] for one in found["differences"]} == {"val_loss", "measures.accuracy"}


def test_a_project_finds_experiments_everywhere(panic: Invoke, store: Path) -> None:
    """Two experiments of two projects: what names no experiment is of those of the project."""
    assert panic("project", "beta", "shapes").exit_code == 0
    listed = json.loads(panic("stuck", "--project", "colours", "--json").stdout)
    assert listed
    assert {one["experiment"] for one in listed} == {"alpha"}
    assert panic("stuck", "--project", "shapes", "--where", "seed = -1").exit_code == 2
    assert panic("stuck", "beta", "--project", "colours").exit_code == 2
    for command in (("show",), ("status",), ("returns",), ("table", "stuck"), ("report",)):
        done = panic(*command, "--project", "colours")
        assert done.exit_code == 0, done.output
        assert "beta" not in done.output
    assert json.loads(panic("show", "--project", "colours", "--json").stdout)["name"] == "alpha"
    assert "alpha-grid.png" in panic("images", "--grid", "--project", "colours").stdout
    assert panic("export", "--project", "colours", "-o", "tables").exit_code == 0
    import polars

    assert polars.read_parquet("tables/experiment.parquet")["name"].to_list() == ["alpha"]
    assert "Two experiments are needed" in panic("compare", "--project", "colours").stderr
    assert panic("project", "beta", "colours").exit_code == 0
    compared = json.loads(panic("compare", "--project", "colours", "--json").stdout)
    assert compared["experiments"] == ["alpha", "beta"]


def test_trainings_come_back_from_an_export(panic: Invoke, kinds: Path) -> None:
    assert panic("tag", "good", "--of", "training", "--where", "name = two").exit_code == 0
    assert panic("export", "-o", "tables", "--images").exit_code == 0
    done = panic("import", "tables", "--store", "back")
    assert (done.exit_code, "4 trainings" in done.stdout) == (0, True), done.output
    listed = ("trainings", "--json", "--sort", "folder")
    assert json.loads(panic(*listed, "--store", "back").stdout) == json.loads(panic(*listed).stdout)
    with Store("back") as opened:
        keep(opened, entry("two", val_loss=0.1, updated_at=5.0))
        keep(opened, entry("three", val_loss=0.1, updated_at=0.5))
    assert panic("import", "tables", "--store", "back").exit_code == 0
    found = json.loads(panic("trainings", "--json", "--store", "back").stdout)
    # Of two states of one training the later one stays, as in a merge.
    assert {one["name"]: one["val_loss"] for one in found if one["name"] != "one"} == {
        "two": 0.1,
        "three": None,
    }


def test_a_store_of_trainings_alone_comes_back_from_an_export(panic: Invoke, tmp_path: Path) -> None:
    with Store("few", write=True, create=True) as opened:
        keep(opened, entry("one"))
    assert panic("export", "-o", "tables", "--store", "few").exit_code == 0
    assert "1 training" in panic("import", "tables", "--store", "back").stdout
    assert [one["name"] for one in json.loads(panic("trainings", "--json", "--store", "back").stdout)] == [
        "one"
    ]


@pytest.mark.parametrize(
    ("change", "said"), [({"config": "[]"}, "cannot be imported"), ({"x, y": 1}, "has no columns x, y")]
)
def test_what_is_no_training_does_not_come_and_nothing_beside_it(
    panic: Invoke, kinds: Path, change: dict[str, object], said: str
) -> None:
    import polars

    assert panic("export", "-o", "tables", "--images").exit_code == 0
    file = "tables/training.parquet"
    polars.read_parquet(file).with_columns(**{k: polars.lit(v) for k, v in change.items()}).write_parquet(
        file
    )
    done = panic("import", "tables", "--store", "back")
    assert (done.exit_code, said in done.stderr) == (1, True), done.output
    assert not Path("back").exists()


def test_experiments_that_a_filter_finds_are_deleted_and_can_come_back(panic: Invoke, store: Path) -> None:
    with Store(store, write=True) as opened:
        writing.start_experiment(opened, "alpha/null-shuffle", {"project": "colours"})
    for arguments in ((), ("--run", 1, "--where", "failed > 0"), ("--project", "colour")):
        done = panic("delete", *arguments, "--yes")
        assert done.exit_code in (1, 2), done.output
    assert "nobody is there to be asked" in panic("delete", "--where", "failed > 0").stderr
    done = panic("delete", "--where", "failed > 0 or is_null = true", "--yes")
    assert (done.exit_code, "with alpha/null-shuffle" in done.stdout) == (0, True), done.output
    assert [one["name"] for one in json.loads(panic("list", "--json").stdout)] == ["beta"]
    assert panic("undelete", "alpha").exit_code == 0
    assert panic("delete", "--project", "colours", "--yes").exit_code == 0
    assert json.loads(panic("list", "--json").stdout) == []


def test_a_training_is_shown(panic: Invoke, kinds: Path) -> None:
    assert panic("tag", "two", "good").exit_code == 0
    shown = panic("show", "two").stdout
    assert "tags:             good" in shown
    assert "val_loss:         0.25" in shown
    found = json.loads(panic("show", "/somewhere/two", "--json").stdout)
    assert (found["tags"], found["config"], found["used_by"]) == (["good"], {"learning_rate": 0.1}, [])
    assert "--all: without effect for a training" in panic("show", "two", "--all").stderr
    assert "No experiment" in panic("show", "nothing").stderr


def test_an_experiment_comes_back_whose_vectors_another_one_has_made(panic: Invoke, store: Path) -> None:
    """Its outputs were embedded before: the batch is of a session that a part of the store does not have."""
    assert panic("export", "--where", "name = alpha", "-o", "tables", "--images").exit_code == 0
    done = panic("import", "tables", "--store", "back")
    assert done.exit_code == 0, done.output
    assert panic("check", "--store", "back").exit_code == 0
    with Store("back") as back, Store(store) as opened:
        assert len(reading.runs(back, "alpha")) == len(reading.runs(opened, "alpha"))


def test_null_models_are_ranked_where_they_are_asked_for(panic: Invoke, store: Path) -> None:
    with Store(store, write=True) as opened, opened.transaction() as connection:
        connection.execute("UPDATE experiment SET name = 'beta/null-shuffle' WHERE name = 'alpha'")
    command = ("best", "--of", "run", "--by", "period", "--json")
    assert json.loads(panic(*command).stdout) == []
    assert json.loads(panic(*command, "--where", "period > 0").stdout) != []


@pytest.mark.parametrize("name", ["alpha", "beta"])
def test_latest_of_a_project_is_the_one_last_worked_on(store: Path, name: str) -> None:
    with Store(store, write=True) as opened:
        writing.start_session(opened, reading.experiment(opened, name).id, "panic run", {})
        assert experiment_of(opened, "latest", "colours").name == name
