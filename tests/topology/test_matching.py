"""Distances between diagrams against gudhi, hera and numbers worked out by hand."""

from __future__ import annotations

import math

import gudhi
import numpy as np
import pytest
from gudhi.hera import wasserstein_distance as hera
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import maximum_bipartite_matching

from panic.topology import TopologyError, bottleneck, distance_matrix, distances_to, matching, wasserstein

BARS = st.lists(st.tuples(st.integers(0, 6), st.integers(1, 6)), max_size=7).map(
    lambda bars: np.array([(b / 4, (b + length) / 4) for b, length in bars]).reshape(-1, 2)
)
FROM_ZERO = st.lists(st.integers(1, 12), max_size=7).map(
    lambda deaths: np.array([(0.0, d / 4) for d in deaths]).reshape(-1, 2)
)


def costs(a: np.ndarray, b: np.ndarray, p: float) -> np.ndarray:
    """Distances of m + n points against n + m, the diagonal's copies free among themselves."""
    cost = np.zeros((len(a) + len(b), len(a) + len(b)))
    to_diagonal = lambda x: np.linalg.norm((x[:, 1:] - x[:, :1]) / 2 * np.ones(2), p, axis=1)  # noqa: E731
    cost[: len(a), : len(b)] = np.linalg.norm(a[:, None] - b[None, :], p, axis=2)
    cost[: len(a), len(b) :] = to_diagonal(a)[:, None]
    cost[len(a) :, : len(b)] = to_diagonal(b)[None, :]
    return cost


def by_assignment(a: np.ndarray, b: np.ndarray, order: float, p: float) -> float:
    """The textbook way, as one assignment problem."""
    cost = costs(a, b, p) ** order
    rows, columns = linear_sum_assignment(cost)
    return float(cost[rows, columns].sum() ** (1 / order))


def by_matching(a: np.ndarray, b: np.ndarray) -> float:
    """The textbook way: the least cost at which all of m + n against n + m points can be matched."""
    cost = costs(a, b, np.inf)
    is_perfect = lambda limit: (maximum_bipartite_matching(csr_matrix(cost <= limit)) >= 0).all()  # noqa: E731
    return float(next((limit for limit in np.unique(cost) if is_perfect(limit)), 0.0))


@settings(max_examples=150, deadline=None)
@given(st.one_of(st.tuples(BARS, BARS), st.tuples(FROM_ZERO, FROM_ZERO)))
def test_bottleneck_is_that_of_the_textbook(pair):
    """Not gudhi's: its `bottleneck_distance` (3.13) errs where bars repeat, in 58 of 20,000 such pairs."""
    assert bottleneck(*pair) == pytest.approx(by_matching(*pair), abs=1e-12)


def test_bottleneck_of_bars_in_general_position_is_gudhis():
    rng = np.random.default_rng(0)
    a, b = (np.cumsum(rng.exponential(size=(n, 2)), axis=1) for n in (40, 30))
    assert bottleneck(a, b) == pytest.approx(gudhi.bottleneck_distance(a, b, e=0), abs=1e-12)


@settings(max_examples=150, deadline=None)
@given(
    st.one_of(st.tuples(BARS, BARS), st.tuples(FROM_ZERO, FROM_ZERO)),
    st.sampled_from([(1, 2), (2, 2), (1, np.inf), (2, 1), (1.5, 3)]),
)
def test_wasserstein_is_that_of_the_textbook(pair, how):
    assert wasserstein(*pair, *how) == pytest.approx(by_assignment(*pair, *how), abs=1e-9)


def test_wasserstein_is_heras():
    rng = np.random.default_rng(0)
    a, b = (np.cumsum(rng.exponential(size=(n, 2)), axis=1) for n in (40, 30))
    for order, p in ((1, np.inf), (2, 2)):
        assert wasserstein(a, b, order, p) == pytest.approx(hera(a, b, order, p, delta=1e-9), rel=1e-8)


def test_numbers_by_hand():
    a, b = [[0.0, 2.0]], [[0.0, 3.0]]
    assert (bottleneck(a, b), wasserstein(a, b)) == (1.0, 1.0)
    assert bottleneck(a, []) == 1.0
    assert wasserstein(a, []) == pytest.approx(math.sqrt(2))
    assert wasserstein(a, [], internal_p=np.inf) == 1.0
    assert bottleneck([], []) == wasserstein([], []) == 0.0
    # both to the diagonal is nearer than to each other
    assert bottleneck([[0.0, 1.0]], [[10.0, 11.0]]) == 0.5
    assert wasserstein([[0, 1], [5, 9]], [[5, 9]], order=2) == pytest.approx(math.sqrt(0.5))
    assert bottleneck([[0.0, 0.25]] * 3, [[0.0, 0.75]] * 3) == 0.375


@pytest.mark.parametrize("distance", [bottleneck, wasserstein])
def test_bars_that_die_before_they_are_born_are_refused(distance):
    """They once were bars of no length, and the distance a number."""
    with pytest.raises(TopologyError, match=r"1 of 2 bars die before they are born \(the first: 4, 1\)"):
        distance([[4, 1], [3, 3]], [[0, 1]])
    with pytest.raises(TopologyError, match="1 of 1 bars die"):
        distance([[0, 1]], [[4, 1]])
    with pytest.raises(TopologyError, match=r"shape \(2, 3\)"):
        distance([[0, 1, 2], [0, 1, 2]], [])


@pytest.mark.parametrize("how", [(1, 2), (2, 2), (1.5, 3), (2, np.inf)])
def test_wasserstein_of_a_diagram_and_itself_is_0_to_the_bit(how):
    """Bars born at 0 are summed in two orders: 68 of 400 such distances were up to 1e-7."""
    rng = np.random.default_rng(0)
    for n in range(1, 100):
        from_zero = np.c_[np.zeros(n), rng.exponential(size=n)]
        assert wasserstein(from_zero, rng.permutation(from_zero), *how) == 0.0
        later = from_zero + rng.random(n)[:, None]
        assert wasserstein(later, rng.permutation(later), *how) == 0.0


def test_bottleneck_of_many_clustered_bars_needs_augmenting_paths():
    """Without them 60 of 60 such pairs are wrong, by up to 2.5 times; few or spread bars hardly show it."""
    rng = np.random.default_rng(3)
    for _ in range(20):
        centres = rng.random((3, 2)) * [0.3, 0.1] + [0.0, 2.0]
        a, b = (centres[rng.integers(3, size=30)] + 0.1 * rng.normal(size=(30, 2)) for _ in range(2))
        assert bottleneck(a, b) == pytest.approx(by_matching(a, b), abs=1e-12)


def test_open_bars_are_matched_by_birth():
    a, b = [[0.0, np.inf], [1.0, np.inf]], [[1.5, np.inf], [0.25, np.inf]]
    assert bottleneck(a, b) == 0.5
    assert wasserstein(a, b) == 0.75
    assert bottleneck(a, b[:1]) == wasserstein(a, b[:1]) == math.inf
    # Sorted births differ by 0.25 and 0.5; a finite bar goes to the diagonal beside them.
    assert wasserstein(a, b, order=2) == pytest.approx(math.sqrt(0.25**2 + 0.5**2))
    assert wasserstein([*a, [0.0, 1.0]], b, order=2, internal_p=np.inf) == pytest.approx(
        math.sqrt(0.25**2 + 0.5**2 + 0.5**2)
    )
    assert bottleneck([*a, [0.0, 3.0]], b) == 1.5


def test_equal_diagrams_have_no_distance_at_all():
    bars = np.cumsum(np.random.default_rng(0).exponential(size=(50, 2)), axis=1)
    assert bottleneck(bars, bars[::-1]) == wasserstein(bars, bars[::-1]) == 0.0
    assert wasserstein(bars, np.vstack([bars, [[3.0, 3.0]]])) == 0.0  # a bar without length is none


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["bottleneck", "wasserstein"])
def test_a_matrix_holds_the_distances_of_pairs(kind):
    rng = np.random.default_rng(1)
    many = [np.cumsum(rng.exponential(size=(n % 7, 2)), axis=1) for n in range(45)]
    matrix = distance_matrix(many, kind, workers=2)  # two processes
    one = {"bottleneck": bottleneck, "wasserstein": wasserstein}[kind]
    want = [[one(many[i], many[j]) for j in range(45)] for i in range(0, 45, 5)]
    np.testing.assert_allclose(matrix[::5], want, atol=1e-12)
    assert distance_matrix([], kind).shape == (0, 0)
    lines = [np.c_[np.zeros(n), rng.exponential(size=n)] for n in (3, 9, 0, 5)]
    matrix = distance_matrix(lines, kind, workers=1)
    assert matrix[1, 2] == pytest.approx(one(lines[1], lines[2]), abs=1e-15)
    assert matrix[3, 0] == pytest.approx(one(lines[3], lines[0]), abs=1e-15)


@pytest.mark.parametrize("kind", ["bottleneck", "wasserstein"])
@pytest.mark.parametrize("born", ["at 0", "later"])
def test_a_distance_is_the_same_to_the_bit_in_any_batch(kind, born):
    """What is computed after a kill comes in other batches than before it."""
    rng = np.random.default_rng(2)
    bars = [np.c_[np.zeros(n), rng.exponential(size=n)] for n in (40, 9, 130, 300)]
    if born == "later":
        bars = [b + rng.random(len(b))[:, None] for b in bars]
    together = distance_matrix(bars, kind)[0]
    alone = [distance_matrix([bars[0], b], kind)[0, 1] for b in bars]
    assert together[1:].tolist() == alone[1:]


def test_bars_from_zero_are_matched_in_order():
    """2 with 3 (1 apart), 1 alone (0.5): cheaper than any other way."""
    a, b = [[0.0, 1.0], [0.0, 2.0]], [[0.0, 3.0]]
    assert bottleneck(a, b) == bottleneck(b, a) == 1.0
    assert wasserstein(a, b, internal_p=np.inf) == wasserstein(b, a, internal_p=np.inf) == 1.5
    assert wasserstein(a, b, order=2, internal_p=np.inf) == pytest.approx(math.sqrt(1.25))
    assert wasserstein(a, b, order=1, internal_p=1) == 2.0  # 1 along one axis; 1 alone is 1 from the diagonal


def test_one_diagram_from_zero_and_one_that_is_not():
    a, b = [[0.0, 2.0]], [[0.5, 2.5]]
    assert bottleneck(a, b) == bottleneck(b, a) == 0.5
    assert wasserstein(a, b) == pytest.approx(math.sqrt(0.5))
    assert wasserstein(b, a, internal_p=1) == 1.0
    assert wasserstein(b, a, internal_p=3) == pytest.approx(0.25 ** (1 / 3))


def test_distances_to_many_are_those_of_pairs():
    rng = np.random.default_rng(4)
    bars = [np.cumsum(rng.exponential(size=(n, 2)), axis=1) for n in (0, 3, 5)]
    bars.append(np.c_[np.zeros(4), rng.exponential(size=4)])
    assert distances_to(bars[1], bars).tolist() == [wasserstein(bars[1], other) for other in bars]
    assert distances_to(bars[3], bars, "bottleneck").tolist() == [
        bottleneck(bars[3], other) for other in bars
    ]
    settings = {"order": 2, "internal_p": 1}
    found = distances_to(bars[1], bars, "wasserstein", **settings)
    assert found.tolist() == [wasserstein(bars[1], other, **settings) for other in bars]
    assert distances_to(bars[1], bars, internal_p="inf").tolist() == [
        wasserstein(bars[1], other, internal_p=np.inf) for other in bars
    ]
    matrix = distance_matrix(bars)
    assert matrix[1].tolist() == distances_to(bars[1], bars).tolist()
    assert (matrix == matrix.T).all()
    assert not matrix.diagonal().any()
    with pytest.raises(TopologyError, match="unknown distance 'sliced'"):
        distances_to(bars[1], bars, "sliced")


def test_wrong_calls_are_refused():
    for how in ({"order": 0.9}, {"order": np.inf}, {"internal_p": 0.9}, {"internal_p": float("nan")}):
        with pytest.raises(TopologyError, match="order must be from 1 on and finite, internal_p from 1 on"):
            wasserstein([], [], **how)
    with pytest.raises(TopologyError, match="NaN"):
        bottleneck([[0, np.nan]], [])
    with pytest.raises(TopologyError, match="order"):
        wasserstein([], [], order=0.5)
    with pytest.raises(TopologyError, match="bottleneck, wasserstein"):
        distance_matrix([], "sliced")
    with pytest.raises(TopologyError, match="bottleneck has no order"):
        distance_matrix([], "bottleneck", order=2)


@pytest.mark.parametrize(
    ("size", "workers", "processes"), [(39, 8, None), (40, 8, 2), (60, 2, 2), (99, 1, None)]
)
def test_few_diagrams_are_not_worth_a_process(size, workers, processes, monkeypatch):
    started = []

    class Pool:
        """Notes how many processes are asked for, and works here."""

        def __init__(self, count, mp_context):
            started.append((count, mp_context.get_start_method()))

        def __enter__(self):
            return self

        def __exit__(self, *_):
            return None

        def map(self, function, places, chunksize):
            assert chunksize == size // (8 * processes)
            return map(function, places)

    monkeypatch.setattr(matching, "ProcessPoolExecutor", Pool)
    bars = [[[0.0, 1.0 + number]] for number in range(size)]
    found = distance_matrix(bars, "bottleneck", workers=workers)
    assert started == ([] if processes is None else [(processes, "spawn")])
    assert found[2, 5] == found[5, 2] == 3.0
    assert not found.diagonal().any()
