"""Every second of a session has a name: clocks of threads, and the ledger that adds them up.

A thread that is of interest has a `Clock`, which always runs under some name, from the moment at which
whoever waits for it began to; no name is computed as a rest, or from where others begin and end. What clocks
have measured goes into the session's `Ledger`, in stretches of equal width; those are stored.

Times are those of the machine's monotonic clock, which its processes share and nobody sets.

Which thread owns what: a clock belongs to one thread; `Ledger.add` may be called from any.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

WIDTH_S = 0.25
"""Of a stretch; doubled whenever there are more than MOST."""
MOST = 160


class Span(NamedTuple):
    """Seconds that a thread spent under one name, of a model where that matters."""

    name: str
    model: str
    start: float
    end: float


class Clock:
    """It runs under one name at a time, and so leaves no gap.

    Args:
        since: when it began, where that was before it could be made: in a process that had to start.
    """

    def __init__(self, name: str, since: float | None = None) -> None:
        self._now = (name, "")
        self._since = time.monotonic() if since is None else since
        self._spans: list[Span] = []

    @contextmanager
    def of(self, name: str, model: str = "") -> Iterator[None]:
        """Run under another name for a while; its own time alone goes to the name that ran before."""
        before = self._now
        self.switch(name, model)
        try:
            yield
        finally:
            self.switch(*before)

    def switch(self, name: str, model: str = "") -> None:
        """Run under another name from now on."""
        now = time.monotonic()
        self._spans.append(Span(*self._now, self._since, now))
        self._now, self._since = (name, model), now

    def rename(self, name: str) -> None:
        """Give what runs now the name that it turned out to deserve."""
        self._now = (name, self._now[1])

    def split(self, name: str, share: float) -> None:
        """Give a share of what was measured last, its end, another name."""
        last = self._spans.pop()
        middle = last.end - share * (last.end - last.start)
        self._spans += [last._replace(end=middle), last._replace(name=name, start=middle)]

    def take(self) -> list[Span]:
        """What was measured since the last time, up to now."""
        self.switch(*self._now)
        spans, self._spans = self._spans, []
        return spans


class Ledger:
    """Seconds of a session by place (a thread or a process), name, model and stretch of time."""

    def __init__(self) -> None:
        self.started_at = time.monotonic()
        self._lock = threading.Lock()
        self._width_s = WIDTH_S
        self._seconds: dict[tuple[str, str, str, int], float] = defaultdict(float)

    def add(self, place: str, spans: Sequence[Span]) -> None:
        """Add what a place has measured."""
        with self._lock:
            for span in spans:
                self._add(place, span)

    def rows(self) -> list[dict[str, Any]]:
        """What there is to store: place, name, model, start_s (of the stretch), width_s, seconds."""
        with self._lock:
            return [
                {
                    "place": place, "name": name, "model": model, "start_s": number * self._width_s,
                    "width_s": self._width_s, "seconds": round(seconds, 6),
                }
                for (place, name, model, number), seconds in sorted(self._seconds.items())
            ]  # fmt: skip

    def _add(self, place: str, span: Span) -> None:
        start, end = span.start - self.started_at, span.end - self.started_at
        while end > MOST * self._width_s:
            self._widen()
        number = int(start / self._width_s)
        while start < end:
            until = min(end, (number + 1) * self._width_s)
            self._seconds[place, span.name, span.model, number] += until - start
            start, number = until, number + 1

    def _widen(self) -> None:
        old, self._seconds = self._seconds, defaultdict(float)
        self._width_s *= 2
        for (place, name, model, number), seconds in old.items():
            self._seconds[place, name, model, number // 2] += seconds
