"""Statistics of single runs beside bands of surrogates."""

from __future__ import annotations

import re
from collections.abc import Iterator

import polars as pl

from tests.referee.drawing import DIMENSIONS
from tests.referee.rulings import Case, Ruling

Rulings = Iterator[Ruling]
SIDE = 0.025  # of surrogates beyond either end of a band


def outside(
    band: pl.DataFrame | None, what: str, *, above: bool | None = None, below: bool | None = None
) -> Rulings:
    """The runs outside their band, at the sides of which a design says whether they should be there."""
    if band is None:
        return
    for side, is_true, is_out in (
        ("above", above, pl.col("value") > pl.col("high")),
        ("below", below, pl.col("value") < pl.col("low")),
    ):
        if is_true is not None:
            yield Ruling(
                claim=f"{what} is {side} its band (runs)", said=len(band.filter(is_out)), of=len(band),
                level=SIDE, is_true=is_true,
            )  # fmt: skip


def patterns(case: Case) -> Rulings:
    """The order of the sizes of steps is more than chance; those of a walk are independent."""
    if case.truth.wanders:
        yield from outside(case.answer, "permutation entropy", above=False, below=False)


def period(case: Case) -> Rulings:
    """So many runs come round, most of them after so many outputs; likeness is more than chance."""
    truth = case.truth
    if truth.period is None:
        return
    found = re.search(r"(\d[\d,]*) of (\d[\d,]*) runs", case.sentence)
    assert found, case.sentence
    yield Ruling(
        claim="runs have a period", said=_number(found[1]), of=_number(found[2]), is_true=bool(truth.period)
    )
    most = re.search(r"most often of (\d+)", case.sentence)
    if truth.period and most:
        yield Ruling(claim="most often of so many outputs", said=1, is_true=int(most[1]) == truth.period)
    if truth.period:
        yield from outside(case.answer.band, "likeness", above=True)
    elif truth.remembers is False:
        yield from outside(case.answer.band, "likeness", above=False, below=False)


def _number(text: str) -> int:
    return int(text.replace(",", ""))


def loops(case: Case) -> Rulings:
    """The longest loop is more than that of walks; those of walks are not."""
    if case.truth.wanders:
        yield from outside(case.answer, "longest loop", above=False, below=False)


def entropies(case: Case) -> Rulings:
    """Entropies are at most those of equal bars, and other than those of walks; those of walks are not."""
    pairs = re.findall(r"([\d.]+) \(of at most ([\d.]+)\)", case.sentence)
    yield Ruling(
        claim="entropy above its maximum", said=sum(float(a) > float(b) for a, b in pairs), of=len(pairs),
        is_true=False,
    )  # fmt: skip
    if case.truth.wanders:
        yield from outside(case.answer.band, "persistence entropy", above=False, below=False)


def dimension(case: Case) -> Rulings:
    """The outputs fill so many dimensions, not more than there are; walks are within the band of walks."""
    typical = re.search(r"fill ([\d.e+]+) dimensions", case.sentence)
    if typical:
        yield Ruling(
            claim="more dimensions than there are", said=float(typical[1]) > DIMENSIONS, is_true=False
        )
    if case.truth.wanders:
        yield from outside(case.answer, "intrinsic dimension", above=False, below=False)
