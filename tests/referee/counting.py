"""Replicates of the designs, and how often each claim was made where it is true and where it is not."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from threadpoolctl import threadpool_limits

from panic.analysis.checks import AnalysisError
from panic.analysis.questions import QUESTIONS
from panic.errors import NotFound
from tests.referee.designs import DESIGNS
from tests.referee.predicates import PREDICATES
from tests.referee.rulings import Case, Count
from tests.referee.worlds import evidence_of

Counts = dict[tuple[str, str, str], Count]


def name_of(question: object) -> str:
    """The name of a question's module."""
    return str(question.__name__).rpartition(".")[2]  # type: ignore[attr-defined]


def count(designs: Iterable[str], num_replicates: int) -> Counts:
    """Counts by question, claim and design. The same replicates at every call."""
    counts: Counts = {}
    with threadpool_limits(1):  # many small problems: threads wait for each other longer than they work
        for design in designs:
            for replicate in range(num_replicates):
                for question, ruling in _rulings(design, replicate):
                    key = question, ruling.claim, design
                    counts.setdefault(key, Count(level=ruling.level, must_find=ruling.must_find)).add(ruling)
    return counts


def _rulings(design: str, replicate: int):
    """What the predicates say of every question that a world of a design can answer."""
    known = DESIGNS[design]
    world = known.make(np.random.default_rng([replicate, list(DESIGNS).index(design)]))
    with evidence_of(world) as evidence:
        for question in QUESTIONS:
            name = name_of(question)
            if name not in PREDICATES:
                continue
            for view in question.views(evidence):
                try:
                    answer = question.table(evidence, view)
                except (AnalysisError, NotFound):
                    continue
                if answer is None:
                    continue
                case = Case(
                    answer=answer, sentence=question.sentence(answer), world=world, truth=known.truth
                )
                for ruling in PREDICATES[name](case):
                    yield name, ruling
