"""Replicates of the designs, and how often each claim was made where it is true and where it is not."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from multiprocessing import get_context

import numpy as np
from threadpoolctl import threadpool_limits

from panic.analysis.checks import AnalysisError
from panic.analysis.questions import named, stuck
from panic.errors import NotFound
from tests.referee.designs import DESIGNS
from tests.referee.keeping import Kept, Ruled
from tests.referee.predicates import PREDICATES, predicates
from tests.referee.rulings import Case, Count, Ruling
from tests.referee.worlds import World, evidence_of

Counts = dict[tuple[str, str, str], Count]
SUMMARY = "summary"  # the one sentence of a report that belongs to no question
SLOW_SHARE = 4  # questions that take seconds are asked in every fourth replicate of the short round


@dataclass(kw_only=True)
class Round:
    """Counts by question, claim and design, and how many replicates they are of.

    num_replicates: of every design; num_whole: of those, how many were asked every question; num_versions:
    by how many versions of the code they were ruled.
    """

    counts: Counts = field(default_factory=dict)
    num_replicates: int = 0
    num_whole: int = 0
    num_versions: int = 0


def judged() -> list[str]:
    """The names of what has sentences, those of other packages last. LookupError if one has no predicate."""
    names, known = [SUMMARY, *named()], predicates()
    if lacking := ", ".join(name for name in names if name not in known):
        raise LookupError(f"no predicate says whether the sentence is true: {lacking}")
    return names


def work_through(
    designs: Sequence[str],
    num_replicates: int,
    *,
    whole_every: int = 1,
    processes: int = 1,
    limit_s: float = float("inf"),
    after: Callable[[Round], None] = lambda found: None,
    kept: Kept | None = None,
) -> Round:
    """Replicates of all designs, one after the other, and no further one begun after `limit_s` seconds.

    A design is asked what it is plain for, and in every `whole_every`-th replicate (0: in none) everything.
    The same replicates at every call. after: told what is counted so far, after each of them. kept: what was
    ruled by earlier calls, which is not ruled again; what is ruled now is added to it.
    """
    found, started_at = Round(), time.monotonic()
    kept = kept or Kept()
    with ExitStack() as stack:
        spread: Callable[..., Iterator[Ruled]] = map
        if processes > 1:
            spread = stack.enter_context(ProcessPoolExecutor(processes, mp_context=get_context("spawn"))).map
        for replicate in range(num_replicates):
            if time.monotonic() - started_at > limit_s:
                break
            is_whole = bool(whole_every) and replicate % whole_every == 0
            before = {design: kept.get(design, replicate, is_whole) for design in designs}
            left = [design for design, ruled in before.items() if ruled is None]
            ruled_now = spread(_replicate, left, [replicate] * len(left), [is_whole] * len(left))
            for design in designs:
                if (ruled := before[design]) is None:
                    ruled = next(ruled_now)
                    kept.add(design, replicate, is_whole, ruled)
                for question, ruling in ruled:
                    key = question, ruling.claim, design
                    new = Count(level=ruling.level, must_find=ruling.must_find)
                    found.counts.setdefault(key, new).add(ruling)
            found.num_replicates += 1
            found.num_whole += is_whole
            found.num_versions = len(kept.versions)
            after(found)
    return found


def _replicate(design: str, replicate: int, is_whole: bool) -> Ruled:
    """What is ruled of one replicate of a design."""
    with threadpool_limits(1):  # many small problems: threads wait for each other longer than they work
        world = DESIGNS[design].make(np.random.default_rng([replicate, *design.encode()]))
        asked = judged() if is_whole else _asked(design, replicate)
        return list(rulings(design, world, asked))


def _asked(design: str, replicate: int) -> list[str]:
    """What the short round asks of a design in a replicate: what other packages ask, too."""
    asks = DESIGNS[design].asks.split()
    ours = [ask.rstrip("*") for ask in asks if not ask.endswith("*") or replicate % SLOW_SHARE == 0]
    return [*ours, *(name for name in judged() if name not in PREDICATES)]


def rulings(design: str, world: World, asked: Sequence[str]) -> Iterator[tuple[str, Ruling]]:
    """What the predicates say of these questions as a world of a design answers them."""
    truth, rule = DESIGNS[design].truth, predicates()
    with evidence_of(world) as evidence:
        if SUMMARY in asked:
            said = stuck.summary(evidence.whole.rows)
            case = Case(answer=None, sentence=said, view=None, world=world, truth=truth)
            yield from ((SUMMARY, ruling) for ruling in rule[SUMMARY](case))
        for name, question in named().items():
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
                for ruling in rule[name](case):
                    yield name, ruling
