"""The curves of a training, as its journal's CSV files beside the model have them.

columns(Path("checkpoints/mine.training/loss.csv"))["loss"]
"""

from __future__ import annotations

import csv
import io
import math
import os
import stat
from pathlib import Path

MOST_BYTES = 64 * 2**20
MOST_ROWS = 4_000


def columns(path: Path, most: int = MOST_ROWS) -> dict[str, list[float | None]]:
    """The columns of a journal's CSV; of very many rows every n-th, and the last."""
    data = read_regular(path)
    if data is None:
        return {}
    try:
        rows = list(csv.DictReader(io.StringIO(data.decode(errors="replace"))))
    except csv.Error:  # a field of more than 128 KiB, say
        return {}
    stride = -(-len(rows) // most) or 1
    kept = rows[::stride] + (rows[-1:] if (len(rows) - 1) % stride else [])
    return {name: [_number(row.get(name)) for row in kept] for name in (rows[0] if rows else {}) if name}


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "nan")
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def read_regular(path: Path) -> bytes | None:
    """A regular file of a sensible size; None for all else, links among it."""
    try:
        opened = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    with open(opened, "rb") as file:
        about = os.fstat(opened)
        if not stat.S_ISREG(about.st_mode) or about.st_size > MOST_BYTES:
            return None
        return file.read()
