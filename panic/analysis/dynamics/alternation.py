"""Whether a trajectory alternates: is an output more like the one before the last than like the last?

two_periodicity(vectors).excess               # above 0: it does
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from panic.analysis.checks import unit

LEAST_OUTPUTS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class TwoPeriodicity:
    """Mean cosine similarities of outputs with the last and the one before the last, and how many equal that.

    `equal` is the share of outputs whose vector is that of the output two before, and not that of the last.
    """

    lag1: float
    lag2: float
    equal: float

    @property
    def excess(self) -> float:
        """Similarity at lag 2 beyond that at lag 1: 0 if order means nothing, 1 between orthogonal states."""
        return self.lag2 - self.lag1


def two_periodicity(values: ArrayLike) -> TwoPeriodicity:
    """Similarity of outputs (n, d) at lag 2 against lag 1, over outputs t = 2, 3, ..., n - 1 in both.

    lag_k = mean over t of cos(x_t, x_{t-k}). Source: Wang et al., "Unveiling Attractor Cycles in Large
    Language Models", ACL 2025 (arXiv 2502.15208), who compare texts by edit distance; here vectors of any
    kind are compared. A walk has lag_2 < lag_1, independent outputs have lag_2 = lag_1, ABAB... has lag_2 =
    1. AnalysisError for NaN, zero vectors, or fewer than `LEAST_OUTPUTS` outputs.
    """
    points = unit(values, "outputs", least=LEAST_OUTPUTS)
    now, last, before = points[2:], points[1:-1], points[:-2]
    is_equal = (now == before).all(axis=1) & (now != last).any(axis=1)
    return TwoPeriodicity(
        lag1=float((now * last).sum(axis=1).mean()),
        lag2=float((now * before).sum(axis=1).mean()),
        equal=float(is_equal.mean()),
    )


def excess_of_orders(similarities: NDArray[np.float64], orders: NDArray[np.int64]) -> NDArray[np.float64]:
    """`two_periodicity(...).excess` of outputs in other orders (m, n), from their similarities (n, n)."""
    at_lag2 = similarities[orders[:, 2:], orders[:, :-2]]
    at_lag1 = similarities[orders[:, 2:], orders[:, 1:-1]]
    found: NDArray[np.float64] = (at_lag2 - at_lag1).mean(axis=1)
    return found
