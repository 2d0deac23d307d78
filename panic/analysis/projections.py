"""Points in two dimensions: the plane of their main directions, or UMAP (extra `umap`).

places, share = principal_plane(points)         # (n, 2), the share of the variance in it
places, _ = umap(points)                        # neighbours stay neighbours; distances mean nothing
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from panic.analysis.checks import AnalysisError

Array = NDArray[np.float64]


def principal_plane(points: Array, seed: int = 0) -> tuple[Array, float]:
    """Places (n, 2) along the two main directions, and the share of the variance in them."""
    left, spread, _ = np.linalg.svd(points - points.mean(axis=0), full_matrices=False)
    plane = np.zeros((len(points), 2))
    plane[:, : min(2, len(spread))] = (left * spread)[:, :2]
    total = float((spread**2).sum())
    return plane, float((spread[:2] ** 2).sum()) / total if total else 0.0


def umap(points: Array, seed: int = 0) -> tuple[Array, None]:
    """Places (n, 2) by UMAP (McInnes et al. 2018), the same for the same seed."""
    if len(points) < 10:
        raise AnalysisError(f"UMAP needs 10 distinct outputs, found {len(points)}", hint="use pca")
    try:
        from umap import UMAP
    except ImportError as error:
        raise AnalysisError(
            "umap-learn is not installed", hint="pip install umap-learn, or method='pca'"
        ) from error
    reducer = UMAP(
        n_neighbors=min(15, len(points) - 1), metric="cosine", random_state=seed, n_jobs=1, init="pca"
    )
    return np.asarray(reducer.fit_transform(points), dtype=np.float64), None


PROJECTIONS: dict[str, Callable[[Array, int], tuple[Array, float | None]]] = {
    "pca": principal_plane,
    "umap": umap,
}
