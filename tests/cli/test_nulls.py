"""`panic nulls`: null models beside an experiment, from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from panic.analysis.nulls import kinds
from panic.store import Store, check, reading

from .conftest import Invoke

NULL = "demo/null-shuffled"


def test_null_models_are_written_listed_reported_and_deleted(panic: Invoke, store: Path) -> None:
    listed = json.loads(panic("list", "--json").stdout)
    done = panic("nulls", "demo", "shuffled", "markov")
    assert done.exit_code == 0, done.stderr
    assert "demo/null-shuffled: 6 runs (0 stuck, 0 failed), " in done.stdout
    assert done.stdout.count("6 diagrams") == 2
    now = json.loads(panic("list", "--json").stdout)
    assert now[: len(listed)] == listed
    assert [row["name"] for row in now[len(listed) :]] == [
        *("demo/null-shuffled", "demo/null-shuffled-images", "demo/null-markov", "demo/null-markov-images"),
    ]
    assert {row["state"] for row in now[len(listed) :]} == {"complete"}
    assert "broken" in panic("show").stdout.split("\n", 1)[0]  # still the latest
    assert json.loads(
        panic("table", "time", "demo", "demo/null-markov", "--part", "summary", "--json").stdout
    )
    with Store(store) as opened:
        assert check.check(opened) == []
    done = panic("delete", "demo", "--yes")
    assert "with demo/null-shuffled, demo/null-shuffled-images, demo/null-markov, " in done.stdout
    with Store(store) as opened:
        assert [row.name for row in reading.experiments(opened)] == ["broken"]


@pytest.mark.slow
def test_a_report_of_null_models_has_a_name_without_a_folder(panic: Invoke, store: Path) -> None:
    assert panic("nulls", "demo", "shuffled").exit_code == 0
    done = panic("report", "demo/null-shuffled")
    assert done.exit_code == 0, done.stderr
    assert (store / "reports" / "demo-null-shuffled.html").is_file()


def test_all_beside_a_kind_means_all_and_a_misspelt_kind_beside_it_is_told(
    panic: Invoke, store: Path
) -> None:
    done = panic("nulls", "demo", "all", "shufled")
    assert "There is no null model 'shufled'" in done.stderr
    done = panic("nulls", "demo", "matched_walk", "shufled")
    assert "There is no null model 'shufled'" in done.stderr
    with Store(store) as opened:  # told before the first is written
        assert not reading.nulls(opened, "demo")
    assert panic("nulls", "demo", "shuffled", "all").exit_code == 0
    with Store(store) as opened:
        found = {row.name.removeprefix("demo/null-") for row in reading.nulls(opened, "demo")}
    assert found >= set(kinds())


def test_mistakes_are_answered(panic: Invoke, store: Path) -> None:
    assert "Did you mean shuffled?" in panic("nulls", "demo", "shufled").stderr
    assert panic("nulls", "demo").exit_code == 2
    assert panic("nulls", "demo", "shuffled").exit_code == 0
    for command in ("embed", "diagrams"):
        arguments = ["demo/null-shuffled", *(["circle"] if command == "embed" else [])]
        assert "panic nulls brings it up to date" in panic(command, *arguments).stderr
    assert "demo/null-shuffled is complete." in panic("resume", "demo/null-shuffled").stdout


@pytest.mark.parametrize(
    "command",
    [["verify", NULL], ["resume", NULL, "--repair"], ["show", NULL, "--config"], ["embed", NULL, "x"]],
)
def test_what_needs_a_config_is_refused_for_null_models_with_the_reason(
    panic: Invoke, store: Path, command: list[str]
) -> None:
    assert panic("nulls", "demo", "shuffled").exit_code == 0
    done = panic(*command)
    assert done.exit_code == 2
    assert "demo/null-shuffled holds null models: no config performs it" in done.stderr
    assert "null_of" not in done.output
