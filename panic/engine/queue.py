"""The ready queue: every item that could be computed now, over all networks at once.

An item is one pending model call of one run (or one output to embed). Items wait per model and per bucket
(inputs of one padded length). The queue chooses what to serve next: full batches of a resident model
first, then what is left of resident ones, then the model with most work, so that a network that does not
fit on the device as a whole goes in lockstep: two swaps per step for *all* runs.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

EMBEDDING_RUN = 0
"""Run id of items that embed an output and belong to no run (SQLite's row ids start at 1)."""


@dataclass(slots=True)
class Item:
    """One input for one model. The queue holds digests, never pixels."""

    run: int
    step: int
    input: bytes
    seed: int
    attempts: int = 0


@dataclass(frozen=True, slots=True)
class Lane:
    """Where items of one model wait.

    order: position of the model in the experiment, breaks ties. eager: its inputs are images made by the
    loop; serving those first keeps few pixels waiting.
    """

    model: str
    batch_size: int
    order: int
    eager: bool


class ReadyQueue:
    """Items by model and bucket, first in first out within one."""

    def __init__(self, lanes: Iterable[Lane]) -> None:
        self._lanes = {lane.model: lane for lane in lanes}
        self._waiting: dict[tuple[str, int], deque[Item]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    def put(self, model: str, bucket: int, item: Item) -> None:
        """Add an item."""
        queue = self._waiting.get((model, bucket))
        if queue is None:
            queue = self._waiting[model, bucket] = deque()
        queue.append(item)

    def put_back(self, model: str, bucket: int, items: Sequence[Item]) -> None:
        """Return items that were taken but not computed to the front, in their old order."""
        self._waiting.setdefault((model, bucket), deque()).extendleft(reversed(items))

    def set_batch_size(self, model: str, batch_size: int) -> None:
        """Open a new shape epoch of a model."""
        lane = self._lanes[model]
        self._lanes[model] = Lane(model, batch_size, lane.order, lane.eager)

    def choose(self, resident: frozenset[str], *, only_full: bool) -> tuple[str, int] | None:
        """The (model, bucket) to serve next, or None.

        Args:
            resident: models on the device.
            only_full: the device is busy, so a short batch can wait to fill up, and so can a load.
        """
        best: tuple[str, int] | None = None
        best_rank: tuple[int, ...] = ()
        work = self.work()
        for (model, bucket), queue in self._waiting.items():
            if not queue:
                continue
            lane = self._lanes[model]
            full = len(queue) >= lane.batch_size
            here = model in resident
            if only_full and not (full and here):
                continue
            rank = (here and full, here, lane.eager and full, work[model], len(queue), -lane.order)
            if best is None or rank > best_rank:
                best, best_rank = (model, bucket), rank
        return best

    def take(self, model: str, bucket: int) -> list[Item]:
        """Remove and return up to one batch of items."""
        queue = self._waiting[model, bucket]
        count = min(len(queue), self._lanes[model].batch_size)
        return [queue.popleft() for _ in range(count)]

    def work(self) -> dict[str, int]:
        """Number of waiting items per model that has any, in no special order."""
        work: dict[str, int] = {}
        for (model, _), queue in self._waiting.items():
            if queue:
                work[model] = work.get(model, 0) + len(queue)
        return work
