"""Tests of runs cut to one length, and of some of their outputs."""

from __future__ import annotations

import polars as pl

from panic.analysis.alignment import aligned, both_ends, thinned_numbers
from tests.analysis.conftest import TEXT, angle_vector


def test_runs_are_cut_to_what_half_of_them_reach(bench):
    lengths = (3, 5, 6)
    for number, length in enumerate(lengths):
        bench.add(f"start {number}", [f"t{i}" for i in range(length)], network=("tell",), seed=-1)
    stuck = bench.add("start 3", ["t0", "t1"], network=("tell",), max_length=7)
    bench.stuck(stuck, 0, 2)
    bench.embed({f"t{i}": angle_vector(i) for i in range(6)})
    paths = aligned(bench.evidence.data, *TEXT)
    assert paths.group_by("run", maintain_order=True).len()["len"].to_list() == [6, 6]
    assert paths["length"].unique().to_list() == [6]
    assert paths.filter(run=stuck)["is_known"].to_list() == [False] * 2 + [True] * 4


def test_prompts_that_met_under_any_seed_are_one_unit(bench):
    """Runs of a prompt counted as independent of its other runs where it had met another prompt in these."""
    for prompt in ("one", "two"):
        run = bench.add(prompt, ["t0", "t1"], network=("tell",), max_length=4)
        bench.stuck(run, 0, 2)
    bench.add("one", ["t2", "t3", "t2", "t3"], network=("tell",), seed=-1, max_length=4)
    bench.add("three", ["t3", "t2", "t3", "t2"], network=("tell",), seed=-1, max_length=4)
    bench.embed({f"t{i}": angle_vector(i) for i in range(4)})
    paths = aligned(bench.evidence.data, *TEXT).filter(number=0)
    assert paths["unit"].to_list() == [0, 0, 0, 1]
    assert paths["trajectory"].n_unique() == 3


def test_some_outputs_are_evenly_chosen_with_both_ends(bench):
    bench.add("start", [f"t{i % 6}" for i in range(41)], network=("tell",), seed=-1, max_length=41)
    bench.embed({f"t{i}": angle_vector(i) for i in range(6)})
    paths = aligned(bench.evidence.data, *TEXT)
    # Of stretches of ten: at 0, 0.618, 0.236 and 0.854 of them (multiples of the golden ratio), and the end.
    assert thinned_numbers(paths, 5)["number"].to_list() == [0, 16, 22, 38, 40]
    assert thinned_numbers(paths, 100)["number"].to_list() == list(range(41))
    for most in (2, 3, 7, 23, 40):
        chosen = thinned_numbers(paths, most)["number"].to_list()
        assert chosen[0] == 0
        assert chosen[-1] == 40
        assert len(chosen) <= most


def test_the_last_output_is_chosen_whatever_division_rounds_to():
    """25 / (25 / 11) is a little below 11."""
    for length, most in ((26, 12), (1, 2), (2, 2), (7, 2)):
        paths = pl.DataFrame({"run": 1, "number": range(length), "length": length})
        assert thinned_numbers(paths, most)["number"][-1] == length - 1


def test_a_run_that_goes_back_and_forth_is_seen_at_both_places(bench):
    """Every second output of it was chosen, all of them equal, and statistics were told of these."""
    bench.stuck(bench.add("start", ["here", "there"], network=("tell",), max_length=119), 0, 2)
    bench.embed({"here": angle_vector(0), "there": angle_vector(90)})
    chosen = thinned_numbers(aligned(bench.evidence.data, *TEXT), 60)["number"]
    assert 20 <= (chosen % 2).sum() <= 40


def test_ends_hold_whole_laps():
    assert both_ends(9, 1, 3) == (slice(3), slice(6, 9))
    assert both_ends(9, 2, 3) == (slice(2), slice(6, 8))
    assert both_ends(9, 3, 3) == (slice(3), slice(6, 9))
    assert both_ends(5, 2, 3) == (slice(2), slice(2, 4))
    assert both_ends(2, 1, 0) == (slice(1), slice(1, 2))
    assert both_ends(3, 2, 3) is None
    assert both_ends(1, 1, 1) is None
