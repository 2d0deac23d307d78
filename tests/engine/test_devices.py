"""Several devices of one host: the same results as one, whatever becomes of a process."""

from __future__ import annotations

import logging
import os
import signal
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from panic import run
from panic.config import ExperimentConfig
from panic.devices.device import DeviceGroup, members, open_devices
from panic.devices.simulated import SimulatedDevice
from panic.engine.calls import Call, CallError, CallResult, Outcome
from panic.engine.ledger import Ledger, Span
from panic.engine.placing import Placing, open_placing
from panic.engine.plan import make_plan
from panic.engine.progress import Progress
from panic.engine.workers import Deliver, Workers, refuse_impossible
from panic.errors import UsageError
from panic.models import registry
from panic.store import Store, check, reading
from tests.engine.conftest import dump, make_config
from tests.engine.test_kill import kill_and_rerun
from tests.engine.test_workers import MODELS as MEETING
from tests.processes import running

MODELS = '''
import inspect
import os
import signal

from panic.models.synthetic import ImageToText


class Bad(ImageToText):
    """Ends every process of one device."""

    PARAMETERS = {}

    def __init__(self, bad):
        super().__init__(states=7, kernel="cycle", delay_s=0.05)
        self.bad = bad

    def invoke(self, inputs, seeds):
        servers = [frame.frame.f_locals.get("self") for frame in inspect.stack()]
        if any(getattr(getattr(one, "settings", None), "device", "") == self.bad for one in servers):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().invoke(inputs, seeds)
'''


def several(number: int, **changes: Any) -> ExperimentConfig:
    """The synthetic experiment, with enough runs for every device to be busy."""
    delayed = {"delay_s": 0.004}
    usual: dict[str, Any] = {
        "models": {
            "draw": {"base": "synthetic/text-to-image", "states": 7, "size": 16, **delayed},
            "chain": {"base": "synthetic/image-to-text", "states": 7, "kernel": "cycle", **delayed},
            "circle": {"base": "synthetic/state-embedding", "states": 7},
        },
        "prompts": [f"prompt {number}" for number in range(8)],
        "embeddings": ["circle"],
        "device": ["sim:1GiB"] * number,
        "executor": "auto",
    }
    return make_config(**usual | changes)


def used_devices(store: Path) -> set[str]:
    with sqlite3.connect(store / "store.sqlite") as connection:
        return {device for (device,) in connection.execute("SELECT DISTINCT device FROM batch")}


def kill_one_when_working(killed: list[int]) -> Callable[[Progress], None]:
    """An `on_progress` that kills the first process that runs models, once there are results."""

    def on_progress(progress: Progress) -> None:
        if killed or progress.invocations < 50:
            return
        found = running("process_worker", below=os.getpid())
        killed.append(found[0].pid)
        os.kill(found[0].pid, signal.SIGKILL)

    return on_progress


@pytest.mark.timeout(600)
@pytest.mark.parametrize("number", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_several_devices_give_what_one_gives(tmp_path: Path, number: int) -> None:
    """With three of them, the process of one is killed in the middle. All begin before the first goes on."""
    (tmp_path / "meeting.py").write_text(MEETING)
    chain = {"base": f"python:{tmp_path}/meeting.py:Meeting", "folder": str(tmp_path)}
    models = several(1).model_dump(mode="json")["models"] | {"chain": chain}
    killed: list[int] = []
    on_progress = kill_one_when_working(killed) if number == 3 else lambda progress: None
    (tmp_path / "expected").write_text(str(number))
    run(several(number, models=models), tmp_path / "several", on_progress=on_progress)
    (tmp_path / "expected").write_text("1")
    run(several(1, models=models), tmp_path / "one")
    assert len(killed) == (number == 3)
    assert used_devices(tmp_path / "several") == {f"sim:1GiB#{n}" for n in range(1, number + 1)}
    assert used_devices(tmp_path / "one") == {"sim:1GiB"}
    assert dump(tmp_path / "several") == dump(tmp_path / "one")
    with Store(tmp_path / "several") as store:
        assert check.check(store) == []


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_kills_of_the_whole_change_nothing(tmp_path: Path) -> None:
    config = several(2, max_length=80)
    hits = kill_and_rerun(config, tmp_path, kills=4, seed=0, within_s=1.5)
    run(several(1, max_length=80), tmp_path / "whole")
    assert hits, "the kills came too late to mean anything"
    assert dump(tmp_path / "killed") == dump(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_models_that_fit_only_when_spread_give_what_one_large_device_gives(tmp_path: Path) -> None:
    """Real weights: neither device has room for both models, so each of them serves one."""
    models = {"draw": {"base": "PocketDiffusion", "steps": 2}}
    names = {"draw": "PocketDiffusion", "PocketCaptioner": "PocketCaptioner"}
    sizes = [registry.size_bytes(registry.resolve(name)) for name in names.values()]
    room = int(1.2 * max(sizes))
    assert room < sum(sizes)
    config = ExperimentConfig.model_validate(
        {
            "name": "test",
            "networks": [list(names)],
            "models": models,
            "prompts": ["a small red circle above a large blue square", "a large green triangle"],
            "seeds": [-1],
            "repeats": 4,
            "max_length": 6,
            "batch_sizes": dict.fromkeys(names, 4),
            "threads": 1,
            "headroom": 0,
            "memory_fraction": 1.0,
            "device": [f"sim:{room}b", f"sim:{room}b"],
        }
    )
    run(config, tmp_path / "spread")
    run(config.model_copy(update={"device": "sim:1GiB"}), tmp_path / "one")
    with sqlite3.connect(tmp_path / "spread" / "store.sqlite") as connection:
        served = connection.execute("SELECT DISTINCT model, device FROM batch").fetchall()
    assert len(served) == 2, "each model has one device"
    assert len({device for _, device in served}) == 2
    assert dump(tmp_path / "spread") == dump(tmp_path / "one")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_device_whose_process_ends_three_times_is_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "models.py").write_text(MODELS)
    chain = {"base": f"python:{tmp_path}/models.py:Bad", "bad": "sim:1GiB#2"}
    models = several(2).model_dump()["models"] | {"chain": chain}
    prompts = [f"prompt {number}" for number in range(24)]  # more than one device can take at a time
    config = several(2, models=models, prompts=prompts, seeds=[-1], embeddings=[], max_retries=1)
    with caplog.at_level(logging.WARNING):
        outcome = run(config, tmp_path / "store")
    assert (outcome.state, outcome.counts.failed) == ("complete", 0), "no run pays for a device"
    told = [record.getMessage() for record in caplog.records if "left out" in record.getMessage()]
    assert len(told) == 1
    assert told[0].startswith("sim:1GiB#2 is left out from here on, its process has ended 3 times in a row")
    with Store(tmp_path / "store") as store:
        [timeline] = reading.timelines(store).values()
    assert {row["place"] for row in timeline if row["name"] == "left out"} == {"worker 2 on sim:1GiB#2"}


# Who serves what


class Silent:
    """A worker that answers nothing by itself."""

    is_ready = True

    def submit(self, call: Call) -> None: ...

    def check(self) -> None: ...

    def drain(self) -> None: ...

    def close(self) -> list[Span]:
        return [Span("waiting for a call", "", time.monotonic() - 0.1, time.monotonic())]


def two_devices() -> tuple[Workers, Ledger]:
    def start(deliver: Deliver) -> list[Silent]:
        return [Silent(), Silent()]

    ledger = Ledger()
    return Workers(start, ledger, placing(a=1, b=1)), ledger


def placing(room: int = 10, **sizes: int) -> Placing:
    return Placing(
        devices={"one": room, "two": room},
        sizes=sizes,
        generative=frozenset(sizes),
        items=dict.fromkeys(sizes, 100.0),
        seconds=dict.fromkeys(sizes, 1.0),
    )


def answer(workers: Workers, number: int, kind: Outcome | None = None) -> CallResult:
    error = CallError(kind=kind, message="it ended", is_end=True) if kind else None
    workers.post(CallResult(number=number, error=error, outputs=[], duration_s=1.0))
    result = workers.next(1.0)
    assert isinstance(result, CallResult)
    return result


def submit(workers: Workers, place: int) -> int:
    return workers.submit(Call(model="a", batch_size=1, inputs=["x"], seeds=[0]), workers.seats[place])


def test_after_the_end_of_a_process_another_device_gets_what_it_had() -> None:
    workers, _ = two_devices()
    one, two = workers.seats
    other, number = submit(workers, 1), submit(workers, 0)
    answer(workers, number, "crash")
    assert workers.open_seats() == [two], "its own device would end it again"
    answer(workers, other)
    assert workers.open_seats() == [two, one]
    answer(workers, submit(workers, 0))
    assert one.num_ends == 0


def test_a_device_whose_models_no_other_serves_does_not_rest() -> None:
    """It was idle for as long as another one computed what it has no part in."""

    def start(deliver: Deliver) -> list[Silent]:
        return [Silent(), Silent()]

    placed = placing(a=8, b=8)
    workers = Workers(start, Ledger(), placed)
    [own], [other] = placed.places["a"], placed.places["b"]
    seats = {seat.device: seat for seat in workers.seats}
    assert own != other
    at_work = workers.submit(Call(model="b", batch_size=1, inputs=["x"], seeds=[0]), seats[other])
    number = workers.submit(Call(model="a", batch_size=1, inputs=["x"], seeds=[0]), seats[own])
    answer(workers, number, "crash")
    assert seats[own] in workers.open_seats()
    answer(workers, at_work)


def test_items_that_end_every_process_leave_no_device_out() -> None:
    """Towards the end such items alone are left, and ended one device's process three times in a row."""
    workers, _ = two_devices()
    for number in range(6):
        for place in (number % 2, 1 - number % 2):
            call = Call(model="a", batch_size=1, inputs=[f"poison {number}"], seeds=[0])
            answer(workers, workers.submit(call, workers.seats[place]), "crash")
    assert not any(seat.is_left_out for seat in workers.seats)
    for number in range(3):  # other items each, of which nothing is known elsewhere
        call = Call(model="a", batch_size=1, inputs=[f"good {number}"], seeds=[0])
        answer(workers, workers.submit(call, workers.seats[0]), "crash")
    assert [seat.is_left_out for seat in workers.seats] == [True, False]


def test_ends_that_are_not_in_a_row_leave_no_device_out() -> None:
    workers, ledger = two_devices()
    for _ in range(4):
        for kind in ("crash", "untried", None):
            answer(workers, submit(workers, 0), kind)
    assert not workers.seats[0].is_left_out
    kinds: list[Outcome] = ["crash", "untried", "load"]
    outcomes = [answer(workers, submit(workers, 0), kind).error for kind in kinds]
    assert [error.kind for error in outcomes if error] == ["crash", "untried", "untried"]
    assert workers.open_seats() == [workers.seats[1]]
    assert not workers.serves(workers.seats[0], "a")
    for kind in kinds:
        last = answer(workers, submit(workers, 1), kind)
    assert not workers.seats[1].is_left_out, "the last device stays"
    assert last.error is not None
    assert last.error.kind == "load"
    workers.close()
    assert [row["place"] for row in ledger.rows() if row["name"] == "left out"] == ["worker 1 on one"]


def test_where_generative_models_fit_everywhere_every_device_serves_everything() -> None:
    copied = placing(a=4, b=6)
    assert copied.is_copied
    assert copied.serves("one", "b")
    assert not copied.serves("three", "a")


def test_otherwise_models_have_places_that_follow_measurements() -> None:
    placed = placing(a=8, b=8, c=1)
    assert not placed.is_copied
    assert placed.serves("one", "a") != placed.serves("one", "b")
    before = dict(placed.places)
    placed.measured("c", 11.0, 10)  # 10 % more than was expected: not asked again
    assert placed.seconds["c"] == 1.0
    mate, other = sorted("ab", key=lambda name: before[name] != before["c"])
    placed.measured(mate, 12.0, 10)
    assert placed.places == before, "not worth the bytes"
    placed.measured(mate, 28.0, 10)
    assert placed.seconds[mate] == 2.0
    assert placed.places == before | {"c": before[other]}, "c went where there is less to do, and a, b stayed"


def test_what_is_larger_than_every_device_has_a_place_all_the_same() -> None:
    """Its layers come one after another there."""
    assert not placing(a=25, b=3).is_copied


def test_a_device_that_is_left_out_gives_its_models_to_others() -> None:
    placed = placing(a=8, b=8)
    placed.leave_out("one")
    assert placed.serves("two", "a")
    assert placed.serves("two", "b")
    assert not placed.serves("one", "a")


def test_a_plan_is_placed_by_what_the_store_has_seen() -> None:
    config = several(2, device=["sim:20MiB", "sim:20MiB"], headroom=0, embeddings=["circle"])
    device = open_devices(config.device)
    found = open_placing(make_plan(config, device.kind), device)
    assert found.devices == {"sim:20MiB#1": 20 * 2**20, "sim:20MiB#2": 20 * 2**20}
    assert found.items == {"draw": 240.0, "chain": 240.0, "circle": 480}


# Mixed cards


def cards(*names: str, gib: int = 24) -> DeviceGroup:
    made = [
        SimulatedDevice(name=f"cuda:{n}", capacity_bytes=gib * 2**30, kind=f"cuda {name}")
        for n, name in enumerate(names)
    ]
    return DeviceGroup(devices=tuple(made))


def test_cards_of_several_models_are_of_a_kind_of_their_own() -> None:
    assert cards("A", "A").kind == "cuda A"
    assert cards("B", "A", "B").kind == "cuda A + B"
    assert not cards("A", "A").is_mixed
    assert cards("A", "B").is_mixed


def test_same_refuses_mixed_cards() -> None:
    config = several(2, devices="same")
    refuse_impossible(config, cards("A", "A"))
    with pytest.raises(UsageError, match=r"cuda:0 cuda A, 24\.0 GiB, cuda:1 cuda B"):
        refuse_impossible(config, cards("A", "B"))
    with pytest.raises(UsageError, match="devices: same"):
        refuse_impossible(config, open_devices(["sim:4GiB", "sim:8GiB"]))  # type: ignore[arg-type]


def test_the_smallest_device_comes_first_and_decides() -> None:
    group = open_devices(["sim:8GiB", "sim:4GiB"])
    assert [one.name for one in members(group)] == ["sim:4GiB#1", "sim:8GiB#1"]
    assert group.total_bytes() == 4 * 2**30


@pytest.mark.parametrize(
    ("changes", "told"),
    [({"executor": "local"}, "a process each"), ({"workers": 3}, "each of 2 devices has one process")],
)
def test_several_devices_refuse_what_contradicts_them(changes: dict[str, Any], told: str) -> None:
    config = several(2, **changes)
    with pytest.raises(UsageError, match=told):
        refuse_impossible(config, open_devices(config.device))


def test_a_model_is_placed_anew_only_where_its_seconds_have_changed_by_more_than_a_quarter() -> None:
    for seconds, is_asked in ((12.5, False), (12.6, True), (7.5, False), (7.4, True)):
        placed = placing(a=8, b=8)
        placed.measured("b", 10.0, 10)  # as expected, and taken over all the same
        placed.measured("a", seconds, 10)
        assert placed.seconds["a"] == (pytest.approx(seconds / 10) if is_asked else 1.0), seconds
    placed = placing(a=8, b=8)
    placed.measured("a", 50.0, 0)
    placed.measured("stranger", 50.0, 10)
    assert placed.seconds == {"a": 1.0, "b": 1.0}, "of nothing, and of a model without a place"
    placed.measured("a", 5.0, 10)
    assert placed.seconds["a"] == 5.5, "all of it counts, not the last call alone"
    copied = placing(a=4, b=6)
    copied.measured("a", 50.0, 10)
    assert copied.seconds["a"] == 1.0, "there is nothing to decide"


def test_where_models_are_is_said_in_a_sentence(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "panic.engine")
    assert placing(a=4, b=6).described() == "every device serves all models"
    placed = placing(a=8, b=8)
    assert caplog.messages == []
    [of_one] = (name for name in "ab" if placed.serves("one", name))
    other = "b" if of_one == "a" else "a"
    assert placed.described() == f"one: {of_one}; two: {other}"
    placed.leave_out("one")
    assert caplog.messages == ["models are placed anew: two: a, b"]


def test_room_for_weights_is_what_headroom_and_calls_leave() -> None:
    config = several(2, device=["sim:1000b", "sim:600b"], headroom=100, memory_fraction=0.5)
    device, plan = open_devices(config.device), make_plan(config)
    peaks = {"draw": {0: {4: 150, 2: 80}, 64: {1: 30}}, "chain": {0: {4: 20}}}
    assert open_placing(plan, device).devices == {"sim:600b#1": 200, "sim:1000b#1": 400}
    assert open_placing(plan, device, peaks=peaks).devices == {"sim:600b#1": 50, "sim:1000b#1": 250}
    large = {"draw": {0: {4: 300}}}
    assert open_placing(plan, device, peaks=large).devices == {"sim:600b#1": 0, "sim:1000b#1": 100}


def test_seconds_are_those_of_the_store_and_else_guessed_by_size() -> None:
    config = several(2, networks=[["PocketDiffusion", "PocketCaptioner"]], embeddings=[], batch_sizes={})
    plan, device = make_plan(config), open_devices(config.device)
    size = registry.size_bytes(plan.specs["PocketCaptioner"])
    times = [
        reading.ModelTime(
            model=name, batches=1, items=items, padding_items=0, duration_s=duration_s, padding_s=0.0
        )
        for name, items, duration_s in (
            ("PocketDiffusion", 4, 8.0), ("PocketCaptioner", 0, 8.0), ("stranger", 4, 8.0)
        )
    ]  # fmt: skip
    found = open_placing(plan, device, times)
    assert found.seconds == {"PocketDiffusion": 2.0, "PocketCaptioner": pytest.approx(size * 1e-9)}
    assert found.seen == {"PocketDiffusion"}
    assert found.generative == {"PocketDiffusion", "PocketCaptioner"}
    without = several(2, embeddings=["circle"])
    found = open_placing(make_plan(without), device)
    assert found.generative == {"draw", "chain"}
    assert set(found.seconds.values()) == {1e-9}, "models without weights"
