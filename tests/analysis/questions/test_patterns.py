"""The order of how far a run moves: a rule is seen, chance is not."""

from __future__ import annotations

import numpy as np
import pytest

from panic.analysis import AnalysisError
from panic.analysis.questions import patterns
from tests.analysis.conftest import TEXT, angle_vector, corner
from tests.analysis.looks import assert_shown


def test_steps_that_grow_have_no_entropy_and_random_ones_much(bench):
    rng = np.random.default_rng(0)
    growing = np.cumsum(np.arange(24.0))
    random = np.cumsum(rng.uniform(1, 30, 24))
    vectors = {}
    for number, angles in enumerate((growing, random)):
        texts = [f"text {number} {i}" for i in range(24)]
        bench.add("start", texts, seed=-1, repeat=number, max_length=48)
        vectors |= {text: angle_vector(angle) for text, angle in zip(texts, angles, strict=True)}
    bench.embed(vectors)
    band = patterns.table(bench.evidence, TEXT)
    grown, drawn = band.iter_rows(named=True)
    assert grown["value"] == 0
    assert grown["value"] < grown["low"]
    assert drawn["low"] <= drawn["value"] <= drawn["high"]
    assert "below its band in 1 of 2 runs" in patterns.sentence(band)
    assert_shown(patterns, band)


def test_short_runs_are_refused(bench):
    bench.walk("ab")
    bench.embed({"a": corner(0), "b": corner(1)})
    with pytest.raises(AnalysisError, match="no run has 12 text vectors"):
        patterns.table(bench.evidence, TEXT)


@pytest.mark.parametrize(("length", "is_asked"), [(11, False), (12, True)])
def test_twelve_outputs_are_enough(bench, length, is_asked):
    bench.walk("ab" * 10, seed=-1)
    bench.walk("abcbcacbcabc"[:length], seed=-1, repeat=1)
    bench.embed({letter: corner(i) for i, letter in enumerate("abc")})
    for found in (patterns.table, patterns.STATISTIC.of):
        assert len(found(bench.evidence, TEXT)) == 1 + is_asked
