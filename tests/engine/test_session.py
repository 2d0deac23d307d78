"""A session: opened once, closed once; how it ends, and a shape epoch that opens meanwhile."""

from __future__ import annotations

import json
import os
import signal
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from panic.devices.device import CpuDevice, open_device
from panic.engine import session as session_module
from panic.engine.contents import size_bytes
from panic.engine.pinning import Pin, Shape
from panic.engine.plan import make_plan
from panic.engine.queue import Item
from panic.engine.session import LOST, open_session
from panic.errors import BudgetSpent, ConflictError, Interrupted
from panic.models import registry
from panic.models.protocol import Modality
from panic.store import Commit, Store, contents, missing, reading, working, writing
from panic.store.codec import text_digest
from panic.store.records import NewBatch, NewFailure, NewOutput
from tests.engine.by_hand import FRESH, opened, perform, states
from tests.engine.conftest import make_config


def end_states(path: Path) -> list[str | None]:
    with Store(path) as store:
        return [row.end_state for row in reading.sessions(store)]


def test_a_session_records_how_it_ended(tmp_path: Path) -> None:
    with opened(tmp_path / "s") as session:
        assert reading.sessions(session.reader)[-1].end_state is None
        assert reading.sessions(session.reader)[-1].command == "test"
    with pytest.raises(ZeroDivisionError), opened(tmp_path / "s"):
        1 / 0  # noqa: B018
    with pytest.raises(Interrupted), opened(tmp_path / "s"):
        raise Interrupted("enough")
    assert end_states(tmp_path / "s") == ["done", "failed", "interrupted"]
    with Store(tmp_path / "s") as store:
        assert all(row.ended_at is not None for row in reading.sessions(store))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_ask_it_to_stop_and_are_given_back(tmp_path: Path, number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with opened(tmp_path / "s") as session:
        assert not session.stop_requested()
        os.kill(os.getpid(), number)
        assert session.stop_requested()
    assert signal.getsignal(number) is before


def test_settings_that_conflict_are_refused_before_anything_is_changed(tmp_path: Path) -> None:
    with opened(tmp_path / "s", max_length=4):
        pass
    sizes = {"draw": 8, "chain": 4}
    with pytest.raises(ConflictError), opened(tmp_path / "s", max_length=9, batch_sizes=sizes):
        pass
    assert end_states(tmp_path / "s") == ["done"]
    with Store(tmp_path / "s") as store:
        assert {row.max_length for row in reading.runs(store)} == {4}


def test_what_was_added_is_stored_when_it_ends(tmp_path: Path) -> None:
    with opened(tmp_path / "s") as session:
        session.contents.add_unsaved(text_digest("late"), "late")
        row = NewOutput(digest=text_digest("late"), modality="text", text="late")
        session.writer.add(Commit(outputs=[row]))
    with Store(tmp_path / "s") as store:
        assert contents.text(store, text_digest("late")) == "late"


def test_prompts_are_in_memory_and_the_rest_is_read(tmp_path: Path) -> None:
    prompts = ["state 0", "a longer one"]
    with opened(tmp_path / "s", prompts=prompts, seeds=[42, -1], repeats=3, max_length=2) as session:
        assert session.contents.saved_bytes == sum(map(size_bytes, prompts))
        perform(session)
    with opened(tmp_path / "s", prompts=prompts, seeds=[42, -1], repeats=3, max_length=2) as session:
        rows = contents.outputs(session.reader)
        image = next(bytes.fromhex(row.digest) for row in rows if row.modality == "image")
        session.enqueue("stage", "chain", Modality.IMAGE, Item("run", image, 1))
        lane = session.ready.choose(frozenset(), only_full=False)
        assert lane is not None
        assert (lane.stage, lane.model, lane.batch_size) == ("stage", "chain", 4)
        (content,) = session.inputs(lane, session.ready.take(lane))
        assert content.tobytes() == contents.image(session.reader, image).tobytes()  # type: ignore[union-attr]
        session.enqueue("stage", "chain", Modality.IMAGE, Item("run", image, 1), 9)
        lane = session.ready.choose(frozenset(), only_full=False)
        assert lane is not None
        assert lane.batch_size == 9


def test_models_that_read_images_are_eager(tmp_path: Path) -> None:
    with opened(tmp_path / "s", prompts=states(7), **FRESH) as session:
        for number in range(7):
            session.enqueue("stage", "draw", Modality.TEXT, Item(number, text_digest(f"state {number}"), 0))
        for number in range(4):
            session.enqueue("stage", "chain", Modality.IMAGE, Item(number, b"", 0))
        chosen = session.ready.choose(frozenset({"draw", "chain"}), only_full=False)
        assert chosen is not None
        assert chosen.model == "chain"


def test_a_shape_epoch_is_recorded_after_everything_of_the_one_before(tmp_path: Path) -> None:
    with opened(tmp_path / "s", batch_sizes={"draw": 5, "chain": 4}) as session:
        old = session.pins["draw"]
        session.enqueue("stage", "draw", Modality.TEXT, Item("run", text_digest("hello"), 0))
        session.writer.add(Commit())
        pin = session.halve("draw")
        assert session.writer.committed == session.writer.added == 1
        assert pin == session.pins["draw"] == Pin(model=old.model, epoch=1, batch_size=2, threads=old.threads)
        assert session.pins["chain"].epoch == 0
        lane = session.ready.choose(frozenset(), only_full=False)
        assert lane is not None
        assert lane.batch_size == 2
        rows = {(row.name, row.number): row for row in reading.epochs(session.reader, session.experiment)}
        assert rows.keys() == {("chain", 0), ("draw", 0), ("draw", 1)}
        before, after = rows["draw", 0], rows["draw", 1]
        assert (before.batch_size, after.batch_size) == (5, 2)
        assert (after.device_kind, after.threads, after.model) == ("cpu", before.threads, before.model)
    with opened(tmp_path / "s", batch_sizes={"draw": 5, "chain": 4}) as session:
        assert session.pins["draw"] == pin, "never reverted within the experiment"


@pytest.mark.parametrize(
    ("how", "left"),
    [({}, {"error", LOST}), ({"retry_failed": True}, set()), ({"repair": True}, {"error"})],
)
def test_failures_are_forgotten_on_request(tmp_path: Path, how: dict[str, Any], left: set[str]) -> None:
    with opened(tmp_path / "s", prompts=states(2), **FRESH) as session:
        failures = [
            NewFailure(run=run, step=0, kind=kind, message="no")
            for run, kind in zip(session.run_ids, ("error", LOST), strict=True)
        ]
        session.writer.add(Commit(failures=failures))
    with opened(tmp_path / "s", prompts=states(2), **FRESH, **how) as session:
        rows = reading.runs(session.reader, session.experiment)
        assert {row.failure.kind for row in rows if row.failure} == left


def test_a_session_that_was_killed_is_known_by_the_next(tmp_path: Path) -> None:
    with opened(tmp_path / "s") as session:
        experiment = session.experiment
    with Store(tmp_path / "s", write=True) as store:
        writing.start_session(store, experiment, "killed", {"at": time.time()})
    with opened(tmp_path / "s"):
        pass
    assert end_states(tmp_path / "s") == ["done", "killed", "done"]


def test_what_a_session_spent_its_time_on_is_stored_until_it_is_closed(tmp_path: Path) -> None:
    with opened(tmp_path / "s") as session:
        session.clock.switch("driving")
        session.writer.add(Commit())
    with Store(tmp_path / "s") as store:
        (rows,) = reading.timelines(store).values()
    names = {row["name"] for row in rows if row["place"] == "driver"}
    assert names == {"starting", "driving", "closing"}
    assert {row["place"] for row in rows} == {"driver", "writer"}


def test_damaged_images_are_dropped_on_request(tmp_path: Path) -> None:
    changes: dict[str, Any] = {"prompts": states(1), "max_length": 1, **FRESH}
    with opened(tmp_path / "s", **changes) as session:
        perform(session)
    with Store(tmp_path / "s", write=True) as store:
        store.images.execute("UPDATE image SET bytes = x'00'")
    with opened(tmp_path / "s", **changes) as session:
        assert list(missing.images(session.reader, session.experiment)) == []
    with opened(tmp_path / "s", repair=True, **changes) as session:
        assert len(list(missing.images(session.reader, session.experiment))) == 1


@pytest.mark.parametrize("options", [{"repair": True}, {"retry_failed": True}])
def test_failures_of_runs_that_are_not_performed_are_kept(tmp_path: Path, options: dict[str, bool]) -> None:
    """Of a part of the runs, `--repair` forgot that others had failed, and nobody went on with those."""
    with opened(tmp_path / "s", prompts=states(2), max_length=1, **FRESH) as session:
        first, second = session.run_ids
        for run in (first, second):
            failure = NewFailure(run=run, step=0, kind=LOST, message="gone", detail="")
            session.writer.add(Commit(failures=[failure]))
    with opened(tmp_path / "s", prompts=states(1), max_length=1, **FRESH, **options) as session:
        assert session.run_ids == [first]
        rows = reading.runs(session.reader, session.experiment)
        assert {row.id: row.failure is not None for row in rows} == {first: False, second: True}


def test_what_workers_learnt_on_a_device_with_memory_of_its_own_is_kept(tmp_path: Path) -> None:
    plan, sim = make_plan(make_config(device="sim:1GiB"), "sim"), open_device("sim:1GiB")
    names = {"draw": "of draw", "chain": "of chain"}
    told = {"event": "working", "model": "draw", "bucket": 0, "batch": 4, "bytes": 300}
    with Store(tmp_path / "s", write=True, create=True) as store:
        for peaks in ({}, {"draw": {0: {4: 300}}}):
            with open_session(
                plan, names, sim, store, command="test", on_progress=lambda progress: None
            ) as session:
                assert session.memory.peaks == peaks
                assert session.memory.events is not None
                session.memory.events.parent.mkdir(exist_ok=True)
                file = session.memory.events.with_name(f"{session.memory.events.name}-1.jsonl")
                file.write_text(json.dumps(told) + "\n")
        assert working.known(store, sim.kind) == {"of draw": {0: {4: 300}}}
    with opened(tmp_path / "t") as session:
        assert session.memory.events is None


def test_what_a_config_leaves_alone_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with opened(tmp_path / "s", prompts=states(2), **FRESH):
        pass
    assert caplog.messages == []
    with opened(tmp_path / "s", prompts=states(1), **FRESH):
        pass
    assert caplog.messages


def test_a_session_that_is_performed_once_tells_nothing_and_forgets_no_failure_unasked(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with opened(tmp_path / "s", prompts=states(2), **FRESH) as session:
        failure = NewFailure(run=session.run_ids[0], step=0, kind="error", message="no")
        session.writer.add(Commit(failures=[failure]))
    plan = make_plan(make_config(prompts=states(1), **FRESH), "cpu")
    names = registry.fingerprints(plan.specs)
    with (
        Store(tmp_path / "s", write=True) as store,
        open_session(
            replace(plan, is_once=True), names, open_device("cpu"), store, command="test", on_progress=print
        ) as session,
    ):
        assert reading.runs(session.reader, session.experiment)[0].failure
    assert caplog.messages == []


@dataclass(kw_only=True)
class Card(CpuDevice):
    """A processor under the name of a GPU."""

    kind: str = "cuda A"


@pytest.mark.parametrize(("executor", "used"), [("local", {"GPU-1": 2.5}), ("ray", None)])
def test_what_gpus_have_used_is_recorded_when_it_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, executor: str, used: dict[str, float] | None
) -> None:
    """It never was, since the kind of a GPU has the name of its model in it. A cluster's are elsewhere."""
    told = iter([{"GPU-1": 5.0, "GPU-2": 1.0}, {"GPU-1": 7.5}])
    monkeypatch.setattr(session_module, "gpu_energy_j", lambda: next(told))
    device, config = Card(), make_config(executor=executor)
    plan = make_plan(config, device.kind)
    with Store(tmp_path / "store", write=True, create=True) as store:
        fingerprints = registry.fingerprints(plan.specs)
        session = open_session(plan, fingerprints, device, store, command="test", on_progress=lambda _: None)
        with session:
            pass
        [row] = reading.sessions(store)
        assert row.provenance.get("gpu_energy_j") == used


@pytest.mark.parametrize(("executor", "hosts"), [("ray", ["far", "a b"]), ("local", [])])
def test_the_hosts_of_workers_of_a_cluster_were_not_recorded(
    tmp_path: Path, executor: str, hosts: list[str]
) -> None:
    config = make_config(executor=executor)
    plan, device = make_plan(config, "cpu"), CpuDevice()
    with Store(tmp_path / "store", write=True, create=True) as store:
        fingerprints = registry.fingerprints(plan.specs)
        opening = open_session(plan, fingerprints, device, store, command="test", on_progress=lambda _: None)
        with opening as session:
            session.pin({}, {})
            shape = {"epoch": 0, "size": 1, "padded_size": 1, "started_at": 1.0, "duration_s": 1.0}
            for place, host in enumerate(["far", "a b", "far"]):
                batch = NewBatch(
                    id=writing.next_batch_id(store),
                    session=session.number,
                    model=reading.models(store)[0].id,
                    device=f"cpu on {host}, node 0123abc{place}, worker {place}",
                    **shape,
                )
                writing.commit(store, Commit(batches=[batch]))
        [row] = reading.sessions(store)
    assert row.provenance["hosts"] == [row.host, *hosts]


def test_a_session_says_where_its_models_come_from_and_its_tags_alone_are_kept(tmp_path: Path) -> None:
    with opened(tmp_path / "s", tags=["blue"]):
        pass
    with Store(tmp_path / "s") as store:
        (session,) = reading.sessions(store, "test")
        assert set(session.provenance["models"]) == {"draw", "chain"}
        assert store.db.rows("SELECT kind, text FROM annotation") == [("tag", "blue")]


def test_a_session_that_does_not_open_ends_with_its_own_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*of: Any) -> None:
        raise ValueError("no buckets")

    monkeypatch.setattr(session_module, "Buckets", fail)
    with pytest.raises(ValueError, match="no buckets"), opened(tmp_path / "s"):
        pass
    assert end_states(tmp_path / "s") == ["failed"]


def test_what_is_given_up_for_a_budget_is_no_failure(tmp_path: Path) -> None:
    with pytest.raises(BudgetSpent), opened(tmp_path / "s"):
        raise BudgetSpent("no more")
    assert end_states(tmp_path / "s") == ["budget spent"]


def test_items_of_equal_length_alone_share_batches_of_models_that_are_pinned_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(tmp_path / "s") as session:
        told: list[list[str]] = []
        monkeypatch.setattr(session.buckets, "by_length", lambda names: told.append(list(names)))
        shape = Shape(batch_size=4, threads=session.pins["draw"].threads, mates="length")
        session.pin({}, {"draw": shape})
        assert told == [["draw"]]
        assert [session.pins[name].mates for name in ("draw", "chain")] == ["length", "bucket"]
        pin = session.halve("draw")
        assert (pin.batch_size, pin.mates) == (2, "length")
    with opened(tmp_path / "s") as session:
        assert session.pins["draw"] == pin, "as it was recorded"
