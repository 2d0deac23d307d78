"""What the worker of an endpoint makes of what a server says: refusals, delays, keys, and what it costs."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from types import SimpleNamespace
from typing import Any, cast

import aiohttp
import pytest

from panic.engine import endpoints
from panic.engine.calls import Call
from panic.engine.endpoints import EndpointWorker, _Failure, _Pace, backoff_s, retry_after_s
from panic.errors import ModelMissing, OutputRejected
from panic.models import openai
from panic.models.protocol import ModelSpec
from panic.models.resolve import Names, Resolver
from tests.engine.endpoint_server import Server
from tests.processes import Held

KEY = "sk-12345678"


def spec_of(**changes: Any) -> ModelSpec:
    chat = {"base": "openai:tiny", "base_url": "http://localhost:1/v1", "task": "text-to-text"}
    return Resolver(Names(variants={"chat": chat | changes})).spec("chat")


@pytest.fixture
def worker() -> Iterator[EndpointWorker]:
    """One whose server has answered before, with 100 s of patience."""
    found = EndpointWorker(spec_of(patience_s=100.0), KEY, lambda result: None)
    found._has_answered = True
    yield found
    found.close()


def refusal(worker: EndpointWorker, status: int, body: Any = b"", **headers: str) -> _Failure:
    response = SimpleNamespace(status=status, reason="Because", headers=headers)
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return worker._refusal(cast("aiohttp.ClientResponse", response), data, 1)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (300, "unavailable"), (308, "unavailable"), (399, "unavailable"),
        (401, "unavailable"), (403, "unavailable"), (404, "unavailable"), (405, "unavailable"),
        (429, "busy"), (503, "busy"), (529, "busy"),
        (408, "passing"), (409, "passing"), (425, "passing"), (500, "passing"), (501, "passing"),
        (502, "passing"), (504, "passing"), (599, "passing"),
        (400, "final"), (402, "final"), (406, "final"), (410, "final"), (422, "final"), (499, "final"),
        (100, "final"), (600, "passing"),
    ],
)  # fmt: skip
def test_what_a_status_means(worker: EndpointWorker, status: int, kind: str) -> None:
    found = refusal(worker, status, {"error": {"message": "no"}})
    sort = found.kind
    if sort == "error":
        sort = "final" if found.more.get("is_final") else "passing"  # type: ignore[assignment]
        assert ("delay_s" in found.more) is (sort == "passing")
    assert sort == kind
    assert found.usage.requests == 1
    if not 300 <= status < 400:
        assert found.message == f"answers {status}: no"


def test_a_quota_that_is_spent_is_no_matter_of_waiting(worker: EndpointWorker) -> None:
    assert (
        refusal(worker, 429, {"error": {"code": "insufficient_quota", "message": "no"}}).kind == "unavailable"
    )
    assert refusal(worker, 429, {"error": {"code": "rate", "message": "no"}}).kind == "busy"
    assert refusal(worker, 500).message == "answers 500: Because"


def test_a_redirect_says_nothing_of_the_server(worker: EndpointWorker) -> None:
    worker._has_answered = False
    refusal(worker, 301)
    assert not worker._has_answered
    refusal(worker, 400)
    assert worker._has_answered


def test_all_wait_as_long_as_the_server_says(worker: EndpointWorker) -> None:
    before = time.monotonic()
    found = refusal(worker, 429, **{"retry-after": "7"})
    assert (found.kind, found.more) == ("busy", {"delay_s": 7.0})
    assert before + 7 <= worker._pace.next_at <= time.monotonic() + 7
    at = worker._pace.next_at
    refusal(worker, 429, **{"retry-after": "3"})
    assert worker._pace.next_at == at, "not less than it has said"
    for headers in ({}, {"retry-after": "0"}, {"retry-after": "Thu, 01 Jan 1970 00:00:00 GMT"}):
        assert 0.25 <= refusal(worker, 503, **headers).more["delay_s"] <= 0.5, (
            "at once, it would cost requests"
        )
    assert worker._pace.next_at == at


def test_patience_counts_from_the_first_of_a_row(worker: EndpointWorker) -> None:
    assert refusal(worker, 429, **{"retry-after": "99"}).kind == "busy"
    since = worker._put_off_since
    assert since is not None
    found = refusal(worker, 429, **{"retry-after": "101"})
    assert (found.kind, found.more["hint"]) == ("unavailable", "A longer patience_s waits longer.")
    assert found.message == "answers 429: Because, for longer than 100 s"
    assert worker._put_off_since == since
    worker._put_off_since = since - 90
    assert refusal(worker, 429, **{"retry-after": "20"}).kind == "unavailable"
    assert refusal(worker, 429, **{"retry-after": "5"}).kind == "busy"


def test_a_server_that_never_answered_is_given_up_sooner(worker: EndpointWorker) -> None:
    worker._has_answered = False
    assert worker._put_off("no", 1, 14.0, requests=0).kind == "busy"
    found = worker._put_off("no", 1, 16.0, requests=0)
    assert (found.kind, found.message) == ("unavailable", "no, for longer than 15 s")
    assert found.usage.requests == 0
    worker._spec = spec_of(patience_s=3.0)
    assert worker._put_off("no", 1, 4.0).message == "no, for longer than 3 s"


@pytest.mark.parametrize(
    ("attempt", "longest"), [(1, 0.5), (2, 1.0), (3, 2.0), (6, 16.0), (7, 30.0), (17, 30.0), (10**6, 30.0)]
)
def test_waits_double_up_to_half_a_minute(
    monkeypatch: pytest.MonkeyPatch, attempt: int, longest: float
) -> None:
    for share in (0.5, 1.0):
        monkeypatch.setattr(endpoints.random, "uniform", lambda low, high, share=share: (low, high, share)[2])
        assert backoff_s(attempt) == longest * share
    monkeypatch.undo()
    assert longest / 2 <= backoff_s(attempt) <= longest


def test_a_date_to_come_again_is_so_many_seconds_ahead() -> None:
    at = datetime.now(UTC) + timedelta(seconds=1000)
    assert 900 < cast("float", retry_after_s(format_datetime(at))) <= 1000
    assert [retry_after_s(text) for text in (" 3 ", "0", "1.5", "")] == [3.0, 0.0, None, None]


def test_turns_follow_each_other_by_the_interval_and_are_not_saved_up() -> None:
    pace = _Pace(2.0)
    assert [pace.turn(now) for now in (10.0, 10.0, 13.0, 20.0, 21.0)] == [10.0, 12.0, 14.0, 20.0, 22.0]
    assert [_Pace(0.0).turn(now) for now in (3.0, 3.0)] == [3.0, 3.0]


def test_an_answer_that_repeats_the_key_is_not_stored(worker: EndpointWorker) -> None:
    worker._refuse_key("an answer")
    with pytest.raises(_Failure, match="repeats the key") as caught:
        worker._refuse_key(f"your key is {KEY}.")
    assert caught.value.kind == "unavailable"
    assert worker._hide(f"at {KEY}: {KEY}") == "at (key): (key)"
    worker._key = "1234567"
    worker._refuse_key("1234567, which is too short to be a secret")
    worker._key = None
    worker._refuse_key("None")
    assert worker._hide("None") == "None"


def test_a_key_that_is_written_with_escapes_is_found_all_the_same(worker: EndpointWorker) -> None:
    escaped = "".join(f"\\u{ord(char):04x}" for char in KEY)

    def body(text: str = "a", **more: str) -> bytes:
        told = {"choices": [{"message": {"content": text}, "finish_reason": "stop"}], **more}
        return json.dumps(told).replace(KEY, escaped).encode()

    answer, output = worker._read(body(model="m", system_fingerprint="f"))
    assert (output.value, answer.served_model, answer.system_fingerprint) == ("a", "m", "f")
    for said in (body(KEY), body(model=KEY), body(system_fingerprint=KEY)):
        with pytest.raises(_Failure, match="repeats the key"):
            worker._read(said)


def test_what_a_model_refuses_may_not_repeat_the_key_either(
    worker: EndpointWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    for text, is_refused in (("not today", False), (f"not with {KEY}", True)):
        answer = openai.Answer(output=OutputRejected(text))
        monkeypatch.setattr(openai, "read", lambda spec, body, answer=answer: answer)
        if is_refused:
            with pytest.raises(_Failure):
                worker._read(b"")
        else:
            assert worker._read(b"")[1].reason == "not today"
    monkeypatch.setattr(openai, "read", lambda spec, body: openai.Answer(output=7))
    with pytest.raises(openai.BadAnswer, match="a text model returned int"):
        worker._read(b"")


def body_of(worker: EndpointWorker, chunks: list[bytes], **headers: str) -> bytes:
    async def some() -> Any:
        for chunk in chunks:
            yield chunk

    response = SimpleNamespace(headers=headers, content=SimpleNamespace(iter_any=some))
    return asyncio.run(worker._body(cast("aiohttp.ClientResponse", response)))


def test_an_answer_may_be_so_large_and_not_compressed(worker: EndpointWorker) -> None:
    worker._spec = spec_of(max_answer_bytes=2000)
    whole = [b"x" * 1500, b"y" * 500]
    assert body_of(worker, whole) == b"".join(whole)
    for coding in ("identity", "Identity", " identity "):
        assert body_of(worker, [b"x"], **{"content-encoding": coding}) == b"x"
    with pytest.raises(_Failure, match="its answer has more than 2,000 bytes") as caught:
        body_of(worker, [*whole, b"z"])
    assert caught.value.more == {"is_final": True}
    with pytest.raises(_Failure, match="compressed") as caught:
        body_of(worker, [b"x"], **{"content-encoding": "gzip"})
    assert caught.value.more == {"is_final": True}


def test_files_are_sent_as_a_form_and_all_else_as_json() -> None:
    sent = endpoints._sent(openai.Request(path="x", fields={"a": 1, "b": "ä"}))
    assert (json.loads(sent["data"].read()), sent["headers"]) == (
        {"a": 1, "b": "ä"}, {"content-type": "application/json"}
    )  # fmt: skip
    fields = {"n": 1, "text": "a", "many": ["x", 2]}
    form = endpoints._sent(openai.Request(path="x", fields=fields, files={"image": b"png"}))["data"]
    told = [(options["name"], value, headers) for options, headers, value in form._fields]
    assert [(name, value) for name, value, _ in told[:4]] == [
        ("n", "1"), ("text", "a"), ("many", "x"), ("many", "2")
    ]  # fmt: skip
    name, file, headers = told[4]
    assert (name, file.read(), headers["Content-Type"]) == ("image", b"png", "image/png")


def test_all_keys_are_looked_for_before_any_worker_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THERE", KEY)
    monkeypatch.delenv("NOT_THERE", raising=False)
    specs = {"a": spec_of(api_key_env="THERE"), "b": spec_of(api_key_env="NOT_THERE")}
    before = Held()
    with pytest.raises(ModelMissing, match="NOT_THERE"):
        endpoints.start_endpoints(specs, lambda result: None, reject_constant_images=False)
    assert before.new_threads() == set()
    found = endpoints.start_endpoints({"a": specs["a"]}, lambda result: None, reject_constant_images=True)
    assert (found["a"]._key, found["a"]._reject_constant) == (KEY, True)
    found["a"].close()


def answered(server: Server, number: int = 1, **changes: Any) -> list[Any]:
    """The results of calls of a chat, each when the one before has come."""
    results: list[Any] = []
    come = threading.Semaphore(0)

    def deliver(result: Any) -> None:
        results.append(result)
        come.release()

    worker = EndpointWorker(spec_of(base_url=server.url, **changes), KEY, deliver)
    for place in range(number):
        worker.submit(
            Call(number=place, model="chat", batch_size=1, inputs=[f"text {place}"], seeds=[place], attempt=3)
        )
        assert come.acquire(timeout=60)
    worker.close()
    return results


def test_a_request_says_who_asks_and_its_result_what_it_took(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("panic.engine.endpoints.time.time", lambda: 1234.5)
    with Server(delay_s=0.05) as server:
        [result] = answered(server)
        headers = server.requests[0].headers
        assert (headers["authorization"], headers["user-agent"]) == (f"Bearer {KEY}", "panic")
        assert headers["accept-encoding"] == "identity"
        assert result.device == f"127.0.0.1:{server.port}"
    assert (result.error, result.resident) == (None, {"chat"})
    assert result.started_at == 1234.5
    assert 0.05 <= result.duration_s < 60
    usage = result.usage
    assert (usage.requests, usage.tokens, usage.input_tokens, usage.output_tokens) == (1, 15, 10, 5)
    assert {span.name for span in result.spans} == {"waiting for a call", "waiting for answers"}
    with Server(usage=None) as server:
        [result] = answered(server)
    assert result.usage.tokens == openai.most_tokens(spec_of(), "text 0"), "nothing better is known"
    assert result.usage.input_tokens is None


def test_what_a_failure_costs_is_reckoned() -> None:
    """A lost answer with what it takes at most, a refusal with nothing, and what never left not at all."""
    most = openai.most_tokens(spec_of(), "text 0")
    for fault, tokens, kind in (("500", 0, "error"), ("cut", most, "error"), ("json", most, "error")):
        with Server(faults=lambda number, fault=fault: fault) as server:
            [result] = answered(server)
        assert (result.error.kind, result.usage.requests, result.usage.tokens) == (kind, 1, tokens), fault
        assert 1.0 <= result.error.delay_s <= 2.0, "of the third attempt"
        assert result.error.message.startswith(f"127.0.0.1:{server.port}: ")
        assert result.outputs == []
    with Server(faults=lambda number: "hang") as server:
        [result] = answered(server, timeout_s=0.2)
        assert result.error.message.endswith("no answer within 0.2 s")
        assert result.usage.tokens == most


def test_a_drained_worker_begins_nothing() -> None:
    results: list[Any] = []
    come = threading.Semaphore(0)

    def deliver(result: Any) -> None:
        results.append(result)
        come.release()

    with Server() as server:
        worker = EndpointWorker(spec_of(base_url=server.url, requests_per_minute=1), None, deliver)
        for number in range(3):
            worker.submit(Call(number=number, model="chat", batch_size=1, inputs=["x"], seeds=[0]))
        assert come.acquire(timeout=60)
        worker.drain()
        for _ in range(2):
            assert come.acquire(timeout=60)
        worker.close()
        assert len(server.requests) == 1
        assert "authorization" not in server.requests[0].headers
    assert [result.error and result.error.kind for result in results] == [None, "untried", "untried"]
    assert [result.usage.requests for result in results] == [1, 0, 0]
