"""Numbered migrations: `migrations/<file>/<number>.sql`, each applied in one transaction.

A shipped migration is never edited; a change of the schema is a new number. The version of a file is
its `PRAGMA user_version`, and `PRAGMA application_id` says that the file is one of ours. Its schema has to be
what the migrations make, to the letter: a view, a trigger or a table of somebody else's in place of ours
would run or say what its maker likes.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import apsw

from panic.errors import StoreCorrupt, StoreMissing, StoreTooNew, StoreTooOld

log = logging.getLogger("panic.store")

APPLICATION_ID = 0x70616E69  # "pani"

SCHEMAS = {
    "store": "26fd965cb7e3fbbbb23eb40058b23d5e7ab2930c951e2ac7b06df78ccc743b43",
    "images": "cff3400ee43e99253e5b364eb24ef98c13e4090d70ffd02e83dbdc8b0e331a6c",
}
"""The digest of the newest schema of each kind of file. What has it need not be compared with what all
migrations make, which takes 9 ms; what has another one is. A test compares them."""
NAMES_ARE_UNIQUE = 5
"""The version of a store from which on no two experiments have one name."""


@cache
def migrations(kind: str) -> tuple[str, ...]:
    """The SQL of every migration of a kind of file ("store" or "images"), oldest first."""
    files = sorted((Path(__file__).parent / "migrations" / kind).glob("*.sql"))
    return tuple(file.read_text(encoding="utf-8") for file in files)


def file_version(connection: apsw.Connection, path: Path) -> int:
    """Schema version of a file; 0 is an empty file. StoreCorrupt if it is somebody else's database."""
    version: int = connection.pragma("user_version")
    application = connection.pragma("application_id")
    empty = connection.execute("SELECT count(*) FROM sqlite_schema").get == 0
    if application != APPLICATION_ID and not empty:
        raise StoreCorrupt(f"{path} is an SQLite database, but not of a panic store.")
    return version


@cache
def expected_schema(kind: str, version: int) -> Mapping[tuple[str, str], str]:
    """What the migrations up to a version make: the SQL by type and name."""
    with apsw.Connection(":memory:") as connection:
        for script in migrations(kind)[:version]:
            connection.execute(script)
        found = schema(connection)
    connection.close()
    return found


def schema(connection: apsw.Connection) -> dict[tuple[str, str], str]:
    """The SQL of all that a database holds, by type and name; SQLite's own indices have none."""
    rows = connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_schema")
    return {(kind, name): " ".join((sql or f"on {table}").split()) for kind, name, table, sql in rows}


def schema_digest(found: Mapping[tuple[str, str], str]) -> str:
    """SHA-256 of a schema."""
    return hashlib.sha256(json.dumps(sorted((*key, sql) for key, sql in found.items())).encode()).hexdigest()


def missing_from(connection: apsw.Connection, kind: str) -> list[str]:
    """Which tables and indices a file of the newest version lacks."""
    expected = expected_schema(kind, len(migrations(kind)))
    gone = expected.keys() - schema(connection).keys()
    return [f"the {what} {name} is missing" for what, name in sorted(gone)]


def require_own_schema(
    connection: apsw.Connection, kind: str, path: Path, version: int, *, is_whole: bool = True
) -> None:
    """Raise StoreCorrupt if a file of this version holds other things than the migrations make.

    is_whole: raise also if something is missing.
    """
    expected, found = expected_schema(kind, version), schema(connection)
    foreign = [name for name in sorted(found) if expected.get(name) != found[name]]
    if foreign:
        listed = ", ".join(f"{what} {name!r}" for what, name in foreign[:3])
        raise StoreCorrupt(
            f"{path} holds what panic did not make, or made otherwise: {listed}.",
            hint="Do not trust this file. If it is yours, it has to come from a backup.",
        )
    if is_whole and (gone := sorted(expected.keys() - found.keys())):
        listed = ", ".join(f"{what} {name}" for what, name in gone[:3])
        raise StoreCorrupt(
            f"{path} is damaged: it lacks the {listed}.",
            hint=f"It has to come from a backup. What is affected: panic check --store {path.parent}",
        )


def require_current(connection: apsw.Connection, kind: str, path: Path, *, is_whole: bool = True) -> None:
    """Raise unless the file has exactly the schema that this version of panic reads.

    is_whole: raise also if something of it is missing, which `panic check` tells of otherwise.
    """
    version, newest = file_version(connection, path), len(migrations(kind))
    if version > newest:
        raise StoreTooNew(
            f"{path} has schema version {version}; this panic knows versions up to {newest}.",
            hint="Upgrade panic (the version that wrote the store, or a later one). The store is unharmed.",
        )
    if version == 0:
        raise StoreMissing(
            f"{path} is empty: the store was never finished being created.",
            hint="The command that was creating it finishes it when it is run again.",
        )
    if version < newest:
        raise StoreTooOld(
            f"{path} has schema version {version}; this panic reads version {newest}.",
            hint="panic resume brings the store up to date, and so does panic run.",
        )
    if schema_digest(schema(connection)) != SCHEMAS[kind]:
        require_own_schema(connection, kind, path, version, is_whole=is_whole)


def migrate(connection: apsw.Connection, kind: str, path: Path) -> None:
    """Bring a file from whatever version it has to the newest one, one transaction per version."""
    scripts = migrations(kind)
    connection.execute("PRAGMA foreign_keys=OFF")
    before = file_version(connection, path)
    if before <= len(scripts):
        require_own_schema(connection, kind, path, before)
    for version in range(before + 1, len(scripts) + 1):
        try:
            connection.execute(
                f"BEGIN IMMEDIATE;\n{scripts[version - 1]}\n"
                f"PRAGMA application_id={APPLICATION_ID};\nPRAGMA user_version={version};\nCOMMIT;"
            )
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
    connection.execute("PRAGMA foreign_keys=ON")
    require_current(connection, kind, path)
    if kind == "store" and 0 < before < NAMES_ARE_UNIQUE <= len(scripts):
        _tell_new_names(connection, path)


def _tell_new_names(connection: apsw.Connection, path: Path) -> None:
    """Say which experiments have another name now."""
    for uid, name, former in connection.execute(
        "SELECT uid, name, text FROM annotation JOIN experiment ON uid = target"
        " WHERE kind = 'former name' AND author = 'panic' ORDER BY experiment.id"
    ):
        log.warning(
            "%s: several experiments were called %s; the one with the id %s is now %s",
            *(path.parent, former, uid[:12], name),
        )
