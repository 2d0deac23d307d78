"""The oracle reads images of the pocket world back, its background and objects, and needs no weights.

`read` names the colour of each pixel, takes connected regions of one colour for objects and fits templates of
the renderer's own shapes to them. It inverts the renderer, and reads what diffusion models draw as far as a
shape is there to be read. `compare` says what of a scene a reading got right, whatever order it is told in.

    from panic.pocket.world import examples
    print(read(examples("test", 1, seed=0)[0].picture))
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import pairwise, permutations

import numpy as np
from scipy import ndimage

from panic.pocket.render import coverage, pattern_mask, shade
from panic.pocket.scene import (
    COLOURS,
    HOLDERS,
    PATTERNS,
    SHAPES,
    SIDE,
    SIZES,
    Layout,
    Scene,
    Thing,
    canonical,
    relation_between,
)

WINDOW = 41  # side of the templates' window in pixels, room for a large object
LEAST_CORE_PX = 6  # pixels that an object keeps when its outline is peeled off
LEAST_FIT = 0.55  # intersection over union of a region with its best template
NAMES = list(COLOURS)
_PALETTE = np.array(list(COLOURS.values()), np.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One object in an image: its attributes, its centre in pixels, how well its shape fits (0 to 1)."""

    thing: Thing
    x: float
    y: float
    radius: float
    fit: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """An image shows this background and these objects."""

    colour: str
    pattern: str
    seen: tuple[Seen, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """A score tells what an image got right; `attributes` are shape and colour, `exact` is everything."""

    background: bool
    pattern: bool
    count: bool
    attributes: bool
    sizes: bool
    relations: bool

    @property
    def exact(self) -> bool:
        """Everything right."""
        return self.background and self.pattern and self.attributes and self.sizes and self.relations


def read(image: np.ndarray) -> Reading:
    """Read an image (64, 64, 3) uint8."""
    image = np.asarray(image, np.float32)
    ground = _ground_colour(image)
    base = _PALETTE[ground]
    # The background's two colours are one class; the others compete with both.
    palette = np.concatenate([_PALETTE, shade(base)[None], (base + shade(base))[None] / 2])
    names = _nearest(image, palette)
    names[names >= len(NAMES)] = ground
    regions = _regions(names, ground)
    seen = [found for region in regions if (found := _fit(*region)) is not None]
    occupied = ndimage.binary_dilation(names != ground, iterations=1)
    pattern = _pattern(image[::2, ::2], base, ~occupied[::2, ::2])
    return Reading(colour=NAMES[ground], pattern=pattern, seen=tuple(seen))


def to_scene(reading: Reading) -> Scene | None:
    """A reading as a canonical scene, or None if it has no, or over three, objects or no clear relations."""
    seen = reading.seen
    if not 1 <= len(seen) <= 3:
        return None
    layout = Layout(
        x=np.array([s.x for s in seen]),
        y=np.array([s.y for s in seen]),
        radius=np.array([s.radius for s in seen]),
        rotation=np.zeros(len(seen)),
    )
    # An order that tells what is inside of what comes first.
    orders = sorted(
        permutations(range(len(seen))),
        key=lambda order: -sum(_holds("inside", seen[i], seen[j]) for i, j in pairwise(order)),
    )
    for order in orders:
        relations = [_relation(seen[i], seen[j]) for i, j in pairwise(order)]
        if None not in relations:
            placed = Layout(
                **{name: getattr(layout, name)[list(order)] for name in ("x", "y", "radius", "rotation")}
            )
            scene = Scene(
                colour=reading.colour,
                pattern=reading.pattern,
                objects=tuple(seen[i].thing for i in order),
                relations=tuple(r for r in relations if r),
            )
            return canonical(scene, placed)
    return None


def compare(scene: Scene, reading: Reading) -> Score:
    """Judge a reading by the scene that should be there; objects are matched in the best order."""
    best = (False, False, False)
    count = len(reading.seen) == len(scene.objects)
    for order in permutations(reading.seen, len(scene.objects)):
        pairs = list(zip(scene.objects, order, strict=True))
        attributes = count and all(
            (want.colour, want.shape) == (got.thing.colour, got.thing.shape) for want, got in pairs
        )
        sizes = count and all(want.size == got.thing.size for want, got in pairs)
        relations = count and all(
            _holds(relation, a, b) for relation, a, b in zip(scene.relations, order, order[1:], strict=False)
        )
        # Relations count only between the objects that are meant, as far as their colours tell.
        relations = relations and all(want.colour == got.thing.colour for want, got in pairs)
        best = max(best, (attributes, relations, sizes))
    return Score(
        background=reading.colour == scene.colour,
        pattern=reading.pattern == scene.pattern,
        count=count,
        attributes=best[0],
        relations=best[1],
        sizes=best[2],
    )


def says(scene: Scene, layout: Layout, told: Scene | None) -> bool:
    """Return whether a told scene (a parsed caption) is true of a placed scene, in any order of telling."""
    if told is None:
        return False
    seen = tuple(
        Seen(thing=thing, x=float(x), y=float(y), radius=float(r), fit=1.0)
        for thing, x, y, r in zip(scene.objects, layout.x, layout.y, layout.radius, strict=True)
    )
    return compare(told, Reading(colour=scene.colour, pattern=scene.pattern, seen=seen)).exact


def _ground_colour(image: np.ndarray) -> int:
    """The colour of most of the frame, patterns' second colours included."""
    frame = np.concatenate([image[:2].reshape(-1, 3), image[-2:].reshape(-1, 3)])
    frame = np.concatenate([frame, image[:, :2].reshape(-1, 3), image[:, -2:].reshape(-1, 3)])
    both = np.stack([_PALETTE, shade(_PALETTE)], axis=1)
    near = _nearest(frame, both.reshape(-1, 3)) // 2
    return int(np.bincount(near, minlength=len(NAMES)).argmax())


def _nearest(image: np.ndarray, palette: np.ndarray) -> np.ndarray:
    """The index of each pixel's nearest colour: (..., 3), (k, 3) -> (...)."""
    nearest: np.ndarray = ((palette**2).sum(1) - 2 * image @ palette.T).argmin(-1)
    return nearest


def _regions(names: np.ndarray, ground: int) -> list[tuple[int, np.ndarray]]:
    """Connected regions of one colour that are more than an outline, with what lies inside filled in."""
    found = []
    for colour in range(len(NAMES)):
        if colour == ground:
            continue
        labels, count = ndimage.label(names == colour)
        for label, where in zip(range(1, count + 1), ndimage.find_objects(labels), strict=True):
            region = labels[where] == label
            if region.sum() < 30 or ndimage.binary_erosion(region).sum() < LEAST_CORE_PX:
                continue
            mask = np.zeros((SIDE, SIDE), bool)
            mask[where] = region
            found.append((colour, mask))
    hole = [ndimage.binary_fill_holes(mask) & ~mask for _, mask in found]

    def within(i: int, j: int) -> bool:
        return i != j and bool((found[i][1] & hole[j]).sum() * 2 > found[i][1].sum())

    # What shows through a ring that lies inside of something is that something, not an object.
    every = range(len(found))
    through = {
        i
        for i in every
        if any(within(i, j) and within(j, k) and found[i][0] == found[k][0] for j in every for k in every)
    }
    kept = [i for i in every if i not in through]
    return [
        (found[j][0], found[j][1] | hole[j] if any(within(i, j) for i in kept) else found[j][1]) for j in kept
    ]


def _fit(colour: int, mask: np.ndarray) -> Seen | None:
    """The shape and size whose template covers a region best, or None if none covers it."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    top, left = (rows[0] + rows[-1] + 1) // 2, (columns[0] + columns[-1] + 1) // 2
    padded = np.pad(mask, WINDOW).astype(np.float32)
    half = WINDOW // 2
    shifts = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
    windows = np.stack(
        [
            padded[
                top + dy + WINDOW - half : top + dy + WINDOW + half + 1,
                left + dx + WINDOW - half : left + dx + WINDOW + half + 1,
            ].ravel()
            for dy, dx in shifts
        ]
    )
    templates, areas, kinds = _templates()
    shared = windows @ templates.T
    union = windows.sum(1)[:, None] + areas[None, :] - shared
    fits = shared / union
    shift, best = np.unravel_index(fits.argmax(), fits.shape)
    if fits[shift, best] < LEAST_FIT:
        return None
    shape, radius = kinds[best]
    size = min(SIZES, key=lambda name: abs(np.log(SIZES[name] / radius)))
    dy, dx = shifts[shift]
    return Seen(
        thing=Thing(size=size, colour=NAMES[colour], shape=shape),
        x=float(left + dx) + 0.5,
        y=float(top + dy) + 0.5,
        radius=radius,
        fit=float(fits[shift, best]),
    )


@cache
def _templates() -> tuple[np.ndarray, np.ndarray, list[tuple[str, float]]]:
    """Every shape at 18 radii and 3 rotations: (k, WINDOW^2) float32, areas (k,), (shape, radius) of each."""
    radii = np.geomspace(5.0, 18.0, 18)
    kinds = [(shape, r, turn) for shape in SHAPES for r in radii for turn in (-0.08, 0.0, 0.08)]
    centre = np.array([WINDOW / 2])
    drawn = [
        coverage(shape, centre, centre, np.array([r]), np.array([turn]), side=WINDOW).ravel() > 0.5
        for shape, r, turn in kinds
    ]
    templates = np.stack(drawn).astype(np.float32)
    return templates, templates.sum(1), [(shape, float(r)) for shape, r, _ in kinds]


def _pattern(image: np.ndarray, base: np.ndarray, free: np.ndarray) -> str:
    """The pattern that explains the free background best; plain unless one explains a good part of it."""
    if free.sum() < 50:
        return "plain"
    axis = shade(base) - base
    amount = ((image - base) @ axis / (axis @ axis))[free]
    amount = np.clip(amount, -0.5, 1.5)
    amount = amount - amount.mean()
    names, masks = _pattern_masks()
    templates = masks[:, free]
    templates = templates - templates.mean(1, keepdims=True)
    power = np.maximum((templates**2).sum(1), 1e-6)
    slope = templates @ amount / power
    explained = slope**2 * power / max(float(amount @ amount), 1e-6)
    best = int(np.where(slope > 0.3, explained, 0).argmax())
    return names[best] if explained[best] > 0.25 and slope[best] > 0.3 else "plain"


@cache
def _pattern_masks() -> tuple[list[str], np.ndarray]:
    """Every pattern at 25 phases: names, every other pixel of their masks (k, 32, 32)."""
    phases = np.linspace(-2, 2, 5)
    kinds = [
        (p, dx, dy) for p in PATTERNS[1:] for dx in phases for dy in (phases if p != "striped" else [0.0])
    ]
    return [p for p, _, _ in kinds], np.stack([pattern_mask(p, dx, dy)[::2, ::2] for p, dx, dy in kinds])


def _relation(a: Seen, b: Seen) -> str | None:
    if _holds("inside", a, b):
        return "inside"
    if _holds("inside", b, a):
        return None
    return relation_between(a.x - b.x, a.y - b.y, clear=1.2)


def _holds(relation: str, a: Seen, b: Seen) -> bool:
    """Return whether a relation holds between two seen objects; a diagonal is granted to both sides."""
    dx, dy = a.x - b.x, a.y - b.y
    inside = b.thing.shape in HOLDERS and max(abs(dx), abs(dy)) < b.radius / 2 and a.radius < b.radius
    match relation:
        case "inside":
            return inside
        case "left of":
            return not inside and -dx >= abs(dy)
        case "right of":
            return not inside and dx >= abs(dy)
        case "above":
            return not inside and -dy >= abs(dx)
        case "below":
            return not inside and dy >= abs(dx)
    return False
