"""Loops beside their null models, where it is known on which side of the band they must be."""

from __future__ import annotations

import numpy as np
import pytest

from panic.analysis import AnalysisError
from panic.analysis.questions import entropies, loops
from tests.analysis.conftest import TEXT, corner
from tests.analysis.looks import assert_shown

LETTERS = "abcdefghijklmnopqrst"


def test_a_circle_has_a_longer_loop_than_walks_with_its_steps(bench):
    bench.walk(LETTERS)
    turns = 2 * np.pi * np.arange(20) / 20
    circle = np.stack([np.cos(turns), np.sin(turns), np.zeros(20), np.zeros(20)], axis=1).astype(np.float32)
    bench.embed(dict(zip(LETTERS, circle, strict=True)))
    found = loops.against_walks(bench.evidence, TEXT)
    row = found.row(0, named=True)
    assert row["value"] == pytest.approx(1.7820 - 0.3129, abs=1e-3)
    assert row["low"] <= row["mean"] <= row["high"]
    assert_shown(loops, found)
    even = entropies.against_walks(bench.evidence, TEXT).row(0, named=True)
    assert even["value"] == pytest.approx(np.log(19), rel=1e-6)  # equal bars: the largest there can be
    assert even["low"] < even["value"]


def test_what_is_too_short_for_a_band_is_refused(bench):
    bench.walk("aaaa")
    bench.embed({"a": corner(0)})
    with pytest.raises(AnalysisError, match="no run has 6 text vectors"):
        loops.table(bench.evidence, TEXT)
