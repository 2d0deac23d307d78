"""Servers that send whatever they like, byte by byte: one failed request each, nothing of a key is told."""

from __future__ import annotations

import contextlib
import gzip
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest

from panic.engine.calls import Call, CallResult
from panic.engine.endpoints import EndpointWorker, without
from panic.models.resolve import Names, Resolver
from tests.patience import LONGEST_S

KEY = "sk-12345678abcdefgh"
Behave = Callable[[socket.socket], object]
OK = b"HTTP/1.1 200 OK\r\n"


@contextmanager
def serving(behave: Behave) -> Iterator[str]:
    """The base URL of a server that takes in a request and then does what it likes with the connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    threading.Thread(target=answer, args=(connection,), daemon=True).start()

        def answer(connection: socket.socket) -> None:
            with connection, suppress(OSError):
                asked = b""
                while not asked.endswith(b"}"):
                    part = connection.recv(65536)
                    if not part:
                        return
                    asked += part
                behave(connection)

        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}/v1"
        with contextlib.suppress(OSError):  # of a socket that listens, some systems say so
            server.shutdown(socket.SHUT_RDWR)


def asked_of(behave: Behave, **changes: Any) -> CallResult:
    """What comes of one request."""
    come = threading.Event()
    results: list[Any] = []

    def deliver(result: Any) -> None:
        results.append(result)
        come.set()

    with serving(behave) as url:
        values = {"base": "openai:tiny", "base_url": url, "task": "text-to-text", "timeout_s": LONGEST_S}
        spec = Resolver(Names(variants={"chat": values | {"patience_s": 9.0} | changes})).spec("chat")
        worker = EndpointWorker(spec, KEY, deliver)
        worker.submit(Call(model="chat", batch_size=1, inputs=["a"], seeds=[1]))
        assert come.wait(LONGEST_S)
        worker.close()
    [result] = results
    assert isinstance(result, CallResult), result
    return result


def whole(body: bytes, *headers: bytes, status: bytes = b"200 OK") -> bytes:
    head = [b"HTTP/1.1 " + status, b"content-length: %d" % len(body), *headers]
    return b"\r\n".join([*head, b"", body])


def chat(**more: Any) -> bytes:
    return json.dumps({"choices": [{"message": {"content": "a text"}}], **more}).encode()


def endless(part: bytes, begin: bytes = OK) -> Behave:
    def behave(connection: socket.socket) -> None:
        connection.sendall(begin)
        while True:
            connection.sendall(part)

    return behave


def dripping(data: bytes) -> Behave:
    def behave(connection: socket.socket) -> None:
        for byte in data:
            connection.sendall(bytes([byte]))
            time.sleep(0.05)

    return behave


CHUNKED = OK + b"transfer-encoding: chunked\r\n\r\n"
ANSWERS: dict[str, tuple[bytes, str, str]] = {
    "a header without end": (OK + b"x: " + b"y" * 2**20, "error", "the connection broke"),
    "no status": (b"HTTP/1.1 what\r\n\r\n", "error", "the connection broke"),
    "no HTTP, and the key": (b"\x1b[2J " + KEY.encode() + b"\r\n\r\n", "error", "the connection broke"),
    "nothing": (b"", "error", "the connection broke"),
    "less than it says": (OK + b"content-length: 500\r\n\r\n" + chat(), "error", "the connection broke"),
    "a negative length": (OK + b"content-length: -5\r\n\r\n{}", "error", "the connection broke"),
    "two lengths": (whole(b"{}", b"content-length: 3"), "error", "the connection broke"),
    "a chunk of no size": (CHUNKED + b"zz\r\nhello\r\n", "error", "the connection broke"),
    "a chunk of 2^160 bytes": (CHUNKED + b"f" * 40 + b"\r\nhello\r\n", "error", "the connection broke"),
    "a page": (whole(b"<html>hello</html>"), "error", "the answer is no JSON"),
    "no content": (b"HTTP/1.1 204 No\r\n\r\n", "error", "the answer is no JSON"),
    "a bomb": (
        whole(gzip.compress(b" " * 10**7), b"content-encoding: gzip"), "error", "compressed, which was not"
    ),
    "a file as another place": (
        whole(b"", b"location: file:///etc/passwd", status=b"302 F"), "unavailable", "redirects are not"
    ),
    "a century": (whole(b"", b"retry-after: 3153600000", status=b"429 T"), "unavailable", "answers 429"),
    "the year 9999": (
        whole(b"", b"retry-after: Fri, 31 Dec 9999 23:59:59 GMT", status=b"429 T"),
        "unavailable", "answers 429",
    ),
    "before": (whole(b"", b"retry-after: -1", status=b"429 T"), "busy", "answers 429"),
    "no number": (whole(chat(usage={"prompt_tokens": float("nan")})), "", ""),
    "no usage": (whole(chat(usage=float("nan"))), "error", "not as the protocol says"),
    "nested": (whole(b'{"choices":' + b"[" * 10**5), "error", "the answer is no JSON"),
    "digits": (whole(b'{"choices":[],"usage":{"prompt_tokens":' + b"9" * 5000 + b"}}"), "error", "no JSON"),
    "half a character": (whole(chat().replace(b"a text", b"a \\ud800")), "", ""),
    "the key as a reason": (whole(b"", status=b"400 " + KEY.encode()), "error", "answers 400: (key)"),
    "a long message with the key": (
        whole(json.dumps({"error": {"message": "y" * 488 + KEY, "code": KEY}}).encode(), status=b"400 B"),
        "error", "y(key)",
    ),
    "a long page with the key": (whole(b"z" * 188 + KEY.encode(), status=b"500 B"), "error", "z(key)"),
    "a refusal": (
        whole(b'{"error":{"message":"\\u001b]0;x\\u0007 \\ud800"}}', status=b"400 B"), "error", "\\ud800"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ANSWERS)
def test_whatever_is_answered_is_one_result_that_tells_no_part_of_a_key(name: str) -> None:
    data, kind, told = ANSWERS[name]
    result = asked_of(lambda connection: connection.sendall(data))
    error = result.error
    assert (error.kind if error else "") == kind, error
    message = error.message if error else ""
    assert told in message, message
    assert not [part for at in range(len(KEY) - 7) if (part := KEY[at : at + 8]) in message], message
    message.encode()  # every place that keeps it wants UTF-8


@pytest.mark.parametrize(
    ("behave", "told"),
    [
        (endless(b"10000\r\n" + b" " * 65536 + b"\r\n", CHUNKED), "more than 100,000 bytes"),
        (lambda connection: connection.sendall(whole(b"x" * 10**6)), "more than 100,000 bytes"),
        (endless(b"HTTP/1.1 100 Continue\r\n\r\n", b""), "no answer within 0.5 s"),
        (dripping(whole(chat())), "no answer within 0.5 s"),
        (lambda connection: time.sleep(2), "no answer within 0.5 s"),
    ],
    ids=["endless", "large", "go on", "byte by byte", "never"],
)  # fmt: skip
def test_what_has_no_end_is_given_up(behave: Behave, told: str) -> None:
    error = asked_of(behave, timeout_s=0.5 if "within" in told else LONGEST_S, max_answer_bytes=100_000).error
    assert error is not None
    assert error.kind == "error"
    assert told in error.message


def test_an_answer_that_is_of_no_use_is_paid_for() -> None:
    """What was too long, compressed or repeated the key counted as no tokens of the budget."""
    repeated = KEY.encode().replace(b"s", b"\\u0073")
    for answer, tokens in (
        (whole(b"x" * 10**6), True),
        (whole(b"", b"content-encoding: gzip"), True),
        (whole(chat(model=KEY)), True),
        (whole(chat().replace(b"a text", repeated)), True),
        (whole(b"", status=b"500 B"), False),
        (whole(b"x" * 10**6, status=b"400 B"), False),
        (whole(b"", b"content-encoding: gzip", status=b"500 B"), False),
    ):
        result = asked_of(lambda connection, a=answer: connection.sendall(a), max_answer_bytes=10_000)  # type: ignore[misc]
        assert result.error is not None
        assert result.usage is not None
        assert (result.usage.requests, result.usage.tokens > 0) == (1, tokens), result.error


@pytest.mark.parametrize(
    "answer",
    [
        whole(b"x" * 10**6, status=b"429 Later"),
        whole(gzip.compress(b"later"), b"content-encoding: gzip", status=b"429 Later"),
    ],
    ids=["long", "compressed"],
)
def test_a_refusal_that_cannot_be_read_is_what_its_status_says(answer: bytes) -> None:
    """A server that is busy was given up for that item where a proxy before it compressed its page."""
    error = asked_of(lambda connection: connection.sendall(answer), max_answer_bytes=10_000).error
    assert error is not None
    assert (error.kind, error.message.partition(": ")[2]) == ("busy", "answers 429: Later")


def test_a_connection_may_break_at_any_byte() -> None:
    data = whole(chat())
    for length in range(0, len(data), 7):
        error = asked_of(lambda connection, length=length: connection.sendall(data[:length])).error
        assert error is not None
        assert error.message.partition(": ")[2].startswith("the connection broke"), (length, error.message)
    assert asked_of(lambda connection: connection.sendall(data)).error is None


def test_parts_of_a_key_are_left_out_and_what_only_resembles_it_is_not() -> None:
    assert without(f"at {KEY}, {KEY[:9]} and {KEY[3:]}{KEY}", KEY) == "at (key), (key) and (key)(key)"
    assert without(f"{KEY[:7]} {KEY[::-1]}", KEY) == f"{KEY[:7]} {KEY[::-1]}", "less than a secret has"
    assert without("EMPTY is no key, EMP is none", "EMPTY") == "(key) is no key, EMP is none"
    assert without("", KEY) == ""


def test_a_word_that_a_placeholder_has_is_told() -> None:
    """Local servers are given a key like this one, and say what is wrong in such words."""
    key = "sk-no-key-required"
    assert without("'prompt' is a required field", key) == "'prompt' is a required field"
    assert without(f"{key} -required {key[:-1]} required", key) == "(key) (key) (key) required"
    assert without("no authentication", "no-authentication") == "no authentication"
    assert without("placeholder, placehold", "placeholder") == "(key), (key)"
