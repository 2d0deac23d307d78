"""Trainings in a store: where each stands, and which one a text names."""

import os
import socket
import time

import psutil
import pytest

from panic.errors import ConflictError, NotFound, StoreCorrupt
from panic.store import Store, reading, tombstones, trainings, writing
from panic.store.annotations import Target, annotate, list_annotations
from panic.store.finding import queries
from panic.store.signing import Author
from panic.store.trainings import NAMES
from tests.store.sample import entry

HERE = socket.gethostname()
ME = Author(name="me")


def test_a_training_stands_where_it_ended_or_where_its_process_is():
    now, began = time.time(), psutil.Process().create_time()
    assert trainings.state_of("complete", "elsewhere", 1, 1.0) == "complete"
    assert trainings.state_of(None, HERE, os.getpid(), now) == "running"
    assert trainings.state_of(None, "elsewhere", os.getpid(), now) == "interrupted"
    slack = trainings.CLOCK_SLACK_S
    assert trainings.state_of(None, HERE, os.getpid(), began - slack / 2) == "running"
    assert trainings.state_of(None, HERE, os.getpid(), began - 2 * slack) == "interrupted", (
        "it is another one's"
    )
    for nobody in (2**22 + 1, -1, 2**80):
        assert trainings.state_of(None, HERE, nobody, now) == "interrupted"


def test_a_training_is_its_recipe_in_its_folder(writer):
    for one in (
        entry("mine"),
        entry("mine", step=5, loss=0.5),
        entry("mine", folder="/other"),
        entry("other"),
    ):
        trainings.keep(writer, one)
    first, second, third = trainings.list_trainings(writer)
    assert first == entry("mine", step=5, loss=0.5)
    assert (second.folder, second.step, third.name) == ("/other", 0, "other")
    ids = [trainings.place_of(writer, one) for one in (third, first)]
    assert trainings.trainings_at(writer, [*ids, 999]) == [third, first]
    assert first.state == "interrupted"
    trainings.know_training_states(writer)
    query = "SELECT panic_training_state(end_state, host, pid, started_at) FROM training"
    assert writer.db.rows(query) == [("interrupted",)] * 3


def test_a_training_is_named_by_folder_name_or_the_beginning_of_its_id(writer):
    one, other, copy = entry("mine", uid="ab" * 32), entry("other", uid="abc" + "d" * 61), "/copy"
    for row in (one, other, entry("mine", uid="ab" * 32, folder=copy)):
        trainings.keep(writer, row)

    def found(text):
        row = trainings.find_training(writer, text)
        return row and (row.name, row.folder)

    assert found("/somewhere/mine") == ("mine", "/somewhere/mine")
    assert found("mine") == found("abababab") == ("mine", copy), "the last entry"
    assert found("ABCDDDDD") == ("other", "/somewhere/other")
    assert found("abcdddd") is None, "seven digits are too few"
    assert found("ababababc") is None
    trainings.keep(writer, entry("other", uid="f" * 64, folder="/third"))
    with pytest.raises(NotFound, match="Several trainings are called 'other'"):
        found("other")


def test_of_a_training_that_is_here_the_later_state_stays(writer):
    trainings.keep(writer, entry("mine", step=5, updated_at=5.0))
    names = ", ".join(NAMES)

    def row(**changes):
        (values,) = writer.db.rows(f"SELECT {names} FROM training LIMIT 1")
        return dict(zip(NAMES, values, strict=True)) | changes

    def step():
        return [one.step for one in trainings.list_trainings(writer)]

    with writer.transaction() as connection:
        for at, number in ((4.0, 4), (5.0, 6)):
            trainings.bring(connection, [row(step=number, updated_at=at)])
            assert step() == [5]
        trainings.bring(connection, [row(step=7, updated_at=5.5), row(step=1, folder="/new", updated_at=1.0)])
        assert step() == [7, 1]
        for name in trainings.JSON:
            with pytest.raises(StoreCorrupt):
                trainings.bring(connection, [row(**{name: "[1]", "updated_at": 9.0})])
    assert step() == [7, 1]


def test_a_column_that_is_no_object_says_nothing(writer):
    trainings.keep(writer, entry("mine"))
    writer.db.execute("UPDATE training SET measures = '[1]', config = '{\"a\": 2}'")
    (found,) = trainings.list_trainings(writer)
    assert (found.measures, found.config) == ({}, {"a": 2})


def test_of_many_experiments_those_alone_are_read_that_name_a_training(tmp_path):
    with Store(tmp_path / "store", write=True, create=True) as store:
        for name in ("plain", "trained", "later"):
            number = writing.start_experiment(store, name, {"name": name})
            models = {"m": {"training": "ab" * 32}} if name == "trained" else {"m": {"source": "x"}}
            writing.start_session(store, number, "panic run", {"models": models})
        assert [row.name for row in trainings.naming_trainings(store)] == ["trained"]


def test_of_many_configs_the_newest_tell_which_fields_there_are(tmp_path, monkeypatch):
    monkeypatch.setattr(queries, "NEWEST", 3)
    with Store(tmp_path / "store", write=True, create=True) as store:
        for number in range(4):
            writing.start_experiment(store, f"x{number}", {"oldest" if number == 0 else "newer": number})
        assert queries.config_paths(store) == {"config.newer": "1"}


def test_a_deleted_training_is_there_again_where_it_goes_on(writer):
    """In one of two folders; what is said of the other one stays."""
    now = time.time()
    for folder in ("/a/mine", "/b/mine"):
        trainings.keep(writer, entry("mine", folder=folder, updated_at=now - 9))
    trainings.keep(writer, entry("other", uid="0f" * 32))
    first, second, other = trainings.list_trainings(writer)
    annotate(writer, "tag", [(Target(kind="training", uid=first.uid, name="mine"), "good")], ME)
    trainings.mark_deleted(writer, [first, other], ME)
    assert trainings.list_trainings(writer) == [second]
    assert trainings.list_trainings(writer, are_deleted=True) == [first, other]
    for selector in ("mine", "/a/mine", "/a/../a/mine", first.uid, first.uid[:8].upper()):
        assert trainings.find_deleted(writer, selector) == [first], selector
    for selector in ("/b/mine", first.uid[:7], "in"):
        assert trainings.find_deleted(writer, selector) == [], selector
    assert trainings.find_training(writer, "/a/mine") is None
    assert trainings.find_training(writer, "mine") == second
    assert trainings.find_training(writer, "other") is None
    trainings.bring_back(writer, [first], ME)
    assert trainings.list_trainings(writer) == [first, second]
    trainings.mark_deleted(writer, [first], ME)
    deletions = [row for row in list_annotations(writer, "training", first.uid) if row.kind == "delete"]
    assert trainings.deletion_of(writer, first) == deletions[1]
    assert deletions[0].id < deletions[1].id
    trainings.keep(writer, entry("mine", folder="/a/mine", updated_at=time.time() + 1))
    assert [row.folder for row in trainings.list_trainings(writer)] == ["/a/mine", "/b/mine"]


def test_what_is_deleted_is_purged_with_its_remarks_unless_it_lies_elsewhere_too(writer):
    for name, folder in (("mine", "/a"), ("mine", "/b"), ("other", "/c")):
        trainings.keep(writer, entry(name, folder=folder))
    rows = trainings.list_trainings(writer)
    for row in rows[::2]:
        annotate(writer, "label", [(Target(kind="training", uid=row.uid, name=row.name), row.name)], ME)
    trainings.mark_deleted(writer, rows[::2], ME)
    trainings.purge_trainings(writer, rows)
    assert trainings.list_trainings(writer) == [rows[1]], "it was not deleted"
    assert trainings.list_trainings(writer, are_deleted=True) == []
    assert {row.target for row in list_annotations(writer)} == {rows[1].uid}
    assert [row.text for row in list_annotations(writer) if row.kind == "label"] == ["mine"]
    trainings.mark_deleted(writer, rows[1:2], ME)
    trainings.purge_trainings(writer, rows)
    assert list_annotations(writer) == []


def test_what_is_performed_or_was_heard_of_in_the_future_is_not_deleted(writer):
    now = time.time()
    busy = entry("busy", host=HERE, pid=os.getpid(), started_at=now, updated_at=1.0)
    ahead = entry("ahead", updated_at=now + 99)
    for one in (entry("idle"), busy, ahead):
        trainings.keep(writer, one)
    idle, *_ = trainings.list_trainings(writer)
    with pytest.raises(ConflictError, match="busy is being performed") as raised:
        trainings.mark_deleted(writer, [idle, busy], ME)
    assert raised.value.hint == "panic stop /somewhere/busy"
    with pytest.raises(ConflictError, match="ahead goes on elsewhere: its host elsewhere"):
        trainings.mark_deleted(writer, [idle, ahead], ME)
    assert len(trainings.list_trainings(writer)) == 3
    assert list_annotations(writer) == []


def test_a_training_is_called_by_its_folder_where_another_one_has_its_name(writer):
    for name, uid, folder in (("a", "1", "/1"), ("a", "2", "/2"), ("b", "3", "/3"), ("b", "3", "/4"),
                              ("c", "5", "/5")):  # fmt: skip
        trainings.keep(writer, entry(name, uid=uid * 64, folder=folder))
    trainings.mark_deleted(writer, [trainings.list_trainings(writer)[-1]], ME)
    named = trainings.training_names(writer)
    assert named == [("/1", "1" * 64), ("/2", "2" * 64), ("b", "3" * 64)]
    trainings.keep(writer, entry("alpha", uid="4" * 64, folder="/alpha"))
    assert trainings.named_training(writer, "alpha") is None, "an experiment is called so"
    assert trainings.named_training(writer, "/alpha").name == "alpha"
    assert trainings.named_training(writer, "b").folder == "/4"
    writing.start_experiment(writer, "alpha/null-x", {})
    trainings.keep(writer, entry("null-x", uid="6" * 64, folder=os.path.abspath("alpha/null-x")))
    assert trainings.named_training(writer, "alpha/null-x").name == "null-x", "with a slash it is a folder"


def test_a_training_that_is_declared_complete_has_the_steps_that_it_has(writer, monkeypatch):
    failed = entry("mine", steps=10, step=4, end_state="failed", message="no room", ended_at=2.0)
    monkeypatch.setattr("panic.store.trainings.time.time", lambda: 1234.5)
    trainings.declare_complete(writer, failed, 4)
    (row,) = trainings.list_trainings(writer)
    assert (row.state, row.step, row.steps, row.config["steps"]) == ("complete", 4, 4, 4)
    assert row.config["learning_rate"] == 0.1
    assert row.message is None
    assert (row.ended_at, row.updated_at) == (1234.5, 1234.5)


def test_tags_and_label_of_a_config_are_said_once(writer):
    def perform(**said):
        one = entry("mine", config={"tags": [], "label": None, **said})
        trainings.mark_as_configured(writer, one)
        trainings.keep(writer, one)
        return [(row.kind, row.text) for row in list_annotations(writer, "training", one.uid)]

    assert perform() == []
    assert perform(tags=["a"]) == [("tag", "a")]
    assert perform(tags=["a"]) == [("tag", "a")]
    assert perform(tags=["a"], label="x") == [("tag", "a"), ("label", "x")]
    assert perform(tags=[], label="x") == [("tag", "a"), ("label", "x")]
    assert len(list_annotations(writer)) == 2


def test_experiments_that_name_a_training_are_told_once_oldest_first_and_not_deleted_ones(writer, sample):
    """The later experiment has the earlier sessions."""
    said = {"models": {"draw": {"training": "ab" * 32}}}
    for experiment in (sample.beta, sample.beta, sample.alpha):
        writing.start_session(writer, experiment, "panic run", said)
    assert [row.name for row in trainings.naming_trainings(writer)] == ["alpha", "beta"]
    tombstones.hide(writer, reading.experiment(writer, "alpha"), "me")
    assert [row.name for row in trainings.naming_trainings(writer)] == ["beta"]


def test_of_deletions_of_a_folder_the_last_one_counts_and_not_after_it_was_heard_of_again(writer):
    """Deleted at 5: what was heard of at 5 is deleted, and later it is not."""
    for folder, at in (("/a", 4.5), ("/b", 5.0), ("/c", 5.5), ("/d", 5.0)):
        trainings.keep(writer, entry("mine", folder=folder, updated_at=at))
    said = [("/a", "undelete", 3.0), *((folder, "delete", 5.0) for folder in ("/a", "/b", "/c", "/d"))]
    said.append(("/d", "undelete", 4.0))  # by a clock that is behind: what came last counts
    with writer.transaction() as connection:
        connection.executemany(
            "INSERT INTO annotation (target_kind, target, kind, text, author, at)"
            " VALUES ('training', ?, ?, ?, 'me', ?)",
            [(entry("mine").uid, kind, folder, at) for folder, kind, at in said],
        )
        connection.execute(
            "INSERT INTO annotation (target_kind, target, kind, text, author, at)"
            " SELECT 'output', target, 'undelete', '/a', 'me', 6.0 FROM annotation LIMIT 1"
        )  # of what has the same digest by chance
    assert [row.folder for row in trainings.list_trainings(writer, are_deleted=True)] == ["/a", "/b"]
    assert [row.folder for row in trainings.list_trainings(writer)] == ["/c", "/d"]
    assert trainings.find_training(writer, "mine").folder == "/d"
