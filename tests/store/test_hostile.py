"""Stores that are not trusted: what they hold in place of ours is refused before anything of it is used."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from pydantic import TypeAdapter, ValidationError

from panic.config.fields import ExperimentName
from panic.errors import StoreCorrupt, StoreError
from panic.store import Store, contents, reading
from panic.store.migrate import migrations
from tests.store.sample import fill, picture


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with Store(tmp_path / "store", write=True, create=True) as store:
        fill(store)
    return tmp_path / "store"


def change(file: Path, *statements: str, parameters: tuple[object, ...] = ()) -> None:
    """Change a closed file behind panic's back."""
    connection = sqlite3.connect(file)
    for statement in statements:
        connection.execute(statement, parameters)
    connection.commit()
    connection.close()


def first_image(store: Store) -> str:
    return next(row.digest for row in contents.outputs(store) if row.modality == "image")


@pytest.mark.parametrize(
    ("file", "statement"),
    [
        ("store.sqlite", "CREATE TRIGGER t AFTER INSERT ON session BEGIN DELETE FROM run; END"),
        ("store.sqlite", "CREATE VIEW v AS SELECT load_extension('x')"),
        ("store.sqlite", "CREATE INDEX i ON run (abs(seed))"),
        ("store.sqlite", "ALTER TABLE run ADD COLUMN more TEXT"),
        ("images.sqlite", "CREATE TRIGGER t AFTER INSERT ON image BEGIN DELETE FROM image; END"),
    ],
)
@pytest.mark.parametrize("write", [False, True])
def test_what_the_migrations_do_not_make_is_refused(
    folder: Path, file: str, statement: str, write: bool
) -> None:
    change(folder / file, statement)
    with pytest.raises(StoreCorrupt, match="panic did not make"), Store(folder, write=write) as store:
        contents.image(store, first_image(store))


def test_a_view_in_place_of_a_table_is_refused(folder: Path) -> None:
    change(folder / "store.sqlite", "DROP TABLE stuck", "CREATE VIEW stuck AS SELECT 1 AS run")
    with pytest.raises(StoreCorrupt, match="view 'stuck'"):
        Store(folder)


def test_an_older_store_with_a_trigger_is_refused_before_it_is_migrated(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    connection = sqlite3.connect(tmp_path / "old" / "store.sqlite")
    connection.executescript(migrations("store")[0])
    connection.execute("PRAGMA application_id=1885433449")
    connection.execute("PRAGMA user_version=1")
    connection.execute("CREATE TRIGGER t AFTER INSERT ON annotation BEGIN DELETE FROM run; END")
    connection.commit()
    connection.close()
    with pytest.raises(StoreCorrupt, match="trigger 't'"):
        Store(tmp_path / "old", write=True, create=True)


def test_connections_do_not_trust_the_file(folder: Path) -> None:
    for write in (False, True):
        with Store(folder, write=write) as store:
            for database in (store.db, store.images):
                assert database.value("PRAGMA trusted_schema") == 0
                assert database.value("PRAGMA cell_size_check") == 1
                database.execute("PRAGMA writable_schema=ON")
                assert not database.value("PRAGMA writable_schema")  # defensive mode


@pytest.mark.parametrize("name", ["../../x", "/tmp/x", "a/b", "..", "x\0y", "\x1b[2J"])
def test_a_name_that_is_a_path_is_refused_when_it_is_read(folder: Path, name: str) -> None:
    change(folder / "store.sqlite", "UPDATE experiment SET name = ? WHERE id = 1", parameters=(name,))
    with Store(folder) as store, pytest.raises(StoreCorrupt, match="a name that is none"):
        reading.experiment(store, "latest")


def test_names_of_null_models_are_the_only_ones_with_a_slash_and_no_config_can_say_them() -> None:
    for name in ("a/null-shuffled", "A.b_c/null-sphere_walk-images"):
        assert reading.is_name(name)
        assert reading.is_null(name)
        assert "/" not in reading.file_stem(name)
        with pytest.raises(ValidationError):
            TypeAdapter(ExperimentName).validate_python(name)
    for name in ("a/b", "a/null-", "a/null-x/y", "a/null-../x", "/null-x", "../null-x", "a/null-x\n"):
        assert not reading.is_name(name)
    assert not reading.is_null("a")


@pytest.mark.parametrize(
    "name", ["a", "a-2", "A.b_c", "latest", "", ".a", "-a", "a/b", "a b", "a\n", "\u00e4"]
)
def test_the_store_and_the_config_have_one_idea_of_names(name: str) -> None:
    try:
        TypeAdapter(ExperimentName).validate_python(name)
    except ValidationError:
        assert not reading.is_name(name)
    else:
        assert reading.is_name(name)


def test_an_id_that_is_a_path_is_refused_when_it_is_read(folder: Path) -> None:
    change(folder / "store.sqlite", f"UPDATE experiment SET uid = '{'../' * 10}ab' WHERE id = 1")
    with Store(folder) as store, pytest.raises(StoreCorrupt, match="an id that is none"):
        reading.experiments(store)


@pytest.mark.parametrize("name", ["lock", "store.sqlite", "images.sqlite"])
def test_a_link_in_place_of_a_file_of_the_store_is_refused(folder: Path, tmp_path: Path, name: str) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(b"precious")
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(outside)
    with pytest.raises(StoreError, match="is a link"):
        Store(folder, write=True, create=True)
    assert outside.read_bytes() == b"precious"


def test_an_image_in_another_format_is_damaged_and_not_decoded(folder: Path) -> None:
    picture(1).save(folder / "x.eps")
    change(
        folder / "images.sqlite", "UPDATE image SET bytes = ?", parameters=((folder / "x.eps").read_bytes(),)
    )
    with Store(folder) as store, pytest.raises(StoreCorrupt, match="no WebP"):
        contents.image(store, first_image(store))
