"""Whether what a question's sentence claims is true of a design: one predicate per question.

A predicate reads the sentence as a reader does, and numbers from the answer that the sentence is made of.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
import polars as pl

from tests.referee.rulings import Case, Predicate, Ruling

Rulings = Iterator[Ruling]
FACTOR = r"the (prompt|network|seed|model \d)"


def effects(case: Case) -> Rulings:
    """Each factor that is named decides where runs end; the first explains most; what could not be is said."""
    if case.truth.ends is None:
        return
    found = re.search(r"where runs end: (.*?)(?:; H\d|\. |\.$)", case.sentence)
    told = found[1] if found else ""
    named = [match[1] for match in re.finditer(FACTOR + r" \(", told)]
    for factor in case.answer.tests["factor"].unique().sort():
        # A network is more than its models: that one of them decides is not asked of the other tests.
        yield Ruling(
            claim=f"the {factor} makes a difference to where runs end",
            said=factor in named,
            is_true=factor in case.truth.ends,
            must_find=not factor.startswith("model"),
        )
    if named and case.truth.largest and case.truth.largest in case.answer.tests["factor"]:
        yield Ruling(
            claim="the factor that is named first explains most",
            said=1,
            is_true=named[0] == case.truth.largest,
        )
    if not case.truth.could_show:
        yield Ruling(
            claim="nothing is clear (where nothing could be)",
            said="nothing is clear" in told and "possible" not in case.sentence,
            is_true=False,
        )


def probes(case: Case) -> Rulings:
    """A factor that can be read is one that outputs tell of."""
    if case.truth.readable is None:
        return
    for match in re.finditer(r"[Tt]he (prompt|network|seed) c(?:an|ould) (not )?be read", case.sentence):
        yield Ruling(
            claim=f"the {match[1]} can be read",
            said=not match[2],
            is_true=match[1] in case.truth.readable,
        )


def lag(case: Case) -> Rulings:
    """What is said of each network's motion."""
    truth, text = case.truth, case.sentence
    back = [int(number) for number in re.findall(r"comes? back after (\d+)", text)]
    if truth.remembers is not None:
        forgets = "does not remember" in text
        yield Ruling(claim="does not remember the output before", said=forgets, is_true=not truth.remembers)
        near = len(re.findall(r"(?<!not )remembers? the output before", text))
        yield Ruling(
            claim="remembers the output before", said=bool(near), is_true=truth.remembers,
            must_find=bool(truth.is_near),
        )  # fmt: skip
    if truth.wanders is not None:
        yield Ruling(claim="wanders off", said="wanders off" in text, is_true=truth.wanders)
        stays = "stays in its region" in text
        yield Ruling(
            claim="stays in its region", said=stays, is_true=not truth.wanders, must_find=truth.period == 0
        )
    if truth.period is not None:
        is_right = all(number == truth.period for number in back) if back else bool(truth.period)
        yield Ruling(claim="comes back after k", said=bool(back), is_true=is_right)


def networks(case: Case) -> Rulings:
    """A small p says that networks end at different distances from the start."""
    found = re.search(r"p = ([\d.e-]+)", case.sentence)
    if case.truth.drift_differs is not None and found:
        yield Ruling(
            claim="networks drift differently (p < 0.05)",
            said=float(found[1]) < 0.05,
            is_true=case.truth.drift_differs,
        )


def forgetting(case: Case) -> Rulings:
    """A small p says that the length at the end depends on that of the prompt."""
    if case.truth.length_kept is not None:
        for number in re.findall(r"p = ([\d.e-]+)", case.sentence):
            yield Ruling(
                claim="the length at the end depends on the prompt's (p < 0.05)",
                said=float(number) < 0.05,
                is_true=case.truth.length_kept,
            )


def twins(case: Case) -> Rulings:
    """No design has runs that begin near each other, so distances of twins grow in none."""
    rates = [float(number) for number in re.findall(r"grows by (-?[\d.e-]+)", case.sentence)]
    yield Ruling(claim="the distance of twins grows", said=bool(rates), is_true=False)
    yield Ruling(claim="the distance of twins grows by less than 0", said=any(r < 0 for r in rates), is_true=False)


def clusters(case: Case) -> Rulings:
    """There are so many clusters as regions, and agreement means something where runs share them."""
    truth = case.truth
    found = re.search(r"into (one|\d+) clusters?", case.sentence)
    number = 0 if not found else 1 if found[1] == "one" else int(found[1])
    if truth.regions is not None and truth.shares_regions:
        yield Ruling(claim="so many clusters", said=1, is_true=number == truth.regions)
        yield Ruling(
            claim="no region is visited much more than others", said="no region" in case.sentence,
            is_true=truth.regions == 0,
        )  # fmt: skip
    agreement = re.search(r"agree by ([\d.]+)", case.sentence)
    is_held = bool(agreement and float(agreement[1].rstrip(".")) >= 0.7)
    if truth.regions is not None:
        is_qualified = bool(re.search(r"more than one run|one run only", case.sentence))
        yield Ruling(
            claim="clusters hold (agreement of 0.7 or more)", said=is_held and (truth.shares_regions or not is_qualified),
            is_true=truth.shares_regions, must_find=truth.regions > 1,
        )  # fmt: skip


def _outside(case: Case, band: pl.DataFrame | None, what: str, *, above: bool | None, below: bool | None) -> Rulings:
    """Runs that a sentence counts as outside their band; True: they should be, None: the design says nothing."""
    if band is None:
        return
    for side, is_true, is_out in (
        ("above", above, pl.col("value") > pl.col("high")),
        ("below", below, pl.col("value") < pl.col("low")),
    ):
        if is_true is not None:
            yield Ruling(
                claim=f"{what} is {side} chance (runs)", said=len(band.filter(is_out)), of=len(band), level=0.025,
                is_true=is_true,
            )  # fmt: skip


def patterns(case: Case) -> Rulings:
    """Sizes of independent steps have no order."""
    if case.truth.wanders:
        yield from _outside(case, case.answer, "permutation entropy", above=False, below=False)


def period(case: Case) -> Rulings:
    """Runs come round where the design has a period, and after so many outputs."""
    truth = case.truth
    if truth.period is None or truth.wanders is None:
        return
    found = re.search(r"^(\d[\d,]*) of (\d[\d,]*) runs", case.sentence)
    assert found, case.sentence
    yield Ruling(
        claim="runs have a period", said=int(found[1].replace(",", "")), of=int(found[2].replace(",", "")),
        is_true=bool(truth.period),
    )  # fmt: skip
    most = re.search(r"most often of (\d+)", case.sentence)
    if truth.period and most:
        yield Ruling(claim="most often of so many outputs", said=1, is_true=int(most[1]) == truth.period)
    is_unordered = truth.remembers is False
    if is_unordered or truth.period:
        yield from _outside(
            case, case.answer.band, "likeness", above=bool(truth.period), below=False if is_unordered else None
        )


def dwell(case: Case) -> Rulings:
    """Dwells are longer than in random order where outputs are near those before them."""
    truth = case.truth
    if truth.chain is not None:
        yield from _outside(
            case, case.answer.band, "mean dwell", above=bool(truth.is_near),
            below=None if truth.remembers else False,
        )  # fmt: skip


def mean_dwells(case: Case) -> Rulings:
    """The intervals hold the mean dwell of the design, which is the same in all of its regions."""
    if case.truth.chain is None:
        return
    stays = float(case.truth.chain[0, 0])
    right = 1 / (1 - stays)
    inside = (case.answer["low"] <= right * 1.0001) & (right <= case.answer["high"] * 1.0001)
    yield Ruling(claim="95 % interval of a mean dwell", said=int((~inside).sum()), of=len(inside), is_true=False)
    longest = re.findall(r"outputs \(([\d.]+) to ([\d.einf+]+);", case.sentence)
    outside = sum(not float(low) * 0.995 <= right <= float(high) * 1.005 for low, high in longest)
    yield Ruling(claim="interval of the longest mean dwell", said=outside, of=len(longest), is_true=False)


def chain(case: Case) -> Rulings:
    """Parts that are never left, rings, and less news than in random order."""
    matrix = case.truth.chain
    if matrix is None:
        return
    is_ring = bool(np.isin(matrix, (0, 1)).all())
    text = case.sentence
    yield Ruling(claim="parts that are never left", said="never left" in text, is_true=False)
    yield Ruling(claim="it turns in a ring", said="ring" in text, is_true=is_ring)
    is_even = bool(np.allclose(matrix, matrix[0]))
    for rate, low in re.findall(r"makes ([\d.]+) nats .*?\(shuffled: ([\d.]+) to", text):
        yield Ruling(
            claim="less news than in random order", said=float(rate) < float(low), is_true=not is_even, level=0.025
        )


def _walks(case: Case, band: pl.DataFrame | None, what: str) -> Rulings:
    if case.truth.wanders:
        yield from _outside(case, band, what, above=False, below=False)


def loops(case: Case) -> Rulings:
    """Walks have the loops of walks."""
    yield from _walks(case, case.answer, "longest loop")


def entropies(case: Case) -> Rulings:
    """Walks have the persistence entropies of walks."""
    yield from _walks(case, case.answer.band, "persistence entropy")


def dimension(case: Case) -> Rulings:
    """Walks have the dimension of walks."""
    yield from _walks(case, case.answer, "intrinsic dimension")


def shares(case: Case) -> Rulings:
    """Intervals of the shares hold that of all prompts."""
    right = case.truth.mean_share
    if right is not None:
        inside = case.answer.shares.filter(pl.col("label") == 0, pl.col("low").is_finite())
        outside = inside.filter((pl.col("low") > right) | (pl.col("high") < right))
        yield Ruling(claim="95 % interval of a share", said=len(outside), of=len(inside), is_true=False)


PREDICATES: dict[str, Predicate] = {
    name.__name__: name
    for name in (
        lag, networks, forgetting, twins, clusters, patterns, period, dwell, mean_dwells, chain, loops, entropies,
        dimension, effects, probes, shares,
    )
}  # fmt: skip
