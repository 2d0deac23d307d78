"""Which factors matter: where runs end, what can be read, what differs between networks and lengths."""

from __future__ import annotations

import re
from collections.abc import Iterator

from tests.referee.rulings import LEVEL, Case, Ruling

Rulings = Iterator[Ruling]
NAMED = re.compile(r"the (prompt|network|seed|model at place \d)(?:, in another way[^(]*)? \(")
P = re.compile(r"p = ([\d.e-]+\d)")


def effects(case: Case) -> Rulings:
    """A named factor makes a difference, the first explains most, and what could not be shown is said."""
    parts = re.split(r"; (?=H\d)", case.sentence.partition(" Not tested")[0])
    ends = next((part for part in parts if "where runs end" in part), "")
    named = NAMED.findall(ends)
    of_ends = case.answer.tests.filter(case.answer.tests["measure"] == "where runs end")
    tested = set(of_ends["factor"])
    if case.truth.ends is not None:
        for factor in sorted(tested):
            yield Ruling(
                claim=f"the {factor} makes a difference to where runs end",
                said=factor in named,
                is_true=factor in case.truth.ends,
                must_find=not factor.startswith("model"),  # tested inside networks, where little is left
            )
    if case.truth.ends == frozenset():
        yield Ruling(claim="any factor does, where none does", said=bool(named), is_true=False)
    if named and case.truth.largest in tested:
        yield Ruling(
            claim="the factor that is named first explains most",
            said=1,
            is_true=named[0] == case.truth.largest,
        )
    if not case.truth.could_show:
        yield Ruling(
            claim="nothing is clear, of a design that could show nothing",
            said="nothing is clear" in ends and "could not" not in ends,
            is_true=False,
        )
    if case.world.has_diagrams:  # in no design do their shapes differ
        shapes = [part for part in parts if part.startswith("H")]
        yield Ruling(
            claim="a factor makes a difference to diagrams",
            said=any(NAMED.search(part) for part in shapes),
            is_true=False,
        )


def probes(case: Case) -> Rulings:
    """A factor that can be read is one that the outputs tell of; up to the end, if the late ones do, too."""
    truth = case.truth
    if truth.readable is None or truth.readable_late is None:
        return
    said = re.split(r"; (?=the )|: (?=the )", case.sentence.partition(" Not tried")[0])
    for part in said:
        match = re.match(r"the (prompt|network|seed|model that made it) c(?:an|ould) (not )?be read", part)
        if match:
            factor, is_read = match[1], not match[2]
            yield Ruling(claim=f"the {factor} can be read", said=is_read, is_true=factor in truth.readable)
            is_kept = is_read and "could not" not in part
            is_true = factor in truth.readable_late
            yield Ruling(claim=f"the {factor} can be read up to the end", said=is_kept, is_true=is_true)


def networks(case: Case) -> Rulings:
    """Networks are said to differ where they end at different distances from the start."""
    if case.truth.drift_differs is not None:
        yield Ruling(
            claim="networks end at different distances",
            said="from the start differ between networks" in case.sentence,
            is_true=case.truth.drift_differs,
        )


def forgetting(case: Case) -> Rulings:
    """A p below 0.05 says that the length at the end depends on that of the prompt."""
    if case.truth.length_kept is not None:
        for number in P.findall(case.sentence):
            yield Ruling(
                claim="the length at the end depends on the prompt's (p < 0.05)",
                said=float(number) < LEVEL,
                is_true=case.truth.length_kept,
            )
