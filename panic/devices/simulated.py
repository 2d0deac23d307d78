"""A device that exists on paper: exact bytes, one bus, a clock that moves when it is advanced.

Capacity, allocation granularity and what other tenants hold are as given; copies take their bytes over the
rate of the bus, one after another, beside the computing. Nothing sleeps and nothing runs in a thread, so
a cache can be tested on any machine to the byte and to the microsecond. Models may be real: what is copied
is copied, on the CPU.

    device = SimulatedDevice(name="sim", capacity_bytes=8 * 2**30, rate_bytes_per_s=25e9)
    device.advance(0.5)      # half a second of computing
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import ClassVar

from panic.devices.transfers import Block, format_bytes
from panic.errors import OutOfMemory


@dataclass(slots=True)
class _Call:
    """Working memory of a call: what was set aside for it, what it uses, the most that it used."""

    pledged: int
    used: int = 0
    peak: int = 0


@dataclass(slots=True)
class SimulatedDevice:
    """A byte budget on the CPU with a virtual clock.

    Args:
        tenants_bytes: what others hold, unless `tenants_trace` says it.
        rate_bytes_per_s: of the bus, host to device.
        granularity_bytes: every allocation is rounded up to a multiple.
        tenants_trace: what others hold from which second on, ascending.
        fail_at: number of the allocation (from 1) that finds no room, whatever is free.
    """

    name: str
    capacity_bytes: int
    tenants_bytes: int = 0
    rate_bytes_per_s: float = float("inf")
    granularity_bytes: int = 1
    tenants_trace: Sequence[tuple[float, int]] = ()
    fail_at: int | None = None
    allocated_bytes: int = 0
    peak_bytes: int = 0
    num_allocations: int = 0
    now_s: float = 0.0
    bus_free_at_s: float = 0.0
    copied_bytes: int = 0
    kind: str = "sim"
    torch_name: str = "cpu"
    has_own_memory: ClassVar[bool] = True
    follows_real_time: bool = False
    _calls: list[_Call] = field(default_factory=list)

    def total_bytes(self) -> int:
        return self.capacity_bytes

    def others_bytes(self) -> int:
        position = bisect.bisect_right(self.tenants_trace, (self.now_s, float("inf")))
        return self.tenants_trace[position - 1][1] if position else self.tenants_bytes

    def free_bytes(self) -> int:
        return max(0, self.capacity_bytes - self.others_bytes() - self.allocated_bytes)

    def rounded(self, num_bytes: int) -> int:
        return -(-num_bytes // self.granularity_bytes) * self.granularity_bytes

    def reserve(self, num_bytes: int) -> None:
        num_bytes = self.rounded(num_bytes)
        self.num_allocations += num_bytes > 0
        if num_bytes > self.free_bytes() or (num_bytes and self.num_allocations == self.fail_at):
            raise OutOfMemory(
                f"{self.name}: {format_bytes(num_bytes)} asked for, {format_bytes(self.free_bytes())} free "
                f"of {format_bytes(self.capacity_bytes)}"
            )
        self.allocated_bytes += num_bytes
        self.peak_bytes = max(self.peak_bytes, self.allocated_bytes)

    def release(self, num_bytes: int) -> None:
        self.allocated_bytes -= self.rounded(num_bytes)
        assert self.allocated_bytes >= 0, "more released than reserved"

    def trim(self) -> None:
        """Do nothing: no memory is held back."""

    def begin_call(self, working_bytes: int) -> None:
        self.reserve(working_bytes)
        self._calls.append(_Call(working_bytes))

    def end_call(self) -> int:
        call = self._calls.pop()
        self.release(max(call.pledged, call.used))
        return call.peak

    def use(self, num_bytes: int) -> None:
        """Called by a simulated model: its call takes (or gives back) working memory.

        What was reserved for the call is used first. Raises OutOfMemory beyond that and beyond the capacity.
        """
        call = self._calls[-1]
        before, after = max(call.pledged, call.used), call.used + num_bytes
        grown = max(call.pledged, after)
        if self.rounded(grown) > self.rounded(before):
            self.release(before)
            try:
                self.reserve(grown)
            except OutOfMemory:
                self.allocated_bytes += self.rounded(before)
                raise
        elif grown < before:
            self.release(before)
            self.reserve(grown)
        call.used = after
        call.peak = max(call.peak, after)

    def now(self) -> float:
        return self.now_s

    def advance(self, seconds: float) -> None:
        """Let time pass: computing, or waiting."""
        self.now_s += seconds

    def computed(self, seconds: float) -> None:
        """Let the time of a real model's call pass, if the device `follows_real_time`."""
        if self.follows_real_time:
            self.advance(seconds)

    def transfer(self, blocks: Sequence[Block], *, ahead: bool) -> SimulatedTransfer:
        transfer = SimulatedTransfer(self, list(blocks))
        if not ahead:
            transfer.wait()
        return transfer


@dataclass(slots=True)
class SimulatedTransfer:
    """Blocks on their way: each has a time at which it has arrived."""

    device: SimulatedDevice
    blocks: list[Block]
    arrives_at_s: list[float] = field(default_factory=list)
    num_filled: int = 0

    def __post_init__(self) -> None:
        start = max(self.device.now_s, self.device.bus_free_at_s)
        for block in self.blocks:
            start += block.num_bytes / self.device.rate_bytes_per_s
            self.arrives_at_s.append(start)
        self.device.bus_free_at_s = start

    def wait(self) -> float:
        started = self.device.now_s
        if self.arrives_at_s:
            self.device.now_s = max(started, self.arrives_at_s[-1])
        self._fill()
        return self.device.now_s - started

    def cancel(self) -> int:
        """The block that is on the bus arrives; those behind it do not start."""
        device = self.device
        with suppress(Exception):  # what cannot be copied has not arrived
            self._fill()
            self._end_what_is_on_the_bus(device)
        return self.num_filled

    def _end_what_is_on_the_bus(self, device: SimulatedDevice) -> None:
        if self.num_filled < len(self.blocks):
            begun_at = self.arrives_at_s[self.num_filled - 1] if self.num_filled else 0.0
            on_the_bus = begun_at <= device.now_s and device.rate_bytes_per_s < float("inf")
            keep = self.num_filled + on_the_bus
            device.now_s = max(device.now_s, *self.arrives_at_s[:keep], 0.0)
            device.bus_free_at_s = device.now_s
            del self.blocks[keep:], self.arrives_at_s[keep:]
            self._fill()

    def _fill(self) -> None:
        """Copy what has arrived by now; this raises the error of a source."""
        arrived = bisect.bisect_right(self.arrives_at_s, self.device.now_s)
        while self.num_filled < arrived:
            block = self.blocks[self.num_filled]
            block.fill()
            self.device.copied_bytes += block.num_bytes
            self.num_filled += 1
