"""Tests of what chance gives: exact p values counted by hand, and the level held where nothing is there."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import polars as pl
import pytest

from panic.analysis.chance import LEAST_PROMPTS, LEAST_UNITS, holm, matching, relabelling, swapping
from panic.analysis.checks import AnalysisError

NUM_DATA_SETS = 1000


def test_matching_goes_through_all_orders():
    found = matching(np.eye(5))
    assert (float(found.value), float(found.p_value)) == (1.0, 1 / 120)
    assert found.p_least == 1 / 120
    assert float(found.mean) == pytest.approx(0.2)  # of a random order one of five is in its place
    assert sorted(found.draws)[-2] == pytest.approx(0.6)  # nobody can have four in their places


def test_matching_of_several_tables_at_once():
    table = np.random.default_rng(0).random((3, 4, 4))
    found = matching(table)
    right = [
        np.mean(
            [one[range(4), order].mean() >= np.trace(one) / 4 - 1e-12 for order in permutations(range(4))]
        )
        for one in table
    ]
    assert found.p_value.tolist() == pytest.approx(right)
    assert found.low.shape == found.high.shape == (3,)


def test_matching_of_equal_columns_says_nothing():
    """All runs are at one place, so that every prompt fits as well as any other."""
    assert float(matching(np.ones((5, 5)) * np.arange(5)[:, None]).p_value) == 1.0


def test_swapping_goes_through_all_swaps():
    change = np.array([1.0, 2, 3, 4, 5, 6])
    found = swapping(lambda swaps: float(np.where(swaps, -change, change).mean()), 6)
    assert (float(found.value), float(found.p_value)) == (3.5, 2 / 64)
    assert found.p_least == 2 / 64
    change[0] = -1.0  # the least one falls: it and its mirror image, and the two beyond them
    found = swapping(lambda swaps: float(np.where(swaps, -change, change).mean()), 6)
    assert float(found.p_value) == 4 / 64


def test_relabelling_counts_pairs_that_are_as_near():
    apart = np.abs(np.subtract.outer([0.0, 1, 10, 12, 30], [0.0, 1, 10, 12, 30]))
    found = relabelling(apart, [(0, 1), (2, 3)])
    assert float(found.value) == 1.5
    # Of 15 ways to choose two separate pairs of five this is the best.
    assert float(found.p_value) == pytest.approx(1 / 15)
    assert found.p_least == pytest.approx(1 / 15)
    assert float(relabelling(apart, [(0, 4), (1, 2)]).p_value) > 0.5


def test_too_few_are_refused_with_a_sentence():
    with pytest.raises(AnalysisError, match=f"{LEAST_PROMPTS} prompts are needed for a test, found 3"):
        matching(np.eye(3))
    with pytest.raises(
        AnalysisError, match=f"{LEAST_UNITS} independent starts are needed for a test, found 5"
    ):
        swapping(lambda swaps: 0.0, 5)
    with pytest.raises(AnalysisError, match="6 pairs of 4 leave nothing to compare"):
        relabelling(np.ones((4, 4)), [(a, b) for a in range(4) for b in range(a)])
    with pytest.raises(AnalysisError, match="0 pairs of 4"):
        relabelling(np.ones((4, 4)), [])
    with pytest.raises(AnalysisError, match="NaN"):
        matching(np.full((4, 4), np.nan))


def test_unknown_p_values_stay_unknown_and_do_not_count():
    assert holm(pl.Series([0.01, np.nan, 0.04])).to_list() == pytest.approx([0.02, np.nan, 0.04], nan_ok=True)


def test_many_units_are_drawn_the_same_at_every_call():
    rng = np.random.default_rng(1)
    table, change = rng.random((30, 30)), rng.normal(size=40)
    assert np.array_equal(matching(table).draws, matching(table).draws)
    one, other = (swapping(lambda swaps: float(change[swaps].sum()), 40) for _ in range(2))
    assert np.array_equal(one.draws, other.draws)


def _share_of_small(p_values: list[float]) -> float:
    return float(np.mean(np.array(p_values) <= 0.05))


@pytest.mark.slow
def test_the_level_is_held_where_nothing_is_there():
    """Of 1,000 data sets of noise each test calls 3 to 7 % significant at 5 %."""
    rng = np.random.default_rng(0)
    tables = [float(matching(rng.normal(size=(6, 6))).p_value) for _ in range(NUM_DATA_SETS)]
    assert 0.03 <= _share_of_small(tables) <= 0.07

    swapped = []
    for _ in range(NUM_DATA_SETS):
        change = rng.normal(size=8)
        found = swapping(lambda swaps, d=change: float(np.where(swaps, -d, d).mean()), 8)
        swapped.append(float(found.p_value))
    assert 0.03 <= _share_of_small(swapped) <= 0.07

    pairs, related = [(0, 1), (2, 3), (4, 5)], []
    for _ in range(NUM_DATA_SETS):
        points = rng.normal(size=(8, 3))
        apart = np.linalg.norm(points[:, None] - points[None], axis=2)
        related.append(float(relabelling(apart, pairs).p_value))
    assert 0.03 <= _share_of_small(related) <= 0.07
