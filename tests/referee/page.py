"""The page docs/truth.md: what each sentence claims, how often it errs, and what it can find."""

from __future__ import annotations

from collections.abc import Iterator
from textwrap import fill

from tests.referee.counting import Counts, Round, judged
from tests.referee.designs import DESIGNS
from tests.referee.predicates import predicates
from tests.referee.rulings import Count

HEAD = """# How true the sentences of a report are

The sentences of a report were counted against experiments whose truth is known: {num} replicates of each of
the designs below, written into stores without an engine. {scope}{versions}
*False* is how often a claim was made where it is not true, in the design where that is worst; its level is
how often it may be. *Found* is how often it was made where it is true, in the design where that is rarest. A
claim in **bold** errs more often than its level allows, or finds less than half of what is plainly there, by
more than luck: do not trust it yet. Where a design does not say what is true, nobody is judged by it.

Written by `python -m tests.referee`.

## Designs

| design | what it is |
|---|---|
"""
WIDTH = 110
WHOLE = "Every question was asked of each of them."
SHORT = """A design was asked what it is plain for (slow
questions in a quarter of its replicates), and every question in {num} of them."""
VERSIONS = """
They were ruled by {num} versions of the code, of which all replicates count."""
TABLE = "| claim | level | false | found |\n|---|---|---|---|\n"


def page(found: Round) -> str:
    """The page as Markdown."""
    designs = "".join(f"| {name} | {design.what} |\n" for name, design in DESIGNS.items())
    sections = (_section(name, found.counts) for name in judged())
    scope = WHOLE if found.num_whole == found.num_replicates else SHORT.format(num=found.num_whole or "none")
    versions = VERSIONS.format(num=found.num_versions) if found.num_versions > 1 else ""
    head = HEAD.format(num=found.num_replicates, scope=scope, versions=versions)
    return head + designs + "\n" + "\n".join(sections)


def _section(question: str, counts: Counts) -> str:
    """What is known of one question's sentence."""
    meaning = (predicates()[question].__doc__ or "").strip()
    claims = dict.fromkeys(claim for name, claim, _ in counts if name == question)
    rows = "".join(_row(claim, dict(_of(question, claim, counts))) for claim in claims)
    table = TABLE + rows if rows else "No design was asked.\n"
    means = fill(f"The sentence is right if: {meaning}", WIDTH)
    return f"## {question}\n\n{means}\n\n{table}"


def _of(question: str, claim: str, counts: Counts) -> Iterator[tuple[str, Count]]:
    for (name, other, design), found in counts.items():
        if (name, other) == (question, claim):
            yield design, found


def _row(claim: str, by_design: dict[str, Count]) -> str:
    """A claim with its worst designs."""
    false = {design: c for design, c in by_design.items() if c.could_err}
    true = {design: c for design, c in by_design.items() if c.could_hit}
    is_bad = any(c.is_wrong_too_often or c.is_blind for c in by_design.values())
    level = f"{next(iter(by_design.values())).level:.3g}"
    wrong = max(
        false, key=lambda d: (false[d].is_wrong_too_often, false[d].errors / false[d].asked), default=""
    )
    missed = min(true, key=lambda d: (not true[d].is_blind, true[d].hits / true[d].could_hit), default="")
    errors = f"{false[wrong].errors} of {false[wrong].asked} ({wrong})" if wrong else ""
    found = f"{true[missed].hits} of {true[missed].could_hit} ({missed})" if missed else ""
    return f"| {f'**{claim}**' if is_bad else claim} | {level} | {errors} | {found} |\n"
