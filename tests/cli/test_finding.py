"""Lists with a filter, an order and columns; what can be named in them."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from panic.store import Store
from panic.store.finding.fields import Fields
from panic.store.finding.matching import TooSlow
from panic.store.finding.queries import Query, find
from tests.cli.conftest import ROOT, Invoke
from tests.patience import LONGEST_S


def test_a_list_has_a_filter_an_order_and_columns(store: Path, panic: Invoke) -> None:
    done = panic("list", "--where", "failed > 0", "--columns", "name,failed", "--json")
    assert json.loads(done.stdout) == [{"name": "broken", "failed": 4}]
    done = panic("list", "--sort", "-failed,name", "--columns", "name", "--csv")
    assert done.stdout == "name\nbroken\ndemo\n"
    done = panic("list", "--sort", "name", "--limit", "1")
    assert "broken" in done.stdout
    assert "and 1 more" in done.stdout
    done = panic("list", "--limit", "1")
    assert "broken" not in done.stdout


def test_runs_of_all_experiments_are_listed(store: Path, panic: Invoke) -> None:
    done = panic(
        "list", "--runs", "--where", "state = stuck and period >= 2", "--csv", "--columns", "name,seed"
    )
    assert {tuple(row) for row in csv.reader(io.StringIO(done.stdout))} == {
        ("name", "seed"), ("demo", "7"), ("broken", "7"),
    }  # fmt: skip
    assert "run" in panic("list", "--runs").stdout


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--where", "stat = stuck"], "Did you mean state"),
        (["--where", "state = "], "ends too soon"),
        (["--where", ""], "empty"),
        (["--where", "(" * 10_000], "ends too soon"),
        (["--where", "not " * 10_000 + "a = 1"], "50 levels"),
        (["--columns", "nmae"], "Did you mean name"),
        (["--columns", "period"], "field of runs"),
        (["--columns", ",".join(["name"] * 3000)], "At most 200 columns"),
        (["--sort", "-perod", "--runs"], "Did you mean period"),
        (["--csv", "--json"], "either"),
        (["--where", "name ~ '('"], "no regular expression"),
    ],
)
def test_a_mistake_is_usage_and_no_traceback(
    store: Path, panic: Invoke, options: list[str], said: str
) -> None:
    done = panic("list", *options)
    assert (done.exit_code, done.stdout) == (2, "")
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_escapes_in_a_filter_reach_no_terminal(store: Path, panic: Invoke) -> None:
    done = panic("list", "--where", "name = \x1b[2J")
    assert done.exit_code == 2
    assert "\x1b" not in done.stderr


def test_fields_are_listed_with_those_of_this_store(store: Path, tmp_path: Path, panic: Invoke) -> None:
    names = [row["field"] for row in json.loads(panic("fields", "--json").stdout)]
    assert {"name", "state", "period", "config.models.chain.epsilon"} <= {*names}
    assert "entry_step" in panic("fields", "step").stdout
    assert "No field" in panic("fields", "zzz").stdout
    elsewhere = panic("fields", "--json", "--store", tmp_path / "none")
    assert elsewhere.exit_code == 0
    assert "config.max_length" not in elsewhere.stdout


def test_a_misspelt_place_of_a_config_is_told_for_orders_and_columns_too(store: Path, panic: Invoke) -> None:
    for option in ("--sort", "--columns", "--where"):
        given = "config.max_lenght" + (" > 1" if option == "--where" else "")
        done = panic("list", option, given)
        assert (done.exit_code, "Did you mean config.max_length?" in done.stderr) == (2, True), done.output


def test_a_question_that_takes_too_long_is_given_up(store: Path) -> None:
    """A join that grows without end: the clock ends it, not whoever waits."""
    slow = " or ".join(f"experiment.comments like '%no {number}%'" for number in range(100))
    with Store(store, write=True) as opened, opened.transaction() as connection:
        connection.execute(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)"
            " INSERT INTO annotation (target_kind, target, kind, text, author, at)"
            " SELECT 'experiment', uid, 'comment', 'x' || i, 'me', 0 FROM n, experiment"
        )
    with Store(store) as opened:
        with pytest.raises(TooSlow, match=r"longer than 0\.05 s"):
            find(opened, Query(target="run", where=f"not ({slow})", limit_s=0.05), Fields())
        assert len(find(opened, Query(target="run", where="run > 0"), Fields())) > 1  # the connection goes on


def test_every_example_of_a_field_is_a_filter(store: Path, panic: Invoke) -> None:
    """One process for all: each row of `panic fields` says how it is asked for."""
    for row in json.loads(panic("fields", "--json").stdout):
        kinds = {"run": ["--runs"], "output": ["--outputs"]}.get(row["of"], [])
        done = panic(
            "trainings" if row["of"] == "training" else "list",
            *kinds,
            "--where",
            row["example"],
            "--json",
            "--columns",
            "label",
        )
        assert done.exit_code == 0, (row["example"], done.stderr)


def test_a_reader_that_has_seen_enough_is_no_failure(store: Path) -> None:
    command = f"{sys.executable} -m panic list --json --store {store} | head -1"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], capture_output=True, cwd=ROOT, timeout=LONGEST_S,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, b"")


def test_runs_are_named_by_the_beginning_of_a_uid(store: Path, panic: Invoke) -> None:
    runs = json.loads(panic("show", "demo", "--json").stdout)["runs"]
    uid = runs[3]["uid"]
    shown = json.loads(panic("show", "demo", "--run", uid[:6], "--json").stdout)
    assert (shown["run"], shown["uid"]) == (runs[3]["run"], uid)
    assert panic("check", "demo", "--run", uid[:6]).exit_code == 0
    assert panic("images", "demo", "--run", uid[:6], "-o", "a.png").exit_code == 0
    assert "run4.png" in panic("images", "demo", "--run", uid).stdout
    for selector, said in (("ffff", "Its runs are 1 to 6"), (uid[:3], "at least 4"), ("99", "no run 99")):
        done = panic("show", "demo", "--run", selector)
        assert done.exit_code == 2
        assert said in done.stderr


def test_shown_runs_are_those_of_a_filter(store: Path, panic: Invoke) -> None:
    shown = json.loads(panic("show", "demo", "--where", "seed = 7", "--json").stdout)
    assert [run["seed"] for run in shown["runs"]] == [7, 7]
    stuck = json.loads(panic("stuck", "demo", "--where", "prompt = 'state 3'", "--json").stdout)
    assert [run["prompt"] for run in stuck] == ["state 3"]
    returned = json.loads(panic("returns", "demo", "--where", "seed = 7", "--json").stdout)
    assert {row["num_runs"] for row in returned["outputs"]} <= {1, 2}
    none = panic("show", "demo", "--where", "seed = 99")
    assert none.exit_code == 2
    assert "No run of demo" in none.stderr


def test_a_table_is_of_experiments_or_of_runs_that_a_filter_finds(store: Path, panic: Invoke) -> None:
    of_two = panic("table", "stuck", "--where", "runs = 6", "--json")
    assert {row["experiment"] for row in json.loads(of_two.stdout)} == {"demo", "broken"}
    part = panic("table", "drift", "demo", "--where", "seed = 7", "--json")
    assert part.exit_code == 0, part.stderr
    assert {row["run"] for row in json.loads(part.stdout)} <= {1, 4}
    assert "2 of 6 runs: seed = 7" in part.stderr
    assert panic("figure", "drift", "demo", "--where", "seed = 7", "-o", "a.svg").exit_code == 0
    assert panic("table", "drift", "--where", "name = zzz").exit_code == 2


@pytest.mark.slow
def test_a_report_of_some_runs_says_so_and_does_not_replace_the_whole(store: Path, panic: Invoke) -> None:
    done = panic("report", "demo", "--where", "seed = 7 and prompt != '<b>'")
    assert done.exit_code == 0, done.stderr
    page = (store / "reports" / "demo-part.html").read_text()
    assert "2 of 6 runs: seed = 7 and prompt != &#39;&lt;b&gt;&#39;" in page
    assert not (store / "reports" / "demo.html").exists()
    assert panic("report", "demo", "broken", "--where", "seed = 7").exit_code == 2
    assert panic("report", "--where", "runs > 0", "-o", "both.html").exit_code == 0


def test_an_export_is_of_the_experiments_that_a_filter_finds(
    store: Path, tmp_path: Path, panic: Invoke
) -> None:
    import polars as pl

    assert panic("export", "-o", "all", "--images").exit_code == 0
    done = panic("export", "-o", "part", "--images", "--where", "name = broken")
    assert done.exit_code == 0, done.stderr
    tables = {path.stem: pl.read_parquet(path) for path in (tmp_path / "part").iterdir()}
    whole = {path.stem: pl.read_parquet(path) for path in (tmp_path / "all").iterdir()}
    assert tables.keys() == whole.keys()
    assert tables["experiment"]["name"].to_list() == ["broken"]
    assert set(tables["invocation"]["run"]) == set(tables["run"]["id"]) == set(range(7, 13))
    used = {*tables["run"]["prompt"], *tables["invocation"]["output"]}
    assert set(tables["output"]["id"]) == used
    assert set(tables["embedding-circle"]["output"]) < set(whole["embedding-circle"]["output"]) | used
    assert tables["image"].height == tables["output"].filter(pl.col("modality") == "image").height
    assert tables["batch"].height < whole["batch"].height
    assert tables["diagram"].is_empty()
    assert whole["diagram"].height == 6
    for name, frame in tables.items():
        assert frame.schema == whole[name].schema, name


@pytest.mark.parametrize(
    "command",
    [
        ["fields", "config"],
        ["list", "--where", "config.max_length = 8"],
        ["list", "--columns", "name,config.max_length"],
        ["list", "--sort", "config.max_length"],
    ],
    ids=lambda command: command[1],
)
def test_a_damaged_config_ended_filters_in_an_error_of_sql(
    panic: Invoke, store: Path, command: list[str]
) -> None:
    with Store(store, write=True) as opened, opened.transaction() as connection:
        connection.execute("PRAGMA ignore_check_constraints = ON")
        connection.execute("UPDATE experiment SET config = '[1'")
    done = panic(*command)
    assert done.exit_code == 1
    assert "is damaged: what should be JSON in it is none" in done.stderr
    assert "panic check" in done.stderr
