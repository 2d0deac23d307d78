"""Many clients for long: the server's memory stays, nothing fails, and the log of the store stays small."""

from __future__ import annotations

import http.client
import os
import re
import threading
import time
from pathlib import Path

import psutil
import pytest

from tests.patience import LONGEST_S
from tests.view.conftest import Looked
from tests.view.test_command import started

CLIENTS = 50
SECONDS = float(os.environ.get("PANIC_TEST_SECONDS", "300"))


class Client(threading.Thread):
    """Listens to the events and asks for what the wall shows, as a page does, from time to time anew."""

    def __init__(self, port: int, token: str, end: float) -> None:
        super().__init__(daemon=True)
        self.port, self.end = port, end
        self.headers = {"Authorization": f"Bearer {token}"}
        self.problems: list[str] = []
        self.num_events = 0

    def run(self) -> None:
        while time.monotonic() < self.end:
            try:
                self._watch(min(self.end, time.monotonic() + 20))
            except OSError as error:
                self.problems.append(repr(error))

    def _watch(self, until: float) -> None:
        stream = http.client.HTTPConnection("127.0.0.1", self.port, timeout=LONGEST_S)
        asks = http.client.HTTPConnection("127.0.0.1", self.port, timeout=LONGEST_S)
        stream.request("GET", "/api/1/events", headers=self.headers)
        answer = stream.getresponse()
        while time.monotonic() < until:
            if not answer.readline().startswith(b"data:"):
                continue
            self.num_events += 1
            one = "/api/1/stores/0/experiments/wall"
            for path in (f"{one}/runs?limit=50", f"{one}/cells?runs=1,2,3,4,5,6&step=last&before=9", one):
                asks.request("GET", path, headers=self.headers)
                got = asks.getresponse()
                body = got.read()
                if got.status != 200:
                    self.problems.append(f"{path}: {got.status} {body[:200]!r}")
        stream.close()
        asks.close()


@pytest.mark.long
@pytest.mark.timeout(SECONDS * 2 + 120)
def test_fifty_clients_for_five_minutes(tmp_path: Path) -> None:
    looked = Looked(tmp_path / "panic-store")
    process, url = started(looked.store.path)
    found = re.fullmatch(r"http://127\.0\.0\.1:(\d+)/\?token=(.+)", url)
    assert found
    try:
        end = time.monotonic() + SECONDS
        clients = [Client(int(found[1]), found[2], end) for _ in range(CLIENTS)]
        for client in clients:
            client.start()
        sizes, logs, number = [], [], 0
        while time.monotonic() < end:
            looked.step(looked.runs[number % 6], f"news {number}")
            number += 1
            time.sleep(0.5)
            sizes.append(psutil.Process(process.pid).memory_info().rss / 2**20)
            logs.append((looked.store.path / "store.sqlite-wal").stat().st_size / 2**20)
        for client in clients:
            client.join(LONGEST_S)
        problems = [problem for client in clients for problem in client.problems]
        third = len(sizes) // 3
        told = f"{sizes[third]:.0f} to {sizes[-1]:.0f} MB, log {max(logs):.0f} MB, {number} steps"
        print(told, sum(client.num_events for client in clients), "events")
        assert problems == []
        assert min(client.num_events for client in clients) > number / 8
        assert sizes[-1] < sizes[third] + 30, told
        assert sizes[-1] < 400, told
        assert max(logs) < 200, told
    finally:
        process.kill()
        process.wait()
        looked.store.close()
