"""What is learnt from: items of a data set. The pocket world is one; `folder` has another.

A data set is asked for the items of a step, and its answer depends on the seed, the step and the positions
in the batch alone: a resumed training, one with accumulated gradients and one on several processes see the
same batches.

    python -c "from panic.train.data import World; print(World().validation(1)[0].texts)"
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from panic.errors import UsageError
from panic.train.config import Data

if TYPE_CHECKING:
    from panic.pocket.scene import Layout, Scene


class DataError(UsageError):
    """The data cannot be learnt from; the message names the file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingItem:
    """One image (side, side, 3) uint8 with its texts, the first one canonical, and its class.

    `focus` (side, side) float32 is 1 where something is that matters more than the rest.
    """

    image: np.ndarray
    texts: tuple[str, ...]
    label: int = 0
    focus: np.ndarray | None = None


class DataSet(Protocol):
    """Items for training, and a fixed set for validation.

    `labels` are the names of the classes, `digest` changes with what there is to learn from.
    """

    labels: tuple[str, ...]
    digest: str

    def training(self, seed: int, step: int, size: int, positions: range) -> list[TrainingItem]:
        """The items at some positions of a step's batch of `size`."""
        ...

    def validation(self, n: int) -> list[TrainingItem]:
        """The first n items that training never shows."""
        ...

    def captions(self) -> Iterator[str]:
        """Texts to learn a tokenizer from."""
        ...


class World:
    """The pocket world's training split, drawn anew for every step; validation has its own split."""

    labels: tuple[str, ...] = ()
    digest = "pocket-world"

    def __init__(self, shown: Data | None = None, *, size: int = 64) -> None:
        from panic.pocket.scene import SIDE

        if size != SIDE:
            raise DataError(f"pocket-world has pictures of {SIDE}x{SIDE}, and image_size is {size}")
        self.shown = shown or Data(dataset="pocket-world")
        self._drawn: tuple[tuple[int, int, int], list[TrainingItem]] | None = None

    def training(self, seed: int, step: int, size: int, positions: range) -> list[TrainingItem]:
        """The items at some positions of a step's batch; half a millisecond each."""
        key = (seed, step, size)
        if self._drawn is None or self._drawn[0] != key:  # accumulation asks for a batch part by part
            self._drawn = (key, self._items("train", size, (seed, step)))
        return self._drawn[1][positions.start : positions.stop]

    def validation(self, n: int) -> list[TrainingItem]:
        """n scenes of the validation split."""
        return self._items("validation", n, 0)

    def captions(self) -> Iterator[str]:
        """4,000 captions of the training split."""
        from panic.pocket.world import describe, sample

        rng = np.random.default_rng(7)
        return (describe(sample("train", rng)[0], rng) for _ in range(4000))

    def _items(self, split: str, n: int, seed: int | Sequence[int]) -> list[TrainingItem]:
        from panic.pocket.world import Example, describe, examples

        def texts(shown: Example) -> tuple[str, ...]:
            if self.shown.styles == "canonical":
                return (shown.canonical,)
            if self.shown.styles == "plain":
                return (describe(shown.scene),)
            if self.shown.styles == "terse":
                return (shown.terse,)
            # Twice the plain wording: it is what a captioner says in a loop.
            return (shown.canonical, describe(shown.scene), shown.caption, shown.caption)

        return [
            TrainingItem(image=e.picture, texts=texts(e), focus=_near_objects(e.scene, e.layout))
            for e in examples(
                split,
                n,
                seed,
                background_shift=self.shown.background_shift,
                tidy=self.shown.tidy,
                objects=self.shown.objects,
            )
        ]


def _near_objects(scene: Scene, layout: Layout) -> np.ndarray:
    """About 1 in the boxes around objects, more where they are small or thin, else 0: (64, 64) float32.

    Without that, small crosses come back from an autoencoder as circles or diamonds: their arms are 5 pixels.
    """
    from panic.pocket.scene import SIDE

    axis = np.arange(SIDE, dtype=np.float32) + 0.5
    mask = np.zeros((SIDE, SIDE), np.float32)
    for thing, x, y, radius in zip(scene.objects, layout.x, layout.y, layout.radius, strict=True):
        near = radius * 1.3
        thin = 2.5 if thing.shape == "cross" else 1.0
        box = np.ix_(abs(axis - y) < near, abs(axis - x) < near)
        mask[box] = np.maximum(
            mask[box], thin * (10 / radius) ** 2
        )  # what is inside counts as the smaller one
    return mask
