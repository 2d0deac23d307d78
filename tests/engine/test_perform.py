"""The main job with synthetic models: complete, known, resumable, coalescing; one failure is one failure."""

from __future__ import annotations

import json
import logging
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from panic import is_stuck, run
from panic.config import ExperimentConfig
from panic.config.schema import RaySettings
from panic.devices.device import open_devices
from panic.engine import perform as performing
from panic.engine.perform import phases
from panic.engine.plan import expanded_runs, make_plan
from panic.engine.session import open_session
from panic.engine.stages.loops import LoopStage
from panic.engine.workers import Workers
from panic.errors import (
    ConfigError,
    ConflictError,
    Interrupted,
    ModelDoesNotFit,
    ModelError,
    ModelMissing,
    UsageError,
)
from panic.models import registry
from panic.models.synthetic import transition_matrix
from panic.store import DEFAULT_STORE, Store, check, contents, reading
from panic.store.stuck import first_repeat
from tests.engine.by_hand import opened
from tests.engine.by_hand import perform as perform_by_hand
from tests.engine.conftest import dump, interrupt_when, make_config


def test_every_run_ends_and_the_store_is_sound(tmp_path: Path) -> None:
    outcome = run(make_config(), tmp_path / "s")
    assert outcome.state == "complete"
    with Store(tmp_path / "s") as store:
        assert check.check(store) == []
        runs = reading.runs(store)
        assert [(row.seed, row.repeat) for row in runs[:3]] == [(42, 0), (-1, 0), (-1, 1)]
        assert all(row.num_steps == 20 for row in runs if row.seed == -1)


def test_a_cycle_is_found_with_its_exact_period(tmp_path: Path) -> None:
    """Seven states, two models: period 14, entered at once from a prompt that names a state."""
    run(make_config(max_length=100), tmp_path / "s")
    with Store(tmp_path / "s") as store:
        named = next(row for row in reading.runs(store) if row.seed == 42 and row.prompt == "state 0")
        assert (named.state, named.entry_step, named.period, named.num_steps) == ("stuck", 0, 14, 14)
        other = next(row for row in reading.runs(store) if row.seed == 42 and row.prompt == "hello")
        assert (other.state, other.entry_step, other.period, other.num_steps) == ("stuck", 1, 14, 15)
        for row in (named, other):
            steps = contents.invocations(store, row.id)
            found = first_repeat([steps[0].input, *(step.output for step in steps)], 2)
            assert found == is_stuck(store, row.id)
            assert found is not None
            assert (found.entry_step, found.period) == (row.entry_step, row.period)


@pytest.mark.parametrize(
    ("kernel", "entry_step", "period"), [("identity", 0, 2), ("column", 2, 2), ("cycle", 0, 14)]
)
def test_exact_kernels_get_stuck_as_they_must(
    tmp_path: Path, kernel: str, entry_step: int, period: int
) -> None:
    run(make_config(chain={"kernel": kernel}, prompts=["state 3"], seeds=[1], repeats=1), tmp_path / "s")
    with Store(tmp_path / "s") as store:
        (row,) = reading.runs(store)
        assert (row.entry_step, row.period) == (entry_step, period)


def test_fresh_noise_follows_the_transition_matrix(tmp_path: Path) -> None:
    """4,000 transitions against the known matrix: every frequency within five standard errors."""
    config = make_config(
        chain={"kernel": "dirichlet", "epsilon": 0.3, "states": 3, "kernel_seed": 5},
        draw={"states": 3, "size": 8},
        prompts=["state 0"],
        seeds=[-1],
        repeats=40,
        max_length=200,
        batch_sizes={"draw": 40, "chain": 40},
    )
    run(config, tmp_path / "s")
    counts = np.zeros((3, 3))
    with Store(tmp_path / "s") as store:
        for row in reading.runs(store):
            texts = [row.prompt, *(step.text for step in contents.invocations(store, row.id) if step.text)]
            states = [int(text.split()[1]) for text in texts]
            np.add.at(counts, (states[:-1], states[1:]), 1)
    matrix = transition_matrix(3, "dirichlet", 0.3, 1.0, 5)
    totals = counts.sum(axis=1, keepdims=True)
    error = np.sqrt(matrix * (1 - matrix) / totals)
    assert counts.sum() == 4000
    assert (np.abs(counts / totals - matrix) < 5 * error + 1e-9).all()


def test_runs_that_meet_share_their_future(tmp_path: Path) -> None:
    """Nine prompts, three states: with a fixed seed no more than 3 + 9 drawings and 3 readings are made."""
    config = make_config(
        draw={"states": 3},
        chain={"states": 3},
        prompts=[f"prompt {number}" for number in range(9)],
        seeds=[42],
        repeats=1,
        max_length=50,
    )
    run(config, tmp_path / "s")
    with Store(tmp_path / "s") as store:
        items = {times.model: times.items for times in reading.model_times(store)}
        assert items["draw"] == 9 + 3
        assert items["chain"] == 3
        assert all(row.state == "stuck" for row in reading.runs(store))


def test_performing_again_does_nothing(tmp_path: Path) -> None:
    run(make_config(), tmp_path / "s")
    before = dump(tmp_path / "s")
    with Store(tmp_path / "s") as store:
        batches = sum(times.batches for times in reading.model_times(store))
    run(make_config(), tmp_path / "s")
    assert dump(tmp_path / "s") == before
    with Store(tmp_path / "s") as store:
        assert sum(times.batches for times in reading.model_times(store)) == batches


def test_extending_equals_having_asked_for_more_at_once(tmp_path: Path) -> None:
    for length in (5, 13, 30):
        run(make_config(max_length=length), tmp_path / "grown")
    run(make_config(max_length=30), tmp_path / "whole")
    assert dump(tmp_path / "grown") == dump(tmp_path / "whole")


def test_more_prompts_and_repeats_extend_the_experiment(tmp_path: Path) -> None:
    run(make_config(prompts=["hello"], repeats=1), tmp_path / "grown")
    run(make_config(), tmp_path / "grown")
    run(make_config(), tmp_path / "whole")
    assert dump(tmp_path / "grown") == dump(tmp_path / "whole")


def test_a_stop_between_batches_loses_nothing(tmp_path: Path) -> None:
    """SIGINT in the middle, then again: the same store as without it."""
    config = make_config(draw={"delay_s": 0.05}, max_length=40)
    with pytest.raises(Interrupted):
        run(
            config,
            tmp_path / "stopped",
            on_progress=interrupt_when(lambda progress: progress.invocations >= 8),
        )
    with Store(tmp_path / "stopped") as store:
        assert check.check(store) == []
        assert any(row.state in ("todo", "running") for row in reading.runs(store))
        assert reading.sessions(store)[-1].end_state == "interrupted"
    run(config, tmp_path / "stopped")
    run(config, tmp_path / "whole")
    assert dump(tmp_path / "stopped") == dump(tmp_path / "whole")


def test_embeddings_and_diagrams_have_known_values(tmp_path: Path) -> None:
    """Twenty states on the unit circle: one H1 bar from 2 sin(pi/20) to 2 sin(7 pi/20)."""
    config = make_config(
        draw={"states": 20},
        chain={"states": 20},
        prompts=["state 0"],
        seeds=[1],
        repeats=1,
        max_length=100,
        models={
            "draw": {"base": "synthetic/text-to-image", "states": 20},
            "chain": {"base": "synthetic/image-to-text", "states": 20},
            "circle": {"base": "synthetic/state-embedding", "states": 20},
        },
        embeddings=["circle"],
        diagrams={"max_dimension": 1},
    )
    run(config, tmp_path / "s")
    with Store(tmp_path / "s") as store:
        assert check.check(store) == []
        (row,) = reading.runs(store)
        bars = contents.bars(store, row.id, "circle", 1)
        assert len(contents.vectors(store, "circle").digests) == 40
        np.testing.assert_allclose(bars, [[2 * np.sin(np.pi / 20), 2 * np.sin(7 * np.pi / 20)]], rtol=1e-6)
        assert reading.counts(store).diagrams == 1


def test_one_failure_is_one_failure(tmp_path: Path) -> None:
    """State 3 always fails: runs that reach it end there with the reason, the others go on."""
    config = make_config(
        chain={"kernel": "identity", "fail_at": 3},
        prompts=[f"state {number}" for number in range(7)],
        seeds=[-1],
        repeats=1,
        max_length=6,
    )
    outcome = run(config, tmp_path / "s")
    assert outcome.state == "failed"
    with Store(tmp_path / "s") as store:
        assert check.check(store) == []
        states = {row.prompt: row.state for row in reading.runs(store)}
        assert [prompt for prompt, state in states.items() if state == "failed"] == ["state 3"]
        assert sum(state == "done" for state in states.values()) == 6
        (failed,) = (row for row in reading.runs(store) if row.state == "failed")
        assert failed.failure is not None
        assert failed.failure.step == 1
        assert "synthetic failure at state 3" in failed.failure.message
        assert failed.failure.attempts == 3
        assert failed.num_steps == 1


def test_fail_fast_stops_at_the_first_failure(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="synthetic failure"):
        run(make_config(chain={"fail_at": 1}, fail_fast=True), tmp_path / "s")


def test_failed_runs_are_retried_on_request_only(tmp_path: Path) -> None:
    config = make_config(chain={"fail_at": 1}, max_retries=0)
    failed = run(config, tmp_path / "s").counts.failed
    assert failed == 6
    run(config, tmp_path / "s")
    with Store(tmp_path / "s") as store:
        first = [row.failure.failed_at for row in reading.runs(store) if row.failure]
    run(config, tmp_path / "s", retry_failed=True)
    with Store(tmp_path / "s") as store:
        again = [row.failure.failed_at for row in reading.runs(store) if row.failure]
    assert len(first) == len(again) == 6
    assert min(again) > max(first)


def test_a_model_that_always_fails_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "panic.engine")
    outcome = run(make_config(chain={"fail_at": 1}, max_retries=1, repeats=20), tmp_path / "s")
    assert outcome.counts.failed == 42
    told = [record.levelname for record in caplog.records if "synthetic failure at state 1" in record.message]
    assert told.count("WARNING") == 1
    assert told.count("INFO") > 40


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_sizes": {"draw": 8, "chain": 4}}, "batch_sizes.draw is 8; this experiment started with 4"),
        ({"device": "sim:1GiB"}, "started on a device of kind 'cpu'"),
        ({"threads": 7}, "threads is 7"),
    ],
)
def test_what_is_pinned_stays(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    run(make_config(max_length=2), tmp_path / "s")
    before = dump(tmp_path / "s")
    with pytest.raises(ConflictError, match=message):
        run(make_config(**change), tmp_path / "s")
    assert dump(tmp_path / "s") == before


def test_changed_code_under_the_same_name_is_refused(tmp_path: Path) -> None:
    write_heavy_models(tmp_path)
    config = make_config(
        networks=[["draw", "mine"]],
        models={
            "draw": {"base": "synthetic/text-to-image"},
            "mine": {"base": f"python:{tmp_path}/heavy.py:Describe"},
        },
        batch_sizes={},
    )
    run(config, tmp_path / "s")
    code = (tmp_path / "heavy.py").read_text()
    (tmp_path / "heavy.py").write_text(code.replace("text + self.suffix", "text + '!' + self.suffix"))
    with pytest.raises(ConflictError, match="mine is not the model this experiment started with"):
        run(config, tmp_path / "s")


def test_a_model_that_changes_before_the_workers_start_is_not_called(tmp_path: Path) -> None:
    """What it gave would be stored under the fingerprint that it had when the session began."""
    write_heavy_models(tmp_path)
    models = {
        "draw": {"base": "synthetic/text-to-image"},
        "mine": {"base": f"python:{tmp_path}/heavy.py:Describe"},
    }
    plan = make_plan(make_config(networks=[["draw", "mine"]], models=models, batch_sizes={}))
    before = registry.fingerprints(plan.specs)
    with Store(tmp_path / "s", write=True, create=True) as store:
        begun = open_session(
            plan, before, open_devices("cpu"), store, command="", on_progress=lambda progress: None
        )
        with begun as session:
            code = (tmp_path / "heavy.py").read_text()
            (tmp_path / "heavy.py").write_text(code.replace("text + self.suffix", "'changed'"))
            with pytest.raises(ModelError, match="mine: its files have changed since the session began"):
                performing._perform(session)
        assert {row.state for row in reading.runs(store, session.experiment)} <= {"todo", "running"}


def test_a_model_without_weights_leaves_no_trace(tmp_path: Path) -> None:
    config = make_config(
        networks=[["sd-turbo", "chain"]],
        batch_sizes={},
        models={"chain": {"base": "synthetic/image-to-text"}},
    )
    with pytest.raises(ModelMissing, match="sd-turbo"):
        run(config, tmp_path / "s")
    assert not (tmp_path / "s").exists()


def test_two_networks_share_one_queue_and_a_budget(tmp_path: Path) -> None:
    """A device that holds one of three models at a time gives the same results as the CPU."""
    changes: dict[str, Any] = {"networks": [["draw", "chain"], ["draw", "other"]]}
    models = {
        "draw": {"base": "python:heavy.py:Draw"},
        "chain": {"base": "python:heavy.py:Describe"},
        "other": {"base": "python:heavy.py:Describe", "suffix": " again"},
    }
    write_heavy_models(tmp_path)
    config = make_config(**changes, models=models, base_folder=str(tmp_path))
    small = config.model_copy(update={"device": "sim:250", "headroom": 0})
    large = config.model_copy(update={"device": "sim:10KiB", "headroom": 0})
    run(small, tmp_path / "small")
    run(large, tmp_path / "large")
    assert dump(tmp_path / "small") == dump(tmp_path / "large")
    with pytest.raises(ModelDoesNotFit, match="100 B more"):
        run(config.model_copy(update={"device": "sim:60", "headroom": 0}), tmp_path / "tiny")


def write_heavy_models(folder: Path) -> None:
    (folder / "heavy.py").write_text(
        """
from panic.models.synthetic import ImageToText, TextToImage

class Draw(TextToImage):
    size_bytes = 100
    PARAMETERS = {}
    def __init__(self):
        super().__init__(size=8)

class Describe(ImageToText):
    size_bytes = 100
    PARAMETERS = {}
    def __init__(self, suffix=""):
        super().__init__()
        self.suffix = suffix
    def working_bytes(self, batch_size):
        return 10 * batch_size
    def invoke(self, inputs, seeds):
        return [text + self.suffix for text in super().invoke(inputs, seeds)]
"""
    )


def test_a_config_of_python_whose_models_do_not_fit_is_refused(tmp_path: Path) -> None:
    """Its runs failed one by one, with an AttributeError."""
    with pytest.raises(ConfigError, match="chain"):
        run(make_config(networks=[["draw", "chain", "chain"]]), tmp_path / "s")
    with pytest.raises(ConfigError, match=r"at: 12 would fit"):
        run(make_config(arms={"swap": [{"at": 11, "text": "state 5"}]}), tmp_path / "s")
    assert not (tmp_path / "s").exists()


def test_what_is_performed_is_told_by_its_store_and_command(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["panic", "run", "a b.yaml"])
    config = make_config(prompts=["state 0"], seeds=[-1], repeats=1, max_length=2)
    with Store(tmp_path / "s", write=True, create=True) as store:
        outcome = run(config, store)
        assert store.db.value("SELECT count(*) FROM invocation") == 2, "it is left open"
        row = reading.experiment(store, "test")
    assert (outcome.experiment, outcome.name, outcome.store) == (row.uid, "test", tmp_path / "s")
    assert (outcome.state, outcome.counts.invocations, outcome.counts.done) == ("complete", 2, 1)
    run(config, tmp_path / "s", command="by hand")
    with Store(tmp_path / "s") as store:
        assert [one.command for one in reading.sessions(store)] == ["panic run 'a b.yaml'", "by hand"]
    assert caplog.messages == []
    run(config.model_copy(update={"ray": RaySettings(workers=2)}), tmp_path / "s")
    assert "ray: has no effect with executor: local" in caplog.messages
    with pytest.raises(UsageError, match="overrides change a config file; this config is loaded already"):
        run(config, tmp_path / "s", overrides=["max_length=3"])


def test_a_store_is_where_it_is_said_or_where_the_config_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    small = {"prompts": ["state 0"], "seeds": [-1], "repeats": 1, "max_length": 1}
    assert run(make_config(**small)).store == DEFAULT_STORE
    named = make_config(**small, store="named")
    assert run(named).store == Path("named")
    assert run(named, "given").store == Path("given")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["given", "named", DEFAULT_STORE.name]


def test_exactly_the_runs_that_are_given_are_performed(tmp_path: Path) -> None:
    config = make_config(max_length=3)
    some = expanded_runs(config)[1:3]
    outcome = run(config, tmp_path / "s", runs=some)
    assert (outcome.counts.runs, outcome.counts.invocations) == (2, 6)


@pytest.mark.parametrize(
    ("changes", "stages"),
    [
        ({}, [[], ["invocations"], []]),
        ({"embeddings": ["synthetic/state-embedding"]}, [[], ["invocations", "embeddings"], []]),
        (
            {"embeddings": ["synthetic/state-embedding"], "diagrams": [{}], "diagram_workers": 3},
            [[], ["invocations", "embeddings", "diagrams"], ["vectorisations", "distances"]],
        ),
    ],
)
def test_stages_run_when_what_they_need_is_there(
    tmp_path: Path, changes: dict[str, Any], stages: list[list[str]]
) -> None:
    small = {"prompts": ["state 0"], "seeds": [-1], "repeats": 1, "max_length": 2}
    workers = Workers(lambda deliver: [])
    secret = {"notify": {"to": ["ALARM"]}}
    with opened(tmp_path / "s", **small, **changes, **secret) as session, ExitStack() as stack:
        found = phases(session, workers, LoopStage(session), stack)
        assert [[stage.name for stage in part] for part in found] == stages
        if "diagrams" in changes:
            pool = found[1][2]._pool
            assert {stage._pool for stage in found[2]} == {pool}
            assert (pool._num_workers, pool._hidden, pool._closing) == (3, ("ALARM",), False)
            assert (pool._ledger, pool._deliver) == (session.ledger, workers.post)
    if "diagrams" in changes:
        assert pool._closing, "with the stack"
    with opened(tmp_path / "s", **small) as session:
        perform_by_hand(session)
        before, *_ = phases(session, workers, LoopStage(session), ExitStack())
        assert [stage.name for stage in before] == ["images"]


def test_what_runs_lack_is_counted_of_those_that_are_asked_for(tmp_path: Path) -> None:
    small: dict[str, Any] = {"seeds": [-1], "repeats": 1}
    with opened(tmp_path / "s", prompts=["a", "b", "c"], max_length=3, **small) as session:
        assert performing._missing(session) == (3, 9)
    with opened(tmp_path / "s", prompts=["a"], max_length=2, **small) as session:
        perform_by_hand(session)
        assert performing._missing(session) == (1, 1), "it was to be longer"
    with opened(tmp_path / "s", prompts=["a", "b"], max_length=4, **small) as session:
        assert performing._missing(session) == (2, 2 + 4)
        perform_by_hand(session)
        assert performing._missing(session) == (0, 0)


def test_where_no_run_goes_on_only_vectors_are_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[tuple[list[str], bool]] = []

    def start(specs: Any, deliver: Any, *, reject_constant_images: bool) -> dict[str, Any]:
        started.append((list(specs), reject_constant_images))
        return {name: SimpleNamespace(close=lambda: []) for name in specs}

    monkeypatch.setattr("panic.engine.endpoints.start_endpoints", start)
    at = {"base": "openai:tiny", "base_url": "http://localhost:1/v1"}
    models = {
        "chat": {**at, "task": "text-to-text", "concurrency": 5},
        "vector": {**at, "task": "embedding", "concurrency": 7},
    }
    config = make_config(
        networks=[["chat"]], models=models, embeddings=["vector"], batch_sizes={}, executor="local",
        reject_constant_images=True,
    )  # fmt: skip
    session: Any = SimpleNamespace(plan=make_plan(config))
    for has_runs, names, depths in ((True, ["chat", "vector"], [5, 7]), (False, ["vector"], [7])):
        workers = Workers(lambda deliver: [])
        performing._start_endpoints(session, workers, has_runs=has_runs)
        assert started[-1] == (names, True)
        assert [(seat.remote, seat.depth) for seat in workers.seats] == list(zip(names, depths, strict=True))


def test_a_config_file_starts_from_experiments_of_the_store_that_it_is_performed_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one that is given, else the one that the config names, else the usual one."""
    monkeypatch.chdir(tmp_path)
    words: dict[str, Any] = {"networks": [["upper-case"]], "seeds": [-1], "max_length": 1, "device": "cpu"}
    for place in ("given", "named", str(DEFAULT_STORE)):
        prompts = [Path(place).name]
        run(ExperimentConfig.model_validate({"name": "words", "prompts": prompts, **words}), place)
    asks = {"name": "next", "prompts": [{"experiment": "words"}], **words}
    Path("plain.json").write_text(json.dumps(asks))
    Path("naming.json").write_text(json.dumps({**asks, "store": "named"}))
    for file, store, want in (
        ("naming.json", "given", "GIVEN"), ("naming.json", None, "NAMED"), (Path("plain.json"), None, None)
    ):  # fmt: skip
        outcome = run(file, store)
        with Store(outcome.store) as there:
            prompts = {row.prompt for row in reading.runs(there, "next")}
        assert prompts == {want or DEFAULT_STORE.name.upper()}
    with Store("given", write=True) as there:
        outcome = run("plain.json", there, overrides=["name=more"])
        assert (outcome.name, {row.prompt for row in reading.runs(there, "more")}) == ("more", {"GIVEN"})
