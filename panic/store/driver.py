"""The process that writes into a store, seen from another one: which it is, and asking it to stop.

holder = store.lock_holder
if holder:
    ask_to_stop(store.path, holder)
"""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

from panic.errors import StoreError
from panic.store.files import LockHolder


def ask_to_stop(folder: Path, holder: LockHolder) -> None:
    """Ask the process that holds the lock of a store to stop, as Ctrl-C does once.

    Raises StoreError where it is on another machine or of another user, or if the process of this number is
    not the one: it may be in a container of its own.
    """
    if holder.host != socket.gethostname():
        raise StoreError(
            f"{folder} is written by process {holder.pid} on {holder.host}: this is {socket.gethostname()}.",
            hint=f"Stop it there: panic stop, or kill {holder.pid}.",
        )
    if not _has_lock(holder.pid, folder / "lock"):
        raise StoreError(
            f"{folder} is written by process {holder.pid}, which cannot be seen from here.",
            hint="It may be in another container: stop it there.",
        )
    try:
        os.kill(holder.pid, signal.SIGTERM)
    except ProcessLookupError:
        return  # it has just ended
    except PermissionError:
        raise StoreError(
            f"Process {holder.pid}, which writes {folder}, is of another user.",
            hint="Ask that user to stop it.",
        ) from None


def _has_lock(pid: int, lock: Path) -> bool:
    """Whether a process has the lock file open, as far as this system tells; of others' it does not."""
    wanted = os.stat(lock)
    try:
        descriptors = list(Path(f"/proc/{pid}/fd").iterdir())
    except FileNotFoundError:
        return not Path("/proc/self/fd").exists()
    except PermissionError:
        return True
    for descriptor in descriptors:
        try:
            found = os.stat(descriptor)
        except OSError:
            continue
        if (found.st_dev, found.st_ino) == (wanted.st_dev, wanted.st_ino):
            return True
    return False
