"""Shards of one experiment as one store: what `panic merge` makes of their stores, for as long as one asks.

merged = Merged()
merged.path({"0": "shard-0", "1": "shard-1"}, folder)       # again: only what is new comes
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from panic.errors import StoreMissing
from panic.store import Store, reading
from panic.store.annotations import run_uid
from panic.store.merging.merge import merge
from panic.store.records import RunRow
from panic.store.store import FILES

MOST_IMAGE_BYTES = 2**29
"""Images come along where those of all stores take no more: charts have few, a wall asks the stores."""


class Merged:
    """The last stores that were asked for, merged in a folder of ours, and what did not agree.

    conflicts: sentences on what was left out.
    """

    def __init__(self) -> None:
        self.conflicts: list[str] = []
        self._known: tuple[Path, list[int]] | None = None

    def path(self, stores: Mapping[str, str], folder: Path) -> Path:
        """The folder of the merged store, in `folder`, with all that the stores (paths by key) have now.

        Raises StoreMissing and what merging does. After a kill the next question goes on with it.
        """
        paths = [Path(path) for path in stores.values()]
        files = [(str(path), *_file(path)) for path in paths]
        target = folder / hashlib.sha256(repr(files).encode()).hexdigest()[:16]
        revisions = []
        for path in paths:
            with Store(path, copy_older=True) as store:
                revisions.append(store.revision)
        if self._known == (target, revisions):
            return target
        self._known = None
        for other in folder.glob("*"):
            if other != target:
                shutil.rmtree(other, ignore_errors=True)
        with_images = sum(_image_bytes(path) for path in paths) <= MOST_IMAGE_BYTES
        self.conflicts = merge(paths, target, with_images=with_images).conflicts
        self._known = target, revisions
        return target


def _file(path: Path) -> tuple[int, int]:
    """Which file is at the path of a store now. Raises StoreMissing."""
    try:
        about = os.stat(path / FILES[0])
    except OSError:
        raise StoreMissing("A store is gone.", hint="It was moved or removed.") from None
    return about.st_dev, about.st_ino


def _image_bytes(path: Path) -> int:
    with suppress(OSError):
        return os.stat(path / FILES[1]).st_size
    return 0


def numbers(stores: Mapping[str, str], name: str) -> dict[str, tuple[str, int]]:
    """Where the runs of an experiment are, by uid: the key of a store, and the number there."""
    parts = []
    for key, path in stores.items():
        with Store(Path(path), copy_older=True) as store:
            parts.append((key, reading.runs(store, reading.experiment(store, name).id)))
    return {uid: (key, run.id) for uid, (key, run) in each_once(parts, name).items()}


def each_once(parts: Iterable[tuple[str, Sequence[RunRow]]], name: str) -> dict[str, tuple[str, RunRow]]:
    """Runs of an experiment of this name, by uid, with the store (its key) that each is taken from.

    Of a run that several stores have, it is the one where it is longest, of those one that is to be longest,
    of those one that has ended, or the first: another one may be a snapshot of earlier. (Of a run that failed
    and goes on again without a step so far, the failed one is taken: numbers do not tell.)
    """
    found: dict[str, tuple[str, RunRow]] = {}
    for key, runs in parts:
        for run in runs:
            uid = run_uid(name, run)
            if uid not in found or _reached(run) > _reached(found[uid][1]):
                found[uid] = key, run
    return found


def _reached(run: RunRow) -> tuple[int, int, bool]:
    return run.num_steps, run.max_length, run.state not in ("todo", "running")
