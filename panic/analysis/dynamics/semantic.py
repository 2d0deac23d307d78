"""Semantic drift over generations: how much of a start is left on average, and how fast it goes.

mean_cumulative_drift(similarities)           # higher is less drift
decay(similarities).rate                      # b of a exp(-b n) + c, the semantic drift rate
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from panic.analysis.checks import AnalysisError, series, vectors

Array = NDArray[np.float64]
LEAST_GENERATIONS = 5  # three parameters, and something left to fit them to
FASTEST = 8.0  # of a rate: within one generation all but 0.03 % is gone
NUM_RATES = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class Decay:
    """y(n) = amplitude exp(-rate n) + level over generations n = 1, 2, ..., and the share it explains, `r2`.

    `is_fitted`: whether the rate lies inside the range that so many generations can tell; at its ends the
    curve is a straight line or a single step, and the three numbers say nothing each.
    """

    amplitude: float
    rate: float
    level: float
    r2: float
    is_fitted: bool


def mean_cumulative_drift(similarities: ArrayLike) -> float:
    """Mean cosine similarity to the start, over starts and then generations, of (starts, generations).

    1: nothing was lost. Source: the mean cumulative drift of Mollah et al., "The Telephone Game: Evaluating
    Semantic Drift in Unified Models" (arXiv 2509.04438), of one direction; theirs is the mean over
    directions. AnalysisError for NaN, or nothing at all.
    """
    found = vectors(similarities, "similarities", least=1)
    if not found.size:
        raise AnalysisError("no generation was given")
    return float(found.mean(axis=0).mean())


def decay(similarities: ArrayLike) -> Decay:
    """Least squares of y(n) = a exp(-b n) + c to similarities (n,) of generations 1, 2, ...

    The semantic drift rate of the same source, which begins a search at (1, 0.1, 0). Here a and c are solved
    for exactly for every b (variable projection), so there is no start to choose and no other minimum to end
    in. AnalysisError for NaN, or fewer than `LEAST_GENERATIONS` generations.
    """
    y = series(similarities, "similarities", least=LEAST_GENERATIONS)
    slowest = 0.1 / len(y)
    rates = np.geomspace(slowest, FASTEST, NUM_RATES)
    place = int(np.argmin(_losses(y, rates)))
    is_inside = 0 < place < NUM_RATES - 1
    fine = np.geomspace(rates[max(place - 1, 0)], rates[min(place + 1, NUM_RATES - 1)], NUM_RATES)
    rate = float(fine[int(np.argmin(_losses(y, fine)))])
    shape = np.exp(-rate * np.arange(1, len(y) + 1))
    centred = shape - shape.mean()
    amplitude = float(centred @ y / (centred @ centred))
    level = float(y.mean() - amplitude * shape.mean())
    total = float(((y - y.mean()) ** 2).sum())
    left = float(((y - level - amplitude * shape) ** 2).sum())
    has_shape = total > 1e-12 * float((y**2).sum())
    return Decay(
        amplitude=amplitude, rate=rate, level=level, r2=1 - left / total if has_shape else 0.0,
        is_fitted=is_inside and has_shape,
    )  # fmt: skip


def _losses(y: Array, rates: Array) -> Array:
    """Sums of squares (m,) that are left at these rates (m,) with the best amplitude and level."""
    shapes = np.exp(-rates[:, None] * np.arange(1, len(y) + 1))
    centred = shapes - shapes.mean(axis=1, keepdims=True)
    along = (centred @ (y - y.mean())) ** 2 / (centred**2).sum(axis=1)
    found: Array = ((y - y.mean()) ** 2).sum() - along
    return found
