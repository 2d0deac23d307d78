"""The server of the web view: it answers until it is stopped.

app = application([Path("panic-store")], access)
with listening("127.0.0.1", 0) as socket: serve(app, socket)
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette

from panic.errors import UsageError
from panic.view.access import Access, Guard
from panic.view.computing import Computing
from panic.view.context import Context
from panic.view.events import Events
from panic.view.routes import routes
from panic.view.sources import Shrink, Sources

NICENESS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Application:
    """The ASGI application, and what ends with it."""

    asgi: Guard
    context: Context

    @property
    def events(self) -> Events:
        """What tells of changes, which ends when the server does."""
        return self.context.events


def application(
    paths: Sequence[Path], access: Access, trainings: Sequence[Path] = (), shrink: Shrink | None = None
) -> Application:
    """Return the application that shows these stores, and folders of trainings, to whom `access` lets in.

    shrink: makes small copies of images; by default the thread that answers does.
    """
    sources = Sources(paths, shrink)
    events = Events(sources=sources)
    computing = Computing(is_watched=lambda: events.is_heard)
    events.on_silence = computing.rest
    context = Context(
        sources=sources, access=access, events=events, computing=computing, trainings=list(trainings)
    )

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        await computing.close()
        sources.close()

    inner = Starlette(routes=routes(context), lifespan=lifespan)
    return Application(asgi=Guard(inner, access), context=context)


def listening(host: str, port: int) -> socket.socket:
    """Return a socket that listens, on any free port for 0. Raises UsageError where it cannot."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Named as TCP: only then asyncio turns off Nagle's algorithm, which holds every answer up for 40 ms.
    found = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind((host, port))
        found.listen(128)
    except (OSError, OverflowError) as error:
        found.close()
        what = error.strerror if isinstance(error, OSError) else str(error)
        is_taken = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
        raise UsageError(
            f"Port {port} of {host} is taken." if is_taken else f"{host}:{port} cannot be used: {what}.",
            hint="Without --port any free one is taken.",
        ) from error
    return found


class _Server(uvicorn.Server):
    """Ends the streams when it is asked to stop: they would keep it waiting."""

    def __init__(self, config: uvicorn.Config, events: Events) -> None:
        super().__init__(config)
        self.events = events

    def handle_exit(self, sig: int, frame: Any) -> None:
        super().handle_exit(sig, frame)
        self.events.stop()


def serve(app: Application, listener: socket.socket, certificate: tuple[Path, Path] | None = None) -> None:
    """Answer until a signal comes; at low priority, so that a driver beside it hardly notices.

    certificate: the files of a certificate and its key.
    """
    with suppress(OSError):
        os.nice(NICENESS)
    cert, key = certificate or (None, None)
    config = uvicorn.Config(
        app.asgi, log_level="warning", access_log=False, server_header=False, date_header=False,
        timeout_graceful_shutdown=2, ssl_certfile=cert, ssl_keyfile=key, ws="none",
    )  # fmt: skip
    _Server(config, app.events).run(sockets=[listener])
