"""A server of OpenAI's protocol in front of the synthetic models, or of what a test says; it can misbehave.

It counts: `requests` are all that came, `answered` those that were answered well.

    with Server(faults=lambda number: "429" if number % 3 == 0 else "") as server:
        run(endpoint_config(server), store)
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import uvicorn
from PIL import Image
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from panic.models.protocol import Model


@dataclass
class Seen:
    """A request as it came."""

    path: str
    headers: dict[str, str]
    fields: dict[str, Any]
    image: Image.Image | None = None


def describe(number: int, seen: Seen) -> str:
    """A text that follows from what was asked, and that no other has."""
    content = repr(seen.fields) if seen.image is None else seen.image.tobytes().hex()
    return f"text {hashlib.sha256(content.encode()).hexdigest()[:12]}"


@dataclass
class Server:
    """Runs in a thread of this process, on a free port.

    Args:
        text: of a chat, by the number of the request (from 0) and what was asked.
        faults: what goes wrong with a request, by its number; "" if nothing does; JSON is sent as it is.
        draws: what makes images; by default plain ones whose colour follows from the prompt.
        delay_s: before each answer.
        elsewhere: where a fault "redirect" sends to.
        certificate: a PEM file with a certificate and its key; then it speaks https.
        at_least: nothing is answered before so many requests were there at once.
    """

    text: Callable[[int, Seen], str] = describe
    faults: Callable[[int], str] = lambda number: ""
    draws: Model | None = None
    delay_s: float = 0.0
    usage: dict[str, int] | None = field(
        default_factory=lambda: {"prompt_tokens": 10, "completion_tokens": 5}
    )
    headers: dict[str, str] = field(default_factory=dict)
    elsewhere: str = ""
    certificate: Path | None = None
    at_least: int = 0
    requests: list[Seen] = field(default_factory=list)
    answered: int = 0
    most_at_once: int = 0

    def __enter__(self) -> Self:
        routes = [
            Route("/v1/chat/completions", self._chat, methods=["POST"]),
            Route("/v1/images/generations", self._images, methods=["POST"]),
            Route("/v1/images/edits", self._images, methods=["POST"]),
            Route("/v1/embeddings", self._embeddings, methods=["POST"]),
        ]
        config = uvicorn.Config(
            Starlette(routes=routes), port=0, log_level="critical", ssl_certfile=self.certificate
        )
        self._now = 0
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._thread.start()
        while not self._server.started:
            time.sleep(0.005)
        self.port = self._server.servers[0].sockets[0].getsockname()[1]
        return self

    def __exit__(self, *_: object) -> None:
        self._server.force_exit = self._server.should_exit = True
        self._thread.join()

    def until_idle(self) -> None:
        """Wait until what was asked is answered, and whoever asked has gone."""
        state = self._server.server_state
        while state.connections or state.tasks:
            time.sleep(0.005)

    @property
    def url(self) -> str:
        return f"{'https' if self.certificate else 'http'}://127.0.0.1:{self.port}/v1"

    async def _take(self, request: Request) -> tuple[int, Seen, Response | None]:
        """Note a request; its number, what it asks, and the answer if it is to go wrong."""
        fields: dict[str, Any] = {}
        image = None
        body = await request.body()
        if request.headers["content-type"].startswith("application/json"):
            fields = await request.json()
            content = fields["messages"][-1]["content"] if "messages" in fields else ""
            if not isinstance(content, str):
                image = _image(content[1]["image_url"]["url"].partition(",")[2])
        else:
            image = Image.open(io.BytesIO(body[body.index(b"\x89PNG") :])).convert("RGB")
        seen = Seen(request.url.path, dict(request.headers), fields, image)
        self.requests.append(seen)
        number = len(self.requests) - 1
        self._now += 1
        self.most_at_once = max(self.most_at_once, self._now)
        try:
            while self.most_at_once < self.at_least:
                await asyncio.sleep(0.005)
            await asyncio.sleep(self.delay_s)
            return number, seen, await self._fault(self.faults(number))
        finally:
            self._now -= 1

    async def _fault(self, fault: str) -> Response | None:
        if fault == "":
            return None
        if fault == "echo":
            return JSONResponse(
                {"error": {"message": f"bad {self.requests[-1].headers['authorization']}"}}, 500
            )
        if fault == "redirect":
            return Response(status_code=307, headers={"location": self.elsewhere})
        if fault.isdigit():
            body = {"error": {"message": f"no: {fault}", "code": ""}}
            return JSONResponse(body, int(fault), headers=self.headers)
        if fault.startswith("{"):
            status = 400 if fault.startswith('{"error"') else 200
            return Response(fault, status, media_type="application/json")
        if fault == "json":
            return Response('{"choices": [', media_type="application/json")
        if fault == "other":
            return JSONResponse({"choices": [{"message": {"content": 3}}], "data": [{"embedding": "x"}]})
        return _Broken(fault)

    def _answer(self, body: dict[str, Any]) -> Response:
        self.answered += 1
        about = {"model": "served-1", "system_fingerprint": "fp-1", "usage": self.usage}
        return JSONResponse({**about, **body})

    async def _chat(self, request: Request) -> Response:
        number, seen, fault = await self._take(request)
        text = self.text(number, seen)
        return fault or self._answer({"choices": [{"message": {"role": "assistant", "content": text}}]})

    async def _images(self, request: Request) -> Response:
        _, seen, fault = await self._take(request)
        return fault or self._answer({"data": [{"b64_json": _base64(self._draw(seen))}]})

    async def _embeddings(self, request: Request) -> Response:
        _, seen, fault = await self._take(request)
        digest = hashlib.sha256(str(seen.fields["input"]).encode()).digest()
        return fault or self._answer({"data": [{"embedding": [byte / 255 for byte in digest[:8]]}]})

    def _draw(self, seen: Seen) -> Image.Image:
        if seen.image is not None:
            return seen.image.rotate(90)
        prompt = seen.fields["prompt"]
        if self.draws is not None:
            return self.draws.invoke([prompt], [seen.fields.get("seed", 0)])[0]
        colour = hashlib.sha256(prompt.encode()).digest()
        return Image.new("RGB", (16, 16), (colour[0], colour[1], colour[2]))


class _Broken(Response):
    """An answer that ends too early, or comes too slowly."""

    def __init__(self, fault: str) -> None:
        super().__init__()
        self._fault = fault

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-length", b"1000"), (b"content-type", b"application/json")]
        if self._fault == "hang":
            await asyncio.sleep(30)
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        if self._fault == "trickle":
            for _ in range(300):
                await send({"type": "http.response.body", "body": b" ", "more_body": True})
                await asyncio.sleep(0.05)
        await send({"type": "http.response.body", "body": b"{"})


def _image(data: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")


def _base64(image: Image.Image) -> str:
    out = io.BytesIO()
    image.save(out, "PNG")
    return base64.b64encode(out.getvalue()).decode()
