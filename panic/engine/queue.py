"""The ready queue: every item that could be computed now, over all networks and stages at once.

An item is one pending model call of one run (or one output to embed, or one image to compute again). Items
wait in lanes: one per stage, model, bucket (inputs of one padded length) and batch size. The queue chooses
what to serve next: full batches of a resident model first, then what is left of resident ones, then the
model with most work, so that a network that does not fit on the device as a whole goes in lockstep: two
swaps per step for *all* runs.

Buckets tell which items may share a batch: those that a model would pad to the same shape. Where a model's
padding follows the longest text of a batch (or the size of its images), mixing lengths would make results
depend on batch mates. The kind of such a model tells the padded length class of an item (`Kind.bucketing`)
without building the model.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from panic.engine.contents import Content, ContentCache, RemoteImage
from panic.models import registry
from panic.models.kind import Bucketer
from panic.models.protocol import Modality, ModelSpec
from panic.store.codec import decode_image

JOINT_IMAGES = -1
"""Bucket of the images of a joint text/image model: a batch is of one modality, too."""


@dataclass(slots=True)
class Item:
    """One input for one model. The queue holds digests, never images.

    subject: what the stage that asked for it gives the result to, such as a run. attempts: those that failed.
    put_off: how often a server has asked to come again later, which is no failure. held: of an image whose
    pixels are in a cluster what keeps them there until the item is done.
    """

    subject: Any
    input: bytes
    seed: int
    attempts: int = 0
    put_off: int = 0
    held: Any = None


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

    def choose(
        self, resident: frozenset[str], *, only_full: bool, serves: Callable[[str], bool] = lambda model: True
    ) -> Lane | None:
        """The lane to serve next, or None.

        Args:
            resident: models on the device.
            only_full: the device is busy, so a short batch can wait to fill up, and so can a load.
            serves: whether who asks has a model at all.
        """
        best: Lane | None = None
        best_rank: tuple[int, ...] = ()
        work = self.work()
        for lane, queue in self._waiting.items():
            if not queue:
                continue
            model = lane.model
            if not serves(model):
                continue
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


class Buckets:
    """The bucket of any item of an experiment's models. Raises what `registry.bucketing` raises."""

    def __init__(self, specs: Mapping[str, ModelSpec], contents: ContentCache) -> None:
        self._specs, self._contents = specs, contents
        self._bucketers: dict[str, Bucketer | None] = {}

    def by_length(self, models: Iterable[str]) -> None:
        """Let only items with as many tokens share a batch of these models, whatever their kind says."""
        self._bucketers |= {name: registry.lengths(self._specs[name]) for name in models}

    def of(self, model: str, digest: bytes, modality: Modality) -> int:
        """The bucket of an output as an input of a model; 0 where all of them fit together."""
        if self._is_joint_image(model, modality):
            return JOINT_IMAGES
        bucketer = self._bucketer(model)
        if bucketer is None:
            return 0
        looks = self._looks_at_pixels(model)
        return bucketer((self._contents.decoded if looks else self._contents.get)(digest, modality))

    def of_content(self, model: str, content: Content) -> int:
        """The bucket of a content that need not be in the store."""
        modality = Modality.TEXT if isinstance(content, str) else Modality.IMAGE
        if self._is_joint_image(model, modality):
            return JOINT_IMAGES
        bucketer = self._bucketer(model)
        if bucketer is None:
            return 0
        if isinstance(content, RemoteImage) and content.encoded and self._looks_at_pixels(model):
            content = decode_image(content.encoded)
        return bucketer(content)

    def _looks_at_pixels(self, model: str) -> bool:
        """Whether a model's buckets may depend on more than an image's size: those of a user's class."""
        return self._specs[model].source.startswith("python:")

    def modality(self, model: str, bucket: int) -> Modality:
        """The modality of the items of a bucket."""
        return Modality.IMAGE if bucket == JOINT_IMAGES else self._specs[model].modalities_in[0]

    def _is_joint_image(self, model: str, modality: Modality) -> bool:
        return modality is Modality.IMAGE and len(self._specs[model].modalities_in) > 1

    def _bucketer(self, model: str) -> Bucketer | None:
        """What tells a model's buckets, asked of its kind when the model's first item comes."""
        if model not in self._bucketers:
            self._bucketers[model] = registry.bucketing(self._specs[model])
        return self._bucketers[model]
