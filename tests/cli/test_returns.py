"""`panic returns`: for people, as CSV and as JSON, of the real store."""

from __future__ import annotations

import json
from collections import Counter
from io import StringIO
from pathlib import Path

import polars as pl

from panic.store import Store, contents, reading

from .conftest import Invoke, write_config


def test_they_are_what_the_steps_say(panic: Invoke, store: Path) -> None:
    told = json.loads(panic("returns", "demo", "--json").stdout)
    with Store(store) as opened:
        steps = [
            (run.id, one.step, one.output)
            for run in reading.runs(opened, "demo")
            for one in contents.invocations(opened, run.id)
        ]
    times = Counter(output for *_, output in steps)
    assert {row["digest"]: row["times"] for row in told["outputs"]} == {
        output: number for output, number in times.items() if number > 1
    }
    assert {row["digest"]: row["num_runs"] for row in told["outputs"]} == {
        output: len({run for run, _, other in steps if other == output})
        for output, number in times.items()
        if number > 1
    }
    assert len(told["meetings"]) == 6
    for form, key in (([], "outputs"), (["--meetings"], "meetings")):
        frame = pl.read_csv(StringIO(panic("returns", "demo", "--csv", *form).stdout))
        assert frame["digest"].to_list() == [row["digest"] for row in told[key]]
    only = json.loads(panic("returns", "demo", "--modality", "image", "--json").stdout)
    assert {row["modality"] for row in only["outputs"] + only["meetings"]} == {"image"}
    text = panic("returns", "demo").stdout
    assert "Where runs first meet" in text
    assert all((row["text"] or row["digest"][:12]) in text for row in told["outputs"])


def test_a_cycle_comes_back_after_its_period(panic: Invoke, tmp_path: Path) -> None:
    """From state 0 of five, a cycle without noise makes each state once and then the prompt again."""
    settings = [
        "seeds=[7]",
        "repeats=1",
        "models.chain.epsilon=0",
        "max_length=30",
        "prompts=[state 0, state 2]",
    ]
    config = write_config(tmp_path)
    done = panic("run", config, *(word for text in settings for word in ("--set", text)))
    assert done.exit_code == 0, done.output
    told = json.loads(panic("returns", "--modality", "text", "--json").stdout)
    assert {row["text"]: row["num_runs"] for row in told["outputs"]} == {f"state {n}": 2 for n in range(5)}
    assert {row["text"] for row in told["outputs"] if row["is_prompt"]} == {"state 0", "state 2"}
    assert {row["num_back"] for row in told["outputs"]} == {0}
    assert [(row["step"], row["text"]) for row in told["meetings"]] == [(1, "state 1"), (1, "state 3")]


def test_nothing_in_common_is_said(panic: Invoke, tmp_path: Path) -> None:
    config = write_config(tmp_path, prompts=["state 0"], max_length=2)
    assert panic("run", config, "--set", "seeds=[7]", "--set", "repeats=1").exit_code == 0
    assert panic("returns").stdout == "No output of demo came up twice.\n"
    assert json.loads(panic("returns", "--json").stdout) == {"outputs": [], "meetings": []}
    assert panic("returns", "--json", "--csv").exit_code == 2
    assert "--csv" in panic("returns", "--meetings").stderr
