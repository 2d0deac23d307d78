"""What has changed, told to whoever listens: one stream of server-sent events.

An event's id and data are the states of all stores ("files-revision" by key): pages ask for what they show.
The stores are looked at only while somebody listens.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass, field

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from panic.view.sources import Sources

LOOK_EVERY_S = 0.4
SAY_SOMETHING_S = 15.0
MOST_LISTENERS = 200
SILENCE_S = 10.0
"""Without a listener for so long nobody looks; a page that is loaded anew is back before."""


@dataclass(kw_only=True)
class Events:
    """The states of the stores, looked at by one task for all listeners.

    on_silence: called when nobody has listened for a while.
    """

    sources: Sources
    on_silence: Callable[[], None] = lambda: None
    is_over: bool = False
    _states: dict[str, str] = field(default_factory=dict)
    _listeners: set[asyncio.Event] = field(default_factory=set)
    _looking: asyncio.Future[None] | None = None

    @property
    def is_heard(self) -> bool:
        """Whether anybody listens."""
        return bool(self._listeners)

    async def answer(self, request: Request) -> Response:
        """The stream, from the state on that the listener knows."""
        if len(self._listeners) >= MOST_LISTENERS:
            return JSONResponse({"error": "Too many pages listen already.", "hint": ""}, 503)
        known = request.headers.get("last-event-id", "")
        headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
        return StreamingResponse(self._stream(known), media_type="text/event-stream", headers=headers)

    async def _stream(self, known: str) -> AsyncIterator[str]:
        changed = asyncio.Event()
        try:  # from the first line on: a listener may be gone at any wait
            self._listeners.add(changed)
            if self._looking is None or self._looking.done():
                self._looking = asyncio.create_task(self._go_on_looking())
            yield "retry: 1000\n\n"
            while not self.is_over:
                changed.clear()  # before anything is read: what comes while it is told ends the next wait
                now = ",".join(f"{key}:{state}" for key, state in self._states.items())
                if now != known:
                    known = now
                    yield f"id: {now}\ndata: {json.dumps(self._states)}\n\n"
                try:
                    await asyncio.wait_for(changed.wait(), SAY_SOMETHING_S)
                except TimeoutError:
                    yield ": here\n\n"
        finally:
            self._listeners.discard(changed)
            if not self._listeners:
                asyncio.get_running_loop().call_later(SILENCE_S, self._fall_silent)

    def _fall_silent(self) -> None:
        if not self._listeners:
            self.on_silence()

    async def _go_on_looking(self) -> None:
        while self._listeners and not self.is_over:
            if await self._look():
                self._wake()
            await asyncio.sleep(LOOK_EVERY_S)

    async def _look(self) -> bool:
        """Whether a store has changed since it was looked at last."""
        now = await run_in_threadpool(self._now)
        has_changed = now != self._states
        self._states = now
        return has_changed

    def _now(self) -> dict[str, str]:
        found = {}
        for source in self.sources.all:
            try:
                found[source.key] = source.state()
            except Exception:  # also what a file system says: whoever looks goes on looking
                found[source.key] = "gone"
        return found

    def _wake(self) -> None:
        for listener in self._listeners:
            listener.set()

    def stop(self) -> None:
        """End all streams; any thread may ask for it, and a signal's handler."""
        self.is_over = True
        if self._looking is not None:  # else nobody has listened yet
            with suppress(RuntimeError):  # the loop has ended, and all streams with it
                self._looking.get_loop().call_soon_threadsafe(self._wake)
