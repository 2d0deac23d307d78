"""The pocket world: a small world of coloured shapes whose images and captions can be read back exactly.

This is its front door: scenes (`scene`), words (`grammar`), images (`render`), reading (`oracle`).

    python -c "from panic.pocket.world import prompts; print(*prompts('test', 5, seed=0), sep='\\n')"
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from panic.pocket.grammar import describe, parse, retell
from panic.pocket.render import render
from panic.pocket.scene import (
    SPLITS,
    Layout,
    Scene,
    Thing,
    canonical,
    largest,
    sample,
    shift_background,
    split_of,
)

MAX_PROMPTS = 1000  # about 2 ms each on a CPU

__all__ = [
    "SPLITS",
    "Example",
    "Layout",
    "Scene",
    "Thing",
    "canonical",
    "describe",
    "examples",
    "parse",
    "prompts",
    "render",
    "sample",
    "shift_background",
    "split_of",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One image (64, 64, 3) uint8 with its scene, its layout and a random phrasing."""

    scene: Scene
    layout: Layout
    picture: np.ndarray
    caption: str

    @property
    def canonical(self) -> str:
        """The one caption that depends on the image alone."""
        return describe(canonical(self.scene, self.layout))

    @property
    def terse(self) -> str:
        """The largest object alone, in other words; depends on the image alone, too."""
        return retell(largest(self.scene, self.layout))


def examples(
    split: str,
    n: int,
    seed: int | Sequence[int],
    *,
    background_shift: int = 0,
    tidy: float = 0.0,
    objects: int | None = None,
) -> list[Example]:
    """n examples of a split, the same for the same seed; `tidy` and `objects` as for `sample`.

    With a `background_shift` the images show their scenes with another background (`shift_background`), as
    a biased painter would; neither what is told nor what is shown in training is of another split.
    """
    rng = np.random.default_rng(seed)
    placed: list[tuple[Scene, Layout]] = []
    shown: list[tuple[Scene, Layout]] = []
    while len(placed) < n:
        scene, layout = sample(split, rng, tidy=tidy, objects=objects)
        other = shift_background(scene, background_shift)
        if split != "train" or split_of(other) == "train":
            placed.append((scene, layout))
            shown.append((other, layout))
    images = render(shown, rng)
    return [
        Example(scene=scene, layout=layout, picture=image, caption=describe(scene, rng))
        for (scene, layout), image in zip(placed, images, strict=True)
    ]


def prompts(split: str, n: int, seed: int) -> list[str]:
    """n distinct canonical captions of a split, for the prompts of a config."""
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}: one of {', '.join(SPLITS)}")
    if n > MAX_PROMPTS:
        raise ValueError(f"{n} prompts are asked for, and {MAX_PROMPTS} is the most")
    rng = np.random.default_rng(seed)
    found: dict[str, None] = {}
    while len(found) < n:
        found[describe(sample(split, rng)[0])] = None
    return list(found)
