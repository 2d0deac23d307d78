"""Scenes of the pocket world: what may be in an image, where it may stand, and which split it belongs to.

A `Scene` holds attributes only: a background and a chain of one to three objects, neighbours joined by a
relation ("A above B, B left of C"). A `Layout` is one placement of a scene on the 64x64 canvas. Scenes that
say the same thing ("A left of B", "B right of A") share a `key`; the split is a hash of the key, and scenes
with a combination in `HELD_OUT` are never in the training split.

    import numpy as np
    scene, layout = sample("train", np.random.default_rng(0))
"""

from __future__ import annotations

import hashlib
import itertools
from dataclasses import dataclass, replace

import numpy as np

SIDE = 64
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (215, 40, 50),
    "orange": (248, 132, 24),
    "yellow": (252, 218, 50),
    "green": (50, 165, 80),
    "blue": (45, 85, 215),
    "purple": (145, 60, 180),
    "white": (240, 240, 240),
    "black": (25, 25, 25),
}
SHAPES = ("circle", "square", "triangle", "diamond", "cross", "ring")
SIZES: dict[str, float] = {"small": 7.0, "medium": 10.0, "large": 14.5}  # radius in pixels of 64
RELATIONS = ("left of", "right of", "above", "below", "inside")
PATTERNS = ("plain", "striped", "dotted", "checkered")
SPLITS = ("train", "validation", "test")
CONVERSE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
HOLDERS = ("circle", "square", "diamond")  # shapes with room for a small object inside
HELD_OUT = frozenset({("purple", "cross"), ("green", "triangle"), ("orange", "ring"), ("black", "diamond")})

HELD_OUT_SHARE = 0.2  # of the validation and test scenes
NUM_OBJECTS_ODDS = (0.35, 0.50, 0.15)
PATTERN_ODDS = (0.55, 0.15, 0.15, 0.15)
CLEAR = 1.35  # |dx| over |dy| from which two objects stand clearly beside each other
MARGIN_PX = 1.5
GAP_PX = 1.5
TIDY_GAP_PX = 12.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Thing:
    """One object: its three attributes."""

    size: str
    colour: str
    shape: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """An image shows a scene: `relations[i]` holds between `objects[i]` and `objects[i + 1]`."""

    colour: str
    pattern: str = "plain"
    objects: tuple[Thing, ...]
    relations: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """The places of a scene's objects: arrays (n,) of centres, radii (pixels) and rotations (radians)."""

    x: np.ndarray
    y: np.ndarray
    radius: np.ndarray
    rotation: np.ndarray


def reverse(scene: Scene) -> Scene | None:
    """The same scene told from its other end, or None where a relation has no converse ("inside")."""
    if any(relation not in CONVERSE for relation in scene.relations):
        return None
    return Scene(
        colour=scene.colour,
        pattern=scene.pattern,
        objects=scene.objects[::-1],
        relations=tuple(CONVERSE[relation] for relation in scene.relations[::-1]),
    )


def key(scene: Scene) -> str:
    """A text that is equal for two scenes that say the same."""
    other = reverse(scene)
    return min(repr(scene), repr(other)) if other else repr(scene)


def shift_background(scene: Scene, places: int) -> Scene:
    """The scene with its background's colour that many places further in `COLOURS`; red follows black.

    Objects of the new colour get the old one: what differed in colour still does.
    """
    names = list(COLOURS)
    old, new = scene.colour, names[(names.index(scene.colour) + places) % len(names)]
    return replace(
        scene,
        colour=new,
        objects=tuple(replace(t, colour=old) if t.colour == new else t for t in scene.objects),
    )


def largest(scene: Scene, layout: Layout) -> Scene:
    """The scene with its largest object alone; of several the leftmost, of those the topmost one."""
    sizes = list(SIZES)
    first = min(
        range(len(scene.objects)),
        key=lambda i: (-sizes.index(scene.objects[i].size), layout.x[i] // 4, layout.y[i]),
    )
    return Scene(colour=scene.colour, pattern=scene.pattern, objects=(scene.objects[first],))


def is_held_out(scene: Scene) -> bool:
    """Return whether the scene has a combination of colour and shape that training never shows."""
    return any((thing.colour, thing.shape) in HELD_OUT for thing in scene.objects)


def split_of(scene: Scene) -> str:
    """The only split the scene can be in: 90 % train, 5 % validation, 5 % test; held-out ones never train."""
    bucket = hashlib.sha256(key(scene).encode()).digest()[0]
    if is_held_out(scene):
        return "validation" if bucket % 2 else "test"
    return "train" if bucket < 230 else "validation" if bucket < 243 else "test"


def relation_between(dx: float, dy: float, clear: float = CLEAR) -> str | None:
    """Say how one object stands to another, dx = x1 - x2, dy = y1 - y2; None if that is diagonal."""
    if abs(dx) >= clear * abs(dy):
        return "left of" if dx < 0 else "right of"
    if abs(dy) >= clear * abs(dx):
        return "above" if dy < 0 else "below"
    return None


def sample_attributes(rng: np.random.Generator) -> Scene | None:
    """A random scene of any split, or None where the dice contradict each other."""
    colours = list(COLOURS)
    count = 1 + int(rng.choice(3, p=NUM_OBJECTS_ODDS))
    background = colours[rng.integers(8)]
    relations = [RELATIONS[i] for i in rng.integers(len(RELATIONS), size=count - 1)]
    sizes = [list(SIZES)[i] for i in rng.integers(3, size=count)]
    shapes = [SHAPES[i] for i in rng.integers(len(SHAPES), size=count)]
    if relations.count("inside") > 1:
        return None
    if "inside" in relations:
        inner = relations.index("inside")
        sizes[inner], sizes[inner + 1] = "small", "large"
        shapes[inner + 1] = HOLDERS[rng.integers(len(HOLDERS))]
    rest = [colour for colour in colours if colour != background]
    chosen = [rest[i] for i in rng.integers(len(rest), size=count)]
    if "inside" in relations and chosen[inner] == chosen[inner + 1]:
        return None
    things = tuple(Thing(size=s, colour=c, shape=f) for s, c, f in zip(sizes, chosen, shapes, strict=True))
    if len(set(things)) < count:
        return None
    return Scene(
        colour=background,
        pattern=PATTERNS[rng.choice(4, p=PATTERN_ODDS)],
        objects=things,
        relations=tuple(relations),
    )


def place(
    scene: Scene, rng: np.random.Generator, tries: int = 192, *, is_tidy: bool = False
) -> Layout | None:
    """Place the objects so that relations clearly hold and nothing touches; None if they do not fit.

    Of all tries the first that does, or the tidiest: near the middle, in line, a small gap between.
    """
    count = len(scene.objects)
    radius = np.array([SIZES[thing.size] for thing in scene.objects]) * rng.uniform(0.94, 1.06, count)
    low = radius + MARGIN_PX
    x, y = (low + rng.random((tries, count)) * (SIDE - 2 * low) for _ in range(2))
    inside = {i for i, relation in enumerate(scene.relations) if relation == "inside"}
    for i in inside:
        x[:, i] = x[:, i + 1] + rng.uniform(-1, 1, tries)
        y[:, i] = y[:, i + 1] + rng.uniform(-1, 1, tries)
    good = np.ones(tries, bool)
    mess = sum(abs(axis.min(1) + axis.max(1) - SIDE) / 2 for axis in (x, y))
    for i in range(count):
        for j in range(i + 1, count):
            dx, dy = x[:, i] - x[:, j], y[:, i] - y[:, j]
            if i in inside and j == i + 1:
                continue
            gap = np.maximum(abs(dx), abs(dy)) - radius[i] - radius[j]
            mess += np.minimum(abs(dx), abs(dy)) + abs(gap - TIDY_GAP_PX) / 2
            good &= gap >= GAP_PX
            if j == i + 1:
                match scene.relations[i]:
                    case "left of":
                        good &= -dx >= CLEAR * abs(dy)
                    case "right of":
                        good &= dx >= CLEAR * abs(dy)
                    case "above":
                        good &= -dy >= CLEAR * abs(dx)
                    case "below":
                        good &= dy >= CLEAR * abs(dx)
    found = np.flatnonzero(good)
    if not len(found):
        return None
    taken = found[mess[found].argmin()] if is_tidy else found[0]
    return Layout(x=x[taken], y=y[taken], radius=radius, rotation=rng.uniform(-0.1, 0.1, count))


def sample(
    split: str, rng: np.random.Generator, *, tidy: float = 0.0, objects: int | None = None
) -> tuple[Scene, Layout]:
    """A random scene of the split with a place for everything, in a share `tidy` of them the tidiest.

    `objects`: only scenes of so many.

    Outside of training, every fifth scene has a combination that training never shows.
    Raises ValueError for an unknown split.
    """
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}: one of {', '.join(SPLITS)}")
    unseen = split != "train" and rng.random() < HELD_OUT_SHARE
    while True:
        scene = sample_attributes(rng)
        if scene is None or is_held_out(scene) != unseen or split_of(scene) != split:
            continue
        if objects is not None and len(scene.objects) != objects:
            continue
        layout = place(scene, rng, is_tidy=tidy > 0 and rng.random() < tidy)
        if layout is not None:
            return scene, layout


def canonical(scene: Scene, layout: Layout) -> Scene:
    """The one way to tell an image: small before large, then left before right, then top before bottom.

    Of all orders in which every neighbour pair has a clear relation, the first in that sorting.
    """
    from itertools import permutations

    sizes = list(SIZES)
    holds = {i: i + 1 for i, relation in enumerate(scene.relations) if relation == "inside"}
    order = sorted(
        range(len(scene.objects)),
        key=lambda i: (sizes.index(scene.objects[i].size), layout.x[i] // 4, layout.y[i]),
    )
    for candidate in permutations(order):
        relations: list[str | None] = []
        for i, j in itertools.pairwise(candidate):
            if holds.get(i) == j:
                relations.append("inside")
            elif holds.get(j) == i:
                relations.append(None)
            else:
                relations.append(relation_between(layout.x[i] - layout.x[j], layout.y[i] - layout.y[j]))
        if None not in relations and ("inside" in relations or not holds):
            return Scene(
                colour=scene.colour,
                pattern=scene.pattern,
                objects=tuple(scene.objects[i] for i in candidate),
                relations=tuple(r for r in relations if r),
            )
    return scene
