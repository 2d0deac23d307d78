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
    low, high = (
        _span(checked_bars(bars)) if sample_range is None else _numbers("sample_range", sample_range, 2)
    )
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
    tents = _tents(_finite(bars), grid(bars, resolution, sample_range))
    highest = np.zeros((num_landscapes, resolution))
    count = min(num_landscapes, len(tents))
    highest[:count] = np.sort(tents, axis=0)[::-1][:count]
    return highest


def silhouette(
    bars: ArrayLike, *, power: float = 1.0, resolution: int = 100, sample_range: Range | None = None
) -> Array:
    """Mean (resolution,) of the bars' tents, weighted by length^power (Chazal et al. 2014)."""
    finite, at = _finite(bars), grid(bars, resolution, sample_range)
    if not len(finite):
        return np.zeros(resolution)
    weight = (finite[:, 1] - finite[:, 0]) ** power
    values: Array = weight @ _tents(finite, at) / weight.sum()
    return values


def _tents(finite: Array, at: Array) -> Array:
    """Height (m, k) of each bar's tent at k places."""
    return np.maximum(np.minimum(at - finite[:, :1], finite[:, 1:] - at), 0.0)


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

    Every value is the integral over its pixel, so that the sum is the weight inside. `sample_range` is
    (lowest birth, highest birth, least length, largest length), the edges of the image; by default that of
    the bars, from length 0 on, three bandwidths wider where all births are equal. The resolution is (births,
    lengths), rows of the image are lengths. Raises TopologyError for a bandwidth or range not above 0.
    """
    from scipy.special import ndtr

    if not bandwidth > 0:
        raise TopologyError(f"bandwidth must be above 0, found {bandwidth}")
    finite = _finite(bars)
    width, height = _numbers("resolution", resolution, 2)
    if width < 1 or height < 1:
        raise TopologyError(f"resolution must be 1 or more each way, found {resolution}")
    if not len(finite):
        return np.zeros((height, width))
    birth, length = finite[:, 0], finite[:, 1] - finite[:, 0]
    limits = _image_range(birth, length, bandwidth) if sample_range is None else sample_range
    left, right, low, high = _numbers("sample_range", limits, 4)
    if not (np.isfinite([left, right, low, high]).all() and left < right and low < high):
        raise TopologyError(f"sample_range must be finite and rising, found {(left, right, low, high)}")

    def share(centre: Array, edges: Array) -> Array:
        return np.diff(ndtr((edges - centre[:, None]) / bandwidth), axis=1)

    columns = share(birth, np.linspace(left, right, width + 1))
    rows = share(length, np.linspace(low, high, height + 1))
    image: Array = (length[:, None] * rows).T @ columns
    return image


def _numbers(name: str, given: Any, count: int) -> tuple[Any, ...]:
    """Return so many numbers, as they were given. Raises TopologyError for anything else."""
    try:
        numbers = tuple(given)
        if len(numbers) == count and np.asarray(numbers).dtype.kind in "iuf":
            return numbers
    except TypeError:
        pass
    raise TopologyError(f"{name} must be {count} numbers, found {given!r}")


def _image_range(birth: Array, length: Array, bandwidth: float) -> tuple[float, float, float, float]:
    left, right = float(birth.min()), float(birth.max())
    wider = 3 * bandwidth if left == right else 0.0
    return left - wider, right + wider, 0.0, float(length.max())


def _finite(bars: ArrayLike) -> Array:
    array = checked_bars(bars)
    return array[np.isfinite(array[:, 1]) & (array[:, 1] > array[:, 0])]


def _span(bars: Array) -> Range:
    """From the first birth to the last finite end; (0, 1) where there is nothing to span."""
    ends = bars[np.isfinite(bars)]
    if not ends.size or ends.min() == ends.max():
        return (0.0, 1.0)
    return float(ends.min()), float(ends.max())
