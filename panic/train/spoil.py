"""Pictures in other ways than they are: spoilt as a diffusion model might draw them, or in other colours."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from panic.train.batches import Batch


def spoil(pictures: Tensor, share: float, batch: Batch) -> Tensor:
    """Spoil a share of the pictures (n, 3, h, w) in [-1, 1], each in its own measure."""
    coarse = functional.interpolate(functional.avg_pool2d(pictures, 2), scale_factor=2.0, mode="bilinear")
    blurred = torch.lerp(pictures, coarse, batch.rand(1, 1, 1))
    patchy = functional.interpolate(batch.randn(3, 8, 8), size=pictures.shape[-1], mode="bilinear")
    tint = (batch.rand(3, 1, 1) - 0.5) * 0.2
    fine = 0.1 * batch.rand(1, 1, 1) * batch.randn(*pictures.shape[1:])
    rough = blurred + tint + 0.12 * batch.rand(1, 1, 1) * patchy + fine
    return torch.where(batch.rand(1, 1, 1) < share, rough.clamp(-1, 1), pictures)


def recolour(pictures: Tensor, share: float, batch: Batch) -> tuple[Tensor, Tensor]:
    """Exchange channels and turn some into negatives, in a share of the pictures (n, 3, h, w) in [-1, 1].

    The pictures, and which of them they are: (n,).
    """
    order, sign = batch.rand(3).argsort(1), (batch.rand(3) < 0.5).float() * 2 - 1
    exchanged = pictures.gather(1, order[:, :, None, None].expand_as(pictures)) * sign[:, :, None, None]
    chosen = batch.rand(1, 1, 1) < share
    return torch.where(chosen, exchanged, pictures), chosen.ravel()
