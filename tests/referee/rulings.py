"""What a referee says of a sentence: was something claimed, and is it true; and the counts of that."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from scipy.stats import binom

from panic.analysis.evidence import View
from tests.referee.truth import Truth
from tests.referee.worlds import World

LEVEL = 0.05
SURE = 1e-3  # how unlikely a count must be before it is held against a sentence
LEAST_POWER = 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class Ruling:
    """One claim in one replicate: how often it was `said`, of how many times it could be, and if it is true.

    `level`: how often it may be said where it is false. `must_find`: whether what is true here is plain, so
    that a sentence that hardly ever says it falls short.
    """

    claim: str
    said: int
    is_true: bool
    of: int = 1
    level: float = LEVEL
    must_find: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """What a predicate is asked: the answer of a question and the sentence about it, the world, the truth."""

    answer: Any
    sentence: str
    view: View | None
    world: World
    truth: Truth


Predicate = Callable[[Case], Iterator[Ruling]]


@dataclass(kw_only=True)
class Count:
    """How often a claim was said of a design where it is false, and where it is true."""

    level: float
    must_find: bool
    errors: int = 0
    could_err: int = 0
    hits: int = 0
    could_hit: int = 0

    def add(self, ruling: Ruling) -> None:
        """Count one more ruling."""
        if ruling.is_true:
            self.hits += ruling.said
            self.could_hit += ruling.of
        else:
            self.errors += ruling.said
            self.could_err += ruling.of

    @property
    def asked(self) -> int:
        """In how many cases the claim could have been made."""
        return self.could_err + self.could_hit

    @property
    def is_wrong_too_often(self) -> bool:
        """Whether so many errors are unlikely where they come at the level of the claim."""
        return bool(self.errors and binom.sf(self.errors - 1, self.asked, self.level) < SURE)

    @property
    def is_blind(self) -> bool:
        """Whether so few hits are unlikely where half of what is there is found."""
        is_low = binom.cdf(self.hits, self.could_hit, LEAST_POWER) < SURE
        return bool(self.must_find and self.could_hit and is_low)
