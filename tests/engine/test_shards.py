"""Pins and shards: parts of an experiment that are performed apart are those of one store."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from panic import run
from panic.engine.pins import Pins, Seen, calibrate, lay, read, write
from panic.engine.plan import CheckedConfig, expanded_runs, make_plan
from panic.engine.shards import Shard, require_shapes
from panic.errors import ConflictError, ModelDoesNotFit, UsageError
from panic.store import Store, invariance, reading
from panic.store.check import check
from panic.store.merging.merge import merge
from tests.engine.by_hand import failing, first, opened, perform
from tests.engine.conftest import dump, make_config


def checked(**changes: Any) -> CheckedConfig:
    return CheckedConfig.of(make_config(**{"batch_sizes": {}, **changes}), ask=True)


def perform_shards(part: CheckedConfig, pins: Pins, folder: Path, count: int) -> list[Path]:
    runs = expanded_runs(part.config)
    for number in range(1, count + 1):
        path = folder / str(number)
        with Store(path, write=True, create=True) as store:
            lay(pins, part, store)
        run(part, path, runs=Shard(number=number, count=count).runs(runs))
    return [folder / str(number) for number in range(1, count + 1)]


def test_five_runs_on_eight_shards_are_those_of_one_store(tmp_path: Path) -> None:
    """Some shards are empty, and batches are larger than any shard."""
    part = checked(
        prompts=["a", "b", "c", "d", "e"], seeds=[42], repeats=1, embeddings=["synthetic/state-embedding"]
    )
    pins = calibrate(part)
    assert pins.models["draw"].batch_size == 5
    shards = perform_shards(part, pins, tmp_path, 8)
    with_runs = [len(reading.runs(store, "test")) for store in map(Store, shards)]
    assert sum(with_runs) == 5
    assert 0 in with_runs
    merged = merge(shards[::-1], tmp_path / "merged")
    assert merged.conflicts == []
    run(part, tmp_path / "whole")
    assert dump(tmp_path / "merged") == dump(tmp_path / "whole")
    with Store(tmp_path / "merged") as store:
        assert check(store) == []
        assert reading.experiment(store, "test").uid == pins.uid
        assert {epoch.batch_size for epoch in reading.epochs(store, "test") if epoch.name == "draw"} == {5}


def test_all_arms_of_a_run_are_in_one_shard_and_each_run_in_one() -> None:
    config = make_config(
        prompts=[f"prompt {number}" for number in range(40)],
        arms={"baseline": [], "swap": [{"at": 4, "text": "state 3"}]},
    )
    runs = expanded_runs(config)
    parts = [Shard(number=number, count=8).runs(runs) for number in range(1, 9)]
    assert sorted(map(repr, runs)) == sorted(repr(one) for part in parts for one in part)
    keys = [{(one.prompt, one.seed, one.repeat) for one in part} for part in parts]
    assert sum(map(len, keys)) == len(set.union(*keys)) == len(runs) / 2
    assert min(map(len, parts)) > 15
    grown = expanded_runs(make_config(prompts=[*config.prompts, "more"]))
    assert {one.prompt for one in parts[2]} <= {one.prompt for one in Shard(number=3, count=8).runs(grown)}


def test_the_first_and_the_last_shard_are_shards() -> None:
    for text in ("1/1", "1/8", "8/8", "100000/100000"):
        assert str(Shard.parse(text, {})) == text
    with pytest.raises(UsageError, match="with at most 100,000"):
        Shard.parse("1/100001", {})


def test_a_run_is_in_the_shard_where_it_has_always_been() -> None:
    """Its place is a promise: shards of one experiment may be performed by several versions."""
    runs = expanded_runs(make_config(prompts=["a", "ä", "state 0"], seeds=[42, -1], repeats=2))
    places = [[one for one in range(1, 8) if Shard(number=one, count=7).has(run)] for run in runs]
    assert places == [[5], [1], [3], [6], [6], [1], [4], [2], [4]]


@pytest.mark.parametrize("text", ["", "0/8", "9/8", "3", "a/b", "3/8/9", "-1/8", "1/999999999", "३/८"])
def test_what_is_no_shard(text: str) -> None:
    with pytest.raises(UsageError, match="a shard is N/COUNT"):
        Shard.parse(text, {})


def task(**values: str) -> dict[str, str]:
    return {f"SLURM_ARRAY_TASK_{name}": value for name, value in values.items()}


def test_a_shard_of_an_array_of_slurm() -> None:
    assert str(Shard.parse("auto", task(ID="0", COUNT="4", MIN="0", STEP="1"))) == "1/4"
    assert str(Shard.parse("auto", task(ID="7", COUNT="4", MIN="1", STEP="2"))) == "4/4"
    assert str(Shard.parse("auto", task(ID="3", COUNT="4"))) == "4/4"
    assert str(Shard.parse("auto", task(ID="5", COUNT="1", MIN="5", STEP="0"))) == "1/1"
    with pytest.raises(UsageError, match="TASK_ID is 'x'"):
        Shard.parse("auto", task(ID="x", COUNT="4"))
    for text in ("9" * 5000, "٣"):  # which Python would make no number of, or which nobody writes
        with pytest.raises(UsageError, match=r"TASK_COUNT is '.{1,40}'"):
            Shard.parse("auto", task(ID="0", COUNT=text))
    with pytest.raises(UsageError, match="task 0 is not one of 4 from 1"):
        Shard.parse("auto", task(ID="0", COUNT="4", MIN="1"))
    with pytest.raises(UsageError, match="SLURM_ARRAY_TASK_ID is not set"):
        Shard.parse("auto", {})
    with pytest.raises(UsageError, match="with gaps"):
        Shard.parse("auto", task(ID="7", COUNT="2", MIN="1", STEP="1"))


def test_pins_are_read_as_they_were_written(tmp_path: Path) -> None:
    pins = calibrate(checked())
    file = tmp_path / "pins.json"
    write(pins, file)
    assert read(file) == pins
    with pytest.raises(ValidationError, match="frozen"):
        pins.experiment = "other"
    assert [path.name for path in tmp_path.iterdir()] == ["pins.json"]
    text = file.read_text()
    assert text.startswith('{\n  "version": 1,\n  "experiment": "test",\n')
    assert text.endswith("}\n")
    file.write_text(text + " " * (2**24 - len(text)))
    assert read(file) == pins
    file.write_text(text + " " * (2**24 + 1 - len(text)))
    with pytest.raises(UsageError, match="is too large for a file of pins"):
        read(file)


@pytest.mark.parametrize("value", [0, 1, 2**20, 2**20 + 1, "4", 4.0, True])
def test_a_batch_size_is_pinned_that_can_be_one(tmp_path: Path, value: object) -> None:
    pins = calibrate(checked()).model_dump()
    pins["models"]["draw"]["batch_size"] = value
    (tmp_path / "pins.json").write_text(json.dumps(pins))
    if type(value) is int and 1 <= value <= 2**20:
        assert read(tmp_path / "pins.json").models["draw"].batch_size == value
    else:
        with pytest.raises(UsageError, match=r"is no file of pins: models\.draw\.batch_size"):
            read(tmp_path / "pins.json")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "the file"),
        ("[]", "the file"),
        ('{"version": 2}', "version"),
        ('{"models": {}, "x": 1}', "experiment"),
    ],
)
def test_what_is_no_file_of_pins(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "pins.json").write_text(text)
    with pytest.raises(UsageError, match=f"is no file of pins: {said}: "):
        read(tmp_path / "pins.json")
    with pytest.raises(UsageError, match="cannot be read"):
        read(tmp_path / "nowhere.json")


def test_pins_of_something_else_are_refused(tmp_path: Path) -> None:
    pins = calibrate(checked())
    others = {
        "the pins are of test, and the experiment is other": checked(name="other"),
        "chain is not the model that was pinned": checked(chain={"kernel": "column"}),
        "device of kind 'cpu'; here it is": checked(device="sim:8GiB"),
    }
    for said, part in others.items():
        with Store(tmp_path / "store", write=True, create=True) as store:
            with pytest.raises(ConflictError, match=said):
                lay(pins, part, store)
            assert reading.experiments(store) == []


def test_pins_for_a_ray_cluster_are_laid_where_its_devices_are_not(tmp_path: Path) -> None:
    """As on a head node without a GPU, which refused them; the session compares the kind when it begins."""
    kind = "cuda NVIDIA of another machine"
    pins = calibrate(checked())
    models = {name: one.model_copy(update={"device_kind": kind}) for name, one in pins.models.items()}
    pins = pins.model_copy(update={"device_kind": kind, "models": models})
    part = checked(executor="ray", device="cuda")
    with Store(tmp_path / "store", write=True, create=True) as store:
        lay(pins, part, store)
        [row] = reading.experiments(store)
        assert {epoch.device_kind for epoch in reading.epochs(store, row.id)} == {kind}
    with pytest.raises(ConflictError, match=f"started on a device of kind {kind!r}"):
        run(checked(), tmp_path / "store")


def test_pins_without_a_model_name_the_nearest(tmp_path: Path) -> None:
    pins = calibrate(checked())
    models = {"drew" if name == "draw" else name: one for name, one in pins.models.items()}
    with Store(tmp_path / "store", write=True, create=True) as store:
        with pytest.raises(ConflictError, match=r"draw has no pins [(]did you mean drew[?][)]") as refused:
            lay(pins.model_copy(update={"models": models}), checked(), store)
        assert "chain" not in str(refused.value)


def test_pins_of_a_model_that_an_experiment_gets_later_are_laid_then(tmp_path: Path) -> None:
    """What has begun stays; what the pins have more is added, once."""
    small, large = checked(), checked(embeddings=["synthetic/state-embedding"])
    pins = calibrate(large)
    begun = {name: one for name, one in pins.models.items() if name in ("draw", "chain")}
    with Store(tmp_path / "store", write=True, create=True) as store:
        lay(pins.model_copy(update={"models": begun}), small, store)
        assert {epoch.name for epoch in reading.epochs(store, "test")} == {"draw", "chain"}
        for _ in range(2):
            lay(pins, large, store)
        names = [epoch.name for epoch in reading.epochs(store, "test")]
        assert sorted(names) == ["chain", "draw", "synthetic/state-embedding"]
        assert reading.experiment(store, "test").uid == pins.uid


def test_pins_of_fewer_models_than_have_begun_change_nothing(tmp_path: Path) -> None:
    small, large = checked(), checked(embeddings=["synthetic/state-embedding"])
    pins = calibrate(large)
    fewer = {name: one for name, one in pins.models.items() if name in ("draw", "chain")}
    with Store(tmp_path / "store", write=True, create=True) as store:
        lay(pins, large, store)
        before = reading.epochs(store, "test")
        lay(pins.model_copy(update={"models": fewer}), small, store)
        assert reading.epochs(store, "test") == before


def test_what_was_measured_elsewhere_is_taken_only_where_surroundings_are_the_same(tmp_path: Path) -> None:
    pins = calibrate(checked())
    draw = pins.models["draw"]
    seen = Seen(
        fingerprint=draw.fingerprint,
        batch_size=4,
        threads=draw.threads or 1,
        verdict="independent",
        duration_s=1.5,
    )
    for name, surroundings, count in (("here", pins.surroundings, 1), ("elsewhere", "{}", 0)):
        with Store(tmp_path / name, write=True, create=True) as store:
            lay(pins.model_copy(update={"seen": [seen], "surroundings": surroundings}), checked(), store)
            found = invariance.verdicts(store, surroundings)
            assert [(one.fingerprint, one.batch_size, one.duration_s) for one in found] == [
                (draw.fingerprint, 4, 1.5)
            ] * count


def test_a_store_that_began_with_other_shapes_is_refused(tmp_path: Path) -> None:
    part = checked()
    run(make_config(batch_sizes={"draw": 2, "chain": 2}), tmp_path / "store")
    refused = pytest.raises(ConflictError, match="draw has begun with batches of 2, and is pinned to")
    with Store(tmp_path / "store", write=True) as store, refused:
        lay(calibrate(part), part, store)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("threads = 7", "draw has begun with 7 threads, and is pinned to"),
        ("mates = 'length'", "draw has begun with mates by length, and is pinned to mates by bucket"),
        ("device_kind = 'cuda'", "draw has begun with device kind cuda, and is pinned to device kind cpu"),
    ],
)
def test_what_a_merge_compares_of_pins_is_compared_before_anything_is_computed(
    tmp_path: Path, change: str, said: str
) -> None:
    """Also where later epochs have the same shapes as the pins."""
    part = checked()
    pins = calibrate(part)
    with Store(tmp_path / "store", write=True, create=True) as store:
        lay(pins, part, store)
        lay(pins, part, store)
        with store.transaction() as connection:
            connection.execute(
                "INSERT INTO epoch (experiment, name, number, model, batch_size, device_kind, threads,"
                " opened_at, reason, mates) SELECT experiment, name, 1, model, batch_size, device_kind,"
                " threads, opened_at, 'memory', mates FROM epoch"
            )
            connection.execute(f"UPDATE epoch SET {change} WHERE number = 0")
        with pytest.raises(ConflictError, match=said):
            lay(pins, part, store)


def test_a_shard_without_pins_needs_all_batch_sizes() -> None:
    with pytest.raises(UsageError, match="batch sizes of draw, chain") as refused:
        require_shapes(make_plan(checked()), "demo.yaml")
    assert "panic pin demo.yaml -o pins.json" in refused.value.hint
    require_shapes(make_plan(checked(batch_sizes={"draw": 4, "chain": 4})), "demo.yaml")


def test_a_shard_that_runs_out_of_memory_ends_with_the_answer(tmp_path: Path) -> None:
    with opened(tmp_path / "s", prompts=["a", "b"], seeds=[42], repeats=1) as session:
        session.plan = replace(session.plan, keeps_shapes=True)
        with pytest.raises(ModelDoesNotFit, match=r"^draw: 3 GiB more") as ended:
            perform(session, first(1, failing("memory", "3 GiB more")))
    assert "panic pin CONFIG --set batch_sizes.MODEL=N" in ended.value.hint
    with Store(tmp_path / "s") as store:
        assert [epoch.number for epoch in reading.epochs(store, "test")] == [0, 0]


def test_pins_are_written_as_a_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pins, file = calibrate(checked()), tmp_path / "pins.json"
    write(pins, file)

    def fail(*of: Any) -> None:
        raise OSError("no more room")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="no more room"):
        write(pins.model_copy(update={"experiment": "other"}), file)
    assert [path.name for path in tmp_path.iterdir()] == ["pins.json"]
    monkeypatch.undo()
    assert read(file).experiment == "test"
    write(pins.model_copy(update={"experiment": "other"}), file)
    assert read(file).experiment == "other", "others are replaced"


def test_pins_replace_nothing_but_pins(tmp_path: Path) -> None:
    pins = calibrate(checked())
    (tmp_path / "config.yaml").write_text("name: x\n")
    os.mkfifo(tmp_path / "pipe")
    for place, told in (
        (tmp_path, "is a folder."),
        (tmp_path / "none" / "pins.json", f"cannot be written: there is no folder {tmp_path / 'none'}."),
        (tmp_path / "config.yaml", "is there already, and is no file of pins."),
        (tmp_path / "pipe", "is there already, and is no file of pins."),
    ):
        with pytest.raises(UsageError) as refused:
            write(pins, place)
        assert (refused.value.message, refused.value.hint) == (f"{place} {told}", "-o pins.json")
    assert (tmp_path / "config.yaml").read_text() == "name: x\n"
    with pytest.raises(UsageError, match="it is no file at all"):
        read(tmp_path / "pipe")


def test_all_that_does_not_fit_pins_is_told_at_once(tmp_path: Path) -> None:
    pins = calibrate(checked())
    part = checked(name="other", device="sim:8GiB", chain={"kernel": "column"})
    with Store(tmp_path / "store", write=True, create=True) as store, pytest.raises(ConflictError) as refused:
        lay(pins, part, store)
    lines = refused.value.message.split("\n")
    assert (len(lines), lines[0]) == (3, "the pins are of test, and the experiment is other")
    assert lines[1].startswith("the pins are for a device of kind 'cpu'; here it is 'sim")
    assert lines[2].startswith("chain is not the model that was pinned")
    assert "panic pin CONFIG -o FILE" in refused.value.hint
