"""Dwells in clusters, their censoring, and shuffles of their order."""

from __future__ import annotations

import pytest

from panic.analysis import AnalysisError, load
from panic.analysis.questions import dwell
from panic.analysis.states import states
from tests.analysis.conftest import TEXT, corner


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
    told = dwell.sentence(answer)
    assert f"in 1 of 2 runs (run {stays}) and below" in told
    assert f"in 1 of 2 runs (run {turns}); chance alone would give 0.05" in told


def test_shuffles_need_two_clusters(bench):
    bench.walk("aaaa")
    bench.embed({"a": corner(0)})
    with pytest.raises(AnalysisError, match="two clusters"):
        dwell.dwells_against_shuffles(states(load(bench.store, "demo"), *TEXT))
