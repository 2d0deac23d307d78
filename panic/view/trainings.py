"""Trainings whose folders were named on the command line: curves and samples, as their journals have them."""

from __future__ import annotations

import csv
import io
import math
import os
import re
import stat
from pathlib import Path
from typing import Any

from panic.errors import NotFound

CURVES = ("loss", "evaluation", "profile")
SAMPLE = re.compile(r"(\d{8,12})\.(png|txt)")
MOST_BYTES = 64 * 2**20
MOST_ROWS = 4_000
PNG = b"\x89PNG\r\n\x1a\n"


def listed(folders: list[Path]) -> dict[str, Any]:
    """The trainings by number, with the last part of their folders' names."""
    return {
        "trainings": [
            {"training": str(number), "name": folder.resolve().name} for number, folder in enumerate(folders)
        ]
    }


def training(folder: Path) -> dict[str, Any]:
    """Curves by name, columns of numbers (null where there is none), and the steps that have samples."""
    names = os.listdir(folder / "samples") if (folder / "samples").is_dir() else []
    found = [match for name in sorted(names) if (match := SAMPLE.fullmatch(name))]
    return {
        "name": folder.resolve().name,
        "curves": {name: _columns(folder / f"{name}.csv") for name in CURVES},
        "samples": [{"step": int(match[1]), "is_image": match[2] == "png"} for match in found],
    }


def sample(folder: Path, step: int) -> bytes | str:
    """The samples of an evaluation: an image (PNG) or a text. Raises NotFound."""
    image = _read(folder / "samples" / f"{step:08d}.png")
    if image is not None and image.startswith(PNG):
        return image
    text = _read(folder / "samples" / f"{step:08d}.txt")
    if text is None:
        raise NotFound(f"There are no samples of step {step}.")
    return text.decode(errors="replace")


def _columns(path: Path) -> dict[str, list[float | None]]:
    """The columns of a journal's CSV; of very many rows every n-th, and the last."""
    data = _read(path)
    if data is None:
        return {}
    try:
        rows = list(csv.DictReader(io.StringIO(data.decode(errors="replace"))))
    except csv.Error:  # a field of more than 128 KiB, say
        return {}
    stride = -(-len(rows) // MOST_ROWS) or 1
    kept = rows[::stride] + (rows[-1:] if (len(rows) - 1) % stride else [])
    return {name: [_number(row.get(name)) for row in kept] for name in (rows[0] if rows else {}) if name}


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "nan")
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _read(path: Path) -> bytes | None:
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
