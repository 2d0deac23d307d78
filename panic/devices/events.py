"""What a cache did: counts while it runs, and a file of JSON lines to ask later.

One line per event: {"t", "event", "model", ...}. A "use" line begins a stretch of calls of one model; the
order of these lines is the order of work, so that the regret can be computed afterwards: bytes moved over the
fewest that any cache of that capacity could have moved for the same order. "calls" lines count calls by where
they found their model, once a second if there are that many, so that a kill loses little.

    summarise(read_events([path])).regret
"""

from __future__ import annotations

import json
import math
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from panic.devices.planning import Load, State, Use, apply, plan

MAX_BYTES = 64 * 2**20
"""What one process writes at the most: some 400,000 lines; what follows is not written."""
CALLS_EVERY_S = 1.0
TIERS = ("device", "prefetch", "host", "disk")
"""Where a call finds its model; "prefetch": it had been brought ahead."""
NUMBERS = {
    "use": ("size", "working", "capacity"),
    "load": ("bytes", "seconds"),
    "prefetch": ("bytes",),
    "arrived": ("seconds",),
    "cancelled": ("bytes",),
    "streamed": ("bytes",),
    "working": ("bucket", "batch", "bytes"),
}
"""The numbers that an event must have to be counted."""
LOOKAHEAD = 64
"""Uses that the offline optimum looks ahead; further than any model's next use in practice."""


@dataclass(slots=True, kw_only=True)
class CacheStats:
    """What a cache did: counts, bytes moved to the device, and seconds spent waiting for them.

    A hit is a call whose model was there as a whole. Prefetched bytes count as loaded, too; those of models
    that come layer by layer during their calls are `streamed_bytes` alone.
    """

    hits: int = 0
    loads: int = 0
    builds: int = 0
    evictions: int = 0
    loaded_bytes: int = 0
    load_s: float = 0.0
    prefetches: int = 0
    prefetch_hits: int = 0
    stall_s: float = 0.0
    out_of_memory: int = 0
    streamed_bytes: int = 0


class EventLog:
    """Appends events to a file of JSON lines, at most `MAX_BYTES`; without a path it keeps nothing."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self._file: TextIO | None = None
        self._num_bytes = 0
        self._stretch: tuple[str, int] | None = None
        self._calls: Counter[str] = Counter()
        self._written_at = 0.0
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("a", encoding="utf-8", buffering=1)  # line by line: a kill loses one

    def add(self, event: str, **fields: Any) -> None:
        """Write one event."""
        if event == "streamed":  # took the whole device, so what follows is another stretch
            self._write_calls()
            self._stretch = None
        if self._file is None:
            return
        line = json.dumps({"t": round(time.time(), 6), "event": event, **fields}) + "\n"
        self._num_bytes += self._file.write(line)
        if self._num_bytes > MAX_BYTES:
            self.close()

    def add_call(self, model: str, size: int, working: int, capacity: int, tier: str) -> None:
        """Count a call of a model that was found in `tier`; one of another model or need begins a stretch."""
        if self._stretch != (model, working):
            self._write_calls()
            self._stretch = model, working
            self.add("use", model=model, size=size, working=working, capacity=capacity)
        self._calls[tier] += 1
        if time.monotonic() - self._written_at > CALLS_EVERY_S:
            self._write_calls()

    def _write_calls(self) -> None:
        if self._calls:
            counts, self._calls = dict(self._calls), Counter()
            self.add("calls", **counts)
        self._written_at = time.monotonic()

    def close(self) -> None:
        """Write what is left."""
        self._write_calls()
        if self._file is not None:
            self._file.close()
            self._file = None


def read_events(paths: Iterable[Path]) -> Iterator[dict[str, Any]]:
    """The events of files, one file after another; lines that are cut short or make no sense are left out."""
    for path in paths:
        with path.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                try:
                    event = json.loads(line)
                except (ValueError, RecursionError):
                    continue
                if _is_sound(event):
                    yield event


def _is_sound(event: Any) -> bool:
    if not isinstance(event, dict) or not isinstance(event.get("event"), str):
        return False
    numbers = [event.get(field) for field in NUMBERS.get(event["event"], ())]
    if event["event"] == "calls":
        numbers += [event[tier] for tier in TIERS if tier in event]
    texts = [event.get(field, "") for field in ("model", "tier", "reason")]
    return all(map(_is_number, numbers)) and all(isinstance(text, str) for text in texts)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


@dataclass(slots=True, kw_only=True)
class Summary:
    """Events added up. Tiers say where calls found their models and where loads came from (see `TIERS`; from
    "disk": read first, then moved).

    least_bytes: the fewest that could have been moved for the same order of work from an empty device.
    Models that do not fit come layer by layer: their calls and bytes are apart, and no part of the regret.
    """

    calls_by_tier: Counter[str] = field(default_factory=Counter)
    loads_by_tier: Counter[str] = field(default_factory=Counter)
    bytes_by_tier: Counter[str] = field(default_factory=Counter)
    load_s: float = 0.0
    stall_s: float = 0.0
    prefetches: int = 0
    prefetch_hits: int = 0
    evictions_by_reason: Counter[str] = field(default_factory=Counter)
    out_of_memory: int = 0
    least_bytes: int = 0
    streamed_calls: Counter[str] = field(default_factory=Counter)
    streamed_bytes: int = 0

    @property
    def calls(self) -> int:
        return sum(self.calls_by_tier.values())

    @property
    def hits(self) -> int:
        """Calls that found their model on the device, brought ahead or not."""
        return self.calls_by_tier["device"] + self.calls_by_tier["prefetch"]

    @property
    def moved_bytes(self) -> int:
        return sum(self.bytes_by_tier.values())

    @property
    def bytes_per_s(self) -> float:
        """Rate of the loads that were waited for and came from main memory; 0 where there was none."""
        return self._timed_bytes / self.load_s if self.load_s else 0.0

    @property
    def regret(self) -> float | None:
        """Bytes moved over the fewest possible, less one; None if nothing had to move."""
        return self.moved_bytes / self.least_bytes - 1 if self.least_bytes else None

    _timed_bytes: int = 0


def summarise(events: Iterable[dict[str, Any]]) -> Summary:
    """Add events up; those of several workers one after another."""
    total = Summary()
    order: list[tuple[Use, int]] = []
    sizes: dict[str, int] = {}

    def close_order() -> None:
        total.least_bytes += fewest_bytes(order, sizes)
        order.clear()

    for event in events:
        kind = event["event"]
        num_bytes = int(event["bytes"]) if "bytes" in NUMBERS.get(kind, ()) else 0
        if kind == "start":
            close_order()
        elif kind == "use":
            sizes[event.get("model", "")] = event["size"]
            order.append((Use(event.get("model", ""), event["working"]), event["capacity"]))
        elif kind == "calls":
            total.calls_by_tier.update({tier: int(event[tier]) for tier in TIERS if tier in event})
        elif kind in ("load", "prefetch"):
            tier = event.get("tier", "host")
            total.loads_by_tier[tier] += kind == "load"
            total.bytes_by_tier[tier] += num_bytes
            total.prefetches += kind == "prefetch"
            if kind == "load" and tier == "host":
                total.load_s += event["seconds"]
                total._timed_bytes += num_bytes
            total.stall_s += event.get("seconds", 0.0) if kind == "load" else 0.0
        elif kind == "arrived":
            total.prefetch_hits += 1
            total.stall_s += event["seconds"]
        elif kind == "cancelled":
            total.bytes_by_tier["host"] -= num_bytes
        elif kind == "evict":
            total.evictions_by_reason[event.get("reason", "")] += 1
        elif kind == "out_of_memory":
            total.out_of_memory += 1
        elif kind == "streamed":
            total.streamed_calls[event.get("model", "")] += 1
            total.streamed_bytes += num_bytes
            close_order()  # it takes the whole device, whatever a cache does
    close_order()
    return total


def fewest_bytes(order: Sequence[tuple[Use, int]], sizes: dict[str, int]) -> int:
    """Bytes that the optimum moves for (use, capacity) in this order, models staying in part."""
    moved = 0
    state = State(capacity_bytes=0, sizes=sizes)
    for position, (use, capacity) in enumerate(order):
        state = State(capacity_bytes=capacity, sizes=sizes, resident=state.resident)
        actions = plan(state, [use for use, _ in order[position : position + LOOKAHEAD]])
        moved += sum(action.num_bytes for action in actions if isinstance(action, Load))
        state = apply(state, [*actions, Load(use.model, 0)])
    return moved
