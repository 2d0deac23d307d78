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

from tests.cli.conftest import ROOT, Invoke


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


def test_every_example_of_a_field_is_a_filter(store: Path, panic: Invoke) -> None:
    """One process for all: each row of `panic fields` says how it is asked for."""
    for row in json.loads(panic("fields", "--json").stdout):
        runs = ["--runs"] if row["of"] == "run" else []
        done = panic("list", *runs, "--where", row["example"], "--json", "--columns", "name")
        assert done.exit_code == 0, (row["example"], done.stderr)


def test_a_reader_that_has_seen_enough_is_no_failure(store: Path) -> None:
    command = f"{sys.executable} -m panic list --json --store {store} | head -1"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], capture_output=True, cwd=ROOT, timeout=60,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, b"")
