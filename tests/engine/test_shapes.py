"""Which shapes models get and keep, and what contradicts an experiment, without performing anything."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from panic.config.fields import MAX_BATCH, MAX_WORKERS
from panic.devices.device import CpuDevice, open_device
from panic.engine import pinning
from panic.engine.perform import run as perform
from panic.engine.pinning import (
    Change,
    Pin,
    Shape,
    begin,
    changes,
    fitting_shapes,
    most_ready,
    num_cores,
    pin,
    refuse_conflicts,
    repin,
    shapes,
    unproven,
    untried,
)
from panic.engine.plan import Plan, make_plan
from panic.errors import ConflictError, StoreCorrupt
from panic.models import registry
from panic.store import Store, provenance, reading, writing
from panic.store.records import EpochRow, NewRun, RunRow
from tests.engine.conftest import make_config

VECTORS = "synthetic/state-embedding"
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
POCKET: dict[str, Any] = {
    "networks": [["PocketDiffusion", "PocketCaptioner"]],
    "models": {},
    "batch_sizes": {},
}


DRAW = {"draw": make_config().models["draw"].model_dump(mode="json", exclude_none=True)}


def plan_of(**changes: Any) -> Plan:
    return make_plan(make_config(**changes))


def pocket(**changes: Any) -> Plan:
    config = make_config().model_dump(mode="json", exclude_none=True) | POCKET | changes
    return make_plan(type(make_config()).model_validate(config))


def epoch(name: str, batch_size: int, **changes: Any) -> EpochRow:
    fields: dict[str, Any] = {"experiment": 1, "number": 0, "model": 1, "fingerprint": "f", "threads": 3}
    fields |= {"device_kind": "cpu", "opened_at": 0.0, "reason": "start"}
    return EpochRow(**fields | {"name": name, "batch_size": batch_size} | changes)


def runs(count: int, *network: str, max_length: int = 3) -> list[NewRun]:
    network = network or ("draw", "chain")
    return [NewRun(network=network, prompt=str(n), seed=1, max_length=max_length) for n in range(count)]


# How models are called


def test_what_is_pinned_comes_before_what_is_asked_for_and_that_before_what_fits() -> None:
    plan = plan_of(batch_sizes={"draw": 4, "chain": 16}, embeddings=[VECTORS], threads=2)
    found = shapes(plan, [epoch("draw", 9), epoch("draw", 5, number=1), epoch("gone", 7)], "cpu")
    assert list(found.items()) == [
        ("draw", Shape(batch_size=5, threads=3)),
        ("chain", Shape(batch_size=16, threads=2)),
        (VECTORS, Shape(batch_size=32, threads=2)),
    ]


def test_an_epoch_without_threads_had_all_cores() -> None:
    found = shapes(plan_of(), [epoch("draw", 9, threads=None)], "cpu")
    assert found["draw"].threads == CORES


def test_small_models_with_weights_have_one_thread_on_the_cpu_and_others_all() -> None:
    assert {shape.threads for shape in shapes(pocket(), [], "cpu").values()} == {1}
    assert {shape.threads for shape in shapes(pocket(), [], "sim").values()} == {CORES}
    assert {shape.threads for shape in shapes(plan_of(), [], "cpu").values()} == {CORES}, "without weights"


@pytest.mark.parametrize(("count", "batch_size"), [(0, 1), (1, 1), (5, 5), (99, 32)])
def test_no_more_than_can_be_ready_and_no_less_than_one(count: int, batch_size: int) -> None:
    found = shapes(plan_of(batch_sizes={}), [], "cpu", runs(count))
    assert {shape.batch_size for shape in found.values()} == {batch_size}


def test_of_networks_that_the_plan_does_not_know_every_step_may_count() -> None:
    """The steps of [draw, other] may all be texts."""
    ready = most_ready(plan_of(embeddings=[VECTORS]), runs(2, "draw", "other", max_length=5))
    assert ready == {"draw": 2, "chain": 0, VECTORS: 2 * 5 + 2}
    both = [*runs(3, max_length=4), *runs(1, "other", max_length=7)]
    assert most_ready(plan_of(embeddings=[VECTORS]), both) == {
        "draw": 3, "chain": 3, VECTORS: 3 * 4 + 7 + 3
    }  # fmt: skip


def test_a_model_of_images_alone_reads_no_prompt() -> None:
    images = "PocketPixels"
    ready = most_ready(plan_of(embeddings=[images]), runs(2, max_length=5))
    assert ready[images] == 2 * 3


def test_what_fits_is_what_memory_has_left_unless_the_config_says_so() -> None:
    plan = plan_of(batch_sizes={"chain": 16}, embeddings=[VECTORS])
    epochs = [epoch("draw", 2), epoch("chain", 8), epoch("chain", 4, number=1, reason="memory")]
    found = fitting_shapes(plan, epochs, "cpu", runs(6))
    assert [shape.batch_size for shape in found.values()] == [6, 16, 6 * 3 + 6]
    less = [*epochs, epoch("draw", 3, number=1, reason="memory")]
    assert fitting_shapes(plan, less, "cpu", runs(6))["draw"].batch_size == 3
    more = [*epochs, epoch("draw", 30, number=1, reason="memory")]
    assert fitting_shapes(plan, more, "cpu", runs(6))["draw"].batch_size == 6
    again = [*less, epoch("draw", 5, number=2, reason="request")]
    assert fitting_shapes(plan, again, "cpu", runs(6))["draw"].batch_size == 3


def test_a_model_that_no_run_calls_stays_as_it_is() -> None:
    plan = plan_of(batch_sizes={})
    found = fitting_shapes(plan, [epoch("chain", 9)], "cpu", runs(3, "draw", "draw"))
    assert (found["draw"].batch_size, found["chain"]) == (3, Shape(batch_size=9, threads=3))


def test_tried_out_is_what_nobody_has_decided_where_memory_is_the_devices_own() -> None:
    sim = open_device("sim:1GiB")
    names = ["PocketDiffusion", "PocketCaptioner"]
    assert untried(pocket(), [], sim) == names
    assert untried(pocket(), [], open_device("cpu")) == []
    assert untried(pocket(batch_sizes={"PocketDiffusion": 4}), [], sim) == names[1:]
    assert untried(pocket(), [epoch("PocketCaptioner", 4)], sim) == names[:1]
    assert untried(plan_of(batch_sizes={}), [], sim) == [], "they have no weights"


# What is pinned


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "s", write=True, create=True) as store:
        yield store


def pinned(store: Store, plan: Plan, tried: dict[str, int] | None = None) -> dict[str, Pin]:
    fingerprints = registry.fingerprints(plan.specs)
    experiment = begin(store, plan, fingerprints, "cpu")
    return pin(store, experiment, plan, fingerprints, "cpu", tried)


def test_a_model_is_pinned_once(store: Store) -> None:
    first = pinned(store, plan_of(batch_sizes={"draw": 4, "chain": 6}, threads=2), {"draw": 3})
    assert [(pin.batch_size, pin.threads, pin.epoch) for pin in first.values()] == [(3, 2, 0), (6, 2, 0)]
    rows = {row.name: row for row in reading.epochs(store, "test")}
    assert {name: row.reason for name, row in rows.items()} == {"draw": "memory", "chain": "start"}
    assert {name: row.model for name, row in rows.items()} == {name: pin.model for name, pin in first.items()}
    assert {(row.device_kind, row.threads) for row in rows.values()} == {("cpu", 2)}
    again = pinned(store, plan_of(batch_sizes={}, embeddings=[VECTORS]), {"chain": 6})
    assert {name: again[name] for name in first} == first
    assert again[VECTORS].epoch == 0
    assert len(reading.epochs(store, "test")) == 3


def test_of_a_model_is_stored_what_it_says(store: Store) -> None:
    pinned(store, plan_of())
    spec = reading.model(store, "draw").spec
    assert spec["name"] == "draw"
    assert spec["modality_out"] == "image"
    assert not [name for name, value in spec.items() if value in (None, "", [], {})]


def test_a_config_of_another_version_is_replaced_and_others_are_joined(store: Store) -> None:
    row = writing.start_experiment(store, "test", {"nonsense": 1})
    plan = plan_of(prompts=["one"])
    assert begin(store, plan, {}, "cpu") == row
    assert begin(store, plan_of(prompts=["two"]), {}, "cpu") == row
    assert reading.experiment(store, "test").config["prompts"] == ["one", "two"]


# What contradicts


@pytest.fixture
def begun(store: Store) -> Store:
    """The experiment with batches of 4 and two threads."""
    pinned(store, plan_of(threads=2))
    return store


def conflicts(
    store: Store, plan: Plan, *, kind: str = "cpu", changed: tuple[str, ...] = (), **how: bool
) -> list[str]:
    """What is said against a plan; the weights of some models have changed."""
    fingerprints = registry.fingerprints(plan.specs) | dict.fromkeys(changed, "of something else")
    try:
        refuse_conflicts(store, reading.experiment(store, "test"), plan, fingerprints, kind, **how)
    except ConflictError as error:
        return error.message.splitlines()
    return []


def test_what_says_nothing_else_contradicts_nothing(begun: Store) -> None:
    assert conflicts(begun, plan_of()) == []
    assert conflicts(begun, plan_of(threads=2)) == []
    assert conflicts(begun, plan_of(batch_sizes={})) == []
    assert conflicts(begun, pocket(), kind="sim") == [], "it has other models"
    assert conflicts(begun, plan_of(chain={"alpha": 1.0})) == [], "the same model, written otherwise"


def test_another_device_contradicts_for_every_model(begun: Store) -> None:
    assert conflicts(begun, plan_of(), kind="sim") == [
        f"{name} started on a device of kind 'cpu'; here it is 'sim'" for name in ("chain", "draw")
    ]
    assert conflicts(begun, pocket(networks=[["draw", "PocketCaptioner"]], models=DRAW), kind="sim") == [
        "draw started on a device of kind 'cpu'; here it is 'sim'"
    ]


def test_another_model_contradicts_and_is_told_once(begun: Store) -> None:
    weights = "draw is not the model this experiment started with: its weights or code changed"
    assert conflicts(begun, plan_of(), changed=("draw",)) == [weights]
    (told,) = conflicts(begun, plan_of(draw={"states": 5}))
    assert told.startswith("the variant 'draw' is ")


def test_another_shape_contradicts_what_was_decided_and_not_what_memory_left(begun: Store) -> None:
    def said(batch_size: int) -> list[str]:
        return conflicts(begun, plan_of(batch_sizes={"draw": batch_size, "chain": 4}))

    def open_epoch(batch_size: int, reason: str | None = None) -> None:
        row = next(row for row in reading.epochs(begun, "test") if row.name == "draw")
        new = writing.NewEpoch(
            name="draw", model=row.model, batch_size=batch_size, device_kind="cpu", threads=2, reason=reason
        )
        writing.add_epochs(begun, row.experiment, [new])

    assert said(4) == []
    assert said(2) == ["batch_sizes.draw is 2; this experiment started with 4"]
    open_epoch(2)
    assert said(4) == []
    assert said(2) == ["batch_sizes.draw is 2; this experiment started with 4"]
    open_epoch(3, "request")
    assert said(3) == []
    assert said(4) == ["batch_sizes.draw is 4; this experiment was pinned anew to 3"]
    shapes_may = plan_of(batch_sizes={"draw": 9, "chain": 9}, threads=9)
    assert len(conflicts(begun, shapes_may)) == 4
    assert conflicts(begun, shapes_may, shapes_may_change=True) == []


def test_a_size_that_was_tried_out_at_the_start_was_decided(store: Store) -> None:
    pinned(store, plan_of(batch_sizes={}), {"draw": 3})
    (told,) = conflicts(store, plan_of(batch_sizes={"draw": 4}))
    assert told.endswith(" 3")
    assert told.startswith("batch_sizes.draw is 4; ")


def test_other_threads_contradict_and_are_told_once(begun: Store) -> None:
    assert conflicts(begun, plan_of(threads=7)) == ["threads is 7; this experiment started with 2"]
    begun.db.execute("UPDATE epoch SET threads = NULL")
    assert conflicts(begun, plan_of(threads=7)) == [], "nobody knows what it started with"


def test_pinning_anew_changes_what_does_not_fit_and_says_what(begun: Store) -> None:
    """One open run is left of the four, and its config leaves the sizes open."""
    plan = plan_of(batch_sizes={"chain": 4}, networks=[["draw", "chain"]], threads=2, prompts=["one"],
                   seeds=[1], repeats=1)  # fmt: skip
    experiment = reading.experiment(begun, "test").id
    writing.add_runs(begun, experiment, plan.runs)
    model = reading.model(begun, "draw").id
    expected = [
        Change(
            name="draw",
            model=model,
            before=Shape(batch_size=4, threads=2),
            after=Shape(batch_size=1, threads=2),
        )
    ]
    assert changes(begun, experiment, plan, CpuDevice()) == expected
    assert repin(begun, experiment, plan, registry.fingerprints(plan.specs), CpuDevice()) == expected
    assert changes(begun, experiment, plan, CpuDevice()) == []
    last = reading.epochs(begun, "test")[-1]
    assert (last.name, last.number, last.batch_size, last.threads, last.reason, last.model) == (
        "draw", 1, 1, 2, "request", model
    )  # fmt: skip


# How many, and of what kind


def test_a_shape_is_one_that_a_config_could_ask_for() -> None:
    Shape(batch_size=MAX_BATCH, threads=MAX_WORKERS)
    for batch_size, threads, told in (
        (MAX_BATCH + 1, 1, "65,537 items in a batch, and 65,536 is the most"),
        (1, MAX_WORKERS + 1, "1,025 threads of a model, and 1,024 is the most"),
    ):
        with pytest.raises(StoreCorrupt, match=f"the store says {told}") as refused:
            Shape(batch_size=batch_size, threads=threads)
        assert "panic check" in refused.value.hint


def test_more_cores_than_may_be_asked_for_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for there, want in ((1, 1), (3, 3), (MAX_WORKERS, MAX_WORKERS), (MAX_WORKERS + 5, MAX_WORKERS)):
        monkeypatch.setattr(os, "sched_getaffinity", lambda of, there=there: range(there), raising=False)
        assert num_cores() == want
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    for cores, want in ((None, 1), (6, 6)):
        monkeypatch.setattr(os, "cpu_count", lambda cores=cores: cores)
        assert num_cores() == want


@pytest.mark.parametrize(
    ("sizes", "pinned_names", "busy", "is_invariant", "names"),
    [
        ((4, 4), (), (), False, ["draw", "chain"]),
        ((4, 1), (), (), False, ["draw"]),
        ((2, 1), (), ("draw", "chain"), False, ["draw"]),
        ((4, 4), ("draw", "chain"), (), False, []),
        ((4, 4), ("draw", "chain"), ("chain",), False, ["chain"]),
        ((4, 4), ("draw",), (), False, ["chain"]),
        ((4, 4), (), ("draw",), True, []),
    ],
)
def test_what_is_measured_is_what_nobody_vouches_for(
    monkeypatch: pytest.MonkeyPatch,
    sizes: tuple[int, int],
    pinned_names: tuple[str, ...],
    busy: tuple[str, ...],
    is_invariant: bool,
    names: list[str],
) -> None:
    plan, asked = plan_of(), list[bool]()
    monkeypatch.setattr(
        registry, "is_invariant", lambda spec, is_tested: asked.append(is_tested) or is_invariant
    )
    called = {name: Shape(batch_size=size, threads=1) for name, size in zip(plan.specs, sizes, strict=True)}
    epochs = [epoch(name, 4) for name in pinned_names]
    monkeypatch.setattr(pinning, "is_known_to_be_steady", lambda device: True)
    assert unproven(plan, called, epochs, busy, CpuDevice()) == names
    assert set(asked) <= {True}
    asked.clear()
    unproven(plan, called, (), (), a_card := CpuDevice(torch_name="cuda"))
    monkeypatch.setattr(pinning, "is_known_to_be_steady", lambda device: False)
    unproven(plan, called, (), (), CpuDevice())
    assert set(asked) == {False}, "on a device like those of the tests alone"
    assert a_card.kind == "cpu"


def test_kernels_that_a_user_asks_for_are_left(monkeypatch: pytest.MonkeyPatch) -> None:
    for instructions, before, after in (
        (("avx2",), None, "AVX2,STRICT"),
        (("avx2",), "COMPATIBLE", "COMPATIBLE"),
        (("avx2", "avx512f"), None, None),
    ):
        monkeypatch.setattr(provenance, "vector_instructions", lambda found=instructions: found)
        monkeypatch.delenv("MKL_CBWR", raising=False)
        if before is not None:
            monkeypatch.setenv("MKL_CBWR", before)
        pinning.ask_for_steady_kernels()
        assert os.environ.get("MKL_CBWR") == after
        os.environ.pop("MKL_CBWR", None)


def test_surroundings_are_versions_and_the_device_and_a_processor_where_it_computes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for switch in pinning.SWITCHES:
        monkeypatch.delenv(switch, raising=False)
    monkeypatch.setattr(provenance, "vector_instructions", lambda: ("avx512f", "fma"))
    monkeypatch.setattr(provenance, "processor", lambda: "Model X")
    versions = {"torch", "diffusers", "transformers"} & provenance.packages().keys()
    here, sim = (
        json.loads(pinning.surroundings(device)) for device in (CpuDevice(), open_device("sim:1GiB"))
    )
    assert here.keys() == versions | {"device", "instructions"}
    assert (here["device"], here["instructions"]) == ("cpu Model X", "avx512f fma")
    assert sim.keys() == versions | {"device"}
    assert sim["device"] == open_device("sim:1GiB").kind
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "avx2")
    assert json.loads(pinning.surroundings(CpuDevice()))["ATEN_CPU_CAPABILITY"] == "avx2"


def stored(num_steps: int, state: str, max_length: int = 9) -> RunRow:
    return RunRow(
        id=1, experiment=1, network=("draw", "chain"), prompt="0", seed=1, repeat=0, max_length=max_length,
        num_steps=num_steps, state=state, entry_step=None, period=None, failure=None,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("row", "is_there"),
    [
        (None, False), (stored(2, "running"), False), (stored(3, "running"), True), (stored(4, "done"), True),
        (stored(1, "stuck"), True), (stored(1, "failed"), True), (stored(1, "repeated"), True),
    ],
)  # fmt: skip
def test_a_run_that_has_come_as_far_as_is_asked(row: RunRow | None, is_there: bool) -> None:
    [run] = runs(1)
    assert pinning.has_come_as_far(row, run) is is_there


def test_a_model_is_called_where_a_run_or_a_lost_image_needs_it(tmp_path: Path) -> None:
    config = make_config(max_length=2, embeddings=[VECTORS])
    perform(config, tmp_path / "s")
    with Store(tmp_path / "s", write=True) as store:
        row = reading.experiment(store, "test")
        epochs = {one.name: one for one in reading.epochs(store, "test")}

        def called(**changes: Any) -> list[str]:
            plan = plan_of(**{"max_length": 2, "embeddings": [VECTORS], **changes})
            return [name for name in epochs if pinning.is_called(store, row, plan, epochs[name])]

        assert called() == []
        assert set(called(max_length=3)) == {"draw", "chain", VECTORS}
        assert called(max_length=1, prompts=["state 0"]) == []
        store.db.execute("DELETE FROM embedding WHERE rowid IN (SELECT rowid FROM embedding LIMIT 1)")
        assert called() == [VECTORS]
        store.images.execute("DELETE FROM image WHERE rowid = 1")
        assert set(called()) == {"draw", "chain", VECTORS}
