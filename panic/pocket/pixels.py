"""A fixed projection of an image's pixels: an embedding model without weights.

The image is averaged down to 16x16 RGB and multiplied by a seeded random orthonormal matrix, which keeps
distances between images up to a factor (Johnson and Lindenstrauss). Equal images have equal vectors.

    from PIL import Image
    PixelProjection().invoke([Image.new("RGB", (64, 64))], [0])[0].shape
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

SIDE = 16
NUM_DIMENSIONS = 64
SEED = 20261121


class PixelProjection:
    """Images to vectors (64,) float32, with the five names of `panic.models.protocol.Model`."""

    modality_in = "image"
    modality_out = "vector"
    size_bytes = 3 * SIDE * SIDE * NUM_DIMENSIONS * 4

    def load(self, device: str) -> None:
        """Make the matrix; it stays on the CPU on every device."""
        projection()

    def invoke(self, inputs: Sequence[Any], seeds: Sequence[int]) -> list[np.ndarray]:
        """Project each image on its own, so that no vector depends on its batch."""
        return [_flat(image) @ projection() for image in inputs]


@cache
def projection() -> np.ndarray:
    """The orthonormal matrix (768, 64) float32, the same on every machine."""
    dice = np.random.Generator(np.random.PCG64(SEED))
    matrix = dice.standard_normal((3 * SIDE * SIDE, NUM_DIMENSIONS))
    # Gram-Schmidt by hand: LAPACK's signs and last bits differ between machines.
    for column in range(NUM_DIMENSIONS):
        done = matrix[:, :column]
        for _ in range(2):
            matrix[:, column] -= (done * (done * matrix[:, column : column + 1]).sum(0)).sum(1)
        matrix[:, column] /= np.sqrt((matrix[:, column] ** 2).sum())
    return matrix.astype(np.float32)


def _flat(image: Any) -> np.ndarray:
    from PIL import Image

    image = image if isinstance(image, Image.Image) else Image.fromarray(np.asarray(image))
    small = image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BOX)
    return np.asarray(small, np.float32).ravel() / np.float32(255)
