"""The ready queue: every item that could be computed now, over all networks and stages at once.

An item is one pending model call of one run (or one output to embed, or one image to compute again). Items
wait in lanes: one per stage, model, bucket (inputs of one padded length) and batch size. The queue chooses
what to serve next: full batches of a resident model first, then what is left of resident ones, then the
model with most work, so that a network that does not fit on the device as a whole goes in lockstep: two
swaps per step for *all* runs.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple


@dataclass(slots=True)
class Item:
    """One input for one model. The queue holds digests, never images.

    subject: what the stage that asked for it gives the result to, such as a run.
    """

    subject: Any
    input: bytes
    seed: int
    attempts: int = 0


class Lane(NamedTuple):
    """Where items wait that may share a call: those of one stage, model, bucket and batch size."""

    stage: Any
    model: str
    bucket: int
    batch_size: int


class ReadyQueue:
    """Items by lane, first in first out within one.

    Args:
        order: position of every model in the experiment; breaks ties.
        eager: models whose inputs are images made by the loop; serving those first keeps few images waiting.
    """

    def __init__(self, order: Mapping[str, int], eager: Collection[str] = ()) -> None:
        self._order, self._eager = order, frozenset(eager)
        self._waiting: dict[Lane, deque[Item]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    def put(self, lane: Lane, item: Item) -> None:
        """Add an item."""
        queue = self._waiting.get(lane)
        if queue is None:
            queue = self._waiting[lane] = deque()
        queue.append(item)

    def put_back(self, lane: Lane, items: Sequence[Item]) -> None:
        """Return items that were taken but not computed to the front, in their old order."""
        self._waiting.setdefault(lane, deque()).extendleft(reversed(items))

    def resize(self, model: str, batch_size: int) -> None:
        """Let everything that waits for a model wait for batches of another size: a shape epoch opens."""
        for lane in [lane for lane in self._waiting if lane.model == model]:
            items = self._waiting.pop(lane)
            self._waiting.setdefault(lane._replace(batch_size=batch_size), deque()).extend(items)

    def choose(self, resident: frozenset[str], *, only_full: bool) -> Lane | None:
        """The lane to serve next, or None.

        Args:
            resident: models on the device.
            only_full: the device is busy, so a short batch can wait to fill up, and so can a load.
        """
        best: Lane | None = None
        best_rank: tuple[int, ...] = ()
        work = self.work()
        for lane, queue in self._waiting.items():
            if not queue:
                continue
            model = lane.model
            is_full = len(queue) >= lane.batch_size
            is_resident = model in resident
            if only_full and not (is_full and is_resident):
                continue
            is_eager = model in self._eager and is_full
            rank = (
                *(is_resident and is_full, is_resident, is_eager),
                *(work[model], len(queue), -self._order[model]),
            )
            if rank > best_rank:
                best, best_rank = lane, rank
        return best

    def take(self, lane: Lane) -> list[Item]:
        """Remove and return up to one batch of items."""
        queue = self._waiting[lane]
        return [queue.popleft() for _ in range(min(len(queue), lane.batch_size))]

    def work(self) -> dict[str, int]:
        """Number of waiting items per model that has any, in no special order."""
        work: dict[str, int] = {}
        for lane, queue in self._waiting.items():
            if queue:
                work[lane.model] = work.get(lane.model, 0) + len(queue)
        return work
