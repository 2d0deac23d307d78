"""What a stage is to the driver, and what stages of one sort share.

The driver asks a stage for work, has it done, and gives it every result together with the commit that the
result is to be written in. Work is an `Item` of the ready queue (one input for one model) or a `Job` of the
pool. All of this happens in the driver's thread.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Collection, Hashable, Iterable
from typing import Generic, NamedTuple, Protocol, TypeVar

from panic.engine.calls import Outcome
from panic.engine.contents import Output
from panic.engine.pool import Job, Pool
from panic.engine.progress import Progress
from panic.engine.queue import Item
from panic.engine.session import Session
from panic.models.protocol import Modality
from panic.store import Commit
from panic.store.records import Counts

Work = TypeVar("Work", contravariant=True)
Given = TypeVar("Given", contravariant=True)


Key = TypeVar("Key", bound=Hashable)


class Made(NamedTuple):
    """What an item has become: its output, the model that gave it, the row of its batch."""

    output: Output
    model: str
    batch: int


class Failed(NamedTuple):
    """Why a piece of work has no result after all retries; `model` is empty for jobs."""

    kind: Outcome
    message: str
    detail: str = ""
    model: str = ""


class Stage(Protocol[Work, Given]):
    """One kind of results of an experiment.

    name: as in the store's counts and in what is told of progress. given_up: what stays without a result.
    """

    name: str
    given_up: list[str]

    @property
    def num_busy(self) -> int:
        """Pieces of work that are being done somewhere else than by the workers."""

    def refill(self, *, thorough: bool) -> int:
        """Hand out what has become due; returns how many pieces of work that is.

        thorough: ask the store for everything that it lacks; the driver does so when nothing is on its way.
        Otherwise it asks often, and only what is cheap to know is worth an answer.
        """

    def absorb(self, work: Work, result: Given, commit: Commit) -> None:
        """Take the result of a piece of work, and add what is to be written to the commit."""

    def fail(self, work: Work, failed: Failed, commit: Commit) -> None:
        """Take that a piece of work has no result."""

    def written(self, commit: Commit, number: int) -> None:
        """Take that a commit with results of this stage was handed to the writer as this number."""

    def progress(self, before: Progress) -> Progress:
        """The progress of the whole with that of this stage."""


class Account(Generic[Key]):
    """What a stage has asked for, by keys of its own, and how far that is.

    A key that is under way must not be asked for again, although the store still lacks it. num_found: results
    that there are and that have been found missing so far; num_done: those that there are.

    Args:
        num_before: results that the store had before.
    """

    def __init__(self, num_before: int = 0) -> None:
        self.num_found = self.num_done = num_before
        self._keys: set[Key] = set()
        self._written: deque[tuple[int, list[Key]]] = deque()

    def claim(self, key: Key, num_results: int = 1) -> bool:
        """Take a key that so many results are missing of; False if it is under way already."""
        if key in self._keys:
            return False
        self._keys.add(key)
        self.num_found += num_results
        return True

    def written(self, keys: Iterable[Key], number: int) -> None:
        """The keys' results were handed to the writer in this commit."""
        self._written.append((number, list(keys)))

    def settle(self, committed: int, incomplete: Collection[int] = ()) -> None:
        """All commits up to this number are in the store: their keys are no longer under way.

        Keys of incomplete commits stay claimed: what of them could not be written once is not tried again.
        """
        while self._written and self._written[0][0] <= committed:
            number, keys = self._written.popleft()
            if number not in incomplete:
                self._keys.difference_update(keys)


class CallStage(ABC):
    """A stage whose work is calls of models: items of the ready queue.

    is_pinned: its calls have the pinned shapes of their models: they are recorded as batches, and made
    smaller where memory runs out. memory_hint: what to say where they cannot be, with `{batch_size}`.
    """

    name: str
    is_pinned = True
    memory_hint = ""
    num_busy = 0

    def __init__(self, session: Session) -> None:
        self.session = session
        self.given_up: list[str] = []

    def enqueue(self, model: str, modality: Modality, item: Item, batch_size: int | None = None) -> None:
        """Let an item wait for a model, by default for a batch of its pinned size."""
        self.session.enqueue(self, model, modality, item, batch_size)

    @abstractmethod
    def refill(self, *, thorough: bool) -> int: ...

    @abstractmethod
    def absorb(self, work: Item, result: Made, commit: Commit) -> None: ...

    @abstractmethod
    def fail(self, work: Item, failed: Failed, commit: Commit) -> None: ...

    @abstractmethod
    def written(self, commit: Commit, number: int) -> None: ...

    @abstractmethod
    def progress(self, before: Progress) -> Progress: ...


JobKind = TypeVar("JobKind", bound=Job)


class JobStage(ABC, Generic[JobKind]):
    """A stage whose work is jobs: hands out those that are due, each once, and keeps account of them."""

    name: str

    def __init__(self, session: Session, pool: Pool, before: Counts) -> None:
        self.session, self._pool = session, pool
        self.given_up: list[str] = []
        self.num_busy = 0
        self._account: Account[JobKind] = Account(getattr(before, self.name))
        self._done: list[JobKind] = []

    @abstractmethod
    def due(self) -> Iterable[JobKind]:
        """The jobs whose results the store lacks."""

    def refill(self, *, thorough: bool) -> int:
        """Submit the jobs that are due; only if asked thoroughly, because to know them costs a query."""
        return self.submit_due() if thorough else 0

    def submit_due(self) -> int:
        """Submit the jobs whose results the store lacks and that are not under way; returns how many."""
        writer = self.session.writer
        self._account.settle(writer.committed, writer.incomplete)
        found = 0
        for job in self.due():
            if self._account.claim(job, job.num_results):
                self._pool.submit(job, self)
                found += 1
        self.num_busy += found
        return found

    def absorb(self, work: JobKind, result: Commit, commit: Commit) -> None:
        """Take what a job has computed."""
        commit.extend(result)
        self._done.append(work)
        self.num_busy -= 1
        self._account.num_done += work.num_results

    def fail(self, work: JobKind, failed: Failed, commit: Commit) -> None:
        """Leave a job without a result; it stays claimed, so that this session does not try again."""
        self.num_busy -= 1
        self.given_up.append(f"{work}: {failed.message}")

    def written(self, commit: Commit, number: int) -> None:
        """Know that the results of the jobs that were absorbed are on their way into the store."""
        self._account.written(self._done, number)
        self._done = []

    def progress(self, before: Progress) -> Progress:
        """The progress of the whole with what there is by now, and that plus what was found missing."""
        return before.with_stage(self.name, self._account.num_done, self._account.num_found)
