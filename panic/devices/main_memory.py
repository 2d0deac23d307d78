"""Models of a device that shares main memory with everything else: the CPU, Apple's GPU.

Nothing is copied to such a device and nothing is kept beside it, so a model is there as a whole or not at
all, and what is dropped has to be constructed again. What comes next is not foreseen here: where a model
needs room, those that were used longest ago go first. A model with a call under way never goes.

A cache belongs to the one thread that runs models on its device, and has no locks.

    with cache.lease("PocketDiffusion", batch_size=8) as model:
        model.invoke(prompts, seeds)
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from panic.devices.device import CpuDevice, MainMemory, is_out_of_memory
from panic.devices.events import CacheStats
from panic.devices.shared import SharedWeights, become_views
from panic.devices.transfers import format_bytes
from panic.errors import ModelDoesNotFit, OutOfMemory
from panic.models.protocol import Model

WORTH_COLLECTING = 16 * 2**20
"""Bytes of a dropped model from which on its memory is asked back at once; that takes 20-50 ms."""


@contextmanager
def constructing(name: str) -> Iterator[None]:
    """Give lack of main memory an error of its own: a smaller batch does not help against it."""
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        free = format_bytes(CpuDevice().free_bytes())
        raise ModelDoesNotFit(
            f"{name}: no room in memory to construct it ({free} of main memory are free now): {error}",
            hint="Use a smaller dtype, or fewer models at once.",
        ) from None


@dataclass(slots=True)
class _Held:
    """A constructed model, the bytes of its weights, and how many calls of it are under way."""

    model: Model
    num_bytes: int
    is_loaded: bool = False
    num_leases: int = 0


@dataclass(slots=True)
class MainMemoryCache:
    """Models resident on one device; its names are those of `cache.ModelCache`.

    Args:
        device: where they live.
        build: constructs a model by name, without its weights.
        headroom_bytes: left free for others.
        memory_fraction: share of the device's total memory that may be used.
        weights: what several processes on a CPU share; a page that is written to becomes this one's own.
    """

    device: MainMemory
    build: Callable[[str], Model]
    headroom_bytes: int = 0
    memory_fraction: float = 1.0
    weights: SharedWeights | None = None
    stats: CacheStats = field(default_factory=CacheStats)
    _models: dict[str, _Held] = field(default_factory=dict)  # least recently used first

    @property
    def resident(self) -> frozenset[str]:
        """Names of the models that are loaded."""
        return frozenset(name for name, held in self._models.items() if held.is_loaded)

    @contextmanager
    def lease(
        self, name: str, batch_size: int, upcoming: Sequence[str] = (), *, bucket: int = 0
    ) -> Iterator[Model]:
        """Yield the named model, loaded, with room for what it says that a call needs.

        Args:
            upcoming, bucket: of no use here.

        Raises: ModelDoesNotFit if there is no room for the weights, OutOfMemory if there is none for the
        call's working memory (both with the arithmetic), or what building or loading the model raises.
        """
        held = self._constructed(name)
        self.stats.hits += held.is_loaded
        held.num_leases += 1
        try:
            self._load(name, held)
            stated: Callable[[int], int] | None = getattr(held.model, "working_bytes", None)
            if stated is not None:  # asking how much is free takes 0.4 ms, at every call of a model
                self._make_room(name, stated(batch_size))
            yield held.model
        finally:
            held.num_leases -= 1

    def bring(self, name: str) -> None:
        """Load a model ahead of its first call. Raises what loading raises."""
        held = self._constructed(name)
        held.num_leases += 1
        try:
            self._load(name, held)
        finally:
            held.num_leases -= 1

    def offload(self, name: str) -> bool:
        """Return False: layers that come one after another would take the same memory."""
        return False

    def evict_idle(self) -> int:
        """Drop everything that is not in use. Returns how many models that were."""
        idle = [name for name, held in self._models.items() if not held.num_leases]
        for name in idle:
            self._drop(name)
        return len(idle)

    def ran_out(self, name: str) -> None:
        """Count that a model ran out of memory, while it was loaded or called."""
        self.stats.out_of_memory += 1

    def close(self) -> None:
        """Drop all models."""
        self.evict_idle()
        self._models.clear()

    def _constructed(self, name: str) -> _Held:
        """The model of a name as the one used last, constructed if it was not there."""
        held = self._models.pop(name, None)
        if held is None:
            with constructing(name):
                model = self.build(name)
                held = _Held(model, model.size_bytes)
            self.stats.builds += 1
        self._models[name] = held
        return held

    def _load(self, name: str, held: _Held) -> None:
        """Load a model; without room against all reckoning once more with all else gone."""
        if held.is_loaded:
            return
        try:
            self._make_room(name, held.num_bytes)
        except OutOfMemory as error:
            raise ModelDoesNotFit(error.message, hint=error.hint) from None
        failure = self._attempt(name, held)
        if failure is not None and is_out_of_memory(failure):
            self.ran_out(name)
            failure = None  # its traceback would keep alive what is in the way
            self.evict_idle()
            failure = self._attempt(name, held)
        if failure is None:
            return
        self._models.pop(name, None)
        if is_out_of_memory(failure):
            self.ran_out(name)
            raise ModelDoesNotFit(
                f"{name}: no room on {self.device.name} while its weights were loaded "
                f"({format_bytes(held.num_bytes)}): {self._describe()}"
            )
        raise failure

    def _attempt(self, name: str, held: _Held) -> BaseException | None:
        """Load a model. Returns what went wrong."""
        try:
            if self.weights is not None and name in self.weights.numbers:
                with self.weights.turn():
                    held.model.load(self.device.torch_name)
                    become_views(held.model, name, self.weights, self.device)
            else:
                held.model.load(self.device.torch_name)
        except BaseException as error:
            return error
        held.is_loaded = True
        held.num_bytes = held.model.size_bytes  # quantised weights are smaller than their files
        self.stats.loads += 1
        return None

    def _make_room(self, name: str, num_bytes: int) -> None:
        """Drop models until so many bytes can be taken; free memory is read after each.

        Raises OutOfMemory if there is no room without those that are in use.
        """
        while num_bytes > self._usable_bytes():
            victim = next((n for n, held in self._models.items() if n != name and not held.num_leases), None)
            if victim is None:
                raise OutOfMemory(
                    f"{name} needs {format_bytes(num_bytes)} more on {self.device.name}: {self._describe()}",
                    hint="Use a smaller batch size, a smaller dtype, another device, or less headroom.",
                )
            self._drop(victim)

    def _drop(self, name: str) -> None:
        """Let go of a model, and ask its memory back at once."""
        held = self._models.pop(name)
        self.stats.evictions += held.is_loaded
        num_bytes = held.num_bytes
        del held
        if num_bytes > WORTH_COLLECTING:
            gc.collect()  # models hold themselves by cycles, and by now nothing else holds this one
            if self.weights is not None:
                self.weights.give_back()
        self.device.trim()

    def _usable_bytes(self) -> int:
        """Bytes that may be taken now."""
        return self.device.free_bytes() - self.headroom_bytes - self._withheld_bytes()

    def _withheld_bytes(self) -> int:
        """Bytes that the memory fraction leaves alone."""
        whole = self.memory_fraction >= 1.0
        return 0 if whole else round(self.device.total_bytes() * (1.0 - self.memory_fraction))

    def _describe(self) -> str:
        """Say the arithmetic in words."""
        parts = {
            "held by models in use": sum(held.num_bytes for held in self._models.values() if held.is_loaded),
            "kept as headroom": self.headroom_bytes,
            "beyond the memory fraction": self._withheld_bytes(),
        }
        taken = ", ".join(f"{format_bytes(number)} {what}" for what, number in parts.items() if number)
        free, total = max(0, self._usable_bytes()), self.device.total_bytes()
        return f"{format_bytes(free)} are free of {format_bytes(total)}{f' ({taken})' if taken else ''}"
