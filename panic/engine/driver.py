"""The driver: keeps the workers busy, gives every result to its stage, until nothing is missing.

One thread, one inbox. Workers and the diagram pool deliver into the inbox of `Workers`; the driver takes
every result to the stage that asked for it, and hands the commit to the writer. The stages of a phase
overlap: outputs of runs that have ended are embedded as items of the same ready queue, diagrams of runs
whose vectors are there are computed in processes beside. What is missing is found by asking the store, so
first run, resume, extension and repair are one path.

    Driver(session, workers, [[images], [loops, embeddings, diagrams], [vectorisations, distances]]).perform()
"""

from __future__ import annotations

import heapq
import logging
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

from panic.engine.calls import FATAL, Call, CallError, CallResult
from panic.engine.contents import Rejected
from panic.engine.forecast import Place, forecast
from panic.engine.pinning import Pin
from panic.engine.pool import JobResult
from panic.engine.progress import Progress
from panic.engine.queue import Item, Lane
from panic.engine.session import Session
from panic.engine.stages.stage import Failed, Made, Stage
from panic.engine.workers import Seat, Workers
from panic.errors import Interrupted, ModelError, PanicError
from panic.store import Commit, writing
from panic.store.records import NewAnswer, NewBatch

log = logging.getLogger("panic.engine")

TICK_S = 0.2
PINNED_HINT = (
    "Its shape is pinned for all shards, so it is not made smaller here. Pin smaller: panic pin CONFIG"
    " --set batch_sizes.MODEL=N -o pins.json, for all shards; or --allow-epochs, and runs may differ."
)

AnyStage = Stage[Any, Any]


@dataclass(slots=True)
class _Flight:
    """A call at a worker, and how its model was pinned when it set out."""

    lane: Lane
    items: list[Item]
    pin: Pin
    seat: Seat


class _Later(NamedTuple):
    """An item that is given back when its time comes; `number` keeps the order of equal times."""

    at: float
    number: int
    lane: Lane
    item: Item


class Driver:
    """Performs one experiment's missing work.

    Args:
        phases: stages that overlap, phase after phase; a phase ends when its stages lack nothing.
        standing: tells where the runs stand, so that workers hear which models come next; else they do not.
        on_epoch: called with a model's name when a shape epoch of it opens.
    """

    def __init__(
        self,
        session: Session,
        workers: Workers,
        phases: Sequence[Sequence[AnyStage]],
        *,
        standing: Callable[[], Mapping[Place, int]] | None = None,
        on_epoch: Callable[[str], None] = lambda model: None,
    ) -> None:
        self._session, self._workers, self._phases = session, workers, phases
        self._standing, self._on_epoch = standing, on_epoch
        self._stages: Sequence[AnyStage] = ()
        self._flights: dict[int, _Flight] = {}
        self._alone: deque[tuple[Lane, Item]] = deque()
        self._answered: list[tuple[Commit, AnyStage, Seat]] = []  # answers that are stored together
        self._later: list[_Later] = []
        self._num_later = 0
        self._spent: PanicError | None = None
        self._is_drained = False
        self._fatal: PanicError | None = None
        self._told: set[tuple[str, str]] = set()
        self._model_seconds: dict[str, float] = {}
        self._first: Progress | None = None
        self._started_at = time.monotonic()
        self._progress_at = 0.0

    def perform(self) -> None:
        """Work until the store lacks nothing.

        Raises: Interrupted after a clean stop, ModelMissing and the like for what no retry mends,
        ModelError for results that stay missing, what writing raised. Everything computed before is in the
        store.
        """
        self._session.clock.switch("driving")
        self._session.writer.on_urgent = self._workers.wake
        for phase in self._phases:
            self._stages = [*self._stages, *phase]
            self._exhaust(phase)
        self._report(force=True)
        problems = [problem for stage in self._stages for problem in stage.given_up]
        problems += [f"a row cannot be stored: {problem}" for problem in self._session.writer.problems]
        if problems:
            raise ModelError(
                f"{len(problems)} results are missing:\n" + "\n".join(problems[:10]),
                hint="Everything else is stored; run it again to try these again.",
            )

    def _exhaust(self, phase: Sequence[AnyStage]) -> None:
        """Work until the stages of a phase lack nothing."""
        clock = self._session.clock
        found = self._refill(phase)
        while found:
            with clock.of("feeding the workers"):
                self._feed()
            stopping = self._is_stopping()
            if stopping and not self._is_drained:
                self._workers.drain()
                self._is_drained = True
            if self._flights or (not stopping and (self._later or any(stage.num_busy for stage in phase))):
                self._receive()
                with clock.of("asking the store"):
                    for stage in phase:
                        stage.refill(thorough=False)
                self._session.ledger.add("driver", clock.take())
                continue
            with clock.of("waiting for the writer"):
                self._session.writer.flush()
            if self._fatal is not None:
                raise self._fatal
            if stopping:
                raise Interrupted("Stopped; what was computed is stored.", hint="Run it again to go on.")
            if len(self._session.ready) and self._spent is None:
                continue  # what was stored meanwhile has made room at an endpoint
            found = self._refill(phase)
            if not found and self._spent is not None:
                raise self._spent

    def _refill(self, phase: Sequence[AnyStage]) -> int:
        """Ask the store for everything that it lacks; returns how many pieces of work were handed out."""
        with self._session.clock.of("asking the store"):
            return sum(stage.refill(thorough=True) for stage in phase)

    def _is_stopping(self) -> bool:
        return self._fatal is not None or self._session.stop_requested()

    # Feeding the workers

    def _feed(self) -> None:
        self._workers.stored(self._session.writer.committed)
        while self._later and self._later[0].at <= time.monotonic():
            due = heapq.heappop(self._later)
            self._session.ready.put_back(self._current(due.lane), [due.item])
        while not self._is_stopping() and any(self._feed_one(seat) for seat in self._workers.open_seats()):
            pass

    def _feed_one(self, seat: Seat) -> bool:
        """Give a worker a call; False if there is none for it."""
        ready = self._session.ready
        if self._alone and self._workers.is_trusted(seat, self._alone[0][0].model):
            lane, item = self._alone.popleft()
            self._submit(seat, lane, [item])
            return True
        chosen = ready.choose(
            seat.resident, only_full=seat.num_calls > 0, serves=partial(self._workers.serves, seat)
        )
        if chosen is None:
            return False
        items = ready.take(chosen)
        if seat.remote and not self._may_send(chosen, items):
            ready.put_back(chosen, items)
            return False
        self._submit(seat, chosen, items)
        return True

    def _may_send(self, lane: Lane, items: list[Item]) -> bool:
        """Whether the budget allows a request; if it does not, and nothing can change that, it is spent."""
        spending = self._session.spending
        assert spending is not None
        if not spending.is_limited:
            return True
        [content] = self._session.inputs(lane, items)
        is_allowed = self._spent is None and spending.allows(lane.model, content)
        if not is_allowed and spending.is_idle:
            self._spent = self._spent or spending.spent()
        return is_allowed

    def _submit(self, seat: Seat, lane: Lane, items: list[Item]) -> None:
        inputs = self._session.inputs(lane, items)
        call = Call(
            model=lane.model,
            batch_size=lane.batch_size,
            inputs=inputs,
            seeds=[item.seed for item in items],
            bucket=lane.bucket,
            upcoming=() if seat.remote else self._upcoming(seat, lane.model),
            attempt=1 + max(item.attempts + item.put_off for item in items),
        )
        number = self._workers.submit(call, seat)
        self._flights[number] = _Flight(lane, items, self._session.pins[lane.model], seat)
        if seat.remote and self._session.spending is not None:
            self._session.spending.send(number, lane.model, inputs[0])

    def _upcoming(self, seat: Seat, model: str) -> tuple[str, ...]:
        """Models in the order of their next uses; told once for a stretch of calls of one model."""
        if self._standing is not None and seat.model != model:
            seat.model = model
            foreseen = forecast(self._standing(), self._session.ready.work(), model, seat.resident)
            seat.upcoming = tuple(name for name in foreseen if self._workers.serves(seat, name))
        return seat.upcoming

    # Absorbing results

    def _receive(self) -> None:
        self._workers.check()
        clock = self._session.clock
        with clock.of("waiting for models" if self._flights else "waiting for diagrams"):
            message = self._workers.next(TICK_S)
        with clock.of("absorbing results"):
            try:
                self._absorb(message)
                while self._answered and (message := self._workers.next(0)) is not None:
                    self._absorb(message)
            finally:  # also where a worker's end is told: what was answered is paid for
                self._store_answers()
        with clock.of("telling progress"):
            self._report()

    def _absorb(self, message: CallResult | JobResult | None) -> None:
        if isinstance(message, JobResult):
            self._absorb_job(message)
        elif message is not None:
            self._absorb_call(message)

    def _absorb_job(self, result: JobResult) -> None:
        commit = Commit()
        if result.rows is not None:
            result.stage.absorb(result.job, result.rows, commit)
        else:
            result.stage.fail(result.job, Failed("error", result.problem), commit)
        self._add(commit, result.stage)

    def _absorb_call(self, result: CallResult) -> None:
        flight = self._flights.pop(result.number)
        lane, seat = flight.lane, flight.seat
        if seat.remote and self._session.spending is not None:
            self._session.spending.settle(result.number, result.usage)
        if result.error is not None:
            self._recover(flight, result.error)
            if seat.remote:
                self._answered.append((Commit(), lane.stage, seat))
            return
        if self._is_outdated(flight):
            self._put_back(flight)
            return
        seconds = self._model_seconds.get(lane.model, 0.0) + result.duration_s
        self._model_seconds[lane.model] = seconds
        commit, batch = Commit(), 0
        if lane.stage.is_pinned:
            batch = self._record(flight, result, commit)
        for item, output in zip(flight.items, result.outputs, strict=True):
            if isinstance(output, Rejected):
                self._reject(lane, item, output.reason, commit)
            else:
                lane.stage.absorb(item, Made(output, lane.model, batch), commit)
        if seat.remote:
            self._answered.append((commit, lane.stage, seat))
        else:
            self._feed()
            self._add(commit, lane.stage)

    def _record(self, flight: _Flight, result: CallResult, commit: Commit) -> int:
        """Add a call's batch to its commit; returns the batch's row."""
        session, lane = self._session, flight.lane
        batch = NewBatch(
            id=writing.next_batch_id(session.store),
            session=session.number,
            model=flight.pin.model,
            epoch=flight.pin.epoch,
            device=result.device,
            size=len(flight.items),
            padded_size=lane.batch_size,
            bucket=lane.bucket,
            started_at=result.started_at,
            duration_s=result.duration_s,
        )
        commit.batches.append(batch)
        if (usage := result.usage) is not None:
            told = {name: getattr(usage, name) for name in NewAnswer.__slots__ if name != "batch"}
            commit.answers.append(NewAnswer(batch=batch.id, **told))
        return batch.id

    def _add(self, commit: Commit, stage: AnyStage) -> None:
        """Hand a commit to the writer, behind what it may refer to."""
        self._store_answers()
        with self._session.clock.of("waiting for the writer"):
            number = self._session.writer.add(commit)
        self._added(commit, stage, number)

    def _store_answers(self) -> None:
        """Let what has come of requests be stored at once; until it is, they keep their places."""
        if not self._answered:
            return
        whole, answered = Commit(), self._answered
        self._answered = []
        for commit, *_ in answered:
            whole.extend(commit)
        if self._session.spending is not None:
            whole.spending.extend(self._session.spending.rows())
        with self._session.clock.of("waiting for the writer"):
            number = self._session.writer.add(whole, is_urgent=True)
        for commit, stage, seat in answered:
            seat.unstored.append(number)
            self._added(commit, stage, number)

    def _added(self, commit: Commit, stage: AnyStage, number: int) -> None:
        stage.written(commit, number)
        if commit.failures and self._session.plan.config.fail_fast:
            failure = commit.failures[0]
            self._fatal = ModelError(
                f"step {failure.step} has failed: {failure.message}", hint="fail_fast is on."
            )

    # Failures

    def _is_outdated(self, flight: _Flight) -> bool:
        """Whether a call was made in a shape epoch that has ended meanwhile."""
        return flight.lane.stage.is_pinned and flight.pin != self._session.pins[flight.lane.model]

    def _put_back(self, flight: _Flight) -> None:
        self._session.ready.put_back(self._current(flight.lane), flight.items)

    def _current(self, lane: Lane) -> Lane:
        """A lane with the batch size that its model has now."""
        if not lane.stage.is_pinned:
            return lane
        return lane._replace(batch_size=self._session.pins[lane.model].batch_size)

    def _recover(self, flight: _Flight, error: CallError) -> None:
        lane, keeps_shapes = flight.lane, self._session.plan.keeps_shapes
        if error.message and (error.kind != "untried" or not flight.seat.remote):
            self._tell(flight, error)
        if error.kind == "untried" or self._is_outdated(flight):
            self._put_back(flight)
        elif error.kind == "busy":
            for item in flight.items:
                item.put_off += 1
                self._put_later(lane, item, error.delay_s)
        elif error.kind == "memory" and lane.batch_size > 1 and lane.stage.is_pinned and not keeps_shapes:
            self._halve(lane.model)
            self._put_back(flight)
        elif error.kind in FATAL:
            hint = lane.stage.memory_hint if error.kind == "memory" else ""
            if error.kind == "memory" and keeps_shapes:
                hint = PINNED_HINT
            self._fatal = error.fatal(lane.model, hint.format(batch_size=lane.batch_size))
        else:
            commit = Commit()
            is_alone = len(flight.items) == 1
            failed = Failed(error.kind, error.message, error.detail, lane.model)
            for item in reversed(flight.items):
                self._retry(lane, item, failed, commit, error, is_alone=is_alone)
            self._add(commit, lane.stage)

    def _tell(self, flight: _Flight, error: CallError) -> None:
        """Warn of what has not been told before; a model that fails for ten thousand runs is one warning."""
        model = flight.lane.model
        level = logging.INFO if (model, error.message) in self._told else logging.WARNING
        self._told.add((model, error.message))
        log.log(level, "%s: a batch of %d gave no result: %s", model, len(flight.items), error.message)
        log.debug("%s", error.detail)

    def _retry(
        self, lane: Lane, item: Item, failed: Failed, commit: Commit, error: CallError, *, is_alone: bool
    ) -> None:
        """Try an item again with the same seed: with its batch, then alone; then it has failed.

        is_alone: the failure is this item's own, not one of its batch.
        """
        item.attempts += 1
        max_retries = self._session.plan.config.max_retries
        if is_alone and (item.attempts > max_retries or error.is_final):
            lane.stage.fail(item, failed, commit)
        elif error.delay_s:
            self._put_later(lane, item, error.delay_s)
        elif item.attempts >= max_retries:
            self._alone.appendleft((lane, item))
        else:
            self._session.ready.put_back(lane, [item])

    def _put_later(self, lane: Lane, item: Item, delay_s: float) -> None:
        """Give an item back after a while."""
        self._num_later += 1
        heapq.heappush(self._later, _Later(time.monotonic() + delay_s, self._num_later, lane, item))

    def _reject(self, lane: Lane, item: Item, reason: str, commit: Commit) -> None:
        """Try an item with an unusable output again, within a batch: its mates are not at fault."""
        item.attempts += 1
        if item.attempts > self._session.plan.config.max_retries:
            lane.stage.fail(item, Failed("rejected", reason, model=lane.model), commit)
        else:
            self._session.ready.put_back(lane, [item])

    def _halve(self, model: str) -> None:
        smaller = self._session.halve(model).batch_size
        self._alone = deque((self._current(lane), item) for lane, item in self._alone)
        self._on_epoch(model)
        log.warning("%s: out of memory; its batch size is %d from now on", model, smaller)

    # Progress

    def _report(self, *, force: bool = False) -> None:
        now = time.monotonic()
        if not force and now < self._progress_at:
            return
        self._progress_at = now + TICK_S
        progress = Progress()
        for stage in self._stages:
            progress = stage.progress(progress)
        self._first = self._first or progress
        elapsed_s = now - self._started_at
        done = progress.invocations - self._first.invocations
        remaining = progress.invocations_total - progress.invocations
        self._session.on_progress(
            replace(
                progress,
                model_seconds=dict(self._model_seconds),
                resident=tuple(sorted(self._workers.resident)),
                elapsed_s=elapsed_s,
                eta_s=_estimate_s(done, remaining, elapsed_s),
            )
        )


def _estimate_s(done: int, remaining: int, elapsed_s: float) -> float | None:
    """Seconds left at the mean speed so far; None while nothing is known."""
    if remaining == 0:
        return 0.0
    return elapsed_s / done * remaining if done else None
