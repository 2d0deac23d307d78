"""Who may look: a token in the printed URL, the cookie that it becomes, the value that writing needs.

Other users of a shared machine reach its loopback addresses, so nothing is answered without one of these. The
token is made at every start; the cookie outlives a restart of the server (its secret is kept, readable by its
owner alone) and ends after `COOKIE_S` by the clock of this machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import os
import secrets
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders, QueryParams
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

COOKIE_S = 12 * 3600.0
FREE_TRIES = 3
"""Wrong tokens within a minute that are answered at once."""
LONGEST_DELAY_S = 4.0
MOST_WAITING = 16
LONGEST_PATH = 2_000
"""Characters of an address: Python reads no number of more than 4,300 digits."""
WRITE_HEADER = "x-panic-write"
READING = ("GET", "HEAD")
HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:;"
        " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}
REFUSED = """<!doctype html><html lang="en"><meta charset="utf-8"><title>panic view</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><h1>panic view</h1><p>{}</p></html>"""
NO_TOKEN = "Open the address that panic view printed where it was started: it ends with a token."
OLD_TOKEN = (
    "This address is of an earlier start of panic view, or was cut. Open the one that it printed last."
)


@dataclass(kw_only=True)
class Access:
    """What is asked of every request.

    hosts: names and addresses under which this server is known. scope: what a cookie is good for: the stores,
    the port. is_writable: whether anyone may write.
    """

    hosts: Sequence[str]
    scope: str
    is_writable: bool
    is_https: bool = False
    token: str = field(default_factory=lambda: secrets.token_urlsafe(24), repr=False)
    secret: bytes = field(default_factory=lambda: kept_secret(), repr=False)
    _wrong: deque[float] = field(default_factory=lambda: deque(maxlen=64), repr=False)
    _waiting: int = 0

    @property
    def cookie_name(self) -> str:
        """The name of the cookie; browsers share cookies among the ports of a host."""
        return "panic_view_" + hashlib.sha256(self.scope.encode()).hexdigest()[:8]

    def cookie(self) -> str:
        """Return a new cookie: when it ends, something random, and a signature of both."""
        said = f"{int(time.time() + COOKIE_S)}.{secrets.token_urlsafe(12)}"
        return f"{said}.{self._signature('cookie', said)}"

    def is_cookie(self, value: str) -> bool:
        """Whether a cookie is one of ours that has not ended."""
        said, _, signature = value.rpartition(".")
        ends = said.partition(".")[0]
        is_ours = hmac.compare_digest(signature.encode(), self._signature("cookie", said).encode())
        return is_ours and ends.isdigit() and int(ends) > time.time()

    def is_token(self, value: str) -> bool:
        """Whether a token is that of this start."""
        return hmac.compare_digest(value.encode(), self.token.encode())

    def write_value(self, session: str) -> str:
        """Return what a session (its cookie or token) says with everything that it writes."""
        return self._signature("write", session)

    def _signature(self, use: str, said: str) -> str:
        return hmac.new(self.secret, f"{use}\0{self.scope}\0{said}".encode(), hashlib.sha256).hexdigest()

    def address_problem(self, headers: Headers) -> str:
        """What is wrong with where a request says that it goes and comes from; "" if nothing is."""
        host = headers.get("host", "")
        if _hostname(f"//{host}") not in self.hosts:
            return "This server is not known by that name."
        origin = headers.get("origin")
        if origin is not None and origin != f"{'https' if self.is_https else 'http'}://{host}":
            return "The request comes from another page."
        is_entry = headers.get("sec-fetch-mode") == "navigate"
        if headers.get("sec-fetch-site", "none") not in ("none", "same-origin") and not is_entry:
            return "The request comes from another page."
        return ""

    async def session_of(self, headers: Headers, query: QueryParams, path: str) -> tuple[str | None, bool]:
        """Return what a request is known by, None if by nothing, and whether that is the token of the URL.

        After some wrong tokens further ones are answered late; right ones never are.
        """
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        given = (
            bearer.strip() if scheme.lower() == "bearer" else query.get("token", "") if path == "/" else ""
        )
        known = self._cookie_of(headers)
        if given:
            if self.is_token(given):
                if known and not bearer:
                    return known, False  # another tab has it, and writes with it
                return given, not bearer
            await self._delay()
        return known, False

    def _cookie_of(self, headers: Headers) -> str | None:
        """The good cookie of a request, if it has one."""
        for part in headers.get("cookie", "").split(";"):
            name, _, value = part.strip().partition("=")
            if name == self.cookie_name and self.is_cookie(value):
                return value
        return None

    async def _delay(self) -> None:
        now = time.monotonic()
        recent = sum(at > now - 60 for at in self._wrong)
        self._wrong.append(now)
        if recent < FREE_TRIES or self._waiting >= MOST_WAITING:
            return  # beyond that nobody waits: what is refused at once costs nothing
        self._waiting += 1
        try:
            await asyncio.sleep(min(LONGEST_DELAY_S, 0.25 * 2 ** (recent - FREE_TRIES)))
        finally:
            self._waiting -= 1

    @property
    def is_busy(self) -> bool:
        """Whether as many wrong tokens wait as may."""
        return self._waiting >= MOST_WAITING


class Guard:
    """The ASGI application around the others: it refuses, sets the cookie, adds what browsers shall heed."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self.app, self.access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or pass it on."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        answer, cookie = await self._judge(scope)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                if "cache-control" not in headers:
                    headers["cache-control"] = "no-store"
                if cookie:
                    secure = "; Secure" if self.access.is_https else ""
                    headers.append(
                        "set-cookie",
                        f"{self.access.cookie_name}={cookie}; Path=/; HttpOnly; SameSite=Strict{secure}",
                    )
            await send(message)

        await (answer or self.app)(scope, receive, send_with_headers)

    async def _judge(self, scope: Scope) -> tuple[Response | None, str]:
        """The answer to a request that is refused, else None; and the cookie that it is given."""
        headers, access = Headers(scope=scope), self.access
        is_page = scope["path"] == "/"
        if len(scope["path"]) > LONGEST_PATH:
            return refusal(414, "No address here is that long.", is_page=is_page), ""
        if problem := access.address_problem(headers):
            return refusal(403, problem, is_page=is_page), ""
        query = QueryParams(scope["query_string"])
        session, is_new = await access.session_of(headers, query, scope["path"])
        if session is None:
            if access.is_busy:
                return refusal(429, "Too many wrong tokens wait for their answer.", is_page=is_page), ""
            return refusal(401, OLD_TOKEN if "token" in query else NO_TOKEN, is_page=is_page), ""
        if scope["method"] not in READING:
            if not access.is_writable:
                return refusal(403, "This server is read only: panic view --write.", is_page=False), ""
            if not hmac.compare_digest(headers.get(WRITE_HEADER, ""), access.write_value(session)):
                return refusal(403, "Writing needs the value that /api/1/session gives.", is_page=False), ""
        scope["state"] = {**scope.get("state", {}), "session": session}
        return None, access.cookie() if is_new else ""


def refusal(status: int, problem: str, *, is_page: bool) -> Response:
    """Return the answer to a request that is refused, for a browser's address bar or for a program."""
    if is_page:
        return HTMLResponse(REFUSED.format(problem), status)
    return JSONResponse({"error": problem, "hint": ""}, status)


def _hostname(url: str) -> str:
    try:
        return (urlsplit(url).hostname or "").lower()
    except ValueError:
        return ""


def kept_secret() -> bytes:
    """Return the secret that cookies are signed with, kept for this user alone; else one for this process."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "panic"
    path = cache / "view-secret"
    new = secrets.token_bytes(32)
    with contextlib.suppress(OSError):
        cache.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            made = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
            with open(made, "wb") as file:
                file.write(new)
        opened = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with open(opened, "rb") as file:
            about = os.fstat(opened)
            kept = file.read(64)
        if len(kept) == len(new) and about.st_uid == os.getuid() and not about.st_mode & 0o077:
            return kept
    return new
