"""Parts of distances by hand: what is checked, what is one point, what is scaled."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import coo_array

from panic.topology import TopologyError, distinct_points, pairwise
from panic.topology.distances import (
    checked,
    checked_bars,
    close_groups,
    directions,
    lengths_of,
    merge_tolerance,
    moderate,
)


def test_distinct_rows_have_the_place_where_they_came_first():
    rows, first = distinct_points(np.array([[1.0, 2], [0.0, 1], [1, 2], [-0.0, 1]]))
    assert sorted(map(tuple, rows)) == [(0, 1), (1, 2)]
    assert {tuple(row): place for row, place in zip(rows.tolist(), first, strict=True)} == {
        (1, 2): 0,
        (0, 1): 1,
    }
    assert rows.dtype == np.float64
    nothing, places = distinct_points(np.empty((3, 0)))
    assert (nothing.shape, places.tolist()) == ((1, 0), [0])
    assert distinct_points(np.empty((0, 0)))[1].tolist() == []


def test_rows_shorter_than_eight_bytes_are_told_apart_too():
    rows, first = distinct_points(np.array([[2.0], [1.0], [2.0], [-0.0], [0.0]], dtype=np.float32))
    assert sorted(zip(rows[:, 0].tolist(), first.tolist(), strict=True)) == [(0.0, 3), (1.0, 1), (2.0, 0)]
    assert not np.signbit(rows).any()


def test_rows_that_their_first_numbers_tell_apart_have_all_their_places():
    points = np.array([[3.0, 1], [1.0, 1], [2.0, 1]])
    rows, first = distinct_points(points)
    assert sorted(first.tolist()) == [0, 1, 2]
    assert rows.tolist() == points[first].tolist()


def test_distances_of_a_triangle():
    points = np.array([[0.0, 0], [3, 4], [0, 8]])
    assert pairwise(points).tolist() == [
        pytest.approx(row, abs=1e-12) for row in ([0, 5, 8], [5, 0, 5], [8, 5, 0])
    ]
    assert pairwise(points[:1]).tolist() == [[0.0]]
    assert pairwise(points[:0]).shape == (0, 0)
    right = np.array([[2.0, 0], [0, 5], [-1, 0]])
    assert pairwise(right, "cosine")[0] == pytest.approx([0, 1, 2])
    assert pairwise(right, "chordal")[0] == pytest.approx([0, np.sqrt(2), 2])
    with pytest.raises(TopologyError, match="known: euclidean, cosine, chordal, precomputed"):
        pairwise(points, "manhattan")


def test_numbers_that_could_not_be_squared_keep_their_distances():
    for scale in (1e-200, 1e200):
        assert pairwise(scale * np.array([[0.0], [3], [10]]))[0] / scale == pytest.approx([0, 3, 10])


def test_points_further_apart_than_any_number_are_refused():
    """An infinite distance would mean that there is no edge."""
    with pytest.raises(TopologyError, match=r"further apart than 1.8e\+308"):
        pairwise(np.array([[-1.5e308], [1.5e308], [0.0]]))
    assert pairwise(np.array([[-0.5e308], [1e308]]))[0, 1] == pytest.approx(1.5e308)


def test_close_pairs_of_a_large_cloud_have_exact_distances():
    points = np.array([[1000.0, 0], [1000.0, 1e-7], [-1000, 0]])
    found = pairwise(points)
    assert found[0, 1] == found[1, 0] == pytest.approx(1e-7, rel=1e-9, abs=0)
    assert not found.diagonal().any()


def test_moderate_numbers_stay_and_others_are_scaled_by_a_power_of_two():
    points = np.array([[1.5, -3.0]])
    assert moderate(points) == (points, 0)
    for exponent in (-300, 198, -202, 500):
        x, e = moderate(np.ldexp(points, exponent))
        assert e == exponent + 2
        assert x.tolist() == [[0.375, -0.75]]
    assert moderate(np.ldexp(points, 197))[1] == moderate(np.ldexp(points, -201))[1] == 0
    assert moderate(np.empty((0, 2)))[1] == 0
    assert moderate(np.array([[-(2.0**300)]]))[1] == 301


def test_lengths_of_more_pairs_than_are_taken_at_a_time():
    points = np.arange(5000.0)[:, None]
    first, second = np.zeros(4999, dtype=int), np.arange(1, 5000)
    assert (lengths_of(points, first, second) == np.arange(1, 5000)).all()


def test_directions():
    assert directions(np.array([[3.0, 4], [0, 1e-300]])).tolist() == [pytest.approx([0.6, 0.8]), [0, 1]]
    with pytest.raises(TopologyError, match="a zero vector has no direction"):
        directions(np.array([[1.0, 0], [0, 0]]))


def test_the_tolerance_is_a_share_of_the_usual_distance():
    """Distances 1, 2 and 3: the median is 2."""
    line = np.array([[0.0], [1.0], [3.0]])
    assert merge_tolerance(line, "euclidean", True) == pytest.approx(2e-7, abs=0)
    assert merge_tolerance(line, "euclidean", False) == 0.0
    assert merge_tolerance(line[:1], "euclidean", True) == 0.0
    circle = np.array([[1.0, 0], [0, 1], [-1, 0]])
    assert merge_tolerance(circle, "chordal", True) == pytest.approx(np.sqrt(2) * 1e-7, abs=0)
    assert merge_tolerance(circle, "cosine", True) == pytest.approx(1e-14, abs=0)
    assert merge_tolerance(circle, "chordal", False) == 1e-15
    assert merge_tolerance(circle, "cosine", False) == pytest.approx(5e-31, abs=0)


def test_of_many_points_some_tell_the_usual_distance():
    """1,000 points at 0 but for every fourth, which is looked at, at its number."""
    points = np.zeros((1000, 1))
    points[::4, 0] = np.arange(250)
    want = np.median([j - i for i in range(250) for j in range(i + 1, 250)])
    assert merge_tolerance(points, "euclidean", True) == pytest.approx(want * 1e-7)


def test_groups_of_close_points():
    """1 - 4 - 2 are one group, 0 and 3 are alone."""
    kept, nearest = close_groups(5, np.array([1, 2]), np.array([4, 4]))
    assert kept.tolist() == [0, 1, 3]
    assert nearest.tolist() == [0, 1, 1, 3, 1]


def test_points_that_are_none_are_told():
    assert checked([]).shape == checked(np.empty((0, 5))).shape == (0, 0)
    assert checked(np.empty((3, 0))).shape == (3, 0)
    assert checked([[1, 2]]).dtype == np.float64
    assert checked(np.ones((2, 2), dtype=np.float32)).dtype == np.float32
    assert checked(np.ones((2, 2), dtype=np.float16)).dtype == np.float64
    assert checked([[True, False]]).tolist() == [[1, 0]]
    for wrong, told in (
        (coo_array(np.eye(2)), "a sparse matrix can hold distances"),
        ([1.0, 2.0], r"\(n, d\) array, found the shape \(2,\)"),
        ([[1j]], "real numbers"),
        ([[0.0, 1], [np.nan, 1], [1, np.inf]], r"2 of 3 points hold NaN or infinity \(the first is row 1\)"),
    ):
        with pytest.raises(TopologyError, match=told):
            checked(wrong)


def test_bars_that_are_none_are_told():
    assert checked_bars([]).shape == (0, 2)
    assert checked_bars([[0, np.inf], [1, 1]]).tolist() == [[0, np.inf], [1, 1]]
    for wrong, told in (
        ([0.0, 1.0], "shape"),
        ([[0.0, 1, 2]], "shape"),
        ([[np.inf, np.inf]], "only a death"),
        ([[0.0, -np.inf]], "only a death"),
        ([[0.0, np.nan]], "none may be NaN"),
        ([[0.0, 1], [2, 1], [5, 3]], r"2 of 3 bars die before they are born \(the first: 2, 1\)"),
    ):
        with pytest.raises(TopologyError, match=told):
            checked_bars(wrong)


def test_distances_of_what_is_no_number_are_none():
    points = np.array([[np.nan, 0.0], [3.0, 4.0], [0.0, 0.0]])
    with np.errstate(invalid="ignore"):
        found = pairwise(points)
    assert np.isnan(found[0, 1:]).all()
    assert pairwise(np.zeros((3, 0))).tolist() == np.zeros((3, 3)).tolist()
