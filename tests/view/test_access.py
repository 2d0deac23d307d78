"""Who is let in: tokens, cookies, names of hosts, other pages, and what writing needs."""

from __future__ import annotations

import asyncio
import http.client
import os
import socket
import time
from pathlib import Path

import pytest
from starlette.datastructures import Headers, QueryParams

from panic.view import access as of_view
from panic.view.access import Access, kept_secret
from tests.view.conftest import Served, Shared, serving

API = "/api/1/stores"


def cookie_of(served: Served) -> str:
    """The cookie that the printed address gives."""
    answer = served.get(f"/?token={served.access.token}", with_token=False)
    assert answer.status == 200
    assert "HttpOnly" in answer.headers["set-cookie"]
    assert "SameSite=Strict" in answer.headers["set-cookie"]
    return answer.headers["set-cookie"].split(";")[0]


@pytest.mark.parametrize("path", ["/", API, "/static/page.js", "/api/1/events", "/api/1/session", "/nowhere"])
def test_nothing_is_answered_without_a_token(shared: Shared, path: str) -> None:
    served, *_ = shared
    answer = served.get(path, with_token=False)
    assert answer.status == 401
    assert b"demo" not in answer.body
    assert served.get(path, with_token=False, headers={"Authorization": "Basic wrong"}).status == 401


def test_the_token_becomes_a_cookie_that_is_let_in(shared: Shared) -> None:
    served, *_ = shared
    cookie = cookie_of(served)
    assert served.access.token not in cookie
    assert served.get(API, with_token=False, headers={"Cookie": cookie}).status == 200
    changed = cookie[:-1] + ("0" if cookie[-1] != "0" else "1")
    assert served.get(API, with_token=False, headers={"Cookie": changed}).status == 401


def test_a_second_tab_leaves_the_first_its_cookie(shared: Shared) -> None:
    """Every opening of the address made another one, and what the first page wrote was refused."""
    served, *_ = shared
    first = served.get(f"/?token={served.access.token}", with_token=False)
    cookie = first.headers["set-cookie"].partition(";")[0]
    again = served.get(f"/?token={served.access.token}", with_token=False, headers={"Cookie": cookie})
    assert again.status == 200
    assert "set-cookie" not in again.headers


def test_a_token_in_another_address_is_none(shared: Shared) -> None:
    """It would stay in logs and histories: only the page itself takes it."""
    served, *_ = shared
    assert served.get(f"{API}?token={served.access.token}", with_token=False).status == 401


def test_the_cookie_outlives_a_restart_and_the_token_does_not(known: tuple[Path, object]) -> None:
    with serving(known[0]) as first:
        cookie, token = cookie_of(first), first.access.token
    with serving(known[0]) as second:
        assert second.get(API, with_token=False, headers={"Cookie": cookie}).status == 200
        old = second.get(f"/?token={token}", with_token=False)
        assert old.status == 401
        assert b"earlier start" in old.body


def test_a_cookie_ends_by_the_clock_of_the_server(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    cookie = cookie_of(served)
    later = time.time() + of_view.COOKIE_S + 1
    monkeypatch.setattr(of_view.time, "time", lambda: later)
    assert served.get(API, with_token=False, headers={"Cookie": cookie}).status == 401


def test_a_cookie_of_another_store_is_none(shared: Shared) -> None:
    served, *_ = shared
    other = Access(hosts=(), scope="another store", is_writable=True)
    assert not served.access.is_cookie(other.cookie())
    assert served.access.is_cookie(served.access.cookie())


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "[::2]", "", "a b"])
def test_an_unknown_host_is_refused(shared: Shared, host: str) -> None:
    """A page of another name that resolves to this address (DNS rebinding) learns nothing."""
    served, *_ = shared
    assert served.get(API, headers={"Host": host}).status == 403


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"},
        {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "cors"},
    ],
)
def test_what_another_page_asks_is_refused(shared: Shared, headers: dict[str, str]) -> None:
    served, *_ = shared
    assert served.get(API, headers=headers).status == 403


def test_browsers_are_told_what_to_heed(shared: Shared) -> None:
    served, *_ = shared
    for path in ("/", API, "/nowhere"):
        headers = served.get(path).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"


def test_writing_needs_the_value_of_the_session(served: Served) -> None:
    path, said = f"{API}/0/remarks", {"experiment": "alpha", "kind": "tag", "text": "good"}
    for headers in ({"x_panic_write": ""}, {"x_panic_write": "guess"}):
        assert served.post(path, said, **headers).status == 403
    other = served.access.write_value("another session")
    assert served.post(path, said, x_panic_write=other).status == 403
    assert served.post(path, said).status == 200


def test_a_read_only_server_writes_nothing(known: tuple[Path, object]) -> None:
    with serving(known[0], is_writable=False) as served:
        assert served.get("/api/1/session").json["write"] is None
        said = {"experiment": "alpha", "kind": "tag", "text": "good"}
        right = served.access.write_value(served.access.token)
        assert served.post(f"{API}/0/remarks", said, x_panic_write=right).status == 403


def test_wrong_tokens_are_slowed_down_and_right_ones_are_not(served: Served) -> None:
    wrong = {"Authorization": "Bearer wrong"}
    for _ in range(of_view.FREE_TRIES + 2):
        served.get(API, with_token=False, headers=wrong)
    begin = time.monotonic()
    assert served.get(API, with_token=False, headers=wrong).status == 401
    assert time.monotonic() - begin > 0.9

    async def both() -> tuple[str | None, bool]:
        wrong_one = asyncio.create_task(served.access.session_of(Headers(wrong), QueryParams(), API))
        await asyncio.sleep(0)
        right = Headers({"Authorization": f"Bearer {served.access.token}"})
        known, _ = await served.access.session_of(right, QueryParams(), API)
        return known, wrong_one.done()

    assert asyncio.run(both()) == (served.access.token, False), "it is let in while a wrong one waits"


def test_the_secret_is_for_its_owner_alone(tmp_path: Path) -> None:
    secret = kept_secret()
    file = tmp_path / "cache" / "panic" / "view-secret"
    assert file.stat().st_mode & 0o777 == 0o600
    assert kept_secret() == secret
    file.chmod(0o644)
    assert kept_secret() != secret
    file.unlink()
    os.mkfifo(file)
    assert len(kept_secret()) == 32


def test_a_websocket_and_a_broken_request_change_nothing(shared: Shared) -> None:
    served, *_ = shared
    with socket.create_connection(("127.0.0.1", served.port)) as raw:
        raw.sendall(b"\x00\xff nonsense\r\n\r\n")
        raw.recv(100)
    connection = http.client.HTTPConnection("127.0.0.1", served.port)
    connection.request("GET", API, headers={"Connection": "Upgrade", "Upgrade": "websocket"})
    assert connection.getresponse().status in (401, 403, 400, 426)
    assert served.get(API).status == 200
