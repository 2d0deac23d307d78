"""`panic search`, and metrics as fields of listings."""

from __future__ import annotations

import csv
import io
import json
import os
from pathlib import Path

import pytest

import panic as library
from panic.analysis import load, measured
from panic.analysis.metrics import METRICS, metric
from panic.store import Store, reading, summaries

from .conftest import Invoke, write_config


def test_a_search_tells_where_texts_came_up(panic: Invoke, store: Path) -> None:
    with Store(store) as opened:
        row = reading.experiment(opened, "demo")
        (run, step, text) = opened.db.row(
            "SELECT run, step, text FROM invocation JOIN run ON run.id = run"
            " JOIN output ON output.id = output"
            " WHERE experiment = ? AND text NOTNULL ORDER BY run DESC LIMIT 1",
            row.id,
        )
    found = json.loads(panic("search", f'"{text}"', "--json").stdout)
    assert {"text", "output", "experiment", "run", "role", "steps"} == {*found[0]}
    mine = [one for one in found if (one["experiment"], one["run"], one["role"]) == ("demo", run, "output")]
    assert any(step in one["steps"] for one in mine)
    assert any(one["role"] == "prompt" for one in json.loads(panic("search", "state", "--json").stdout))
    lines = list(csv.DictReader(io.StringIO(panic("search", f'"{text}"', "--csv").stdout)))
    assert [line["run"] for line in lines] == [str(one["run"]) for one in found]
    assert [line["steps"] for line in lines] == [" ".join(map(str, one["steps"])) for one in found]
    told = panic("search", "stat*", "--limit", 2)
    assert "... and more: --limit N, --csv or --json" in told.stdout
    some = json.loads(panic("search", "state", "--where", f"run = {run}", "--json").stdout)
    assert {one["run"] for one in some} == {run}
    assert panic("search", "zebra").stdout == "No text has this.\n"
    assert json.loads(panic("search", "zebra", "--json").stdout) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "The query is empty"),
        (['"red'], 'A phrase is not closed.\n  "red\n  ^^^^'),
        (["red", "OR"], "ends too soon"),
        (["a*b"], "a*b\n   ^"),
        (["x", "--json", "--csv"], "Give either --csv or --json"),
        (["x", "--where", "colour = 1"], "There is no field 'colour'"),
        (["--", "-x"], "Only what is not to be there"),
    ],
)
def test_what_cannot_be_searched_is_told_with_its_place(
    panic: Invoke, store: Path, arguments: list[str], message: str
) -> None:
    done = panic("search", *arguments)
    assert done.exit_code == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_an_index_is_made_anew_on_request(panic: Invoke, store: Path) -> None:
    before = panic("search", "state", "--json").stdout
    done = panic("search", "--reindex")
    assert done.exit_code == 0
    assert "outputs are in the index" in done.stderr
    assert panic("search", "state", "--json").stdout == before
    assert panic("check").exit_code == 0
    assert "QUERY: without effect with --reindex" in panic("search", "x", "--reindex").stderr


def test_a_store_without_an_index_is_searched_all_the_same(panic: Invoke, store: Path) -> None:
    before = panic("search", "state", "--json").stdout
    with Store(store, write=True) as opened, opened.db.transaction() as connection:
        connection.execute("INSERT INTO caption (caption) VALUES ('delete-all')")
        connection.execute("DELETE FROM meta WHERE key = 'captions'")
    assert panic("search", "state", "--json").stdout == before


def test_metrics_are_columns_orders_and_filters_and_are_kept(panic: Invoke, store: Path) -> None:
    with Store(store) as opened:
        rows = reading.experiments(opened)
        expected = {
            row.name: {name: metric(load(opened, row.id), name)["value"].mean() for name in METRICS}
            for row in rows
        }
    keys = [measured.mean_name(name) for name in METRICS]
    for _ in range(2):
        found = json.loads(panic("list", "--columns", ",".join(["name", *keys]), "--json").stdout)
        for one in found:
            for name, key in zip(METRICS, keys, strict=True):
                assert one[key] == pytest.approx(expected[one["name"]][name])
    assert (store / summaries.FILE).exists()
    runs = json.loads(panic("list", "--runs", "--columns", "run,name,entropy", "--json").stdout)
    mine = [one["entropy"] for one in runs if one["name"] == "demo" and one["entropy"] is not None]
    assert sum(mine) / len(mine) == pytest.approx(expected["demo"]["entropy"])
    most = max(mine)
    only = json.loads(
        panic(
            "list", "--runs", "--where", f"entropy >= {most - 1e-9}", "--columns", "entropy", "--json"
        ).stdout
    )
    assert {one["entropy"] for one in only} == {most}
    with Store(store) as opened:
        names = [one["name"] for one in library.find(opened, "entropy >= 0", sort="-entropy")]
    assert names == [
        one["name"]
        for one in json.loads(panic("list", "--sort=-entropy", "--where", "entropy >= 0", "--json").stdout)
    ]


def test_metrics_are_worked_out_again_when_their_definition_changes(
    panic: Invoke, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = panic("list", "--columns", "name,seconds", "--json").stdout
    with Store(store) as opened, summaries.opened(opened) as file:
        assert file is not None
        file.execute("UPDATE measured SET mean = -1")
    assert json.loads(panic("list", "--columns", "seconds", "--json").stdout)[0]["seconds"] == -1
    monkeypatch.setattr(measured, "VERSION", 2)
    assert panic("list", "--columns", "name,seconds", "--json").stdout == first


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_store_tells_its_metrics(panic: Invoke, store: Path) -> None:
    store.chmod(0o555)
    assert panic("list", "--columns", "name,entropy").exit_code == 0
    store.chmod(0o755)


def test_a_text_for_an_option_is_not_converted_and_a_mistake_is_told(panic: Invoke, store: Path) -> None:
    assert panic("list", "--limit", "many").exit_code == 2
    for limit in ("0", "9" * 30):
        assert panic("search", "x", "--limit", limit).exit_code == 2
    assert panic("show", "--run", 1, "--from", "9" * 30).exit_code == 2
    assert panic("list", "--store", store).exit_code == 0


def test_a_search_imports_no_pydantic_and_no_rich(store: Path) -> None:
    import subprocess
    import sys

    code = (
        "import sys; sys.argv = ['panic', 'search', 'state']\n"
        "from panic.cli.app import app\n"
        "try: app()\n"
        "except SystemExit: pass\n"
        "print([name for name in ('pydantic', 'rich', 'polars', 'numpy', 'yaml') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_what_an_earlier_version_left_out_is_indexed_before_a_run(
    panic: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def num_indexed() -> int:
        with Store("panic-store") as opened:
            return int(opened.db.value("SELECT coalesce(max(value), 0) FROM meta WHERE key = 'captions'"))

    config = write_config(tmp_path)
    assert panic("run", config).exit_code == 0
    assert num_indexed() == 0, "so few are taken in later, many at once"
    monkeypatch.setattr("panic.cli.run.LARGE", 0)
    assert panic("run", config).exit_code == 0
    with Store("panic-store") as opened:
        assert num_indexed() == opened.db.value("SELECT max(id) FROM output")
