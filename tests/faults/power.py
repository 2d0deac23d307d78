"""Power cuts: every write of a store is recorded, and its files are made again as a disk may have them then.

What SQLite asks of the disk (create, write, truncate, sync, delete) passes through a VFS that keeps it. A cut
is a place in that list. What was synced before it is on the disk; of the rest the disk may have nothing, all,
the beginning, any part, or pieces of 512 bytes.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import random
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import apsw

from panic import run
from panic.config import ExperimentConfig
from tests.faults import experiment as tried

SECTOR = 512
FATES = ("dropped", "kept", "cut off", "reordered", "torn")
"""What may become of events that were not synced."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """What was asked of a file. offset: of a write, or the size that it is truncated to.

    is_folder_synced: the names of all files are on the disk after it, too.
    """

    file: str
    kind: Literal["create", "write", "truncate", "sync", "delete"]
    offset: int = 0
    data: bytes = b""
    is_folder_synced: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """The files of a store at the beginning, and what happened to them."""

    before: dict[str, bytes]
    events: list[Event]


class _Recorder(apsw.VFS):
    """SQLite's own VFS for this system, which tells of every event; the default while it is registered."""

    def __init__(self, folder: Path, events: list[Event]) -> None:
        self._folder, self._events, self._lock = folder, events, threading.Lock()
        super().__init__("recorder", "unix", makedefault=True)

    def tell(self, path: str | None, kind: Any, **more: Any) -> None:
        if path is not None and Path(path).parent == self._folder:
            with self._lock:
                self._events.append(Event(file=Path(path).name, kind=kind, **more))

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:  # noqa: N802
        return _File(self, name, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:  # noqa: N802
        super().xDelete(filename, syncdir)
        self.tell(filename, "delete", is_folder_synced=syncdir)


class _File(apsw.VFSFile):
    def __init__(self, recorder: _Recorder, name: Any, flags: list[int]) -> None:
        self._recorder = recorder
        self._path: str | None = name if isinstance(name, str | None) else name.filename()
        is_new = self._path is not None and not os.path.exists(self._path)
        super().__init__("unix", name, flags)
        # Of a journal or log that it has made, SQLite syncs the folder with the first sync of the file.
        self._syncs_folder = is_new and not flags[0] & apsw.SQLITE_OPEN_MAIN_DB
        if is_new:
            recorder.tell(self._path, "create")

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802
        super().xWrite(data, offset)
        self._recorder.tell(self._path, "write", offset=offset, data=bytes(data))

    def xTruncate(self, newsize: int) -> None:  # noqa: N802
        super().xTruncate(newsize)
        self._recorder.tell(self._path, "truncate", offset=newsize)

    def xSync(self, flags: int) -> None:  # noqa: N802
        super().xSync(flags)
        self._recorder.tell(self._path, "sync", is_folder_synced=self._syncs_folder)
        self._syncs_folder = False


@contextlib.contextmanager
def recorded(store: Path) -> Iterator[Recording]:
    """Record what this process does to a store's files; other processes only read them."""
    names = [file for file in (sorted(store.iterdir()) if store.exists() else []) if ".sqlite" in file.name]
    before = {file.name: file.read_bytes() for file in names if not file.name.endswith("-shm")}
    recording = Recording(before=before, events=[])
    recorder = _Recorder(store.absolute(), recording.events)
    try:
        yield recording
    finally:
        recorder.unregister()


def rebuild(recording: Recording, cut: int, fate: str, chance: random.Random, store: Path) -> int:
    """Make a store's files as a disk may have them after a cut; returns how many events were not synced."""
    events = recording.events[:cut]
    synced = _synced(events)
    loose = [place for place in range(cut) if place not in synced and events[place].kind != "sync"]
    kept = {
        "dropped": set[int](),
        "kept": set(loose),
        "cut off": set(loose[: chance.randint(0, len(loose))]),
    }.get(fate) or {place for place in loose if fate in ("reordered", "torn") and chance.random() < 0.6}
    disk = {name: bytearray(data) for name, data in recording.before.items()}
    for place, event in enumerate(events):
        if place in synced:
            _apply(event, disk)
        elif place in kept:
            for piece in _pieces(event, chance) if fate == "torn" else [event]:
                _apply(piece, disk)
    store.mkdir()
    for name, content in disk.items():
        (store / name).write_bytes(content)
    (store / "lock").write_bytes(b'{"pid": 1, "host": "x", "started_at": 1.0}'[: chance.randint(0, 50)])
    return len(loose)


def _synced(events: list[Event]) -> set[int]:
    """The events that are on the disk whatever happens: those before a sync of their file or folder."""
    found = set()
    files: set[str] = set()
    is_folder_synced = False
    for place in range(len(events) - 1, -1, -1):
        event = events[place]
        is_name = event.kind in ("create", "delete")
        if is_folder_synced if is_name else event.file in files:
            found.add(place)
        if event.kind == "sync":
            files.add(event.file)
        is_folder_synced |= event.is_folder_synced
    return found


def _pieces(event: Event, chance: random.Random) -> list[Event]:
    """Some sectors of a write; anything else happens whole."""
    if event.kind != "write":
        return [event]
    starts = range(event.offset - event.offset % SECTOR, event.offset + len(event.data), SECTOR)
    pieces = []
    for start in starts:
        first = max(0, start - event.offset)
        data = event.data[first : start + SECTOR - event.offset]
        if chance.random() < 0.5:
            pieces.append(Event(file=event.file, kind="write", offset=event.offset + first, data=data))
    return pieces


def _apply(event: Event, disk: dict[str, bytearray]) -> None:
    if event.kind == "create":
        disk[event.file] = bytearray()
    elif event.kind == "delete":
        disk.pop(event.file, None)
    elif (content := disk.get(event.file)) is not None:  # a file whose name was lost has lost its content
        if event.kind == "truncate":
            del content[event.offset :]
        elif event.kind == "write":
            content.extend(bytes(max(0, event.offset - len(content))))
            content[event.offset : event.offset + len(event.data)] = event.data


def power_cut(folder: Path, chance: random.Random, whole: Path) -> str:
    """A power cut at any moment of two sessions, sometimes a second one when it goes on."""
    wanted, whole = quick(), whole.with_name("whole-quick")
    recording, told, store = _two_sessions(whole), [], folder / "store0"
    for number in range(1 + (chance.random() < 0.3)):
        store = folder / f"store{number}"
        cut, fate = _moment(recording.events, chance), chance.choice(FATES)
        loose = rebuild(recording, cut, fate, chance, store)
        told.append(f"after {cut} of {len(recording.events)} events, {loose} not synced: {fate}")
        tried.require_sound(store)
        with recorded(store) as recording:
            run(wanted, store)
    tried.require_same(store, whole)
    return "; ".join(told)


def quick(**changes: Any) -> ExperimentConfig:
    """The experiment with models that do not wait: nobody has to hit its work in time."""
    models = {name: {**model, "delay_s": 0} for name, model in tried.CONFIG["models"].items()}
    return tried.config(models=models, **changes)


def _moment(events: list[Event], chance: random.Random) -> int:
    """A place in a list of events: any, or beside a sync, or while a log is moved into its file."""
    places = list(range(len(events) + 1))
    if chance.random() < 0.5:
        rare = ("sync", "truncate", "delete", "create")
        beside = [place for place in places[:-1] if events[place].kind in rare]
        moves = [place for place in places[:-1] if events[place].file.endswith(".sqlite")]
        places = chance.choice([beside, moves]) or places
    return min(len(events), chance.choice(places) + chance.randint(0, 1))


def _two_sessions(whole: Path) -> Recording:
    """The recording of the experiment in two sessions, so that logs are emptied and used again; kept."""
    kept = whole.with_name("recorded.pickle")
    if not kept.exists():
        run(quick(), whole)
        store = whole.with_name("recorded")
        with recorded(store) as recording:
            run(quick(prompts=tried.CONFIG["prompts"][:2]), store)
            run(quick(), store)
        tried.require_same(store, whole)
        kept.write_bytes(pickle.dumps(recording))
    recording = pickle.loads(kept.read_bytes())
    assert isinstance(recording, Recording)
    return recording
