"""One process's share of a training step: the items, and dice that do not depend on how the batch is cut.

Noise is drawn for the whole batch of the step and cut to the share, so that one process, several processes
and accumulated gradients train on the same numbers.

    python -c "from panic.train.batches import Batch; print(Batch([], range(2, 4), 8, 0, 5).rand(1))"
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from panic.train.data import TrainingItem


class Batch:
    """Items at some `positions` of the batch of `size` that is a step's; its dice are that step's."""

    def __init__(
        self, items: Sequence[TrainingItem], positions: range, size: int, seed: int, step: int
    ) -> None:
        self.items = items
        self.positions, self.size, self.step, self._seed = positions, size, step, seed
        self._dice = np.random.default_rng((seed, step, 1))
        self._torch_dice = torch.Generator().manual_seed(int(self._dice.integers(2**62)))

    def seed_dropout(self) -> None:
        """Set torch's own generator, which dropout draws from: a resumed training drops the same."""
        torch.manual_seed(
            int(np.random.default_rng((self._seed, self.step, 2, self.positions.start)).integers(2**62))
        )

    def __len__(self) -> int:
        return len(self.positions)

    def rand(self, *shape: int) -> Tensor:
        """Uniform numbers in [0, 1): (n, *shape)."""
        return self._mine(torch.rand(self.size, *shape, generator=self._torch_dice))

    def randn(self, *shape: int) -> Tensor:
        """Normal numbers: (n, *shape)."""
        return self._mine(torch.randn(self.size, *shape, generator=self._torch_dice))

    def spread(self) -> Tensor:
        """Numbers in [0, 1), one in each of `size` equal parts of it: (n,).

        Stratified noise levels halve the variance of a diffusion loss.
        """
        spread = (torch.arange(self.size) + torch.rand(self.size, generator=self._torch_dice)) / self.size
        return self._mine(spread.clamp(max=1 - 2**-24))  # float32 rounds the last of them up to 1

    def choices(self) -> np.ndarray:
        """Uniform numbers in [0, 1) for choices in Python: (n,) float64."""
        return self._dice.random(self.size)[self.positions.start : self.positions.stop]

    def images(self) -> Tensor:
        """The items' images: (n, 3, side, side) float32 in [-1, 1]."""
        stacked = np.stack([item.image for item in self.items])
        return torch.from_numpy(stacked).float().permute(0, 3, 1, 2) / 127.5 - 1

    def texts(self) -> list[str]:
        """Draw one of each item's texts."""
        return [
            item.texts[int(share * len(item.texts))]
            for item, share in zip(self.items, self.choices(), strict=True)
        ]

    def canonical(self) -> list[str]:
        """The first of each item's texts."""
        return [item.texts[0] for item in self.items]

    def focus(self, side: int) -> Tensor:
        """Where the items say that something matters more: (n, 1, side, side), 0 where they say nothing."""
        if any(item.focus is None for item in self.items):
            return torch.zeros(len(self), 1, side, side)
        masks = torch.from_numpy(np.stack([item.focus for item in self.items if item.focus is not None]))
        return torch.nn.functional.interpolate(masks[:, None], size=side, mode="area")

    def _mine(self, whole: Tensor) -> Tensor:
        return whole[self.positions.start : self.positions.stop]
