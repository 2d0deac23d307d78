"""Periods of runs that are not stuck."""

from __future__ import annotations

import pytest

from panic.analysis import AnalysisError
from panic.analysis.questions import period
from tests.analysis.conftest import TEXT, corner


def test_a_run_that_comes_round_after_three_is_above_its_shuffles(bench):
    bench.walk("abcabcabcabcabcabc", seed=-1)
    stuck = bench.walk("abababababab")
    bench.stuck(stuck, 0, 4)
    bench.embed({letter: corner(i) for i, letter in enumerate("abc")})
    answer = period.table(bench.evidence, TEXT)
    assert answer.num_runs == 1
    assert answer.periods["period"].to_list() == [3]
    row = answer.band.row(0, named=True)
    assert row["value"] == pytest.approx(1)
    assert row["value"] > row["high"]
    assert "most often of 3 outputs (1 run)" in period.sentence(answer)


def test_stuck_runs_alone_are_refused(bench):
    stuck = bench.walk("abababababab")
    bench.stuck(stuck, 0, 4)
    bench.embed({"a": corner(0), "b": corner(1)})
    with pytest.raises(AnalysisError, match="no run that is not stuck"):
        period.table(bench.evidence, TEXT)
