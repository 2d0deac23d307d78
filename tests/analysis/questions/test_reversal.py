"""Which moves are asked whether they have a direction; the test itself is in test_cores.py."""

from __future__ import annotations

import numpy as np
import pytest

from panic.analysis.questions.reversal import LEAST_PER_PAIR, enough_moves


@pytest.mark.parametrize("num_clusters", [3, 4, 5])
def test_there_are_four_moves_for_each_pair_and_direction(num_clusters):
    """A run goes round in so many clusters, as often as it has to, and once less."""
    needed = LEAST_PER_PAIR * num_clusters * (num_clusters - 1)
    ring = np.arange(needed + 1) % num_clusters
    known, moves = enough_moves([ring])
    assert known.tolist() == list(range(num_clusters))
    assert [len(run) for run in moves] == [needed + 1]
    fewer, _ = enough_moves([ring[:-1]])
    assert len(fewer) < num_clusters


def test_clusters_that_are_visited_least_are_passed_over():
    """Of four clusters and 26 moves three are asked; with 23 moves none is."""
    ring = np.append(np.arange(25) % 3, [7, 0])
    known, [moves] = enough_moves([ring])
    assert known.tolist() == [0, 1, 2]
    assert moves.tolist() == [*np.arange(25) % 3], "from 0 to 0 it has not moved"
    known, moves = enough_moves([np.arange(24) % 3])
    assert (known.tolist(), moves) == ([], [])
