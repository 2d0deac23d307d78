"""Files that may not be written, also where root runs the tests, who may write everywhere.

with folder_of_others() as folder:
    shutil.copytree(store, folder / "store")
    ...                                  # modes that allow nothing but reading
    with without_rights():
        Store(folder / "store")
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

NOBODY = 65534


@contextlib.contextmanager
def without_rights() -> Iterator[None]:
    """In the block modes of files hold for this process, whoever it runs as.

    No child is forked for it: what another thread has locked at that moment stays locked in a child.
    """
    is_root = os.geteuid() == 0
    if is_root:
        try:
            os.setresuid(NOBODY, NOBODY, 0)
        except (AttributeError, OSError) as error:
            pytest.skip(f"root cannot be somebody else here: {error}")
    try:
        yield
    finally:
        if is_root:
            os.setresuid(0, 0, 0)


@contextlib.contextmanager
def folder_of_others() -> Iterator[Path]:
    """A folder that everybody may read and nobody but its owner write; TMPDIR may be a private place."""
    place = next(filter(_is_open, map(Path, (tempfile.gettempdir(), "/tmp", "/var/tmp"))), None)
    if place is None:
        pytest.skip("there is no folder that everybody may enter")
    folder = Path(tempfile.mkdtemp(dir=place))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        for path in (folder, *folder.rglob("*")):
            if path.is_dir():
                path.chmod(0o755)
        shutil.rmtree(folder)


def _is_open(place: Path) -> bool:
    """Whether everybody may enter a folder, and its owner of the tests write there."""
    way = (place.resolve(), *place.resolve().parents)
    return place.is_dir() and os.access(place, os.W_OK) and all(part.stat().st_mode & 0o001 for part in way)
