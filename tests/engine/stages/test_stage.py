"""What stages share: keys that are under way, and the books of a stage whose work is jobs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import pytest

from panic.engine.pool import Bench, Pool
from panic.engine.progress import Progress
from panic.engine.stages.stage import Account, Failed, JobStage
from panic.store import Commit, reading
from panic.store.records import NewStuck
from tests.engine.by_hand import opened


def test_a_key_is_taken_once_until_its_commit_is_stored() -> None:
    account: Account[str] = Account(2)
    assert [account.claim(key) for key in ("a", "b", "a", "c")] == [True, True, False, True]
    account.written(["a"], 1)
    account.written(iter(["b"]), 3)
    account.settle(0)
    assert not account.claim("a")
    account.settle(1)
    assert [account.claim(key) for key in ("a", "b", "c")] == [True, False, False]
    account.settle(7)
    assert [account.claim(key) for key in ("a", "b", "c")] == [False, True, False], "c was not written"
    assert (account.num_found, account.num_done) == (7, 2), "a and b were lacking once more"


def test_keys_of_incomplete_commits_stay_taken() -> None:
    account: Account[str] = Account()
    for number, key in enumerate("abc", 1):
        assert account.claim(key)
        account.written([key], number)
    account.settle(3, incomplete={2})
    assert [account.claim(key) for key in "abc"] == [True, False, True]


@dataclass(frozen=True)
class Job:
    """One of three results each."""

    number: int
    num_results: int = 3

    def __str__(self) -> str:
        return f"job {self.number}"

    def compute(self, bench: Bench) -> Commit:
        raise AssertionError("not here")


class Jobs(JobStage[Job]):
    """Jobs that a test says are lacking."""

    name = "diagrams"
    lacking: Iterable[Job] = ()

    def due(self) -> Iterable[Job]:
        return self.lacking


class Asked:
    """A pool that only knows what it was asked for."""

    def __init__(self) -> None:
        self.jobs: list[tuple[Job, Any]] = []

    def submit(self, job: Job, stage: Any) -> None:
        self.jobs.append((job, stage))


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Jobs]:
    """A stage of which 5 results were there before."""
    with opened(tmp_path / "s") as session:
        before = replace(reading.counts(session.reader), diagrams=5)
        yield Jobs(session, cast("Pool", Asked()), before)


def asked(stage: Jobs) -> list[int]:
    jobs = cast("Asked", stage._pool).jobs
    assert all(asking is stage for _, asking in jobs)
    return [job.number for job, _ in jobs]


def progress(stage: Jobs) -> tuple[int, int]:
    found = stage.progress(Progress()).stages["diagrams"]
    return found.done, found.total


def test_jobs_are_handed_out_once_and_only_if_asked_thoroughly(stage: Jobs) -> None:
    stage.lacking = [Job(1), Job(2)]
    assert stage.refill(thorough=False) == 0
    assert (asked(stage), stage.num_busy, progress(stage)) == ([], 0, (5, 5))
    assert stage.refill(thorough=True) == 2
    assert (asked(stage), stage.num_busy, progress(stage)) == ([1, 2], 2, (5, 11))
    stage.lacking = [Job(1), Job(2), Job(3)]
    assert stage.refill(thorough=True) == 1
    assert (asked(stage), stage.num_busy, progress(stage)) == ([1, 2, 3], 3, (5, 14))


def test_what_a_job_computed_is_written_and_may_be_due_again_when_it_is_stored(stage: Jobs) -> None:
    """A run that has grown has the same job: another diagram."""
    stage.lacking = [Job(1), Job(2)]
    stage.refill(thorough=True)
    result = Commit(stuck=[NewStuck(run=1, entry_step=0, period=2)])
    commit = Commit()
    stage.absorb(Job(1), result, commit)
    assert commit.stuck == result.stuck
    assert (stage.num_busy, progress(stage)) == (1, (8, 11))
    writer = stage.session.writer
    stage.written(commit, writer.added + 1)
    assert stage.refill(thorough=True) == 0, "it is on its way into the store"
    writer.add(Commit())
    writer.flush()
    assert stage.refill(thorough=True) == 1
    assert asked(stage) == [1, 2, 1]
    stage.written(Commit(), writer.added + 1)
    writer.add(Commit())
    writer.flush()
    assert stage.refill(thorough=True) == 0, "nothing more was written"


def test_a_job_without_a_result_is_told_and_not_tried_again(stage: Jobs) -> None:
    stage.lacking = [Job(1), Job(2)]
    stage.refill(thorough=True)
    stage.fail(Job(2), Failed("error", "too large"), Commit())
    assert stage.given_up == ["job 2: too large"]
    assert (stage.num_busy, progress(stage)) == (1, (5, 11))
    stage.written(Commit(), 1)
    stage.session.writer.add(Commit())
    stage.session.writer.flush()
    assert stage.refill(thorough=True) == 0
