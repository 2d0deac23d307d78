"""The embeddings stage: each distinct output is embedded once per embedding model in a store.

Work is what the store lacks: outputs of the runs that have ended, prompts included, without a vector. It
becomes items of the same ready queue that the loops use.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from panic.engine.buckets import Buckets
from panic.engine.outputs import Output
from panic.engine.pending import Pending
from panic.engine.pinning import Pin
from panic.engine.queue import EMBEDDING_RUN, Item
from panic.engine.writer import Entry
from panic.models.protocol import Modality
from panic.models.spec import ModelSpec
from panic.store import Store, missing
from panic.store.records import NewEmbedding


class EmbeddingStage:
    """Finds outputs without vectors and keeps account of them.

    Args:
        store: for reading.
        enqueue: called with (model, bucket, item).
        lost: images whose pixels are gone for good.
    """

    def __init__(
        self,
        store: Store,
        experiment: int,
        specs: Mapping[str, ModelSpec],
        pins: Mapping[str, Pin],
        buckets: Buckets,
        enqueue: Callable[[str, int, Item], None],
        lost: frozenset[bytes] = frozenset(),
    ) -> None:
        self._store, self._experiment = store, experiment
        self._specs, self._pins, self._buckets, self._enqueue = specs, pins, buckets, enqueue
        self._lost = lost
        self._pending: Pending[tuple[str, bytes]] = Pending()
        self.num_found = 0
        self.num_done = 0
        self.given_up: list[str] = []

    def refill(self, committed: int, run: int | None = None) -> int:
        """Enqueue what the store lacks, of one run or of the whole experiment; how many items that is."""
        self._pending.settle(committed)
        found = 0
        for name, spec in self._specs.items():
            lacking = missing.embeddings(
                self._store, self._experiment, self._pins[name].model, spec.modalities_in, run=run
            )
            for digest, kind in lacking:
                if digest not in self._lost and self._pending.claim((name, digest)):
                    bucket = self._buckets.of(name, digest, Modality(kind))
                    self._enqueue(name, bucket, Item(EMBEDDING_RUN, 0, digest, 0))
                    found += 1
        self.num_found += found
        return found

    def absorb(self, item: Item, model: str, output: Output, batch: int, entry: Entry) -> None:
        """Take an item's vector."""
        entry.embeddings.append(
            NewEmbedding(output=item.input, model=self._pins[model].model, batch=batch, vector=output.value)
        )
        self.num_done += 1

    def fail(self, item: Item, model: str, message: str) -> None:
        """Leave an output without a vector; it stays claimed, so that this session does not try again."""
        self.given_up.append(f"{model}: output {item.input.hex()[:12]} has no vector: {message}")

    def written(self, entry: Entry, model: str, entry_number: int) -> None:
        """The entry's vectors were handed to the writer."""
        self._pending.written([(model, row.output) for row in entry.embeddings], entry_number)
