"""Shapes that fit the work, and pinning them anew."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import apsw
import pytest

from panic import run
from panic.config import ExperimentConfig
from panic.devices.device import CpuDevice
from panic.engine.pinning import (
    Change,
    begin,
    known_fingerprints,
    most_ready,
    repin,
    shapes,
    surroundings,
)
from panic.engine.plan import CheckedConfig, Plan, make_plan
from panic.engine.preview import preview
from panic.engine.verify import verify
from panic.errors import ConflictError, ModelError, StoreCorrupt
from panic.models import registry
from panic.store import Store, check, invariance, reading, writing
from panic.store.records import NewEpoch

from .conftest import dump, make_config

EMBEDDED = {"embeddings": ["synthetic/state-embedding"], "batch_sizes": {}}


def pin_anew(config: ExperimentConfig, path: Path) -> list[Change]:
    plan = make_plan(config)
    with Store(path, write=True) as store:
        experiment = reading.experiment(store, config.name).id
        return repin(store, experiment, plan, registry.fingerprints(plan.specs), CpuDevice())


def sizes(path: Path, name: str) -> list[tuple[int, str]]:
    with Store(path) as store:
        return [(row.batch_size, row.reason) for row in reading.epochs(store, "test") if row.name == name]


@pytest.mark.parametrize(
    ("changes", "ready"),
    [
        # 2 prompts x (1 fixed seed + 2 repeats), 20 steps and a prompt each; repeats share the prompt
        ({}, {"draw": 6, "chain": 6, "synthetic/state-embedding": 6 * 20 + 2}),
        (
            {"seeds": [42], "repeats": 1, "max_length": 3},
            {"draw": 2, "chain": 2, "synthetic/state-embedding": 8},
        ),
        (
            {
                "networks": [["draw", "chain"], ["draw", "other"]],
                "seeds": [42],
                "repeats": 1,
                "max_length": 1,
            },
            {"draw": 4, "chain": 2, "other": 2, "synthetic/state-embedding": 6},
        ),
    ],
)
def test_how_many_items_can_be_ready(changes: dict[str, Any], ready: dict[str, int]) -> None:
    config = make_config(**EMBEDDED)
    models = {**config.model_dump(mode="json")["models"], "other": {"base": "synthetic/image-to-text"}}
    values = config.model_dump(mode="json") | {"models": models} | changes
    plan = make_plan(ExperimentConfig.model_validate(values))
    assert most_ready(plan, plan.runs) == ready


def test_a_batch_size_that_nobody_says_fits_the_work() -> None:
    def batch_sizes(**changes: Any) -> list[int]:
        return [shape.batch_size for shape in shapes(make_plan(make_config(**changes)), [], "cpu").values()]

    assert batch_sizes(**EMBEDDED) == [6, 6, 32]
    assert batch_sizes(**EMBEDDED, repeats=100) == [32, 32, 32]
    assert batch_sizes(**EMBEDDED | {"batch_sizes": {"chain": 16}}) == [6, 16, 32]


def test_a_model_that_is_new_fits_all_runs_that_the_store_was_asked_for(tmp_path: Path) -> None:
    run(make_config(seeds=[-1], repeats=9, max_length=4), tmp_path / "s")
    small = make_config(seeds=[-1], repeats=1, max_length=1, **EMBEDDED | {"batch_sizes": {"draw": 4}},
                        prompts=["state 0"])  # fmt: skip
    run(small, tmp_path / "s")
    assert sizes(tmp_path / "s", "synthetic/state-embedding") == [(32, "start")]


def test_runs_that_have_ended_stay_and_none_is_stuck_by_a_state_of_another_epoch(tmp_path: Path) -> None:
    """A cycle of 7 states is a period of 14 steps: without a new epoch it is seen at step 14."""
    path = tmp_path / "s"
    config = make_config(prompts=["state 0"], seeds=[42], repeats=1, max_length=10)
    run(config.model_copy(update={"prompts": ["state 0", "state 1"]}), path)
    run(make_config(prompts=["state 3"], seeds=[42], repeats=1), path)
    ended = [line for line in dump(path) if '"stuck"' in line]
    assert len(ended) == 1
    grown = make_config(prompts=["state 0"], seeds=[42], repeats=1, max_length=40, batch_sizes={})
    assert [(c.name, c.before.batch_size, c.after.batch_size) for c in pin_anew(grown, path)] == [
        ("chain", 4, 1), ("draw", 4, 1)
    ]  # fmt: skip
    assert pin_anew(grown, path) == []
    run(grown, path)
    with Store(path) as store:
        [row] = [row for row in reading.runs(store) if row.prompt == "state 0"]
        assert check.check(store) == []
    assert (row.state, row.entry_step, row.period) == ("stuck", 10, 14)
    assert sizes(path, "draw") == [(4, "start"), (1, "request")]
    assert set(ended) < set(dump(path))


def test_what_memory_left_is_not_asked_for_again_unless_the_config_says_so(tmp_path: Path) -> None:
    path = tmp_path / "s"
    config = make_config(batch_sizes={}, seeds=[-1], repeats=40, max_length=1)
    run(config, path)
    with Store(path, write=True) as store:
        [row] = [row for row in reading.epochs(store, "test") if row.name == "draw"]
        writing.add_epoch(store, row.experiment, "draw", model=row.model, batch_size=8, device_kind="cpu",
                          threads=row.threads)  # fmt: skip
    longer = config.model_copy(update={"max_length": 2})
    assert pin_anew(longer, path) == []
    assert [change.after.batch_size for change in pin_anew(
        longer.model_copy(update={"batch_sizes": {"draw": 16}}), path
    )] == [16]  # fmt: skip
    assert sizes(path, "draw") == [(32, "start"), (8, "memory"), (16, "request")]


def test_what_else_contradicts_is_refused_before_anything_is_pinned(tmp_path: Path) -> None:
    path = tmp_path / "s"
    run(make_config(max_length=2), path)
    with pytest.raises(ConflictError, match="root_seed is 1; test started with 0"):
        pin_anew(make_config(max_length=4, batch_sizes={"draw": 2}, root_seed=1), path)
    assert sizes(path, "draw") == [(4, "start")]


def test_all_shapes_are_pinned_anew_or_none(tmp_path: Path) -> None:
    path = tmp_path / "s"
    run(make_config(max_length=2), path)
    with Store(path, write=True) as store:
        [draw, chain] = sorted(reading.epochs(store, "test"), key=lambda row: row.name != "draw")
        good, bad = (
            NewEpoch(name=row.name, model=row.model, batch_size=size, device_kind="cpu", reason="request")
            for row, size in ((draw, 2), (chain, 0))
        )
        with pytest.raises(apsw.ConstraintError):
            writing.add_epochs(store, draw.experiment, [good, bad])
    assert sizes(path, "draw") == sizes(path, "chain") == [(4, "start")]


def test_a_kill_leaves_the_old_or_the_new_shapes(tmp_path: Path) -> None:
    """Of both models the same number of epochs, wherever the process was."""
    path = tmp_path / "s"
    run(make_config(max_length=2), path)
    code = (
        "import sys\nfrom panic.store import Store, reading, writing\n"
        "from panic.store.records import NewEpoch\n"
        "with Store(sys.argv[1], write=True) as store:\n"
        "    rows = reading.epochs(store, 'test')\n"
        "    print('ready', flush=True)\n"
        "    while True:\n"
        "        writing.add_epochs(store, 1, [NewEpoch(name=row.name, model=row.model, batch_size=3,\n"
        "            device_kind='cpu', reason='request') for row in rows])\n"
    )
    for delay_s in (0.0, 0.003, 0.01, 0.02):
        process = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(delay_s)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
        assert len(sizes(path, "draw")) == len(sizes(path, "chain"))


def test_an_experiment_with_a_kernel_of_an_earlier_version_goes_on_with_it(tmp_path: Path) -> None:
    """Slow kernels with noise have become others; the stored fingerprint says which one it started with."""
    noisy = {"kernel": "slow", "epsilon": 0.5}
    whole, split = tmp_path / "whole", tmp_path / "split"
    run(make_config(chain=noisy | {"kernel_version": 1}), whole)
    run(make_config(chain=noisy | {"kernel_version": 1}, max_length=10), split)
    with Store(split, write=True) as store, store.transaction() as connection:
        # As it was when there was no such parameter.
        connection.execute(
            "UPDATE experiment SET config = json_remove(config, '$.models.chain.kernel_version')"
        )
    old = make_config(chain=noisy, max_length=10)
    assert preview(old, split).runs_total == 6
    with Store(split) as store:
        again = verify(CheckedConfig.of(old, ask=False), store, 1, sample=10).findings
    assert {finding.verdict for finding in again} == {"same"}
    run(make_config(chain=noisy), split)
    steps = [[line for line in dump(path) if '"invocation"' in line] for path in (whole, split)]
    assert steps[0] == steps[1]
    run(make_config(chain=noisy), tmp_path / "new")
    with Store(whole) as one, Store(tmp_path / "new") as other:
        first, second = ({row.name: row.fingerprint for row in reading.models(s)} for s in (one, other))
    assert first["chain"] != second["chain"]


def test_a_kernel_of_another_version_is_refused_where_the_config_says_so(tmp_path: Path) -> None:
    noisy = {"kernel": "slow", "epsilon": 0.5}
    run(make_config(chain=noisy | {"kernel_version": 1}, max_length=4), tmp_path / "s")
    with pytest.raises(ConflictError, match="chain"):
        run(make_config(chain=noisy | {"kernel_version": 2}, max_length=4), tmp_path / "s")


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        ("UPDATE epoch SET batch_size = 1 << 40", r"1,099,511,627,776 items in a batch, and 65,536"),
        ("UPDATE epoch SET threads = 1 << 40", r"1,099,511,627,776 threads of a model"),
        ("UPDATE batch SET padded_size = 1 << 40", r"1,099,511,627,776 items in a batch of draw"),
    ],
)
def test_no_stored_number_fills_the_memory(tmp_path: Path, damage: str, told: str) -> None:
    """Batches are padded to their size, and a store of somebody else's may say any."""
    config = make_config(max_length=2, batch_sizes={})
    run(config, tmp_path / "s")
    with Store(tmp_path / "s", write=True) as store:
        store.db.execute(damage)
        if "padded" in damage:
            store.images.execute("DELETE FROM image")
    with pytest.raises(StoreCorrupt, match=told):
        run(config, tmp_path / "s")


def test_a_model_that_is_gone_is_needed_only_where_it_is_called(tmp_path: Path) -> None:
    def gone(**changes: Any) -> Plan:
        plan = make_plan(make_config(seeds=[-1], repeats=1, **changes))
        draw = replace(plan.generative["draw"], adapter="gone")
        return replace(plan, generative=plan.generative | {"draw": draw})

    missing = pytest.raises(ModelError, match="there is no kind of model gone here")
    with Store(tmp_path / "new", write=True, create=True) as store, missing:
        known_fingerprints(store, gone(max_length=4))
    run(make_config(seeds=[-1], repeats=1, max_length=4), tmp_path / "s")
    with Store(tmp_path / "s") as store:
        pinned = {row.name: row.fingerprint for row in reading.epochs(store, "test")}
        assert known_fingerprints(store, gone(max_length=4)) == pinned
        with pytest.raises(ModelError, match="there is no kind of model gone here"):
            known_fingerprints(store, gone(max_length=5))
        plan = make_plan(make_config(max_length=4, embeddings=["synthetic/state-embedding"]))
        new = {name: replace(spec, adapter="gone") for name, spec in plan.embedding.items()}
        with pytest.raises(ModelError, match="there is no kind of model gone here"):
            known_fingerprints(store, replace(plan, embedding=new))


def test_what_was_seen_of_batch_mates_counts_for_the_models_of_a_plan(tmp_path: Path) -> None:
    values = make_config(max_length=2).model_dump(mode="json")
    values["models"]["other"] = {"base": "synthetic/image-to-text", "states": 5}
    values["networks"] = [["draw", "chain"], ["draw", "other"]]
    run(
        ExperimentConfig.model_validate(values | {"batch_sizes": {"draw": 4, "chain": 4, "other": 4}}),
        tmp_path / "s",
    )
    for name, found in (("other", []), ("draw", [("draw", 4, 1)])):
        with Store(tmp_path / "s", write=True) as store:
            [row] = [row for row in reading.epochs(store, "test") if row.name == name]
            seen = invariance.Measured(
                fingerprint=row.fingerprint, batch_size=4, threads=1, verdict="alone", duration_s=0.0
            )
            invariance.record(store, surroundings(CpuDevice()), [seen])
        anew = pin_anew(make_config(max_length=4), tmp_path / "s")
        assert [(change.name, change.before.batch_size, change.after.batch_size) for change in anew] == found


def test_outputs_that_only_an_import_brings_begin_no_experiment(tmp_path: Path) -> None:
    said = {
        "networks": [["m"], ["upper-case"]],
        "models": {"m": {"base": "imported/text", "called": "m"}},
        "max_length": 2,
    }
    config = ExperimentConfig.model_validate({"name": "x", "prompts": ["a", "b"], "seeds": [-1], **said})
    plan = make_plan(config)
    told = "The outputs of x are imported and cannot be computed, and 4 of the runs"
    with Store(tmp_path / "s", write=True, create=True) as store:
        with pytest.raises(ConflictError, match=told):
            begin(store, plan, {}, "cpu")
        assert reading.experiments(store) == []
        assert begin(store, plan, {}, "given") == 1


@pytest.mark.parametrize("order", [("alone", "length"), ("length", "alone")])
def test_the_worst_that_was_seen_of_a_model_counts(tmp_path: Path, order: tuple[Any, Any]) -> None:
    run(make_config(max_length=2), tmp_path / "s")
    with Store(tmp_path / "s", write=True) as store:
        [row] = [row for row in reading.epochs(store, "test") if row.name == "draw"]
        for size, verdict in enumerate(order, 3):
            seen = invariance.Measured(
                fingerprint=row.fingerprint, batch_size=size, threads=1, verdict=verdict, duration_s=0.0
            )
            invariance.record(store, surroundings(CpuDevice()), [seen])
    [change] = pin_anew(make_config(max_length=4), tmp_path / "s")
    assert (change.name, change.after.batch_size, change.after.mates) == ("draw", 1, "bucket")
