"""Pictures from files: any that Pillow reads becomes a square of 8-bit RGB.

python -c "from panic.train.pictures import load; print(load('photo.jpg', 64).shape)"
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from panic.train.data import DataError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")


def check(path: Path) -> None:
    """Decode a picture to the end (headers of cut-off files are whole).

    Raises DataError.
    """
    load(path, 8)


def load(path: Path, size: int) -> np.ndarray:
    """The middle of a picture: (size, size, 3) uint8.

    Raises DataError if the file is damaged or has a kind of pixels without a natural range.
    """
    try:
        with Image.open(path) as picture:
            picture.draft(None, (size, size))  # JPEG: decode no more pixels than needed
            return square(picture, size)
    except Exception as error:  # Pillow raises whatever its decoders met
        raise DataError(f"{path}: this picture cannot be read ({error})") from error


def square(picture: Image.Image, size: int) -> np.ndarray:
    """The middle of a picture as it is to be seen: turned as its camera was held, transparent parts white."""
    picture = ImageOps.exif_transpose(picture)
    side = min(picture.size)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    cut = _rgb(picture.crop((left, top, left + side, top + side)))
    return np.asarray(cut.resize((size, size), Image.Resampling.LANCZOS))


def _rgb(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I;16"):  # Pillow would cut values above 255
        deep = np.asarray(picture).astype(np.float32)
        return Image.fromarray((deep / 257).round().astype(np.uint8)).convert("RGB")
    if picture.mode in ("I", "F"):
        raise ValueError(f"pixels of mode {picture.mode} have no known range: save it with 8 or 16 bits")
    if picture.has_transparency_data:
        seen = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", seen.size, "white"), seen).convert("RGB")
    return picture.convert("RGB")
