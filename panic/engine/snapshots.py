"""Snapshots of a store while an experiment is performed in it: now and then, and once more at the end.

A thread of its own takes those in between, with its own connections, beside the driver. One that fails is
told and tried again at its next time; the last one has to succeed.

    with keeping_snapshots(config.snapshot, store):
        perform(session)
"""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from panic.config import SnapshotSettings
from panic.errors import Interrupted, PanicError
from panic.store import Store
from panic.store.snapshot import require_target, snapshot

log = logging.getLogger("panic.engine")


@contextlib.contextmanager
def keeping_snapshots(settings: SnapshotSettings, store: Store) -> Iterator[None]:
    """Take snapshots of a store for as long as the block lasts, and one when it ends, however it ends.

    Raises StoreError at once for a folder that holds something else, and what the last one raises, also where
    the block was asked to stop: whoever thinks it is stored there would delete the store. Of a block that has
    raised something else, that is told.
    """
    require_target(store, settings.to)
    ending = threading.Event()
    keeper = threading.Thread(
        target=_keep, args=(settings, store.path, ending), name="snapshots", daemon=True
    )
    keeper.start()
    try:
        yield
    finally:
        is_failing = not isinstance(sys.exception(), Interrupted | None)
        ending.set()
        keeper.join()
        try:
            taken = snapshot(store.path, settings.to)
            log.info("snapshot in %s: %d bytes", settings.to, taken.num_bytes)
        except (PanicError, OSError) as error:
            if not is_failing:
                raise
            log.error("the last snapshot was not taken: %s", error)


def _keep(settings: SnapshotSettings, store: Path, ending: threading.Event) -> None:
    """Take a snapshot whenever its time has come; what is under way when the work ends is given up."""

    def tell(what: str, done: int, total: int) -> None:
        if ending.is_set():
            raise Interrupted("the last snapshot comes instead")

    while not ending.wait(min(settings.every_s, threading.TIMEOUT_MAX)):
        try:
            taken = snapshot(store, settings.to, tell=tell)
            log.debug("snapshot in %s: %d bytes", settings.to, taken.num_bytes)
        except Interrupted:
            pass  # it is given up
        except Exception as error:
            log.warning("no snapshot in %s: %s", settings.to, error)
