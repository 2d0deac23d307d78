"""Dynamics against known answers, to the digits; degenerate input gives a result or a clear refusal."""

from __future__ import annotations

import math

import numpy as np
import pytest

from panic.analysis.checks import AnalysisError
from panic.analysis.dynamics import (
    attractor,
    distance_by_lag,
    divergence,
    first_visits,
    ftle,
    intrinsic_dimension,
    noise,
    periodicity,
    permutation_entropy,
    recurrence,
    step_sizes,
)
from panic.errors import PanicError


def sphere_walk(n: int, d: int = 64, angle: float = 0.3, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    points = [np.eye(d)[0]]
    for _ in range(n - 1):
        step = rng.normal(size=d)
        step -= (step @ points[-1]) * points[-1]
        points.append(np.cos(angle) * points[-1] + np.sin(angle) * step / np.linalg.norm(step))
    return np.array(points)


def twins(step, starts: np.ndarray, gap: float, n: int) -> np.ndarray:
    """Distances (pairs, n) of trajectories that start `gap` apart, under a map of (pairs, d)."""
    a, b = starts, starts + gap * np.eye(starts.shape[1])[0]
    distances = []
    for _ in range(n):
        distances.append(np.linalg.norm(a - b, axis=1))
        a, b = step(a), step(b)
    return np.array(distances).T


def logistic(x: np.ndarray) -> np.ndarray:
    return 4 * x * (1 - x)


def test_the_logistic_map_grows_by_ln_2():
    starts = np.random.default_rng(0).beta(0.5, 0.5, size=(2000, 1)) * 0.999  # its invariant law
    found = ftle(twins(logistic, starts, 1e-12, 60))
    assert found.rate == pytest.approx(math.log(2), abs=0.01)
    assert found.r2 > 0.999
    assert found.is_saturated
    assert found.last < 40
    assert found.standard_error < 0.01


def test_growth_without_an_end_is_not_called_saturated():
    grown = 1e-6 * np.exp(0.1 * np.arange(60))
    found = ftle(grown)
    assert (found.rate, found.r2) == pytest.approx((0.1, 1.0))
    assert not found.is_saturated
    assert ftle(np.minimum(grown, 1e-4)).is_saturated
    assert not ftle(1e-6 * np.exp(0.1 * np.arange(6)), window=4).is_saturated


def test_the_error_of_a_rate_is_that_over_pairs():
    """Straight lines of different slopes: each fits perfectly, and only their spread says how sure it is."""
    rates = np.array([0.5, 0.6, 0.7])
    pairs = np.minimum(1e-6 * np.exp(rates[:, None] * np.arange(60)), 1.0)
    found = ftle(pairs)
    assert found.rate == pytest.approx(0.6)
    assert found.standard_error == pytest.approx(0.1 / np.sqrt(3))
    assert ftle(pairs[1]).standard_error == pytest.approx(0, abs=1e-9)


def test_henon_grows_by_0_419():
    henon = lambda x: np.stack([1 - 1.4 * x[:, 0] ** 2 + x[:, 1], 0.3 * x[:, 0]], axis=1)  # noqa: E731
    state = np.random.default_rng(1).uniform(-0.1, 0.1, size=(500, 2))
    for _ in range(100):
        state = henon(state)
    assert ftle(twins(henon, state, 1e-12, 90)).rate == pytest.approx(0.419, abs=0.01)


def test_lorenz_grows_by_0_906():
    def field(x: np.ndarray) -> np.ndarray:
        return np.stack(
            [
                10 * (x[:, 1] - x[:, 0]),
                x[:, 0] * (28 - x[:, 2]) - x[:, 1],
                x[:, 0] * x[:, 1] - 8 / 3 * x[:, 2],
            ],
            axis=1,
        )

    def step(x: np.ndarray, h: float = 0.01) -> np.ndarray:
        a = field(x)
        b = field(x + h / 2 * a)
        c = field(x + h / 2 * b)
        return x + h / 6 * (a + 2 * b + 2 * c + field(x + h * c))

    state = np.random.default_rng(2).normal([0, 0, 25], size=(300, 3))
    for _ in range(1500):
        state = step(state)
    found = ftle(twins(step, state, 1e-10, 3500), step=0.01)
    assert found.rate == pytest.approx(0.906, abs=0.03)
    assert found.r2 > 0.99


def test_twins_that_do_not_part_early_are_refused_or_have_no_rate():
    a, b = sphere_walk(100, seed=1), sphere_walk(100, seed=2)
    with pytest.raises(AnalysisError, match="no early growth"):
        ftle(divergence(a, b)[1:])
    over_all = ftle(divergence(a, b)[1:], window=99)  # the artefact, when asked for
    assert 0 < over_all.rate < 0.05
    with pytest.raises(AnalysisError, match="never parted"):
        ftle(np.zeros(10))
    with pytest.raises(AnalysisError, match="finite"):
        ftle([1.0, np.nan])
    with pytest.raises(AnalysisError, match="2 and 3 coordinates"):
        divergence(np.ones((4, 2)), np.ones((4, 3)))


def test_a_walk_on_the_sphere_has_its_cosine_to_the_power_of_the_lag():
    walks = [distance_by_lag(sphere_walk(400, angle=0.3, seed=seed), 8) for seed in range(10)]
    np.testing.assert_allclose(1 - np.mean(walks, axis=0), np.cos(0.3) ** np.arange(9), atol=0.02)
    assert walks[0][1] == pytest.approx(1 - math.cos(0.3), rel=1e-9)  # every step turns by the angle


def test_noise_on_a_walk_is_found_and_a_pure_walk_has_none():
    rng = np.random.default_rng(0)
    steps = rng.normal(size=(20_000, 3))
    walk = np.cumsum(steps, axis=0)
    measured = walk + 0.5 * rng.normal(size=walk.shape)
    by_lag = distance_by_lag(measured, 2, metric="sqeuclidean")
    assert noise(by_lag) == pytest.approx(2 * 3 * 0.25, abs=0.1)
    assert by_lag[1] - noise(by_lag) == pytest.approx(3.0, abs=0.1)
    assert noise(distance_by_lag(walk, 2, metric="sqeuclidean")) == pytest.approx(0, abs=0.1)


def test_distances_of_a_line_by_hand():
    line = np.arange(1.0, 6.0)
    np.testing.assert_allclose(distance_by_lag(line, 6, metric="euclidean"), [0, 1, 2, 3, 4, np.nan, np.nan])
    assert step_sizes(line, metric="sqeuclidean").tolist() == [1, 1, 1, 1]
    assert divergence([[0, 0], [3, 4]], [[0, 1], [0, 0], [9, 9]]).tolist() == [1, 5]


def test_an_autoregression_forgets_its_start():
    """rho = 0.9, mu = 2, 10 steps: strength 1 - 0.9^10 = 0.6513, position 2."""
    rng = np.random.default_rng(0)
    initial = value = rng.normal(2, 5, size=200_000)
    for _ in range(10):
        value = 2 + 0.9 * (value - 2) + rng.normal(size=value.shape)
    found = attractor(initial, value)
    assert found.strength == pytest.approx(0.6513, abs=0.005)
    assert found.position == pytest.approx(2.0, abs=0.05)
    assert found.slope_error < 0.002
    exact = attractor([0, 1, 2], [2, 2 + 0.5, 3])
    assert (exact.strength, exact.position, exact.r2) == pytest.approx((0.5, 4.0, 1.0))
    assert math.isnan(attractor([0, 1, 2], [1, 2, 3]).position)


@pytest.mark.parametrize("num_symbols", [2, 5])
def test_independent_symbols_recur_as_chance_has_it(num_symbols):
    p = 1 / num_symbols
    found = recurrence(np.random.default_rng(0).integers(num_symbols, size=3000))
    assert found.rate == pytest.approx(p, rel=0.01)
    assert found.determinism == pytest.approx(p * (2 - p), rel=0.02)
    assert found.mean_line == pytest.approx(2 + p / (1 - p), rel=0.01)
    assert found.laminarity == pytest.approx(p * (2 - p), rel=0.05)


def test_recurrence_of_a_cycle_and_of_a_short_word_by_hand():
    cycle = recurrence(["a", "b", "c"] * 4)
    assert cycle.rate == pytest.approx((9 + 6 + 3) / 66)
    assert (cycle.determinism, cycle.mean_line, cycle.longest_line) == (1.0, 6.0, 9)
    word = recurrence([0, 0, 1, 0])  # pairs: (0,1), (0,3), (1,3)
    assert (word.rate, word.determinism, word.longest_line) == (0.5, 0.0, 0)
    assert math.isnan(word.mean_line)
    stays = recurrence([7] * 5)
    assert (stays.rate, stays.determinism, stays.laminarity) == (
        1.0,
        0.9,
        0.9,
    )  # one line of length 1 in a corner


@pytest.mark.parametrize("word", ["ABAABAAAB", "BAAABAABA"])
def test_vertical_lines_are_those_of_the_whole_matrix_forwards_and_backwards(word):
    """In the upper triangle alone the laminarity was 0.444 one way and 0.722 the other."""
    found = recurrence(list(word))
    assert found.laminarity == pytest.approx(7 / 12)
    assert found.trapping_time == pytest.approx(7 / 3)


def test_recurrence_of_vectors_is_that_of_their_symbols():
    symbols = np.random.default_rng(1).integers(4, size=200)
    points = np.eye(4)[symbols] + 1e-3 * np.random.default_rng(2).normal(size=(200, 4))
    assert recurrence(points, radius=0.1) == recurrence(symbols)
    assert recurrence(points, radius=0.01, metric="cosine") == recurrence(symbols)
    with pytest.raises(AnalysisError, match="radius"):
        recurrence(points)
    assert recurrence(symbols, theiler=3).rate == pytest.approx(0.25, abs=0.03)


def test_first_visits_tell_what_was_here_before():
    assert first_visits(["b", "a", "b", "c", "a"]).tolist() == [0, 1, 0, 3, 1]


@pytest.mark.parametrize("period", [1, 2, 3, 7])
def test_periods_are_found_in_symbols_and_vectors(period):
    symbols = np.arange(60) % period
    assert periodicity(symbols).period == period
    assert periodicity(symbols).score == pytest.approx(1.0)
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(period, 16))
    assert periodicity(centres[symbols]).period == period
    if period > 1:  # around a single centre there is nothing but noise
        assert periodicity(centres[symbols] + 0.1 * rng.normal(size=(60, 16))).period == period


def test_noise_has_no_period():
    rng = np.random.default_rng(0)
    assert periodicity(rng.integers(4, size=500)).period is None
    assert periodicity(rng.normal(size=(300, 32))).period is None
    assert abs(periodicity(rng.integers(4, size=5000), 3).scores[1:]).max() < 0.05


def test_slow_wandering_has_no_period_and_a_slow_wave_its_own():
    """Likeness of a walk only falls with the lag; that of a wave of 20 steps rises again, up to lag 20."""
    assert periodicity(sphere_walk(200, angle=0.05)).period is None
    turns = 2 * np.pi * np.arange(100) / 20
    assert periodicity(np.stack([np.cos(turns), np.sin(turns)], axis=1)).period == 20
    slower = 2 * np.pi * np.arange(100) / 56  # its period is beyond the lags that are looked at
    wave = periodicity(np.stack([np.cos(slower), np.sin(slower)], axis=1))
    assert wave.period is None
    assert wave.scores.shape == (51,)
    assert math.isnan(periodicity(sphere_walk(10, angle=0.05), 12).score)


def test_order_patterns_by_hand_and_of_known_processes():
    """4, 7, 9, 10, 6, 11, 3: 0.918 bits at order 2 and 1.522 at order 3 (Bandt and Pompe 2002)."""
    example = [4, 7, 9, 10, 6, 11, 3]
    assert permutation_entropy(example, 2) / math.log(2) == pytest.approx(0.918, abs=5e-4)
    assert permutation_entropy(example, 3) / math.log(2) == pytest.approx(1.522, abs=5e-4)
    assert permutation_entropy(np.arange(50.0), 4) == 0.0
    assert permutation_entropy(np.ones(50), 4) == 0.0
    rng = np.random.default_rng(0)
    assert permutation_entropy(rng.normal(size=100_000), 3, normalised=True) == pytest.approx(1, abs=1e-3)
    x = [0.3]
    for _ in range(20_000):
        x.append(logistic(x[-1]))
    patterns = permutation_entropy(x, 3)  # descending three times never happens: 5 patterns of 6
    assert patterns < math.log(5)


@pytest.mark.parametrize("dimension", [1, 2, 5])
def test_a_cube_fills_its_dimension_wherever_it_lies(dimension):
    rng = np.random.default_rng(0)
    frame = np.linalg.qr(rng.normal(size=(50, dimension)))[0]
    points = rng.uniform(size=(2500, dimension)) @ frame.T
    found = intrinsic_dimension(np.vstack([points, points[:500]]))  # copies count once
    assert found == pytest.approx(dimension, rel=0.08)


@pytest.mark.parametrize("size", [0, 1, 2])
def test_too_few_states_give_an_empty_answer(size):
    states = np.ones((size, 3))
    assert np.isnan(distance_by_lag(states, 3)[max(size, 1) :]).all()
    assert step_sizes(states).shape == (max(size - 1, 0),)
    assert periodicity(states).period is None
    assert first_visits(np.arange(size)).shape == (size,)
    found = recurrence(np.zeros(size, dtype=int))
    assert found.rate == 1.0 if size == 2 else math.isnan(found.rate)


def test_equal_states_have_an_answer():
    states = np.ones((20, 3))
    assert distance_by_lag(states, 5).tolist() == [0] * 6
    assert noise(distance_by_lag(states, 5)) == 0
    assert (periodicity(states).period, periodicity([5] * 20).period) == (1, 1)
    assert recurrence(states, radius=0.1).rate == 1.0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: distance_by_lag([[np.nan, 1.0]], 2), "1 of 1 vectors hold NaN"),
        (lambda: distance_by_lag(np.zeros((3, 2)), 2), "no direction"),
        (lambda: distance_by_lag(np.ones((3, 2)), -1), "0 or more"),
        (lambda: distance_by_lag(np.ones((3, 2)), 2, metric="manhattan"), "cosine, euclidean"),
        (lambda: distance_by_lag(np.ones((2, 2, 2)), 1), "shape"),
        (lambda: distance_by_lag([[1], [1, 2]], 1), "one length"),
        (lambda: noise([0.0, 1.0]), r"D\(2\)"),
        (lambda: attractor([1, 1, 1], [1, 2, 3]), "same value"),
        (lambda: attractor([1, 2], [1, 2]), "at least 3"),
        (lambda: attractor([1, 2, 3], [1, 2, 3, 4]), "pair up"),
        (lambda: recurrence([1.0, np.nan]), "NaN"),
        (lambda: recurrence(["a", None, "b"]), "must not be None"),
        (lambda: recurrence([1, 2], min_line=0), "min_line"),
        (lambda: periodicity([1, 2, 3], 0), "max_lag"),
        (lambda: permutation_entropy([1, 2], 3), "at least 3"),
        (lambda: permutation_entropy([1, 2], 1), "order"),
        (lambda: permutation_entropy(np.ones((5, 2)), 2), "one number per step"),
        (lambda: intrinsic_dimension(np.ones((50, 2))), "found 1"),
        (lambda: intrinsic_dimension(np.arange(50.0)), "lattice"),
        (lambda: ftle([1, 2, 3], below=2), "below"),
    ],
)
def test_what_cannot_be_answered_is_refused_with_the_reason(call, message):
    with pytest.raises(AnalysisError, match=message) as caught:
        call()
    assert isinstance(caught.value, PanicError)
