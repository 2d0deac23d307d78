"""The regime of a run: does it contract to a place, oscillate, or go on to explore?

The three are those of dynamical systems, read off the vectors of a run's outputs, one per lap of its network:

1. *Oscillating*: the likeness of outputs k apart has a peak of LEAST_LIKENESS or more at a k of 2 or more
   (1: the same again; 0: as any two outputs of the run), and less than 5 % of shuffles of the order have as
   high a one.
2. *Exploring*: its late half roams, or it moves on. It roams if two of its late outputs are farther apart, in
   the median, than ROAMS of the scale: the median distance from its late outputs to its start, or to late
   outputs of other runs, whichever is larger. It moves on if outputs of two neighbouring quarters of the run
   are MOVES_ON times as far apart in the mean as outputs of one of them, for all three pairs of neighbours:
   one jump does not do.
3. *Contracting*: neither. Its late outputs hold together, and stay where they are.

    found = regime(points, scale)
    found.name, found.spread, found.moves_on
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from panic.analysis.checks import unit
from panic.analysis.dynamics.returns import periodicity_of_pairs

Array = NDArray[np.float64]
Name = Literal["contracting", "oscillating", "exploring"]

LEAST_OUTPUTS = 16
LEAST_LIKENESS = 0.5
ROAMS = 0.5
MOVES_ON = 1.6
"""Measured of runs of 40 outputs in 16 dimensions: walks have 2.2 (3 % of them less than this), outputs with
a memory of a tenth of the run 1.4 (20 % more), independent ones 1.0."""
MOST_OUTPUTS = 400  # the last ones of longer runs
NUM_SHUFFLES = 39
LEVEL = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Regime:
    """What a run does, and what that rests on.

    `spread`: median distance of two late outputs, of the scale. `moves_on`: the least ratio of distances
    between neighbouring quarters to those within. `likeness`: the highest peak of likeness, NaN without one;
    `p_value`: the share of shuffles that reach it, NaN where it is too low to ask; `period`: its lag in laps.
    """

    name: Name
    spread: float
    moves_on: float
    likeness: float
    p_value: float
    period: int | None


def regime(points: ArrayLike, scale: float, *, seed: int = 0) -> Regime:
    """The regime of a run with these vectors (n, d); `scale` in cosine distance.

    AnalysisError for fewer than LEAST_OUTPUTS vectors, or a zero one.
    """
    array = unit(points, least=LEAST_OUTPUTS)[-MOST_OUTPUTS:]
    alike = array @ array.T
    apart = np.maximum(1 - alike, 0.0)
    apart[apart < 1e-9] = 0.0  # equal outputs, but for the last bits
    late = apart[len(apart) // 2 :, len(apart) // 2 :]
    middle = float(np.median(late[np.triu_indices(len(late), 1)]))
    spread = middle / scale if scale > 0 else float(middle > 0)
    moves_on = _moves_on(apart)
    found = periodicity_of_pairs(alike, least=LEAST_LIKENESS)
    is_candidate = found.period is not None and found.period > 1
    p = share_as_high(alike, found.score, np.random.default_rng(seed)) if is_candidate else float("nan")
    explores = spread > ROAMS or moves_on >= MOVES_ON
    return Regime(
        name="oscillating" if p <= LEVEL else "exploring" if explores else "contracting",
        spread=spread,
        moves_on=moves_on,
        likeness=found.score,
        p_value=p,
        period=found.period if p <= LEVEL else None,
    )


def _moves_on(apart: Array) -> float:
    """The least ratio of mean distances between neighbouring quarters of a run to those within them."""
    parts = np.array_split(np.arange(len(apart)), 4)
    within = [apart[np.ix_(part, part)].sum() / (len(part) * (len(part) - 1)) for part in parts]
    ratios = []
    for i in range(3):
        between = float(apart[np.ix_(parts[i], parts[i + 1])].mean())
        inside = float(within[i] + within[i + 1]) / 2
        ratios.append(between / inside if inside > 0 else np.inf if between > 0 else 1.0)
    return float(min(ratios))


def share_as_high(alike: Array, score: float, rng: np.random.Generator) -> float:
    """The share of shuffles of a run, itself among them, whose likeness (n, n) has as high a peak.

    Shuffles keep the first output in its place.
    """
    reach = 1
    for _ in range(NUM_SHUFFLES):
        order = np.append(0, 1 + rng.permutation(len(alike) - 1))
        reach += periodicity_of_pairs(alike[np.ix_(order, order)]).score >= score - 1e-12
    return float(reach / (1 + NUM_SHUFFLES))
