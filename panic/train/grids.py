"""Pictures side by side, and tensors into pictures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image
from torch import Tensor


def to_pictures(tensor: Tensor) -> list[np.ndarray]:
    """(n, 3, h, w) in [-1, 1] -> n arrays (h, w, 3) uint8."""
    scaled = ((tensor.float().clamp(-1, 1) + 1) * 127.5).round().byte()
    return list(scaled.permute(0, 2, 3, 1).cpu().numpy())


def grid(pictures: Sequence[np.ndarray], *, columns: int) -> Image.Image:
    """Pictures (h, w, 3) uint8 of one size in rows of `columns`."""
    h, w, _ = pictures[0].shape
    rows = -(-len(pictures) // columns)
    canvas = np.full((rows * h, columns * w, 3), 255, np.uint8)
    for i, picture in enumerate(pictures):
        y, x = divmod(i, columns)
        canvas[y * h : (y + 1) * h, x * w : (x + 1) * w] = picture
    return Image.fromarray(canvas)
