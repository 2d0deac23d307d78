"""Migrations: from the oldest fixture to now, one transaction each."""

import contextlib
import json
import sqlite3
import tempfile
from pathlib import Path

import apsw
import pytest

from panic import run
from panic.config import stored
from panic.errors import StoreCorrupt, StoreError, StoreMissing, StoreReadOnly, StoreTooNew, StoreTooOld
from panic.store import Store, check, dump, migrate, reading, summaries
from panic.store.annotations import list_annotations
from tests.rights import folder_of_others, without_rights
from tests.store.sample import remark

from .rename_dump import rename

FIXTURES = Path(__file__).parent / "fixtures"


def build(folder, version):
    """A store of an older version, from its text."""
    folder.mkdir()
    for name in ("store", "images"):
        with contextlib.closing(sqlite3.connect(folder / f"{name}.sqlite")) as connection:
            connection.executescript((FIXTURES / f"{version}.{name}.sql").read_text(encoding="utf-8"))
    return folder


@pytest.fixture
def oldest(folder):
    """A store of version 1."""
    return build(folder, "0001")


@pytest.fixture
def namesakes(folder):
    """A store of version 4: demo, demo, demo-2, demo (some runs failed), demo (interrupted)."""
    return build(folder, "0004")


DIGESTS = {
    "cb1c33ebe12cf5a3fde0d2eb30b0b05cfb980d5ffb586a57fb1a0b3a70b2857e": "demo-3",
    "2ee3b8a25c0a9e7d17f85a1dbee4becc6a653c65c7ae6fe87a85c0d9ceb0a27a": "demo-4",
    "bee4b308d7f2418042b3f2ecfbc3c3d7647b328fec301aa6ec7051720294d978": "demo-5",
}
"""What later experiments called demo are called now: demo-2 was taken."""


def fixture_dump(name="0001"):
    lines = (FIXTURES / f"{name}.dump.jsonl").read_text(encoding="utf-8").splitlines()
    return list(rename(map(json.loads, lines), DIGESTS))


def test_the_oldest_store_is_brought_up_to_date(oldest):
    with Store(oldest, write=True) as store:
        assert check.check(store) == []
        assert list(dump.dump(store)) == fixture_dump()
        assert [row.state for row in reading.runs(store, "alpha")] == ["stuck", "done", "failed", "todo"]
    with Store(oldest) as store:
        assert list(dump.dump(store)) == fixture_dump()


def test_experiments_of_one_name_are_all_kept_under_names_of_their_own(namesakes, caplog):
    with contextlib.closing(sqlite3.connect(namesakes / "store.sqlite")) as connection:
        uids = [uid for (uid,) in connection.execute("SELECT uid FROM experiment ORDER BY id")]
    with Store(namesakes, write=True) as store:
        assert check.check(store) == []
        assert list(dump.dump(store)) == fixture_dump("0004")
        rows = reading.experiments(store)
        remarks = list_annotations(store)
        reasons = {(row.number, row.reason) for row in reading.epochs(store, "demo-4")}
    assert [row.name for row in rows] == ["demo", "demo-3", "demo-2", "demo-4", "demo-5"]
    assert [row.uid for row in rows] == uids
    assert [row.config["name"] for row in rows] == [row.name for row in rows]
    former = [(row.target, row.text) for row in remarks if row.kind == "former name"]
    assert former == [(uids[place], "demo") for place in (1, 3, 4)]
    assert [row.text for row in remarks if row.kind != "former name"] == ["looks odd", "a remark"]
    assert reasons == {(0, "start")}
    assert [f"the id {uids[4][:12]} is now demo-5" in text for text in caplog.messages] == [
        False,
        False,
        True,
    ]


def test_a_store_is_told_of_new_names_once(namesakes, caplog):
    for _ in range(2):
        with Store(namesakes, write=True):
            pass
    assert len(caplog.messages) == 3


def test_what_was_done_is_not_done_again_after_a_migration(namesakes):
    """Also holds the fingerprints of synthetic models fixed over versions."""
    with Store(namesakes, write=True) as store:
        before = list(dump.dump(store))
        configs = {row.name: stored(row.config, row.name) for row in reading.experiments(store)}
        batches = store.last_batch_id
    for name in ("demo", "demo-2", "demo-3", "demo-4"):
        run(configs[name], namesakes)
    with Store(namesakes, write=True) as store:
        assert list(dump.dump(store)) == before
        assert store.last_batch_id == batches


def test_an_interrupted_experiment_goes_on_after_a_migration_as_it_would_have_before(namesakes):
    with Store(namesakes, write=True) as store:
        config = stored(reading.experiment(store, "demo-5").config, "demo-5")
    run(config, namesakes)
    with Store(namesakes) as store:
        assert list(dump.dump(store, "demo-5")) == fixture_dump("0004.finished")
        assert check.check(store) == []


def test_migrations_are_numbered_without_gaps():
    for kind in ("store", "images"):
        names = sorted(path.name for path in (Path(migrate.__file__).parent / "migrations" / kind).iterdir())
        assert names == [f"{number:04d}.sql" for number in range(1, len(names) + 1)]


def test_the_digests_of_the_newest_schemas_are_those_of_what_the_migrations_make():
    for kind, digest in migrate.SCHEMAS.items():
        newest = len(migrate.migrations(kind))
        assert migrate.schema_digest(migrate.expected_schema(kind, newest)) == digest


def later(monkeypatch, sql):
    """Pretend that one more migration of the store was shipped."""
    shipped = migrate.migrations

    def migrations(kind):
        return [*shipped(kind), sql] if kind == "store" else shipped(kind)

    monkeypatch.setattr(migrate, "migrations", migrations)


def test_a_migration_that_fails_changes_nothing(folder, sample, monkeypatch):
    with Store(folder) as store:
        before = list(dump.dump(store))
    with monkeypatch.context() as patch:
        later(
            patch, "DELETE FROM stuck; CREATE TABLE extra (a INTEGER) STRICT; INSERT INTO nowhere VALUES (1);"
        )
        with pytest.raises(apsw.SQLError, match="nowhere"):
            Store(folder, write=True)
    with Store(folder) as store:
        assert list(dump.dump(store)) == before
        assert check.check(store) == []


def test_a_migration_that_fails_holds_nobody_up_and_can_be_tried_again(connection, monkeypatch):
    """What is asked of the same connection afterwards is in no transaction, and of the version before."""
    migrate.migrate(connection, "store", PATH)
    with monkeypatch.context() as patch:
        later(patch, "DROP TABLE stuck; INSERT INTO nowhere VALUES (1);")
        for _ in range(2):
            with pytest.raises(apsw.SQLError, match="nowhere"):
                migrate.migrate(connection, "store", PATH)
            assert not connection.in_transaction
            assert connection.pragma("user_version") == NEWEST
    migrate.migrate(connection, "store", PATH)


def test_a_reader_of_an_older_store_says_how_to_update(folder, sample, monkeypatch):
    later(monkeypatch, "ALTER TABLE stuck ADD COLUMN certainty REAL;")
    with pytest.raises(StoreError, match="schema version") as raised:
        Store(folder)
    assert "panic resume brings the store up to date" in raised.value.hint
    with Store(folder, write=True) as store:
        assert store.db.value("SELECT count(certainty) FROM stuck") == 0
    with Store(folder) as store:
        assert check.check(store) == []


def files_of(folder):
    """Contents of a store's files; readers may leave an empty log behind."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix == ".sqlite"}


def test_a_store_of_an_older_schema_is_read_from_a_copy(namesakes, caplog):
    """Also where the store could be changed: reading changes nothing."""
    before = files_of(namesakes)
    with Store(namesakes, copy_older=True) as store:
        copy = store.db.path
        assert copy.exists()
        assert list(dump.dump(store)) == fixture_dump("0004")
        assert check.check(store) == []
        with pytest.raises(StoreReadOnly, match="read from a copy"):
            remark(store, "latest", "lost")
        with summaries.opened(store) as file:
            assert file is None, "what is worked out of a copy is not kept beside the store"
    assert not copy.parent.exists()
    assert files_of(namesakes) == before
    assert "a temporary copy of store.sqlite is brought up to date" in caplog.text
    with pytest.raises(StoreTooOld):
        Store(namesakes)


def test_a_store_of_an_older_schema_that_nobody_may_write_is_read(monkeypatch):
    with folder_of_others() as base:
        (base / "copies").mkdir()
        (base / "copies").chmod(0o777)
        monkeypatch.setattr(tempfile, "tempdir", str(base / "copies"))
        folder = build(base / "store", "0004")
        for path in folder.iterdir():
            path.chmod(0o444)
        folder.chmod(0o555)
        with without_rights(), Store(folder, copy_older=True) as store:
            names = [row.name for row in reading.experiments(store)]
    assert names == ["demo", "demo-3", "demo-2", "demo-4", "demo-5"]


def test_a_store_of_this_schema_is_not_copied(folder, sample, caplog):
    with Store(folder, copy_older=True) as store:
        assert store.db.path == folder / "store.sqlite"
    assert caplog.messages == []


NEWEST = len(migrate.migrations("store"))
PATH = Path("folder/store.sqlite")


@pytest.fixture
def connection():
    """A database in memory."""
    connection = apsw.Connection(":memory:")
    yield connection
    connection.close()


@pytest.fixture
def current(connection):
    """A database of the newest version."""
    migrate.migrate(connection, "store", PATH)
    return connection


def test_an_empty_file_is_of_version_0_and_others_are_somebody_elses(connection):
    assert migrate.file_version(connection, PATH) == 0
    connection.execute("PRAGMA user_version = 7; CREATE TABLE t (a)")
    with pytest.raises(StoreCorrupt, match="but not of a panic store"):
        migrate.file_version(connection, PATH)
    connection.execute(f"PRAGMA application_id = {0x70616E69}")
    assert migrate.file_version(connection, PATH) == 7


def test_an_empty_file_becomes_one_of_the_newest_version(current):
    assert current.pragma("application_id") == 0x70616E69
    assert (current.pragma("user_version"), current.pragma("foreign_keys")) == (NEWEST, 1)
    assert migrate.schema(current) == migrate.expected_schema("store", NEWEST)
    assert migrate.missing_from(current, "store") == []
    migrate.migrate(current, "store", PATH)  # nothing is left to do
    migrate.require_current(current, "store", PATH)


def test_a_schema_is_told_by_type_and_name_and_inner_indices_by_their_table(connection):
    connection.execute("CREATE TABLE t (a  TEXT\n UNIQUE)")
    assert migrate.schema(connection) == {
        ("table", "t"): "CREATE TABLE t (a TEXT UNIQUE)",
        ("index", "sqlite_autoindex_t_1"): "on t",
    }


def test_three_of_the_things_that_are_not_ours_are_named(current):
    current.execute("CREATE TABLE zd (a); CREATE TABLE zc (a); CREATE TABLE zb (a); CREATE TABLE za (a)")
    with pytest.raises(StoreCorrupt) as raised:
        migrate.require_current(current, "store", PATH, is_whole=False)
    assert raised.value.message.endswith(": table 'za', table 'zb', table 'zc'.")
    assert "backup" in raised.value.hint


def test_three_of_the_things_that_are_missing_are_named(current):
    for table in ("annotation", "distance", "failure", "stuck"):
        current.execute(f"DROP TABLE {table}")
    with pytest.raises(StoreCorrupt) as raised:
        migrate.require_current(current, "store", PATH)
    gone = sorted(migrate.expected_schema("store", NEWEST).keys() - migrate.schema(current).keys())
    assert len(gone) >= 4
    listed = ", ".join(f"{what} {name}" for what, name in gone[:3])
    assert raised.value.message == f"{PATH} is damaged: it lacks the {listed}."
    assert raised.value.hint.endswith("panic check --store folder")
    with pytest.raises(StoreCorrupt):
        migrate.require_own_schema(current, "store", PATH, NEWEST)
    migrate.require_current(current, "store", PATH, is_whole=False)
    assert migrate.missing_from(current, "store") == [f"the {what} {name} is missing" for what, name in gone]


def test_a_file_of_another_version_is_refused_with_advice(current):
    for version, error, advice in (
        (NEWEST + 1, StoreTooNew, "Upgrade panic"),
        (NEWEST - 1, StoreTooOld, "panic resume"),
        (0, StoreMissing, "run again"),
    ):
        current.pragma("user_version", version)
        with pytest.raises(error) as raised:
            migrate.require_current(current, "store", PATH)
        assert advice in raised.value.hint
    current.pragma("user_version", NEWEST + 1)
    with pytest.raises(StoreTooNew):
        migrate.migrate(current, "store", PATH)


def test_a_file_that_is_not_what_its_version_makes_is_not_migrated(current):
    """A file of the newest version that says to be older has tables which that version does not make."""
    current.pragma("user_version", NEWEST - 1)
    before = migrate.schema(current)
    with pytest.raises(StoreCorrupt):
        migrate.migrate(current, "store", PATH)
    assert migrate.schema(current) == before
    assert not current.in_transaction
    current.pragma("user_version", NEWEST)
    current.execute("DROP TABLE stuck")
    with pytest.raises(StoreCorrupt, match="it lacks the table stuck"):
        migrate.migrate(current, "store", PATH)


def test_new_names_are_told_from_the_oldest_version_on_and_remarks_of_others_are_none(oldest, caplog):
    with contextlib.closing(sqlite3.connect(oldest / "store.sqlite", isolation_level=None)) as connection:
        connection.execute("UPDATE experiment SET name = 'alpha'")
        connection.execute(
            "INSERT INTO annotation (target_kind, target, kind, text, author, at)"
            " SELECT 'experiment', uid, 'former name', 'mine', 'me', 0.0 FROM experiment"
        )
    with Store(oldest, write=True) as store:
        assert [row.name for row in reading.experiments(store)] == ["alpha", "alpha-2"]
    (told,) = caplog.messages
    assert told.endswith("is now alpha-2")


def test_new_names_are_told_with_the_version_that_gives_them(namesakes, monkeypatch, caplog):
    path, shipped = namesakes / "store.sqlite", migrate.migrations
    with contextlib.closing(apsw.Connection(str(path))) as connection:
        with monkeypatch.context() as patch:
            patch.setattr(migrate, "migrations", lambda kind: shipped(kind)[: migrate.NAMES_ARE_UNIQUE])
            migrate.migrate(connection, "store", path)
        assert connection.pragma("user_version") == 5
        assert len(caplog.messages) == 3
        migrate.migrate(connection, "store", path)
        assert connection.pragma("user_version") == NEWEST
    assert len(caplog.messages) == 3
