"""One CUDA GPU: what is really free, copies beside the computing, main memory that is pinned once.

Free is what the driver reports plus what our allocator holds but does not use. Copies made ahead run on a
side stream, fed by one thread: at most two blocks are on their way, so a prefetch can be cancelled
within two blocks' time. Their memory is allocated before, on the computing stream; the side stream waits for
that point, and `wait` returns when the copies have ended, so no stream need know the other's tensors.

The copying thread is started with the first transfer ahead, lives as long as its device, and does one
transfer after another. It owns the blocks of a transfer from its construction until `wait` or `cancel` has
returned; all else belongs to the cache's thread. There are no locks: the two meet in a future and an event.

    CudaDevice(0).free_bytes()
"""

from __future__ import annotations

import logging
import threading
import time
import weakref
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import torch

from panic.devices.transfers import Block, BlockingTransfer, Transfer

MIB = 2**20
IN_FLIGHT = 2
"""Blocks that a prefetch has on the bus: one moving, one ready behind it."""
_cuda: Any = torch.cuda  # typed in part only
_PORTABLE = 1  # cudaHostRegisterPortable: pinned for every GPU of the process

log = logging.getLogger("panic.devices")


class CudaDevice:
    """A GPU by its index among the visible ones."""

    has_own_memory = True

    def __init__(self, index: int) -> None:
        self.index = index
        self.name = self.torch_name = f"cuda:{index}"
        self.kind = f"cuda {torch.cuda.get_device_name(index)}"
        self._total = int(torch.cuda.mem_get_info(index)[1])  # it does not change, and asking takes its time
        self._base = 0
        self._side: torch.cuda.Stream | None = None
        self._copier: ThreadPoolExecutor | None = None

    def total_bytes(self) -> int:
        return self._total

    def free_bytes(self) -> int:
        unused = torch.cuda.memory_reserved(self.index) - torch.cuda.memory_allocated(self.index)
        return int(torch.cuda.mem_get_info(self.index)[0]) + int(unused)

    def others_bytes(self) -> int:
        """Bytes of other processes, and of this one's CUDA context."""
        free, total = torch.cuda.mem_get_info(self.index)
        return max(0, int(total) - int(free) - int(torch.cuda.memory_reserved(self.index)))

    def rounded(self, num_bytes: int) -> int:
        """Round up as torch's allocator does, which hands out large pieces in multiples of 2 MiB."""
        return -(-num_bytes // (2 * MIB)) * 2 * MIB if num_bytes > MIB else -(-num_bytes // 512) * 512

    def reserve(self, num_bytes: int) -> None:
        """Do nothing: the driver keeps the books."""

    def release(self, num_bytes: int) -> None:
        """Do nothing: freed memory stays with our allocator, whose unused part counts as free."""

    def trim(self) -> None:
        """Give unused memory back to the driver, for others and against fragmentation."""
        torch.cuda.empty_cache()

    def begin_call(self, working_bytes: int) -> None:
        torch.cuda.reset_peak_memory_stats(self.index)
        self._base = torch.cuda.memory_allocated(self.index)

    def end_call(self) -> int | None:
        return max(0, torch.cuda.max_memory_allocated(self.index) - self._base)

    def transfer(self, blocks: Sequence[Block], *, ahead: bool) -> Transfer:
        if not ahead:
            return _OnComputingStream(blocks, self.index)
        if self._side is None or self._copier is None:
            self._side = _cuda.Stream(self.index)
            self._copier = ThreadPoolExecutor(1, thread_name_prefix="copies")
        return _OnSideStream(blocks, self.index, self._side, self._copier)

    def now(self) -> float:
        return time.monotonic()

    def computed(self, seconds: float) -> None:
        """Do nothing: real time has passed by itself."""


class _OnComputingStream(BlockingTransfer):
    """Copies one after another; done when constructed."""

    def __init__(self, blocks: Sequence[Block], index: int) -> None:
        started = time.perf_counter()
        super().__init__(blocks)
        torch.cuda.current_stream(index).synchronize()
        self._seconds = time.perf_counter() - started


class _OnSideStream:
    """Copies by the copying thread; constructed, waited for and cancelled by the cache's thread."""

    def __init__(
        self, blocks: Sequence[Block], index: int, side: torch.cuda.Stream, copier: ThreadPoolExecutor
    ) -> None:
        self._blocks, self._index, self._side = blocks, index, side
        self._cancelled = threading.Event()
        self._num_filled = 0
        # The memory may have been somebody's until the work that is queued by now has ended.
        self._allocated = _cuda.Event()
        self._allocated.record(torch.cuda.current_stream(index))
        self._done = copier.submit(self._copy)

    def wait(self) -> float:
        started = time.perf_counter()
        self._done.result()
        return time.perf_counter() - started

    def cancel(self) -> int:
        self._cancelled.set()
        self._done.exception()  # waits; what was raised is of no interest any more
        return self._num_filled

    def _copy(self) -> None:
        torch.cuda.set_device(self._index)
        on_the_bus: deque[torch.cuda.Event] = deque()
        try:
            with torch.cuda.stream(self._side):
                self._side.wait_event(self._allocated)
                for block in self._blocks:
                    if self._cancelled.is_set():
                        break
                    block.fill()
                    event = _cuda.Event(blocking=True)  # else waiting keeps a core busy
                    event.record(self._side)
                    on_the_bus.append(event)
                    if len(on_the_bus) >= IN_FLIGHT:
                        on_the_bus.popleft().synchronize()
                        self._num_filled += 1
        finally:
            self._side.synchronize()
            self._num_filled += len(on_the_bus)


def pin(buffer: torch.Tensor, owner: Any, device: str) -> bool:
    """Page-lock a buffer in main memory, exactly, for as long as its owner lives.

    torch's own `pin_memory` rounds up to a power of two (20.4 GiB take 32). Returns whether it worked: where
    the system allows no more locked memory, copies are slower and nothing else changes.

    Args:
        device: whose context is used; without it a worker of the second GPU would open one on the first.
    """
    with torch.cuda.device(device):
        code = int(_cuda.cudart().cudaHostRegister(buffer.data_ptr(), buffer.nbytes, _PORTABLE))
        if code:
            log.warning("no page-locked memory for %d MiB (CUDA error %d)", buffer.nbytes // MIB, code)
            _clear_error(device)
            return False
    # The buffer is an argument, so that it is unlocked before it is freed.
    weakref.finalize(owner, _unpin, buffer).atexit = False  # the end of the process unlocks it, too
    return True


def _clear_error(device: str) -> None:
    """CUDA keeps the error of a call until it is asked for, and torch asks after its next kernel: let that be
    a kernel of no consequence."""
    with suppress(RuntimeError):
        torch.ones(1, device=device)


def _unpin(buffer: torch.Tensor) -> None:
    _cuda.cudart().cudaHostUnregister(buffer.data_ptr())
