"""Images as tensors: spoilt as a diffusion model might draw them, recoloured, and turned back into images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from panic.train.batches import Batch


def to_images(tensor: Tensor) -> list[np.ndarray]:
    """(n, 3, h, w) in [-1, 1] -> n arrays (h, w, 3) uint8."""
    scaled = ((tensor.float().clamp(-1, 1) + 1) * 127.5).round().byte()
    return list(scaled.permute(0, 2, 3, 1).cpu().numpy())


def grid(images: Sequence[np.ndarray], *, columns: int) -> Image.Image:
    """Images (h, w, 3) uint8 of one size in rows of `columns`."""
    h, w, _ = images[0].shape
    rows = -(-len(images) // columns)
    canvas = np.full((rows * h, columns * w, 3), 255, np.uint8)
    for i, image in enumerate(images):
        y, x = divmod(i, columns)
        canvas[y * h : (y + 1) * h, x * w : (x + 1) * w] = image
    return Image.fromarray(canvas)


def joined(samples: Sequence[Any]) -> Any:
    """What several processes have made to look at, as one: images side by side, texts one after another."""
    parts = [part for part in samples if part is not None]
    if not parts or isinstance(parts[0], str):
        return "".join(parts) if parts else None
    return Image.fromarray(np.concatenate([np.asarray(part) for part in parts], axis=1))


def spoil(images: Tensor, share: float, batch: Batch) -> Tensor:
    """Spoil a share of the images (n, 3, h, w) in [-1, 1], each in its own measure."""
    coarse = functional.interpolate(functional.avg_pool2d(images, 2), scale_factor=2.0, mode="bilinear")
    blurred = torch.lerp(images, coarse, batch.rand(1, 1, 1))
    patchy = functional.interpolate(batch.randn(3, 8, 8), size=images.shape[-1], mode="bilinear")
    tint = (batch.rand(3, 1, 1) - 0.5) * 0.2
    fine = 0.1 * batch.rand(1, 1, 1) * batch.randn(*images.shape[1:])
    rough = blurred + tint + 0.12 * batch.rand(1, 1, 1) * patchy + fine
    return torch.where(batch.rand(1, 1, 1) < share, rough.clamp(-1, 1), images)


def recolour(images: Tensor, share: float, batch: Batch) -> tuple[Tensor, Tensor]:
    """Exchange channels and turn some into negatives, in a share of the images (n, 3, h, w) in [-1, 1].

    The images, and which of them they are: (n,).
    """
    order, sign = batch.rand(3).argsort(1), (batch.rand(3) < 0.5).float() * 2 - 1
    exchanged = images.gather(1, order[:, :, None, None].expand_as(images)) * sign[:, :, None, None]
    chosen = batch.rand(1, 1, 1) < share
    return torch.where(chosen, exchanged, images), chosen.ravel()
