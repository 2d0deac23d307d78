"""Diagrams as vectors: landscapes, silhouettes, Betti curves, persistence images.

Infinite bars have no middle and no length: only Betti curves count them, the others leave them out. Where
`sample_range` is not given it is that of the bars; to compare diagrams give all of them the same.

    values = landscape(bars, num_landscapes=3, resolution=100, sample_range=(0, 2))   # (3, 100)
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from panic.topology.diagram import entropy
from panic.topology.distances import TopologyError, checked_bars

Array = NDArray[np.float64]
Range = tuple[float, float]


def vectorise(bars: ArrayLike, kind: str, **settings: Any) -> Array:
    """Bars (m, 2) as an array of a fixed shape: what a config's `vectorisations` ask for.

    Kinds and shapes: entropy (); landscape (num_landscapes, resolution); silhouette and betti_curve
    (resolution,); image (resolution, resolution), over births in `range` and lengths up to its span. The
    settings are those of the functions here, `range` is their sample_range. TopologyError for another kind.
    """
    if kind == "entropy":
        return np.array(entropy(bars))
    if kind == "image":
        low, high = settings.pop("range")
        size, limits = settings.pop("resolution"), (low, high, 0.0, high - low)
        return persistence_image(bars, resolution=(size, size), sample_range=limits, **settings)
    curves = {"landscape": landscape, "silhouette": silhouette, "betti_curve": betti_curve}
    if kind not in curves:
        known = ", ".join(("entropy", "image", *curves))
        raise TopologyError(f"unknown vectorisation {kind!r}", hint=f"known: {known}")
    low, high = settings.pop("range")
    return curves[kind](bars, sample_range=(low, high), **settings)


def grid(bars: ArrayLike, resolution: int = 100, sample_range: Range | None = None) -> Array:
    """The values (resolution,) at which curves of `bars` (m, 2) are sampled, both ends included."""
    if resolution < 2:
        raise TopologyError(f"resolution must be 2 or more, found {resolution}")
    low, high = sample_range or _span(np.asarray(bars, dtype=np.float64).reshape(-1, 2))
    if not (np.isfinite(low) and np.isfinite(high) and low < high):
        raise TopologyError(f"sample_range must be finite and rising, found {(low, high)}")
    return np.linspace(low, high, resolution)


def landscape(
    bars: ArrayLike, *, num_landscapes: int = 5, resolution: int = 100, sample_range: Range | None = None
) -> Array:
    """Persistence landscapes (num_landscapes, resolution) of bars (m, 2).

    The k-th is the k-th largest of max(0, min(t - birth, death - t)) over the bars (Bubenik 2015; gudhi's
    are sqrt 2 times these).
    """
    from gudhi.representations import Landscape

    finite, at = _finite(bars), grid(bars, resolution, sample_range)
    if not len(finite):
        return np.zeros((num_landscapes, resolution))
    made = Landscape(num_landscapes, resolution, [at[0], at[-1]], keep_endpoints=True)
    values: Array = _values(made, finite).reshape(num_landscapes, resolution) / np.sqrt(2.0)
    return values


def silhouette(
    bars: ArrayLike, *, power: float = 1.0, resolution: int = 100, sample_range: Range | None = None
) -> Array:
    """Mean (resolution,) of the bars' tents, weighted by length^power (Chazal et al. 2014)."""
    from gudhi.representations import Silhouette

    finite, at = _finite(bars), grid(bars, resolution, sample_range)
    if not len(finite):
        return np.zeros(resolution)
    made = Silhouette(
        lambda bar: float((bar[1] - bar[0]) ** power), resolution, [at[0], at[-1]], keep_endpoints=True
    )
    values: Array = _values(made, finite) / np.sqrt(2.0)
    return values


def betti_curve(bars: ArrayLike, *, resolution: int = 100, sample_range: Range | None = None) -> Array:
    """How many bars are alive (birth <= t < death) at each t of the grid, infinite ones included."""
    array, at = checked_bars(bars), grid(bars, resolution, sample_range)
    born, died = (np.searchsorted(np.sort(array[:, k]), at, side="right") for k in (0, 1))
    return (born - died).astype(np.float64)


def persistence_image(
    bars: ArrayLike,
    *,
    bandwidth: float,
    resolution: tuple[int, int] = (20, 20),
    sample_range: tuple[float, float, float, float] | None = None,
) -> Array:
    """Image (height, width): Gaussians of `bandwidth` at (birth, length), weighted by length (Adams 2017).

    `sample_range` is (lowest birth, highest birth, least length, largest length); the resolution is
    (births, lengths), rows of the image are lengths.
    """
    from gudhi.representations import PersistenceImage

    if not bandwidth > 0:
        raise TopologyError(f"bandwidth must be above 0, found {bandwidth}")
    finite = _finite(bars)
    width, height = resolution
    if not len(finite):
        return np.zeros((height, width))
    length = finite[:, 1] - finite[:, 0]
    limits = sample_range or (finite[:, 0].min(), finite[:, 0].max(), 0.0, length.max())
    made = PersistenceImage(bandwidth, lambda point: float(point[1]), [width, height], list(limits))
    return _values(made, finite).reshape(height, width)


def _values(made: Any, finite: Array) -> Array:
    return np.asarray(made.fit_transform([finite])[0], dtype=np.float64)


def _finite(bars: ArrayLike) -> Array:
    array = checked_bars(bars)
    return array[np.isfinite(array[:, 1]) & (array[:, 1] > array[:, 0])]


def _span(bars: Array) -> Range:
    """From the first birth to the last finite end; (0, 1) where there is nothing to span."""
    ends = bars[np.isfinite(bars)]
    if not ends.size or ends.min() == ends.max():
        return (0.0, 1.0)
    return float(ends.min()), float(ends.max())
