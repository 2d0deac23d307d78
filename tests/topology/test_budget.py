"""Estimates and refusals by hand."""

from __future__ import annotations

import os

import numpy as np
import pytest
from scipy.sparse import coo_array

from panic.topology import Budget, TopologyError, estimate, estimate_bytes
from panic.topology.budget import STEPS_PER_S, refuse, refuse_memory, refuse_work, simplices


def test_bytes_by_hand():
    assert estimate_bytes(10, 3, 0) == 28 * 30 + 32 * 100
    assert estimate_bytes(10, 3, 1) == 28 * 30 + 32 * 100 + 64 * 45
    assert estimate_bytes(10, 3, 2) == 28 * 30 + 32 * 100 + 64 * 45 + 16 * 120
    assert estimate_bytes(10, 3, 3) == 28 * 30 + 32 * 100 + 64 * 45 + 16 * (120 + 210)
    assert estimate_bytes(10, 3, 0, num_edges=7) == 28 * 30 + 25 + 64 * 7
    assert estimate_bytes(10, 3, 2, num_edges=7, num_simplices=5) == 28 * 30 + 25 + 64 * 7 + 16 * 5


def test_steps_are_seconds_of_work():
    assert Budget(seconds=2.0).steps == 2 * STEPS_PER_S
    assert Budget(seconds=1e300).steps == 2**62
    assert Budget().seconds == 900
    assert Budget().memory_bytes > 2**28


def test_seconds_by_hand():
    """100 points of 10 coordinates: 0.1 ms, 2.472e-4 s for pairs and columns, and 1.7 ms more for noise."""
    found = estimate(1, 100, 10, 1)
    assert (found.least_s, found.most_s) == pytest.approx((3.472e-4, 2.0472e-3))
    assert found.memory_bytes == estimate_bytes(100, 10, 1)
    assert estimate(1, 100, 10, 0).memory_bytes == estimate_bytes(100, 10, 0)
    voids = estimate(1, 100, 10, 2)
    assert (voids.least_s, voids.most_s) == pytest.approx((3.472e-4 + 6e-4, 2.0472e-3 + 0.02))
    assert voids.memory_bytes == estimate_bytes(100, 10, 1)
    beyond = estimate(1, 100, 10, 3, budget=Budget(seconds=60))
    assert (beyond.least_s, beyond.most_s) == (pytest.approx(voids.least_s), 60)


def test_as_many_at_once_as_there_are_workers_or_diagrams():
    one = estimate(1, 100, 10, 1)
    assert estimate(5, 100, 10, 1, workers=2).least_s == pytest.approx(2.5 * one.least_s)
    assert estimate(5, 100, 10, 1, workers=2).memory_bytes == 2 * one.memory_bytes
    assert estimate(3, 100, 10, 1, workers=8) == estimate(3, 100, 10, 1, workers=3)
    assert estimate(3, 100, 10, 1, workers=8).most_s == pytest.approx(one.most_s)
    nothing = estimate(0, 100, 10, 1, workers=8)
    assert (nothing.least_s, nothing.most_s, nothing.memory_bytes) == (0, 0, 0)


def test_what_needs_the_limit_to_the_byte_is_not_refused():
    need = estimate_bytes(10, 3, 1)
    refuse(10, 3, 1, need)
    with pytest.raises(TopologyError, match="10 distinct points up to dimension 1 may need"):
        refuse(10, 3, 1, need - 1)


@pytest.mark.parametrize(
    ("dimension", "more", "arithmetic"),
    [
        (0, {}, "(28 x 10 x 3 bytes for the points + 32 x 10^2 for matrices)"),
        (1, {}, "32 x 10^2 for matrices + 64 x C(10, 2) for edges)"),
        (2, {}, "+ 64 x C(10, 2) for edges + 16 x (C(10, 3)) for columns)"),
        (3, {}, "16 x (C(10, 3) + C(10, 4)) for columns)"),
        (1, {"num_edges": 7}, "3 bytes for the points + 10^2 / 4 for sets of neighbours + 64 x 7 edges)"),
        (2, {"num_edges": 7, "num_simplices": 5}, "64 x 7 edges + 16 x 5 simplices that are left after"),
    ],
)
def test_a_refusal_shows_its_arithmetic(dimension, more, arithmetic):
    with pytest.raises(TopologyError) as caught:
        refuse(10, 3, dimension, 100, **more)
    assert arithmetic in str(caught.value)
    assert "the limit is 0.00 MiB" in str(caught.value)


def test_work_and_memory_that_are_used_up_are_told():
    with pytest.raises(
        TopologyError, match=r"more than 0.5 s of work \(200,000,000 steps of 2.5 ns\); so far"
    ):
        refuse_work(10, 2, 200_000_000, "so far")
    with pytest.raises(TopologyError, match=r"needs 128.00 MiB beside .*\(a term\), 0.00 MiB of the limit"):
        refuse_memory(10, 2, 2**27 - 1, -5, "a term")
    with pytest.raises(TopologyError, match=r"needs 0.12 GiB beside"):
        refuse_memory(10, 2, 2**27, 0, "a term")


def complete(size: int) -> coo_array:
    i, j = np.triu_indices(size, k=1)
    return coo_array((np.ones(len(i)), (j, i)), shape=(size, size))  # the lower triangle


def test_cliques_are_counted_and_bounded():
    """Of 4 points 4 triangles, and at most (6 x 4)^(4/3) / 24 = 2 tetrahedra, which is 1 too many."""
    assert simplices(complete(4), 1) == 0
    assert simplices(complete(4), 2) == 4
    assert simplices(complete(4), 3) == 4 + 2
    assert simplices(complete(6), 2) == 20
    assert simplices(complete(6), 3) == 20 + int(120 ** (4 / 3) / 24)
    second = int(120 ** (4 / 3) / 24)
    assert simplices(complete(6), 4) == 20 + second + int((second * 24) ** 1.25 / 120)
    line = coo_array((np.ones(2), ([0, 1], [1, 2])), shape=(3, 3))
    assert simplices(line, 2) == 0


def test_the_default_is_three_quarters_of_the_memory():
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert Budget().memory_bytes == pytest.approx(0.75 * memory_bytes)
