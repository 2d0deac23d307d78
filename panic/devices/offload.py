"""The last resort for a model that does not fit: its layers come one after another while it computes.

Layers are the elements of its lists and sequences of modules. A layer's blocks are brought when its forward
pass begins and dropped when another one needs their room; everything else stays for the whole call, and so
do as many layers as there is room for. Nothing else changes: the same kernels on the same shapes give the
same results, only slower.

    arrangement = arrange(parcel, sizes, room_bytes)
    with streamed(parcel, sizes, arrangement, device):
        model.invoke(prompts, seeds)
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from panic.devices.device import OwnMemory
from panic.devices.parcels import Parcel
from panic.devices.residency import CachedModel, Residency
from panic.devices.room import Need, Room, WorkingMemory
from panic.devices.transfers import format_bytes
from panic.errors import ModelDoesNotFit

log = logging.getLogger("panic.devices")

GROWN = 1.05
"""A model is tried as a whole again where there is as many times the room that it outgrew."""


@dataclass(slots=True)
class Offloading:
    """Decides for the models of one cache, whose parts these are, which come in layers, and brings those."""

    residency: Residency
    room: Room
    working: WorkingMemory

    def begin(self, name: str) -> bool:
        """Bring a model's layers one after another as long as there is no more room than now.

        Returns False if it has none or does so already.
        """
        device, cached = self.residency.device, self.residency.models.get(name)
        if cached is None or cached.is_offloaded or cached.is_undivided:
            return False
        if arrange(cached.parcel, cached.sizes, device.total_bytes()) is None:
            return False
        cached.outgrown_bytes = self.room.usable_bytes(prudent=False) + self.residency.idle_bytes(cached)
        log.warning("%s does not fit on %s: its layers come one after another", name, device.name)
        self.residency.events.add("offload", model=name)
        return True

    def end_where_it_fits(self, cached: CachedModel, bucket: int, batch_size: int) -> None:
        """Have an offloaded model whole again where there is clearly more room than when it outgrew it."""
        if cached.outgrown_bytes is None:
            return
        # What is known of its calls in layers has layers in it, so it is more than enough.
        stated = cached.stated_working_bytes
        names = (cached.name, cached.working_name)
        wanted = max(self.working.need(name, bucket, batch_size, stated).wanted for name in names)
        available = self.room.usable_bytes() + self.residency.idle_bytes(cached)
        if available >= max(cached.size + wanted, GROWN * cached.outgrown_bytes):
            cached.outgrown_bytes = None
            log.warning("%s fits on %s again", cached.name, self.residency.device.name)
            self.residency.events.add("fits", model=cached.name)

    @contextmanager
    def call(self, cached: CachedModel, need: Need) -> Iterator[int]:
        """Bring an offloaded model's layers during a call, as many of them staying as are known to fit.

        Yields the bytes for those that come and go. Raises ModelDoesNotFit if not even one layer at a time
        fits.
        """
        residency = self.residency
        residency.drop_idle("offload")  # a layer that stays is copied once per call, not per pass through it
        if cached.num_loaded:
            residency.drop(cached.name, None, "offload")
        usable = max(0, self.room.usable_bytes(prudent=False))
        arrangement = arrange(cached.parcel, cached.sizes, usable - need.wanted, fill=need.is_known)
        if arrangement is None:
            held_bytes = sum(residency.held().values())
            raise ModelDoesNotFit(
                f"{cached.name}: not even one layer at a time fits on {residency.device.name} beside "
                f"{format_bytes(need.wanted)} for the call: {self.room.describe(held_bytes)}",
                hint="Use a smaller dtype, another device, or less headroom.",
            )
        with streamed(cached.parcel, cached.sizes, arrangement, residency.device) as num_copied:
            try:
                yield arrangement.window_bytes
            finally:
                residency.stats.streamed_bytes += num_copied()
                residency.events.add("streamed", model=cached.name, bytes=num_copied())


@dataclass(frozen=True, slots=True)
class Arrangement:
    """Blocks by number: those that stay for the whole call, and for every other layer those it needs.

    num_bytes: on the device at the most, working memory not counted. window_bytes: the share of layers that
    come and go in that.
    """

    stays: tuple[int, ...]
    layers: tuple[tuple[Any, tuple[int, ...]], ...]
    num_bytes: int
    window_bytes: int


def arrange(
    parcel: Parcel, sizes: Sequence[int], room_bytes: int, *, fill: bool = True
) -> Arrangement | None:
    """Say what stays and what comes and goes within some room; None if not even one layer at a time fits.

    Layers of more than half the room are taken apart where that fits: what is in no list of theirs stays.

    Args:
        sizes: what the parcel's blocks take on the device.
        fill: whether layers stay as long as there is room.
    """
    half = room_bytes // 2
    larger = {size for size in map(_num_bytes, _elements(parcel.modules)) if half < size <= room_bytes}
    tried = (_arranged(parcel, sizes, room_bytes, limit, fill=fill) for limit in (half, *sorted(larger)))
    return next((found for found in tried if found is not None), None)


def _arranged(
    parcel: Parcel, sizes: Sequence[int], room_bytes: int, limit_bytes: int, *, fill: bool
) -> Arrangement | None:
    """As `arrange`, with layers of at most `limit_bytes`."""
    block_of = {id(tensor): number for number, block in enumerate(parcel.blocks) for tensor in block.held}
    needs = [
        (layer, tuple(sorted({block_of[id(tensor)] for tensor in _tensors(layer)})))
        for module in parcel.modules
        for layer in _layers(module, limit_bytes)
    ]
    in_layers = {id(tensor) for layer, _ in needs for tensor in _tensors(layer)}
    outside = {block_of[key] for key in block_of if key not in in_layers}

    def window(stays: set[int]) -> int:
        each = (sum(sizes[number] for number in need if number not in stays) for _, need in needs)
        return max(each, default=0)

    def total(stays: set[int]) -> int:
        return sum(sizes[number] for number in stays) + window(stays)

    if total(outside) > room_bytes:
        return None
    stays = set(outside)
    for number in range(len(sizes) if fill else 0):
        if total(stays | {number}) <= room_bytes:
            stays.add(number)
    layers = ((layer, tuple(number for number in need if number not in stays)) for layer, need in needs)
    return Arrangement(tuple(sorted(stays)), tuple(layers), total(stays), window(stays))


@contextmanager
def streamed(
    parcel: Parcel, sizes: Sequence[int], arrangement: Arrangement, device: OwnMemory
) -> Iterator[Callable[[], int]]:
    """Keep a model callable, its layers brought by hooks in the thread that calls it.

    Yields a function that says how many bytes were copied so far. Raises what allocating and copying raises.
    """
    num_copied = 0
    there: list[int] = []  # oldest first
    active: list[Sequence[int]] = []

    def bring(numbers: Sequence[int]) -> None:
        nonlocal num_copied
        blocks = [parcel.blocks[number] for number in numbers]
        for number, block in zip(numbers, blocks, strict=True):
            device.reserve(block.num_bytes)
            there.append(number)
            block.allocate()
        device.transfer(blocks, ahead=False).wait()
        for block in blocks:
            block.bind()
            num_copied += block.num_bytes

    def drop(numbers: Sequence[int]) -> None:
        for number in numbers:
            there.remove(number)
            parcel.blocks[number].drop()
            device.release(parcel.blocks[number].num_bytes)

    def make_room(needed: Sequence[int]) -> None:
        room = arrangement.num_bytes - sum(sizes[number] for number in needed)
        for number in list(there):
            in_use = number in arrangement.stays or any(number in numbers for numbers in active)
            if sum(sizes[other] for other in there) > room and not in_use:
                drop([number])

    def hook(stack: ExitStack, layer: Any, numbers: Sequence[int]) -> None:
        def before(*_: Any) -> None:
            active.append(numbers)
            missing = [number for number in numbers if number not in there]
            make_room(missing)
            bring(missing)

        def after(*_: Any) -> None:
            active.pop()

        stack.callback(layer.register_forward_pre_hook(before).remove)
        stack.callback(layer.register_forward_hook(after).remove)

    with ExitStack() as stack:
        stack.callback(lambda: drop(list(there)))  # after the hooks are gone, whatever happened
        bring(arrangement.stays)
        for layer, numbers in arrangement.layers:
            if numbers:
                hook(stack, layer, numbers)
        yield lambda: num_copied


def _layers(module: Any, limit_bytes: int) -> list[Any]:
    """Elements of lists and sequences, outermost first; one that is too large is taken apart."""
    is_list, found = _is_list(module), []
    for child in module.children():
        found += [child] if is_list and _num_bytes(child) <= limit_bytes else _layers(child, limit_bytes)
    return found


def _elements(modules: Sequence[Any]) -> list[Any]:
    """Elements of all lists and sequences, also of those within others."""
    lists = (part for module in modules for part in module.modules() if _is_list(part))
    return [child for part in lists for child in part.children()]


def _is_list(module: Any) -> bool:
    import torch

    return isinstance(module, torch.nn.ModuleList | torch.nn.Sequential)


def _num_bytes(module: Any) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in _tensors(module))


def _tensors(module: Any) -> list[Any]:
    return [*module.parameters(), *module.buffers()]
