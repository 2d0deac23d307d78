"""What may be measured: finite vectors, whole-number labels, enough of them. Mistakes are `AnalysisError`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from panic.errors import UsageError

OUTLIER = -1
"""Label of a step that belongs to no cluster. It breaks a dwell and is no state."""


class AnalysisError(UsageError, ValueError):
    """These data cannot answer the question asked; the message says why."""


def _unmasked(values: Any) -> NDArray[Any]:
    """Return an array. Raises AnalysisError where a mask hides values: numpy would take what is behind it."""
    if np.ma.is_masked(values):
        raise AnalysisError("some values are masked", hint="leave those steps out")
    return np.asarray(values)


def vectors(values: ArrayLike, name: str = "vectors", *, least: int = 0) -> NDArray[np.float64]:
    """Finite float64 (n, d), of (n, d) or a series (n,). AnalysisError for NaN, or less than `least` rows."""
    try:
        array = _unmasked(values).astype(np.float64)
    except (TypeError, ValueError) as error:
        raise AnalysisError(f"{name} must be numbers, in rows of one length: {error}") from error
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim != 2:
        raise AnalysisError(f"{name} must be (n, d), found the shape {array.shape}")
    bad = np.flatnonzero(~np.isfinite(array).all(axis=1))
    if bad.size:
        raise AnalysisError(f"{bad.size} of {len(array)} {name} hold NaN or infinity (the first is {bad[0]})")
    if len(array) < least:
        raise AnalysisError(f"at least {least} {name} are needed, found {len(array)}")
    return array


def unit(values: ArrayLike, name: str = "vectors", *, least: int = 0) -> NDArray[np.float64]:
    """The same, scaled to length one. AnalysisError for a zero vector."""
    array = vectors(values, name, least=least)
    lengths = np.linalg.norm(array, axis=1, keepdims=True)
    if (lengths == 0).any():
        raise AnalysisError(
            f"{name} hold zeros, which have no direction", hint="use metric='euclidean' or 'sqeuclidean'"
        )
    scaled: NDArray[np.float64] = array / lengths
    return scaled


def series(values: ArrayLike, name: str = "series", *, least: int = 0) -> NDArray[np.float64]:
    """Finite float64 (n,)."""
    array = vectors(values, name, least=least)
    if array.shape[1] != 1:
        raise AnalysisError(f"{name} must be one number per step, found the shape {array.shape}")
    return array[:, 0]


def labels(values: ArrayLike | Sequence[Any], name: str = "labels") -> NDArray[np.int64]:
    """Whole numbers (n,) of -1 (an outlier) and above."""
    array = _unmasked(values)
    if array.size == 0:
        return np.empty(0, dtype=np.int64)
    if array.ndim != 1:
        raise AnalysisError(f"{name} must be one label per step, found the shape {array.shape}")
    if array.dtype.kind not in "biu" and not (array.dtype.kind == "f" and (array == np.round(array)).all()):
        raise AnalysisError(f"{name} must be whole numbers, found {array.dtype}")
    if array.min() < OUTLIER:
        raise AnalysisError(f"{name} must be -1 (outlier), 0, 1, ..., found {array.min()}")
    return array.astype(np.int64)


def runs_of_labels(values: Any) -> list[NDArray[np.int64]]:
    """One array per run: of a list of runs, or of a single run."""
    if isinstance(values, np.ndarray) and values.ndim == 1 and values.dtype != object:
        return [labels(values)]
    values = list(values)
    if values and np.ndim(values[0]) > 0:
        return [labels(one) for one in values]
    return [labels(values)]


def codes(symbols: ArrayLike | Sequence[Any]) -> NDArray[np.int64]:
    """Symbols of any kind (n,) - texts, digests, labels - as numbers; equal ones get equal numbers."""
    array = _unmasked(symbols)
    if array.dtype == object and any(symbol is None for symbol in array.flat):
        raise AnalysisError("symbols must not be None")
    if array.ndim != 1:
        raise AnalysisError(f"symbols must be one per step, found the shape {array.shape}")
    if array.dtype.kind == "f" and np.isnan(array).any():
        raise AnalysisError("symbols must not hold NaN")
    return np.unique(array, return_inverse=True)[1].reshape(-1).astype(np.int64)


def are_vectors(values: Any) -> bool:
    """Whether these are vectors (n, d) rather than symbols (n,)."""
    return np.ndim(values) == 2
