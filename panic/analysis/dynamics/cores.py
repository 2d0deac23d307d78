"""Core sets: a run as its visits to regions, with what lies between them kept out of the account.

Where regions have fringes, labels flicker: a run that leaves a region by a step and returns counts as two
moves, and the chain of such labels forgets far too fast. So a run is in the core that it visited last until
it enters another one (transition-based assignment: Buchete and Hummer 2008), and relaxation times come from
milestones (Schütte et al. 2011). Cores are labels of 0 and above; -1 is what lies between them.

    last_core(labels), core_moves(labels)
    relaxation(core_counts(labels, num_cores).sum(axis=0))
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from panic.analysis.checks import AnalysisError, runs_of_labels

Array = NDArray[np.float64]
Labels = NDArray[np.int64]


def last_core(labels: ArrayLike) -> Labels:
    """The core (n,) that a run visited last, of its labels (n,); -1 before it has been in any."""
    run = _run(labels)
    return run[np.maximum.accumulate(np.where(run >= 0, np.arange(len(run)), 0))]  # else that it began in


def next_core(labels: ArrayLike) -> Labels:
    """The core (n,) that a run visits next, where it is if it is in one; -1 after it has been in its last."""
    return last_core(_run(labels)[::-1])[::-1]


def core_moves(labels: ArrayLike) -> Labels:
    """The cores (m,) that a run visits one after the other, each other than the one before."""
    run = _run(labels)
    run = run[run >= 0]
    return run[np.append(True, run[1:] != run[:-1])] if len(run) else run


def core_counts(labels: Any, num_cores: int, *, lag: int = 1) -> Array:
    """Milestones of every run (runs, 2, k, k): from the core visited last to the one visited next.

    [:, 0] holds which one is next from `lag` steps later on, [:, 1] which one is at the same step; both of
    all steps for which both are known. The labels are of one run or of several.
    """
    runs = runs_of_labels(labels)
    if lag < 1:
        raise AnalysisError(f"the lag must be 1 or more, found {lag}")
    counts = np.zeros((len(runs), 2, num_cores, num_cores))
    for number, run in enumerate(runs):
        before, after = last_core(run)[:-lag], next_core(run)
        known = (before >= 0) & (after[lag:] >= 0)
        np.add.at(counts[number, 0], (before[known], after[lag:][known]), 1)
        np.add.at(counts[number, 1], (before[known], after[:-lag][known]), 1)
    return counts


def relaxation(counts: ArrayLike, *, lag: int = 1) -> Array:
    """The longest relaxation time (...) in steps, of milestones (..., 2, k, k) as `core_counts` gives them.

    -lag / ln |lambda| of the second eigenvalue of P r = lambda M r, where P and M are the shares of what is
    next after the lag and at once (Schütte et al. 2011); where every step is in a core, M is the unit matrix,
    and this is that of the ordinary chain. inf for separate or periodic parts, NaN where a core is in no
    count or M has no inverse.
    """
    table = np.asarray(counts, dtype=np.float64)
    size = table.shape[-1]
    totals = table.sum(axis=-1, keepdims=True)
    shares = np.divide(table, totals, out=np.zeros(table.shape), where=totals > 0)
    moves, at_once = shares[..., 0, :, :], shares[..., 1, :, :]
    is_known = (totals > 0).all(axis=(-3, -2, -1))
    if size < 2:
        return np.where(is_known, 0.0, np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        is_known &= np.linalg.cond(at_once) < 1e10
        unit = np.eye(size)
        safe = np.where(is_known[..., None, None], at_once, unit)
        moduli = np.sort(np.abs(np.linalg.eigvals(np.linalg.solve(safe, moves))), axis=-1)[..., -2]
        moduli = np.where(moduli > 1 - 1e-12, 1.0, moduli)
        times: Array = np.where(moduli >= 1, np.inf, -lag / np.log(moduli))
    return np.where(is_known, np.where(moduli < 1e-14, 0.0, times), np.nan)


def _run(labels: ArrayLike) -> Labels:
    """The labels of a single run. AnalysisError for several."""
    found = runs_of_labels(labels)
    if len(found) > 1:
        raise AnalysisError(f"labels of one run are needed, found those of {len(found)}")
    return found[0] if found else np.empty(0, dtype=np.int64)
