"""The pool of processes: who gets which job, what becomes of one whose process ends, and what a job gives."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pytest

from panic.config import DiagramSettings
from panic.engine import pool as pools
from panic.engine.ledger import Ledger, Span
from panic.engine.pool import AHEAD, ENVIRONMENT, MAX_RETRIES, PREPARED, Bench, JobResult, Pool, limit_memory
from panic.store import Commit

STORE = Path("nowhere")


@dataclass(slots=True)
class Hand:
    """A process that a test plays: what it was made with, was sent, and how it was ended."""

    entry: str
    arguments: tuple[Any, ...]
    on_message: Any
    on_error: Any
    environment: Any
    hidden: Any
    sent: list[Any] = field(default_factory=list)
    ends: list[str] = field(default_factory=list)

    def send(self, message: Any) -> None:
        self.sent.append(message)

    def kill(self) -> None:
        self.ends.append("kill")

    def close(self) -> None:
        self.ends.append("close")

    def exit_reason(self) -> str:
        return "exit status 7"

    def prepared(self) -> None:
        self.on_message(PREPARED)

    def answers(self, *, took_s: float = 0.0, problem: str = "", spans: Any = ()) -> None:
        """Give the first result that it owes."""
        job = self.sent[0]
        self.sent.remove(job)
        rows = None if problem else Commit()
        self.on_message(JobResult(job=job, rows=rows, problem=problem, duration_s=took_s, spans=spans))

    def ended(self) -> None:
        self.on_message(None)


@dataclass(frozen=True)
class Number:
    """A job that is told by its number."""

    number: int
    name: ClassVar[str] = "numbers"
    num_results: ClassVar[int] = 1

    def compute(self, bench: Bench) -> Commit:
        raise AssertionError("not here")


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Hand]:
    """The processes that a pool has started."""
    found: list[Hand] = []

    def start(*of: Any) -> Hand:
        found.append(Hand(*of))
        return found[-1]

    monkeypatch.setattr(pools, "Child", start)
    return found


def opened(num_workers: int | None = 2, **more: Any) -> tuple[Pool, list[JobResult]]:
    answers: list[Any] = []
    return Pool(STORE, [DiagramSettings()], answers.append, num_workers=num_workers, **more), answers


def submit(pool: Pool, *numbers: int) -> None:
    for number in numbers:
        pool.submit(Number(number), f"stage {number}")


def numbers(sent: list[Any]) -> list[int]:
    return [job.number for job in sent]


def test_a_process_is_made_when_the_first_job_comes_with_its_share_of_the_memory(made: list[Hand]) -> None:
    pool, _ = opened(4, hidden=["KEY"])
    assert (made, pool.is_preparing) == ([], False)
    before = time.monotonic()
    submit(pool, 1)
    [one] = made
    store, settings, memory_bytes, spawned_at = one.arguments
    assert (one.entry, store, settings) == (
        "panic.engine.pool:serve_connection", STORE, (DiagramSettings(),)
    )  # fmt: skip
    assert memory_bytes == pools.open_device("cpu").total_bytes() * 3 // 4 // 4
    assert before <= spawned_at <= time.monotonic()
    assert (one.environment, one.hidden, one.on_error) == (ENVIRONMENT, ("KEY",), pool._deliver)
    assert {ENVIRONMENT[name] for name in ENVIRONMENT if name.endswith("_THREADS")} == {"1"}
    assert {int(size) for name, size in ENVIRONMENT.items() if name.startswith("MALLOC")} == {2**28, 2**25}
    assert (numbers(one.sent), pool.is_preparing) == ([1], True)
    one.prepared()
    assert not pool.is_preparing


def test_as_many_processes_as_cores_unless_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    for cores, said, want in ((6, None, 6), (None, None, 1), (6, 2, 2)):
        monkeypatch.setattr(os, "cpu_count", lambda cores=cores: cores)
        assert opened(said)[0]._num_workers == want


def test_others_start_when_the_first_is_prepared_and_only_while_jobs_wait(made: list[Hand]) -> None:
    pool, answers = opened(3)
    submit(pool, 1, 2, 3, 4, 5)
    assert [numbers(one.sent) for one in made] == [[1]], "the first compiles, and the others find what it has"
    made[0].prepared()
    assert [numbers(one.sent) for one in made] == [[1], [2], [3]]
    made[1].answers(took_s=1.0)
    assert [numbers(one.sent) for one in made] == [[1], [4], [3]]
    for one in (made[0], made[1], made[2], made[0]):
        one.answers(took_s=1.0)
    assert [numbers(one.sent) for one in made] == [[], [], []]
    submit(pool, 6)
    assert len(made) == 3, "one of them is idle"
    assert [(answer.job, answer.stage) for answer in answers] == [  # type: ignore[comparison-overlap]
        (Number(number), f"stage {number}") for number in (2, 1, 4, 3, 5)
    ]


@pytest.mark.parametrize(("took_s", "ahead"), [(0.049, AHEAD), (0.05, 1)])
def test_short_jobs_are_handed_out_ahead(made: list[Hand], took_s: float, ahead: int) -> None:
    assert AHEAD == 16
    pool, _ = opened(1)
    submit(pool, *range(40))
    made[0].prepared()
    made[0].answers(took_s=took_s)
    assert numbers(made[0].sent) == list(range(1, 1 + ahead))
    made[0].answers(problem="too large")
    assert len(made[0].sent) == ahead, "what has failed says nothing of how long others take"
    made[0].answers(took_s=1.0)
    assert len(made[0].sent) == max(1, ahead - 1), "one after another from here on"


def test_who_holds_least_gets_the_next(made: list[Hand]) -> None:
    pool, _ = opened(2)
    submit(pool, 0, 1)
    made[0].prepared()
    made[0].answers()
    submit(pool, *range(2, 6))
    assert [numbers(one.sent) for one in made] == [[2, 3, 5], [1, 4]]


def test_the_job_that_a_process_was_at_comes_last_and_is_given_up_in_the_end(made: list[Hand]) -> None:
    pool, answers = opened(1)
    submit(pool, 0)
    made[0].prepared()
    made[0].answers()
    submit(pool, 1, 2, 3)
    made[0].ended()
    assert numbers(made[1].sent) == [2, 3, 1]
    assert len(answers) == 1
    for turn in range(1, MAX_RETRIES + 1):
        for _ in range(len(made[turn].sent) - 1):
            made[turn].answers()
        assert numbers(made[turn].sent) == [1]
        made[turn].ended()
    assert [numbers(one.sent) for one in made[MAX_RETRIES + 1 :]] == []
    last = answers[-1]
    assert (last.job, last.rows, last.stage) == (Number(1), None, "stage 1")  # type: ignore[comparison-overlap]
    assert last.problem == "its process ended: exit status 7"
    assert pool._children == {}


def test_the_end_of_an_idle_process_is_no_jobs_fault(made: list[Hand]) -> None:
    pool, answers = opened(1)
    submit(pool, 1)
    made[0].prepared()
    made[0].answers()
    made[0].ended()
    made[0].ended()  # nobody knows it any more
    assert len(answers) == 1
    submit(pool, 2)
    assert numbers(made[1].sent) == [2]


def test_a_pool_that_closes_ends_all_and_hears_nobody(made: list[Hand]) -> None:
    pool, answers = opened(2)
    submit(pool, 1, 2, 3)
    made[0].prepared()
    pool.close()
    assert [one.ends for one in made] == [["kill", "close"]] * 2
    made[0].answers()
    made[1].ended()
    assert (answers, len(made)) == ([], 2)


def test_time_is_told_by_the_number_of_the_process(made: list[Hand]) -> None:
    ledger = Ledger()
    pool, _ = opened(2, ledger=ledger)
    submit(pool, 1, 2)
    made[0].prepared()
    for one, name in zip(made, "ab", strict=True):
        one.answers(spans=[Span(name, "", ledger.started_at, ledger.started_at + 0.1)])
    assert [(row["place"], row["name"]) for row in ledger.rows()] == [("pool 1", "a"), ("pool 2", "b")]


@dataclass(frozen=True)
class Ends:
    """A job that raises, or gives rows."""

    error: Exception | None = None

    def compute(self, bench: Bench) -> Commit:
        time.sleep(0.01)
        if self.error is not None:
            raise self.error
        return Commit()


def test_what_becomes_of_a_job_is_told_in_words() -> None:
    bench = Bench(store=None, settings=(), memory_bytes=3 * 2**29)  # type: ignore[arg-type]
    found = [pools._perform(Ends(error), bench) for error in (MemoryError(), ValueError("no"), None)]  # type: ignore
    told = "it needs more than its share of the memory, 1.5 GiB"
    assert [one.problem for one in found] == [told, "ValueError: no", ""]
    assert [one.rows is None for one in found] == [True, True, False]
    assert 0.01 <= found[2].duration_s < 60


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is Linux's")
@pytest.mark.parametrize(("hard", "is_set"), [(-1, True), (2**60, True), (2**21, False)])
def test_a_limit_that_is_there_is_not_raised(
    monkeypatch: pytest.MonkeyPatch, hard: int, is_set: bool
) -> None:
    limits: list[tuple[int, int]] = []
    monkeypatch.setattr(pools.resource, "getrlimit", lambda what: (0, hard))
    monkeypatch.setattr(pools.resource, "setrlimit", lambda what, pair: limits.append(pair))
    limit_memory(2**20)
    assert len(limits) == is_set
    for soft, kept in limits:
        assert kept == hard
        assert soft > 2**20 + 2**24, "what it has already, in bytes"
