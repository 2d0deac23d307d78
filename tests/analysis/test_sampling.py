"""Which runs and steps are looked at where all would be too much."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest

from panic.analysis import load
from panic.analysis.sampling import basis, evenly, not_asked, of_some_runs, sample, scattered, spread, thinned
from panic.store import NewRun, reading, writing
from panic.store.records import RunRow


def test_thinning_keeps_the_ends():
    frame = pl.DataFrame({"step": list(range(1, 1000, 2)) * 2})
    steps = thinned(frame, 10)["step"].unique().sort()
    assert (len(steps), steps[0], steps[-1]) == (10, 1, 999)
    assert thinned(frame, 500).height == 1000


@pytest.mark.parametrize("period", [2, 3, 7])
def test_a_cycle_is_seen_at_all_of_its_places(period):
    """Of every n-th step a cycle of n was drawn as a run that stands still."""
    phase = np.array([number % period for number in scattered(20 * period, 20)])
    assert np.bincount(phase, minlength=period).min() >= 1
    assert len(set(phase[4:12])) > 1
    frame = pl.DataFrame({"step": list(range(1, 401, 2))})
    steps = thinned(frame, 100)["step"]
    assert len(steps) == 100
    assert steps.diff().drop_nulls().unique().len() > 1


def test_so_many_are_chosen_and_all_of_few():
    assert scattered(5, 5).tolist() == scattered(5, 9).tolist() == [0, 1, 2, 3, 4]
    for count, most in ((6, 5), (7, 2), (1000, 999)):
        chosen = scattered(count, most).tolist()
        assert (len(set(chosen)), chosen[0], chosen[-1]) == (most, 0, count - 1)
        assert chosen == sorted(chosen)


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


def test_networks_that_are_not_asked_are_named_up_to_three():
    assert not_asked([], "too short") == ""
    assert not_asked(["a"], "too short") == " Not asked (too short): a."
    assert not_asked(["a", "b", "c"], "w") == " Not asked (w): a, b, c."
    assert not_asked(["a", "b", "c", "d", "e"], "w") == " Not asked (w): a, b, c and 2 more."


def test_items_are_chosen_evenly_with_both_ends():
    assert evenly([1, 2, 3], 3) == [1, 2, 3]
    assert evenly(list(range(11)), 3) == [0, 5, 10]


def test_steps_are_of_whole_runs_or_of_a_part_of_one():
    lengths = {1: 4, 2: 5, 3: 6}
    steps = pl.DataFrame(
        [(run, step) for run, length in lengths.items() for step in range(length)],
        schema=["run", "step"], orient="row",
    )  # fmt: skip
    assert of_some_runs(steps, 15).height == 15
    seen = set()
    for seed in range(30):
        part = of_some_runs(steps, 11, seed)
        counts = dict(part.group_by("run").len().iter_rows())
        assert all(counts[run] == lengths[run] for run in counts)
        assert part.height <= 11
        seen.add(frozenset(counts))
    assert seen >= {frozenset({1, 2}), frozenset({1, 3}), frozenset({2, 3})}
    cut = of_some_runs(steps, 3)
    assert (cut.height, cut["run"].n_unique(), cut["step"].to_list()) == (3, 1, [0, 1, 2])
    assert of_some_runs(steps, 11, 4).equals(of_some_runs(steps, 11, 4))
    many = pl.DataFrame({"run": range(99), "step": 0})
    plain, same, other = (of_some_runs(many, 40, *seed)["run"].to_list() for seed in ((), (0,), (1,)))
    assert plain == same != other


def test_a_second_run_of_a_prompt_comes_after_the_first_of_all_and_prompts_halve_their_list(bench):
    """Places of prompts in their list: 0, 4, 2, 6, 1, ... of eight (van der Corput)."""
    new = [
        NewRun(network=("tell",), prompt=f"{prompt}", seed=-1, repeat=repeat, max_length=2)
        for prompt in range(8)
        for repeat in range(2)
    ]
    writing.add_runs(bench.store, bench.experiment, new)
    runs = reading.runs(bench.store, "demo")
    chosen = [{(run.prompt, run.repeat) for run in spread(runs, limit)} for limit in range(1, 9)]
    order = [next(iter(after - before)) for before, after in pairwise([set(), *chosen])]
    assert order == [("0", 0), ("4", 0), ("2", 0), ("6", 0), ("1", 0), ("5", 0), ("3", 0), ("7", 0)]
    assert ("0", 1) in {(run.prompt, run.repeat) for run in spread(runs, 9)}


@pytest.mark.parametrize(
    ("num_runs", "num_steps", "chosen"),
    [
        (300, 1, 300),
        (301, 1, 300),
        (400, 333, 300),
        (400, 400, 250),
        (400, 10_000, 12),
        (400, 10**6, 12),
        (9, 10**6, 9),
    ],
)
def test_three_hundred_runs_of_100_000_steps_in_all_are_summed_up_and_twelve_at_least(
    num_runs, num_steps, chosen
):
    plain = RunRow(
        id=0, experiment=1, network=("a",), prompt="p", seed=-1, repeat=0, max_length=1, num_steps=num_steps,
        state="done", entry_step=None, period=None, failure=None,
    )  # fmt: skip
    rows = [replace(plain, id=number, prompt=f"{number}") for number in range(num_runs)]
    rows.append(replace(plain, id=-1, num_steps=0))
    data = SimpleNamespace(rows=rows, part=lambda runs: [*runs])
    found = sample(data)  # type: ignore[arg-type]
    assert len(found) == len(set(found)) == chosen
    assert -1 not in found
