"""Notices, sent by apprise to a real server: of an end, a failure, a stall; no secret is kept anywhere."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from panic import run
from panic.config import NoticeSettings
from panic.engine import notices
from panic.engine.notices import telling
from panic.engine.progress import Progress
from panic.errors import BudgetSpent, Interrupted, ModelError, UsageError
from panic.store import Store, reading
from panic.store.dump import dump as dump_lines
from tests.engine.conftest import dump, interrupt_when, make_config
from tests.patience import LONGEST_S, until

pytest.importorskip("apprise")

SECRET = "swordfish-4711"
PATIENT = f"cto={LONGEST_S}&rto={LONGEST_S}"
"""How long apprise tries to connect, and waits for an answer: 4 s else, which a busy machine may take."""


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that sends a notice may take its time: what is late is not lost."""
    monkeypatch.setattr("panic.engine.notices.LONGEST_S", LONGEST_S)


@dataclass
class Received:
    """A server that keeps what it is sent; `address` is its own in apprise's words, with a secret in it."""

    address: str = ""
    notices: list[dict[str, Any]] = field(default_factory=list)

    @property
    def titles(self) -> list[str]:
        return [one["title"] for one in self.notices]


@pytest.fixture
def received(monkeypatch: pytest.MonkeyPatch) -> Iterator[Received]:
    found = Received()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            data = self.rfile.read(int(self.headers["Content-Length"]))
            assert SECRET in self.path
            found.notices.append(json.loads(data))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *what: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    found.address = f"json://127.0.0.1:{server.server_port}/{SECRET}?{PATIENT}"
    monkeypatch.setenv("TEAM_CHAT", found.address)
    yield found
    server.shutdown()
    server.server_close()


def test_an_end_is_told_and_the_address_is_kept_nowhere(
    received: Received, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = make_config(notify={"to": ["TEAM_CHAT"]})
    run(config, tmp_path / "store", command=f"panic run --password {received.address}")
    run(make_config(), tmp_path / "plain")
    [notice] = received.notices
    assert notice["title"] == "test is complete"
    assert "6 of 6 runs have ended, 2 stuck" in notice["message"]
    for file in (tmp_path / "store").rglob("*"):
        assert SECRET.encode() not in file.read_bytes()
    assert SECRET not in caplog.text
    with Store(tmp_path / "store") as store:
        [session] = reading.sessions(store)
        assert session.provenance["environment"]["TEAM_CHAT"] == "(redacted)"
        assert not any(SECRET in json.dumps(line) for line in dump_lines(store))
    assert dump(tmp_path / "store") == dump(tmp_path / "plain")


@pytest.mark.slow
def test_failed_runs_an_interrupt_and_an_error_are_told(received: Received, tmp_path: Path) -> None:
    of_failures = {"to": ["TEAM_CHAT"], "on": ["failure"]}
    run(make_config(chain={"fail_at": 3}, max_retries=0, notify=of_failures), tmp_path / "failing")
    assert received.titles == ["test has ended, 6 runs failed"]
    config = make_config(draw={"delay_s": 0.02}, max_length=60, notify={"to": ["TEAM_CHAT"], "on": ["end"]})
    with pytest.raises(Interrupted):
        run(config, tmp_path / "stopped", on_progress=interrupt_when(lambda p: p.invocations > 6))
    with pytest.raises(ModelError), telling(NoticeSettings(**of_failures), "x", lambda progress: None):
        raise ModelError("the device\nis\x1b[31m gone")
    assert received.titles[1:] == ["test was interrupted", "x has failed: the device is [31m gone"]
    with telling(NoticeSettings(**of_failures), "x", lambda progress: None):
        pass
    assert len(received.titles) == 3


@pytest.mark.slow
def test_a_stall_is_told_once_until_there_are_results_again(received: Received) -> None:
    settings = NoticeSettings(to=["TEAM_CHAT"], on=["stall"], stall_minutes=1 / 60)
    with telling(settings, "x", lambda progress: None) as hear:
        for steps in (1, 2):

            def is_told(steps: int = steps) -> bool:
                hear(Progress(invocations=steps, runs_total=4))  # heard again without news
                return len(received.notices) >= steps

            until(is_told)
            time.sleep(0.3)
    assert received.titles == [f"x: no result for {1 / 60:g} minutes"] * 2


@pytest.mark.slow
def test_a_dead_and_a_wrong_address_change_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("DEAD", f"json://127.0.0.1:9/{SECRET}")
    monkeypatch.setenv("WRONG", f"nonsense://{SECRET}")
    run(make_config(notify={"to": ["DEAD", "WRONG"]}), tmp_path / "store")
    run(make_config(), tmp_path / "plain")
    assert dump(tmp_path / "store") == dump(tmp_path / "plain")
    told = [record.getMessage() for record in caplog.records if "notice" in record.getMessage()]
    assert "a notice did not reach the address in DEAD, WRONG" in told
    assert any("no such address as that in WRONG" in record.getMessage() for record in caplog.records)
    assert SECRET not in caplog.text


def test_what_is_missing_is_told_before_anything_is_computed(tmp_path: Path) -> None:
    assert "NO_SUCH_VARIABLE" not in os.environ
    with pytest.raises(UsageError, match="NO_SUCH_VARIABLE is not set"):
        run(make_config(notify={"to": ["NO_SUCH_VARIABLE"]}), tmp_path / "store")
    assert not (tmp_path / "store").exists()


def test_an_address_in_a_config_is_refused() -> None:
    with pytest.raises(ValidationError, match="is the name of an environment variable"):
        make_config(notify={"to": [f"json://localhost/{SECRET}"]})


# What is told when


@pytest.mark.parametrize(
    ("error", "num_failed", "told"),
    [
        (None, 0, "is complete"),
        (None, 1234, "has ended, 1,234 runs failed"),
        (Interrupted("Stopped."), 3, "was interrupted"),
        (BudgetSpent("The budget is spent"), 0, "has spent its budget"),
        (ModelError("the device\nis\x1b[31m gone"), 0, "has failed: the device is [31m gone"),
        (ModelError("x" * 301), 0, f"has failed: {'x' * 300}"),
        (KeyError("a path of somebody's"), 0, "has failed: KeyError"),
    ],
)
def test_how_it_ended_in_a_few_words(error: BaseException | None, num_failed: int, told: str) -> None:
    assert notices._ending(error, Progress(runs_failed=num_failed)) == told


def test_how_far_it_is_in_a_sentence() -> None:
    progress = Progress(
        runs_total=4000, runs_ended=3000, runs_stuck=2000, runs_failed=1000, invocations=50_000
    )
    assert notices._standing(progress) == (
        f"3,000 of 4,000 runs have ended, 2,000 stuck, 1,000 failed; 50,000 steps. On {socket.gethostname()}."
    )


def test_only_results_are_news() -> None:
    """Of a stage that follows the runs, too."""
    now = Progress().with_stage("diagrams", 0, 9)
    watched = notices._Watched(progress=now)
    told: list[tuple[dict[str, Any], int, bool]] = [
        ({"invocations": 1}, 0, True),
        ({}, 0, False),
        ({"runs_ended": 1}, 0, True),
        ({"runs_stuck": 1, "runs_failed": 1, "elapsed_s": 9.0}, 0, False),
        ({}, 1, True),
        ({}, 1, False),
        ({"invocations": 2, "runs_ended": 2}, 2, True),
    ]
    for changes, done, is_news in told:
        now = replace(now, **changes).with_stage("diagrams", done, 9)
        watched.since = -1.0
        watched.hear(now)
        assert (watched.since > 0, watched.progress) == (is_news, now), (changes, done)


@pytest.fixture
def titles(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The titles of what is sent, which goes nowhere."""
    found: list[str] = []

    def send(addresses: dict[str, str], title: str, body: str) -> list[str]:
        assert addresses == {"TEAM_CHAT": "json://nowhere"}
        if title:
            found.append(title)
        return []

    monkeypatch.setenv("TEAM_CHAT", "  json://nowhere \n")
    monkeypatch.setattr(notices, "_send", send)
    return found


@pytest.mark.parametrize(
    ("on", "num_failed", "error", "is_told"),
    [
        ("end", 0, None, True),
        ("end", 0, KeyError(), True),
        ("failure", 0, None, False),
        ("failure", 1, None, True),
        ("failure", 0, KeyError(), True),
        ("failure", 1, Interrupted("enough"), False),
        ("stall", 1, KeyError(), False),
    ],
)
def test_an_end_is_told_to_whoever_wants_to_hear_of_it(
    titles: list[str], on: Any, num_failed: int, error: BaseException | None, is_told: bool
) -> None:
    heard: list[Progress] = []

    def perform() -> None:
        with telling(NoticeSettings(to=["TEAM_CHAT"], on=[on]), "x", heard.append) as hear:
            hear(Progress(runs_failed=num_failed))
            if error is not None:
                raise error

    with pytest.raises(type(error)) if error else contextlib.nullcontext():
        perform()
    assert len(titles) == is_told
    assert heard == [Progress(runs_failed=num_failed)]
    assert "notices" not in [thread.name for thread in threading.enumerate()]


class Turns(threading.Event):
    """An event that a thread waits for so many times; what happens at each turn, and how long it waits."""

    def __init__(self, *turns: Any) -> None:
        super().__init__()
        self.turns, self.waits = list(turns), list[float | None]()

    def wait(self, timeout: float | None = None) -> bool:
        self.waits.append(timeout)
        if not self.turns:
            return True
        self.turns.pop(0)()
        return False


@pytest.mark.parametrize(("minutes", "wait_s"), [(1 / 3, 2.0), (1e-6, 0.05), (600.0, 5.0)])
def test_a_stall_is_told_once_for_each_time_that_nothing_comes(
    titles: list[str], caplog: pytest.LogCaptureFixture, minutes: float, wait_s: float
) -> None:
    watched = notices._Watched()

    def since(ago_s: float) -> Any:
        at = time.monotonic() - ago_s
        return lambda: setattr(watched, "since", at)

    long_s = minutes * 60 + 100.0
    stalled, later = since(long_s), since(long_s + 1)
    ending = Turns(since(-1000.0), stalled, stalled, since(-1000.0), later, later)
    addresses = {"TEAM_CHAT": "json://nowhere"}
    settings = NoticeSettings(to=["TEAM_CHAT"], on=["stall"], stall_minutes=minutes)
    notices._watch(settings, "x", addresses, watched, ending)
    assert titles == [f"x: no result for {minutes:g} minutes"] * 2
    assert caplog.messages == [f"no result for {minutes:g} minutes"] * 2
    assert ending.waits == [pytest.approx(wait_s)] * 7
    titles.clear()
    notices._watch(settings.model_copy(update={"on": ["end"]}), "x", addresses, watched, Turns(stalled))
    assert titles == []


SENDER = """
import json, os, sys, time

asked = json.load(sys.stdin)
with open(os.environ["TOLD"], "a") as told:
    told.write(json.dumps([asked, sorted(os.environ.keys() & {"GOOD", "BAD", "SLOW", "OTHER"})]) + "\\n")
time.sleep(60 if asked["to"] == "slow" else 0)
sys.exit(asked["to"] == "bad")
"""


def test_each_address_has_a_process_of_its_own_that_knows_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "sender.py").write_text(SENDER)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(notices, "SENDER", "sender")
    monkeypatch.setenv("TOLD", str(tmp_path / "told"))
    addresses = {"GOOD": "good", "BAD": "bad"}
    for name, address in {**addresses, "OTHER": "x"}.items():
        monkeypatch.setenv(name, address)
    assert notices._send(addresses, "a title", "a body") == ["BAD"]
    told = [json.loads(line) for line in (tmp_path / "told").read_text().splitlines()]
    assert sorted(told, key=str) == [
        [{"to": to, "title": "a title", "body": "a body"}, ["OTHER"]] for to in ("bad", "good")
    ]
    assert caplog.messages == ["a notice did not reach the address in BAD"]
    caplog.clear()
    assert notices._send(addresses, "", "") == ["BAD"]
    assert caplog.messages == [], "whoever asked says so"
    monkeypatch.setattr(notices, "LONGEST_S", 0.05)
    assert notices._send({"SLOW": "slow"}, "a title", "") == ["SLOW"], "it would end well in a minute"
