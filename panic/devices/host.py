"""Main memory for weights: one budget, and one copy, for the caches of all devices.

When the budget is exceeded, a cache that brings a model in gives up others of its own. Of a model that
several devices serve, the weights are there once: a second instance becomes views of the first one's buffer
if that holds the same bytes.

This is the one object that the threads of several caches share. Its lock guards the table of parcels alone,
is taken inside of no other lock, and nothing is packed or copied while it is held: two caches that
construct the same model at the same time may both pack it, which costs memory and is no mistake.

Processes have a tier each. With `weights` they share copies, too: then a tier has its part of the budget, and
of what all share the same part counts there.

    host = HostTier(budget_bytes=64 * 2**30)
    caches = [ModelCache(open_device(f"cuda:{n}"), build, host=host) for n in range(2)]
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from threading import Lock
from typing import Protocol
from weakref import WeakSet

from panic.devices.device import OwnMemory
from panic.devices.parcels import HostBuffer, Parcel, pack
from panic.devices.shared import SharedWeights
from panic.models.protocol import Model


class Pack(Protocol):
    """See `parcels.pack`."""

    def __call__(
        self,
        model: Model,
        device: OwnMemory,
        shared: HostBuffer | None = None,
        *,
        pinned: bool = True,
        allocate: Callable[[int], HostBuffer] = ...,
    ) -> Parcel: ...


@dataclass(slots=True)
class HostTier:
    """The parcels that live: what a cache lets go of is counted no more. None is no limit. Thread safe.

    pack: how a model's weights move, given a buffer that may hold them already. What exceeds the budget is
    not page-locked, so that the system may still swap it out. weights: what processes share.
    """

    budget_bytes: int | None = None
    pack: Pack = pack
    weights: SharedWeights | None = None
    _parcels: dict[str, WeakSet[Parcel]] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    @property
    def held_bytes(self) -> int:
        """Bytes in main memory, each buffer once; of what processes share this one's part."""
        parcels = [parcel for name in list(self._parcels) for parcel in self._of(name)]
        own = {id(p.buffer or p): p.host_bytes for p in parcels if p.buffer is None or not p.buffer.is_shared}
        return sum(own.values()) + (self.weights.part(self.weights.held_bytes) if self.weights else 0)

    def lacks(self, num_bytes: int) -> bool:
        """Whether as many more would exceed the budget."""
        return self.budget_bytes is not None and self.held_bytes + num_bytes > self.budget_bytes

    def needed(self, name: str, num_bytes: int) -> int:
        """What a model's bytes add: nothing where they are already, this one's part where they are shared."""
        weights = self.weights
        if self.buffer(name) is not None or (weights is not None and weights.has(name)):
            return 0
        return weights.part(num_bytes) if weights is not None and name in weights.numbers else num_bytes

    def buffer(self, name: str) -> HostBuffer | None:
        """Where the weights of a model are, if some cache has them."""
        return next((parcel.buffer for parcel in self._of(name) if parcel.buffer is not None), None)

    def is_only_user(self, name: str, parcel: Parcel) -> bool:
        """Whether memory comes free when a cache lets go of a parcel."""
        others = [other for other in self._of(name) if other is not parcel]
        return bool(parcel.host_bytes) and all(other.buffer is not parcel.buffer for other in others)

    def take_in(self, name: str, model: Model, device: OwnMemory) -> Parcel:
        """The weights of a constructed model as a parcel. Raises what reading the weights raises."""
        pinned = not self.lacks(self.needed(name, model.size_bytes))
        if self.weights is not None and name in self.weights.numbers:
            parcel = self._share(self.weights, name, model, device, pinned=pinned)
        else:
            parcel = self.pack(model, device, self.buffer(name), pinned=pinned)
        with self._lock:
            self._parcels.setdefault(name, WeakSet()).add(parcel)
        return parcel

    def give_back(self) -> None:
        """Free weights that were shared and that no process uses any more."""
        if self.weights is not None:
            gc.collect()  # a model that is gone holds itself by cycles, and what it maps is in use
            self.weights.give_back()

    def _share(
        self, weights: SharedWeights, name: str, model: Model, device: OwnMemory, *, pinned: bool
    ) -> Parcel:
        """The weights as views of what processes share, which are copied there if this is the first one."""
        with weights.turn():
            known = self.buffer(name) or weights.mapped(name)
            parcel = self.pack(model, device, known, pinned=pinned, allocate=partial(weights.allocate, name))
            weights.filled(name)
        return parcel

    def _of(self, name: str) -> list[Parcel]:
        with self._lock:
            return list(self._parcels.get(name, ()))
