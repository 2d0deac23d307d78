"""The worker whose models are behind an endpoint: requests over HTTP, several side by side.

A call is one item and one request: no batch, no padding, no device. The worker sends it once and says what
came of it; whether it is tried again is the driver's business, which gives the item back after the delay that
the error names. So each request is counted, each answer is stored when it comes, and one request that fails
is one item.

A key is read from the environment and sent to the host of `base_url` alone: redirects are not followed, and
proxies and .netrc of the environment are not used. It is cut out of whatever is told of a failure.

Which thread owns what: the thread "endpoint" runs the event loop and owns everything; `submit`, `drain` and
`close` only tell the loop what to do.
"""

from __future__ import annotations

import asyncio
import io
import json
import logging
import math
import random
import re
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import truststore

from panic.engine.calls import Call, CallError, CallResult, Outcome, Usage
from panic.engine.contents import finish
from panic.engine.ledger import Clock, Span
from panic.errors import OutputRejected
from panic.models import endpoints, openai
from panic.models.protocol import ModelSpec

log = logging.getLogger("panic.engine")

FIRST_DELAY_S = 0.5
LONGEST_DELAY_S = 30.0
FIRST_PATIENCE_S = 15.0
"""A server that has never answered is given up sooner: its address may be wrong."""
CONNECT_S = 10.0
BUNCH, GAP_S = 4, 0.002
"""So many requests are sent at once, and the next ones a moment later: what is sent together comes back
together, and then waits for each other while a moment later nothing is to be done."""
IDLE_S = 4.0
"""Connections are kept for so long; servers commonly close them after five seconds."""
SECRET_LENGTH = 8
"""Keys that are shorter are no secrets, but what local servers are given because something must be."""
BUSY = (429, 503, 529)
REFUSED = (401, 403, 404, 405)
PASSING = (408, 409, 425)
LARGE_BYTES = 2**16
"""Larger answers are read in a thread of their own, so that others need not wait."""


class _Failure(Exception):
    """What a request has come to instead of an answer."""

    def __init__(
        self, kind: Outcome, message: str, *, tokens: int = 0, requests: int = 1, **more: Any
    ) -> None:
        super().__init__(message)
        self.usage = Usage(requests=requests, tokens=tokens)
        self.kind, self.message, self.more = kind, message, more


@dataclass(slots=True)
class _Pace:
    """When the next request may be sent: as often as the config says, and not before a server's own word."""

    interval_s: float
    next_at: float = 0.0

    def turn(self, now: float) -> float:
        """Take the next turn; returns when it is."""
        at = max(now, self.next_at)
        self.next_at = at + self.interval_s
        return at


class EndpointWorker:
    """Sends the calls of one model to its server.

    Args:
        key: sent with each request, or None.
        deliver: called with the result of every call, from the worker's thread.
    """

    is_ready = True

    def __init__(
        self,
        spec: ModelSpec,
        key: str | None,
        deliver: Callable[[CallResult | BaseException], None],
        *,
        reject_constant_images: bool = False,
    ) -> None:
        self._spec, self._key, self._deliver = spec, key, deliver
        self._reject_constant = reject_constant_images
        self._url = endpoints.base_url(spec)
        self.host = endpoints.host(urlsplit(self._url))
        per_minute = spec.parameters["requests_per_minute"]
        self._pace = _Pace(60.0 / per_minute if per_minute else 0.0)
        self._has_answered = False
        self._put_off_since: float | None = None
        self._clock = Clock("waiting for a call")
        self._submitted: deque[Call] = deque()
        self._tasks: set[asyncio.Future[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._opened, self._drained, self._ended = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="endpoint", daemon=True)
        self._thread.start()

    def submit(self, call: Call) -> None:
        self._submitted.append(call)
        if len(self._submitted) == 1:  # else the loop was woken already, which costs 0.1 ms
            self._tell(self._begin_submitted)

    def check(self) -> None:
        """Do nothing: each request has a time limit of its own."""

    def drain(self) -> None:
        self._tell(self._drained.set)

    def close(self) -> list[Span]:
        self._tell(self._ended.set)
        self._thread.join()
        return self._clock.take()

    def _tell(self, what: Callable[[], object]) -> None:
        """Let the loop do something; nothing where it has ended, of which the reason was delivered."""
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(what)

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                runner.run(self._serve())
        except BaseException as error:
            self._deliver(error)

    async def _serve(self) -> None:
        async with self._new_client() as self._client:
            self._opened.set()
            await self._ended.wait()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def _new_client(self) -> aiohttp.ClientSession:
        headers = {"accept-encoding": "identity", "user-agent": "panic"}
        if self._key is not None:
            headers["authorization"] = f"Bearer {self._key}"
        return aiohttp.ClientSession(
            headers=headers,
            connector=aiohttp.TCPConnector(
                ssl=_certificates() if self._url.startswith("https:") else True,
                limit=0,
                keepalive_timeout=IDLE_S,
            ),
            timeout=aiohttp.ClientTimeout(total=None, connect=CONNECT_S),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
        )

    def _begin_submitted(self) -> None:
        for call in [self._submitted.popleft() for _ in range(min(BUNCH, len(self._submitted)))]:
            self._begin(call)
        if self._submitted:
            self._loop.call_later(GAP_S, self._begin_submitted)

    def _begin(self, call: Call) -> None:
        try:
            self._clock.switch("waiting for answers", call.model)
            task = self._loop.create_task(self._perform(call))
            self._tasks.add(task)
            task.add_done_callback(self._end)
        except BaseException as error:  # the loop would log it and go on
            self._deliver(error)

    def _end(self, task: asyncio.Future[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._deliver(error)
        if not self._tasks:
            self._clock.switch("waiting for a call")

    async def _perform(self, call: Call) -> None:
        """Answer a call, whatever happens."""
        result = CallResult(number=call.number, device=self.host, resident=frozenset({call.model}))
        try:
            await self._ask(call, result)
        except _Failure as failure:
            result.usage = failure.usage
            message = self._hide(f"{self.host}: {failure.message}")
            result.error = CallError(kind=failure.kind, message=message, **failure.more)
        except Exception as error:  # a defect of ours; what it says may hold what was sent
            result.usage = result.usage or Usage()
            text = self._hide(f"{type(error).__name__}: {error}")
            result.error = CallError(kind="error", message=text, delay_s=backoff_s(call.attempt))
        result.spans = self._clock.take()
        self._loop.call_soon(self._give, result)

    def _give(self, result: CallResult) -> None:
        """Deliver a result, together with those that came in the same moment.

        The driver wakes up at the first one. If each were given where it is made, the driver would store it
        alone, and both threads would contend for the interpreter.
        """
        try:
            self._deliver(result)
        except BaseException as error:  # the loop would log it and go on
            self._deliver(error)

    async def _ask(self, call: Call, result: CallResult) -> None:
        """Wait for the turn, send the request, read the answer. Raises _Failure."""
        if not await self._turn():
            raise _Failure("untried", "not begun", requests=0)
        [item], [seed] = call.inputs, call.seeds
        build = asyncio.to_thread if not isinstance(item, str) else _at_once
        request = await build(openai.write, self._spec, item, seed)
        most_tokens = openai.most_tokens(self._spec, item)
        result.started_at, start = time.time(), time.perf_counter()
        body = await self._exchange(request, call.attempt, most_tokens)
        result.duration_s = time.perf_counter() - start
        self._has_answered, self._put_off_since = True, None
        read = asyncio.to_thread if len(body) > LARGE_BYTES else _at_once
        result.usage = Usage(tokens=most_tokens)  # as long as nothing better is known
        try:
            answer, output = await read(self._read, body)
        except _Failure as failure:
            failure.usage = result.usage
            raise
        except openai.BadAnswer as error:
            raise _Failure(
                "error", error.message, tokens=most_tokens, delay_s=backoff_s(call.attempt)
            ) from None
        told = [n for n in (answer.input_tokens, answer.output_tokens) if n is not None]
        result.usage = Usage(
            tokens=sum(told) if told else most_tokens,
            input_tokens=answer.input_tokens,
            output_tokens=answer.output_tokens,
            served_model=answer.served_model,
            system_fingerprint=answer.system_fingerprint,
        )
        result.outputs = [output]

    async def _turn(self) -> bool:
        """Wait until a request may be sent; False if none is to be begun any more."""
        await self._opened.wait()
        at = self._pace.turn(time.monotonic())
        while not self._drained.is_set() and (left_s := at - time.monotonic()) > 0:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._drained.wait(), left_s)
        return not self._drained.is_set()

    async def _exchange(self, request: openai.Request, attempt: int, most_tokens: int) -> bytes:
        """Send a request once; the body of a successful answer. Raises _Failure."""
        limit_s = self._spec.parameters["timeout_s"]
        lost: dict[str, Any] = {"tokens": most_tokens, "delay_s": backoff_s(attempt)}
        try:
            async with (
                asyncio.timeout(limit_s),
                self._client.post(
                    f"{self._url}/{request.path}", allow_redirects=False, **_sent(request)
                ) as response,
            ):
                is_success = 200 <= response.status < 300
                body = await self._body(response)
                if is_success:
                    self._refuse_key(body.decode(errors="replace"))
        except _Failure as failure:
            if is_success:  # what was answered is paid for
                failure.usage = Usage(tokens=most_tokens)
                raise
            body = b""  # a refusal is what its status says
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            reason = getattr(error, "os_error", error)  # without the connector's settings
            raise self._put_off(f"cannot be reached ({reason})", attempt, requests=0) from None
        except TimeoutError:
            raise _Failure("error", f"no answer within {limit_s:g} s", **lost) from None
        except aiohttp.ClientError as error:
            reason = str(getattr(error, "message", error)) or type(error).__name__
            raise _Failure("error", f"the connection broke: {' '.join(reason.split())}", **lost) from None
        if not is_success:
            raise self._refusal(response, body, attempt)
        return body

    def _refuse_key(self, text: str) -> None:
        """Raise _Failure for an answer that would bring the key into the store."""
        if self._key and len(self._key) >= SECRET_LENGTH and self._key in text:
            raise _Failure("unavailable", "its answer repeats the key, and is not stored")

    async def _body(self, response: aiohttp.ClientResponse) -> bytes:
        """The body of an answer within its limit. Raises _Failure."""
        most = self._spec.parameters["max_answer_bytes"]
        if response.headers.get("content-encoding", "").strip().lower() not in ("", "identity"):
            raise _Failure("error", "its answer is compressed, which was not asked for", is_final=True)
        body = bytearray()
        async for chunk in response.content.iter_any():
            body += chunk
            if len(body) > most:
                raise _Failure("error", f"its answer has more than {most:,} bytes", is_final=True)
        return bytes(body)

    def _refusal(self, response: aiohttp.ClientResponse, body: bytes, attempt: int) -> _Failure:
        """What an answer means that is no success."""
        status = response.status
        if 300 <= status < 400:
            return _Failure(
                "unavailable", f"answers {status}: redirects are not followed, base_url must be right"
            )
        self._has_answered = True
        code, message = openai.error_text(body)
        text = f"answers {status}: {message or response.reason}"
        if status in REFUSED or code == "insufficient_quota":
            return _Failure("unavailable", text)
        if status in BUSY:
            return self._put_off(text, attempt, retry_after_s(response.headers.get("retry-after")))
        if status >= 500 or status in PASSING:
            return _Failure("error", text, delay_s=backoff_s(attempt))
        return _Failure("error", text, is_final=True)

    def _put_off(
        self, text: str, attempt: int, wait_s: float | None = None, *, requests: int = 1
    ) -> _Failure:
        """The failure of a request that may be sent later: the server's, so that all others wait as long."""
        now = time.monotonic()
        patience_s = self._spec.parameters["patience_s"]
        if not self._has_answered:
            patience_s = min(patience_s, FIRST_PATIENCE_S)
        self._put_off_since = self._put_off_since or now
        if wait_s:
            self._pace.next_at = max(self._pace.next_at, now + wait_s)
        delay_s = wait_s or backoff_s(attempt)  # "at once" is no time to come again: it would cost requests
        if now + delay_s - self._put_off_since > patience_s:
            return _Failure(
                "unavailable", f"{text}, for longer than {patience_s:g} s", requests=requests,
                hint="A longer patience_s waits longer.",
            )  # fmt: skip
        return _Failure("busy", text, requests=requests, delay_s=delay_s)

    def _read(self, body: bytes) -> tuple[openai.Answer, Any]:
        answer = openai.read(self._spec, body)
        told = answer.output.message if isinstance(answer.output, OutputRejected) else answer.output
        for text in (told, answer.served_model, answer.system_fingerprint):
            self._refuse_key(text if isinstance(text, str) else "")  # it may have been written with escapes
        try:
            return answer, finish(answer.output, self._spec.modality_out, self._reject_constant)
        except TypeError as error:
            raise openai.BadAnswer(str(error)) from None

    def _hide(self, text: str) -> str:
        """A text without the key, and without its parts: what a server says is cut somewhere."""
        return without(text, self._key) if self._key else text


def _certificates() -> ssl.SSLContext:
    """What checks the certificates of servers; it takes 0.03 s to be read."""
    return truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def _sent(request: openai.Request) -> dict[str, Any]:
    """A request as the client takes it: JSON, or a form where there are files."""
    if not request.files:
        return {
            "data": io.BytesIO(json.dumps(request.fields).encode()),
            "headers": {"content-type": "application/json"},
        }
    form = aiohttp.FormData()
    for name, value in request.fields.items():
        for one in value if isinstance(value, list) else [value]:
            form.add_field(name, one if isinstance(one, str) else json.dumps(one))
    for name, data in request.files.items():
        form.add_field(name, io.BytesIO(data), filename=f"{name}.png", content_type="image/png")
    return {"data": form}


def without(text: str, key: str) -> str:
    """A text with "(key)" in place of a key, and of each part of it that has SECRET_LENGTH characters.

    Placeholders such as "sk-no-key-required" have whole words in small letters, which texts may have, too.
    """
    words = {word for word in re.split(r"[\W_]+", key) if word.isalpha() and word.islower() and word != key}
    least, kept, at = min(SECRET_LENGTH, len(key)), [], 0
    while at < len(text):
        end = at + least
        is_key = end <= len(text) and text[at:end] in key
        while is_key and end < len(text) and text[at : end + 1] in key:
            end += 1
        part = text[at:end] if is_key else text[at]
        kept.append("(key)" if is_key and part not in words else part)
        at += len(part)
    return "".join(kept)


async def _at_once(function: Callable[..., Any], *arguments: Any) -> Any:
    return function(*arguments)


def backoff_s(attempt: int) -> float:
    """How long to wait after an attempt: twice as long each time, less a random part."""
    longest = min(LONGEST_DELAY_S, FIRST_DELAY_S * 2 ** min(attempt - 1, 16))
    return float(longest * random.uniform(0.5, 1.0))


def retry_after_s(value: str | None) -> float | None:
    """The seconds that a Retry-After header says, as a number or a date; None if it says none."""
    if value is None:
        return None
    try:
        if value.strip().isascii() and value.strip().isdigit():
            seconds = float(value)
            return seconds if math.isfinite(seconds) else None
        at = parsedate_to_datetime(value)
        return max(0.0, (at - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError, OverflowError):
        return None


def start_endpoints(
    specs: Mapping[str, ModelSpec],
    deliver: Callable[[CallResult | BaseException], None],
    *,
    reject_constant_images: bool,
) -> dict[str, EndpointWorker]:
    """A worker for each of these models. Raises ModelMissing if a key is not there."""
    keys = {name: endpoints.key(spec) for name, spec in specs.items()}
    return {
        name: EndpointWorker(spec, keys[name], deliver, reject_constant_images=reject_constant_images)
        for name, spec in specs.items()
    }
