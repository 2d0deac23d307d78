"""What is written of commits that cannot be written as a whole: a store that refuses some rows, no files."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from panic.engine.salvage import Salvage, is_nobodys_fault
from panic.errors import StoreError
from panic.store.records import (
    COMMIT_LISTS,
    Commit,
    NewAnswer,
    NewBatch,
    NewDistance,
    NewEmbedding,
    NewFailure,
    NewIntervention,
    NewInvocation,
    NewOutput,
    NewRepeated,
    NewSpending,
    NewStuck,
    NewVectorisation,
)


@pytest.mark.parametrize(
    ("error", "nobodys"),
    [
        (OSError(28, "no space"), True),
        (OSError("image has wrong mode"), False),
        (ValueError("too large"), False),
        (StoreError("full"), True),
        (MemoryError(), True),
        (AssertionError(), True),
        (KeyboardInterrupt(), True),
    ],
)
def test_whose_fault_an_error_is(error: BaseException, nobodys: bool) -> None:
    assert is_nobodys_fault(error) is nobodys


class Refusing:
    """A store that takes commits without rows that are told to be bad.

    written: the names of the lists and the rows that it was given, as far as it took them.
    """

    def __init__(self, *bad: Any) -> None:
        self.bad = bad
        self.written: list[tuple[str, Any]] = []

    def __call__(self, commit: Commit) -> None:
        rows = [(name, row) for name in COMMIT_LISTS for row in getattr(commit, name)]
        for name, row in rows:
            if any(row is bad for bad in self.bad):
                raise ValueError(f"bad {name}")
        self.written += rows


@dataclass(frozen=True)
class Told:
    """What a salvage adds to: broken runs, incomplete commits, problems."""

    broken: set[int] = field(default_factory=set)
    incomplete: set[int] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)


def salvaging(write: Any) -> tuple[Salvage, Told]:
    """The salvage of a writer, and what it tells."""
    told = Told()
    return Salvage(write, told.broken, told.incomplete, told.problems), told


def text(name: str) -> NewOutput:
    return NewOutput(digest=name.encode(), modality="text", text=name)


def step(run: int, number: int, given: str, made: str) -> NewInvocation:
    return NewInvocation(run, number, given.encode(), made.encode(), 7, 1)


BATCH = NewBatch(
    id=1, session=1, model=1, epoch=0, device="cpu", size=2, padded_size=2, started_at=0.0, duration_s=0.0
)
GOOD, BAD, LATER = text("good"), text("bad"), text("later")
VECTOR = NewEmbedding(output=b"good", model=1, batch=1, vector=np.ones(2))
OTHER_VECTOR = NewEmbedding(output=b"good", model=2, batch=1, vector=np.ones(2))
TAKEN = NewVectorisation(diagram=1, dimension=0, measure=1, vector=np.ones(2))
DISTANCE = NewDistance(1, 2, 0, 1, 0.5)


def test_all_is_written_row_by_row_where_nothing_is_bad() -> None:
    write = Refusing()
    salvage, told = salvaging(write)
    stuck, failure = NewStuck(run=1, entry_step=0, period=2), NewFailure(run=3, step=0, kind="x", message="")
    commit = Commit(
        batches=[BATCH], outputs=[GOOD, LATER], stuck=[stuck], failures=[failure], embeddings=[VECTOR],
        vectorisations=[TAKEN], distances=[DISTANCE],
        invocations=[step(1, 0, "prompt", "good"), step(1, 1, "good", "later")],
    )  # fmt: skip
    salvage.store(commit, 5)
    assert write.written == [
        ("batches", BATCH), ("outputs", GOOD), ("outputs", LATER),
        *(("invocations", row) for row in commit.invocations),
        ("stuck", stuck), ("failures", failure), ("embeddings", VECTOR),
        ("vectorisations", TAKEN), ("distances", DISTANCE),
    ]  # fmt: skip
    assert (told.broken, told.incomplete, told.problems) == (set(), set(), [])
    assert salvage.without_broken(commit) is commit


def test_an_output_that_is_refused_ends_the_runs_that_go_through_it() -> None:
    write = Refusing(BAD)
    salvage, told = salvaging(write)
    commit = Commit(
        batches=[BATCH],
        outputs=[BAD, GOOD],
        invocations=[step(2, 4, "x", "bad"), step(2, 5, "bad", "good"), step(1, 0, "prompt", "good")],
        stuck=[NewStuck(run=2, entry_step=0, period=2), NewStuck(run=1, entry_step=0, period=1)],
        failures=[
            NewFailure(run=2, step=6, kind="error", message="later"),
            NewFailure(run=3, step=0, kind="error", message="own"),
        ],
        embeddings=[VECTOR],
    )
    salvage.store(commit, 1)
    assert (told.broken, told.incomplete) == ({2}, set())
    assert salvage.is_stored(GOOD.digest)
    assert not salvage.is_stored(BAD.digest)
    reason = "its text cannot be stored: ValueError: bad outputs"
    failure = NewFailure(run=2, step=4, kind="rejected", message=reason)
    assert write.written == [
        ("batches", BATCH), ("outputs", GOOD), ("invocations", commit.invocations[2]),
        ("stuck", commit.stuck[1]), ("failures", failure), ("failures", commit.failures[1]),
        ("embeddings", VECTOR),
    ]  # fmt: skip


def test_what_broken_runs_compute_meanwhile_is_dropped_and_they_end_once() -> None:
    salvage, told = salvaging(Refusing(BAD))
    salvage.store(Commit(outputs=[BAD], invocations=[step(2, 0, "x", "bad")]), 1)
    later = Commit(
        batches=[BATCH],
        outputs=[BAD, LATER],
        invocations=[step(2, 1, "bad", "later"), step(4, 0, "x", "bad"), step(1, 0, "prompt", "later")],
        stuck=[NewStuck(run=2, entry_step=0, period=2)],
        embeddings=[VECTOR], vectorisations=[TAKEN], distances=[DISTANCE],
        answers=[NewAnswer(batch=1)], spending=[NewSpending(session=1, model=1, requests=1, tokens=2)],
    )  # fmt: skip
    kept = salvage.without_broken(later)
    assert kept.invocations == [step(1, 0, "prompt", "later")]
    assert kept.outputs == [LATER]
    assert [(row.run, row.step, row.kind) for row in kept.failures] == [(4, 0, "rejected")]
    assert kept.stuck == []
    changed = {"invocations", "interventions", "outputs", "stuck", "repeated", "failures"}
    for name in set(COMMIT_LISTS) - changed:
        assert getattr(kept, name) == getattr(later, name)
        assert getattr(kept, name) or name == "diagrams"
    assert told.broken == {2, 4}
    assert salvage.without_broken(later).failures == []


def test_what_steps_in_before_a_step_comes_before_it() -> None:
    """An intervention that cannot be stored takes its step along; one before a step that cannot stays."""

    def steps_in(run: int, number: int, made: str) -> NewIntervention:
        return NewIntervention(run, number, 0, "text", b"x", made.encode(), None, None)

    salvage, told = salvaging(Refusing(BAD))
    salvage.store(Commit(outputs=[BAD]), 1)
    repeated = [NewRepeated(run=run, entry_step=0, period=2, times=3) for run in (1, 3)]
    commit = Commit(
        outputs=[GOOD, BAD],
        interventions=[
            steps_in(1, 4, "bad"), steps_in(2, 4, "good"), steps_in(2, 5, "good"), steps_in(3, 9, "good"),
        ],
        invocations=[
            step(1, 3, "x", "good"), step(1, 4, "bad", "good"),
            step(2, 3, "x", "good"), step(2, 4, "good", "bad"), step(2, 5, "bad", "bad"),
            step(3, 9, "good", "good"),
        ],
        repeated=repeated,
    )  # fmt: skip
    kept = salvage.without_broken(commit)
    assert [(row.run, row.step) for row in kept.interventions] == [(2, 4), (3, 9)]
    assert [(row.run, row.step) for row in kept.invocations] == [(1, 3), (2, 3), (3, 9)]
    assert sorted((row.run, row.step) for row in kept.failures) == [(1, 4), (2, 4)]
    assert (kept.repeated, kept.outputs, told.broken) == (repeated[1:], [GOOD], {1, 2})
    more = Commit(
        interventions=[steps_in(1, 1, "good"), steps_in(3, 1, "good")], invocations=[step(2, 1, "x", "bad")]
    )
    kept = salvage.without_broken(more)
    assert ([row.run for row in kept.interventions], kept.invocations, kept.failures) == ([3], [], [])


def test_an_output_is_not_tried_twice() -> None:
    write = Refusing(BAD)
    salvage, _ = salvaging(write)
    salvage.store(Commit(outputs=[BAD]), 1)
    write.bad = ()
    salvage.store(Commit(outputs=[BAD, GOOD]), 2)
    assert write.written == [("outputs", GOOD)]


def test_any_other_row_that_is_refused_is_told_of_with_its_commit() -> None:
    write = Refusing(BATCH, VECTOR, DISTANCE)
    salvage, told = salvaging(write)
    salvage.store(Commit(outputs=[GOOD], embeddings=[VECTOR, OTHER_VECTOR]), 3)
    assert (told.incomplete, told.problems) == ({3}, ["ValueError: bad embeddings"])
    assert write.written == [("outputs", GOOD), ("embeddings", OTHER_VECTOR)]
    salvage.store(Commit(batches=[BATCH]), 4)
    salvage.store(Commit(outputs=[LATER]), 5)
    salvage.store(Commit(distances=[DISTANCE]), 6)
    assert told.incomplete == {3, 4, 6}
    assert len(told.problems) == 3


def test_what_is_nobodys_fault_is_raised_in_the_middle() -> None:
    def full(commit: Commit) -> None:
        if commit.outputs:
            raise StoreError("full")

    salvage, told = salvaging(full)
    with pytest.raises(StoreError, match="full"):
        salvage.store(Commit(batches=[BATCH], outputs=[GOOD], embeddings=[VECTOR]), 1)
    assert (told.incomplete, salvage.is_stored(GOOD.digest)) == (set(), True)
