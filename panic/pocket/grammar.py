"""The pocket world in words: `describe` a scene in one of several phrasings, `parse` any of them back.

python -c "from panic.pocket.grammar import parse; print(parse('a big red ring on a blue background'))"
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable

import numpy as np

from panic.pocket.scene import COLOURS, PATTERNS, RELATIONS, SHAPES, SIZES, Scene, Thing

# The first word of each list is the canonical one.
SIZE_WORDS = {"small": ("small", "tiny", "little"), "medium": ("medium",), "large": ("large", "big", "huge")}
RELATION_WORDS = {
    "left of": ("left of", "to the left of"),
    "right of": ("right of", "to the right of"),
    "above": ("above", "over"),
    "below": ("below", "under"),
    "inside": ("inside", "within"),
}
PATTERN_WORDS = {
    "plain": ("", "plain"),
    "striped": ("striped",),
    "dotted": ("dotted",),
    "checkered": ("checkered",),
}
FRAMES = (
    "{things} on {background}",
    "on {background}, {things}",
    "there is {things} on {background}",
    "a picture of {things} on {background}",
    "{background} with {things}",
)

_SIZES = {word: size for size, words in SIZE_WORDS.items() for word in words}
_RELATIONS = {word: relation for relation, words in RELATION_WORDS.items() for word in words}
_PATTERNS = {word: pattern for pattern, words in PATTERN_WORDS.items() for word in words}
_COLOUR = "|".join(COLOURS)
_THING = re.compile(rf"\b({'|'.join(_SIZES)}) ({_COLOUR}) ({'|'.join(SHAPES)})\b")
_BACKGROUND = re.compile(rf"\b(?:({'|'.join(p for p in _PATTERNS if p)}) )?({_COLOUR}) background\b")
_BETWEEN = re.compile(rf"^(?: is)? ({'|'.join(sorted(_RELATIONS, key=len, reverse=True))}) an?$")


def describe(scene: Scene, rng: np.random.Generator | None = None) -> str:
    """The scene as a sentence: canonical without `rng`, otherwise a random phrasing."""
    return _tell(scene, lambda words: words[0] if rng is None else words[rng.integers(len(words))])


def retell(scene: Scene) -> str:
    """The scene as a sentence in the last wording of each list, while `describe` takes the first one."""
    return _tell(scene, lambda words: words[-1])


def _tell(scene: Scene, pick: Callable[[tuple[str, ...]], str]) -> str:
    things = ""
    for i, thing in enumerate(scene.objects):
        words = f"{pick(SIZE_WORDS[thing.size])} {thing.colour} {thing.shape}"
        relation = f" {pick(RELATION_WORDS[scene.relations[i - 1]])} " if i else ""
        things += f"{relation}{_article(words)} {words}"
    ground = f"{pick(PATTERN_WORDS[scene.pattern])} {scene.colour} background".strip()
    return pick(FRAMES).format(things=things, background=f"{_article(ground)} {ground}")


def parse(text: str) -> Scene | None:
    """The scene that a sentence tells, or None if it is not of the pocket grammar.

    Case and punctuation do not matter; one background and one to three objects, joined by relations, do.
    """
    text = " ".join(re.sub(r"[^a-z ]", " ", text.lower()).split())
    grounds, things = list(_BACKGROUND.finditer(text)), list(_THING.finditer(text))
    if len(grounds) != 1 or not 1 <= len(things) <= 3:
        return None
    relations = []
    for left, right in itertools.pairwise(things):
        between = _BETWEEN.match(text[left.end() : right.start()].rstrip())
        if not between:
            return None
        relations.append(_RELATIONS[between[1]])
    return Scene(
        colour=grounds[0][2],
        pattern=_PATTERNS[grounds[0][1] or ""],
        objects=tuple(Thing(size=_SIZES[m[1]], colour=m[2], shape=m[3]) for m in things),
        relations=tuple(relations),
    )


def _article(words: str) -> str:
    return "an" if words[0] in "aeiou" else "a"


assert set(SIZE_WORDS) == set(SIZES)
assert set(RELATION_WORDS) == set(RELATIONS)
assert set(PATTERN_WORDS) == set(PATTERNS)
