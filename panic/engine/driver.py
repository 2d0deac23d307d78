"""The driver: keeps the device busy, absorbs results, hands them to the writer, until nothing is missing.

One thread, one inbox. Workers and diagram pool deliver into the inbox; the driver turns every result into
store entries and successor items. The stages overlap: outputs of runs that have ended are embedded as items
of the same ready queue, diagrams of runs whose vectors are there are computed in processes beside. What is
missing is found by asking the store, so first run, resume, extension and repair are one path.
"""

from __future__ import annotations

import logging
import queue
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from panic.engine.buckets import Buckets
from panic.engine.contents import ContentCache
from panic.engine.diagrams import DiagramStages
from panic.engine.embeddings import EmbeddingStage
from panic.engine.executor import Result, Task, TaskError
from panic.engine.forecast import forecast
from panic.engine.loops import Loops
from panic.engine.outputs import Rejected
from panic.engine.pinning import Pin
from panic.engine.pool import Answer
from panic.engine.progress import Progress, estimate_s
from panic.engine.queue import EMBEDDING_RUN, Item, ReadyQueue
from panic.engine.workers import Seat
from panic.engine.writer import Entry, Writer
from panic.errors import Interrupted, ModelDoesNotFit, ModelError, ModelMissing, PanicError
from panic.store.records import NewBatch

log = logging.getLogger("panic.engine")

PIPELINE_DEPTH = 2
"""Tasks at a worker: one computing, one ready behind it."""
TICK_S = 0.2
FATAL: dict[str, type[PanicError]] = {
    "memory": ModelDoesNotFit,
    "unfit": ModelDoesNotFit,
    "missing": ModelMissing,
    "load": ModelError,
}
"""Kinds of task errors that no retry and no smaller batch mends."""

Inbox = queue.SimpleQueue[Result | Answer]


def fatal(model: str, error: TaskError) -> PanicError:
    """The error with which an experiment ends; it names the model once."""
    named = "" if error.message.startswith(model) else f"{model}: "
    return FATAL[error.kind](f"{named}{error.message}", hint=error.hint)


@dataclass(slots=True)
class _Flight:
    """A task at a worker."""

    seat: Seat
    model: str
    bucket: int
    items: list[Item]
    pin: Pin


class Driver:
    """Performs one experiment's missing work with some workers.

    Args:
        seats: the workers; an idle one is served first.
        next_batch: gives every batch its number.
        open_epoch: records a halved batch size of a model and returns the new pin; called while the
            writer is idle.
        stop_requested: asked between batches; True finishes what is in flight and raises Interrupted.
    """

    def __init__(
        self,
        *,
        pins: dict[str, Pin],
        session: int,
        ready: ReadyQueue,
        loops: Loops,
        embeddings: EmbeddingStage,
        diagrams: DiagramStages | None,
        seats: Sequence[Seat],
        writer: Writer,
        contents: ContentCache,
        buckets: Buckets,
        inbox: Inbox,
        max_retries: int,
        fail_fast: bool,
        next_batch: Callable[[], int],
        open_epoch: Callable[[str, int], Pin],
        stop_requested: Callable[[], bool],
        on_progress: Callable[[Progress], None],
        before: Progress,
    ) -> None:
        self._pins, self._session = pins, session
        self._ready, self._loops = ready, loops
        self._embeddings, self._diagrams = embeddings, diagrams
        self._seats, self._writer, self._inbox = seats, writer, inbox
        self._contents, self._buckets = contents, buckets
        self._max_retries, self._fail_fast = max_retries, fail_fast
        self._next_batch, self._open_epoch = next_batch, open_epoch
        self._stop_requested, self._on_progress = stop_requested, on_progress
        self._flights: dict[int, _Flight] = {}
        self._alone: deque[tuple[str, int, Item]] = deque()
        self._ended_at: deque[tuple[int, int]] = deque()
        self._fatal: PanicError | None = None
        self._told: set[tuple[str, str]] = set()
        self._num_tasks = 0
        self._before = before
        self._invocations = 0
        self._model_seconds: dict[str, float] = {}
        self._started_at = time.monotonic()
        self._progress_at = 0.0

    def perform(self) -> None:
        """Work until the store lacks nothing.

        Raises: Interrupted after a clean stop, ModelMissing and the like for what no retry mends, what
        writing raised. Everything computed before is in the store.
        """
        self._refill_all()
        while True:
            stopping = self._is_stopping()
            self._feed()
            if not self._flights and (stopping or not self._diagrams or not self._diagrams.num_busy):
                self._writer.flush()
                if self._fatal is not None:
                    raise self._fatal
                if stopping:
                    raise Interrupted("Stopped; what was computed is stored.", hint="Run it again to go on.")
                if not self._refill_all() and not self._is_work_left() and not self._refill_last():
                    break
                continue
            self._receive()
        self._report(force=True)
        problems = [*self._embeddings.given_up, *(self._diagrams.given_up if self._diagrams else ())]
        if problems:
            raise ModelError(
                f"{len(problems)} results are missing:\n" + "\n".join(problems[:10]),
                hint="Everything else is stored; run it again to try these again.",
            )

    def _is_stopping(self) -> bool:
        return self._fatal is not None or self._stop_requested()

    def _is_work_left(self) -> bool:
        return bool(len(self._ready) or self._alone or (self._diagrams and self._diagrams.num_busy))

    # Feeding the workers

    def _feed(self) -> None:
        while not self._is_stopping() and any(self._feed_one(seat) for seat in self._open_seats()):
            pass

    def _open_seats(self) -> list[Seat]:
        """Workers that can take a task, idle ones first; those that still start only if all of them do."""
        started = [seat for seat in self._seats if seat.executor.is_ready] or self._seats
        return sorted(
            (seat for seat in started if seat.num_tasks < PIPELINE_DEPTH), key=lambda seat: seat.num_tasks
        )

    def _feed_one(self, seat: Seat) -> bool:
        """Give a worker a task; False if there is none for it."""
        if self._alone:
            model, bucket, item = self._alone.popleft()
            self._submit(seat, model, bucket, [item])
            return True
        chosen = self._ready.choose(seat.resident, only_full=seat.num_tasks > 0)
        if chosen is not None:
            self._submit(seat, *chosen, self._ready.take(*chosen))
        return chosen is not None

    def _submit(self, seat: Seat, model: str, bucket: int, items: list[Item]) -> None:
        modality = self._buckets.modality(model, bucket)
        self._num_tasks += 1
        self._flights[self._num_tasks] = _Flight(seat, model, bucket, items, self._pins[model])
        seat.num_tasks += 1
        seat.resident |= {model}
        seat.executor.submit(
            Task(
                number=self._num_tasks,
                model=model,
                batch_size=self._pins[model].batch_size,
                inputs=[self._contents.get(item.input, modality) for item in items],
                seeds=[item.seed for item in items],
                bucket=bucket,
                upcoming=self._upcoming(seat, model),
            )
        )

    def _upcoming(self, seat: Seat, model: str) -> tuple[str, ...]:
        """Models in the order of their next uses; told once for a stretch of calls of one model."""
        if seat.model != model:
            seat.model = model
            seat.upcoming = forecast(self._loops.standing, self._ready.work(), model, seat.resident)
        return seat.upcoming

    # Absorbing results

    def _receive(self) -> None:
        for seat in self._seats:
            seat.executor.check()
        try:
            message = self._inbox.get(timeout=TICK_S)
        except queue.Empty:
            pass
        else:
            if isinstance(message, Result):
                self._absorb(message)
            elif self._diagrams:
                entry = self._diagrams.absorb(message)
                if entry is not None:
                    self._diagrams.written(message, self._writer.add(entry))
        self._refill_ended()
        self._report()

    def _absorb(self, result: Result) -> None:
        flight = self._flights.pop(result.number)
        flight.seat.num_tasks -= 1
        if result.error is not None:
            self._recover(flight, result.error)
            return
        flight.seat.resident = result.resident
        if flight.pin != self._pins[flight.model]:  # made in a shape epoch that has ended meanwhile
            self._ready.put_back(flight.model, flight.bucket, flight.items)
            return
        pin = flight.pin
        batch = NewBatch(
            id=self._next_batch(),
            session=self._session,
            model=pin.model,
            epoch=pin.epoch,
            device=flight.seat.executor.device,
            size=len(flight.items),
            padded_size=pin.batch_size,
            bucket=flight.bucket,
            started_at=result.started_at,
            duration_s=result.duration_s,
        )
        seconds = self._model_seconds.get(flight.model, 0.0) + result.duration_s
        self._model_seconds[flight.model] = seconds
        entry = Entry(batches=[batch])
        for item, output in zip(flight.items, result.outputs, strict=True):
            if isinstance(output, Rejected):
                self._reject(flight, item, output.reason, entry)
            elif item.run == EMBEDDING_RUN:
                self._embeddings.absorb(item, flight.model, output, batch.id, entry)
            else:
                self._contents.add_unsaved(output.digest, output.value)
                self._loops.absorb(item, flight.model, output, batch.id, entry)
        self._feed()
        self._add(entry, flight.model)

    def _add(self, entry: Entry, model: str) -> None:
        self._invocations += len(entry.invocations)
        number = self._writer.add(entry)
        if entry.embeddings:
            self._embeddings.written(entry, model, number)
        self._ended_at.extend((number, run) for run in self._loops.take_ended())
        if entry.failures and self._fail_fast:
            failure = entry.failures[0]
            self._fatal = ModelError(
                f"{model} failed at step {failure.step}: {failure.message}", hint="fail_fast is on."
            )

    # Failures

    def _recover(self, flight: _Flight, error: TaskError) -> None:
        self._tell(flight, error)
        if error.kind == "untried" or flight.pin != self._pins[flight.model]:
            self._ready.put_back(flight.model, flight.bucket, flight.items)
        elif error.kind == "memory" and flight.pin.batch_size > 1:
            self._halve(flight.model)
            self._ready.put_back(flight.model, flight.bucket, flight.items)
        elif error.kind in FATAL:
            self._fatal = fatal(flight.model, error)
        else:
            entry = Entry()
            alone = len(flight.items) == 1
            for item in reversed(flight.items):
                self._retry(flight, item, error.kind, error.message, error.detail, entry, alone=alone)
            self._add(entry, flight.model)
        flight.seat.resident = frozenset()

    def _tell(self, flight: _Flight, error: TaskError) -> None:
        """Warn of what has not been told before; a model that fails for ten thousand runs is one warning."""
        key = (flight.model, error.message)
        level = logging.INFO if key in self._told else logging.WARNING
        self._told.add(key)
        log.log(level, "%s: a batch of %d gave no result: %s", flight.model, len(flight.items), error.message)
        log.debug("%s", error.detail)

    def _retry(
        self, flight: _Flight, item: Item, kind: str, message: str, detail: str, entry: Entry, *, alone: bool
    ) -> None:
        """Try an item again with the same seed: with its batch, then alone; then it has failed.

        alone: the failure is this item's own, not one of its batch.
        """
        item.attempts += 1
        model = flight.model
        if alone and item.attempts > self._max_retries:
            self._fail(model, item, kind, message, detail, entry)
        elif item.attempts >= self._max_retries:
            self._alone.appendleft((model, flight.bucket, item))
        else:
            self._ready.put_back(model, flight.bucket, [item])

    def _reject(self, flight: _Flight, item: Item, reason: str, entry: Entry) -> None:
        """Try an item with an unusable output again, within a batch: its mates are not at fault."""
        item.attempts += 1
        if item.attempts > self._max_retries:
            self._fail(flight.model, item, "rejected", reason, "", entry)
        else:
            self._ready.put_back(flight.model, flight.bucket, [item])

    def _fail(self, model: str, item: Item, kind: str, message: str, detail: str, entry: Entry) -> None:
        if item.run == EMBEDDING_RUN:
            self._embeddings.fail(item, model, message)
        else:
            self._loops.fail(item, model, kind, message, detail, entry)

    def _halve(self, model: str) -> None:
        """Open a shape epoch with half the batch size, recorded before its first result."""
        self._writer.flush()
        smaller = self._pins[model].batch_size // 2
        self._pins[model] = self._open_epoch(model, smaller)
        self._ready.set_batch_size(model, smaller)
        self._loops.forget(model)
        log.warning("%s: out of memory; its batch size is %d from now on", model, smaller)

    # Stages that follow

    def _refill_ended(self) -> None:
        """Embed the outputs of runs that have ended and are in the store; compute diagrams that are due."""
        committed = self._writer.committed
        while self._ended_at and self._ended_at[0][0] <= committed:
            self._embeddings.refill(committed, self._ended_at.popleft()[1])
        if self._diagrams:
            self._diagrams.refill(committed)

    def _refill_all(self) -> bool:
        """Ask the store for everything that is missing; whether there is something."""
        self._ended_at.clear()
        committed = self._writer.committed
        found = self._embeddings.refill(committed)
        if self._diagrams:
            found += self._diagrams.refill(committed, force=True)
        return found > 0

    def _refill_last(self) -> bool:
        """Compute what needs all diagrams; whether there is something."""
        return self._diagrams is not None and self._diagrams.refill_last(self._writer.committed) > 0

    def _report(self, *, force: bool = False) -> None:
        now = time.monotonic()
        if not force and now < self._progress_at:
            return
        self._progress_at = now + TICK_S
        before, elapsed_s = self._before, now - self._started_at
        remaining = self._loops.remaining_steps
        self._on_progress(
            replace(
                self._diagrams.progress(before) if self._diagrams else before,
                runs_ended=before.runs_total - len(self._loops),
                runs_stuck=before.runs_stuck + self._loops.num_stuck,
                runs_failed=before.runs_failed + self._loops.num_failed,
                invocations=before.invocations + self._invocations,
                invocations_total=before.invocations + self._invocations + remaining,
                embeddings=before.embeddings + self._embeddings.num_done,
                embeddings_total=before.embeddings + self._embeddings.num_found,
                model_seconds=dict(self._model_seconds),
                resident=tuple(sorted({name for seat in self._seats for name in seat.resident})),
                elapsed_s=elapsed_s,
                eta_s=estimate_s(self._invocations, remaining, elapsed_s),
            )
        )
