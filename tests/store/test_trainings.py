"""Trainings in a store: where each stands, and which one a text names."""

import os
import socket
import time

import psutil
import pytest

from panic.errors import NotFound, StoreCorrupt
from panic.store import Store, trainings, writing
from panic.store.finding import queries
from panic.store.trainings import NAMES
from tests.store.sample import entry

HERE = socket.gethostname()


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
