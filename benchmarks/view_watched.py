"""What an experiment loses to somebody who watches it: pairs of one experiment, watched and not, by turns.

A watcher without a page listens to the events and asks for tiles; with --page a browser shows the wall. On a
busy machine seconds tell little: the processor time that an experiment takes is compared as well.

python -m benchmarks.view_watched 10 60         # pairs, steps of each run
python -m benchmarks.view_watched 10 60 --page
"""

from __future__ import annotations

import http.client
import json
import os
import re
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from tests.view.browser import Browser

EXPERIMENT = ["networks=[[PocketDiffusion, PocketCaptioner]]", "prompts=[a small red circle]", "seeds=[-1]",
              "repeats=12", "embeddings=[]", "diagrams=[]", "batch_sizes={}"]  # fmt: skip
ONE = "/api/1/stores/0/experiments/demo"


class Watcher(threading.Thread):
    """Listens to the events of a server and asks, after each, for what the wall shows: rows, cells, tiles."""

    def __init__(self, port: int, token: str) -> None:
        super().__init__(daemon=True)
        self.port, self.headers = port, {"Authorization": f"Bearer {token}"}
        self.num_events = self.num_tiles = 0

    def run(self) -> None:
        stream = http.client.HTTPConnection("127.0.0.1", self.port)
        stream.request("GET", "/api/1/events", headers=self.headers)
        answer = stream.getresponse()
        seen: set[str] = set()
        while line := answer.readline():
            if not line.startswith(b"data:"):
                continue
            self.num_events += 1
            asks = http.client.HTTPConnection("127.0.0.1", self.port)  # an idle one is closed after 5 s
            try:
                self._ask(asks, ONE)
                runs = ",".join(str(run["run"]) for run in self._ask(asks, f"{ONE}/runs?limit=100")["runs"])
                cells = self._ask(asks, f"{ONE}/cells?runs={runs}&step=last&before=9")["cells"]
            except KeyError:
                continue  # the experiment has not begun
            images = {cell["digest"] for cell in cells if cell["modality"] == "image"} - seen
            for digest in images:
                asks.request("GET", f"/api/1/stores/0/thumbnails/128/{digest}", headers=self.headers)
                asks.getresponse().read()
            asks.close()
            seen |= images
            self.num_tiles += len(images)

    def _ask(self, asks: http.client.HTTPConnection, path: str) -> Any:
        asks.request("GET", path, headers=self.headers)
        return json.loads(asks.getresponse().read())


@contextmanager
def watched(store: Path, found: dict[str, Any], *, by_page: bool) -> Iterator[None]:
    """A server of the store, and somebody who looks."""
    command = [sys.executable, "-m", "panic", "view", str(store), "-q"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert server.stdout is not None
    url = server.stdout.readline().strip()
    match = re.search(r":(\d+)/\?token=(.+)", url)
    assert match
    begin = 0.0
    try:
        if by_page:
            with tempfile.TemporaryDirectory() as folder, Browser(Path(folder)) as browser:
                browser.open(f"{url}#/0/demo")
                time.sleep(3)
                begin = cpu_seconds(server.pid)
                yield
        else:
            watcher = Watcher(int(match[1]), match[2])
            watcher.start()
            time.sleep(3)
            begin = cpu_seconds(server.pid)
            yield
            assert watcher.is_alive()
            found["events"], found["tiles"] = watcher.num_events, watcher.num_tiles
    finally:
        found.setdefault("server_cpu_s", []).append(cpu_seconds(server.pid) - begin)
        server.send_signal(signal.SIGINT)
        server.wait(20)


def cpu_seconds(pid: int) -> float:
    """Seconds of processor time of a process and of its children."""
    process = psutil.Process(pid)
    times = [one.cpu_times() for one in (process, *process.children(recursive=True))]
    return sum(one.user + one.system for one in times)


def perform(store: Path, steps: int) -> tuple[float, float]:
    """Seconds of the session of one experiment, as the store has them, and processor time of its process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    sets = [part for text in [*EXPERIMENT, f"max_length={steps}"] for part in ("--set", text)]
    command = [sys.executable, "-m", "panic", "-q", "--store", str(store), "run", "configs/demo.yaml", *sets]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    from panic.store import Store, reading

    with Store(store) as opened:
        session = reading.sessions(opened)[-1]
        assert session.ended_at is not None
        return session.ended_at - session.started_at, cpu


def measure(pairs: int, steps: int, *, by_page: bool) -> dict[str, Any]:
    """Ratios of seconds, watched over not, pair by pair; which of a pair is first changes."""
    from panic.store import Store

    found: dict[str, Any] = {"load": os.getloadavg(), "ratios": [], "cpu_ratios": []}
    for number in range(pairs):
        took = {}
        for is_watched in (number % 2 == 0, number % 2 == 1):
            with tempfile.TemporaryDirectory() as folder:
                store = Path(folder) / "panic-store"
                Store(store, write=True, create=True).close()
                if is_watched:
                    with watched(store, found, by_page=by_page):
                        took[True] = perform(store, steps)
                else:
                    took[False] = perform(store, steps)
        for name, place in (("ratios", 0), ("cpu_ratios", 1)):
            found[name].append(took[True][place] / took[False][place])
        found.setdefault("seconds", []).append(took[False][0])
        print(json.dumps(found), file=sys.stderr, flush=True)  # whoever breaks it off has the pairs so far
    found["median"] = statistics.median(found["ratios"])
    found["cpu_median"] = statistics.median(found["cpu_ratios"])
    return found


if __name__ == "__main__":
    print(json.dumps(measure(int(sys.argv[1]), int(sys.argv[2]), by_page="--page" in sys.argv), indent=1))
