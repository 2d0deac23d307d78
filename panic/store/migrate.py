"""Numbered migrations: `migrations/<file>/<number>.sql`, each applied in one transaction.

A shipped migration is never edited; a change of the schema is a new number. The version of a file is
its `PRAGMA user_version`, and `PRAGMA application_id` says that the file is one of ours.
"""

from __future__ import annotations

import logging
from importlib import resources
from pathlib import Path

import apsw

from panic.errors import StoreCorrupt, StoreMissing, StoreTooNew, StoreTooOld

log = logging.getLogger("panic.store")

APPLICATION_ID = 0x70616E69  # "pani"

NAMES_ARE_UNIQUE = 5
"""The version of a store from which on no two experiments have one name."""


def migrations(kind: str) -> list[str]:
    """The SQL of every migration of a kind of file ("store" or "images"), oldest first."""
    folder = resources.files("panic.store") / "migrations" / kind
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".sql")), key=lambda f: f.name)
    return [file.read_text(encoding="utf-8") for file in files]


def file_version(connection: apsw.Connection, path: Path) -> int:
    """Schema version of a file; 0 is an empty file. StoreCorrupt if it is somebody else's database."""
    version: int = connection.pragma("user_version")
    application = connection.pragma("application_id")
    empty = connection.execute("SELECT count(*) FROM sqlite_schema").get == 0
    if application != APPLICATION_ID and not empty:
        raise StoreCorrupt(f"{path} is an SQLite database, but not of a panic store.")
    return version


def require_current(connection: apsw.Connection, kind: str, path: Path) -> None:
    """Raise unless the file has exactly the schema that this version of panic reads."""
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


def migrate(connection: apsw.Connection, kind: str, path: Path) -> None:
    """Bring a file from whatever version it has to the newest one, one transaction per version."""
    scripts = migrations(kind)
    connection.execute("PRAGMA foreign_keys=OFF")
    before = file_version(connection, path)
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
