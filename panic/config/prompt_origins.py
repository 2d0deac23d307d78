"""Prompts that are images, and prompts that are outputs of another experiment.

`{images: photos, n: 20, seed: 0}` takes the images of a folder (PNG, JPEG, WebP; not of folders below it), or
one file; `{experiment: colours, step: last, n: 20, seed: 0}` what another experiment in the same store came
to. An image stands among the prompts as `image:DIGEST`, the digest of its pixels: the file's name and format
do not matter, and the store has the image once. With a `seed`, `n` are drawn by the hash of seed and file
name, or of seed and output: more of them later keep the earlier ones; without, the first `n` are taken.

What reads images and stores is given by the program (`Origins`): a config's room knows neither.
"""

from __future__ import annotations

import hashlib
import heapq
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

from pydantic import Field, PlainValidator
from pydantic_core import PydanticCustomError

from panic.config.fields import MAX_COUNT, Count, Part, Seed, Text
from panic.config.labels import PromptLabels
from panic.config.problems import KeyPath, Problem
from panic.errors import ConfigError, nearest

IMAGE = re.compile(r"image:[0-9a-f]{64}")
"""A prompt that is an image, by its digest; `panic.store.codec.prompt_digest` reads the same."""
SUFFIXES = (".jpeg", ".jpg", ".png", ".webp")
MAX_TOLD = 5


class ImagePrompts(PromptLabels):
    """Prompts that are the images of a folder, or one image."""

    images: Text
    n: Count | None = None
    seed: Seed | None = None


class Where(Part):
    """Which runs of an experiment are meant: those that have all of this."""

    network: Annotated[list[Text], Field(min_length=1)] | None = None
    prompt: Text | None = None
    seed: Annotated[int, Field(ge=-1)] | None = None
    repeat: Annotated[int, Field(ge=0)] | None = None
    state: Literal["done", "stuck", "repeated", "failed", "running"] | None = None


def _step(value: Any) -> Any:
    if value == "last" or (
        isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_COUNT
    ):
        return value
    raise PydanticCustomError("step", "must be a step's number (the first is 0), or last")


class OutputPrompts(PromptLabels):
    """Prompts that are outputs of another experiment in the same store."""

    experiment: Text
    where: Where = Where()
    step: Annotated[int | Literal["last"], PlainValidator(_step)] = "last"
    modality: Literal["text", "image"] | None = None
    n: Count | None = None
    seed: Seed | None = None


class Origins(Protocol):
    """What reads the prompts that are no texts of the config; all raise ConfigError."""

    def image(self, folder: Path, name: str) -> str:
        """Read an image; what stands for it among the prompts."""

    def outputs(self, wanted: OutputPrompts, store: Path | None) -> list[str]:
        """Read the different outputs that are meant, in the order of their runs.

        store: the folder that the config names, if it does.
        """

    def note(self, wanted: ImagePrompts | OutputPrompts, prompts: Sequence[str]) -> None:
        """Take down which prompts an entry of the config has given."""

    def note_file(self, wanted: PromptLabels, file: Path, num_prompts: int) -> None:
        """Take down which file of texts an entry of the config has named."""


OriginsSource = Callable[[], Origins]


class MistakesError(Exception):
    """An entry of the prompts has these mistakes."""

    def __init__(self, *found: Problem) -> None:
        self.problems = found


def sample(texts: Iterable[str], n: int | None, seed: int | None) -> list[str]:
    """Take n of the different texts, in their order; no more is held than that."""
    if n is None or seed is None:
        found: dict[str, None] = {}
        for text in texts:
            found[text] = None
            if len(found) == n:
                break
        return list(found)
    kept: dict[str, int] = {}  # texts and their places
    lots: list[tuple[int, str]] = []  # a heap: the largest lot, negated, comes first
    for place, text in enumerate(texts):
        if text in kept:
            continue
        drawn = -lot(seed, text.encode())
        if len(lots) < n:
            heapq.heappush(lots, (drawn, text))
        elif drawn > lots[0][0]:
            del kept[heapq.heapreplace(lots, (drawn, text))[1]]
        else:
            continue
        kept[text] = place
    return sorted(kept, key=kept.__getitem__)


def lot(seed: int, content: bytes) -> int:
    """The lot that a content draws with a seed; the least ones are taken."""
    return int.from_bytes(hashlib.sha256(b"%d\0%b" % (seed, content)).digest())


def from_images(path: KeyPath, wanted: ImagePrompts, place: Path, origins: Origins) -> list[str]:
    """Return the images of a folder, or the one that a file is, as prompts. Raises MistakesError."""
    at = (*path, "images")
    try:
        folder, names = (place, _names(place)) if place.is_dir() else (place.parent, [place.name])
    except OSError as error:
        raise MistakesError(Problem(at, f"{place} cannot be read: {error.strerror or error}")) from None
    if not place.exists():
        near = nearest(place.name, [file.name for file in place.parent.iterdir()]) if folder.is_dir() else []
        hint = f"did you mean {near[0]}?" if near else ""
        raise MistakesError(Problem(at, f"there is no folder or file {place}", hint=hint))
    if not names:
        raise MistakesError(Problem(at, f"{place} holds no images ({', '.join(SUFFIXES)})"))
    found: dict[str, str] = {}  # images, and the names of the files that they were found in first
    broken: list[str] = []
    for name in _drawn(names, wanted.seed):
        try:
            found.setdefault(origins.image(folder, name), name)
        except ConfigError as error:
            broken.append(f"{name}: {error.message}")
        if len(broken) == MAX_TOLD or len(found) == wanted.n:
            break
    if broken:
        more = " ..." if len(broken) == MAX_TOLD else ""
        raise MistakesError(Problem(at, f"{place}: {'; '.join(broken)}{more}"))
    if wanted.n is not None and wanted.n > len(found):
        message = f"n is {wanted.n}, and {place} has {len(found)} different images"
        raise MistakesError(Problem((*path, "n"), message))
    prompts = sorted(found, key=found.__getitem__)
    origins.note(wanted, prompts)
    return prompts


def _names(folder: Path) -> list[str]:
    return sorted(
        file.name
        for file in folder.iterdir()
        if file.suffix.lower() in SUFFIXES and not file.name.startswith(".")
    )


def _drawn(names: list[str], seed: int | None) -> Iterator[str]:
    """Yield names in the order in which they are drawn: their own, or that of their lots."""
    yield from names if seed is None else sorted(names, key=lambda name: lot(seed, os.fsencode(name)))


def from_outputs(path: KeyPath, wanted: OutputPrompts, store: Path | None, origins: Origins) -> list[str]:
    """Return what another experiment came to as prompts. Raises MistakesError."""
    try:
        found = origins.outputs(wanted, store)
    except ConfigError as error:
        raise MistakesError(Problem((*path, "experiment"), error.message, hint=error.hint)) from None
    if not found:
        what = f"{wanted.modality or 'output'} at step {wanted.step}"
        message = f"{wanted.experiment} has no {what} in such runs"
        raise MistakesError(Problem((*path, "experiment"), message))
    if wanted.n is not None and wanted.n > len(found):
        message = f"n is {wanted.n}, and {wanted.experiment} has {len(found)} different outputs of that kind"
        raise MistakesError(Problem((*path, "n"), message))
    prompts = sample(found, wanted.n, wanted.seed)
    origins.note(wanted, prompts)
    return prompts
