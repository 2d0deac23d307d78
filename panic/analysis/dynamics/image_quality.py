"""What an image is like without asking what it shows: sharpness, contrast, saturation.

image_quality(array).sharpness
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from panic.analysis.checks import AnalysisError

LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R BT.601
LEAST_SIDE = 3  # pixels: a Laplacian needs a neighbour at every side


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageQuality:
    """Variance of the Laplacian, RMS contrast and mean saturation of an image with values from 0 to 1."""

    sharpness: float
    contrast: float
    saturation: float


def image_quality(image: ArrayLike) -> ImageQuality:
    """Sharpness, contrast and saturation of an RGB image (height, width, 3) of bytes.

    `sharpness`: variance of the Laplacian L = up + down + left + right - 4 centre of the luma, inside the
    border (Pech-Pacheco et al., ICPR 2000): blur lowers it. `contrast`: standard deviation of the luma (Peli,
    JOSA A 7, 1990). `saturation`: mean of (max - min) / max over the channels of every pixel, 0 where it is
    black (that of HSV). Luma is that of ITU-R BT.601. AnalysisError for another shape, or a side below
    `LEAST_SIDE` pixels.
    """
    pixels = np.asarray(image)
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8:
        raise AnalysisError(f"an RGB image of bytes is needed, found {pixels.dtype} {pixels.shape}")
    if min(pixels.shape[:2]) < LEAST_SIDE:
        height, width = pixels.shape[:2]
        raise AnalysisError(f"an image of {width} x {height} pixels has no pixel with four neighbours")
    colour = pixels.astype(np.float32) / 255
    luma = colour @ LUMA
    around = luma[:-2, 1:-1] + luma[2:, 1:-1] + luma[1:-1, :-2] + luma[1:-1, 2:]
    brightest, darkest = colour.max(axis=2), colour.min(axis=2)
    share = (brightest - darkest) / np.where(brightest > 0, brightest, 1)
    return ImageQuality(
        sharpness=float((around - 4 * luma[1:-1, 1:-1]).var(dtype=np.float64)),
        contrast=float(luma.std(dtype=np.float64)),
        saturation=float(share.mean(dtype=np.float64)),
    )
