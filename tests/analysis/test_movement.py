"""How runs move, said of runs whose movement is known: walks, stationary ones, cycles, alternation."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from panic.analysis import dynamics
from panic.analysis.movement import Movement, movement
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
