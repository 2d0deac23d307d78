"""What `run` takes and gives back, which stages there are and what is left, with next to nothing computed."""

from __future__ import annotations

import shlex
import sys
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from panic import run
from panic.config import to_yaml
from panic.engine.perform import _missing, phases
from panic.engine.plan import CheckedConfig
from panic.engine.stages.loops import LoopStage
from panic.engine.workers import Workers
from panic.errors import UsageError
from panic.store import Store, reading, writing
from panic.store.records import Commit, NewFailure, NewRun
from tests.engine.by_hand import FRESH, opened, perform, states
from tests.engine.conftest import make_config

SMALL: dict[str, Any] = {"prompts": ["state 0"], "max_length": 1, **FRESH}


def test_an_outcome_says_what_has_become_of_which_experiment(tmp_path: Path) -> None:
    outcome = run(make_config(**SMALL), tmp_path / "s")
    with Store(tmp_path / "s") as store:
        (row,) = reading.experiments(store)
        assert (outcome.experiment, outcome.name, outcome.state) == (row.uid, "test", "complete")
        assert outcome.counts == reading.counts(store)
        assert outcome.store == tmp_path / "s"


def test_a_store_is_the_one_given_or_the_configs_or_that_in_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with_store = make_config(**SMALL, store=str(tmp_path / "config"))
    assert run(with_store, tmp_path / "given").store == tmp_path / "given"
    assert run(with_store).store == tmp_path / "config"
    assert run(CheckedConfig.of(make_config(**SMALL), ask=False)).store == Path("panic-store")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config", "given", "panic-store"]
    with Store(tmp_path / "open", write=True, create=True) as store:
        assert run(make_config(**SMALL), store).store == tmp_path / "open"
        assert reading.counts(store).done == 1, "it stays open"


def test_a_session_knows_its_command(tmp_path: Path) -> None:
    run(make_config(**SMALL), tmp_path / "s")
    run(make_config(**SMALL), tmp_path / "s", command="panic run x.yaml")
    with Store(tmp_path / "s") as store:
        commands = [row.command for row in reading.sessions(store)]
    assert commands[1] == "panic run x.yaml"
    assert commands[0][:60] == shlex.join(sys.argv)[:60]


def test_overrides_are_of_a_file_alone(tmp_path: Path) -> None:
    config = make_config(**SMALL)
    with pytest.raises(UsageError, match="overrides change a config file"):
        run(config, tmp_path / "s", overrides=["max_length=2"])
    assert not (tmp_path / "s").exists()
    (tmp_path / "small.yaml").write_text(to_yaml(config))
    outcome = run(tmp_path / "small.yaml", tmp_path / "s", overrides=["max_length=2"])
    assert outcome.counts.invocations == 2
    assert run(str(tmp_path / "small.yaml"), tmp_path / "t").counts.invocations == 1


def test_failed_runs_are_tried_again_on_request_alone(tmp_path: Path) -> None:
    with opened(tmp_path / "s", **SMALL) as session:
        failure = NewFailure(run=session.run_ids[0], step=0, kind="error", message="no")
        session.writer.add(Commit(failures=[failure]))
    assert run(make_config(**SMALL), tmp_path / "s").state == "failed"
    assert run(make_config(**SMALL), tmp_path / "s", retry_failed=True).state == "complete"


def test_runs_that_are_too_short_for_a_window_are_told(tmp_path: Path, caplog: Any) -> None:
    window = {"window": {"dimension": 9}}
    run(make_config(**SMALL, embeddings=["synthetic/state-embedding"], diagrams=window), tmp_path / "s")
    assert "a window of the diagrams spans 9" in caplog.text


def test_settings_that_contradict_each_other_are_refused_before_there_is_a_store(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="timeout_s needs a process"):
        run(make_config(**SMALL, executor="local", timeout_s=5), tmp_path / "s")
    assert not (tmp_path / "s").exists()


def test_exactly_these_runs(tmp_path: Path) -> None:
    chosen = [NewRun(network=("draw", "chain"), prompt="state 1", seed=-1, max_length=1)]
    run(make_config(prompts=states(3), max_length=1, **FRESH), tmp_path / "s", runs=chosen)
    with Store(tmp_path / "s") as store:
        assert [row.prompt for row in reading.runs(store)] == ["state 1"]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, [["images"], ["invocations"], []]),
        ({"embeddings": ["synthetic/state-embedding"]}, [["images"], ["invocations", "embeddings"], []]),
        (
            {"embeddings": ["synthetic/state-embedding"], "diagrams": {"max_dimension": 0}},
            [
                ["images"],
                ["invocations", "embeddings", "diagrams"],
                ["vectorisations", "distances"],
            ],
        ),
    ],
)
def test_stages_come_by_what_they_need(
    tmp_path: Path, changes: dict[str, Any], expected: list[list[str]]
) -> None:
    with opened(tmp_path / "s", **SMALL, **changes) as session, ExitStack() as stack:
        workers = cast("Workers", SimpleNamespace(post=print))
        found = phases(session, workers, LoopStage(session), stack)
    assert [[stage.name for stage in phase] for phase in found] == expected


def test_what_is_left_are_the_runs_of_the_plan_that_have_not_ended(tmp_path: Path) -> None:
    fresh: dict[str, Any] = {"prompts": states(1), **FRESH}
    with opened(tmp_path / "s", max_length=2, **fresh) as session:
        assert _missing(session) == (1, 2)
        perform(session)
        assert _missing(session) == (0, 0)
    with opened(tmp_path / "s", max_length=4, **fresh) as session:
        assert _missing(session) == (1, 2)
    with opened(tmp_path / "s", max_length=4, prompts=states(3), **FRESH) as session:
        assert _missing(session) == (3, 2 + 4 + 4)
        failure = NewFailure(run=session.run_ids[2], step=0, kind="error", message="no")
        session.writer.add(Commit(failures=[failure]))
        session.writer.flush()
        assert _missing(session) == (2, 2 + 4)
        other = NewRun(network=("draw", "chain"), prompt="another", seed=-1, max_length=9)
        writing.add_runs(session.store, session.experiment, [other])
        assert _missing(session) == (2, 2 + 4)
