"""The images stage: pixels that the store has lost are computed again from what made them.

Work is what the store lacks: images that invocations refer to and whose bytes are gone. The same model,
seed, input and batch shape give the same pixels (promise 2), and the digest tells whether they did. An
image that comes out differently, or not at all, is not stored: the runs that put it out end with a failure
of the kind "lost". This comes before everything else, because loops and embeddings need the pixels.

    rm panic-store/images.sqlite; panic resume demo
"""

from __future__ import annotations

import logging
import queue
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from panic.engine.buckets import Buckets
from panic.engine.contents import ContentCache
from panic.engine.driver import FATAL, PIPELINE_DEPTH, TICK_S, Inbox, fatal
from panic.engine.executor import Executor, Result, Task
from panic.engine.outputs import Output, Rejected
from panic.engine.progress import Progress
from panic.engine.writer import Entry, Writer
from panic.errors import Interrupted, ModelDoesNotFit
from panic.models.protocol import Modality
from panic.store import Store, images, missing, reading
from panic.store.records import ImageOrigin, NewFailure

log = logging.getLogger("panic.engine")

LOST = "lost"
"""Kind of the failure of a run whose images cannot be computed again."""


@dataclass(slots=True)
class _Call:
    """Images that one call of a model gives again."""

    origins: Sequence[ImageOrigin]
    attempts: int = 0


class Restorer:
    """Computes images again on the executors of an experiment, before its driver uses them.

    Args:
        stop_requested: asked between batches; True finishes what is in flight and raises Interrupted.
    """

    def __init__(
        self,
        *,
        executors: Sequence[Executor],
        inbox: Inbox,
        writer: Writer,
        contents: ContentCache,
        buckets: Buckets,
        max_retries: int,
        stop_requested: Callable[[], bool],
        on_progress: Callable[[Progress], None],
    ) -> None:
        self._executors, self._inbox, self._writer = executors, inbox, writer
        self._contents, self._buckets = contents, buckets
        self._max_retries, self._stop_requested = max_retries, stop_requested
        self._on_progress = on_progress
        self._waiting: deque[_Call] = deque()
        self._flights: dict[int, tuple[int, _Call]] = {}
        self._num_tasks = 0
        self._num_back = 0
        self._reasons: dict[bytes, str] = {}

    def restore(self, store: Store, experiment: int) -> frozenset[bytes]:
        """Bring back an experiment's missing images; returns the digests of those that stay lost.

        Those that an earlier session could not bring back are left alone until their failures are forgotten.

        Raises: Interrupted, ModelMissing and the like for what no retry mends, what writing raised.
        """
        absent = frozenset(missing.images(store, experiment))
        given_up = missing.lost_images(store, experiment) & absent
        wanted = absent - given_up
        if wanted:
            log.warning("%d of the experiment's images are missing: computing them again", len(wanted))
            self._compute(missing.image_origins(store, experiment, wanted), _standing(store, experiment))
            log.info("%d of %d images are back", self._num_back, len(wanted))
            self._give_up(store, experiment)
            self._writer.flush()
        return frozenset(given_up | self._reasons.keys())

    def _compute(self, origins: Sequence[ImageOrigin], standing: Progress) -> None:
        """Compute images again, those first whose input is there."""
        left, total = origins, len(origins)
        while left:
            gone = {origin.digest for origin in left} | self._reasons.keys()
            ready = [origin for origin in left if origin.input not in gone]
            if not ready:
                self._reasons |= {origin.digest: "what it was made from is lost" for origin in left}
                return
            self._waiting.extend(_Call(origins) for origins in self._batches(ready))
            while self._waiting or self._flights:
                if not self._stop_requested():
                    self._feed()
                elif not self._flights:
                    self._writer.flush()
                    raise Interrupted("Stopped; what was computed is stored.", hint="Run it again to go on.")
                self._receive()
                message = f"images computed again: {self._num_back:,} of {total:,}"
                self._on_progress(replace(standing, message=message))
            self._writer.flush()
            left = [origin for origin in left if origin.input in gone]

    def _batches(self, origins: Sequence[ImageOrigin]) -> Iterable[Sequence[ImageOrigin]]:
        """Origins that may share a call: of one model, shape and bucket."""

        def shape(origin: ImageOrigin) -> tuple[str, int, int]:
            bucket = self._buckets.of(origin.model, origin.input, Modality(origin.input_modality))
            return origin.model, origin.batch_size, bucket

        for (_, batch_size, _), group in groupby(sorted(origins, key=shape), key=shape):
            members = list(group)
            yield from (members[at : at + batch_size] for at in range(0, len(members), batch_size))

    def _feed(self) -> None:
        busy = [place for place, _ in self._flights.values()]
        while self._waiting and len(self._flights) < PIPELINE_DEPTH * len(self._executors):
            place = min(range(len(self._executors)), key=busy.count)
            busy.append(place)
            self._submit(place, self._waiting.popleft())

    def _submit(self, place: int, call: _Call) -> None:
        self._num_tasks += 1
        self._flights[self._num_tasks] = (place, call)
        first = call.origins[0]
        self._executors[place].submit(
            Task(
                number=self._num_tasks,
                model=first.model,
                batch_size=first.batch_size,
                inputs=[self._contents.get(o.input, Modality(o.input_modality)) for o in call.origins],
                seeds=[origin.seed for origin in call.origins],
                bucket=self._buckets.of(first.model, first.input, Modality(first.input_modality)),
            )
        )

    def _receive(self) -> None:
        for executor in self._executors:
            executor.check()
        try:
            message = self._inbox.get(timeout=TICK_S)
        except queue.Empty:
            return
        assert isinstance(message, Result), message
        _, call = self._flights.pop(message.number)
        error = message.error
        if error is None:
            for origin, output in zip(call.origins, message.outputs, strict=True):
                self._absorb(call, origin, output)
        elif error.kind == "memory":
            model, size = call.origins[0].model, call.origins[0].batch_size
            hint = f"Images are computed again in the shape that made them, batches of {size}. {error.hint}"
            raise ModelDoesNotFit(f"{model}: {error.message}", hint=hint)
        elif error.kind in FATAL:
            raise fatal(call.origins[0].model, error)
        elif error.kind == "untried":
            self._waiting.appendleft(call)
        else:
            for origin in call.origins:
                self._retry(call, origin, error.message)

    def _absorb(self, call: _Call, origin: ImageOrigin, output: Output | Rejected) -> None:
        if isinstance(output, Rejected):
            self._retry(call, origin, output.reason)
        elif output.digest != origin.digest:
            self._reasons[origin.digest] = f"{origin.model} gives another picture now"
        else:
            self._contents.add_unsaved(output.digest, output.value)
            self._writer.add(Entry(outputs=[output]))
            self._num_back += 1

    def _retry(self, call: _Call, origin: ImageOrigin, reason: str) -> None:
        """Try an image again, alone; then it is lost."""
        if call.attempts >= self._max_retries:
            self._reasons[origin.digest] = f"{origin.model} gives none now: {reason}"
        else:
            self._waiting.append(_Call([origin], call.attempts + 1))

    def _give_up(self, store: Store, experiment: int) -> None:
        """End the runs that put out an image that stays lost, unless they have a failure already."""
        has_failed = {run.id for run in reading.runs(store, experiment) if run.failure is not None}
        users = images.image_users(store, experiment, self._reasons.keys())
        for run, steps in groupby(users, key=lambda user: user[0]):
            lost = {digest: step for _, step, digest in reversed(list(steps))}
            digest, step = min(lost.items(), key=lambda item: item[1])
            message = f"image {digest.hex()} is lost: {self._reasons[digest]}"
            log.warning("run %d, step %d: %s", run, step, message)
            if run not in has_failed:
                detail = "\n".join(digest.hex() for digest in lost)
                failure = NewFailure(run=run, step=step, kind=LOST, message=message, detail=detail)
                self._writer.add(Entry(failures=[failure]))


def _standing(store: Store, experiment: int) -> Progress:
    counts = reading.counts(store, experiment)
    return Progress(
        runs_total=counts.runs,
        runs_ended=counts.done + counts.stuck + counts.failed,
        runs_stuck=counts.stuck,
        runs_failed=counts.failed,
        invocations=counts.invocations,
        invocations_total=counts.invocations,
    )
