"""Diagrams against known answers, degenerate clouds, duplicates and float error."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.sparse import coo_matrix, tril, triu
from scipy.sparse.csgraph import minimum_spanning_tree
from scipy.spatial.distance import pdist, squareform

from panic.errors import PanicError
from panic.topology import (
    Budget,
    TopologyError,
    diagram,
    distinct_points,
    entropy,
    estimate,
    estimate_bytes,
    pairwise,
)
from panic.topology.diagram import _chunks, diagrams
from panic.topology.distances import directions


def circle(n: int, radius: float = 1.0) -> np.ndarray:
    angle = 2 * np.pi * np.arange(n) / n
    return radius * np.c_[np.cos(angle), np.sin(angle)]


def octahedron() -> np.ndarray:
    return np.vstack([np.eye(3), -np.eye(3)])


def cloud(n: int = 40, d: int = 16, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d))


@pytest.mark.parametrize(("n", "radius"), [(20, 1.0), (7, 3.0), (31, 0.01), (12, 1e30), (12, 1e-30)])
def test_a_circle_has_one_loop_with_the_known_birth_and_death(n, radius):
    bars = diagram(circle(n, radius)).bars(1)
    birth = 2 * radius * math.sin(math.pi / n)
    death = 2 * radius * math.sin(math.pi * math.ceil(n / 3) / n)
    np.testing.assert_allclose(bars, [[birth, death]], rtol=2e-7)


def test_the_circle_of_twenty_to_the_digits():
    np.testing.assert_allclose(diagram(circle(20)).bars(1), [[0.3129, 1.7820]], atol=5e-5)


def test_an_octahedron_has_a_hole_and_no_loop():
    found = diagram(octahedron(), max_dimension=2)
    np.testing.assert_allclose(found.bars(2), [[math.sqrt(2), 2.0]], rtol=2e-7)
    assert found.bars(1).shape == (0, 2)


def test_deaths_of_components_are_the_minimum_spanning_tree():
    points = cloud(60, 768).astype(np.float32)
    deaths = diagram(points, max_dimension=0).bars(0)[:, 1]
    tree = minimum_spanning_tree(squareform(pdist(points.astype(np.float64)))).data
    assert np.isinf(deaths).sum() == 1
    np.testing.assert_allclose(np.sort(deaths[np.isfinite(deaths)]), np.sort(tree), rtol=1e-6)


@settings(max_examples=40, deadline=None)
@given(arrays(np.float64, st.tuples(st.integers(2, 12), st.integers(1, 4)), elements=st.integers(-4, 4)))
def test_any_cloud_has_the_tree_of_its_distinct_points(points):
    distinct = np.unique(points, axis=0)
    deaths = diagram(points, max_dimension=0).bars(0)[:, 1]
    assert len(deaths) == len(distinct)
    tree = minimum_spanning_tree(squareform(pdist(distinct))).sum()
    assert deaths[np.isfinite(deaths)].sum() == pytest.approx(tree, rel=1e-6)


@settings(max_examples=30, deadline=None)
@given(
    arrays(np.float32, (15, 3), elements=st.floats(-10, 10, width=32)),
    st.permutations(range(15)),
    st.sampled_from(["euclidean", "chordal"]),
)
def test_the_order_of_the_points_changes_no_bit(points, order, metric):
    points = points + np.float32(20.0)  # directions exist
    a, b = diagram(points, metric=metric), diagram(points[list(order)], metric=metric)
    assert all(np.array_equal(a.bars(k), b.bars(k)) for k in (0, 1))


def test_duplicates_add_no_bars():
    points = cloud(30).astype(np.float32)
    again = np.vstack([points, points[::-1], points[:10]])
    once, often = diagram(points), diagram(again)
    assert (often.num_points, often.num_unique) == (70, 30)
    for k in (0, 1):
        np.testing.assert_array_equal(once.bars(k), often.bars(k))


@pytest.mark.parametrize("size", [1e-6, 1.0, 1e6])
def test_copies_that_differ_by_rounding_add_no_bars(size):
    points = size * circle(20)
    noise = np.random.default_rng(1).uniform(-1, 1, size=(40, 2)) * 1e-8 * size
    copies = np.vstack([points, points, points]) + np.vstack([np.zeros((20, 2)), noise])
    found = diagram(copies.astype(np.float32))
    assert (found.num_unique, len(found.bars(0)), len(found.bars(1))) == (20, 20, 1)
    assert 0 < found.error < 3e-7 * size
    assert diagram(copies).num_unique == 60  # of float64 they are different
    some = diagram(copies.astype(np.float32), threshold=2 * size)
    assert (some.num_unique, some.error) == (20, pytest.approx(found.error, rel=1e-6))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_cloud_keeps_its_points_wherever_it_lies_and_whatever_is_far_from_it(dtype):
    """Points once were one when closer than 1e-7 of the longest vector from the origin: 1e8 x 1e-7 = 10."""
    outlier = diagram(np.vstack([circle(20), [[1e8, 0.0]]]).astype(dtype))
    assert (outlier.num_unique, outlier.error) == (21, 0.0)
    np.testing.assert_allclose(outlier.bars(1), diagram(circle(20)).bars(1), rtol=2e-7)
    far = diagram((circle(20) + 1e6).astype(dtype))
    assert (far.num_unique, far.error) == (20, 0.0)
    coarse = 0.13 if dtype == np.float32 else 1e-9  # float32 is 0.06 apart there
    np.testing.assert_allclose(far.bars(1), diagram(circle(20)).bars(1), atol=coarse)


def test_points_of_float64_that_differ_are_different():
    points = np.array([[0.0], [1e-12], [1.0]])
    assert diagram(points, max_dimension=0).bars(0)[:, 1].tolist() == [1e-12, pytest.approx(1.0), np.inf]
    assert diagram(points, max_dimension=0, threshold=0.5).bars(0)[0, 1] == 1e-12


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.float16])
@pytest.mark.parametrize("d", [1, 2, 3, 70])
def test_distances_are_symmetric_to_the_bit_and_those_of_scipy(dtype, d):
    for n in (2, 3, 64, 65, 130):
        points = (100 * cloud(n, d)).astype(dtype)
        rows, first = distinct_points(points)
        matrix = pairwise(points, places=first)
        np.testing.assert_array_equal(matrix, matrix.T)
        assert not matrix.diagonal().any()
        np.testing.assert_allclose(matrix, squareform(pdist(rows)), rtol=1e-9)
        assert len(rows) == len(np.unique(points, axis=0))
        np.testing.assert_array_equal(rows, points[first].astype(float))


def test_points_that_begin_alike_are_told_apart():
    """The first eight bytes tell most points apart; here they tell nothing."""
    points = np.zeros((6, 5), np.float32)
    points[:, 4] = [3, 1, 2, 1, 3, 0]
    points[5, 0] = -0.0
    rows, first = distinct_points(points)
    assert sorted(rows[:, 4].tolist()) == [0, 1, 2, 3]
    assert sorted(first.tolist()) == [0, 1, 2, 5]


def test_negative_zero_is_zero():
    assert diagram(np.array([[0.0, 1.0], [-0.0, 1.0]])).num_unique == 1


def test_close_points_of_a_large_cloud_keep_their_distances():
    """The Gram form alone is off by 2e-5 here."""
    close = np.random.default_rng(0).normal(size=(2, 8)).repeat([9, 1], axis=0)
    close[:9] += 5e-7 * cloud(9, 8)
    deaths = diagram(close, max_dimension=0).bars(0)[:8, 1]
    tree = minimum_spanning_tree(squareform(pdist(close[:9]))).data
    np.testing.assert_allclose(deaths, np.sort(tree), rtol=1e-6)


def test_float32_coordinates_of_a_grid_make_no_voids():
    """Equal edges come out one float32 step apart; giotto-ph makes 3 to 8 bars of that."""
    corners = np.stack(np.meshgrid(*[np.arange(4.0)] * 3), -1).reshape(-1, 3)
    rotation = np.linalg.qr(cloud(16, 16))[0][:3]
    found = diagram((corners @ rotation).astype(np.float32), max_dimension=2)
    assert [len(found.bars(k)) for k in (0, 1, 2)] == [64, 81, 0]


@pytest.mark.parametrize("dimension", [0, 1, 2])
@pytest.mark.parametrize("n", [0, 1, 2, 5])
def test_too_few_or_equal_points_give_a_diagram(n, dimension):
    found = diagram(np.ones((n, 3)), max_dimension=dimension, generators=True)
    assert found.bars(0).tolist() == [[0.0, np.inf]][: min(n, 1)]
    assert all(found.bars(k).shape == (0, 2) for k in range(1, dimension + 1))
    assert (found.num_points, found.num_unique) == (n, min(n, 1))
    assert [g.shape[1] for g in found.generators] == [3, 4, 4][: dimension + 1]


def test_no_points_at_all():
    assert diagram([]).bars(0).shape == (0, 2)


def test_two_points():
    assert diagram([[0, 0], [3, 4]]).bars(0).tolist() == [[0.0, 5.0], [0.0, np.inf]]


def test_all_metrics_see_the_same_loop():
    points = circle(20) * np.linspace(1, 3, 20)[:, None]  # directions are the circle's
    chordal = diagram(points, metric="chordal").bars(1)
    np.testing.assert_allclose(chordal, diagram(circle(20)).bars(1), rtol=1e-6)
    np.testing.assert_allclose(diagram(points, metric="cosine").bars(1), chordal**2 / 2, rtol=1e-6)


def test_cosine_collapses_equal_directions():
    points = cloud(10).astype(np.float32)
    assert diagram(np.vstack([points, 3 * points]), metric="cosine").num_unique == 10


def test_a_given_matrix_gives_the_diagram_of_its_points():
    points = np.vstack([circle(20), circle(20)[:3]])
    matrix = squareform(pdist(points))
    matrix[0, 1] = np.nextafter(matrix[0, 1], 9)  # one ulp of asymmetry, as matrix products have it
    found, want = diagram(matrix, metric="precomputed"), diagram(points)
    assert found.num_unique == want.num_unique == 20
    for k in (0, 1):
        np.testing.assert_allclose(found.bars(k), want.bars(k), rtol=2e-7)


def test_zeros_off_the_diagonal_that_are_no_metric_are_edges():
    """Two points at distance 0 with other distances to others once were one, and bars were wrong."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        half = np.triu(rng.integers(0, 4, (9, 9)).astype(float), 1)
        found = diagram(half + half.T, metric="precomputed", max_dimension=2)
        want = diagram(half + half.T, metric="precomputed", max_dimension=2, backend="giotto")
        for k in (0, 1, 2):
            np.testing.assert_array_equal(found.bars(k), want.bars(k))


def test_a_matrix_that_is_a_little_asymmetric_is_accepted_and_told():
    matrix = squareform(pdist(circle(20)))
    want = diagram(matrix, metric="precomputed")
    assert (want.error, want.notes) == (0.0, ())
    matrix[3, 7] *= 1 + 5e-5
    found = diagram(matrix, metric="precomputed")
    assert found.error == pytest.approx(5e-5 * matrix[7, 3], rel=1e-6)
    assert found.notes == (
        "the matrix is not symmetric: the smaller number of each pair was taken, "
        f"up to {found.error:.3g} less",
    )
    np.testing.assert_array_equal(found.bars(1), want.bars(1))
    matrix[3, 7] *= 1.001
    with pytest.raises(TopologyError, match="must be symmetric, and numbers of a pair differ by up to"):
        diagram(matrix, metric="precomputed")


@pytest.mark.parametrize("form", ["dense", "sparse", "upper", "lower"])
@pytest.mark.parametrize("dimension", [0, 1, 2])
def test_distances_without_some_edges_leave_deaths_open(form, dimension):
    """Two squares of side 1 without diagonals and without edges between them: two components, two loops."""
    square = np.full((4, 4), np.inf)
    for i in range(4):
        square[i, i] = 0.0
        square[i, (i + 1) % 4] = square[(i + 1) % 4, i] = 1.0
    matrix = np.full((8, 8), np.inf)
    matrix[:4, :4] = matrix[4:, 4:] = square
    stored = coo_matrix(np.where(np.isfinite(matrix), matrix, 0.0))
    given = {"dense": matrix, "sparse": stored.tocsr(), "upper": triu(stored), "lower": tril(stored)}[form]
    found = diagram(given, metric="precomputed", max_dimension=dimension)
    assert found.bars(0).tolist() == [[0.0, 1.0]] * 6 + [[0.0, np.inf]] * 2
    if dimension:
        assert found.bars(1).tolist() == [[1.0, np.inf]] * 2
    assert (found.num_points, found.num_unique) == (8, 8)
    theirs = diagram(given, metric="precomputed", max_dimension=dimension, backend="giotto")
    for k in range(dimension + 1):
        np.testing.assert_array_equal(found.bars(k), theirs.bars(k))


def test_a_sparse_matrix_of_distances_is_cut_at_the_threshold_and_is_no_cloud():
    matrix = coo_matrix(squareform(pdist(circle(20))))
    found = diagram(matrix, metric="precomputed", threshold=1.0)
    np.testing.assert_array_equal(found.bars(1), diagram(circle(20), threshold=1.0).bars(1))
    with pytest.raises(TopologyError, match="hold distances, not points"):
        diagram(matrix)
    with pytest.raises(TopologyError, match="square"):
        diagram(coo_matrix(np.ones((2, 3))), metric="precomputed")


@pytest.mark.parametrize("metric", ["euclidean", "chordal", "cosine"])
@pytest.mark.parametrize(("d", "share"), [(3, 0.1), (3, 0.5), (40, 0.3), (40, 0.9)])
def test_neighbours_by_tree_or_blocks_give_the_bars_of_the_whole_matrix(metric, d, share):
    points = cloud(120, d) + 3.0
    matrix = pairwise(points, metric)
    threshold = float(np.quantile(matrix, share))
    found = diagram(points, metric=metric, threshold=threshold, max_dimension=2 if share < 0.5 else 1)
    want = diagram(matrix, metric="precomputed", threshold=threshold, max_dimension=found.max_dimension)
    for k in range(found.max_dimension + 1):
        np.testing.assert_allclose(found.bars(k), want.bars(k), rtol=1e-9)


def test_a_small_threshold_needs_no_matrix():
    """20,000 points would need 12 GB for all their distances."""
    points = np.random.default_rng(0).random((20_000, 3))
    found = diagram(points, threshold=0.02, budget=Budget(memory_bytes=2**28))
    assert len(found.bars(0)) == 20_000
    with pytest.raises(TopologyError, match=r"64 x [\d,]+ edges"):
        diagram(points, threshold=0.1, budget=Budget(memory_bytes=2**27))
    with pytest.raises(TopologyError, match=r"64 x [\d,]+ edges"):  # 4 GB of pairs are never made
        diagram(points, threshold=1.5, budget=Budget(memory_bytes=2**28))
    with pytest.raises(TopologyError, match=r"64 x [\d,]+ edges"):  # by blocks
        diagram(cloud(2000, 20), threshold=50.0, budget=Budget(memory_bytes=2**24))


def test_a_hopeless_cloud_is_refused_with_the_arithmetic():
    """No other tool ends within 45 s on 512 points at random distances of 1 and 2, to dimension 2."""
    half = np.triu(np.random.default_rng(0).integers(1, 3, (512, 512)).astype(float), 1)
    with pytest.raises(TopologyError, match=r"takes more than 0.1 s of work .* steps.*") as caught:
        diagram(half + half.T, metric="precomputed", max_dimension=2, budget=Budget(seconds=0.1))
    assert "edges that are left after collapsing" in str(caught.value)
    with pytest.raises(TopologyError, match=r"8 x \d+ bytes for each of"):
        diagram(half + half.T, metric="precomputed", max_dimension=2, budget=Budget(memory_bytes=2**25))


def test_generators_are_rows_of_the_points_and_have_the_length_of_their_bars():
    points = np.vstack([circle(20), circle(20)])[np.random.default_rng(3).permutation(40)]
    found = diagram(points, generators=True)
    distance = squareform(pdist(points))
    (birth, death), (a, b, c, d) = found.bars(1)[0], found.generators[1][0]
    assert distance[a, b] == pytest.approx(birth, rel=1e-6)
    assert distance[c, d] == pytest.approx(death, rel=1e-6)
    assert len(found.generators[0]) == len(found.bars(0)) == 20
    for (_, death), (_, a, b) in zip(found.bars(0), found.generators[0], strict=True):
        assert (a, b) == (-1, -1) if np.isinf(death) else distance[a, b] == pytest.approx(death, rel=1e-6)


def test_generators_are_none_unless_asked_for():
    assert diagram(circle(5)).generators is None


@pytest.mark.parametrize(
    ("points", "keywords", "message"),
    [
        ([[0.0, np.nan], [1, 1]], {}, "1 of 2 points hold NaN"),
        ([[np.inf, 1.0], [1, 1]], {}, "row 0"),
        ([[1.5e308], [-1.5e308]], {}, "further apart than 1.8e"),
        (np.zeros(4), {}, r"\(n, d\) array"),
        ([["a"]], {}, "real numbers"),
        (np.eye(3), {"metric": "manhattan"}, "euclidean, cosine, chordal"),
        (np.zeros((2, 2)) + np.eye(2, 2)[:1], {"metric": "cosine", "max_dimension": -1}, "0 or more"),
        ([[0.0, 0.0], [1, 1]], {"metric": "cosine"}, "no direction"),
        ([[0, 1, 2], [1, 0, 3]], {"metric": "precomputed"}, "square"),
        ([[0, 1], [2, 0]], {"metric": "precomputed"}, "symmetric"),
        ([[0, -1], [-1, 0]], {"metric": "precomputed"}, "negative"),
        ([[1, 1], [1, 1]], {"metric": "precomputed"}, "diagonal"),
        ([[0, np.nan], [np.nan, 0]], {"metric": "precomputed"}, "NaN"),
    ],
)
def test_unusable_input_is_refused_with_the_reason(points, keywords, message):
    with pytest.raises(TopologyError, match=message) as caught:
        diagram(points, **keywords)
    assert isinstance(caught.value, PanicError)


def test_a_dimension_that_was_not_computed_is_refused():
    with pytest.raises(TopologyError, match="only 0 to 1"):
        diagram(circle(5)).bars(2)


def test_a_cloud_beyond_the_memory_is_refused_with_the_arithmetic():
    with pytest.raises(TopologyError, match=r"32 x 50\^2 .*64 x C\(50, 2\)") as caught:
        diagram(cloud(50), max_dimension=2, budget=Budget(memory_bytes=10_000))
    assert "smaller max_dimension" in str(caught.value)
    assert diagram(np.ones((50, 16)), max_dimension=2, budget=Budget(memory_bytes=10_000)).num_unique == 1


def test_the_estimate_is_the_sum_it_shows():
    assert estimate_bytes(10, 3, 2) == 28 * 30 + 32 * 100 + 64 * 45 + 16 * 120


def test_what_diagrams_will_take_is_estimated_within_reason():
    """The bounds are wide: the machine may be busy, or twice as fast."""
    points = cloud(400, 50)
    diagram(points)  # what it needs is compiled by now
    took = []
    for _ in range(3):
        begin = time.process_time()
        diagram(points)
        took.append(time.process_time() - begin)
    found = estimate(1, 400, 50, 1)
    assert found.least_s / 5 < min(took) < 5 * found.most_s
    assert found.memory_bytes == estimate_bytes(400, 50, 1)
    many = estimate(100, 400, 50, 1, workers=4)
    assert many.most_s == pytest.approx(25 * found.most_s)
    assert many.memory_bytes == 4 * found.memory_bytes
    assert estimate(3, 5000, 50, 2, budget=Budget(seconds=10)).most_s == 30.0


@pytest.mark.parametrize("n", [2, 3, 50])
def test_equal_bars_have_the_entropy_of_their_number(n):
    bars = np.vstack([np.tile([0.5, 0.8], (n, 1)), [[0.0, np.inf], [1.0, 1.0]]])
    assert entropy(bars) == pytest.approx(math.log(n), rel=1e-12)


def test_entropy_of_few_bars_and_of_uneven_ones():
    assert entropy(np.empty((0, 2))) == entropy([[0, 1]]) == entropy([[0, np.inf]]) == 0.0
    assert entropy([[0, 1], [0, 3]]) == pytest.approx(-(0.25 * math.log(0.25) + 0.75 * math.log(0.75)))
    assert entropy([[0, 1e200], [0, 1e200]]) == pytest.approx(math.log(2)), (
        "whose sum of squares is no number"
    )


def test_many_diagrams_are_those_of_each_in_their_order():
    clouds = [cloud(5), circle(30), np.empty((0, 2)), cloud(12), [[0.0, 1.0]]]
    for workers in (1, 3):
        found = diagrams(clouds, workers=workers, max_dimension=0)
        for one, points in zip(found, clouds, strict=True):
            np.testing.assert_array_equal(one.bars(0), diagram(points, max_dimension=0).bars(0))
            assert one.max_dimension == 0
    assert diagrams([]) == []


def test_diagrams_that_are_computed_at_once_share_the_memory():
    budget = Budget(memory_bytes=estimate_bytes(40, 16, 1))
    assert diagrams([cloud(40)], workers=1, budget=budget)[0].num_unique == 40
    with pytest.raises(TopologyError, match="the limit is"):
        diagrams([cloud(40)], workers=2, budget=budget)


def test_small_clouds_are_computed_in_groups():
    """160 in all on one core: up to 10 at a time, and what is larger alone."""
    sizes = [100] + [2] * 30
    assert _chunks(list(range(31)), sizes, 1) == [[0], *[list(range(k, k + 5)) for k in range(1, 31, 5)]]
    assert _chunks([2, 0, 1], [3, 2, 1], 4) == [[2], [0], [1]]
    assert _chunks([], [], 4) == []


def test_landmarks_move_bars_by_up_to_twice_their_radius():
    """0, 10 and 4 are taken of 0, 1, 10 and 4; 1 is 1 from the nearest."""
    points = [[0.0], [1.0], [10.0], [4.0]]
    found = diagram(points, landmarks=3, max_dimension=0)
    assert (found.error, found.num_points, found.num_unique) == (2.0, 4, 3)
    assert found.bars(0)[:, 1].tolist() == pytest.approx([4, 6, np.inf])
    whole = diagram(points, landmarks=4, max_dimension=0)
    assert (whole.error, whole.num_unique) == (0.0, 4)
    with pytest.raises(TopologyError, match="landmarks are chosen from points"):
        diagram(np.zeros((1, 1)), metric="precomputed", landmarks=3)


@pytest.mark.parametrize(("metric", "error"), [("euclidean", 2.0), ("chordal", 2.0), ("cosine", 4.0)])
@pytest.mark.parametrize("threshold", [np.inf, 1.9])
def test_points_that_float32_cannot_tell_apart_are_one_and_the_error_says_so(metric, error, threshold):
    """A merged point moves by m, a distance by 2 m, and half its square by up to 2 (2 m) + 2 m^2."""
    near = np.float32(1) + np.finfo(np.float32).eps
    points = np.array([[1, 1], [1, near], [-1, 1], [1, -1]], dtype=np.float32)
    found = diagram(points, metric=metric, max_dimension=0, threshold=threshold)
    rows = points[:2].astype(np.float64)
    rows = rows if metric == "euclidean" else directions(rows)  # to the bit: 2 m^2 is 1e-14
    moved = np.linalg.norm(rows[0] - rows[1])
    assert (found.num_points, found.num_unique) == (4, 3)
    assert found.error == pytest.approx(
        error * moved + (2 * moved**2 if metric == "cosine" else 0), rel=1e-9, abs=0
    )
    assert diagram(points.astype(np.float64), metric=metric, max_dimension=0).num_unique == 4


def test_thresholds_and_dimensions_that_cannot_be():
    for threshold in (0, -1, np.nan):
        with pytest.raises(TopologyError, match="threshold must be above 0"):
            diagram(circle(5), threshold=threshold)
    with pytest.raises(TopologyError, match="max_dimension must be 0 or more"):
        diagram(circle(5), max_dimension=-1)
    assert diagram([[0.0, 1.0]], threshold=1.0).bars(0).tolist() == [[0, np.inf]]
    with pytest.raises(TopologyError, match="dimension -1 was not computed"):
        diagram(circle(5)).bars(-1)
    assert diagram(circle(5), max_dimension=0).max_dimension == 0


@pytest.mark.parametrize("form", ["points", "distances"])
def test_what_may_be_needed_is_that_of_the_dimension(form):
    """Up to dimension 1 by arithmetic, with edges from there on; above it what is left after collapsing."""
    line = np.arange(40.0)[:, None]
    points, width = (line, 1) if form == "points" else (pairwise(line), 40)
    metric = "euclidean" if form == "points" else "precomputed"
    for dimension in (0, 1):
        need = estimate_bytes(40, width, dimension)
        found = diagram(points, metric=metric, max_dimension=dimension, budget=Budget(memory_bytes=need))
        assert len(found.bars(0)) == 40
        with pytest.raises(TopologyError, match="the limit is"):
            diagram(points, metric=metric, max_dimension=dimension, budget=Budget(memory_bytes=need - 1))
    room = estimate_bytes(40, width, 1) + 10_000
    assert room < estimate_bytes(40, width, 2)
    found = diagram(points, metric=metric, max_dimension=2, budget=Budget(memory_bytes=room))
    assert len(found.bars(2)) == 0
