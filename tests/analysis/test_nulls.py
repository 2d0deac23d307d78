"""Surrogates keep what they say, and bands are where so many of them lie."""

from __future__ import annotations

from itertools import count, pairwise

import numpy as np
import pytest

from panic.analysis.checks import AnalysisError
from panic.analysis.nulls import (
    autoregression,
    gaussian_process,
    markov_labels,
    markov_path,
    matched_walk,
    null_band,
    null_table,
    shuffled,
    sphere_walk,
    walk_like,
)

RNG = np.random.default_rng


def counted(value, num: int = 39, **how):
    """The band of a value beside surrogates with the values 1, 2, ..., num."""
    numbers = count(1)
    return null_band(float, value, lambda *_: next(numbers), num_surrogates=num, **how)


def test_a_band_has_the_share_of_its_level_by_weibulls_positions():
    """Of 39 values 2.5 % lie below the first and 2.5 % above the last."""
    found = counted(20)
    assert (found.value, found.low, found.high, found.mean, found.level) == (20, 1, 39, 20, 0.95)
    half = counted(20, level=0.5)
    assert (half.low, half.high) == (10, 30)
    assert found.draws.tolist() == list(range(1, 40))


@pytest.mark.parametrize(
    ("value", "p", "is_outside"),
    [
        (0, 2 / 40, True),
        (1, 4 / 40, False),
        (39, 4 / 40, False),
        (40, 2 / 40, True),
        (20, 1.0, False),
        (10, 22 / 40, False),
    ],
)
def test_a_p_value_is_twice_the_smaller_share_at_or_beyond(value, p, is_outside):
    found = counted(value)
    assert found.p_value == pytest.approx(p)
    assert found.is_outside == is_outside


@pytest.mark.parametrize("num", [39, 40, 60, 79, 99, 100, 200])
def test_one_of_exchangeable_values_is_outside_at_most_as_often_as_the_level_says(num):
    """Whichever of the values is taken for the run's, the others are its draws: all cases are counted."""
    values = [float(value) for value in range(num + 1)]
    above, below, ties = 0, 0, 0
    for own in values:
        found = _beside(own, [value for value in values if value != own])
        above += int(found.value > found.high)
        below += int(found.value < found.low)
        assert found.is_outside == (found.p_value <= 0.05 + 1e-12)
        ties += int(_beside(own // 3, [value // 3 for value in values if value != own]).is_outside)
    assert above == below == (num + 1) // 40
    assert ties <= above + below


def _beside(own, others):
    draws = iter(others)
    return null_band(float, own, lambda *_: next(draws), num_surrogates=len(others))


def test_runs_have_draws_of_their_own():
    """All runs of an experiment shared those of one seed: one unlucky set of draws put them all outside."""
    runs = [(run, float(value)) for run, value in enumerate(RNG(0).normal(size=2000))]
    found = null_table(runs, float, lambda _, rng: float(rng.normal()), max_runs=2000)
    assert found["high"].n_unique() == found["low"].n_unique() == 2000
    for outside in (found["value"] > found["high"], found["value"] < found["low"]):
        assert 28 < outside.sum() < 74  # 50 +- 3.3 deviations
    again = null_table(runs[:3], float, lambda _, rng: float(rng.normal()))
    assert again.rows() == found.head(3).rows(), "whoever else is there, a run has the same band"


def test_several_arrays_have_a_number_together():
    def band(*runs):
        return null_band(lambda some: sum(map(sum, some)), list(runs), lambda _, rng: [rng.normal(size=1)])

    one, other = np.arange(3), np.arange(5)
    assert band(one, other).draws.tolist() == band(one, other).draws.tolist() != band(one, one).draws.tolist()


def test_bands_that_cannot_be():
    for level in (0, 1):
        with pytest.raises(AnalysisError, match="a level is between 0 and 1"):
            counted(1, level=level)
    for level, least in ((0.95, 39), (0.9, 19), (0.5, 3), (0.99, 199)):
        assert counted(1, num=least, level=level).draws.size == least
        with pytest.raises(
            AnalysisError, match=f"a level of {level} takes {least} surrogates or more: {least - 1}"
        ):
            counted(1, num=least - 1, level=level)
    with pytest.raises(AnalysisError, match="NaN on the data"):
        counted(np.nan)
    with pytest.raises(AnalysisError, match="NaN on the data or on a surrogate"):
        null_band(float, 1.0, lambda *_: np.nan)


def test_a_curve_has_a_band_at_every_place():
    numbers = count(1)
    found = null_band(lambda x: np.array([x, -x]), 40.0, lambda *_: float(next(numbers)), num_surrogates=39)
    assert found.low.tolist() == [1, -39]
    assert found.high.tolist() == [39, -1]
    assert found.is_outside.tolist() == [True, True]
    assert found.draws.shape == (39, 2)


def test_of_many_runs_some_have_a_row_each():
    runs = [(10 + place, float(place)) for place in range(9)]
    found = null_table(runs, float, lambda value, _: value + 1, max_runs=3)
    assert found["run"].to_list() == [10, 14, 18]
    assert found["x"].to_list() == ["run 10", "run 14", "run 18"]
    assert found.row(1) == ("run 14", 4.0, 5.0, 5.0, 5.0, 14)
    assert null_table(runs[:2], float, lambda value, _: value)["run"].to_list() == [10, 11]


def cosines(points: np.ndarray) -> np.ndarray:
    return (points[:-1] * points[1:]).sum(axis=1)


def test_a_walk_on_the_sphere_turns_by_its_angle():
    walk = sphere_walk(50, 4, 0.3, RNG(0), start=[0, 0, 5, 0])
    assert walk[0].tolist() == [0, 0, 1, 0]
    np.testing.assert_allclose(np.linalg.norm(walk, axis=1), 1, rtol=1e-12)
    np.testing.assert_allclose(cosines(walk), np.cos(0.3), rtol=1e-9)
    assert not np.allclose(walk, sphere_walk(50, 4, 0.3, RNG(1), start=[0, 0, 5, 0]))
    assert sphere_walk(0, 2, 0.3, RNG(0)).shape == (0, 2)
    assert sphere_walk(1, 2, 0.3, RNG(0)).shape == (1, 2)
    for dimension, steps in ((1, 3), (2, -1)):
        with pytest.raises(AnalysisError, match="2 dimensions and 0 steps or more"):
            sphere_walk(steps, dimension, 0.3, RNG(0))


def test_a_walk_like_a_run_has_its_start_length_and_mean_step():
    run = RNG(0).normal(size=(20, 5))
    directions = run / np.linalg.norm(run, axis=1, keepdims=True)
    walk = walk_like(run, RNG(1))
    np.testing.assert_allclose(walk[0], directions[0])
    np.testing.assert_allclose(cosines(walk), cosines(directions).mean(), rtol=1e-9)
    np.testing.assert_allclose(walk_like(run[:1], RNG(1)), directions[:1])


@pytest.mark.parametrize("dimension", [3, 6])
def test_a_matched_walk_has_every_step_and_every_distance_from_the_start(dimension):
    run = RNG(0).normal(size=(30, dimension))
    run /= np.linalg.norm(run, axis=1, keepdims=True)
    walk = matched_walk(3 * run, RNG(1))
    np.testing.assert_allclose(cosines(walk), cosines(run), atol=1e-9)
    np.testing.assert_allclose(walk @ walk[0], run @ run[0], atol=1e-9)
    np.testing.assert_allclose(walk[0], run[0])
    if dimension > 3:  # in space only the side is free
        assert np.abs(walk[5:] - run[5:]).max() > 0.1
    with pytest.raises(AnalysisError, match="3 coordinates or more, found 2"):
        matched_walk(run[:, :2], RNG(0))
    np.testing.assert_allclose(matched_walk(run[:1, :2] + 1, RNG(0))[0] @ [1, 1] > 0, True)


def test_an_autoregression_has_the_runs_start_mean_and_memory():
    rng = RNG(0)
    states = [np.array([8.0, -8])]
    for _ in range(4000):
        states.append(np.array([0.9, 0.2]) * states[-1] + rng.normal(size=2) * [1, 5])
    run = np.array(states) + 3
    made = autoregression(run, RNG(1))
    np.testing.assert_allclose(made[0], run[0])
    assert made.mean(axis=0) == pytest.approx(run.mean(axis=0), abs=0.5)
    assert made.std(axis=0) == pytest.approx(run.std(axis=0), rel=0.1)
    centred = made - made.mean(axis=0)
    rho = (centred[1:] * centred[:-1]).mean(axis=0) / (centred**2).mean(axis=0)
    assert rho == pytest.approx([0.9, 0.2], abs=0.05)
    assert autoregression(run[:4], RNG(0)).shape == (4, 2)
    with pytest.raises(AnalysisError, match="at least 4"):
        autoregression(run[:3], RNG(0))
    np.testing.assert_allclose(autoregression(np.full((5, 2), 7.0), RNG(0)), 7.0)


def test_a_gaussian_process_moves_as_far_as_the_run():
    """A walk whose steps remember the one before: D(1) and D(2), over 60 surrogates."""
    noise = RNG(0).normal(size=(42, 8))
    run = (noise[1:] + 0.8 * noise[:-1]).cumsum(axis=0)
    made = [gaussian_process(run, RNG(seed)) for seed in range(60)]
    for lag in (1, 2):
        own = ((run[lag:] - run[:-lag]) ** 2).sum(axis=1).mean()
        theirs = np.mean([((one[lag:] - one[:-lag]) ** 2).sum(axis=1).mean() for one in made])
        assert theirs == pytest.approx(own, rel=0.06)
    assert all((one[0] == run[0]).all() for one in made)
    assert made[0].shape == run.shape
    assert gaussian_process(run[:1], RNG(0)).tolist() == run[:1].tolist()
    assert gaussian_process(run[:2], RNG(0)).shape == (2, 8)


def test_a_shuffle_leaves_the_first_state_where_it_is():
    orders = {tuple(shuffled([1, 2, 3, 4], RNG(seed))) for seed in range(100)}
    assert len(orders) == 6
    assert {order[0] for order in orders} == {1}
    assert {tuple(sorted(order)) for order in orders} == {(1, 2, 3, 4)}
    assert {tuple(shuffled([1, 2, 3], RNG(seed))) for seed in range(30)} == {(1, 2, 3), (1, 3, 2)}
    assert shuffled([1, 2], RNG(0)).tolist() == [1, 2]


def test_labels_follow_each_other_as_in_the_run():
    run = np.array([3, 3, -1, 0, 3, -1, 3, 3, 3, -1, 0])
    seen = set(pairwise(run)) | {(0, to) for to in (-1, 0, 3)}
    for seed in range(50):
        made = markov_labels(run, RNG(seed))
        assert (len(made), made[0]) == (11, 3)
        assert set(pairwise(made)) <= seen
    long = np.concatenate([markov_labels(run, RNG(seed)) for seed in range(400)])
    after = [(a, b) for a, b in pairwise(long) if a == 3]
    assert np.mean([b == -1 for _, b in after]) == pytest.approx(3 / 6, abs=0.1)


def test_a_state_that_was_never_left_goes_on_to_any():
    """1, 1, 1, 2: what follows 2 is as frequent as in the run, 2 included."""
    run = [1, 1, 1, 2]
    after = [
        one[place + 1] for one in (markov_labels(run, RNG(seed)) for seed in range(600))
        for place in range(3) if one[place] == 2
    ]  # fmt: skip
    assert set(after) == {1, 2}
    assert np.mean(np.array(after) == 2) == pytest.approx(1 / 4, abs=0.06)
    assert markov_labels(run, RNG(0), num_states=5).max() <= 2
    assert markov_labels([4], RNG(0)).tolist() == [4]
    assert markov_labels([], RNG(0)).tolist() == []
    assert markov_labels([1, 2], RNG(0)).tolist() == [1, 2]


def test_a_path_visits_its_own_states_in_its_own_order():
    points = np.array([[0, 1], [1, 0], [0, 1], [1, 1], [1, 0]], dtype=np.float32)
    steps = {(tuple(a), tuple(b)) for a, b in pairwise(points)}
    made = markov_path(points, RNG(2))
    assert made.dtype == np.float32
    assert made[0].tolist() == [0, 1]
    assert {(tuple(a), tuple(b)) for a, b in pairwise(made)} <= steps
    line = np.arange(6.0)[:, None]
    assert markov_path(line, RNG(0)).tolist() == line.tolist()
    assert markov_path(points[:1], RNG(0)).tolist() == points[:1].tolist()


def test_a_band_is_of_200_surrogates_and_holds_95_percent_by_the_seed_0():
    numbers = count(1)
    band = null_band(float, 100.0, lambda *_: next(numbers))
    assert (len(band.draws), float(band.low), float(band.high)) == (200, 5.0, 196.0)
    drawn = [
        null_band(float, 0.0, lambda _, rng: rng.random(), **how).draws
        for how in ({}, {"seed": 0}, {"seed": 1})
    ]
    assert (drawn[0] == drawn[1]).all()
    assert (drawn[0] != drawn[2]).all()


def test_twelve_runs_have_a_row_beside_39_surrogates():
    numbers = count(1)
    found = null_table([(run, 0.0) for run in range(13)], float, lambda *_: next(numbers))
    assert len(found) == 12
    assert found.select("low", "high").rows() == [(39.0 * k + 1, 39.0 * k + 39) for k in range(12)]


@pytest.mark.parametrize("sign", [1, -1])
def test_a_run_that_stands_still_or_turns_round_has_a_walk_like_it(sign):
    """Products of unit vectors with themselves are a little above 1 as often as below."""
    for seed in range(40):
        run = np.outer([1, sign, 1, sign], RNG(seed).normal(size=7))
        walk = walk_like(run, RNG(0))
        np.testing.assert_allclose(walk, run / np.linalg.norm(run[0]), atol=1e-6)
