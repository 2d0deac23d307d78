"""`panic compare` and `panic best`."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

from .conftest import Invoke


def test_only_what_differs_is_told_unless_all_is_asked_for(panic: Invoke, store: Path) -> None:
    done = panic("compare", "demo", "broken")
    assert done.exit_code == 0, done.output
    assert "diagrams" in done.stdout
    assert "stuck_share" in done.stdout
    assert "broken - demo" in done.stdout
    assert "root_seed" not in done.stdout
    assert panic("compare", "--where", "runs > 0").stdout == done.stdout
    everything = panic("compare", "demo", "broken", "--all").stdout
    assert "root_seed" in everything
    assert "numpy" in everything
    found = json.loads(panic("compare", "demo", "broken", "--json").stdout)
    assert found["experiments"] == ["demo", "broken"]
    assert {"config", "models"} <= {one["section"] for one in found["differences"]}
    assert not any(one["is_same"] for one in found["differences"])
    metrics = {one["metric"]: one for one in found["metrics"]}
    assert metrics["period"]["summaries"][0]["experiment"] == "demo"
    assert metrics["stuck_share"]["comparisons"][0]["num_starts"] >= 1
    rows = list(csv.DictReader(io.StringIO(panic("compare", "demo", "broken", "--csv").stdout)))
    assert {row["section"] for row in rows} >= {"config", "models", "metrics"}
    assert {row["experiment"] for row in rows} == {"demo", "broken"}


def test_mistakes_have_an_answer(panic: Invoke, store: Path) -> None:
    for arguments, said in (
        (("compare", "demo"), "Two experiments are needed."),
        (("compare", "demo", "demo"), "demo is named twice."),
        (("compare", "demo", "brokne"), "Did you mean broken?"),
        (("compare", "demo", "broken", "--csv", "--json"), "either --csv or --json"),
        (("best", "--by", "drfit"), "Did you mean drift?"),
        (("best", "--by", "x"), "There are: stuck_share"),
    ):
        done = panic(*arguments)
        assert done.exit_code == 2, arguments
        assert said in done.stderr


def test_experiments_are_ranked_by_a_metric(panic: Invoke, store: Path) -> None:
    most = json.loads(panic("best", "--by", "entropy", "--json").stdout)
    least = json.loads(panic("best", "--by", "entropy", "--least", "--json").stdout)
    assert {row["name"] for row in most} == {"demo", "broken"}
    assert [row["name"] for row in most] == [row["name"] for row in reversed(least)]
    assert most[0]["entropy"] >= most[1]["entropy"]
    named = panic("best", "--by", "entropy", "--where", "name = demo", "--json").stdout
    assert [row["name"] for row in json.loads(named)] == ["demo"]
    assert len(json.loads(panic("best", "--by", "entropy", "--limit", 1, "--json").stdout)) == 1
    assert "mean over runs" in panic("best", "--by", "entropy", "demo").stdout
    assert (
        panic("best", "--by", "tokens").stdout
        == "No run has a tokens (tokens of a run, as servers count them).\n"
    )
    assert panic("best", "--by", "entropy", "--csv").stdout.startswith("name,id,entropy,runs\n")


def test_single_runs_are_compared(panic: Invoke, store: Path) -> None:
    """Known answers: two runs of one prompt with fresh noise, and a stuck one that goes on as is known."""
    runs = json.loads(panic("list", "--runs", "--where", "name = demo", "--json").stdout)
    stuck = next(run for run in runs if run["state"] == "stuck")
    other = next(run for run in runs if run["prompt"] != stuck["prompt"] and run["seed"] == stuck["seed"])
    done = panic("compare", "--of", "run", stuck["run"], other["uid"][:8], "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    names = [f"demo run {stuck['run']}", f"demo run {other['run']}"]
    assert found["runs"] == names
    told = {(one["section"], one["field"]): list(one["values"].values()) for one in found["differences"]}
    assert told["run", "prompt"] == [stuck["prompt"], other["prompt"]]
    assert told["results", "parts at model call"] == ["-", "0"]
    assert not {("run", "seed"), ("run", "network")} & told.keys()
    assert "config" not in {section for section, _ in told}
    everything = panic("compare", "--of", "run", stuck["run"], other["run"], "--all", "--json").stdout
    same = {one["field"]: one["values"] for one in json.loads(everything)["differences"]}
    assert same["seed"] == dict.fromkeys(names, "7")
    twins = json.loads(panic("compare", "--of", "run", "--where", "seed = 7", "--json").stdout)
    parted = next(one for one in twins["differences"] if one["field"] == "parts at model call")["values"]
    again = next(name for name in twins["runs"] if name.startswith("broken"))
    assert parted[names[0]] == "-"
    assert (
        parted[again] == "not within 8 model calls"
    )  # the same prompt and seed: two steps are stored of each
    assert "parts at model call" in panic("compare", "--of", "run", stuck["run"], other["run"]).stdout
    assert "results,parts at model call" in panic("compare", "--of", "run", "1", "2", "--csv").stdout
    for mistake, said in (
        (["1"], "Two runs are needed"),
        (["1", "1"], "named twice"),
        (["1", "99"], "No run begins with '99'"),
        (["1", "9" * 20], "No run begins with"),  # more than 64 bits
        (["1", "9" * 5000], "No run begins with"),  # more digits than Python reads
        (["1", "2", "--where", "seed = 7"], "not both"),
    ):
        done = panic("compare", "--of", "run", *mistake)
        assert (done.exit_code, said in done.stderr) == (2, True), done.output
