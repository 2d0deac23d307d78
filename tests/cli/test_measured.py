"""Metrics in listings, whatever has become of the file that keeps them: it costs time alone."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

import apsw
import numpy as np
import pytest

from panic.analysis import measured
from panic.store import Store
from tests.rights import folder_of_others, without_rights

COLUMNS = ["name", "drift", "entropy"]


@pytest.fixture
def file(store: Path) -> Path:
    """The file of a store whose entropies are known, and no more."""
    with Store(store) as opened:
        measured.find(opened, columns=["name", "entropy"])
    return store / "summaries.sqlite"


def expected(store: Path) -> list[dict[str, object]]:
    with Store(store) as opened:
        found = measured.find(opened, columns=COLUMNS)
        assert len(found) == 2
        assert found[0]["drift"] is not None
        return found


def test_pages_that_are_damaged_behind_the_first_stopped_listings(store: Path, file: Path) -> None:
    content = file.read_bytes()
    file.write_bytes(content[:4096] + b"\xaa" * (len(content) - 4096))
    found = expected(store)
    assert expected(store) == found
    with apsw.Connection(str(file)) as anew:
        assert anew.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert anew.execute("SELECT count(*) FROM measured").fetchall() == [(4,)]


def test_a_reader_that_writes_for_long_stopped_listings(store: Path, file: Path) -> None:
    other = apsw.Connection(str(file))
    other.execute("BEGIN IMMEDIATE")
    found = expected(store)
    with Store(store) as opened:
        assert measured.means(opened, "entropy")
    other.execute("ROLLBACK")
    other.close()
    assert expected(store) == found


def test_a_vector_that_is_no_number_stopped_listings(store: Path) -> None:
    """What is worked out of damaged rows is no number either, and no value."""
    with Store(store, write=True) as opened:
        opened.db.connection.execute("UPDATE embedding SET vector = unhex(replace(hex(vector), '3F', '7F'))")
        blobs = [blob for (blob,) in opened.db.rows("SELECT vector FROM embedding")]
        assert not all(np.isfinite(np.frombuffer(blob, "<f4")).all() for blob in blobs)
    with Store(store) as opened:
        assert len(measured.find(opened, columns=COLUMNS)) == 2


def test_a_file_that_may_only_be_read_stopped_listings(store: Path, file: Path) -> None:
    known = expected(store)  # by now all is imported that others may not be let read
    with folder_of_others() as folder:
        shared = folder / "shared"
        shutil.copytree(store, shared)
        for path in [shared, *shared.rglob("*")]:
            path.chmod(0o555 if stat.S_ISDIR(path.stat().st_mode) else 0o444)
        before = (shared / file.name).read_bytes()
        with without_rights():
            assert not os.access(shared / file.name, os.W_OK, effective_ids=True)
            assert expected(shared) == known
        assert (shared / file.name).read_bytes() == before
