"""Outputs that come back, counted by hand."""

from __future__ import annotations

from panic.analysis.visits import VISITS, visits

from panic.analysis import load


def test_what_comes_back_within_and_across_runs(bench):
    bench.add("a start", ["one", "two", "one"], network=("tell",))
    bench.add("a start", ["two", "three"], network=("tell",), seed=-1)
    found = visits(load(bench.store, "demo"), "text")
    assert found["first_step"].to_list() == [0, 1, 0, 0, 1]
    assert found["is_back"].to_list() == [False, False, True, False, False]
    assert found["num_runs"].to_list() == [1, 2, 1, 2, 1]
    assert dict(found.schema) == VISITS


def test_modalities_and_nothing(bench):
    assert visits(load(bench.store, "demo")).is_empty()
    bench.add("a start", ["one", "two"])
    assert visits(load(bench.store, "demo"))["modality"].to_list() == ["image", "text"] * 2
    assert len(visits(load(bench.store, "demo"), "image")) == 2
