"""Models behind an endpoint: real requests to a real server, which counts them, and which may misbehave."""

from __future__ import annotations

import queue
import random
import socket
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from panic import run
from panic.config import ExperimentConfig
from panic.engine import endpoints
from panic.engine.calls import Call
from panic.engine.endpoints import backoff_s, retry_after_s
from panic.engine.plan import CheckedConfig, make_plan
from panic.errors import BudgetSpent, Interrupted, ModelError
from panic.store import Store, check, reading, served
from tests.engine.conftest import dump, interrupt_when
from tests.engine.endpoint_server import Seen, Server
from tests.engine.test_kill import perform_in_child
from tests.processes import Held


def endpoint_config(server: Server, *, task: str = "text-to-text", **changes: Any) -> ExperimentConfig:
    """6 runs of 12 steps of one chat model; `model` adds parameters of it."""
    model = {"base": "openai:tiny", "base_url": server.url, "task": task} | changes.pop("model", {})
    values = {
        "name": "served",
        "networks": [["chat"]],
        "models": {"chat": model},
        "prompts": [f"prompt {number}" for number in range(6)],
        "seeds": [42],
        "max_length": 12,
        "device": "cpu",
        "executor": "local",
    }
    return ExperimentConfig.model_validate(values | changes)


def counts(store: Path) -> Any:
    with Store(store) as opened:
        assert check.check(opened) == []
        return reading.counts(opened)


def test_each_answer_is_asked_for_once(tmp_path: Path) -> None:
    with Server() as server:
        config = endpoint_config(server)
        assert run(config, tmp_path / "store").state == "complete"
        assert (server.answered, len(server.requests)) == (72, 72)
        assert counts(tmp_path / "store").invocations == 72
        run(config, tmp_path / "store")
        run(endpoint_config(server, max_length=13), tmp_path / "store")
        assert len(server.requests) == 78
    with Store(tmp_path / "store") as store:
        [model] = reading.models(store)
        assert not model.is_repeatable
        assert not any(row.is_repeatable for row in reading.runs(store))
        [told] = served.served_models(store, 1)
        assert (told.requests, told.input_tokens, told.output_tokens) == (78, 780, 390)
        assert told.served == ("served-1 fp-1",)


def test_as_many_requests_side_by_side_as_the_concurrency_says(tmp_path: Path) -> None:
    with Server(delay_s=0.02, at_least=3) as server:
        run(endpoint_config(server, model={"concurrency": 3}), tmp_path / "store")
        assert server.most_at_once == 3


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_misbehaving_server_costs_requests_and_no_answer(tmp_path: Path) -> None:
    chance = random.Random(7)
    kinds = ["429"] * 30 + ["500"] * 6 + ["cut"] * 6 + ["json"] * 3 + ["other"] * 3 + ["trickle"] * 2
    kinds += ["hang"] * 2 + [""] * 48
    with Server(faults=lambda number: chance.choice(kinds), headers={"retry-after": "0"}) as server:
        config = endpoint_config(server, model={"timeout_s": 10.0, "concurrency": 16}, max_retries=12)
        assert run(config, tmp_path / "store").state == "complete"
        assert server.answered == 72
        assert len(server.requests) > 100
    found = counts(tmp_path / "store")
    assert (found.invocations, found.failed) == (72, 0)
    with Store(tmp_path / "store") as store:
        assert served.spent(store, 1).requests == len(server.requests)


def test_a_request_that_always_fails_ends_its_own_run(tmp_path: Path) -> None:
    def refuse(number: int, seen: Seen) -> str:
        return "" if "prompt 3" in str(seen.fields) else f"text {number}"

    with Server(text=refuse) as server:
        run(endpoint_config(server, max_length=2, max_retries=1), tmp_path / "store")
        assert server.answered == 12  # 10 texts, and the empty one twice
    found = counts(tmp_path / "store")
    assert (found.done, found.failed, found.invocations) == (5, 1, 10)


def test_a_request_that_is_wrong_is_not_sent_again(tmp_path: Path) -> None:
    with Server(faults=lambda number: "400" if number == 2 else "") as server:
        run(endpoint_config(server, max_length=1), tmp_path / "store")
        assert len(server.requests) == 6
    assert counts(tmp_path / "store").failed == 1


@pytest.mark.parametrize("status", ["401", "403", "404"])
def test_a_server_that_refuses_to_serve_ends_the_session_and_no_run(tmp_path: Path, status: str) -> None:
    with Server(faults=lambda number: status if number > 20 else "") as server:
        with pytest.raises(ModelError, match=f"answers {status}"):
            run(endpoint_config(server), tmp_path / "store")
        found = counts(tmp_path / "store")
        assert (found.failed, found.invocations) == (0, server.answered)
        server.faults = lambda number: ""
        run(endpoint_config(server), tmp_path / "store")
        assert server.answered == 72


def test_a_server_that_is_not_there_ends_the_session_and_no_run(tmp_path: Path) -> None:
    with Server() as server, socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # nobody listens there, and nobody else can
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        config = endpoint_config(server, model={"base_url": url, "patience_s": 0.6})
        with pytest.raises(ModelError, match="cannot be reached"):
            run(config, tmp_path / "store")
        assert server.requests == []
    assert counts(tmp_path / "store").failed == 0


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate of 127.0.0.1 that signs itself, and its key."""
    path = tmp_path / "server.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=x"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", path, "-out", tmp_path / "cert.pem"]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("there is no openssl to make a certificate")
    path.write_bytes(path.read_bytes() + (tmp_path / "cert.pem").read_bytes())
    return path


def test_a_server_whose_certificate_nobody_vouches_for_is_asked_nothing(
    tmp_path: Path, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Server(certificate=certificate) as server:
        config = endpoint_config(server, model={"patience_s": 0.1}, max_length=1)
        with pytest.raises(ModelError, match="CERTIFICATE_VERIFY_FAILED"):
            run(config, tmp_path / "store")
        assert len(server.requests) == 0
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        run(config, tmp_path / "store")
        assert len(server.requests) == 6


def test_an_interrupted_session_pays_for_nothing_twice(tmp_path: Path) -> None:
    with Server(delay_s=0.02) as server:
        config = endpoint_config(server)
        with pytest.raises(Interrupted):
            run(config, tmp_path / "store", on_progress=interrupt_when(lambda now: now.invocations > 5))
        assert 0 < counts(tmp_path / "store").invocations == server.answered < 72
        run(config, tmp_path / "store")
        assert len(server.requests) == server.answered == 72


@pytest.mark.slow
def test_a_killed_session_has_paid_for_what_was_under_way_alone(tmp_path: Path) -> None:
    with Server(delay_s=0.03) as server:
        config = endpoint_config(server, model={"concurrency": 4}, budget={"requests": 72 + 3 * 4})
        lost = 0
        for kills, wanted in enumerate((10, 25, 40), start=1):
            child = perform_in_child(config, tmp_path / "store")
            while server.answered < wanted + lost:
                time.sleep(0.002)
            child.kill()
            child.communicate()
            server.until_idle()
            assert 0 <= server.answered - lost - counts(tmp_path / "store").invocations <= 4
            lost = server.answered - counts(tmp_path / "store").invocations
            with Store(tmp_path / "store") as store:
                spent = served.spent(store, 1).requests
            # Of each session that was killed some that were reckoned had not left yet.
            assert len(server.requests) <= spent <= len(server.requests) + 4 * kills
        run(config.model_copy(update={"budget": None}), tmp_path / "store")
        assert server.answered == 72 + lost
    assert counts(tmp_path / "store").invocations == 72


def test_a_client_that_cannot_be_opened_ends_the_session_with_its_own_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was hidden by "Event loop is closed", and workers behind it were not closed."""

    def refuse(*args: Any, **more: Any) -> None:
        raise OSError("no more files")

    monkeypatch.setattr("panic.engine.endpoints.aiohttp.ClientSession", refuse)
    before = Held()
    with Server() as server, pytest.raises(OSError, match="no more files"):
        run(endpoint_config(server), tmp_path / "store")
    assert before.new_threads() == set()


def test_requests_leave_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """What leaves together comes back together, and then waits for each other."""
    monkeypatch.setattr(endpoints, "GAP_S", 0.5)  # 2 ms are less than a busy machine may be late
    with Server() as server:
        config = endpoint_config(server)
        spec = make_plan(CheckedConfig.from_python(config), "cpu").specs["chat"]
        results: queue.SimpleQueue[Any] = queue.SimpleQueue()
        worker, are_there = endpoints.EndpointWorker(spec, None, results.put), threading.Event()
        worker._loop.call_soon_threadsafe(are_there.wait)  # all are there when the first may leave
        for number in range(6):
            worker.submit(
                Call(number=number, model="chat", batch_size=1, inputs=[f"{number}"], seeds=[42], bucket=0)
            )
        are_there.set()
        starts = sorted(results.get(timeout=20).started_at for _ in range(6))
        worker.close()
    assert starts[4] - starts[0] > 0.25


def test_requests_per_minute_are_kept(tmp_path: Path) -> None:
    with Server() as server:
        model = {"requests_per_minute": 60 * 40}
        outcome = run(endpoint_config(server, model=model, max_length=5), tmp_path / "store")
        assert outcome.counts.invocations == 30
    with Store(tmp_path / "store") as store:
        [session] = reading.sessions(store)
        assert session.ended_at is not None
        assert session.ended_at - session.started_at > 29 / 40


def test_images_and_embeddings_and_a_model_of_this_machine_in_one_network(tmp_path: Path) -> None:
    with Server() as server:
        at = {"base": "openai:tiny", "base_url": server.url}
        config = endpoint_config(
            server,
            networks=[["draw", "chain"], ["draw", "turn", "see"]],
            models={
                "draw": {**at, "task": "text-to-image", "width": 16, "height": 16},
                "turn": {**at, "task": "image-to-image", "prompt": "turn it"},
                "see": {**at, "task": "image-to-text"},
                "chain": {"base": "synthetic/image-to-text", "states": 7},
                "vector": {**at, "task": "embedding"},
            },
            embeddings=["vector"],
            max_length=6,
        )
        assert run(config, tmp_path / "store").state == "complete"
        assert {seen.path for seen in server.requests} == {
            f"/v1/{path}" for path in ("chat/completions", "images/generations", "images/edits", "embeddings")
        }
        first = next(seen for seen in server.requests if seen.path.endswith("generations"))
        assert first.fields["size"] == "16x16"
    found = counts(tmp_path / "store")
    assert (found.invocations, found.failed) == (72, 0)
    with Store(tmp_path / "store") as store:
        texts = store.db.value("SELECT count(*) FROM output WHERE modality = 'text'")
        assert found.embeddings == texts


def test_nothing_is_taken_from_a_memo_and_no_run_is_stuck(tmp_path: Path) -> None:
    with Server(text=lambda number, seen: "always this") as server:
        config = endpoint_config(server, prompts=["always this", "another"])
        outcome = run(config, tmp_path / "store")
        assert len(server.requests) == 24
    assert (outcome.counts.stuck, outcome.counts.done) == (0, 2)


def test_a_run_that_went_round_often_is_repeated_and_not_stuck(tmp_path: Path) -> None:
    turns: dict[str, int] = {}

    def text(number: int, seen: Seen) -> str:
        """From c on: a a b, again and again, a cycle that holds one output twice; with "slow" once broken."""
        asked = seen.fields["messages"][-1]["content"]
        start = seen.fields["seed"]
        turn = turns[str(start)] = turns.get(str(start), -1) + 1
        if asked == "prompt" or turn == 0:
            return "c"
        return "broken" if start == 7 and turn == 9 else "aab"[(turn - 1) % 3]

    with Server(text=text) as server:
        config = endpoint_config(server, prompts=["prompt"], seeds=[5, 7], max_length=40, stuck_after=4)
        run(config, tmp_path / "store")
        asked = len(server.requests)
        run(config, tmp_path / "store")
        assert len(server.requests) == asked
    assert counts(tmp_path / "store").repeated == 2
    with Store(tmp_path / "store") as store:
        first, second = reading.runs(store)
        assert (first.state, first.num_steps, first.repeated) == ("repeated", 13, (1, 3, 4))
        assert second.repeated == (10, 3, 4)
        assert (first.period, reading.is_stuck(store, first.id)) == (None, None)
    assert '"kind": "repeated"' in "".join(dump(tmp_path / "store"))


def test_a_budget_of_requests_is_never_passed_and_a_larger_one_goes_on(tmp_path: Path) -> None:
    with Server(faults=lambda number: "500" if number % 5 == 4 else "") as server:
        small = {"budget": {"requests": 30}, "max_retries": 9}
        with pytest.raises(BudgetSpent, match="30 of 30 requests"):
            run(endpoint_config(server, **small), tmp_path / "store")
        assert len(server.requests) == 30
        assert counts(tmp_path / "store").invocations == server.answered == 24
        with pytest.raises(BudgetSpent):
            run(endpoint_config(server, **small), tmp_path / "store")
        assert len(server.requests) == 30
        large = {"budget": {"requests": 1e3}, "max_retries": 9}
        assert run(endpoint_config(server, **large), tmp_path / "store").state == "complete"
        assert server.answered == 72


def test_a_budget_of_tokens_counts_what_the_server_says(tmp_path: Path) -> None:
    with Server() as server:
        config = endpoint_config(server, budget={"tokens": 900}, model={"max_tokens": 20, "concurrency": 2})
        with pytest.raises(BudgetSpent):
            run(config, tmp_path / "store")
        assert 40 <= server.answered <= 60  # 15 tokens each, and a request is reckoned with about 100 at most
    with Store(tmp_path / "store") as store:
        assert served.spent(store, 1).tokens == 15 * server.answered


def test_waits_grow_and_the_server_may_say_how_long() -> None:
    assert 0.25 <= backoff_s(1) <= 0.5
    assert 15 <= backoff_s(50) <= 30
    assert retry_after_s("7") == 7.0
    assert retry_after_s("Thu, 01 Jan 1970 00:00:00 GMT") == 0.0
    assert [retry_after_s(text) for text in (None, "soon", "-1", "²", "9" * 400)] == [None] * 5
