"""Migrations: from the oldest fixture to now, one transaction each."""

import contextlib
import json
import sqlite3
from pathlib import Path

import apsw
import pytest

from panic.errors import StoreError
from panic.store import Store, check, dump, migrate, reading

FIXTURES = Path(__file__).parent / "fixtures"


@pytest.fixture
def oldest(folder):
    """A store of version 1, built from its text."""
    folder.mkdir()
    for name in ("store", "images"):
        with contextlib.closing(sqlite3.connect(folder / f"{name}.sqlite")) as connection:
            connection.executescript((FIXTURES / f"0001.{name}.sql").read_text(encoding="utf-8"))
    return folder


def fixture_dump():
    return [json.loads(line) for line in (FIXTURES / "0001.dump.jsonl").read_text().splitlines()]


def test_the_oldest_store_is_brought_up_to_date(oldest):
    with Store(oldest, write=True) as store:
        assert check.check(store) == []
        assert list(dump.dump(store)) == fixture_dump()
        assert [row.state for row in reading.runs(store, "alpha")] == ["stuck", "done", "failed", "todo"]
    with Store(oldest) as store:
        assert list(dump.dump(store)) == fixture_dump()


def test_migrations_are_numbered_without_gaps():
    for kind in ("store", "images"):
        names = sorted(path.name for path in (Path(migrate.__file__).parent / "migrations" / kind).iterdir())
        assert names == [f"{number:04d}.sql" for number in range(1, len(names) + 1)]


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


def test_a_reader_of_an_older_store_says_how_to_update(folder, sample, monkeypatch):
    later(monkeypatch, "ALTER TABLE stuck ADD COLUMN certainty REAL;")
    with pytest.raises(StoreError, match="schema version") as raised:
        Store(folder)
    assert "panic resume brings the store up to date" in raised.value.hint
    with Store(folder, write=True) as store:
        assert store.db.value("SELECT count(certainty) FROM stuck") == 0
    with Store(folder) as store:
        assert check.check(store) == []
