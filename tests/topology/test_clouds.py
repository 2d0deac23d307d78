"""Windows and landmarks by hand."""

from __future__ import annotations

import numpy as np
import pytest

from panic.topology import TopologyError, landmarks, sliding_window


def test_windows_by_hand():
    assert sliding_window(np.arange(6.0), 3, delay=2).tolist() == [[0, 2, 4], [1, 3, 5]]
    assert sliding_window(np.arange(5.0), 3, delay=2).tolist() == [[0, 2, 4]]
    assert sliding_window(np.arange(3.0), 2).tolist() == [[0, 1], [1, 2]]
    assert sliding_window(np.arange(3.0), 1).tolist() == [[0], [1], [2]]
    points = np.array([[0, 10], [1, 11], [2, 12]], dtype=np.float32)
    found = sliding_window(points, 2)
    assert found.tolist() == [[0, 10, 1, 11], [1, 11, 2, 12]]
    assert found.dtype == np.float32


def test_a_series_shorter_than_a_window_is_refused():
    with pytest.raises(TopologyError, match="3 values 2 apart spans 5 steps, the series has 4"):
        sliding_window(np.arange(4.0), 3, delay=2)
    for dimension, delay in ((0, 1), (1, 0)):
        with pytest.raises(TopologyError, match="must be 1 or more"):
            sliding_window(np.arange(4.0), dimension, delay)


def test_each_landmark_is_the_farthest_from_those_before():
    """0, then 10, then 4 (4 from the nearest); 1 is left, 1 from its nearest."""
    points = [[0.0], [1.0], [10.0], [4.0]]
    found = [landmarks(points, count) for count in (1, 2, 3, 4, 9)]
    assert [chosen.tolist() for chosen, _ in found] == [[0], [0, 2], [0, 2, 3], [0, 2, 3, 1], [0, 2, 3, 1]]
    assert [radius for _, radius in found] == [10, 4, 1, 0, 0]


def test_landmarks_of_directions():
    """In one direction and in the opposite one, whatever the lengths."""
    chosen, radius = landmarks([[1.0, 0], [50, 0], [-3, 0]], 2, metric="chordal")
    assert (chosen.tolist(), radius) == ([0, 2], 0.0)


def test_landmarks_that_cannot_be():
    chosen, radius = landmarks(np.empty((0, 3)), 2)
    assert (chosen.tolist(), radius) == ([], 0.0)
    with pytest.raises(TopologyError, match="need a metric, found 'cosine'"):
        landmarks([[0.0]], 1, metric="cosine")
    with pytest.raises(TopologyError, match="count must be 1 or more"):
        landmarks([[0.0]], 0)
