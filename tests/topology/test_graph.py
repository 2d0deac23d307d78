"""Edges of a filtration by hand: of points, of matrices, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.sparse import coo_matrix, csr_matrix

from panic.topology import TopologyError, estimate_bytes, graph
from panic.topology.graph import Graph, _by_blocks, given, neighbours, within

LINE = np.array([[0.0], [1.0], [3.0], [7.0]])
"""Distances 1, 2, 3, 4, 6, 7."""
MATRIX = np.abs(LINE - LINE.T)


def edges(graph: Any) -> list[tuple[int, int, float]]:
    ends = zip(graph.heads.tolist(), graph.tails.tolist(), strict=True)
    return [(*pair, length) for pair, length in zip(ends, graph.lengths.tolist(), strict=True)]


SHORT = [(0, 1, 1.0), (1, 2, 2.0), (0, 2, 3.0)]


@pytest.mark.parametrize("dimensions", [1, 20])
def test_an_edge_as_long_as_the_limit_is_one(dimensions):
    """By a tree and by blocks."""
    points = np.zeros((4, dimensions))
    points[:, :1] = LINE
    assert edges(neighbours(points, "euclidean", 3.0)) == SHORT
    assert edges(neighbours(points, "euclidean", 2.9)) == SHORT[:2]
    assert edges(neighbours(points, "euclidean", 0.5)) == []
    assert edges(within(MATRIX, 3.0)) == SHORT


@pytest.mark.parametrize("exponent", [-600, 600])
def test_points_that_could_not_be_squared_have_the_edges_of_others(exponent):
    points = np.ldexp(LINE, exponent)
    found = edges(neighbours(points, "euclidean", float(np.ldexp(3.0, exponent))))
    assert found == [(head, tail, float(np.ldexp(length, exponent))) for head, tail, length in SHORT]


def test_beyond_the_least_radius_from_which_a_point_sees_all_are_no_edges():
    """From the point at 3 all others are within 4: nothing is born or dies at 6 and 7."""
    assert edges(_by_blocks(LINE, 100.0, 2**62)) == edges(within(MATRIX)) == [*SHORT, (2, 3, 4.0)]


@pytest.mark.parametrize("d", [2, 20])
def test_as_many_edges_as_there_is_room_for(d):
    points = np.random.default_rng(0).normal(size=(30, d))
    limit = 1.0 if d == 2 else 5.5
    count = len(neighbours(points, "euclidean", limit))
    assert 50 < count < 300
    room = estimate_bytes(30, d, 1, num_edges=count)
    assert len(neighbours(points, "euclidean", limit, room)) == count
    with pytest.raises(TopologyError, match=f"64 x {count} edges"):
        neighbours(points, "euclidean", limit, room - 1)


def test_some_of_the_points_are_numbered_anew():
    graph = within(MATRIX)
    part = graph.among(np.array([0, 2, 3]))
    assert edges(part) == [(0, 1, 3.0), (1, 2, 4.0)]
    assert part.num_points == 3
    np.testing.assert_array_equal(part.matrix(), [[0, 3, np.inf], [3, 0, 4], [np.inf, 4, 0]])


@pytest.mark.parametrize("form", [np.asarray, coo_matrix])
def test_a_little_asymmetry_is_the_smaller_number_and_is_told(form):
    matrix = MATRIX.copy()
    matrix[0, 3] += 7e-5
    found, error, told = given(form(matrix))
    assert error == pytest.approx(7e-5)
    assert "up to 7e-05 less" in told
    square = found.matrix() if isinstance(found, Graph) else found
    np.testing.assert_array_equal(square, MATRIX)
    matrix[0, 3] += 7e-4
    with pytest.raises(TopologyError, match="differ by up to"):
        given(form(matrix))


@pytest.mark.parametrize("form", [np.asarray, coo_matrix])
def test_a_diagonal_is_zero_up_to_rounding(form):
    matrix = MATRIX + 7e-7 * np.eye(4)
    found = given(form(matrix))[0]
    assert not np.diag(found if isinstance(found, np.ndarray) else found.matrix()).any()
    with pytest.raises(TopologyError, match="diagonal of zeros"):
        given(form(MATRIX + 8e-6 * np.eye(4)))
    assert given(form(np.zeros((2, 2))))[1:] == (0.0, "")


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        ([["a", "b"], ["c", "d"]], "must be square, found .2, 2. of <U1"),
        ([[0, 1j], [1j, 0]], "must be square, found .2, 2. of complex"),
        ([0.0, 1.0], "must be square"),
        ([[0.0, 1.0]], "must be square"),
        ([[0.0, np.inf, 1.0], [1.0, 0.0, 1.0], [1.0, 1.0, 0.0]], "one direction only"),
        ([[0.0, -1.0], [-1.0, 0.0]], "negative"),
        ([[0.0, np.nan], [np.nan, 0.0]], "NaN"),
    ],
)
def test_what_is_no_matrix_of_distances_is_refused(matrix, message):
    with pytest.raises(TopologyError, match=message):
        given(matrix)


def test_stored_zeros_are_edges_and_stored_infinities_are_none():
    stored = csr_matrix(([0.0, np.inf, 2.0], ([0, 0, 2], [1, 2, 1])), shape=(4, 4))
    graph, error, told = given(stored)
    assert edges(graph) == [(0, 1, 0.0), (1, 2, 2.0)]
    assert (graph.num_points, error, told) == (4, 0.0, "")
    assert edges(given(stored, 1.0)[0]) == [(0, 1, 0.0)]
    for wrong, message in ((-1.0, "negative"), (np.nan, "NaN")):
        with pytest.raises(TopologyError, match=message):
            given(coo_matrix(([wrong], ([0], [1])), shape=(2, 2)))


@pytest.mark.parametrize("height", [1, 7, 29])
def test_blocks_of_any_height_give_the_edges_of_one_block(height, monkeypatch):
    """Large clouds are looked at block by block, for the memory's sake."""
    points = np.random.default_rng(0).normal(size=(30, 20))
    for limit in (5.5, 100.0):
        whole = _by_blocks(points, limit, 2**62)
        monkeypatch.setattr(graph, "_BLOCK", height * 30)
        found = _by_blocks(points, limit, 2**62)
        for one, other in zip(sorted(edges(found)), sorted(edges(whole)), strict=True):
            assert one == pytest.approx(other, rel=1e-12)
        assert (np.diff(found.lengths) >= 0).all()
        with pytest.raises(TopologyError, match="edges"):
            _by_blocks(points, limit, estimate_bytes(30, 20, 1, num_edges=len(whole)) - 1)
        monkeypatch.undo()


def test_cosines_of_neighbours_are_half_the_square_of_their_chord():
    points = np.array([[2.0, 0], [0, 5], [-1, 0], [3, 0.3]])
    found = edges(neighbours(points, "cosine", 1.0))
    want = 1 - np.cos(np.arctan2(0.3, 3))
    assert [(head, tail) for head, tail, _ in found] == [(0, 3), (1, 3), (0, 1), (1, 2)]
    assert [length for *_, length in found] == pytest.approx([want, 1 - np.sin(np.arctan2(0.3, 3)), 1, 1])
    chords = edges(neighbours(points, "chordal", np.sqrt(2) + 1e-9))
    assert [length for *_, length in chords] == pytest.approx([np.sqrt(2 * one) for *_, one in found])
