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
    periodicity_of_pairs,
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


def test_a_rate_is_fitted_until_a_tenth_of_the_saturation():
    grown = np.minimum(1e-6 * np.exp(np.arange(60)), 1.0)  # reaches 0.1 at 11.5, and 0.5 at 13.1
    found = ftle(grown)
    assert (found.first, found.last) == (0, 11)
    assert (found.rate, found.saturation, found.r2) == pytest.approx((1.0, 1.0, 1.0))
    assert ftle(grown, below=0.5).last == 13
    assert ftle(grown, step=2.0).rate == pytest.approx(0.5)
    assert (ftle(grown, window=3).last, ftle(grown, window=5).last, ftle(grown, window=99).last) == (2, 4, 59)
    met = grown.copy()
    met[[0, 5]] = 0  # two steps at which the pair has met
    found = ftle(met)
    assert (found.first, found.last, found.rate) == (1, 11, pytest.approx(1.0))
    assert ftle(grown[9:]).last == 2, "three steps are enough"
    with pytest.raises(AnalysisError, match="from output 3 on: no early growth") as refused:
        ftle(grown[10:])
    assert refused.value.hint == "start the twins closer to each other, or give the window"


@pytest.mark.parametrize(
    ("distances", "how", "why"),
    [
        ([1.0, -1.0, 2.0], {}, "not negative"),
        ([[[1.0]]], {}, "finite"),
        ([1.0, 2.0, 3.0], {"below": 0}, "found 0 and 1.0"),
        ([1.0, 2.0, 3.0], {"below": 1}, "found 1 and 1.0"),
        ([1.0, 2.0, 3.0], {"step": 0}, "found 0.1 and 0"),
        ([1.0, 2.0, 3.0], {"window": 2}, "a window of 3 outputs or more, found 2"),
    ],
)
def test_what_has_no_rate_is_refused(distances, how, why):
    with pytest.raises(AnalysisError, match=why):
        ftle(distances, **how)


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


def grown(*ends: float) -> np.ndarray:
    """Distances that grow from e^-9 to e^-1 by e a step, stay at 1, and have these logarithms at the end."""
    return np.exp([*range(-9, 0), *[0.0] * 5, *ends])


def test_a_rate_is_that_before_a_tenth_of_the_level():
    """Logarithms -9 to -3 are below ln 0.1; the first column, where the twins are one, is left out."""
    found = ftle(np.append(0.0, grown(0, 0)), step=0.5)
    assert (found.rate, found.r2, found.saturation) == pytest.approx((2.0, 1.0, 1.0))
    assert (found.first, found.last) == (1, 7)
    assert ftle(grown(0, 0), below=0.2).last == 7
    assert ftle(grown(0, 0), below=0.5).last == 8
    assert (ftle(grown(0, 0), window=3).last, ftle(grown(0, 0), window=99).last) == (2, 15)
    with pytest.raises(AnalysisError, match="window of 3 outputs or more, found 2"):
        ftle(grown(0, 0), window=2)
    for wrong in ({"below": 0}, {"below": 1}, {"step": 0}):
        with pytest.raises(AnalysisError, match="below must be"):
            ftle(grown(0, 0), **wrong)
    for distances in ([-1.0, 2, 3], np.ones((2, 3, 4)), [1.0, np.inf]):
        with pytest.raises(AnalysisError, match="finite, not negative"):
            ftle(distances)


def test_what_falls_is_not_saturated():
    found = ftle(np.exp([0.0, -1, -2, -3, *[-3.0] * 12]), window=4)
    assert (found.rate, found.is_saturated) == (pytest.approx(-1), False)


@pytest.mark.parametrize(("spread", "is_saturated"), [(0.02, True), (0.025, False)])
def test_the_end_has_stopped_to_grow_with_95_percent_confidence_over_pairs(spread, is_saturated):
    """The last 2 of 16 steps are -s, 0 and s above those before: at most 2.92 s / sqrt 3, against ln 1.04."""
    pairs = np.stack([grown(rise, rise) for rise in (-spread, 0.0, spread)])
    assert ftle(pairs).is_saturated == is_saturated


def test_one_pair_has_stopped_where_its_end_is_above_by_less_than_4_percent():
    assert ftle(grown(0.039, 0.039)).is_saturated
    assert not ftle(grown(0.04, 0.04)).is_saturated


def test_a_pair_that_has_met_is_left_out_of_the_error():
    pairs = 1e-6 * np.exp(np.array([0.5, 0.6, 0.7, 0.1])[:, None] * np.arange(20))
    pairs[3, 2] = 0
    assert ftle(pairs, window=5).standard_error == pytest.approx(0.1 / np.sqrt(3))


def test_a_regression_is_scipys():
    from scipy.stats import linregress

    x, y = [1.0, 2, 4, 7], [3.0, 1, 0, -4]
    found, want = attractor(x, y), linregress(x, y)
    assert (found.slope, found.intercept) == pytest.approx((want.slope, want.intercept))
    assert (found.slope_error, found.r2) == pytest.approx((want.stderr, want.rvalue**2))
    assert found.strength == pytest.approx(1 - abs(want.slope))
    assert found.position == pytest.approx(want.intercept / (1 - want.slope))
    assert found.num_runs == 4
    flat = attractor([0, 1, 2], [5, 5, 5])
    assert (flat.strength, flat.position) == (1.0, 5.0)
    assert math.isnan(flat.r2)


def recurrence_by_definition(word, theiler, min_line):
    """Rate, determinism, mean line, longest line, laminarity, trapping time, from pairs of steps."""
    size = len(word)
    near = [[a == b and abs(i - j) >= theiler for j, b in enumerate(word)] for i, a in enumerate(word)]

    def stretches(line):
        return [len(part) for part in "".join("x" if hit else " " for hit in line).split()]

    diagonals = [stretches(near[i][i + lag] for i in range(size - lag)) for lag in range(theiler, size)]
    lines = [length for diagonal in diagonals for length in diagonal]
    columns = [length for row in near for length in stretches(row)]
    long, tall = [x for x in lines if x >= min_line], [x for x in columns if x >= min_line]
    pairs = sum(range(size - theiler + 1))
    return (
        sum(lines) / pairs, sum(long) / sum(lines), sum(long) / len(long), max(long),
        sum(tall) / sum(columns), sum(tall) / len(tall),
    )  # fmt: skip


@pytest.mark.parametrize("theiler", [1, 2, 3])
@pytest.mark.parametrize("min_line", [1, 2, 3])
def test_recurrence_is_what_its_definition_says(theiler, min_line):
    word = "AAABBABABABBBAAACABABA"
    found = recurrence(list(word), theiler=theiler, min_line=min_line)
    measured = (
        found.rate, found.determinism, found.mean_line, found.longest_line,
        found.laminarity, found.trapping_time,
    )  # fmt: skip
    assert measured == pytest.approx(recurrence_by_definition(word, theiler, min_line))


def test_the_entropy_of_lines_by_hand():
    """AABAA: (0,1), (3,4) alone, (0,3)-(1,4) a line of 2, (0,4), (1,3) alone."""
    assert recurrence(list("AABAA"), min_line=1).line_entropy == pytest.approx(
        -(0.8 * math.log(0.8) + 0.2 * math.log(0.2))
    )
    assert recurrence(list("AABAA")).line_entropy == 0.0
    assert math.isnan(recurrence([0, 0, 1, 0]).line_entropy)


def test_what_is_as_near_as_the_radius_recurs():
    assert recurrence([[0.0], [1], [2]], radius=1).rate == pytest.approx(2 / 3)
    assert recurrence([[0.0], [1], [2]], radius=0.9).rate == 0
    for radius in (0, -1, None):
        with pytest.raises(AnalysisError, match="radius above 0"):
            recurrence([[0.0], [1], [2]], radius=radius)
    with pytest.raises(AnalysisError, match="known: euclidean, cosine"):
        recurrence([[0.0], [1], [2]], radius=1, metric="chordal")


def test_scores_of_lags_are_what_is_beyond_chance():
    """AABA: 6 of 12 ordered pairs are equal; 1 of 3 at lag 1, 1 of 2 at lag 2, 1 of 1 at lag 3."""
    found = periodicity(list("AABA"), 3)
    assert found.scores.tolist() == pytest.approx([1, (1 / 3 - 0.5) / 0.5, 0, 1])
    assert periodicity(list("AABA")).scores.shape == (3,)
    assert np.isnan(periodicity(list("AABA"), 5).scores[4:]).all()
    vectors = np.array([[1.0, 0], [2, 0], [0, 3], [1, 0]])  # of the same kind: orthogonal or parallel
    assert periodicity(vectors, 3).scores.tolist() == pytest.approx(found.scores.tolist())


@pytest.mark.parametrize(
    ("word", "period"),
    [
        ("AB" * 5 + "AC", 12),  # lag 2 scores 0.72
        ("AB" * 29 + "AC", 2),  # lag 2 scores 0.93: within 90 % of the highest
        ("ABAC", 4),
    ],
)
def test_the_least_lag_near_the_highest_peak_is_the_period(word, period):
    found = periodicity(list(word * 4))
    assert found.period == period
    assert found.score == pytest.approx(1.0)


def test_a_peak_below_the_least_is_no_period():
    word = list("ABCABCABDABCACC" * 3)
    score = periodicity(word, 4).score
    assert 0.3 < score < 0.9
    assert periodicity(word, 4, least=score - 0.01).period == 3
    assert periodicity(word, 4, least=score + 0.01).period is None


def test_order_patterns_take_values_a_delay_apart():
    """1, 9, 2, 8, 3, 7: two steps apart it rises twice and falls twice."""
    assert permutation_entropy([1, 9, 2, 8, 3, 7], 2, delay=2) == pytest.approx(math.log(2))
    assert permutation_entropy([1, 9, 2, 8, 3, 7], 2, delay=2, normalised=True) == pytest.approx(1)
    assert permutation_entropy([1, 9, 2, 8, 3], 3, delay=2) == 0.0
    with pytest.raises(AnalysisError, match="at least 5"):
        permutation_entropy([1, 9, 2, 8], 3, delay=2)
    with pytest.raises(AnalysisError, match="delay 1 or more"):
        permutation_entropy([1, 9, 2], 2, delay=0)


def test_two_nearest_neighbours_tell_the_dimension_by_the_formula():
    """ln mu against -ln(1 - i / (n + 1)) through the origin, without the largest fifth."""
    points = np.random.default_rng(4).normal(size=(10, 3))
    ratios = []
    for point in points:
        near = sorted(np.linalg.norm(points - point, axis=1))
        ratios.append(near[2] / near[1])
    x = np.log(sorted(ratios)[:8])
    y = [-math.log(1 - i / 11) for i in range(1, 9)]
    assert intrinsic_dimension(points, discard=0.2) == pytest.approx(x @ y / (x @ x))
    with pytest.raises(AnalysisError, match="found 9"):
        intrinsic_dimension(points[:9])
    assert intrinsic_dimension(points, discard=0) > 0
    for wrong in (1, -0.1):
        with pytest.raises(AnalysisError, match="discard"):
            intrinsic_dimension(points, discard=wrong)


def test_periodicity_of_pairs_is_that_of_the_states():
    rng = np.random.default_rng(0)
    points = np.tile(rng.normal(size=(5, 6)), (6, 1)) + 0.1 * rng.normal(size=(30, 6))
    directions = points / np.linalg.norm(points, axis=1, keepdims=True)
    found, same = periodicity(points), periodicity_of_pairs(directions @ directions.T)
    assert (same.period, same.score) == (5, pytest.approx(found.score, abs=1e-12))
    np.testing.assert_allclose(same.scores, found.scores, atol=1e-12)
