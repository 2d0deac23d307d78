"""Replicates of the designs, and how often each claim was made where it is true and where it is not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
from threadpoolctl import threadpool_limits

from panic.analysis.checks import AnalysisError
from panic.analysis.questions import QUESTIONS, stuck
from panic.errors import NotFound
from tests.referee.designs import DESIGNS
from tests.referee.predicates import PREDICATES
from tests.referee.rulings import Case, Count, Ruling
from tests.referee.worlds import World, evidence_of

Counts = dict[tuple[str, str, str], Count]
SUMMARY = "summary"  # the one sentence of a report that belongs to no question
SLOW_SHARE = 4  # questions that take seconds are asked in every fourth replicate of the short round


def name_of(question: object) -> str:
    """The name of a question's module."""
    return str(question.__name__).rpartition(".")[2]  # type: ignore[attr-defined]


def count(
    designs: Sequence[str], num_replicates: int, *, asks_all: bool = True, processes: int = 1
) -> Counts:
    """Counts by question, claim and design. The same replicates at every call.

    Without `asks_all`, of a design only what it `asks`.
    """
    jobs = [(design, num_replicates, asks_all) for design in designs]
    if processes == 1:
        parts = [_count_one(*job) for job in jobs]
    else:
        with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
            parts = list(pool.map(_count_one, *zip(*jobs, strict=True)))
    return {key: found for part in parts for key, found in part.items()}


def _count_one(design: str, num_replicates: int, asks_all: bool) -> Counts:
    """The counts of one design."""
    counts: Counts = {}
    with threadpool_limits(1):  # many small problems: threads wait for each other longer than they work
        for replicate in range(num_replicates):
            world = DESIGNS[design].make(np.random.default_rng([replicate, *design.encode()]))
            asked = list(PREDICATES) if asks_all else _asked(design, replicate)
            for question, ruling in rulings(design, world, asked):
                key = question, ruling.claim, design
                counts.setdefault(key, Count(level=ruling.level, must_find=ruling.must_find)).add(ruling)
    return counts


def _asked(design: str, replicate: int) -> list[str]:
    """What the short round asks of a design in a replicate."""
    asks = DESIGNS[design].asks.split()
    return [ask.rstrip("*") for ask in asks if not ask.endswith("*") or replicate % SLOW_SHARE == 0]


def rulings(design: str, world: World, asked: Sequence[str]) -> Iterator[tuple[str, Ruling]]:
    """What the predicates say of these questions as a world of a design answers them."""
    truth = DESIGNS[design].truth
    with evidence_of(world) as evidence:
        if SUMMARY in asked:
            said = stuck.summary(evidence.whole.rows)
            case = Case(answer=None, sentence=said, view=None, world=world, truth=truth)
            yield from ((SUMMARY, ruling) for ruling in PREDICATES[SUMMARY](case))
        for question in QUESTIONS:
            name = name_of(question)
            for view in question.views(evidence) if name in asked else ():
                try:
                    answer = question.table(evidence, view)
                except (AnalysisError, NotFound):
                    continue
                if answer is None:
                    continue
                case = Case(
                    answer=answer, sentence=question.sentence(answer), view=view, world=world,
                    truth=truth,
                )  # fmt: skip
                for ruling in PREDICATES[name](case):
                    yield name, ruling
