"""Which runs and steps are looked at where all would be too much."""

from __future__ import annotations

import polars as pl

from panic.analysis import load
from panic.analysis.sampling import evenly, sample, spread, thinned
from panic.store import NewRun, reading, writing


def test_thinning_keeps_the_ends():
    frame = pl.DataFrame({"step": list(range(1, 1000, 2)) * 2})
    steps = thinned(frame, 10)["step"].unique().sort()
    assert (len(steps), steps[0], steps[-1]) == (10, 1, 999)
    assert thinned(frame, 500).height == 1000


def test_runs_are_chosen_evenly_over_prompts(bench):
    new = [
        NewRun(network=("draw", "tell"), prompt=prompt, seed=-1, repeat=repeat, max_length=2)
        for prompt, repeats in (("one", 20), ("two", 2), ("three", 3))
        for repeat in range(repeats)
    ]
    writing.add_runs(bench.store, bench.experiment, new)
    chosen = spread(reading.runs(bench.store, "demo"), 7)
    counts = [sum(run.prompt == prompt for run in chosen) for prompt in ("one", "two", "three")]
    assert counts == [3, 2, 2]
    assert len(spread(reading.runs(bench.store, "demo"), 100)) == 25


def test_a_sample_holds_the_runs_that_have_begun_and_so_many_at_most(full):
    data = load(full.store, "demo")
    assert sample(data).runs["run"].to_list() == [1, 2, 3]
    assert sample(data, max_runs=2, least=1).runs["run"].to_list() == [1, 2]
    assert sample(data, max_total_steps=10, least=1).runs["run"].to_list() == [1]  # of runs of ten steps
    assert sample(data, max_total_steps=10, least=2).runs["run"].to_list() == [1, 2]


def test_evenly_keeps_the_first_and_the_last():
    assert evenly(list(range(9)), 3) == [0, 4, 8]
    assert evenly([1, 2], 3) == [1, 2]
