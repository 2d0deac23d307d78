"""Notices, sent by apprise to a real server: of an end, a failure, a stall; no secret is kept anywhere."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from panic import run
from panic.config import NoticeSettings
from panic.engine.notices import telling
from panic.engine.progress import Progress
from panic.errors import Interrupted, ModelError, UsageError
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
