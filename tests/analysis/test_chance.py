"""Tests of what chance gives: exact p values counted by hand, and the level held where nothing is there."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import polars as pl
import pytest
from scipy.stats import linregress, pearsonr, permutation_test

from panic.analysis.chance import (
    LEAST_PROMPTS,
    LEAST_UNITS,
    Chance,
    first_told,
    holm,
    least_told,
    matching,
    pairing,
    relabelling,
    swapping,
)
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
    far = relabelling(apart, [(0, 4), (1, 2)])
    assert float(far.p_value) > 0.5
    assert far.p_least == pytest.approx(1 / 15)
    assert relabelling(apart, [(0, 1), (0, 2), (0, 3), (0, 4)]).p_least == pytest.approx(1 / 5)


def test_too_few_are_refused_with_a_sentence():
    with pytest.raises(AnalysisError, match=f"{LEAST_PROMPTS} prompts are needed for a test, found 3"):
        matching(np.eye(3))
    with pytest.raises(
        AnalysisError, match=f"{LEAST_UNITS} independent starts are needed for a test, found 5"
    ):
        swapping(lambda swaps: 0.0, 5)
    with pytest.raises(AnalysisError, match="all 6 pairs are such, of 4 prompts"):
        relabelling(np.ones((4, 4)), [(a, b) for a in range(4) for b in range(a)])
    with pytest.raises(AnalysisError, match="there are no such pairs, of 4 prompts"):
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


def test_what_is_drawn_swaps_half_of_the_units_and_as_many_draws_as_swaps_are_all_of_them():
    drawn = swapping(lambda swaps: float(swaps.mean()), 40)
    assert (float(drawn.value), len(drawn.draws)) == (0.0, 1000)
    assert float(drawn.mean) == pytest.approx(0.5, abs=0.01)
    assert drawn.p_least == 1 / 1000
    exact = swapping(lambda swaps: float(swaps.sum()), 6, max_draws=64)
    assert len(exact.draws) == 64
    assert float(exact.mean) == 3.0
    assert len(swapping(lambda swaps: 0.0, 6, max_draws=63).draws) == 64  # none, and 63 drawn ones


def test_many_rows_are_drawn_the_given_order_first():
    """Of so many orders none else is drawn that has all in their places."""
    found = matching(np.eye(8))
    assert (float(found.value), len(found.draws)) == (1.0, 1000)
    assert float(found.p_value) == found.p_least == 1 / 1000
    assert len(matching(np.eye(6)).draws) == 720


def test_pairing_is_the_permutation_test_of_pearsons_correlation():
    """That of scipy with |r| as its statistic: of all 120 orders of five exactly, of drawn ones nearly."""
    rng = np.random.default_rng(0)
    for size, near in ((5, 1e-12), (9, 0.03)):
        x, y = rng.exponential(size=(2, size))
        right = permutation_test(
            (x,), lambda x, y=y: abs(pearsonr(x, y).statistic), permutation_type="pairings",
            alternative="greater", rng=rng,
        )  # fmt: skip
        found = pairing(x, y)
        assert float(found.value) == pytest.approx(linregress(x, y).slope)
        assert float(found.p_value) == pytest.approx(right.pvalue, abs=near)


def test_pairing_refuses_what_has_no_slope():
    with pytest.raises(AnalysisError, match="4 prompts are needed for a test, found 3"):
        pairing([1, 2, 3], [1, 2, 3])
    for initial, final in (([1, 1, 1, 1], [1, 2, 3, 4]), ([1, 2, 3, 4], [1, 2, 3])):
        with pytest.raises(AnalysisError, match="as many final as initial values"):
            pairing(initial, final)
    assert pairing([1, 2, 3, 4], [0.1 + 0.2, 0.3, 0.3, 0.3]).p_value == 1.0  # rounding alone


@pytest.mark.parametrize(
    ("initial", "orders"),
    [
        ([1, 1, 2, 2], 8),  # 4 that change nothing, and as many that swap the halves
        ([1, 2, 3, 4], 2),  # the order, and it reversed: a slope as far from 0
        ([1, 2, 3, 5], 1),
        ([1, 1, 2, 4], 2),
        ([-1.1, -0.1, 0.1, 1.1], 2),
    ],
)
def test_the_least_p_of_pairing_can_be_reached_and_no_smaller_one(initial: list[float], orders: int) -> None:
    found = pairing(initial, initial)
    assert found.p_least == pytest.approx(orders / 24)
    assert float(found.p_value) == pytest.approx(found.p_least)
    least = min(float(pairing(initial, list(final)).p_value) for final in permutations([1.0, 2.0, 4.0, 8.5]))
    assert least >= found.p_least - 1e-12


def test_bounds_are_quantiles_of_the_draws():
    """Of 39 draws the 2.5 % and 97.5 % quantiles are the least and the greatest (Weibull)."""
    draws = np.arange(39.0)[:, None] * [1.0, 2.0]
    found = Chance(value=draws[0], draws=draws, p_value=draws[0], p_least=0.1)
    assert found.low.tolist() == [0.0, 0.0]
    assert found.high.tolist() == [38.0, 76.0]
    assert found.mean.tolist() == [19.0, 38.0]


def test_a_sentence_says_where_p_could_not_have_been_small():
    assert least_told(0.05) == least_told(0.01, 5) == ""
    assert least_told(0.051) == "; p could not have been below 0.051"
    assert least_told(0.04, 3) == "; p could not have been below 0.12"
    assert least_told(0.5, 3) == "; p could not have been below 1"


def test_a_sentence_tells_the_smallest_p_values_first_where_there_are_many():
    scores = pl.DataFrame({"name": list("abcde"), "p_adjusted": [0.5, 0.1, 0.1, 0.9, 0.2]})
    assert first_told(scores)["name"].to_list() == list("bcea")
    assert first_told(scores, 5)["name"].to_list() == list("abcde")
    assert first_told(scores, 1)["name"].to_list() == ["b"]


def test_tables_that_cannot_be_matched():
    for table in (np.ones(4), np.ones((3, 4)), np.ones((4, 4, 5))):
        with pytest.raises(AnalysisError, match="must be square"):
            matching(table)
    one_missing = np.eye(4)
    one_missing[2, 1] = np.inf
    with pytest.raises(AnalysisError, match="NaN or infinite"):
        matching(one_missing)


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


def test_four_prompts_and_six_starts_are_enough():
    assert matching(np.eye(4)).p_least == 1 / 24
    assert len(matching(np.eye(4)).draws) == 24
    assert (
        relabelling(np.abs(np.subtract.outer([0, 1, 5, 6], [0, 1, 5, 6])), [(0, 1), (2, 3)]).p_least == 1 / 3
    )
    assert pairing([1, 2, 3, 5], [1, 2, 3, 5]).p_least == 1 / 24
    assert swapping(lambda swaps: 0.0, 6).p_least == 1 / 32


def test_what_is_drawn_is_drawn_by_the_seed_0():
    """Of eight prompts and twelve units not all orders are gone through; other seeds draw others."""
    rng = np.random.default_rng(2)
    table, (x, y), change = rng.random((8, 8)), rng.normal(size=(2, 8)), rng.normal(size=12)
    apart = table + table.T
    for test in (
        lambda **how: matching(table, **how),
        lambda **how: relabelling(apart, [(0, 1), (2, 3)], **how),
        lambda **how: pairing(x, y, **how),
        lambda **how: swapping(lambda swaps: float(change[swaps].sum()), 12, **how),
    ):
        plain, same, other = (test(**how).draws for how in ({}, {"seed": 0}, {"seed": 1}))
        assert (plain == same).all()
        assert (plain[0], len(plain)) == (other[0], 1000)
        assert (plain != other).any()
