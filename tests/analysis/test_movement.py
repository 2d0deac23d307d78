"""How runs move, said of runs whose movement is known: walks, stationary ones, cycles, alternation."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from panic.analysis import dynamics
from panic.analysis.movement import (
    Movement,
    _course,
    _dips,
    _dips_beyond_shuffles,
    _dips_over_runs,
    _growth,
    _memory,
    movement,
)
from panic.analysis.nulls import sphere_walk
from panic.topology import pairwise

Maker = Callable[[np.random.Generator], np.ndarray]


def moved(make: Maker, num_runs: int, seed: int, num_lags: int = 40) -> Movement:
    """The verdict on runs of one design."""
    rng = np.random.default_rng([seed, num_runs])
    runs = [make(rng) for _ in range(num_runs)]
    num_lags = min(num_lags, len(runs[0]) // 2)
    distances = np.array([dynamics.distance_by_lag(run, num_lags)[1:] for run in runs])
    draws = np.empty((num_runs, 79, num_lags))
    for place, run in enumerate(runs):
        apart = pairwise(run, "cosine")
        for number in range(79):
            order = rng.permutation(len(run))
            for lag in range(1, num_lags + 1):
                draws[place, number, lag - 1] = apart[order[:-lag], order[lag:]].mean()
    return movement(distances, np.median(draws, axis=0))


def walk(rng: np.random.Generator) -> np.ndarray:
    """As `configs/walk.yaml` has them."""
    return sphere_walk(100, 16, 0.2, rng)


def remembering(rng: np.random.Generator, phi: float = 0.8, size: int = 100) -> np.ndarray:
    """A stationary first-order autoregression."""
    points = np.empty((size, 16))
    points[0] = rng.standard_normal(16)
    for step in range(1, size):
        points[step] = phi * points[step - 1] + np.sqrt(1 - phi**2) * rng.standard_normal(16)
    return points


def cycling(rng: np.random.Generator, period: int, noise: float) -> np.ndarray:
    """States in turn, each seen with noise."""
    states = rng.standard_normal((period, 8))
    return states[np.arange(100) % period] + noise * rng.standard_normal((100, 8))


def turning(rng: np.random.Generator) -> np.ndarray:
    """A point that goes smoothly round a circle in 16 steps: lags 15 and 17 are near, too."""
    angle = 2 * np.pi * np.arange(100) / 16 + rng.uniform(0, 6)
    return np.stack([np.cos(angle), np.sin(angle)], axis=1) + 0.2 * rng.standard_normal((100, 2))


def test_random_walks_do_not_stay_in_their_region():
    found = [moved(walk, 10, seed) for seed in range(6)]
    assert {one.memory for one in found} == {"nearer"}
    courses = [one.course for one in found]
    assert "stays" not in courses
    assert "returns" not in courses
    assert courses.count("grows") >= 4


def test_stationary_processes_do_not_wander_off():
    found = [moved(remembering, 10, seed) for seed in range(6)]
    courses = [one.course for one in found]
    assert "grows" not in courses
    assert "returns" not in courses
    assert courses.count("stays") >= 4
    assert {one.memory for one in found} == {"nearer"}


@pytest.mark.parametrize("num_runs", [1, 4])
def test_alternation_is_memory_and_comes_back_after_two(num_runs):
    for noise in (0.0, 0.4):
        found = moved(lambda rng, noise=noise: cycling(rng, 2, noise), num_runs, 0)
        assert (found.memory, found.returns_after) == ("farther", 2)


@pytest.mark.parametrize("num_runs", [1, 4])
def test_a_noisy_cycle_of_seven_comes_back_after_seven(num_runs):
    found = [moved(lambda rng: cycling(rng, 7, 0.3), num_runs, seed).returns_after for seed in range(4)]
    assert found == [7] * 4


def test_a_smooth_cycle_comes_back_at_the_bottom_of_its_dip():
    assert [moved(turning, 5, seed).returns_after for seed in range(3)] == [16] * 3


def test_independent_outputs_have_no_memory_and_no_course_but_staying():
    found = [moved(lambda rng: remembering(rng, 0.0), 6, seed) for seed in range(12)]
    assert sum(one.memory != "none" for one in found) <= 2  # of 5 %
    assert not any(one.course in ("grows", "returns") for one in found)


def test_below_five_lags_and_of_few_runs_nothing_is_decided():
    assert moved(lambda rng: remembering(rng, size=8), 6, 0).course == "short"
    assert moved(walk, 2, 0).course == "unknown"
    still = np.zeros((2, 6))
    assert movement(still, np.zeros((79, 6))).course == "still"


def test_dips_are_below_the_mean_of_the_lags_around():
    assert _dips(np.array([5.0, 1, 5, 7]), 1).tolist() == [-np.inf, 4, -1, -np.inf]
    # A quarter of lag 8 away are lags 6 and 10; of lags up to 7 the direct neighbours.
    curve = np.zeros(10)
    curve[5], curve[9], curve[7] = 3.0, 5.0, 1.0
    assert _dips(curve, 4)[7] == 3.0
    assert _dips(curve, 4)[6] == 2.0
    assert _dips(curve, 4)[[0, 8, 9]].tolist() == [-np.inf] * 3
    assert _dips(np.stack([curve, 2 * curve]), 4)[1, 7] == 6.0


def test_growth_is_that_of_the_late_third_over_its_level():
    """D(k) = k up to 9: from 7 to 9 by 2 of 8."""
    lags = np.arange(1.0, 10.0)
    assert _growth(np.stack([lags] * 3)) == pytest.approx((0.25, 0.25, 0.25))
    half = 4.302653 * 2 / np.sqrt(3) / 16  # rises of 2, 4 and 6, of a level of 16
    assert _growth(np.stack([lags, 2 * lags, 3 * lags])) == pytest.approx((0.25, 0.25 - half, 0.25 + half))
    assert _growth(np.stack([lags, lags])) == (pytest.approx(0.25), -np.inf, np.inf)
    assert _growth(np.stack([lags[:6]] * 3))[0] == pytest.approx(2 / 5)  # three lags at least
    assert _growth(np.stack([np.arange(1.0, 13.0)] * 3))[0] == pytest.approx(3 / 10.5)


@pytest.mark.parametrize(
    ("low", "high", "course"),
    [
        (0.16, 0.5, "grows"), (0.15, 0.5, "creeps"), (0.01, 0.05, "creeps"), (0.0, 0.09, "stays"),
        (0.0, 0.1, "unknown"), (-0.5, -0.1, "stays"), (-0.5, 0.5, "unknown"),
    ],
)  # fmt: skip
def test_the_interval_of_growth_names_the_course(low, high, course):
    assert _course(low, high) == course


def test_memory_is_outside_of_95_percent_of_shuffles():
    draws = np.arange(1.0, 80.0)  # 2.5 % lie below 2
    assert [_memory(value, draws) for value in (1.9, 2.1, 77.9, 78.1)] == [
        "nearer",
        "none",
        "none",
        "farther",
    ]


def test_dips_over_runs_are_tested_with_their_number():
    """Three lags have lags around; 2.5 % over 3 of 2 degrees of freedom: t must be above 7.65."""
    clear = np.tile([5.0, 5, 3, 5, 5], (3, 1))
    assert _dips_over_runs(clear).tolist() == [False, False, True, False, False]
    assert not _dips_over_runs(clear[:2]).any()
    for spread, is_clear in ((0.44, True), (0.47, False)):  # t = 2 sqrt 3 / spread = 7.87, 7.37
        varied = clear.copy()
        varied[:, 2] += [-spread, 0, spread]
        assert _dips_over_runs(varied)[2] == is_clear


def test_a_dip_is_deeper_than_the_deepest_of_nearly_all_shuffles():
    draws = np.zeros((39, 5))
    draws[:, 2] = -np.arange(39.0)  # the deepest dip of the last one is 38
    assert not _dips_beyond_shuffles(np.array([0.0, 0, -38, 0, 0]), draws).any()
    assert _dips_beyond_shuffles(np.array([0.0, 0, -38.1, 0, 0]), draws).tolist() == [0, 0, 1, 0, 0]


def test_what_never_moves_is_still_and_a_few_lags_are_short():
    still = movement(np.zeros((2, 9)), np.zeros((39, 9)))
    assert (still.course, still.memory, still.num_runs) == ("still", "none", 2)
    lags = np.arange(1.0, 7.0)
    absent = np.stack([lags, np.where(lags > 4, np.nan, lags)])
    assert movement(absent, np.ones((39, 6))).course == "short"
    assert np.isnan(movement(absent, np.ones((39, 6))).growth)
    five = np.stack([lags, np.where(lags > 5, np.nan, lags)])
    assert movement(five, np.tile(lags, (39, 1))).course == "unknown"


@pytest.mark.parametrize(("depth", "after"), [(0.099, None), (0.101, 3)])
def test_a_dip_of_a_tenth_of_the_mean_is_a_return(depth, after):
    """All other lags are at 1; shuffles never dip."""
    curve = np.ones(6)
    curve[2] = 1 - depth / (1 + depth / 6)  # so deep, as a share of the mean of all six
    found = movement(np.tile(curve, (3, 1)), np.ones((39, 6)))
    assert found.returns_after == after


def test_a_dip_of_exactly_a_tenth_is_one_and_its_bottom_may_be_the_last_lag():
    """The mean of the first is 10, and at the fourth lag it is 1 below its neighbours."""
    calm = np.tile(np.arange(8.0), (39, 1))
    just = np.array([10.0, 10, 10, 9, 10, 10, 10, 11])
    assert movement(np.tile(just, (3, 1)), calm).returns_after == 4
    falls = np.array([10.0, 10, 10, 10, 10, 5, 4, 3.9])  # below its neighbours from the sixth on
    assert movement(np.tile(falls, (3, 1)), calm).returns_after == 8
