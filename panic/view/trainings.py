"""Trainings whose folders were named on the command line: curves and samples, as their journals have them."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from panic.errors import NotFound
from panic.train.curves import columns, read_regular

CURVES = ("loss", "evaluation", "profile")
SAMPLE = re.compile(r"(\d{8,12})\.(png|txt)")
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
        "curves": {name: columns(folder / f"{name}.csv") for name in CURVES},
        "samples": [{"step": int(match[1]), "is_image": match[2] == "png"} for match in found],
    }


def sample(folder: Path, step: int) -> bytes | str:
    """The samples of an evaluation: an image (PNG) or a text. Raises NotFound."""
    image = read_regular(folder / "samples" / f"{step:08d}.png")
    if image is not None and image.startswith(PNG):
        return image
    text = read_regular(folder / "samples" / f"{step:08d}.txt")
    if text is None:
        raise NotFound(f"There are no samples of step {step}.")
    return text.decode(errors="replace")
