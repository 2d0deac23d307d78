"""Images in files, as their cameras were held; those that an imported file names do not leave its folder.

image = read_image(Path("chains"), "run-a/step_0.png")
"""

from __future__ import annotations

import os
import stat
import warnings
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from PIL import Image, ImageOps

from panic.engine.importing.png import inflated
from panic.store.codec import size_problem

FORMATS = ("PNG", "JPEG", "WEBP")
"""No other decoder is started: that of EPS, for one, runs a program."""


def read_image(folder: Path, name: str) -> Image.Image:
    """The image that a path within a folder names, fully decoded.

    Raises ValueError for a path that leaves the folder or goes over a link, for what is no file, for an image
    that is damaged, larger than may be stored, moving, or transparent in places.
    """
    with _open_inside(folder, name) as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of large images, which are refused below
        return decode_image(file)


def decode_image(file: BinaryIO) -> Image.Image:
    """The image in an open file, fully decoded and turned as its EXIF orientation says.

    Its mode is as in the file, without an alpha channel.

    Raises ValueError for one that is damaged, larger than may be stored, moving, or transparent in places.
    """
    try:
        with Image.open(inflated(file), formats=FORMATS) as image:
            if problem := size_problem(*image.size) or _content_problem(image):
                raise ValueError(problem)
            image.load()
            turned = _turned(_opaque(image) if image.has_transparency_data else image)
            turned.info = {}  # with it, the image would be copied once more to get rid of it
            return turned
    except (ValueError, MemoryError):
        raise
    except Image.DecompressionBombError:
        raise ValueError("image of more pixels than may be stored") from None
    except Exception as error:  # damaged bytes make Pillow raise many kinds
        raise ValueError(f"it cannot be decoded as {' or '.join(FORMATS)} ({type(error).__name__})") from None


def _turned(image: Image.Image) -> Image.Image:
    """A copy of an image as its orientation says; whoever shows images ignores EXIF data that are damaged."""
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # Pillow raises many kinds
        return image.copy()


def _content_problem(image: Image.Image) -> str:
    return "it has several frames" if getattr(image, "n_frames", 1) > 1 else ""


def _opaque(image: Image.Image) -> Image.Image:
    """An image without its alpha channel, which must say that nothing is transparent."""
    converted = image.convert("RGBA")
    if converted.getchannel("A").histogram()[255] < converted.width * converted.height:
        raise ValueError("it is transparent in places: put it on a background first")
    return converted.convert("RGB")


def _open_inside(folder: Path, name: str) -> BinaryIO:
    """Open a file, folder by folder and never over a link. Raises ValueError where that is not possible."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts or "\0" in name:
        raise ValueError(f"{name!r} leads out of the folder of the file")
    at = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for part in path.parts[:-1]:
            inner = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=at)
            os.close(at)
            at = inner
        file = os.open(path.parts[-1], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=at)
    except OSError as error:
        advice = "; folders are separated by /" if "\\" in name else ""
        raise ValueError(f"{name!r} cannot be opened, or is a link ({error.strerror}){advice}") from None
    finally:
        os.close(at)
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise ValueError(f"{name!r} is no file")
    return os.fdopen(file, "rb")
