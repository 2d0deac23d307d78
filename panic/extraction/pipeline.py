"""The models are asked here: items are read ahead by threads, put into batches, and answered by a worker.

Items go in blocks. Within a block the items of one bucket share batches, and what is left over at its end is
padded; so which items share a batch, and with them the last bits of their vectors, depends on the items
alone. While one block ends the next is being read and called: the worker always has a call behind the one it
computes.

    pipeline = Pipeline(workers, specs, {"PocketPixels": 32})
    for block in pipeline.blocks(items):
        block.rows(specs)
"""

from __future__ import annotations

import logging
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

from panic.engine.calls import FATAL, Call, CallError, CallResult
from panic.engine.contents import Output, Rejected, size_bytes
from panic.engine.pinning import num_cores
from panic.engine.workers import Workers
from panic.errors import ModelError
from panic.extraction.inputs import Item, Unusable, read
from panic.models import registry
from panic.models.protocol import ModelSpec

log = logging.getLogger("panic.engine")

BLOCK_BATCHES = 8
"""A block is so many of the largest batches: after a kill little more than a block, or a second, is computed
again."""
AHEAD_BYTES = 2**30
"""Decoded images that wait; of large ones as many as there are threads, whatever they take."""
MOST_THREADS = 8
FAILURES_IN_A_ROW = 32
"""Items that a model may fail at, one after the other, before it counts as broken."""
WAIT_S = 0.2


@dataclass(slots=True, kw_only=True)
class Block:
    """Some items in a row, and what has come of them.

    digests: of the items that could be read, by place. vectors: by place and model. reasons: why an item has
    no row, by place. num_waiting: answers that are to come. is_whole: no items come any more.
    """

    items: list[Item] = field(default_factory=list)
    digests: dict[int, bytes] = field(default_factory=dict)
    vectors: dict[int, dict[str, Any]] = field(default_factory=lambda: defaultdict(dict))
    reasons: dict[int, str] = field(default_factory=dict)
    num_waiting: int = 0
    is_whole: bool = False

    def rows(self, models: Iterable[str]) -> list[tuple[Item, bytes, dict[str, Any]]]:
        """The items that all models have answered, in their order, with their digests and vectors."""
        wanted = set(models)
        return [
            (item, self.digests[place], self.vectors[place])
            for place, item in enumerate(self.items)
            if place not in self.reasons and self.vectors[place].keys() == wanted
        ]


@dataclass(frozen=True, slots=True)
class _Waiting:
    """An item of a block on its way to a model."""

    block: Block
    place: int
    content: Any


class Pipeline:
    """It takes items through all models. Used by one thread.

    Args:
        workers: what performs the calls.
        specs: the models by name; every item is one that all of them take.
        batch_sizes: by name.
        check: called now and then; what it raises ends the work.
    """

    def __init__(
        self,
        workers: Workers,
        specs: Mapping[str, ModelSpec],
        batch_sizes: Mapping[str, int],
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self._workers = workers
        self._check = check
        self.batch_sizes = dict(batch_sizes)
        self.open: deque[Block] = deque()
        self._buckets = {name: registry.bucketing(spec) for name, spec in specs.items()}
        self._filling: dict[tuple[str, int], list[_Waiting]] = defaultdict(list)
        self._due: deque[tuple[str, int, list[_Waiting]]] = deque()
        self._calls: dict[int, tuple[Call, list[_Waiting]]] = {}
        self._failures: Counter[str] = Counter()
        self._answered: set[str] = set()
        self._last_failure = ""

    def blocks(self, items: Iterable[Item]) -> Iterator[Block]:
        """Yield blocks of items, in their order, as soon as all is known of them.

        Raises ModelError for a model that is missing, does not fit, or fails at whatever it is given.
        """
        largest = max(self.batch_sizes.values())
        with closing(_read_ahead(iter(items), 2 * largest)) as contents:
            for number, (item, content) in enumerate(contents):
                if number % (BLOCK_BATCHES * largest) == 0:
                    self._end_block()
                    self.open.append(Block())
                self._add(self.open[-1], item, content)
                while self._due:
                    self._go_on()
                yield from self._finished()
        self._end_block()
        while self._due or self._calls:
            self._go_on()
            yield from self._finished()
        yield from self._finished()
        for name in self._failures.keys() - self._answered:
            raise ModelError(f"{name} has failed at every item.", hint=self._last_failure)

    def _finished(self) -> Iterator[Block]:
        while self.open and self.open[0].is_whole and not self.open[0].num_waiting:
            yield self.open.popleft()

    def _end_block(self) -> None:
        """Send what is left over of a block, if there is one."""
        self._due += [(*key, batch) for key, batch in self._filling.items() if batch]
        self._filling.clear()
        if self.open:
            self.open[-1].is_whole = True

    def _add(self, block: Block, item: Item, content: Output | Unusable) -> None:
        place = len(block.items)
        block.items.append(item)
        if isinstance(content, Unusable):
            block.reasons[place] = str(content)
            return
        block.digests[place] = content.digest
        for name, bucketing in self._buckets.items():
            key = name, bucketing(content.value) if bucketing else 0
            self._filling[key].append(_Waiting(block, place, content.value))
            block.num_waiting += 1
            if len(self._filling[key]) >= self.batch_sizes[name]:
                self._due.append((*key, self._filling.pop(key)))

    def _go_on(self) -> None:
        """Give a worker the next call that is due, or take an answer where none takes one."""
        seats = self._workers.open_seats()
        if not self._due or not seats:
            return self._wait()
        name, bucket, batch = self._due.popleft()
        size = self.batch_sizes[name]
        if len(batch) > size:  # memory has become short since
            self._due.appendleft((name, bucket, batch[size:]))
            batch = batch[:size]
        inputs = [one.content for one in batch]
        call = Call(model=name, batch_size=size, inputs=inputs, seeds=[0] * len(batch), bucket=bucket)
        self._calls[self._workers.submit(call, seats[0])] = (call, batch)
        return None

    def _wait(self) -> None:
        """Take one answer, if there is one soon."""
        self._check()
        self._workers.check()
        result = self._workers.next(WAIT_S)
        if isinstance(result, CallResult):
            call, batch = self._calls.pop(result.number)
            if result.error is None:
                self._take(call.model, batch, result.outputs)
            else:
                self._failed(call, batch, result.error)

    def _take(self, name: str, batch: list[_Waiting], outputs: list[Output | Rejected]) -> None:
        self._answered.add(name)
        self._failures[name] = 0
        for one, output in zip(batch, outputs, strict=True):
            one.block.num_waiting -= 1
            if isinstance(output, Output):
                one.block.vectors[one.place][name] = output.value
            else:
                one.block.reasons.setdefault(one.place, f"{name}: {output.reason}")

    def _failed(self, call: Call, batch: list[_Waiting], error: CallError) -> None:
        """Call again: with less where memory was short, else item by item, until it is known which it is."""
        name = call.model
        if error.kind == "memory" and call.batch_size > 1:
            self.batch_sizes[name] = min(self.batch_sizes[name], call.batch_size // 2)
            told = (name, call.batch_size, self.batch_sizes[name])
            log.warning("%s: no room for %d at once, going on with %d", *told)
        elif error.kind in FATAL:
            raise error.fatal(name)
        elif error.kind != "untried" and len(batch) == 1:
            return self._give_up(name, batch[0], error)
        elif error.kind != "untried":
            return self._due.extendleft((name, call.bucket, [one]) for one in reversed(batch))
        return self._due.appendleft((name, call.bucket, batch))

    def _give_up(self, name: str, one: _Waiting, error: CallError) -> None:
        item = one.block.items[one.place]
        one.block.num_waiting -= 1
        one.block.reasons.setdefault(one.place, f"{name}: {error.message}")
        self._failures[name] += 1
        self._last_failure = f"The last one was {item.place} of {item.source}: {error.message}"
        if self._failures[name] >= FAILURES_IN_A_ROW:
            raise ModelError(
                f"{name} has failed at {FAILURES_IN_A_ROW} items in a row.", hint=self._last_failure
            )


def _read_ahead(items: Iterator[Item], most: int) -> Generator[tuple[Item, Output | Unusable], None, None]:
    """Yield items with their contents in their order, while threads read those that come next.

    most: items that are read ahead, fewer where they are so large that they would take more than AHEAD_BYTES.
    """
    num_threads = min(MOST_THREADS, num_cores())
    window: deque[tuple[Item, Future[Output | Unusable]]] = deque()
    largest = 1
    pool = ThreadPoolExecutor(num_threads, thread_name_prefix="decode")
    try:
        for item in items:
            window.append((item, pool.submit(_read, item)))
            while len(window) > max(num_threads, min(num_threads + most, AHEAD_BYTES // largest)):
                item, read = window.popleft()
                content = read.result()
                largest = max(largest, 1 if isinstance(content, Unusable) else size_bytes(content.value))
                yield item, content
        for item, read in window:
            yield item, read.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _read(item: Item) -> Output | Unusable:
    try:
        return read(item)
    except Unusable as error:
        return error
