"""Markov chains over labels: what a run does next, in the long run, and how soon it gets there.

t = transition_matrix([labels_of_run_0, labels_of_run_1], num_states=5)
stationary(t), timescales(t), mean_first_passage(t, target=3)
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from panic.analysis.checks import AnalysisError, runs_of_labels

Array = NDArray[np.float64]


def transition_counts(labels: Any, num_states: int | None = None) -> NDArray[np.int64]:
    """How often each state follows each, (num_states, num_states), in labels (n,) of a run or several runs.

    Never across runs, and never across an outlier (-1): A, -, A holds no transition from A to A.
    """
    runs = runs_of_labels(labels)
    largest = max((int(run.max()) for run in runs if run.size), default=-1)
    size = num_states if num_states is not None else largest + 1
    if size < 1:
        raise AnalysisError("there are no labels, and no number of states was given")
    if largest >= size:
        raise AnalysisError(f"a label is {largest}, and there are {size} states: 0 to {size - 1}")
    counts = np.zeros((size, size), dtype=np.int64)
    for run in runs:
        known = (run[:-1] >= 0) & (run[1:] >= 0)
        np.add.at(counts, (run[:-1][known], run[1:][known]), 1)
    return counts


def transition_matrix(labels: Any, num_states: int | None = None) -> Array:
    """Shares of what follows each state, (num_states, num_states); see `transition_counts`.

    Rows sum to 1. The row of a state that was never left is all zeros: nothing is known about it, and what
    needs a whole chain (`stationary` and others) refuses it.
    """
    counts = transition_counts(labels, num_states)
    totals = counts.sum(axis=1, keepdims=True)
    shares: Array = np.divide(counts, totals, out=np.zeros(counts.shape), where=totals > 0)
    return shares


def stationary(t: ArrayLike) -> Array:
    """The law (n,) that the chain t (n, n) keeps: pi t = pi.

    AnalysisError when it is not unique: the chain then has several parts that are never left, and where a
    run ends depends on its start (`absorption`).
    """
    matrix = _chain(t)
    closed = closed_classes(matrix)
    if len(closed) > 1:
        raise AnalysisError(
            f"the chain has {len(closed)} parts that are never left: "
            + "; ".join(", ".join(map(str, part)) for part in closed[:5]),
            hint="ask absorption() with which probability each is reached",
        )
    members = np.array(closed[0])
    part = matrix[np.ix_(members, members)].copy()
    # Grassmann, Taksar, Heyman 1985: elimination without subtractions, exact for nearly separate states.
    for last in range(len(part) - 1, 0, -1):
        part[:last, last] /= part[last, :last].sum()
        part[:last, :last] += np.outer(part[:last, last], part[last, :last])
    law = np.ones(len(part))
    for state in range(1, len(part)):
        law[state] = law[:state] @ part[:state, state]
    found = np.zeros(len(matrix))
    found[members] = law / law.sum()
    return found


def timescales(t: ArrayLike) -> Array:
    """Relaxation times (n - 1,) in steps, longest first: -1 / ln |eigenvalue| of all but the first.

    inf for a modulus of 1 (separate or periodic parts), 0 for an eigenvalue of 0.
    """
    moduli = np.sort(np.abs(np.linalg.eigvals(_chain(t))))[::-1][1:]
    moduli[moduli > 1 - 1e-12] = 1.0
    with np.errstate(divide="ignore"):
        found: Array = np.where(moduli >= 1, np.inf, -1 / np.log(np.where(moduli >= 1, 0.5, moduli)))
    return np.where(moduli < 1e-14, 0.0, found)


def mean_first_passage(t: ArrayLike, target: int | Iterable[int]) -> Array:
    """Expected steps (n,) until a target state is reached from each; 0 in the target.

    inf where it may never be reached. (I - Q)^-1 1 over the other states.
    """
    matrix, is_target = _with_target(t, target)
    sure = _reach_surely(matrix, is_target)
    steps = np.where(is_target, 0.0, np.inf)
    rest = np.flatnonzero(sure & ~is_target)
    if len(rest):
        steps[rest] = np.linalg.solve(np.eye(len(rest)) - matrix[np.ix_(rest, rest)], np.ones(len(rest)))
    return steps


def absorption(t: ArrayLike) -> Array:
    """Probability (n, parts) with which each state ends in each part that is never left.

    Parts in the order of `closed_classes`.
    """
    matrix = _chain(t)
    closed = closed_classes(matrix)
    found = np.zeros((len(matrix), len(closed)))
    for place, part in enumerate(closed):
        found[part, place] = 1.0
    rest = np.flatnonzero(found.sum(axis=1) == 0)
    if len(rest):
        inward = np.stack([matrix[rest][:, part].sum(axis=1) for part in closed], axis=1)
        found[rest] = np.linalg.solve(np.eye(len(rest)) - matrix[np.ix_(rest, rest)], inward)
    return found


def committor(t: ArrayLike, source: int | Iterable[int], target: int | Iterable[int]) -> Array:
    """Probability (n,) with which the chain, from each state, comes to the target before the source.

    The forward committor q: 0 in the source, 1 in the target, q = T q elsewhere (Metzner, Schütte and
    Vanden-Eijnden 2009); 0 where neither is ever reached. For a fair walk from 0 to N it is i / N.
    AnalysisError where source and target overlap.
    """
    matrix, is_source = _with_target(t, source)
    matrix, is_target = _with_target(matrix, target)
    if (is_source & is_target).any():
        raise AnalysisError("source and target of a committor must have no state in common")
    found = is_target.astype(np.float64)
    is_end = is_source | is_target
    rest = np.flatnonzero(_reaches(matrix, is_end) & ~is_end)
    if len(rest):
        inward = matrix[rest][:, is_target].sum(axis=1)
        found[rest] = np.linalg.solve(np.eye(len(rest)) - matrix[np.ix_(rest, rest)], inward)
    return np.clip(found, 0.0, 1.0)


def mixing_time(t: ArrayLike, distance: float = 0.25) -> float:
    """Steps after which the law of the chain is within a total variation `distance` of the stationary one.

    From the worst start (Levin, Peres and Wilmer 2009, section 4.5); inf where the chain is periodic.
    For two states with the probabilities a and b to leave it is the least n for which
    max(a, b) / (a + b) |1 - a - b|^n <= distance. AnalysisError as for `stationary`.
    """
    matrix = _chain(t)
    law = stationary(matrix)
    if not 0 < distance < 1:
        raise AnalysisError(f"a distance must be between 0 and 1, found {distance}")
    if np.isinf(timescales(matrix)).any():
        return float("inf")

    def is_mixed(power: Array) -> bool:
        return bool(np.abs(power - law).sum(axis=1).max() / 2 <= distance + 1e-12)

    if is_mixed(np.eye(len(matrix))):
        return 0.0
    powers = [matrix]  # of 1, 2, 4, ... steps; the distance never grows with the steps
    while not is_mixed(powers[-1]):
        powers.append(powers[-1] @ powers[-1])
    steps, reached = 0, np.eye(len(matrix))
    for exponent in range(len(powers) - 1, -1, -1):
        if not is_mixed(further := reached @ powers[exponent]):
            steps, reached = steps + 2**exponent, further
    return float(steps + 1)


def entropy_rate(t: ArrayLike) -> float:
    """Nats per step that the chain produces in the long run: -sum pi_i p_ij ln p_ij."""
    matrix = _chain(t)
    law = stationary(matrix)
    logs = np.log(matrix, out=np.zeros(matrix.shape), where=matrix > 0)
    return float(max(0.0, -(law[:, None] * matrix * logs).sum()))


def closed_classes(t: ArrayLike) -> list[list[int]]:
    """Sets of states that lead to each other and are never left, in the order of their first state."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import connected_components

    matrix = _chain(t)
    count, part = connected_components(csr_array(matrix > 0), directed=True, connection="strong")
    found = []
    for number in range(count):
        inside = part == number
        if not (matrix[np.ix_(inside, ~inside)] > 0).any():
            found.append(np.flatnonzero(inside).tolist())
    return sorted(found)


def _chain(t: ArrayLike) -> Array:
    matrix = np.asarray(t, dtype=np.float64)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not len(matrix):
        raise AnalysisError(f"a transition matrix must be square, found the shape {matrix.shape}")
    if not np.isfinite(matrix).all() or (matrix < 0).any():
        raise AnalysisError("a transition matrix must hold finite numbers of 0 and above")
    unknown = np.flatnonzero(matrix.sum(axis=1) == 0)
    if unknown.size:
        raise AnalysisError(
            f"nothing is known about what follows state {', '.join(map(str, unknown[:5]))}: never left",
            hint="leave those states out, or make them absorbing by a 1 on the diagonal",
        )
    if np.abs(matrix.sum(axis=1) - 1).max() > 1e-6:
        raise AnalysisError("the rows of a transition matrix must sum to 1")
    return matrix


def _with_target(t: ArrayLike, target: int | Iterable[int]) -> tuple[Array, NDArray[np.bool_]]:
    matrix = np.array(t, dtype=np.float64)
    states = [target] if isinstance(target, int | np.integer) else list(target)
    if not states or not all(0 <= state < len(matrix) for state in states):
        raise AnalysisError(f"target must be states from 0 to {len(matrix) - 1}, found {states}")
    if matrix.ndim == 2 and matrix.shape[0] == matrix.shape[1]:
        matrix[states] = np.eye(len(matrix))[states]  # what follows the target does not matter
    is_target = np.zeros(len(matrix), dtype=bool)
    is_target[states] = True
    return _chain(matrix), is_target


def _reach_surely(matrix: Array, is_target: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """States from which the target is reached with probability 1: none of them can get where it is not."""
    lost = ~_reaches(matrix, is_target)
    return ~_reaches(np.where(is_target[:, None], 0.0, matrix), lost)


def _reaches(matrix: Array, is_target: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """States from which the target can be reached, it among them."""
    can = is_target.copy()
    while True:
        more = can | ((matrix > 0) & can[None, :]).any(axis=1)
        if (more == can).all():
            return can
        can = more
