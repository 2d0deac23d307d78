"""Periods of runs that are not stuck."""

from __future__ import annotations

import numpy as np
import pytest

from panic.analysis import AnalysisError
from panic.analysis.dynamics import periodicity
from panic.analysis.questions import period
from tests.analysis.conftest import TEXT, corner
from tests.analysis.looks import assert_shown


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
    assert period.sentence(answer).startswith("The one run that is not stuck has a period of 3 texts. ")
    assert_shown(period, answer)


def test_one_text_at_most_steps_is_no_period(bench, monkeypatch):
    """A peak of likeness above 0.5 comes by chance where few outputs are others: in 9 % of such runs."""
    monkeypatch.setattr(period, "MAX_RUNS", 240)
    rng = np.random.default_rng(4)
    vectors = {"same": corner(0)}
    for repeat in range(240):
        is_same = rng.random(20) < 0.85
        texts = ["same" if same else f"other {repeat} {n}" for n, same in enumerate(is_same)]
        of_others = rng.normal(size=(20, len(corner(0)))).astype(np.float32)
        vectors |= {text: v for text, v in zip(texts, of_others, strict=True) if text != "same"}
        bench.add("start", texts, seed=-1, repeat=repeat, max_length=40)
    bench.embed(vectors)
    answer = period.table(bench.evidence, TEXT)
    assert (answer.band["value"] >= 0.5).sum() > 15
    assert len(answer.periods) <= 12  # 6 by chance; more of them in 0.7 % of such experiments
    assert "of 240 runs that are not stuck have a period" in period.sentence(answer)


def test_of_many_runs_some_are_looked_at(bench):
    for repeat in range(30):
        bench.walk("abcabcabcabcabc", seed=-1, repeat=repeat)
    bench.embed({letter: corner(i) for i, letter in enumerate("abc")})
    answer = period.table(bench.evidence, TEXT)
    assert (answer.num_runs, len(answer.band), len(answer.periods)) == (30, 24, 24)
    assert period.sentence(answer).startswith("24 of 24 (of 30, evenly chosen) runs that are not stuck")


def test_stuck_runs_alone_are_refused(bench):
    stuck = bench.walk("abababababab")
    bench.stuck(stuck, 0, 4)
    bench.embed({"a": corner(0), "b": corner(1)})
    with pytest.raises(AnalysisError, match="no run that is not stuck"):
        period.table(bench.evidence, TEXT)


def test_of_a_run_its_first_400_outputs_count_and_twelve_are_enough(bench):
    """The 400th breaks the order, and so does the 401st."""
    letters = list("abc" * 133 + "bb")
    for repeat, length in enumerate((401, 12, 11)):
        bench.add("start", letters[:length], network=("tell",), seed=-1, repeat=repeat, max_length=401)
    bench.embed({letter: corner(i) for i, letter in enumerate("abc")})
    right = [periodicity(letters[:length]).score for length in (400, 12)]
    assert right[0] not in (periodicity(letters).score, periodicity(letters[:399]).score)
    answer = period.table(bench.evidence, TEXT)
    assert answer.num_runs == 2
    assert answer.band["value"].to_list() == pytest.approx(right, abs=1e-9)
    assert period.STATISTIC.of(bench.evidence, TEXT)["value"].to_list() == pytest.approx(right, abs=1e-9)
