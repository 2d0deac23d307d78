"""Folders of small images, and a model that counts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.extraction.counted import Counted


def draw(path: Path, size: tuple[int, int] = (8, 8), seed: int = 0) -> Path:
    """Write an image of random pixels."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The folder photos with p_01.png to p_20.png, all of different widths, in the working folder."""
    monkeypatch.chdir(tmp_path)
    for number in range(1, 21):
        draw(tmp_path / "photos" / f"p_{number:02}.png", (number, 8), number)
    return "photos"


@pytest.fixture(autouse=True)
def _fresh() -> None:
    Counted.calls, Counted.room, Counted.broken = [], 1000, set()
