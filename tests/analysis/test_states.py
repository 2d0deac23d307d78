"""Clusters as states."""

from __future__ import annotations

from panic.analysis import load
from panic.analysis.checks import OUTLIER
from panic.analysis.states import states
from tests.analysis.conftest import TEXT, corner


def test_an_output_that_is_visited_often_is_a_cluster_of_its_own(bench):
    run = bench.walk("aaaaaabbbbbbbc")
    bench.embed({"a": corner(0), "b": corner(1), "c": corner(2)})
    found = states(load(bench.store, "demo"), *TEXT)
    (labels,) = found.labels()
    assert [found.names.get(label) for label in labels] == ["a"] * 6 + ["b"] * 7 + [None]
    assert labels[-1] == OUTLIER
    assert found.frame["step"].to_list() == list(range(1, 28, 2))
    assert found.frame["run"].unique().to_list() == [run]
