"""Images: one by its digest, as it is stored or small; many small ones in one answer; or beside cells.

A browser asks a server for six things at a time, and each has its price. The wall needs hundreds of small
images at once, so it asks for a pack: a stream of images, each as soon as it is there, with `HEAD` before it.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import re
import struct
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from panic.errors import NotFound, PanicError, UsageError
from panic.store import contents
from panic.store.thumbnails import SIDES
from panic.view.context import Context, opened
from panic.view.records import number
from panic.view.sources import Source

log = logging.getLogger("panic")
DIGEST = re.compile(r"[0-9a-f]{64}")
HEAD = struct.Struct("<II")
"""Before each image of a pack: its place in the question, and how many bytes follow (0: there is none)."""
MOST_IN_PACK = 64
MOST_BESIDE_CELLS = 300
IMAGES_AT_ONCE = 6
"""As many as a browser asks for at a time."""
IMMUTABLE = "private, max-age=31536000, immutable"

Endpoint = Callable[[Request], Awaitable[Response]]


def digest_of(request: Request) -> str:
    """The digest that an address names. Raises NotFound for what is none."""
    digest: str = request.path_params["digest"]
    if not DIGEST.fullmatch(digest):
        raise NotFound("A digest has 64 hexadecimal digits.")
    return digest


def tile(context: Context, request: Request) -> Response:
    """An image as it is stored."""
    with opened(context, request) as (_, store, _row):
        return _image(contents.image_bytes(store, digest_of(request)))


def thumbnail(context: Context, request: Request) -> Response:
    """A small image."""
    side = _side(request)
    with opened(context, request) as (source, store, _row):
        return _image(source.thumbnails.get(store, digest_of(request), side))


def beside_cells(source: Source, found: dict[str, Any], query: Mapping[str, str]) -> dict[str, Any]:
    """An answer with cells, and with the small images of these that are kept already: base64 by digest.

    They come if `thumbnails` of the address says of which side; those of the last steps are the first.
    """
    if not query.get("thumbnails"):
        return found
    side = _known_side(number(query, "thumbnails", 0))
    cells = [cell for cell in found.get("cells", []) if cell["modality"] == "image"]
    last_first = sorted(cells, key=lambda cell: cell["step"], reverse=True)
    digests = list(dict.fromkeys(cell["digest"] for cell in last_first))[:MOST_BESIDE_CELLS]
    kept = source.thumbnails.kept(digests, side)
    small = {one: base64.b64encode(data).decode() for one, data in kept.items() if is_webp(data)}
    return {**found, "thumbnails": small}


def _side(request: Request) -> int:
    return _known_side(request.path_params["side"])


def _known_side(side: int) -> int:
    if side not in SIDES:
        raise NotFound(f"Thumbnails come in {', '.join(map(str, SIDES))} pixels.")
    return side


def is_webp(data: bytes) -> bool:
    """Whether bytes begin as WebP does, without which none are sent as an image."""
    return data[:4] == b"RIFF" and data[8:12] == b"WEBP"


def _image(data: bytes) -> Response:
    if not is_webp(data):
        raise NotFound("What is stored under this digest is no image.")
    return Response(data, media_type="image/webp", headers={"cache-control": IMMUTABLE})


def in_turn(turns: asyncio.Semaphore, answer: Endpoint) -> Endpoint:
    """An endpoint of which some work at a time, and none for a browser that has gone on meanwhile.

    A slider that is dragged asks for the images of all steps that it passes.
    """

    async def answered(request: Request) -> Response:
        async with turns:
            return Response(status_code=499) if await request.is_disconnected() else await answer(request)

    return answered


def pack(turns: asyncio.Semaphore, context: Context, request: Request) -> Response:
    """Many small images in one answer. Raises UsageError for too many, and for what is no digest."""
    side, digests = _side(request), request.query_params.get("digests", "").split(",")
    if len(digests) > MOST_IN_PACK or not all(map(DIGEST.fullmatch, digests)):
        raise UsageError(f"digests: 1 to {MOST_IN_PACK} of 64 hexadecimal digits, with commas between.")
    source = context.sources[request.path_params["store"]]
    return StreamingResponse(_pack(source, digests, side, turns), media_type="application/octet-stream")


async def _pack(
    source: Source, digests: Sequence[str], side: int, turns: asyncio.Semaphore
) -> AsyncIterator[bytes]:
    """The images that are kept at once, then the others as they are made; no more of them for nobody."""
    known = await run_in_threadpool(source.thumbnails.kept, digests, side)
    waiting = deque(place for place, digest in enumerate(digests) if digest not in known)
    if known:
        yield b"".join(_part(place, known[one]) for place, one in enumerate(digests) if one in known)

    async def made(place: int) -> bytes:
        async with turns:
            return _part(place, await run_in_threadpool(_made, source, digests[place], side))

    running: set[asyncio.Task[bytes]] = set()
    try:
        while waiting or running:
            while waiting and len(running) < IMAGES_AT_ONCE:
                running.add(asyncio.create_task(made(waiting.popleft())))
            done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            yield b"".join(one.result() for one in done)
    finally:
        for one in running:
            one.cancel()


def _part(place: int, data: bytes) -> bytes:
    own = data if is_webp(data) else b""
    return HEAD.pack(place, len(own)) + own


def _made(source: Source, digest: str, side: int) -> bytes:
    """A small image that is not kept yet; nothing of one that the store has not."""
    try:
        with source.reading() as store:
            data = contents.image_bytes(store, bytes.fromhex(digest))
        return source.thumbnails.made(data, digest, side)
    except PanicError:
        return b""
    except Exception as error:  # one damaged file takes nothing from the others, whose answer has begun
        log.warning("There is no small image of %s: %s: %s", digest, type(error).__name__, error)
        return b""
