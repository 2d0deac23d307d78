"""Outputs that come back and such that are new, counted by hand."""

from __future__ import annotations

import pytest

from panic.analysis import load
from panic.analysis.questions import novelty
from panic.analysis.questions.novelty import VISITS, visits
from tests.analysis.looks import assert_shown


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
    assert novelty.table(bench.evidence) is None
    bench.add("a start", ["one", "two"])
    assert visits(load(bench.store, "demo"))["modality"].to_list() == ["image", "text"] * 2
    assert len(visits(load(bench.store, "demo"), "image")) == 2


def test_shares_of_new_outputs_by_stretch(bench):
    bench.add("a start", list("abcdefghabababab"), network=("tell",), max_length=16)
    bench.add("a start", list("ab"), network=("tell",), seed=-1, max_length=16)
    (answer,) = novelty.table(bench.evidence)
    assert answer.shares["until"].to_list() == [1, 3, 5, 7, 9, 11, 13, 15]
    assert answer.shares["share"].to_list() == pytest.approx([1] * 4 + [0] * 4)
    assert answer.shares["num_runs"].to_list() == [2] + [1] * 7
    assert (answer.num_outputs, answer.num_shared, answer.num_runs) == (8, 2, 2)
    assert "tell 100% early and 0% late (1 run late)" in novelty.sentence([answer])


def test_images_are_asked_about_too(bench):
    """Where there were texts, pictures were not looked at: 77 % of them were exact repeats."""
    bench.add("a start", ["one", "two"])
    answer = novelty.table(bench.evidence)
    assert [one.modality for one in answer] == ["text", "image"]
    charts = assert_shown(novelty, answer)
    assert list(charts) == ["texts", "images"]


def test_stretches_hold_all_steps(bench):
    """17 outputs in stretches of three: the last one has two."""
    bench.walk("abcdefghijklmnopq", network=("tell",), seed=-1)
    [found] = novelty.table(bench.evidence)
    assert found.shares["until"].to_list() == [2, 5, 8, 11, 14, 16]
