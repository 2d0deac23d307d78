"""Chains and dwells against exact answers."""

from __future__ import annotations

import math

import numpy as np
import pytest

from panic.analysis.checks import AnalysisError
from panic.analysis.dynamics import (
    absorption,
    closed_classes,
    dwell_survival,
    dwell_times,
    entropy_rate,
    mean_dwell,
    mean_first_passage,
    stationary,
    survival,
    timescales,
    transition_counts,
    transition_matrix,
)

TWO = np.array([[0.98, 0.02], [0.05, 0.95]])


def simulated(t: np.ndarray, n: int, start: int = 0, seed: int = 0) -> np.ndarray:
    rng, states = np.random.default_rng(seed), [start]
    cumulative = t.cumsum(axis=1)
    for draw in rng.random(n - 1):
        states.append(int(np.searchsorted(cumulative[states[-1]], draw, side="right")))
    return np.array(states)


def gambler(size: int = 10) -> np.ndarray:
    t = np.zeros((size + 1, size + 1))
    t[0, 0] = t[size, size] = 1
    for i in range(1, size):
        t[i, i - 1] = t[i, i + 1] = 0.5
    return t


def test_two_states_to_the_digits():
    assert stationary(TWO) == pytest.approx([0.7143, 0.2857], abs=5e-5)
    assert stationary(TWO) == pytest.approx([5 / 7, 2 / 7], rel=1e-14)
    assert timescales(TWO) == pytest.approx([13.780], abs=5e-4)
    want = -sum(w * (p * math.log(p) + (1 - p) * math.log(1 - p)) for w, p in ((5 / 7, 0.02), (2 / 7, 0.05)))
    assert entropy_rate(TWO) == pytest.approx(want, rel=1e-12)
    assert mean_first_passage(TWO, 1) == pytest.approx([50, 0])
    assert mean_first_passage(TWO, 0) == pytest.approx([0, 20])


def test_gamblers_ruin():
    """E[T] = i (N - i) until either end; ruin with probability 1 - i / N."""
    i = np.arange(11)
    assert mean_first_passage(gambler(), [0, 10]) == pytest.approx(i * (10 - i))
    assert absorption(gambler())[:, 0] == pytest.approx(1 - i / 10)
    assert mean_first_passage(gambler(), 0).tolist() == [0.0] + [math.inf] * 10  # the other end may keep it
    with pytest.raises(AnalysisError, match="2 parts that are never left: 0; 10"):
        stationary(gambler())


def test_counts_stop_at_the_end_of_a_run_and_at_outliers():
    assert transition_counts([[0, 1, 1], [0, 0, -1, 0]], 3).tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 0]]
    assert transition_matrix([0, 1, 0, 0, 1], 2).tolist() == [[1 / 3, 2 / 3], [1, 0]]
    assert transition_matrix(np.array([0, 1, 0]), 3)[2].tolist() == [0, 0, 0]
    with pytest.raises(AnalysisError, match="state 2: never left"):
        stationary(transition_matrix([0, 1, 0], 3))


def test_a_long_run_shows_its_chain():
    found = transition_matrix(simulated(TWO, 200_000), 2)
    assert np.abs(found - TWO).max() < 0.003


def test_periodic_and_nearly_separate_chains():
    cycle = np.roll(np.eye(4), 1, axis=1)
    assert stationary(cycle) == pytest.approx([0.25] * 4)
    assert np.isinf(timescales(cycle)).all()
    assert entropy_rate(cycle) == 0
    tiny = np.array([[1 - 1e-15, 1e-15], [3e-15, 1 - 3e-15]])
    assert stationary(tiny)[0] == pytest.approx(0.75, rel=0.1)
    assert timescales(np.full((3, 3), 1 / 3)) == pytest.approx([0, 0])
    transient = np.array([[0.5, 0.5, 0], [0, 0, 1], [0, 1, 0]])
    assert stationary(transient) == pytest.approx([0, 0.5, 0.5])


def test_one_state_is_a_chain():
    one = transition_matrix([0, 0, 0])
    assert (stationary(one).tolist(), timescales(one).size, entropy_rate(one)) == ([1.0], 0, 0.0)
    assert mean_first_passage(one, 0).tolist() == [0.0]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: transition_matrix([]), "no labels"),
        (lambda: transition_matrix([0, 3], 2), "a label is 3"),
        (lambda: transition_matrix([0.5, 1]), "whole numbers"),
        (lambda: transition_matrix([-2, 1]), "-1"),
        (lambda: stationary([[0.5, 0.4], [0, 1]]), "sum to 1"),
        (lambda: stationary([[np.nan]]), "finite"),
        (lambda: stationary([[1, 0]]), "square"),
        (lambda: mean_first_passage(TWO, 2), "from 0 to 1"),
        (lambda: mean_first_passage(TWO, []), "target"),
        (lambda: survival([], []), "at least one"),
        (lambda: survival([1, 2], [True]), "pair up"),
    ],
)
def test_what_is_no_chain_is_refused(call, message):
    with pytest.raises(AnalysisError, match=message):
        call()


def test_dwells_by_hand():
    found = dwell_times([[0, 0, 1, -1, 1, 1], [], [2]])
    assert found.rows() == [
        (0, 0, 0, 2, False),
        (0, 1, 2, 1, False),
        (0, 1, 4, 2, True),
        (2, 2, 0, 1, True),
    ]
    assert dwell_times([]).is_empty()
    assert dwell_times(np.array([-1, -1])).is_empty()


def test_censored_dwells_are_not_too_short():
    """Means of 50 and 20 in windows of 100: complete dwells alone give 29.4; time per exit is right."""
    rng = np.random.default_rng(0)
    windows = [simulated(TWO, 100, start=int(rng.random() < 2 / 7), seed=seed) for seed in range(3000)]
    dwells = dwell_times(windows)
    complete = dwells.filter(~dwells["is_censored"], dwells["label"] == 0)["length"].mean()
    assert complete == pytest.approx(29.4, abs=1.0)
    found = mean_dwell(dwells)
    assert found["mean"].to_list() == pytest.approx([50, 20], rel=0.05)
    assert (found["low"] < found["mean"]).all()
    assert (found["high"] > found["mean"]).all()
    assert found["low"][0] < 50 < found["high"][0]
    of_state = dwells.filter(dwells["label"] == 0)
    curve = survival(of_state["length"], of_state["is_censored"])
    at_20 = curve.filter(curve["length"] <= 20)["survival"][-1]
    assert at_20 == pytest.approx(0.98**20, abs=0.02)


def test_short_windows_do_not_lengthen_dwells():
    """Mean 10 in windows of 8, most dwells cut off: a step whose end was not seen is no chance to end."""
    stay = np.array([[0.9, 0.1], [0.1, 0.9]])
    dwells = dwell_times([simulated(stay, 8, start=seed % 2, seed=seed) for seed in range(3000)])
    counts = transition_counts([simulated(stay, 8, start=seed % 2, seed=seed) for seed in range(200)], 2)
    few = mean_dwell(dwells.filter(dwells["run"] < 200))
    assert few["num_chances"].to_list() == counts.sum(axis=1).tolist()
    assert few["num_exits"].to_list() == [counts[0, 1], counts[1, 0]]
    found = mean_dwell(dwells)
    assert found["mean"].to_list() == pytest.approx([10, 10], rel=0.06)
    assert (found["low"] < 10).all()
    assert (found["high"] > 10).all()
    curve = dwell_survival(dwells)
    assert curve["length"].to_list() == list(range(8))
    np.testing.assert_allclose(curve["survival"], 0.9 ** np.arange(8), atol=0.015)
    naive = survival(dwells["length"], dwells["is_censored"])
    assert naive["low"][-1] > 0.9**7  # too long beyond its own band


@pytest.mark.parametrize(
    ("runs", "rows"),
    [
        (
            [[0, 1, 1, 1]],
            [(0, 1, 2), (1, 0.5, 2), (2, 0.5, 1)],
        ),  # one ended after 1; of the other, 2 are known
        ([[0, 1]], [(0, 1, 1), (1, 0, 1)]),  # the last one was seen for nothing
        ([[0, 0, 1], [3, 3]], [(0, 1, 2), (2, 0, 1)]),
        ([[0, 1, 1, 1], [2, 2, 2]], [(0, 1, 3), (1, 2 / 3, 3), (2, 2 / 3, 2)]),
    ],
)
def test_a_censored_dwell_outlasts_all_of_its_steps_but_the_last(runs, rows):
    found = dwell_survival(dwell_times(runs)).select("length", "survival", "num_at_risk").rows()
    assert found == [pytest.approx(row) for row in rows]


def test_runs_of_one_output_tell_nothing_of_dwells():
    with pytest.raises(AnalysisError, match="no dwell was seen"):
        dwell_survival(dwell_times([[1], [2]]))


def test_survival_by_hand():
    """Ends at 1, 3, 3; one censored at 2: 3/4, then 3/4 x 0."""
    found = survival([1, 2, 3, 3], [False, True, False, False])
    assert found["length"].to_list() == [0, 1, 3]
    assert found["survival"].to_list() == pytest.approx([1, 0.75, 0])
    assert found["num_at_risk"].to_list() == [4, 4, 2]
    assert survival([5, 6], [True, True])["survival"].to_list() == [1.0]


def test_a_dwell_that_never_ends_has_an_infinite_mean():
    found = mean_dwell(dwell_times([3, 3, 3]))
    assert found.row(0, named=True)["mean"] == math.inf
    assert found.row(0, named=True)["high"] == math.inf
    assert 0 < found.row(0, named=True)["low"] < 3
    assert mean_dwell(dwell_times([])).is_empty()


def test_the_interval_of_a_mean_is_clopper_and_pearsons():
    """3 exits of 10 chances: the probability to leave is 0.0667 to 0.6525 (exact, 95 %)."""
    frame = dwell_times([[0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1], [2, 3, 2, 3, 2]])
    rows = mean_dwell(frame).to_dicts()
    assert [row["label"] for row in rows] == [0, 1, 2, 3]
    zero, one, two, three = rows
    assert (zero["num_exits"], zero["num_chances"], zero["mean"]) == (3, 10, pytest.approx(10 / 3))
    assert (1 / zero["high"], 1 / zero["low"]) == pytest.approx((0.0667, 0.6525), abs=5e-5)
    assert (one["num_exits"], one["num_chances"], one["low"]) == (2, 2, 1.0)  # left at every chance
    assert 1 / one["high"] == pytest.approx(0.025 ** (1 / 2), abs=1e-9)
    assert (two["num_exits"], two["num_chances"]) == (2, 2)
    assert three["mean"] == 1.0


def test_a_label_without_a_chance_has_no_mean():
    row = mean_dwell(dwell_times([[0, 5]])).row(1, named=True)
    assert (row["num_exits"], row["num_chances"]) == (0, 0)
    assert math.isnan(row["mean"])
    assert (row["low"], row["high"]) == (1.0, math.inf)


def test_the_band_of_survival_is_greenwoods_on_the_log_log_scale():
    """At length 1: 0.75 of 4, standard error 0.75 sqrt(1 / 12)."""
    found = survival([1, 2, 3, 3], [False, True, False, False])
    spread = 1.96 * math.sqrt(1 / 12) / -math.log(0.75)
    assert found.row(0) == (0.0, 1.0, 1.0, 1.0, 4)
    assert found["low"][1] == pytest.approx(0.75 ** math.exp(spread))
    assert found["high"][1] == pytest.approx(0.75 ** math.exp(-spread))
    assert found.row(2)[1:4] == (0.0, 0.0, 0.0)
    for wrong in ([0.0, 1.0], [-1.0, 1.0], [np.inf, 1.0], [np.nan, 1.0]):
        with pytest.raises(AnalysisError, match="positive numbers"):
            survival(wrong, [False, False])
    with pytest.raises(AnalysisError, match="pair up"):
        survival([[1, 2]], [[True, False]])


def test_closed_parts_and_where_each_state_ends():
    """0 leads to {1, 2} with 1/4 and to 4 with 1/2, and stays with 1/4; 3 leads to 0 or to 4."""
    t = np.array([
        [0.25, 0.25, 0, 0, 0.5], [0, 0, 1, 0, 0], [0, 0.5, 0.5, 0, 0], [0.5, 0, 0, 0, 0.5], [0, 0, 0, 0, 1]
    ])  # fmt: skip
    assert closed_classes(t) == [[1, 2], [4]]
    assert absorption(t).tolist() == [
        pytest.approx(row) for row in ([1 / 3, 2 / 3], [1, 0], [1, 0], [1 / 6, 5 / 6], [0, 1])
    ]
    assert mean_first_passage(t, 4).tolist() == [math.inf, math.inf, math.inf, math.inf, 0.0]
    steps = mean_first_passage(t, [1, 4])
    assert steps.tolist() == pytest.approx([4 / 3, 0, 2, 1 + 0.5 * 4 / 3, 0])
    with pytest.raises(AnalysisError, match="2 parts that are never left: 1, 2; 4"):
        stationary(t)


def test_a_third_state_takes_its_share():
    t = np.array([[0.5, 0.25, 0.25], [0.5, 0, 0.5], [0.25, 0.25, 0.5]])
    law = stationary(t)
    assert law @ t == pytest.approx(law)
    assert law == pytest.approx([0.4, 0.2, 0.4])
    entropies = [1.5 * math.log(2), math.log(2), 1.5 * math.log(2)]
    assert entropy_rate(t) == pytest.approx(law @ entropies)
    assert timescales(t) == pytest.approx([1 / math.log(4), 1 / math.log(4)])


def test_labels_and_states():
    with pytest.raises(AnalysisError, match="a label is 2, and there are 2 states: 0 to 1"):
        transition_counts([0, 2], 2)
    assert transition_counts([0, 1], 2).tolist() == [[0, 1], [0, 0]]
    assert transition_counts([[], [1]]).tolist() == [[0, 0], [0, 0]]
    assert transition_counts([], 1).tolist() == [[0]]
    for size in (0, -1):
        with pytest.raises(AnalysisError, match="no labels, and no number of states"):
            transition_counts([], size)
    assert transition_counts([-1, 0, 0, -1, -1, 0]).tolist() == [[1]]
    runs = np.empty(2, dtype=object)  # an array that holds runs of different lengths
    runs[:] = [np.array([0, 1]), np.array([1, 0, 0])]
    assert transition_counts(runs).tolist() == [[1, 1], [1, 0]]


def test_matrices_that_are_no_chains():
    for wrong, told in (
        ([[1.5, -0.5], [0, 1]], "0 and above"),
        ([[0, 0], [0, 1]], "what follows state 0: never left"),
        ([[0.5, 0.4999], [0, 1]], "sum to 1"),
        (np.zeros((0, 0)), "square"),
        ([0.5, 0.5], "square"),
    ):
        with pytest.raises(AnalysisError, match=told):
            closed_classes(wrong)
    assert closed_classes([[0.5, 0.5 + 1e-7], [0, 1]]) == [[1]]
    with pytest.raises(AnalysisError, match="from 0 to 1, found"):
        mean_first_passage(TWO, -1)
    assert mean_first_passage([[0.0, 1.0], [0, 0]], 1).tolist() == [
        1,
        0,
    ]  # what follows the target is unknown
