"""Clusters as states."""

from __future__ import annotations

import numpy as np
import pytest

from panic.analysis import AnalysisError, load
from panic.analysis.checks import OUTLIER
from panic.analysis.states import agreement, distinct, states
from tests.analysis.conftest import TEXT, angle_vector, corner


def test_an_output_that_is_visited_often_is_a_cluster_of_its_own(bench):
    run = bench.walk("aaaaaabbbbbbbc")
    bench.embed({"a": corner(0), "b": corner(1), "c": corner(2)})
    found = states(load(bench.store, "demo"), *TEXT)
    (labels,) = found.labels()
    assert [found.names.get(label) for label in labels] == ["a"] * 6 + ["b"] * 7 + [None]
    assert labels[-1] == OUTLIER
    assert found.frame["step"].to_list() == list(range(1, 28, 2))
    assert found.frame["run"].unique().to_list() == [run]


def walks(bench, letters: list[str], seed: int = -1) -> None:
    for repeat, text in enumerate(letters):
        bench.walk(text, seed=seed, repeat=repeat)


def test_agreement_is_that_of_the_clusters_that_are_drawn_when_runs_are_left_out(bench):
    walks(bench, ["aaaabbbb", "bbbbaaaa", "aabbaabb", "abababab", "aaabbbab"])
    bench.embed({"a": corner(0), "b": corner(1)})
    data = load(bench.store, "demo")
    assert agreement(data, *TEXT, states(data, *TEXT)).tolist() == [1.0] * 8


def test_agreement_falls_where_there_are_no_regions(bench):
    """Directions all around a circle: what is dense there is luck, and another with other runs."""
    rng = np.random.default_rng(0)
    texts = [[f"{run} {step}" for step in range(12)] for run in range(8)]
    for repeat, run in enumerate(texts):
        bench.add("start", run, seed=-1, repeat=repeat, max_length=24)
    bench.embed({text: angle_vector(rng.uniform(0, 360)) for run in texts for text in run})
    data = load(bench.store, "demo")
    assert np.median(agreement(data, *TEXT, states(data, *TEXT))) < 0.8


@pytest.mark.parametrize("num_runs", [1, 2])
def test_one_or_two_runs_have_no_agreement(bench, num_runs):
    """Leaving out a fifth of them left out nothing, and 1.00 was said."""
    walks(bench, ["aaaaaabbbbbb"] * num_runs)
    bench.embed({"a": corner(0), "b": corner(1)})
    data = load(bench.store, "demo")
    with pytest.raises(AnalysisError, match="needs 3 runs"):
        agreement(data, *TEXT, states(data, *TEXT))


def test_a_text_that_a_run_is_stuck_at_is_visited_to_the_end(bench):
    stuck = bench.add("start", list("bcdefgaa"), max_length=200)
    bench.stuck(stuck, 12, 2)
    bench.walk("hijkhijkhijkhijkhijk", seed=-1)
    bench.embed({name: np.eye(12)[i] for i, name in enumerate("abcdefghijk")})
    found = states(load(bench.store, "demo"), *TEXT)
    assert "a" in found.names.values()


def test_clusters_whose_names_begin_alike_have_their_number_behind():
    """Charts have one row per name: two clusters of one name were drawn as one."""
    assert distinct({0: "a red…", 1: "a blue…", 7: "a red…"}) == {
        0: "a red… (0)",
        1: "a blue…",
        7: "a red… (7)",
    }
