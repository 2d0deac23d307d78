"""The disk of the power cuts itself, and a store whose creation is cut at every event."""

from __future__ import annotations

import contextlib
import random
from pathlib import Path

import pytest

from panic.errors import StoreMissing, StoreTooOld
from panic.store import Store, check
from tests.faults.power import FATES, Event, Recording, rebuild, recorded


def write(offset: int, data: bytes) -> Event:
    return Event(file="a.sqlite", kind="write", offset=offset, data=data)


SYNC = Event(file="a.sqlite", kind="sync", is_folder_synced=True)


@pytest.mark.parametrize(
    ("fate", "content"), [("dropped", {b"old synced"}), ("kept", {b"old synced, then more"})]
)
def test_what_was_synced_stays_and_the_rest_has_its_fate(
    tmp_path: Path, fate: str, content: set[bytes]
) -> None:
    events = [write(4, b"synced"), SYNC, write(10, b", then"), write(16, b" more"), write(0, b"never")]
    recording = Recording(before={"a.sqlite": b"old "}, events=events)
    assert rebuild(recording, 4, fate, random.Random(0), tmp_path / "store") == 2
    assert {(tmp_path / "store" / "a.sqlite").read_bytes()} == content


def test_torn_writes_are_torn_at_sectors(tmp_path: Path) -> None:
    recording = Recording(before={"a.sqlite": bytes(4096)}, events=[write(100, b"x" * 3000)])
    found = set()
    for seed in range(20):
        store = tmp_path / str(seed)
        rebuild(recording, 1, "torn", random.Random(seed), store)
        content = (store / "a.sqlite").read_bytes()
        sectors = [content[start : start + 512] for start in range(512, 3072, 512)]
        assert all(set(sector) in ({0}, {ord("x")}) for sector in sectors)
        found.add(content)
    assert len(found) > 5


def test_a_file_whose_name_was_not_synced_may_be_gone(tmp_path: Path) -> None:
    events = [Event(file="a.sqlite", kind="create"), write(0, b"x"), Event(file="a.sqlite", kind="sync")]
    rebuild(Recording(before={}, events=events), 3, "dropped", random.Random(0), tmp_path / "store")
    assert not (tmp_path / "store" / "a.sqlite").exists()


def creation(folder: Path) -> Recording:
    with recorded(folder) as recording:
        Store(folder, write=True, create=True).close()
    assert {event.kind for event in recording.events} == {"create", "write", "truncate", "sync", "delete"}
    return recording


def require_finished_by_the_next_writer(folder: Path) -> None:
    """Readers say that the creation was not finished, never that it is damaged; a writer finishes it."""
    with contextlib.suppress(StoreMissing, StoreTooOld):
        Store(folder).close()
    Store(folder, write=True, create=True).close()
    with Store(folder) as store:
        assert check.check(store) == []


def test_a_journal_of_the_first_header_is_not_told_as_a_store_that_cannot_be_written(tmp_path: Path) -> None:
    made = creation(tmp_path / "store").events
    events = [
        event for event in made if event.kind != "delete"
    ]  # that was lost, and the log's content was not
    logged = [place for place, event in enumerate(events) if event.file == "store.sqlite-wal"]
    folder = tmp_path / "cut"
    rebuild(Recording(before={}, events=events), logged[5], "kept", random.Random(0), folder)
    assert (folder / "store.sqlite-journal").stat().st_size
    assert (folder / "store.sqlite-wal").stat().st_size
    with pytest.raises(StoreMissing, match="was never finished being created"):
        Store(folder)
    require_finished_by_the_next_writer(folder)


@pytest.mark.slow
def test_a_store_whose_creation_is_cut_anywhere_is_finished_by_the_next_writer(tmp_path: Path) -> None:
    recording, chance = creation(tmp_path / "store"), random.Random(1)
    for cut in range(0, len(recording.events) + 1, 4):
        for fate in FATES:
            folder = tmp_path / f"{cut} {fate}"
            rebuild(recording, cut, fate, chance, folder)
            require_finished_by_the_next_writer(folder)
