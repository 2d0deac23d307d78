"""A model that remembers what it was asked for, and fails where the test says so."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from panic.errors import OutOfMemory, OutputRejected
from panic.models.kinds import named
from panic.models.protocol import ModelSpec


class Counted:
    """Images to their size and mean colour, texts to their length and number of words; two numbers each."""

    modality_in, modality_out, size_bytes = ("image", "text"), "vector", 0
    calls: ClassVar[list[list[Any]]] = []
    room: ClassVar[int] = 1000
    broken: ClassVar[set[Any]] = set()

    def load(self, device: str) -> None: ...

    def invoke(self, inputs: Sequence[Any], seeds: Sequence[int]) -> list[Any]:
        if len(inputs) > self.room:
            raise OutOfMemory("no room")
        what = [item if isinstance(item, str) else item.size for item in inputs]
        if self.broken & set(what):
            raise ValueError("this one is broken")
        self.calls.append(what)
        return [
            np.array([len(item), item.count(" ")] if isinstance(item, str) else [*item.size], np.float32)
            for item in inputs
        ]


def counted(name: str = "counted", *, batch_size: int = 4, batch_of: str = "Counted") -> ModelSpec:
    """The spec of that model."""
    kind = named("class")
    assert kind is not None
    source = f"class:tests.extraction.counted:{batch_of}"
    given = {"modalities_in": ("image", "text"), "modality_out": "vector"}
    return kind.spec(name, source=source, batch_size=batch_size, **given)


class Picky(Counted):
    """It has a vector of texts of one to three letters alone."""

    def invoke(self, inputs: Sequence[Any], seeds: Sequence[int]) -> list[Any]:
        found = super().invoke(inputs, seeds)
        return [
            vector if 1 <= len(item) <= 3 else OutputRejected(f"none of {item!r} here")
            for item, vector in zip(inputs, found, strict=True)
        ]


class Ragged(Counted):
    """As many ones as the image is wide."""

    def invoke(self, inputs: Sequence[Any], seeds: Sequence[int]) -> list[Any]:
        return [np.ones(item.width, np.float32) for item in inputs]


class OneOdd(Counted):
    """A vector of three numbers for the image that is 11 wide, of two for all others."""

    def invoke(self, inputs: Sequence[Any], seeds: Sequence[int]) -> list[Any]:
        return [np.ones(3 if item.width == 11 else 2, np.float32) for item in inputs]
