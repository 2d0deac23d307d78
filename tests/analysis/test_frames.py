"""Frames against numbers that can be worked out by hand."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from panic.analysis import frames
from panic.store import NewRun
from tests.analysis.conftest import angle_vector


def test_drift_is_one_minus_the_cosine_at_the_steps_of_texts(bench):
    run = bench.add("start", ["near", "far", "away"])
    bench.embed(
        {
            "start": 3 * angle_vector(10),
            "near": angle_vector(70),
            "far": 2 * angle_vector(100),
            "away": angle_vector(190),
        }
    )
    found = frames.drift(bench.store, bench.store.experiment("demo"), "embed")
    assert found["step"].to_list() == [1, 3, 5]
    assert found["distance"].to_list() == pytest.approx([0.5, 1.0, 2.0], abs=1e-6)
    assert (found["run"] == run).all()
    assert not found["is_known"].any()
    assert found["network"].unique().to_list() == ["draw → tell"]


def test_a_stuck_run_goes_on_by_its_cycle(bench):
    run = bench.add("start", ["a", "b", "c"], max_length=14)
    bench.stuck(run, 2, 4)  # b, c, b, c, ...
    bench.embed(
        {"start": angle_vector(0), "a": angle_vector(90), "b": angle_vector(60), "c": angle_vector(180)}
    )
    found = frames.drift(bench.store, bench.store.experiment("demo"), "embed").sort("step")
    assert found["step"].to_list() == [1, 3, 5, 7, 9, 11, 13]
    assert found["distance"].to_list() == pytest.approx([1, 0.5, 2, 0.5, 2, 0.5, 2], abs=1e-6)
    assert found["is_known"].to_list() == [False] * 3 + [True] * 4


def test_drift_without_the_vector_of_the_prompt_is_empty(bench):
    bench.add("start", ["a"])
    bench.embed({"a": angle_vector(0)})
    assert frames.drift(bench.store, bench.store.experiment("demo"), "embed").is_empty()


def test_bands_are_quartiles_over_runs():
    frame = pl.DataFrame(
        {
            "network": "n",
            "run": [0, 1, 2, 3, 4],
            "step": 1,
            "distance": [0.0, 1.0, 2.0, 3.0, 4.0],
            "is_known": False,
        }
    )
    assert frames.drift_bands(frame).row(0) == ("n", 1, 1.0, 2.0, 3.0, 5)


def test_thinning_keeps_the_ends():
    frame = pl.DataFrame({"step": list(range(1, 1000, 2)) * 2})
    steps = frames.thinned(frame, 10)["step"].unique().sort()
    assert (len(steps), steps[0], steps[-1]) == (10, 1, 999)
    assert frames.thinned(frame, 500).height == 1000


def test_runs_are_chosen_evenly_over_prompts(bench):
    new = [
        NewRun(network=("draw", "tell"), prompt=prompt, seed=-1, repeat=repeat, max_length=2)
        for prompt, repeats in (("one", 20), ("two", 2), ("three", 3))
        for repeat in range(repeats)
    ]
    bench.store.add_runs(bench.experiment, new)
    chosen = frames.spread(bench.store.runs("demo"), 7)
    counts = [sum(run.prompt == prompt for run in chosen) for prompt in ("one", "two", "three")]
    assert counts == [3, 2, 2]
    assert len(frames.spread(bench.store.runs("demo"), 100)) == 25


def test_bars_are_those_of_the_largest_diagram(full):
    found = frames.bars(full.store, full.store.experiment("demo"))
    runs = found.group_by("run", "dimension").len().sort("run", "dimension")
    assert runs["len"].to_list() == [5, 1, 5, 1]
    side = 2 * np.sin(np.pi / 5)
    loop = found.filter(pl.col("dimension") == 1).row(0, named=True)
    assert loop["birth"] == pytest.approx(side, rel=1e-5)
    assert loop["model"] == "embed"


def test_times_tell_stages_apart(full):
    found = {
        row["name"]: row
        for row in frames.times(full.store, full.store.experiment("demo")).iter_rows(named=True)
    }
    assert {name: row["stage"] for name, row in found.items()} == {
        "draw": "loops", "tell": "loops", "embed": "embeddings", "persistence diagrams": "diagrams"
    }  # fmt: skip
    assert found["draw"]["seconds"] == pytest.approx(0.75)
    assert (found["draw"]["calls"], found["draw"]["items"]) == (3, 12)
    assert found["persistence diagrams"]["seconds"] == pytest.approx(1.0)
