"""Detailed balance: whether moves among states look the same backwards, or go round.

A chain is reversible if p_ij p_jk p_ki = p_ik p_kj p_ji along every ring (Kolmogorov 1936). Dwells do not
matter for that, so only moves to other states count. The test is a likelihood ratio, of the chain that fits
the moves best beside the reversible one that does; what chance gives comes from runs of the reversible chain,
from the same starts and with as many moves, because the ratio follows no chi-squared law where moves are few.

    found = reversibility([core_moves(run) for run in labels], num_states)
    found.p_value, found.net_share
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from panic.analysis.checks import AnalysisError, labels
from panic.analysis.dynamics.markov import transition_counts

Array = NDArray[np.float64]
Labels = NDArray[np.int64]
NUM_DRAWS = 199
ROUNDS = 200
"""Iterations towards the reversible chain: as many for what was measured as for draws, so that p is right
even where they are too few."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reversibility:
    """Whether moves obey detailed balance.

    `counts` (k, k) of moves. `num_rings`: independent rings of states, the degrees of freedom. `statistic`:
    twice the log of the likelihood ratio; `p_value`: the share of draws that reach it. `net_share`: the share
    of moves that are not matched by one back, beside the mean and the 95 % band of draws.
    """

    counts: NDArray[np.int64]
    num_rings: int
    statistic: float
    p_value: float
    net_share: float
    null_mean: float
    null_low: float
    null_high: float


def reversibility(
    moves: Sequence[ArrayLike], num_states: int, *, num_draws: int = NUM_DRAWS, seed: int = 0
) -> Reversibility:
    """Test the moves (m,) of runs, each the states that it visited one after the other, never the same twice.

    AnalysisError where the moves hold no ring of three states: what goes there must come back by the same
    way, and every such chain is reversible.
    """
    runs = [run for run in map(labels, moves) if len(run)]
    counts = transition_counts(runs, num_states)
    if counts.diagonal().any():
        raise AnalysisError("moves lead to another state; stays are no moves")
    num_rings = _num_rings(counts)
    if not num_rings:
        raise AnalysisError(
            "the moves hold no ring of three clusters, so that every chain of them is reversible"
        )
    fitted = reversible_chain(counts, rounds=10 * ROUNDS)
    drawn = _drawn_counts(fitted, runs, num_draws, np.random.default_rng(seed))
    measured, null = float(_ratio(counts)), _ratio(drawn)
    shares = _net_share(drawn)
    low, high = np.quantile(shares, [0.025, 0.975], method="weibull")
    return Reversibility(
        counts=counts,
        num_rings=num_rings,
        statistic=measured,
        p_value=float((1 + (null >= measured * (1 - 1e-12)).sum()) / (1 + num_draws)),
        net_share=float(_net_share(counts)),
        null_mean=float(shares.mean()),
        null_low=float(low),
        null_high=float(high),
    )


def reversible_chain(counts: ArrayLike, *, rounds: int = ROUNDS) -> Array:
    """The reversible chain (..., k, k) under which counts (..., k, k) are likeliest.

    x_ij = (c_ij + c_ji) / (c_i / x_i + c_j / x_j), repeated, where c_i and x_i are sums of rows (Bowman et
    al. 2009); x_ij / x_i is the chain. The row of a state in no count is all zeros.
    """
    c = np.asarray(counts, dtype=np.float64)
    both = c + np.swapaxes(c, -1, -2)
    left = c.sum(axis=-1)
    x = both.copy()
    for _ in range(rounds):
        total = x.sum(axis=-1)
        rate = np.divide(left, total, out=np.zeros(left.shape), where=total > 0)
        pairs = rate[..., :, None] + rate[..., None, :]
        x = np.divide(both, pairs, out=np.zeros(both.shape), where=pairs > 0)
    total = x.sum(axis=-1, keepdims=True)
    chain: Array = np.divide(x, total, out=np.zeros(x.shape), where=total > 0)
    return chain


def _ratio(counts: NDArray[np.int64]) -> Array:
    """Twice the log of the likelihood ratio (...) of counts (..., k, k), any chain to a reversible."""
    totals = counts.sum(axis=-1, keepdims=True)
    free = np.divide(counts, totals, out=np.ones(counts.shape), where=totals > 0)
    bound = reversible_chain(counts)
    logs = np.zeros(counts.shape)
    np.log(
        np.divide(free, bound, out=np.ones(counts.shape), where=(counts > 0) & (bound > 0)),
        out=logs,
        where=counts > 0,
    )
    found: Array = np.maximum(2 * (counts * logs).sum(axis=(-2, -1)), 0.0)
    return found


def _net_share(counts: NDArray[np.int64]) -> Array:
    """The share of moves (...) that are not matched by one back."""
    apart = np.abs(counts - np.swapaxes(counts, -1, -2)).sum(axis=(-2, -1)) / 2
    found: Array = apart / np.maximum(counts.sum(axis=(-2, -1)), 1)
    return found


def _num_rings(counts: NDArray[np.int64]) -> int:
    """Independent rings of the graph of moves: edges less states, plus the number of its parts."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import connected_components

    is_edge = (counts + counts.T) > 0
    num_parts, _ = connected_components(csr_array(is_edge), directed=False)
    return int(is_edge.sum() // 2 - len(counts) + num_parts)


def _drawn_counts(
    chain: Array, runs: list[Labels], num_draws: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Counts (draws, k, k) of runs of a chain, from the same starts and with as many moves."""
    size = len(chain)
    known = chain.sum(axis=1) > 0
    rows = np.where(known[:, None], chain, 1 / size).cumsum(axis=1)
    rows /= rows[:, -1:]
    flat = (rows + np.arange(size)[:, None]).ravel()  # one sorted list: the row of state i lies in (i, i + 1]
    by_length = sorted(runs, key=len, reverse=True)
    lengths = np.array([len(run) - 1 for run in by_length])
    state = np.tile(np.array([run[0] for run in by_length]), (num_draws, 1))
    draw = np.arange(num_draws)[:, None] * size**2
    counts = np.zeros(num_draws * size**2, dtype=np.int64)
    for step in range(int(lengths[0])):
        state = state[:, : int((lengths > step).sum())]
        place = np.searchsorted(flat, state + rng.random(state.shape), side="right")
        after = np.clip(place - state * size, 0, size - 1)
        counts += np.bincount((draw + state * size + after).ravel(), minlength=len(counts))
        state = after
    return counts.reshape(num_draws, size, size)
