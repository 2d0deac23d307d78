"""How a model's weights move: as blocks of one flat buffer in main memory, or as a whole.

A slab is built once: every parameter and buffer of a model's modules is copied into one flat, exactly sized
(and, for a GPU, page-locked) buffer, and becomes a view of it. On the device the same bytes live in
blocks, each an allocation of its own: a block that arrives takes its tensors over, a block that is
dropped gives them back to main memory. So nothing is ever copied back, any number of blocks may stay, and a
model that is used while a part is missing fails loudly instead of computing with stale memory.

Modules with tensors of special kinds (quantised ones) move as a whole, by `load`.

    parcel = pack(model, device)
    for block in parcel.blocks: block.allocate(); block.fill(); block.bind()
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from panic.devices.device import Device, OwnMemory
from panic.devices.transfers import Block
from panic.models.protocol import Model

KIB, MIB = 2**10, 2**20
ALIGNMENT = 256
"""Bytes; what cudaMalloc gives, so that kernels see the alignment they would see anyway."""
NUM_BLOCKS = 32
MIN_BLOCK, MAX_BLOCK = 64 * KIB, 64 * MIB

log = logging.getLogger("panic.devices")


class Movable(Block, Protocol):
    """A block with its life on the device: allocate, fill, bind, drop."""

    @property
    def held(self) -> Sequence[Any]:
        """The tensors whose bytes it holds; empty if that is not known."""

    def allocate(self) -> None:
        """Take memory on the device."""

    def bind(self) -> None:
        """Let the model use it; only after its copy has ended."""

    def drop(self) -> None:
        """Give the memory back; the model must not be running."""


class HostBuffer:
    """Bytes in main memory that models are views of; page-locked, if so, for as long as this object lives.

    is_shared: other processes may map the same bytes.
    """

    __slots__ = ("__weakref__", "data", "is_pinned", "is_shared")

    def __init__(self, data: Any, *, is_shared: bool = False) -> None:
        self.data = data
        self.is_pinned = False
        self.is_shared = is_shared


@dataclass(slots=True, kw_only=True, eq=False, weakref_slot=True)
class Parcel:
    """A model's weights as blocks, in the order they are loaded.

    whole: cannot stay in part. keeps_host: main memory holds the weights after a drop. host_bytes: there.
    buffer: where they are there, if in one piece. modules: whose parameters and buffers they are.
    """

    blocks: Sequence[Movable]
    whole: bool
    keeps_host: bool
    host_bytes: int
    buffer: HostBuffer | None = None
    modules: Sequence[Any] = ()


class CannotFlatten(Exception):
    """A module has tensors that are no plain ones."""


def new_buffer(num_bytes: int) -> HostBuffer:
    """Memory of this process, to be filled."""
    import torch

    return HostBuffer(torch.empty(num_bytes, dtype=torch.uint8))


def pack(
    model: Model,
    device: OwnMemory,
    shared: HostBuffer | None = None,
    *,
    pinned: bool = True,
    allocate: Callable[[int], HostBuffer] = new_buffer,
) -> Parcel:
    """The weights of a constructed model as a parcel for this device.

    Args:
        shared: another instance's buffer, used if it holds the same bytes.
        pinned: page-lock them for a GPU.
        allocate: gives memory for so many bytes where they have to be copied.
    Raises what reading the weights raises.
    """
    modules: Callable[[], Sequence[Any]] | None = getattr(model, "weight_modules", None)
    if modules is not None:
        model.load("cpu")
        try:
            return slab(modules(), device, shared, pinned=pinned, allocate=allocate)
        except CannotFlatten as error:
            log.info("weights move as a whole: %s", error)
    keeps_host = device.torch_name.startswith("cuda")
    size = model.size_bytes
    block = _WholeModel(model, device.torch_name, size, keeps_host)
    return Parcel(blocks=[block], whole=True, keeps_host=keeps_host, host_bytes=size if keeps_host else 0)


@dataclass(slots=True)
class _WholeModel:
    """A model that brings its own weights."""

    model: Model
    torch_name: str
    num_bytes: int
    keeps_host: bool
    held: Sequence[Any] = ()

    def allocate(self) -> None:
        """Do nothing: `load` does it."""

    def fill(self) -> None:
        self.model.load(self.torch_name)

    def bind(self) -> None:
        """Do nothing: `load` does it."""

    def drop(self) -> None:
        if self.keeps_host:
            self.model.load("cpu")


def slab(
    modules: Sequence[Any],
    device: Device,
    shared: HostBuffer | None = None,
    *,
    pinned: bool = True,
    allocate: Callable[[int], HostBuffer] = new_buffer,
) -> Parcel:
    """Move all parameters and buffers of modules into one flat buffer. Raises CannotFlatten.

    Tensors that are shared stay shared; strides are kept (convolutions in channels-last order stay so).

    Args:
        shared: a buffer that the modules become views of without a copy if it holds their bytes.
        pinned: page-lock the buffer for a GPU.
        allocate: gives a new buffer of so many bytes.
    """
    sharing: dict[tuple[Any, ...], list[Any]] = {}
    for tensor in _tensors(modules):
        _refuse_special(tensor)
        key = (tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tensor.stride())
        sharing.setdefault(key if tensor.numel() else (id(tensor),), []).append(tensor)
    groups = list(sharing.values())
    sizes = [group[0].numel() * group[0].element_size() for group in groups]
    total = sum(_aligned(size) for size in sizes)
    ranges = cut(sizes, max(MIN_BLOCK, min(MAX_BLOCK, total // NUM_BLOCKS)))
    is_there = shared is not None and _holds(shared.data, [group[0] for group in groups], total)
    buffer = shared if shared is not None and is_there else allocate(total)
    host = buffer.data
    blocks: list[Movable] = []
    offset = 0
    for start, end in ranges:
        num_bytes = sum(_aligned(size) for size in sizes[start:end])
        block = _SlabBlock(host[offset : offset + num_bytes], device.torch_name)
        for group, size in zip(groups[start:end], sizes[start:end], strict=True):
            block.add(group, size, is_there=is_there)
        offset += num_bytes
        blocks.append(block)
    if pinned and device.torch_name.startswith("cuda") and total and not buffer.is_pinned:
        from panic.devices.cuda import pin

        buffer.is_pinned = pin(host, buffer, device.torch_name)
    return Parcel(
        blocks=blocks, whole=False, keeps_host=True, host_bytes=total, buffer=buffer, modules=modules
    )


def _holds(host: Any, tensors: Sequence[Any], total: int) -> bool:
    """Whether a buffer is what these tensors would be copied into, byte for byte."""
    if host.numel() != total:
        return False
    offset = 0
    for tensor in tensors:
        num_bytes = tensor.numel() * tensor.element_size()
        if not _view(host, tensor, offset, _slab_stride(tensor)).equal(tensor.data):
            return False
        offset += _aligned(num_bytes)
    return True


def cut(sizes: Sequence[int], block_bytes: int) -> list[tuple[int, int]]:
    """Ranges of tensors for blocks of at most `block_bytes`; a tensor that is larger is one of its own."""
    starts: list[int] = []
    filled = 0
    for position, size in enumerate(sizes):
        if not starts or filled + _aligned(size) > block_bytes:
            starts.append(position)
            filled = 0
        filled += _aligned(size)
    return list(zip(starts, [*starts[1:], len(sizes)], strict=False))


@dataclass(slots=True)
class _SlabBlock:
    """Some tensors' bytes, in main memory always and on the device at times.

    tensors: each with its view of main memory, its offset and its strides.
    """

    host: Any
    torch_name: str
    buffer: Any = None
    tensors: list[tuple[Any, Any, int, tuple[int, ...]]] = field(default_factory=list)
    _filled: int = 0

    @property
    def num_bytes(self) -> int:
        return int(self.host.numel())

    @property
    def held(self) -> list[Any]:
        return [tensor for tensor, *_ in self.tensors]

    def add(self, group: Sequence[Any], num_bytes: int, *, is_there: bool) -> None:
        """Take over a tensor (and those that share its memory) into the next free place in main memory.

        is_there: the place holds its bytes already.
        """
        first, offset = group[0], self._filled
        stride = _slab_stride(first)
        view = _view(self.host, first, offset, stride)
        if not is_there:
            view.copy_(first.data)
        for tensor in group:
            self.tensors.append((tensor, view, offset, stride))
            tensor.data = view
        self._filled += _aligned(num_bytes)

    def allocate(self) -> None:
        import torch

        self.buffer = torch.empty(self.num_bytes, dtype=torch.uint8, device=self.torch_name)

    def fill(self) -> None:
        self.buffer.copy_(self.host, non_blocking=True)

    def bind(self) -> None:
        for tensor, view, offset, stride in self.tensors:
            tensor.data = _view(self.buffer, view, offset, stride)

    def drop(self) -> None:
        for tensor, view, *_ in self.tensors:
            tensor.data = view
        self.buffer = None


def _tensors(modules: Sequence[Any]) -> list[Any]:
    """Parameters and buffers of modules, each object once."""
    found: dict[int, Any] = {}
    for module in modules:
        for tensor in [*module.parameters(), *module.buffers()]:
            found.setdefault(id(tensor), tensor)
    return list(found.values())


def _refuse_special(tensor: Any) -> None:
    import torch

    plain = type(tensor) in (torch.Tensor, torch.nn.Parameter, torch.nn.Buffer)
    if not plain or tensor.layout is not torch.strided or tensor.device.type != "cpu" or tensor.is_quantized:
        kind = type(tensor).__name__
        raise CannotFlatten(f"a {kind} ({tensor.layout}, {tensor.dtype}) on {tensor.device}")


def _aligned(num_bytes: int) -> int:
    return -(-num_bytes // ALIGNMENT) * ALIGNMENT


def _view(buffer: Any, like: Any, offset: int, stride: tuple[int, ...]) -> Any:
    """Bytes of a buffer from an offset on as a tensor of the same type and shape."""
    typed = buffer.view(like.dtype)  # with what follows 3 us per tensor and load; to slice first takes 4
    return typed.as_strided(like.shape, stride, typed.storage_offset() + offset // like.element_size())


def _slab_stride(tensor: Any) -> tuple[int, ...]:
    stride: tuple[int, ...] = tensor.stride()
    return stride if _is_dense(tensor) else _contiguous_stride(tensor.shape)


def _is_dense(tensor: Any) -> bool:
    """Whether the elements fill one stretch of memory without gaps and overlaps, in whatever order."""
    expected = 1
    for stride, size in sorted((s, n) for s, n in zip(tensor.stride(), tensor.shape, strict=True) if n != 1):
        if stride != expected:
            return False
        expected *= size
    return True


def _contiguous_stride(shape: Sequence[int]) -> tuple[int, ...]:
    stride, strides = 1, []
    for size in reversed(shape):
        strides.append(stride)
        stride *= max(1, size)
    return tuple(reversed(strides))
