"""Tests of the question whether runs alternate, on letters whose vectors are at right angles."""

from __future__ import annotations

import numpy as np
import pytest

from panic.analysis.checks import AnalysisError
from panic.analysis.questions import two_periodicity
from panic.analysis.questions.two_periodicity import LEAST_OUTPUTS, NUM_SHUFFLES
from tests.analysis.conftest import TEXT, corner
from tests.analysis.looks import assert_shown


def letters(used: str) -> dict[str, np.ndarray]:
    return {letter: corner("abcd".index(letter)) for letter in used}


def test_a_run_that_alternates_does(bench):
    bench.walk("ab" * 12, seed=-1)
    bench.embed(letters("ab"))
    answer = two_periodicity.table(bench.evidence, TEXT)
    row = answer.scores.row(0, named=True)
    assert (row["lag1"], row["lag2"], row["equal"], row["num_runs"]) == (0, 1, 1, 1)
    assert row["p_value"] == 1 / (1 + NUM_SHUFFLES)
    assert row["high"] < 1
    assert "draw → tell alternates (1.000 to the one before the last" in two_periodicity.sentence(answer)
    charts = assert_shown(two_periodicity, answer)
    assert list(charts) == ["beside shuffles of the order", "along the runs"]
    assert answer.steps["step"].to_list() == list(range(5, 48, 2))


def test_a_run_that_comes_round_in_four_does_not(bench):
    bench.walk("abcd" * 4, seed=-1)
    bench.embed(letters("abcd"))
    answer = two_periodicity.table(bench.evidence, TEXT)
    assert answer.scores["excess"][0] == 0
    assert answer.scores["p_value"][0] > 0.05
    assert "could not be shown to alternate" in two_periodicity.sentence(answer)


def test_a_stuck_run_goes_on_by_its_cycle_and_copies_count_once(bench):
    for prompt in ("a start", "another"):
        run = bench.add(prompt, list("ab"), max_length=40)
        bench.stuck(run, 0, 4)
    bench.embed(letters("ab"))
    row = two_periodicity.table(bench.evidence, TEXT).scores.row(0, named=True)
    assert (row["lag2"], row["num_runs"]) == (1, 1)


def test_models_that_tell_in_turn_alternate_by_construction(bench):
    bench.models["other"] = bench.models["tell"]
    bench.walk("ab" * 8, network=("tell", "other", "tell"), seed=-1)
    bench.embed(letters("ab"))
    with pytest.raises(AnalysisError, match="tell → other → tell: other and tell make its outputs in turn"):
        two_periodicity.table(bench.evidence, TEXT)


def test_short_runs_are_refused(bench):
    bench.walk("ababa", seed=-1)
    bench.embed(letters("ab"))
    with pytest.raises(AnalysisError, match=f"{LEAST_OUTPUTS} outputs a run are needed, found 5"):
        two_periodicity.table(bench.evidence, TEXT)


@pytest.mark.slow
def test_the_level_is_held_in_any_order():
    """Of 1,000 data sets of 4 runs of 12 outputs without an order 3 to 7 % are called alternating at 5 %."""
    rng = np.random.default_rng(0)
    p_values = [
        two_periodicity.score([rng.normal(size=(12, 5)).astype(np.float32) for _ in range(4)])[-2]
        for _ in range(1000)
    ]
    assert 0.03 <= np.mean(np.array(p_values) <= 0.05) <= 0.07


def test_of_a_run_its_first_400_outputs_count_and_200_places_are_drawn(bench):
    """The 400th comes up once alone, and so would the 401st: of 398 outputs one is not that of two before."""
    bench.add("start", list("ab" * 199 + "acd"), network=("tell",), seed=-1, max_length=401)
    bench.embed(letters("abcd"))
    answer = two_periodicity.table(bench.evidence, TEXT)
    assert answer.scores["lag2"][0] == pytest.approx(1 - 1 / 398)
    assert (len(answer.steps), answer.steps["step"][-1]) == (200, 399)
    single = two_periodicity.STATISTIC.of(bench.evidence, TEXT)
    assert single["value"].to_list() == [pytest.approx(1 - 1 / 398)]


def test_of_a_network_60_runs_count_and_six_outputs_are_enough(bench):
    for repeat in range(61):
        bench.walk("ababab", seed=-1, repeat=repeat)
    bench.walk("ababa", network=("tell",), seed=-1)
    bench.embed(letters("ab"))
    answer = two_periodicity.table(bench.evidence, TEXT)
    assert answer.scores["num_runs"].to_list() == [60]
    assert answer.absent == {"tell": "6 outputs a run are needed, found 5"}
    assert len(two_periodicity.STATISTIC.of(bench.evidence, TEXT)) == 61


@pytest.mark.parametrize(("num_networks", "num_orders"), [(9, 400), (10, 401)])
def test_there_are_399_shuffles_and_40_for_each_of_ten_networks(bench, num_networks, num_orders):
    for number in range(num_networks):
        bench.models[f"tell{number}"] = bench.models["tell"]
        bench.walk("ab" * 12, network=("draw", f"tell{number}"), seed=-1)
    bench.embed(letters("ab"))
    p_values = two_periodicity.table(bench.evidence, TEXT).scores["p_value"]
    assert set(p_values) == {1 / num_orders}


def test_a_network_that_cannot_be_asked_is_passed_over(bench):
    bench.walk("a", network=("tell",), seed=-1)
    bench.walk("ababab", seed=-1)
    bench.embed(letters("ab"))
    answer = two_periodicity.table(bench.evidence, TEXT)
    assert answer.absent == {"tell": "6 outputs a run are needed, found 1"}
    assert answer.scores["network"].to_list() == ["draw → tell"]
