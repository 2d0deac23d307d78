"""Who may be given a call, and how many workers of which sort there are, by workers that do nothing."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, cast

import pytest

from panic.config import ExperimentConfig
from panic.devices.device import CpuDevice, open_device, open_devices
from panic.engine import workers as module
from panic.engine.calls import Call, CallError, CallResult
from panic.engine.ledger import Ledger, Span
from panic.engine.memory import MemorySettings
from panic.engine.pinning import Shape
from panic.engine.plan import Plan, make_plan
from panic.engine.pool import JobResult
from panic.engine.workers import MOST, PROCESS_BYTES, Seat, Workers, count_workers, start_workers
from panic.engine.workers import refuse_impossible as refuse
from panic.errors import UsageError
from panic.models import registry
from tests.engine.conftest import make_config


@dataclass(slots=True)
class Idle:
    """A worker that keeps what it is given, and what else was asked of it."""

    is_ready: bool = True
    calls: list[int] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    error: Exception | None = None

    def submit(self, call: Call) -> None:
        self.calls.append(call.number)

    def check(self) -> None:
        self.asked.append("check")

    def drain(self) -> None:
        self.asked.append("drain")

    def close(self) -> list[Span]:
        self.asked.append("close")
        if self.error is not None:
            raise self.error
        return [Span("closing", "", 0.0, 0.0)]


def workers_of(*idle: Idle, **more: Any) -> Workers:
    return Workers(lambda deliver: idle, **more)


def call(model: str = "a") -> Call:
    return Call(model=model, batch_size=1, inputs=["x"], seeds=[0])


def test_calls_are_numbered_and_counted_until_their_results_have_come() -> None:
    one = Idle()
    workers = workers_of(one)
    [seat] = workers.seats
    assert [workers.submit(call(model), seat) for model in "ab"] == [1, 2]
    assert (one.calls, workers.num_calls, seat.num_calls) == ([1, 2], 2, 2)
    assert (seat.resident, workers.resident) == ({"a", "b"}, {"a", "b"})
    assert workers.open_seats() == [], "one is computed and one is behind it"
    workers.post(CallResult(number=1, resident=frozenset("b")))
    assert cast("CallResult", workers.next(1.0)).number == 1
    assert (workers.num_calls, seat.resident, workers.open_seats()) == (1, {"b"}, [seat])
    workers.post(CallResult(number=2, resident=frozenset("b"), error=CallError(kind="error", message="no")))
    workers.next(1.0)
    assert (seat.num_calls, seat.resident) == (0, set()), "after an error nobody knows what is there"


def test_messages_come_in_their_order_or_not_at_all() -> None:
    workers = workers_of(Idle())
    assert workers.next(0.0) is None
    job = JobResult(job=cast("Any", "a job"))
    workers.wake()
    workers.post(job)
    workers.post(KeyError("a thread has ended"))
    assert workers.next(60.0) is None
    assert workers.next(60.0) is job
    with pytest.raises(KeyError, match="a thread has ended"):
        workers.next(60.0)


def test_idle_workers_come_first_and_those_that_start_only_if_all_do() -> None:
    one, two, three = Idle(), Idle(is_ready=False), Idle()
    workers = workers_of(one, two, three)
    first, second, third = workers.seats
    assert workers.open_seats() == [first, third]
    workers.submit(call(), first)
    assert workers.open_seats() == [third, first]
    one.is_ready = three.is_ready = False
    assert workers.open_seats() == [second, third, first]
    workers.check()
    workers.drain()
    assert [worker.asked for worker in (one, two, three)] == [["check", "drain"]] * 3


def test_an_endpoint_has_one_model_and_its_places_are_taken_until_results_are_stored() -> None:
    ledger = Ledger()
    here, there, other = Idle(), Idle(), Idle()
    workers = workers_of(here, ledger=ledger)
    workers.add_endpoint(there, "talk", places=2)
    workers.add_endpoint(other, "see", places=1)
    local, talk, see = workers.seats
    assert [seat.place for seat in workers.seats] == ["worker 1", "endpoint 1", "endpoint 2"]
    assert [[workers.serves(seat, name) for seat in workers.seats] for name in ("a", "talk", "see")] == [
        [True, False, False], [False, True, False], [False, False, True]
    ]  # fmt: skip
    assert [workers.is_trusted(seat, "talk") for seat in workers.seats] == [False, True, False]
    assert workers.resident == {"talk", "see"}
    assert workers.open_seats() == [local, talk, see]
    here.is_ready = False
    assert workers.open_seats() == [local, talk, see]
    number = workers.submit(call("talk"), talk)
    workers.post(CallResult(number=number, error=CallError(kind="busy", message="later")))
    workers.next(1.0)
    assert talk.resident == {"talk"}, "whatever becomes of a request"
    talk.unstored.extend([3, 5])
    assert (talk.has_room, workers.open_seats()) == (False, [local, see])
    workers.stored(2)
    assert list(talk.unstored) == [3, 5]
    workers.stored(3)
    assert (list(talk.unstored), talk.has_room) == ([5], True)
    workers.stored(9)
    assert list(talk.unstored) == []
    assert {(row["place"], row["name"]) for row in ledger.rows()} == {
        (place, "starting") for place in ("worker 1", "endpoint 1", "endpoint 2")
    }


def test_all_are_closed_also_where_one_raises() -> None:
    told: list[str] = []
    idle = [Idle(asked=told), Idle(asked=told, error=ValueError("no")), Idle(asked=told)]
    workers = workers_of(*idle)
    order: list[str] = []
    workers._close = lambda seat, close=workers._close: (order.append(seat.place), close(seat))  # type: ignore
    with pytest.raises(ValueError, match="no"):
        workers.close()
    assert told == ["close"] * 3
    assert order == ["worker 1", "worker 2", "worker 3"]


def test_devices_are_part_of_a_workers_name() -> None:
    ledger = Ledger()
    workers = workers_of(Idle(), Idle(), ledger=ledger, devices=["one", "two"])
    assert [(seat.place, seat.device) for seat in workers.seats] == [
        ("worker 1 on one", "one"), ("worker 2 on two", "two")
    ]  # fmt: skip
    number = workers.submit(call(), workers.seats[1])
    at = ledger.started_at
    workers.post(CallResult(number=number, spans=[Span("calling", "a", at, at + 0.1)]))
    workers.next(1.0)
    assert [row["place"] for row in ledger.rows() if row["name"] == "calling"] == ["worker 2 on two"]
    left = Seat(Idle(), "x", is_left_out=True)
    assert not left.has_room
    assert Seat(Idle(), "x").num_ends == 0


def test_the_last_attempt_is_made_where_no_process_has_ended() -> None:
    workers = workers_of(Idle(), Idle(), devices=["one", "two"])
    one, two = workers.seats
    one.ends["b"] = 2
    assert (one.num_ends, workers.is_trusted(one, "a"), workers.is_trusted(two, "a")) == (2, False, True)
    assert workers.open_seats() == [two, one]
    two.ends["a"] = 1
    assert workers.is_trusted(one, "a"), "there is no better one"


# How many


class Cpu(CpuDevice):
    """A processor with so much memory that is free."""

    free: ClassVar[int] = 100 * 2**30

    def free_bytes(self) -> int:
        return self.free


@pytest.fixture
def pocket() -> Plan:
    """A plan of small models with weights; a batch of draw is of 4, of the other of 8."""
    config = make_config(
        networks=[["draw", "PocketCaptioner"]], models={"draw": {"base": "PocketDiffusion"}},
        batch_sizes={"draw": 4, "PocketCaptioner": 8}, executor="auto", headroom=0, memory_fraction=1.0,
    )  # fmt: skip
    return make_plan(config)


def count(plan: Plan, *, threads: int = 1, runs: int = 1000, missing: int = 10**6, device: Any = None) -> int:
    shapes = {
        "draw": Shape(batch_size=4, threads=1),
        "PocketCaptioner": Shape(batch_size=8, threads=threads),
    }
    return count_workers(plan, shapes, device or Cpu(), runs, missing)


def with_config(plan: Plan, **changes: Any) -> Plan:
    return replace(plan, config=plan.config.model_copy(update=changes))


def test_each_limit_of_the_number_of_workers_counts(pocket: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "num_cores", lambda: 64)
    assert (count(pocket), MOST) == (8, 8)
    assert [count(pocket, threads=threads) for threads in (12, 13, 16, 21, 22, 33, 64, 65)] == [
        5, 4, 4, 3, 2, 1, 1, 1
    ]  # fmt: skip
    assert [count(pocket, runs=runs) for runs in (0, 4, 5, 12, 13)] == [1, 1, 2, 3, 4], "a batch is of four"
    assert [count(pocket, missing=missing) for missing in (0, 399, 400, 599, 600)] == [1, 1, 2, 2, 3]


def test_each_worker_needs_room_for_its_process_and_the_models(
    pocket: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "num_cores", lambda: 64)
    each = PROCESS_BYTES + cast("int", module.small_bytes(pocket, "cpu"))
    for free, want in ((3 * each, 3), (3 * each - 1, 2), (0, 1)):
        monkeypatch.setattr(Cpu, "free", free)
        assert count(pocket) == want
    monkeypatch.setattr(Cpu, "free", 6 * each + 10)
    assert count(with_config(pocket, headroom=10)) == 6
    assert count(with_config(pocket, headroom=11)) == 5
    assert count(with_config(pocket, headroom=10, memory_fraction=0.5)) == 3


def test_what_is_said_is_done_and_others_know_better(pocket: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "num_cores", lambda: 64)
    assert count(with_config(pocket, workers=11)) == 11
    assert count(with_config(pocket, executor="local")) == 1
    assert count(with_config(pocket, executor="process")) == 8
    assert count(with_config(pocket, executor="ray", workers=11)) == 1
    assert count(with_config(pocket, workers=11), device=open_devices(["sim:1GiB"] * 3)) == 3
    assert count(pocket, device=open_device("sim:1GiB")) == 1


# Of which sort


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Any, dict[str, Any]]]:
    """The workers that are started: their class, settings and options."""
    found: list[tuple[str, Any, dict[str, Any]]] = []
    for name in ("LocalWorker", "ProcessWorker"):

        def start(settings: Any, *of: Any, name: str = name, **how: Any) -> str:
            found.append((name, settings, how))
            return name

        monkeypatch.setattr(module, name, start)
    return found


def started(config: ExperimentConfig, number: int = 1, *, threads: int = 1, device: Any = None) -> list[Any]:
    plan = make_plan(config)
    shapes = {name: Shape(batch_size=4, threads=threads) for name in plan.specs}
    at = device or open_devices(config.device)
    known = registry.fingerprints(plan.specs)
    return start_workers(plan, shapes, at, number, MemorySettings(), known, lambda message: None)


def own(folder: Path, **changes: Any) -> ExperimentConfig:
    """A network of a class of the user's, and of a model of ours."""
    (folder / "own.py").write_text(
        "class Own:\n    modality_in, modality_out, size_bytes = 'image', 'text', 0\n"
        "    def load(self, device): pass\n"
        "    def invoke(self, inputs, seeds): return ['x' for _ in inputs]\n"
    )
    models = {
        "draw": {"base": "synthetic/text-to-image"}, "chain": {"base": f"python:{folder}/own.py:Own"}
    }  # fmt: skip
    return make_config(models=models, **changes)


@pytest.mark.parametrize(
    ("changes", "sort"),
    [
        ({"executor": "local"}, "LocalWorker"),
        ({"executor": "auto"}, "LocalWorker"),
        ({"executor": "auto", "device": "sim:1GiB"}, "LocalWorker"),
        ({"executor": "auto", "timeout_s": 9.0}, "ProcessWorker"),
        ({"executor": "process"}, "ProcessWorker"),
    ],
)
def test_where_models_of_ours_run(made: list[Any], changes: dict[str, Any], sort: str) -> None:
    assert started(make_config(**changes)) == [sort]
    [(_, settings, how)] = made
    assert (settings.device, settings.threads, settings.memory.num_workers) == (
        changes.get("device", "cpu"), 1, 1
    )  # fmt: skip
    assert settings.weights is None
    assert how == ({"timeout_s": changes.get("timeout_s")} if sort == "ProcessWorker" else {})


def test_models_of_a_users_run_in_a_process_unless_it_is_said(
    made: list[Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert started(own(tmp_path, executor="auto")) == ["ProcessWorker"]
    assert started(own(tmp_path, executor="local")) == ["LocalWorker"]
    assert caplog.messages == []
    secret = {"notify": {"to": ["ALARM", "CHAT"]}}
    started(make_config(executor="local", **secret))
    started(own(tmp_path, executor="auto", **secret))
    assert caplog.messages == []
    started(own(tmp_path, executor="local", **secret))
    assert caplog.messages == ["executor: local lets models of yours see the keys in ALARM, CHAT"]
    assert made[-1][1].hidden == ("ALARM", "CHAT")


def test_all_but_the_first_are_processes_that_start_at_once(
    made: list[Any], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "num_cores", lambda: 6)
    caplog.set_level(logging.INFO, "panic.engine")
    settings: dict[str, Any] = {"executor": "auto", "headroom": 5, "reject_constant_images": True}
    assert started(make_config(**settings), 3, threads=2) == ["LocalWorker", "ProcessWorker", "ProcessWorker"]
    assert [how for *_, how in made] == [{}, *[{"timeout_s": None, "ahead": True}] * 2]
    assert caplog.messages == ["3 workers on cpu, threads of each: 2"], "as many threads as cores"
    told = made[0][1]
    assert (told.headroom_bytes, told.reject_constant_images, told.memory.num_workers) == (5, True, 3)
    assert sorted(told.specs) == ["chain", "draw"]
    caplog.clear()
    started(make_config(executor="auto"), 7)
    assert [record.levelname for record in caplog.records] == ["INFO", "WARNING"]
    assert caplog.messages[1] == "7 workers with 1 threads each share 6 cores"
    caplog.clear()
    started(make_config(executor="auto", device="sim:1000b"), 7)
    assert [record.levelname for record in caplog.records] == ["INFO"], "not of a simulated device"
    assert {settings.device for _, settings, _ in made[-7:]} == {"sim:142"}
    started(make_config(executor="auto", device="sim:1000b"), 1)
    assert made[-1][1].device == "sim:1000b"


def test_of_several_devices_each_has_a_process(made: list[Any]) -> None:
    config = make_config(executor="auto", device=["sim:1GiB", "sim:2GiB"], timeout_s=3.0)
    assert started(config, 2) == ["ProcessWorker"] * 2
    assert [(settings.device, how) for _, settings, how in made] == [
        (name, {"timeout_s": 3.0}) for name in ("sim:1GiB#1", "sim:2GiB#1")
    ]


def test_large_weights_are_shared_by_all_that_have_them(
    made: list[Any], pocket: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(module, "share_weights", lambda *of: asked.append(of))
    sizes = {name: module.weight_bytes(pocket, name) for name in pocket.specs}
    for least in sizes.values():
        monkeypatch.setattr(module, "WORTH_SHARING", least)
        started(pocket.config, 3)
    assert asked == [([name for name in sizes if sizes[name] >= least], 3) for least in sizes.values()]
    started(pocket.config, 1)
    assert len(asked) == 2, "one shares with nobody"


# What contradicts itself


def test_a_device_needs_a_byte_beside_the_headroom() -> None:
    def config(**changes: Any) -> ExperimentConfig:
        return make_config(device="sim:1000b", memory_fraction=0.5, **changes)

    sim = open_device("sim:1000b")
    refuse(config(headroom=499), sim)
    for headroom in (500, 501):
        with pytest.raises(UsageError, match=r"which memory_fraction and headroom \(0.5 and \S+ B\) leave"):
            refuse(config(headroom=headroom), sim)
    refuse(make_config(headroom=2**60), CpuDevice())


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"timeout_s": 1.0}, "timeout_s needs a process that can be ended"),
        ({"workers": 2}, "more than one worker needs processes"),
        ({"workers": 1}, ""),
        ({}, ""),
    ],
)
def test_one_process_has_no_limit_of_time_and_one_worker(changes: dict[str, Any], told: str) -> None:
    refuse(make_config(executor="auto", **changes), CpuDevice())
    if not told:
        refuse(make_config(executor="local", **changes), CpuDevice())
        return
    with pytest.raises(UsageError, match=told) as refused:
        refuse(make_config(executor="local", **changes), CpuDevice())
    assert refused.value.hint == "executor: process, or auto"


def test_time_before_the_first_call_is_that_of_starting() -> None:
    ledger = Ledger()
    ledger.started_at = time.monotonic() - 5.0
    workers_of(Idle(), ledger=ledger)
    assert sum(row["seconds"] for row in ledger.rows()) >= 5.0
