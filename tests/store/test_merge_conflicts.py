"""Merging what does not agree: the same end in any order and after a kill, and nothing that is nobody's."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from panic import run
from panic.config import ExperimentConfig
from panic.errors import StoreCorrupt
from panic.store import Store, reading, summaries, writing
from panic.store.annotations import Marks, Target, annotate, list_annotations, marks, run_target
from panic.store.check import check
from panic.store.merging.conflicts import shrunk
from panic.store.merging.merge import merge
from panic.store.signing import Author
from panic.store.tombstones import deleted, hide, hide_runs, restore
from tests.engine.conftest import dump, make_config
from tests.store.sample import Sample, remark
from tests.store.test_merge import everything, interrupt, rows
from tests.store.test_merge_orders import OLD, read, write


@pytest.mark.parametrize("name", ["old", ""])
def test_two_experiments_of_a_source_never_become_one(tmp_path: Path, name: str) -> None:
    """The source has the target's experiment under another name, and another one under its name."""
    source, into = tmp_path / "source", tmp_path / "into"
    run(make_config(max_length=2), source)
    shutil.copytree(source, into)
    before = dump(into)
    begun_again_in(source, name)
    merged = merge([source], into)
    assert len(merged.conflicts) == 1
    assert "test: the experiment of this name here is another one" in merged.conflicts[0]
    assert dump(into) == before
    with Store(into, write=True) as store:
        assert check(store) == []
        hide(store, reading.experiment(store, "test"), "me")
    assert merge([source], into).conflicts == []
    with Store(into, write=True) as store:
        assert {row.max_length for row in reading.runs(store, "test")} == {4}
        restore(store, deleted(store)[-1], "old")
        assert {row.max_length for row in reading.runs(store, "old")} == {2}


def begun_again_in(path: Path, name: str) -> None:
    """Delete an experiment and perform it anew; the older one comes back under a name, if there is one."""
    with Store(path, write=True) as store:
        hide(store, reading.experiment(store, "test"), "me")
        if name:
            restore(store, deleted(store)[-1], name)
    run(make_config(max_length=4), path)


def test_what_belongs_to_an_experiment_in_conflict_stays_out(tmp_path: Path) -> None:
    """Its null models and its deleted runs."""
    run(make_config(root_seed=1), tmp_path / "into")
    source = tmp_path / "source"
    run(make_config(root_seed=2), source)
    with Store(source, write=True) as store:
        hide_runs(store, reading.experiment(store, "test"), [1], "me")
        writing.start_experiment(store, "test/null-shuffle", {})
    assert len(merge([source], tmp_path / "into").conflicts) == 1
    with Store(tmp_path / "into") as store:
        assert store.db.rows("SELECT name FROM experiment") == [("test",)]
        assert deleted(store) == []


def test_what_belongs_to_others_comes_beside_an_experiment_in_conflict(tmp_path: Path) -> None:
    write(tmp_path / "into", OLD)
    write(tmp_path / "source", OLD)
    with Store(tmp_path / "source", write=True) as store:
        store.db.execute("UPDATE epoch SET threads = 9")
        for name in ("test/null-shuffle", "other", "other/null-shuffle"):
            writing.start_experiment(store, name, {})
    assert len(merge([tmp_path / "source"], tmp_path / "into").conflicts) == 1
    with Store(tmp_path / "into") as store:
        assert [row.name for row in reading.experiments(store)] == ["test", "other", "other/null-shuffle"]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_config_of_another_version_contradicts_nothing(tmp_path: Path, order: tuple[int, int]) -> None:
    """What the store says that it comes into stays."""
    configs = [make_config(name="test").model_dump(mode="json"), {"name": "test", "of another": 1}]
    for number, config in enumerate(configs):
        write(tmp_path / str(number), OLD)
        with Store(tmp_path / str(number), write=True) as store:
            writing.start_experiment(store, "test", config)
    first, second = (tmp_path / str(number) for number in order)
    assert merge([second], first).conflicts == []
    with Store(first) as store:
        assert reading.experiment(store, "test").config == configs[order[0]]


def say(
    path: Path,
    *said: tuple[str, str, float],
    target_kind: str = "experiment",
    target: str = "",
    author: str = "me",
) -> None:
    """Add remarks, kind, text and time, on an experiment unless something else is named."""
    with Store(path, write=True) as store, store.transaction() as connection:
        uid = reading.experiment(store, "test").uid
        connection.executemany(
            "INSERT INTO annotation (target_kind, target, kind, text, author, at) VALUES (?, ?, ?, ?, ?, ?)",
            [(target_kind, target or uid, kind, text, author, at) for kind, text, at in said],
        )


def test_the_last_remark_in_time_holds_in_any_order(tmp_path: Path) -> None:
    """Rows come with the stores, and readers let the highest row of a kind hold."""
    run(make_config(max_length=2), tmp_path / "0")
    shutil.copytree(tmp_path / "0", tmp_path / "1")
    say(tmp_path / "0", ("tag", "t", 1.0), ("untag", "t", 5.0), ("label", "new", 9.0), ("tag", "b", 4.0))
    say(tmp_path / "1", ("tag", "t", 3.0), ("label", "old", 2.0), ("tag", "a", 4.0), ("project", "p", 1.0))
    say(tmp_path / "0", ("tag", "later", 6.0), author="zoe")
    say(tmp_path / "1", ("untag", "later", 7.0), author="amy")
    stores = [tmp_path / "0", tmp_path / "1"]
    found = []
    for number, order in enumerate((stores, stores[::-1], [*stores, *stores])):
        merge(order, tmp_path / f"into-{number}")
        with Store(tmp_path / f"into-{number}") as store:
            uid = reading.experiment(store, "test").uid
            assert marks(store, "experiment")[uid] == Marks(tags=("a", "b"), label="new")
            found.append([(row.kind, row.text, row.at) for row in list_annotations(store)])
    assert found[0] == found[1] == found[2] == sorted(found[0], key=lambda said: said[2])
    assert len(found[0]) == 10


@pytest.fixture
def differing(tmp_path: Path) -> list[Path]:
    return copies(tmp_path, make_config(max_length=4))


def copies(tmp_path: Path, config: ExperimentConfig) -> list[Path]:
    """Three copies of one store; in the second a run has other content."""
    run(config, tmp_path / "0")
    stores = [tmp_path / "0", *(Path(shutil.copytree(tmp_path / "0", tmp_path / str(n))) for n in (1, 2))]
    with Store(stores[1], write=True) as store, store.transaction() as connection:
        connection.execute(
            "UPDATE invocation SET output = (SELECT prompt FROM run WHERE id = 1) WHERE run = 1 AND step = 3"
        )
    return stores


@pytest.mark.parametrize("num_come", [1, 2])
def test_a_kill_does_not_change_what_is_in_conflict(
    differing: list[Path], tmp_path: Path, num_come: int
) -> None:
    """The run in conflict of what has come, which the killed process knew, is not taken for the target's."""
    merge(differing, tmp_path / "whole")
    into = tmp_path / "into"
    interrupt(differing, into, at=num_come)
    with Store(into) as store:
        assert len(reading.runs(store, "test")) == (6 if num_come == 1 else 5)
        assert len(reading.sessions(store)) == 1
    merged = merge(differing, into)
    assert len(merged.conflicts) == 1
    assert dump(into) == dump(tmp_path / "whole")
    with Store(into) as store:
        assert check(store) == []
        assert len(reading.runs(store, "test")) == 5
        assert not store.db.rows("SELECT * FROM meta WHERE key GLOB 'merge*'")


def test_a_refused_source_leaves_no_outputs_of_runs_in_conflict(tmp_path: Path) -> None:
    """They were removed with the last source, which never came."""
    distinct = {"distinct": True}
    differing = copies(tmp_path, make_config(max_length=4, draw=distinct, chain=distinct))
    merge(differing[:2], tmp_path / "two")
    with Store(differing[2], write=True) as store:
        store.db.execute("UPDATE output SET text = 'lie' WHERE id = (SELECT min(prompt) FROM run)")
    into = tmp_path / "into"
    with pytest.raises(StoreCorrupt):
        merge(differing, into)
    assert dump(into) == dump(tmp_path / "two")
    merge(differing[:2], into)
    assert dump(into) == dump(tmp_path / "two")
    with Store(into) as store:
        assert check(store) == []
        assert not store.db.rows("SELECT * FROM meta WHERE key GLOB 'merge*'")


def test_what_a_killed_merge_has_left_beside_the_store_goes(
    folder: Path, sample: Sample, tmp_path: Path
) -> None:
    """Half of a copy of another source."""
    into = tmp_path / "into"
    merge([folder], into)
    (into / "merging" / "0").mkdir(parents=True)
    (into / "merging" / "0" / "half").touch()
    with Store(folder, write=True) as store:
        remark(store, "alpha", "from a copy")
        merge([folder], into)
    assert not (into / "merging").exists()
    with Store(into) as store:
        assert [row.text for row in list_annotations(store)] == ["from a copy"]


def test_what_was_computed_since_a_kill_is_the_targets_own(differing: list[Path], tmp_path: Path) -> None:
    into = tmp_path / "into"
    interrupt(differing, into, at=1)
    run(make_config(max_length=6), into)
    before = dump(into)
    assert len(merge(differing, into).conflicts) == 1
    assert dump(into) == before


def test_remarks_on_what_does_not_come_stay_where_they_are(tmp_path: Path) -> None:
    """A session's remark has its row number as its target, which is another session in the target."""
    me = Author(name="me")
    run(make_config(root_seed=1, max_length=2), tmp_path / "into")
    run(make_config(root_seed=2, max_length=2), tmp_path / "source")
    run(make_config(name="other", max_length=2), tmp_path / "source")
    with Store(tmp_path / "source", write=True) as store:
        for name in ("test", "other"):
            remark(store, name, f"of {name}")
            annotate(store, "comment", [(run_target(name, reading.runs(store, name)[0]), f"of {name}")], me)
        for number in ("1", "2"):
            [[name]] = store.db.rows(
                "SELECT name FROM session JOIN experiment ON experiment.id = experiment WHERE session.id = ?",
                int(number),
            )
            session = Target(kind="session", uid=number, name=number)
            annotate(store, "comment", [(session, f"of {name}")], me)
    assert len(merge([tmp_path / "source"], tmp_path / "into").conflicts) == 1
    with Store(tmp_path / "into") as store:
        said = store.db.rows("SELECT target_kind, text FROM annotation ORDER BY 1")
        assert said == [("experiment", "of other"), ("run", "of other"), ("session", "of other")]
        (session,) = store.db.row("SELECT target FROM annotation WHERE target_kind = 'session'")
        assert store.db.value("SELECT id FROM session WHERE id = ?", int(session)) == 2


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_remarks_on_a_run_in_conflict_go_with_it(
    differing: list[Path], tmp_path: Path, order: tuple[int, int]
) -> None:
    for path in differing[:2]:
        with Store(path, write=True) as store:
            rows = reading.runs(store, "test")
            for row in rows:
                said = (run_target("test", row), f"run {row.id} in {path.name}")
                annotate(store, "comment", [said], Author(name="me"))
    assert any(row.prompt != rows[0].prompt and row.seed == rows[0].seed for row in rows)
    merge([differing[number] for number in order], tmp_path / "into")
    with Store(tmp_path / "into") as store:
        left = {text for (text,) in store.db.rows("SELECT text FROM annotation")}
    assert left == {f"run {row.id} in {name}" for row in rows[1:] for name in "01"}


def test_a_session_that_came_while_it_ran_gets_what_its_end_adds(tmp_path: Path) -> None:
    source, into = tmp_path / "source", tmp_path / "into"
    with Store(source, write=True, create=True) as store:
        experiment = writing.start_experiment(store, "test", {})
        session = writing.start_session(store, experiment, "panic run", {"host": "one"})
    merge([source], into)
    with Store(source, write=True) as store:
        writing.end_session(store, session, "done", measured={"gpu_energy_j": {"GPU-1": 5.0}})
    for _ in range(2):
        merge([source], into)
        with Store(into) as store:
            assert store.db.rows("SELECT end_state, provenance ->> '$.gpu_energy_j.GPU-1' FROM session") == [
                ("done", 5.0)
            ]


def test_runs_deleted_here_do_not_come_back(tmp_path: Path) -> None:
    source, into = tmp_path / "source", tmp_path / "into"
    run(everything(), source)
    merge([source], into)
    with Store(into, write=True) as store:
        row = reading.experiment(store, "test")
        gone = reading.runs(store, "test")[0]
        hide_runs(store, row, [gone.id], "me")
    before = rows(into)
    merged = merge([source], into)
    assert (merged.num_runs, merged.conflicts) == (0, [])
    assert rows(into) == before
    with Store(into, write=True) as store:
        assert check(store) == []
        assert restore(store, deleted(store)[-1]) == 0
        assert len(reading.runs(store, "test")) == before["run"]


def test_runs_deleted_after_a_kill_do_not_come_back(differing: list[Path], tmp_path: Path) -> None:
    """A deletion gives no run and no session another number, but the hidden experiment has one."""
    sources, into = [differing[0], differing[2]], tmp_path / "into"
    interrupt(sources, into, at=1)
    with Store(into, write=True) as store:
        hide_runs(store, reading.experiment(store, "test"), [1], "me")
    assert merge(sources, into).conflicts == []
    with Store(into) as store:
        assert len(reading.runs(store, "test")) == 5
        assert len(deleted(store)) == 1


def test_runs_deleted_in_one_of_two_sources_come_in_any_order(tmp_path: Path) -> None:
    run(make_config(max_length=2), tmp_path / "0")
    shutil.copytree(tmp_path / "0", tmp_path / "1")
    with Store(tmp_path / "1", write=True) as store:
        hide_runs(store, reading.experiment(store, "test"), [1], "me")
    stores = [tmp_path / "0", tmp_path / "1"]
    for number, order in enumerate((stores, stores[::-1])):
        merge(order, tmp_path / f"into-{number}")
        with Store(tmp_path / f"into-{number}") as store:
            assert len(reading.runs(store, "test")) == 6
            assert len(deleted(store)) == 1


def test_a_kill_does_not_change_who_meets_and_differs(tmp_path: Path) -> None:
    """The third agrees with the first, of which the second makes a conflict."""
    ways = (
        OLD,
        {"state 1": ["state 2", "state 4", "state 5"]},
        {"state 2": ["state 3", "state 6", "state 7"]},
    )
    stores, into = [tmp_path / str(number) for number in range(3)], tmp_path / "into"
    for path, runs in zip(stores, ways, strict=True):
        write(path, runs)
    interrupt(stores, into, at=1)
    assert read(into) == OLD
    # What `keep` says is of runs of one key.
    merged = merge(stores, into, keep="theirs")
    assert len(merged.conflicts) == 3
    assert all("it meets" in one for one in merged.conflicts)
    assert read(into) == {}
    with Store(into) as store:
        assert store.db.value("SELECT count(*) FROM output") == 0


def test_a_merge_that_changes_vectors_gives_all_experiments_a_new_stamp(
    folder: Path, sample: Sample, tmp_path: Path
) -> None:
    """A vector that is replaced may be of an experiment of which nothing comes."""
    source = Path(shutil.copytree(folder, tmp_path / "source"))
    with Store(source, write=True) as store, store.transaction() as connection:
        connection.execute("UPDATE epoch SET threads = 99 WHERE experiment = ?", (sample.alpha,))
    before = stamps_of(folder)
    assert len(merge([source], folder).conflicts) > 0
    after = stamps_of(folder)
    assert {name for name in after if after[name] != before[name]} == {"beta"}
    with Store(source, write=True) as store, store.transaction() as connection:
        connection.execute("UPDATE embedding SET vector = zeroblob(length(vector))")
    assert merge([source], folder).num_vectors
    last = stamps_of(folder)
    assert {name for name in last if last[name] != after[name]} == {"alpha", "beta"}


def test_a_merge_that_leaves_runs_out_gives_their_experiment_a_new_stamp(tmp_path: Path) -> None:
    """A run that came with the first source goes again with the second: what was counted of it is old."""
    write(tmp_path / "0", OLD)
    write(tmp_path / "1", {"state 0": ["state 1", "state 2", "state 4"]})
    merge([tmp_path / "0"], tmp_path / "into")
    before = stamps_of(tmp_path / "into")
    assert len(merge([tmp_path / "1"], tmp_path / "into").conflicts) == 1
    assert stamps_of(tmp_path / "into") != before


def stamps_of(path: Path) -> dict[str, int]:
    with Store(path) as store:
        names = {row.id: row.name for row in reading.experiments(store)}
        return {names[row]: stamp for row, _, stamp in summaries.stamps(store)}


def test_runs_with_steps_in_smaller_batches_are_told_where_memory_was_short(
    folder: Path, sample: Sample
) -> None:
    """Of alpha draw had less memory; of beta tell had, and draw has other batches on request."""
    steps = [(sample.stuck, 0), (sample.failed, 0), (sample.noisy, 1), (sample.shared, 0)]
    with Store(folder, write=True) as store:
        store.db.execute("UPDATE epoch SET reason = 'memory'")
        assert shrunk(store) == [], "all of them began so"
        with store.transaction() as connection:
            for experiment, name, reason in (
                (sample.alpha, "draw", "memory"),
                (sample.beta, "draw", "request"),
                (sample.beta, "tell", "memory"),
            ):
                connection.execute(
                    "INSERT INTO epoch"
                    " (experiment, name, number, model, batch_size, device_kind, opened_at, reason)"
                    " SELECT experiment, name, 1, model, 4, device_kind, opened_at, ? FROM epoch"
                    " WHERE experiment = ? AND name = ?",
                    (reason, experiment, name),
                )
            connection.executemany(
                "UPDATE batch SET epoch = 1 WHERE id ="
                " (SELECT batch FROM invocation WHERE run = ? AND step = ?)",
                steps,
            )
        [told] = shrunk(store)
    first, second = sorted((sample.stuck, sample.failed))
    assert told == (
        "alpha: 2 runs have steps in smaller batches, because memory was short, and may differ from those"
        f" of one store: runs {first}, {second}"
    )


def test_a_config_that_both_stores_have_stays_to_the_letter(tmp_path: Path) -> None:
    """What a session was asked for is compared with it as a text."""
    config = make_config(max_length=4)
    text = config.model_dump_json(indent=1, exclude_defaults=True)
    for name in ("0", "1"):
        with Store(tmp_path / name, write=True, create=True) as store:
            writing.start_experiment(store, "test", config.model_dump(mode="json"))
            with store.transaction() as connection:
                connection.execute("UPDATE experiment SET config = ?", (text,))
    assert merge([tmp_path / "0", tmp_path / "1"], tmp_path / "into").conflicts == []
    with Store(tmp_path / "into") as store:
        assert store.db.rows("SELECT config FROM experiment") == [(text,)]


def test_what_two_sources_have_deleted_stays_deleted(tmp_path: Path) -> None:
    run(make_config(max_length=2), tmp_path / "0")
    with Store(tmp_path / "0", write=True) as store:
        hide(store, reading.experiment(store, "test"), "me")
    shutil.copytree(tmp_path / "0", tmp_path / "1")
    merge([tmp_path / "0", tmp_path / "1"], tmp_path / "into")
    with Store(tmp_path / "into") as store:
        assert reading.experiments(store) == []
        assert [one.name for one in deleted(store)] == ["test"]
        assert check(store) == []
