"""Every second of a session has a name, and a delay is found under the name of the part that it is in."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from panic.engine.calls import Call, CallResult
from panic.engine.ledger import MOST, Clock, Ledger, Span
from panic.engine.perform import run
from panic.engine.serving import LocalWorker, ServerSettings
from panic.engine.writer import Writer
from panic.models import registry
from panic.store import Commit, Store, reading
from panic.store.records import NewFailure
from tests.engine.conftest import make_config

DELAY_S = 0.4


def timeline(path: Path) -> list[dict[str, Any]]:
    with Store(path) as store:
        (found,) = reading.timelines(store).values()
    return found


def summed(rows: list[dict[str, Any]], *keys: str) -> dict[Any, float]:
    total: dict[Any, float] = defaultdict(float)
    for row in rows:
        total[tuple(row[key] for key in keys) if len(keys) > 1 else row[keys[0]]] += row["seconds"]
    return total


def test_a_clock_counts_only_its_own_time_of_a_name() -> None:
    clock = Clock("outer")
    with clock.of("inner", "model"):
        time.sleep(0.1)
        with clock.of("innermost"):
            time.sleep(0.2)
    spans = clock.take()
    found: dict[str, float] = defaultdict(float)
    for span in spans:
        found[span.name] += span.end - span.start
    assert found["inner"] == pytest.approx(0.1, abs=0.03)
    assert found["innermost"] == pytest.approx(0.2, abs=0.03)
    assert found["outer"] < 0.03
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
        ("driver", "starting", "", 0.0, 0.25, 0.125),
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


def test_a_place_starts_once_and_a_worker_has_no_more_calls_after_its_last() -> None:
    ledger = Ledger()
    ledger.started_at = time.time() - 10
    for place in ("driver", "worker 1"):
        for start in (1.0, 2.0):
            at = ledger.started_at + start
            ledger.add(place, [Span("calling", "", at, at + 1)])
    found = summed(ledger.rows(), "place", "name")
    assert found == {
        ("driver", "starting"): pytest.approx(1.0),
        ("driver", "calling"): pytest.approx(2.0),
        ("worker 1", "starting"): pytest.approx(1.0),
        ("worker 1", "calling"): pytest.approx(2.0),
        ("worker 1", "no more calls"): pytest.approx(7.0, abs=0.5),
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


def test_the_names_add_up_to_wall_time_at_every_place(tmp_path: Path) -> None:
    run(
        make_config(max_length=40, diagrams={"max_dimension": 1}, embeddings=["circle"], models=MODELS),
        tmp_path / "s",
    )
    with Store(tmp_path / "s") as store:
        (session,) = reading.sessions(store)
        (rows,) = reading.timelines(store).values()
    assert session.ended_at is not None
    wall_s = session.ended_at - session.started_at
    places = summed(rows, "place")
    assert set(places) == {"driver", "worker 1", "writer"}
    for place in ("driver", "worker 1"):
        assert places[place] == pytest.approx(wall_s, rel=0.03)


MODELS = {
    "draw": {"base": "synthetic/text-to-image", "states": 4, "size": 8},
    "chain": {"base": "synthetic/image-to-text", "states": 4},
    "circle": {"base": "synthetic/state-embedding", "states": 4},
}


def test_calls_are_told_by_model_and_padding_apart(tmp_path: Path) -> None:
    """Three runs in batches of four: a quarter of every call is for nobody."""
    slow = MODELS | {"draw": MODELS["draw"] | {"delay_s": 0.2}}
    config = make_config(
        models=slow, embeddings=[], prompts=["state 1"], seeds=[-1], repeats=3, max_length=4,
        batch_sizes={"draw": 4, "chain": 4},
    )  # fmt: skip
    run(config, tmp_path / "s")
    found = summed(timeline(tmp_path / "s"), "name", "model")
    assert found["calling", "draw"] == pytest.approx(0.75 * 2 * 0.2, rel=0.05)
    assert found["padding", "draw"] == pytest.approx(0.25 * 2 * 0.2, rel=0.05)


def test_a_delay_in_what_listens_is_told_as_progress(tmp_path: Path) -> None:
    told = threading.Event()

    def slowly(progress: Any) -> None:
        if not told.is_set():
            told.set()
            time.sleep(2.0)

    run(make_config(max_length=8), tmp_path / "s", on_progress=slowly)
    rows = [row for row in timeline(tmp_path / "s") if row["place"] == "driver"]
    assert summed(rows, "name")["telling progress"] == pytest.approx(2.0, rel=0.05)


@pytest.mark.parametrize("part", ["loading from disk", "calling", "waiting for a call"])
def test_a_delay_in_a_part_of_the_worker_is_found_there(part: str) -> None:
    variants = {"draw": {"base": "synthetic/text-to-image", "delay_s": DELAY_S if part == "calling" else 0.0}}
    spec = registry.resolve("draw", variants)
    done: list[CallResult] = []
    event = threading.Event()

    def build(spec: Any) -> Any:
        if part == "loading from disk":
            time.sleep(DELAY_S)
        return registry.build(spec)

    def deliver(result: CallResult) -> None:
        done.append(result)
        event.set()

    worker = LocalWorker(ServerSettings(device="cpu", specs={"draw": spec}), build, deliver)
    if part == "waiting for a call":
        time.sleep(DELAY_S)
    worker.submit(Call(number=1, model="draw", batch_size=1, inputs=["state 1"], seeds=[0]))
    assert event.wait(20)
    worker.close()
    found: dict[str, float] = defaultdict(float)
    for span in done[0].spans:
        found[span.name] += span.end - span.start
    assert found[part] == pytest.approx(DELAY_S, rel=0.05)
    assert sum(found.values()) - found[part] < DELAY_S


def test_a_delay_in_the_store_is_writing() -> None:
    ledger = Ledger()
    slow: Callable[[Commit], None] = lambda commit: time.sleep(DELAY_S)  # noqa: E731
    writer = Writer(slow, lambda digest: None, ledger)
    writer.add(Commit(failures=[NewFailure(run=1, step=0, kind="error", message="")]))
    writer.flush()
    writer.close()
    assert summed(ledger.rows(), "name")["writing"] == pytest.approx(DELAY_S, rel=0.05)
