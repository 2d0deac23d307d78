"""The fixed pixel projection."""

from __future__ import annotations

import numpy as np
from PIL import Image

from panic.models.protocol import Model
from panic.pocket.pixels import PixelProjection, projection


def test_vectors_do_not_depend_on_batch_mates_and_tell_pictures_apart():
    model = PixelProjection()
    assert isinstance(model, Model)
    model.load("cpu")
    dice = np.random.default_rng(0)
    images = [Image.fromarray(dice.integers(0, 256, (64, 64, 3), dtype=np.uint8)) for _ in range(3)]
    together = model.invoke(images, [0, 1, 2])
    assert all(v.shape == (64,) and v.dtype == np.float32 for v in together)
    assert np.array_equal(together[1], model.invoke(images[1:2], [9])[0])
    assert np.linalg.norm(together[0] - together[1]) > 0.1


def test_the_projection_is_orthonormal():
    matrix = projection().astype(np.float64)
    assert np.abs(matrix.T @ matrix - np.eye(64)).max() < 1e-6
