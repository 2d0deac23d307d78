"""Core sets and detailed balance against exact chains: times, committors, tests at their level."""

from __future__ import annotations

import math

import numpy as np
import pytest

from panic.analysis.checks import AnalysisError
from panic.analysis.dynamics import (
    committor,
    core_counts,
    core_moves,
    last_core,
    mixing_time,
    next_core,
    relaxation,
    reversibility,
    stationary,
    timescales,
    transition_matrix,
)
from panic.analysis.dynamics.reversibility import _drawn_counts, reversible_chain
from tests.analysis.test_markov import TWO, gambler, simulated

RANDOM_WALK = np.array([[0, 4, 2, 1], [4, 0, 3, 2], [2, 3, 0, 5], [1, 2, 5, 0]], dtype=float)
REVERSIBLE = RANDOM_WALK / RANDOM_WALK.sum(
    axis=1, keepdims=True
)  # on a graph with weights: pi p is symmetric
DRIVEN = 0.6 * REVERSIBLE + 0.4 * np.roll(np.eye(4), 1, axis=1)


def wells(size: int = 21, height: float = 3.0) -> np.ndarray:
    """A Metropolis walk in a double well: two regions with a wide fringe between them."""
    x = np.linspace(-1.4, 1.4, size)
    energy = height * (x**2 - 1) ** 2
    t = np.zeros((size, size))
    for i in range(size):
        for j in (i - 1, i + 1):
            if 0 <= j < size:
                t[i, j] = 0.5 * min(1.0, math.exp(energy[i] - energy[j]))
        t[i, i] = 1 - t[i].sum()
    return t


def paths(t: np.ndarray, runs: int, length: int, seed: int) -> list[np.ndarray]:
    return [simulated(t, length, start=r % len(t), seed=1000 * seed + r) for r in range(runs)]


def walkers(t: np.ndarray, runs: int, length: int) -> list[np.ndarray]:
    """Many runs at once, from the long run on."""
    rng = np.random.default_rng(0)
    law, size = stationary(t), len(t)
    flat = (t.cumsum(axis=1) + np.arange(size)[:, None]).ravel()
    states = [rng.choice(size, runs, p=law)]
    for _ in range(length - 1):
        place = np.searchsorted(flat, states[-1] + rng.random(runs), side="right")
        states.append(np.minimum(place - size * states[-1], size - 1))
    return list(np.array(states).T)


def test_the_last_and_the_next_core_by_hand():
    labels = np.array([-1, 0, -1, -1, 1, -1, 1, 0, -1])
    assert last_core(labels).tolist() == [-1, 0, 0, 0, 1, 1, 1, 0, 0]
    assert next_core(labels).tolist() == [0, 0, 1, 1, 1, 1, 1, 0, -1]
    assert core_moves(labels).tolist() == [0, 1, 0]
    assert [f([]).tolist() for f in (last_core, next_core, core_moves)] == [[], [], []]
    assert core_moves([-1, -1]).tolist() == []
    counts = core_counts([labels], 2)
    assert counts[0, 0].tolist() == [[0, 3], [1, 2]]
    assert counts[0, 1].tolist() == [[1, 2], [0, 3]]
    with pytest.raises(AnalysisError, match="one run"):
        last_core([[0, 1], [1]])


def test_where_every_step_is_in_a_core_the_model_is_the_ordinary_chain():
    runs = paths(TWO, 4, 500, 0)
    found = relaxation(core_counts(runs, 2).sum(axis=0))
    assert found == pytest.approx(timescales(transition_matrix(runs, 2))[0], rel=1e-9)


def test_cores_find_the_slow_time_that_a_border_misses():
    """A border on the hill between two wells is crossed to and fro: 6 times too fast at lag 1."""
    t = wells()
    right = float(timescales(t)[0])
    runs = walkers(t, 200, 1000)
    border = [(run >= 10).astype(int) for run in runs]
    cores = [np.select([run <= 4, run >= 16], [0, 1], -1) for run in runs]
    assert relaxation(core_counts(border, 2).sum(axis=0)) < right / 4
    assert relaxation(core_counts(cores, 2).sum(axis=0)) == pytest.approx(right, rel=0.15)
    assert relaxation(core_counts(cores, 2, lag=5).sum(axis=0), lag=5) == pytest.approx(right, rel=0.15)


def test_relaxations_without_an_answer():
    ring = np.tile(np.arange(3), 8)
    assert relaxation(core_counts([ring], 3).sum(axis=0)) == math.inf
    for size in range(2, 14):  # of some of them, as of 4, the modulus is rounded to a little below 1
        assert relaxation(core_counts([np.tile(np.arange(size), 3)], size).sum(axis=0)) == math.inf
    assert math.isnan(relaxation(core_counts([np.zeros(5, dtype=int)], 2).sum(axis=0)))
    assert relaxation([[[1]], [[1]]]) == 0
    half = [[1, 1], [1, 1]]
    assert relaxation([half, [[1, 0], [0, 1]]]) == 0, "it forgets at once"
    for counts in ([[[0]], [[0]]], [[[1]], [[0]]], [[[0]], [[1]]], [half, half]):
        assert math.isnan(relaxation(counts))
    assert relaxation(core_counts([np.zeros(5, dtype=int)], 1).sum(axis=0)) == 0
    with pytest.raises(AnalysisError, match="lag"):
        core_counts([ring], 3, lag=0)


def test_mixing_times_to_the_step():
    """max(a, b) / (a + b) |1 - a - b|^n falls to a quarter at n = ln 0.35 / ln 0.93 = 14.5."""
    assert mixing_time(TWO) == 15
    assert mixing_time(TWO, 0.01) == math.ceil(math.log(0.01 * 7 / 5) / math.log(0.93))
    assert mixing_time(np.full((4, 4), 0.25)) == 1
    assert mixing_time([[1.0]]) == 0
    assert mixing_time(np.roll(np.eye(3), 1, axis=1)) == math.inf
    lazy = 0.5 * np.eye(3) + 0.5 * np.roll(np.eye(3), 1, axis=1)
    power, steps = np.eye(3), 0
    while np.abs(power - 1 / 3).sum(axis=1).max() / 2 > 0.25:
        power, steps = power @ lazy, steps + 1
    assert mixing_time(lazy) == steps
    with pytest.raises(AnalysisError, match="never left"):
        mixing_time(np.eye(2))
    with pytest.raises(AnalysisError, match="between 0 and 1"):
        mixing_time(TWO, 0)


def test_committors_of_walks():
    """Of the fair walk i / N; of one that goes up more often, (1 - r^i) / (1 - r^N), r = down / up."""
    i = np.arange(11)
    assert committor(gambler(), 0, 10) == pytest.approx(i / 10)
    biased = gambler()
    for state in range(1, 10):
        biased[state, state - 1], biased[state, state + 1] = 0.4, 0.6
    r = 2 / 3
    assert committor(biased, 0, 10) == pytest.approx((1 - r**i) / (1 - r**10))
    assert committor(biased, [0, 1], [9, 10])[[0, 1, 9, 10]].tolist() == [0, 0, 1, 1]
    apart = np.eye(4)
    apart[1] = [0.5, 0, 0.5, 0]
    assert committor(apart, 0, 2).tolist() == [0, 0.5, 1, 0]
    with pytest.raises(AnalysisError, match="in common"):
        committor(TWO, [0, 1], 1)


def test_the_reversible_chain_that_fits():
    """It keeps a chain that is reversible, and obeys detailed balance for any counts; others fit worse."""
    law = stationary(REVERSIBLE)
    assert reversible_chain(1e6 * law[:, None] * REVERSIBLE) == pytest.approx(REVERSIBLE, rel=1e-9)
    rng = np.random.default_rng(0)
    counts = rng.integers(0, 30, (5, 4, 4)) * (1 - np.eye(4))
    found = reversible_chain(counts, rounds=5000)
    for chain, count in zip(found, counts, strict=True):
        flow = stationary(chain)[:, None] * chain
        assert flow == pytest.approx(flow.T, abs=1e-9)
        symmetric = count + count.T
        naive = symmetric / symmetric.sum(axis=1, keepdims=True)
        off = count > 0
        assert (count[off] * np.log(chain[off])).sum() >= (count[off] * np.log(naive[off])).sum()


def test_moves_that_go_round_are_found():
    found = reversibility([core_moves(run) for run in paths(DRIVEN, 8, 25, 0)], 4)
    assert (found.p_value, found.num_rings) == (0.005, 3)
    assert found.net_share > found.null_high > found.null_mean
    ring = reversibility([np.tile(np.arange(3), 9)], 3)
    assert (ring.net_share, ring.p_value) == (1.0, 0.005)


def test_detailed_balance_of_moves_that_can_be_counted():
    """A ring gone round 9 times: 27 moves, each sure in the one chain and as likely as back in the other."""
    ring = reversibility([np.tile(np.arange(3), 10)[:28]], 3)
    assert ring.counts.tolist() == [[0, 9, 0], [0, 0, 9], [9, 0, 0]]
    assert ring.statistic == pytest.approx(54 * np.log(2))
    assert ring.num_rings == 1
    # 3 - 1, 2 - 0 and 2 - 1 of 9 moves are not matched.
    runs = [np.array(run) for run in ([0, 1], [1, 0, 1, 2, 0, 1], [1, 2, 0, 2], [1], [])]
    mixed = reversibility(runs, 3)
    assert mixed.counts.tolist() == [[0, 3, 1], [1, 0, 2], [2, 0, 0]]
    assert mixed.net_share == pytest.approx(5 / 9)
    # Two rings that never meet, and a state where nobody was.
    assert reversibility([np.array([0, 1, 2, 0]), np.array([3, 4, 5, 3])], 7).num_rings == 2


def test_runs_are_drawn_from_their_starts_with_as_many_moves():
    """A chain that knows one way only: every draw has the moves of the runs themselves, and no others."""
    around = np.array([[0, 1, 0], [0, 0, 1], [1, 0, 0]], dtype=float)
    runs = [np.array([1, 2, 0]), np.array([0, 1, 2, 0, 1]), np.array([2, 0])]
    drawn = _drawn_counts(around, runs, 20, np.random.default_rng(0))
    assert drawn.tolist() == [[[0, 2, 0], [0, 0, 2], [3, 0, 0]]] * 20
    chain = np.array([[0.25, 0.75], [0.5, 0.5]])
    even = _drawn_counts(chain, [np.zeros(2, int)], 4000, np.random.default_rng(0))
    assert even.sum() == 4000
    assert even[:, 1].sum() == 0, "runs of one move start in the first state"
    assert even[:, 0, 1].mean() == pytest.approx(0.75, abs=0.03)  # 4 standard errors


def test_moves_without_a_ring_are_refused():
    for moves in ([np.array([0, 1, 0, 1])], [np.array([0, 1, 2, 1, 0])], [], [np.array([2])]):
        with pytest.raises(AnalysisError, match="no ring"):
            reversibility(moves, 3)
    with pytest.raises(AnalysisError, match="stays are no moves"):
        reversibility([np.array([0, 0, 1, 2, 0])], 3)


@pytest.mark.long
@pytest.mark.timeout(0)
def test_detailed_balance_is_refused_as_often_as_its_level_says():
    """Of 1,000 data sets of short runs from one state only, which are far from the long run."""
    refused = 0
    for data_set in range(1000):
        runs = [simulated(REVERSIBLE, 15, start=3, seed=10_000 * data_set + r) for r in range(8)]
        refused += reversibility(runs, 4, num_draws=99, seed=data_set).p_value <= 0.05
    assert 30 <= refused <= 70
