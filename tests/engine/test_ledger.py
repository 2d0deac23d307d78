"""Every second of a session has a name, and a delay is found under the name of the part that it is in."""

from __future__ import annotations

import contextlib
import itertools
import os
import queue
import signal
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial, wraps
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch
from PIL import Image

from panic.config import DiagramSettings
from panic.devices.cache import ModelCache
from panic.engine.calls import Call, CallResult
from panic.engine.ledger import MOST, Clock, Ledger, Span
from panic.engine.perform import run
from panic.engine.pool import JobResult, Pool
from panic.engine.process_worker import STARTING, ProcessWorker
from panic.engine.progress import Progress
from panic.engine.serving import CallServer, LocalWorker, ServerSettings
from panic.engine.workers import Workers
from panic.engine.writer import Writer
from panic.models import registry
from panic.store import Commit, NewOutput, Store, reading, writing
from panic.store.codec import image_digest
from tests.engine import by_hand
from tests.engine.conftest import make_config
from tests.engine.test_serving import Echo
from tests.patience import LONGEST_S


class Nap:
    """A delay that tells how long it really took: a busy machine sleeps longer than it is asked to.

    least_s: of all of them; a test of times tries longer ones.
    """

    least_s: ClassVar[float] = 0.4

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> None:
        start = time.monotonic()
        time.sleep(self.least_s)
        self.seconds += time.monotonic() - start

    def once(self) -> None:
        """Take it, unless it was taken."""
        if not self.seconds:
            self()


def on_a_busy_machine(test: Callable[..., None]) -> Callable[..., None]:
    """Try a test of times again with longer naps: other work may take 20 ms, or 200, from any of them."""

    @wraps(test)
    def tried(*of: Any, **how: Any) -> None:
        with pytest.MonkeyPatch.context() as monkey:
            for least_s in (0.4, 2.0):
                monkey.setattr(Nap, "least_s", least_s)
                with contextlib.suppress(AssertionError):
                    return test(*of, **how)
            monkey.setattr(Nap, "least_s", 8.0)
            return test(*of, **how)

    return tried


def timeline(path: Path) -> list[dict[str, Any]]:
    with Store(path) as store:
        (found,) = reading.timelines(store).values()
    return found


def summed(rows: list[dict[str, Any]], *keys: str) -> dict[Any, float]:
    total: dict[Any, float] = defaultdict(float)
    for row in rows:
        total[tuple(row[key] for key in keys) if len(keys) > 1 else row[keys[0]]] += row["seconds"]
    return total


def test_a_clock_counts_only_its_own_time_of_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [10.0]
    monkeypatch.setattr("panic.engine.ledger.time", SimpleNamespace(monotonic=lambda: now[0]))
    clock = Clock("outer")
    now[0] += 1
    with clock.of("inner", "model"):
        now[0] += 2
        with clock.of("innermost"):
            now[0] += 4
        now[0] += 8
    now[0] += 16
    spans = clock.take()
    assert by_name(spans) == {"outer": 17, "inner": 10, "innermost": 4}
    assert all(before.end == after.start for before, after in itertools.pairwise(spans))


def test_stretches_become_wider_and_lose_nothing() -> None:
    ledger = Ledger()
    at = ledger.started_at
    for second in range(1000):
        ledger.add("driver", [Span("a" if second % 2 else "b", "", at + second, at + second + 1)])
    rows = ledger.rows()
    assert summed(rows, "name")["a"] == pytest.approx(500)
    assert summed(rows, "name")["b"] == pytest.approx(500)
    assert len({row["start_s"] for row in rows}) <= MOST


def rows_of(spans: list[Span], place: str = "driver") -> list[tuple[Any, ...]]:
    """(place, name, model, start, width, seconds) of spans that count from 0."""
    ledger = Ledger()
    ledger.started_at = 0.0
    ledger.add(place, spans)
    return [tuple(row.values()) for row in ledger.rows()]


def test_a_span_is_parted_at_the_ends_of_stretches() -> None:
    assert rows_of([Span("a", "m", 0.125, 0.625), Span("b", "", 0.625, 0.75)]) == [
        ("driver", "a", "m", 0.0, 0.25, 0.125),
        ("driver", "a", "m", 0.25, 0.25, 0.25),
        ("driver", "a", "m", 0.5, 0.25, 0.125),
        ("driver", "b", "", 0.5, 0.25, 0.125),
    ]
    assert rows_of([Span("a", "", 0.0, 0.25)]) == [("driver", "a", "", 0.0, 0.25, 0.25)]
    assert rows_of([Span("a", "", 0.0, 4e-6)]) == [("driver", "a", "", 0.0, 0.25, 4e-6)]
    assert rows_of([Span("a", "", 0.0, 0.1234567)]) == [("driver", "a", "", 0.0, 0.25, 0.123457)]


def test_after_40_seconds_stretches_are_half_a_second() -> None:
    spans = [Span("a", "", 0.0, 0.25), Span("b", "", 0.25, 0.5), Span("a", "", 0.5, 1.0)]
    assert rows_of([*spans, Span("late", "", 39.75, 40.0)])[-1] == ("driver", "late", "", 39.75, 0.25, 0.25)
    assert rows_of([*spans, Span("late", "", 40.0, 40.25)]) == [
        ("driver", "a", "", 0.0, 0.5, 0.25),
        ("driver", "a", "", 0.5, 0.5, 0.5),
        ("driver", "b", "", 0.0, 0.5, 0.25),
        ("driver", "late", "", 40.0, 0.5, 0.25),
    ]
    last = rows_of([Span("a", "", 0.0, 1.0), Span("late", "", 100.0, 100.5)])
    assert last == [("driver", "a", "", 0.0, 1.0, 1.0), ("driver", "late", "", 100.0, 1.0, 0.5)]


def test_a_ledger_adds_up_what_it_was_told_and_nothing_else() -> None:
    """No name is computed from where others begin and end: not "starting", not what follows the last call."""
    ledger = Ledger()
    ledger.started_at = time.monotonic() - 10
    for place in ("driver", "worker 1"):
        for start in (1.0, 2.0):
            at = ledger.started_at + start
            ledger.add(place, [Span("calling", "", at, at + 1)])
    found = summed(ledger.rows(), "place", "name")
    assert found == {
        ("driver", "calling"): pytest.approx(2.0),
        ("worker 1", "calling"): pytest.approx(2.0),
    }


def test_what_runs_can_be_renamed_and_parted() -> None:
    clock = Clock("a")
    with contextlib.suppress(ZeroDivisionError), clock.of("b", "model"):
        clock.rename("c")
        time.sleep(0.02)
        1 / 0  # noqa: B018
    clock.split("padding", 0.25)
    first, calling, padding, last = clock.take()
    assert [(s.name, s.model) for s in (first, calling, padding, last)] == [
        ("a", ""), ("c", "model"), ("padding", "model"), ("a", "")
    ]  # fmt: skip
    assert first.end == calling.start
    assert calling.end == padding.start
    assert padding.end == last.start
    assert (padding.end - padding.start) / (padding.end - calling.start) == pytest.approx(0.25, rel=1e-3)
    (later,) = clock.take()
    assert (later.name, later.start) == ("a", last.end)


@on_a_busy_machine
def test_the_names_add_up_to_wall_time_at_every_place(tmp_path: Path) -> None:
    path = tmp_path / str(time.monotonic_ns())
    slow = MODELS | {"chain": MODELS["chain"] | {"delay_s": Nap.least_s / 40}}
    run(make_config(max_length=40, diagrams={"max_dimension": 1}, embeddings=["circle"], models=slow), path)
    with Store(path) as store:
        (session,) = reading.sessions(store)
        (rows,) = reading.timelines(store).values()
    assert session.ended_at is not None
    wall_s = session.ended_at - session.started_at
    places = summed(rows, "place")
    assert set(places) == {"driver", "worker 1", "writer", *(f"pool {n + 1}" for n in range(len(places) - 3))}
    for place in ("driver", "worker 1", "writer"):
        assert places[place] == pytest.approx(wall_s, rel=0.03)


MODELS = {
    "draw": {"base": "synthetic/text-to-image", "states": 4, "size": 8},
    "chain": {"base": "synthetic/image-to-text", "states": 4},
    "circle": {"base": "synthetic/state-embedding", "states": 4},
}


@on_a_busy_machine
def test_calls_are_told_by_model_and_padding_apart(tmp_path: Path) -> None:
    """Three runs in batches of four: a quarter of every call is for nobody."""
    path, calls_s = tmp_path / str(time.monotonic_ns()), 2 * Nap.least_s / 2
    slow = MODELS | {"draw": MODELS["draw"] | {"delay_s": Nap.least_s / 2}}
    config = make_config(
        models=slow, embeddings=[], prompts=["state 1"], seeds=[-1], repeats=3, max_length=4,
        batch_sizes={"draw": 4, "chain": 4},
    )  # fmt: skip
    run(config, path)
    found = summed(timeline(path), "name", "model")
    assert found["calling", "draw"] == pytest.approx(0.75 * calls_s, rel=0.05)
    assert found["padding", "draw"] == pytest.approx(0.25 * calls_s, rel=0.05)
    waited = sum(seconds for (name, _), seconds in found.items() if name == "waiting for models")
    assert waited >= 0.95 * calls_s, "the driver has nothing else to do meanwhile"


def by_name(spans: Iterable[Span]) -> dict[str, float]:
    """Seconds by name."""
    found: dict[str, float] = defaultdict(float)
    for span in spans:
        found[span.name] += span.end - span.start
    return found


def calls_in_turns(part: str, nap: Nap) -> dict[str, float]:
    """Seconds by name of two models that take turns on a device that holds one, with a nap in a part.

    The third call moves what was built for the first, and the fourth finds it there.
    """

    class SlowBus(ModelCache):
        @contextmanager
        def lease(self, *of: Any, **how: Any) -> Iterator[Any]:
            builds, loads = self.stats.builds, self.stats.loads
            with super().lease(*of, **how) as model:
                is_new, is_moved = self.stats.builds > builds, self.stats.loads > loads
                if part == ("moving to the device" if is_moved else "leasing") and not is_new:
                    nap()
                yield model

    class Slow(Echo):
        def __init__(self) -> None:
            super().__init__()
            self.modules = [torch.nn.Linear(128, 128)]  # 64 KiB

        def weight_modules(self) -> Any:
            return self.modules

        def invoke(self, inputs: list[Any], seeds: list[int]) -> Any:
            if part == "calling":
                nap.once()
            return super().invoke(inputs, seeds)

    class SlowImage(Image.Image):
        def copy(self) -> Image.Image:
            if part == "handing over":
                nap.once()
            return Image.new("RGB", (4, 4))

    def build(name: str) -> Any:
        if part == "loading from disk":
            nap.once()
        return Slow()

    specs = {name: replace(registry.resolve("synthetic/random-walk"), name=name) for name in "ab"}
    server = CallServer(ServerSettings(device="sim:100KiB", specs=specs), lambda spec: Slow())
    server.cache = SlowBus(server.device, build)
    spans = []
    for model in "abaa":
        result, _ = server.serve(Call(model=model, batch_size=1, inputs=[SlowImage()], seeds=[0]))
        assert result.error is None, result.error
        spans += result.spans
    return by_name(spans)


CALL = ["loading from disk", "moving to the device", "leasing", "handing over", "calling"]


@pytest.mark.parametrize("part", CALL)
@on_a_busy_machine
def test_a_delay_in_a_part_of_a_call_is_found_there(part: str) -> None:
    without, nap = calls_in_turns("", Nap()), Nap()
    found = calls_in_turns(part, nap)
    assert nap.seconds >= Nap.least_s
    assert found[part] - without[part] == pytest.approx(nap.seconds, rel=0.05)
    for other in set(CALL) - {part}:
        assert found[other] - without[other] == pytest.approx(0, abs=0.05 * nap.seconds), other


@on_a_busy_machine
def test_a_worker_tells_of_the_time_before_its_first_and_after_its_last_call() -> None:
    spec = registry.resolve("synthetic/text-to-image")
    inbox: queue.SimpleQueue[CallResult] = queue.SimpleQueue()
    nap, ledger, began = Nap(), Ledger(), time.monotonic()
    settings = ServerSettings(device="cpu", specs={"draw": spec})
    workers = Workers(lambda deliver: [LocalWorker(settings, registry.build, inbox.put)], ledger)
    nap()
    workers.submit(Call(model="draw", batch_size=1, inputs=["state 1"], seeds=[0]), workers.seats[0])
    workers.post(inbox.get(timeout=LONGEST_S))
    assert workers.next(1) is not None
    nap()
    workers.close()
    found = summed(ledger.rows(), "name")
    assert found["waiting for a call"] == pytest.approx(nap.seconds, rel=0.05)
    assert sum(found.values()) == pytest.approx(time.monotonic() - began, rel=0.03)


class Naps:
    """A stage that hands out one job to nobody, posts its result, and takes a nap in one part of that."""

    name, is_pinned, memory_hint = "naps", False, ""

    def __init__(self, workers: Workers, part: str, nap: Nap) -> None:
        self.workers, self.part, self.nap = workers, part, nap
        self.given_up: list[str] = []
        self.num_busy = 0
        self.is_new = True

    def refill(self, *, thorough: bool) -> int:
        if not self.is_new:
            return 0
        self.is_new, self.num_busy = False, 1
        if self.part == "asking the store":
            self.nap()
        threading.Thread(target=self.post).start()
        return 1

    def post(self) -> None:
        if self.part == "waiting for diagrams":
            self.nap()
        self.workers.post(JobResult(job=None, rows=Commit(), stage=self))  # type: ignore[arg-type]

    def absorb(self, work: Any, result: Any, commit: Commit) -> None:
        self.num_busy = 0
        if self.part == "absorbing results":
            self.nap()

    def written(self, commit: Commit, number: int) -> None: ...

    def progress(self, before: Progress) -> Progress:
        return before


class SlowList(list[Any]):
    """A list of progress that takes a nap at the first entry."""

    def __init__(self, nap: Nap) -> None:
        self.nap = nap

    def append(self, entry: Any) -> None:
        self.nap.once()


def slow_image(nap: Nap) -> NewOutput:
    """An image whose encoding takes a nap."""

    class Slow(Image.Image):
        def save(self, *where: Any, **how: Any) -> None:
            nap()
            super().save(*where, **how)

    image = Slow()
    image.__setstate__(Image.new("RGB", (4, 4), "red").__getstate__())
    return NewOutput(digest=image_digest(image), modality="image", width=4, height=4, image=image)


DRIVER = [
    "starting", "driving", "feeding the workers", "asking the store", "waiting for diagrams",
    "absorbing results", "telling progress", "waiting for the writer", "closing",
]  # fmt: skip


@pytest.mark.parametrize("part", DRIVER)
@on_a_busy_machine
def test_a_delay_in_a_part_of_the_driver_is_found_there(tmp_path: Path, part: str) -> None:
    nap, path = Nap(), tmp_path / str(time.monotonic_ns())
    with by_hand.opened(path, prompts=["state 0"], seeds=[42], repeats=1, max_length=2) as session:
        session.clock.take()  # opening the store is no part of what is measured
        if part == "starting":
            nap()
        if part == "driving":
            asked = itertools.count()
            session.stop_requested = lambda: bool(next(asked) == 2 and nap())
        if part == "waiting for the writer":
            session.writer.close()
            session.writer = Writer(partial(slowly_commit, nap, session.store), session.contents.saved)
        by_hand.perform(
            session,
            lambda call: nap.once() if part == "feeding the workers" else None,
            more=lambda workers: [Naps(workers, part, nap)],
            seen=by_hand.Performance(progress=SlowList(nap) if part == "telling progress" else []),
        )
        if part == "waiting for the writer":
            session.writer.close()
        if part == "closing":
            output = slow_image(nap)
            session.contents.add_unsaved(output.digest, output.image)
            session.writer.add(Commit(outputs=[output]))
    rows = [row for row in timeline(path) if row["place"] == "driver"]
    assert nap.seconds >= Nap.least_s
    assert summed(rows, "name")[part] == pytest.approx(nap.seconds, rel=0.05)


def slowly_commit(nap: Nap, store: Store, commit: Commit) -> None:
    nap.once()
    writing.commit(store, commit)


@pytest.mark.parametrize("part", ["waiting for results", "encoding images", "writing"])
@on_a_busy_machine
def test_a_delay_in_a_part_of_the_writer_is_found_there(part: str) -> None:
    nap, ledger = Nap(), Ledger()
    commit: Callable[[Commit], None] = lambda commit: nap() if part == "writing" else None  # noqa: E731
    writer = Writer(commit, lambda digest: None, ledger)
    if part == "waiting for results":
        nap()
    writer.add(Commit(outputs=[slow_image(nap if part == "encoding images" else Nap())]))
    writer.flush()
    writer.close()
    assert summed(ledger.rows(), "name")[part] == pytest.approx(nap.seconds, rel=0.05)


@dataclass(frozen=True)
class NapJob:
    """A job that takes a nap in its process."""

    takes_s: float
    name: ClassVar[str] = "naps"
    num_results: ClassVar[int] = 1

    def compute(self, bench: Any) -> Commit:
        time.sleep(self.takes_s)
        return Commit()


@pytest.mark.slow
@on_a_busy_machine
def test_processes_of_the_pool_tell_what_they_compute_and_how_long_they_wait(tmp_path: Path) -> None:
    inbox: queue.SimpleQueue[JobResult] = queue.SimpleQueue()
    with Store(tmp_path / "s", write=True, create=True):
        """There is one."""
    nap, ledger, began = Nap(), Ledger(), time.monotonic()
    pool = Pool(tmp_path / "s", [], inbox.put, num_workers=1, ledger=ledger)
    pool.submit(NapJob(Nap.least_s), None)
    assert inbox.get(timeout=LONGEST_S).rows is not None
    nap()
    pool.submit(NapJob(Nap.least_s), None)
    last = inbox.get(timeout=LONGEST_S)
    took_s = time.monotonic() - began
    pool.close()
    found = by_name(last.spans)
    assert found["computing naps"] == pytest.approx(last.duration_s, rel=0.05)
    assert found["waiting for a job"] == pytest.approx(nap.seconds, rel=0.05)
    assert sum(summed(ledger.rows(), "name").values()) == pytest.approx(took_s, rel=0.03)


SLOW_COMPILING = """
import sys, time

def watch(frame, event, arg):
    place = frame.f_code
    is_it = place.co_name == "prepare" and place.co_filename.endswith("bars.py")
    if is_it and event in ("call", "return"):
        with open({told!r}, "a") as told:
            print(time.monotonic(), file=told)
        if event == "call":
            time.sleep({delay_s})

sys.setprofile(watch)
"""


@pytest.mark.slow
@on_a_busy_machine
def test_a_delay_while_kernels_are_compiled_is_found_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process takes its nap where the compiling begins, and tells when that began and ended."""
    place = tmp_path / str(time.monotonic_ns())
    place.mkdir()
    told = place / "told"
    (place / "sitecustomize.py").write_text(SLOW_COMPILING.format(told=str(told), delay_s=Nap.least_s))
    monkeypatch.setenv("PYTHONPATH", f"{place}{os.pathsep}{Path(__file__).parents[2]}")
    with Store(place / "s", write=True, create=True):
        """There is one."""
    inbox: queue.SimpleQueue[JobResult] = queue.SimpleQueue()
    ledger = Ledger()
    pool = Pool(place / "s", [DiagramSettings()], inbox.put, num_workers=1, ledger=ledger)
    pool.submit(NapJob(Nap.least_s), None)
    assert inbox.get(timeout=LONGEST_S).rows is not None
    pool.close()
    began, ended = map(float, told.read_text().split())
    assert ended - began >= Nap.least_s
    assert summed(ledger.rows(), "name")["compiling"] == pytest.approx(ended - began, rel=0.05)


@pytest.mark.slow
@on_a_busy_machine
def test_the_start_and_the_end_of_a_process_are_told() -> None:
    """A process that is stopped while it starts, and while it ends, starts and ends that much later."""
    inbox: queue.SimpleQueue[CallResult] = queue.SimpleQueue()
    settings = ServerSettings(device="cpu", specs={"draw": registry.resolve("synthetic/text-to-image")})
    ledger, began = Ledger(), time.monotonic()
    workers = Workers(lambda deliver: [ProcessWorker(settings, inbox.put)], ledger)
    time.sleep(Nap.least_s)
    workers.submit(Call(model="draw", batch_size=1, inputs=["state 1"], seeds=[0]), workers.seats[0])
    stopped(workers.seats[0].worker.pid)  # type: ignore[attr-defined]
    workers.post(inbox.get(timeout=LONGEST_S))
    assert workers.next(1) is not None
    workers.close()
    found = summed(ledger.rows(), "name")
    assert found["waiting for a call"] == pytest.approx(Nap.least_s, rel=0.25)
    assert found["starting a process"] >= Nap.least_s
    assert sum(found.values()) == pytest.approx(time.monotonic() - began, rel=0.03)
    told = {"starting", "waiting for a call", STARTING, "handing over", "loading from disk", "calling",
            "serving", "leasing", "closing", "ending a process"}  # fmt: skip
    assert set(found) <= told


def stopped(pid: int) -> None:
    """Stop a process for a while."""
    os.kill(pid, signal.SIGSTOP)
    time.sleep(Nap.least_s)
    os.kill(pid, signal.SIGCONT)
