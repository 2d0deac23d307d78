"""Dwells in clusters, their censoring, and shuffles of their order."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from panic.analysis import AnalysisError, load
from panic.analysis.clustering import Clustering
from panic.analysis.questions import dwell
from panic.analysis.states import States, states
from tests.analysis.conftest import TEXT, corner
from tests.analysis.looks import assert_shown


def test_dwells_are_censored_at_the_end_of_each_run(bench):
    bench.walk("aaaaaabbbbbb")
    bench.walk("bbbbbbaaaaaaa", seed=-1)
    bench.embed({"a": corner(0), "b": corner(1)})
    curve = dwell.dwell_curves(states(load(bench.store, "demo"), *TEXT))
    # Two end after 6, one is seen for 7 and outlasts 6; one is cut off in its sixth, and may end there.
    assert curve["num_at_risk"].to_list() == [4, 3]
    assert curve["survival"].to_list() == pytest.approx([1, 1 / 3])
    assert curve["group"].unique().to_list() == ["draw → tell"]


def test_long_dwells_are_above_and_alternation_is_below_random_order(bench):
    stays = bench.walk("aaaaaaaabbbbbbbb", seed=-1)
    turns = bench.walk("abababababababab", seed=-1, repeat=1)
    bench.walk("aaaaaaaaaaaaaaaa")  # never leaves: no order to look at
    bench.embed({"a": corner(0), "b": corner(1)})
    answer = dwell.table(bench.evidence, TEXT)
    found = answer.band
    rows = {row["run"]: row for row in found.iter_rows(named=True)}
    assert set(rows) == {stays, turns}
    assert (rows[stays]["value"], rows[turns]["value"]) == (8, 1)
    assert rows[stays]["value"] > rows[stays]["high"]
    assert rows[turns]["value"] < rows[turns]["low"]
    # Shuffled, 15 places between outputs are changes with probability 8/15 each: 2 / (1 + 8) of 16 a dwell.
    assert rows[turns]["mean"] == pytest.approx(16 / 9, rel=0.15)
    assert_shown(dwell, answer)
    told = dwell.sentence(answer)
    assert f"in 1 of 2 runs (run {stays}) and below" in told
    assert f"in 1 of 2 runs (run {turns})." in told
    assert "chance alone puts 0.05 of 2 runs above and as many below" in told


def test_shuffles_need_two_clusters(bench):
    run = bench.walk("aaaa")
    bench.embed({"a": corner(0)})
    with pytest.raises(AnalysisError, match="two clusters"):
        dwell.dwells_against_shuffles(states(load(bench.store, "demo"), *TEXT), [run])


def one_cluster(labels: list[int]) -> States:
    frame = pl.DataFrame({"network": "n", "run": 1, "step": range(len(labels)), "label": labels})
    clustering = Clustering(
        labels=np.array(labels), medoids=np.zeros(1, int), sizes=np.ones(1, int), method=""
    )
    return States(frame=frame, names={0: "a"}, clustering=clustering, rows=np.arange(len(labels)))


def test_moves_to_what_is_not_drawn_are_moves_elsewhere():
    """They were dropped: "stays 100 %" was said of a cluster that is left for an outlier."""
    found = dwell.moves(one_cluster([0] * 10 + [-1] + [0] * 10 + [-1]), "n")
    assert found.numbers == [0, dwell.ELSEWHERE]
    assert found.matrix.tolist() == [pytest.approx([0.9, 0.1]), pytest.approx([1, 0])]
    assert found.weights.tolist() == pytest.approx([20 / 22, 2 / 22])


def test_the_median_stay_is_that_of_kaplan_and_meier(bench):
    """Of stays of 2, 2, 3 and one cut off in its sixth output, half outlast 2, and at most a quarter 3."""
    bench.walk("aabbaaabbbbbb", seed=-1)
    bench.embed({"a": corner(0), "b": corner(1)})
    said = dwell.sentence(dwell.table(bench.evidence, TEXT))
    assert "4 stays in clusters, 1 of them cut off by the end of their run" in said
    assert "draw → tell, 2 outputs." in said
    bench.walk("aaaaaaaaaaaaa", seed=-1, repeat=1)
    curve = pl.DataFrame({"length": [0.0, 3.0, 12.0], "survival": [1.0, 0.8, 0.8]})
    assert dwell._median(curve) == "more than 12 outputs"


@pytest.mark.parametrize(("number", "numbers"), [(12, [*range(12)]), (13, [*range(12), -1])])
def test_twelve_clusters_are_drawn_where_runs_are_most_often(number, numbers):
    labels = [*range(number), *range(12)]
    assert list(dwell.moves(one_cluster(labels), "n").numbers) == numbers


def test_runs_of_one_output_make_no_moves(bench):
    for repeat in range(12):
        bench.walk("ab"[repeat % 2], network=("tell",), seed=-1, repeat=repeat)
    bench.embed({"a": corner(0), "b": corner(1)})
    states = bench.evidence.states_under(TEXT)
    assert states.clustering.num_clusters == 2
    assert dwell.moves(states, "tell") is None
