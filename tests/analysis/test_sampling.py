"""Which runs and steps are looked at where all would be too much."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import polars as pl

from panic.analysis import load
from panic.analysis.sampling import basis, sample, spread, thinned
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


def test_runs_are_chosen_over_kinds_of_seed_and_all_of_the_prompts(bench):
    """900 runs in the order of a plan: network by network, prompt by prompt, the fixed seed first."""
    new = [
        NewRun(network=network, prompt=f"prompt {prompt}", seed=seed, repeat=repeat, max_length=2)
        for network in (("draw", "tell"), ("tell",))
        for prompt in range(90)
        for seed, repeat in ((42, 0), (-1, 0), (-1, 1), (-1, 2), (-1, 3))
    ]
    writing.add_runs(bench.store, bench.experiment, new)
    runs = reading.runs(bench.store, "demo")
    chosen = spread(runs, 120)
    groups = Counter((run.network, run.seed) for run in chosen)
    assert set(groups.values()) == {30}
    numbers = sorted(int(run.prompt.split()[1]) for run in chosen)
    assert len(set(numbers)) == 30
    assert max(b - a for a, b in pairwise(numbers)) <= 4
    more = Counter(run.seed for run in spread(runs, 450))
    assert (
        more[-1] - more[42] == 90
    )  # a second run with fresh noise, where no other with the fixed seed is left


def test_a_figure_of_some_runs_says_of_how_many():
    assert basis(300, 900) == "Of 300 of 900 runs, spread over networks, kinds of seed and prompts."
    assert basis(12, 12) == ""


def test_a_sample_holds_the_runs_that_have_begun_and_so_many_at_most(full):
    data = load(full.store, "demo")
    assert sample(data).runs["run"].to_list() == [1, 2, 3]
    assert sample(data, max_runs=2, least=1).runs["run"].to_list() == [
        1,
        3,
    ]  # of one prompt, both kinds of seed
    assert sample(data, max_total_steps=10, least=1).runs["run"].to_list() == [1]  # of runs of ten steps
    assert sample(data, max_total_steps=10, least=2).runs["run"].to_list() == [1, 3]
