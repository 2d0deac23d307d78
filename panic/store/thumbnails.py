"""Small copies of images, kept by digest beside the store, else in the user's cache; they can be deleted.

with Thumbnails(store_path) as thumbnails:
    thumbnails.get(store, digest, 128)           # encoded WebP
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import apsw

from panic.store import contents
from panic.store.codec import decode_image
from panic.store.files import connect, network_file_system
from panic.store.store import Store

NAME = "thumbnails.sqlite"
SIDES = (64, 128, 256)
"""Longest sides that thumbnails come in, in pixels."""
QUALITY = 80
SCHEMA = (
    "CREATE TABLE IF NOT EXISTS thumbnail (digest BLOB NOT NULL, side INTEGER NOT NULL, bytes BLOB NOT NULL,"
    " UNIQUE (digest, side)) STRICT"
)


class Thumbnails:
    """The thumbnails of one store; any thread may ask. Without a place to keep them each is made again.

    shrink: makes them, as `shrunk` does.
    """

    def __init__(self, folder: Path, shrink: Callable[[bytes, int], bytes] | None = None) -> None:
        self._lock = threading.Lock()
        self._shrink = shrink or shrunk
        self._kept = _open(folder)

    def get(self, store: Store, digest: str, side: int) -> bytes:
        """WebP of an image whose longest side is at most `side`; a smaller image comes as it is stored.

        Raises NotFound, or StoreCorrupt if the pixels are missing or damaged.
        """
        if found := self.kept([digest], side):
            return found[digest]
        return self.made(contents.image_bytes(store, bytes.fromhex(digest)), digest, side)

    def kept(self, digests: Sequence[str], side: int) -> dict[str, bytes]:
        """Those of these thumbnails that have been made before, by digest."""
        found = {}
        with self._lock, contextlib.suppress(apsw.Error):
            for digest in digests:
                sql = "SELECT bytes FROM thumbnail WHERE digest = ? AND side = ?"
                for (data,) in self._rows(sql, bytes.fromhex(digest), side):
                    found[digest] = data
        return found

    def made(self, data: bytes, digest: str, side: int) -> bytes:
        """The thumbnail of an encoded image, which is kept from now on."""
        small = self._shrink(data, side)
        if small is not data:
            with self._lock, contextlib.suppress(apsw.Error):  # a full disk costs time only
                sql = "INSERT OR IGNORE INTO thumbnail VALUES (?, ?, ?)"
                self._rows(sql, bytes.fromhex(digest), side, small)
        return small

    def _rows(self, sql: str, *parameters: object) -> list[tuple[bytes]]:
        rows: Any = [] if self._kept is None else self._kept.execute(sql, parameters).fetchall()
        return cast("list[tuple[bytes]]", rows)

    def close(self) -> None:
        """Close the file."""
        if self._kept is not None:
            self._kept.close()


def shrunk(data: bytes, side: int) -> bytes:
    """WebP of at most `side` pixels of an encoded image; the same bytes where it is no larger."""
    from PIL import Image

    try:
        image = decode_image(data)
    except ValueError:
        return data  # the browser says that it is damaged
    if max(image.size) <= side:
        return data
    image.thumbnail((side, side), Image.Resampling.BICUBIC, reducing_gap=1.0)
    file = io.BytesIO()
    image.save(file, "WEBP", quality=QUALITY, method=0)
    return file.getvalue()


def _open(folder: Path) -> apsw.Connection | None:
    """The file beside the store or in the user's cache; None where neither can be written."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "panic" / "thumbnails"
    own = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:16]
    beside = [] if network_file_system(folder) else [folder / NAME]
    for path in (*beside, cache / f"{own}.sqlite"):
        with contextlib.suppress(apsw.Error, OSError):
            if path.is_symlink():
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            connection = connect(path)
            try:
                connection.set_busy_timeout(200)
                connection.execute("PRAGMA journal_mode=WAL")
                connection.execute("PRAGMA synchronous=OFF")
                connection.execute("PRAGMA cache_size=-4096")
                connection.execute(SCHEMA)
            except apsw.Error:
                connection.close()
                continue
            return connection
    return None
