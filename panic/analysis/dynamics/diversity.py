"""How many different things there are among vectors: the Vendi score.

vendi(vectors)                      # 1: all the same; n: all at right angles
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from panic.analysis.checks import unit

Array = NDArray[np.float64]


def vendi(values: ArrayLike) -> float:
    """Vendi score of vectors (n, d): the effective number of different ones among them, from 1 to n.

    exp(-sum_i l_i log l_i) over the eigenvalues l_i of K / n, where K (n, n) are cosine similarities. Source:
    Friedman and Dieng, "The Vendi Score", TMLR 2023. AnalysisError for NaN, zero vectors, or no vector at
    all.
    """
    return float(vendi_of_groups(unit(values, least=1)[None])[0])


def vendi_of_groups(groups: Array) -> Array:
    """Vendi scores (m,) of m groups of n unit vectors, (m, n, d)."""
    count, dimension = groups.shape[1:]
    other = groups.swapaxes(-1, -2)
    gram = (
        groups @ other if count <= dimension else other @ groups
    )  # they have the same eigenvalues but zeros
    shares = np.linalg.eigvalsh(gram / count)
    kept = np.where(shares > 0, shares, 1.0)
    found: Array = np.exp(-(kept * np.log(kept)).sum(axis=-1))
    return found
