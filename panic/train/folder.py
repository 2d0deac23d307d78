"""Images of a folder as a data set, with captions from a table, from texts beside them, or by subfolder.

Everything is looked at before training starts, every image decoded once: a broken file should not end the
night's work. What is wrong is a `DataError` that names the file. Images of six formats become squares
of 8-bit RGB.

    python -c "from panic.train.folder import Folder; print(Folder('photos', size=64).validation(1)[0].texts)"
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from panic.train.data import DataError, TrainingItem

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
"""Of their contents: decoders of other formats start programs, whatever a file's name ends in."""
NUM_THREADS = min(8, os.cpu_count() or 1)  # Pillow decodes without Python's lock
Row = tuple[Path, str, int]


class Folder:
    """Images with captions. `validation` is a share of them, chosen by name: adding some moves none.

    Raises DataError for a folder that cannot be learnt from.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        size: int,
        captions: str | None = None,
        balance: bool = False,
        held_back: float = 0.05,
    ) -> None:
        self.folder, self.size = Path(folder), size
        files = _files(self.folder)
        texts = self._texts(files, captions)
        classes = [self._class(path) for path in files]
        self.labels = tuple(sorted(set(classes))) if all(classes) else ()
        if balance and len(self.labels) < 2:
            found = (
                f"only the class {self.labels[0]!r}" if self.labels else "no subfolders with names of classes"
            )
            raise DataError(f"{self.folder}: balance needs at least two classes, and there is {found}")
        self._threads = ThreadPoolExecutor(NUM_THREADS)
        list(self._threads.map(check_image, files))
        number = {label: index for index, label in enumerate(self.labels)}
        rows = [(p, texts[p], number.get(c, 0)) for p, c in zip(files, classes, strict=True)]
        is_held = [_share(path.relative_to(self.folder)) < held_back for path in files]
        # Where chance holds back nothing of a small folder, or everything, all serve as both.
        held = [row for row, held in zip(rows, is_held, strict=True) if held] or rows
        self._held = sorted(held, key=lambda row: _share(row[0].relative_to(self.folder)))  # classes mixed
        self._rows = [row for row, held in zip(rows, is_held, strict=True) if not held] or rows
        self._by_class = self._classes() if balance else []
        self.digest = _digest(rows, self.folder)

    def training(self, seed: int, step: int, size: int, positions: range) -> list[TrainingItem]:
        """The items at some positions of a step's batch: shuffled epochs, or drawn by class if balanced."""
        return self._load([self._rows[self.index(seed, step * size + i)] for i in positions])

    def index(self, seed: int, position: int) -> int:
        """Which image stands at a position of the endless sequence of training."""
        if self._by_class:
            dice = np.random.default_rng((seed, position))
            members = self._by_class[dice.integers(len(self._by_class))]
            return members[dice.integers(len(members))]
        epoch, place = divmod(position, len(self._rows))
        return int(_order(seed, epoch, len(self._rows))[place])

    def validation(self, n: int) -> list[TrainingItem]:
        """Images that training never shows (but of a very small folder)."""
        return self._load(self._held[:n])

    def __len__(self) -> int:
        """How many images there are to train on."""
        return len(self._rows)

    @property
    def paths(self) -> list[Path]:
        """Where they are."""
        return [path for path, _, _ in self._rows]

    def captions(self) -> Iterator[str]:
        """All captions."""
        return (text for _, text, _ in self._rows)

    def _load(self, rows: Sequence[Row]) -> list[TrainingItem]:
        images = self._threads.map(lambda row: load_image(row[0], self.size), rows)
        return [
            TrainingItem(image=image, texts=(text,), label=label)
            for image, (_, text, label) in zip(images, rows, strict=True)
        ]

    def _classes(self) -> list[list[int]]:
        """The positions of each class's images in training."""
        members: dict[int, list[int]] = {}
        for index, (_, _, label) in enumerate(self._rows):
            members.setdefault(label, []).append(index)
        return list(members.values())

    def _class(self, path: Path) -> str:
        parent = path.parent
        return "" if parent == self.folder else parent.relative_to(self.folder).as_posix()

    def _texts(self, files: Sequence[Path], captions: str | None) -> dict[Path, str]:
        """The caption of each image."""
        tables = [self.folder / "metadata.csv", self.folder / "metadata.jsonl"]
        table = Path(captions) if captions else next((path for path in tables if path.is_file()), None)
        captions_by_image = _read_table(table, self.folder) if table else {}
        strangers = sorted(captions_by_image.keys() - set(files))
        if strangers:
            raise DataError(f"{table}: {len(strangers)} rows name no picture, the first one {strangers[0]}")
        texts = {}
        for path in files:
            if table:
                text, missing = captions_by_image.get(path), f"{table} has no text for it"
            elif (beside := path.with_suffix(".txt")).is_file():
                text, missing = _read(beside), f"{beside.name} is empty"
            else:
                text = self._class(path).replace("_", " ").replace("/", " ")
                missing = f"there is no {beside.name} beside it, and it is in no subfolder"
            if not text or not text.strip():
                raise DataError(f"{path}: this picture has no caption: {missing}")
            texts[path] = text.strip()
        return texts


def _files(folder: Path) -> list[Path]:
    """The images in a folder and its subfolders, hidden ones excepted."""
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder}")
    files = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )
    if not files:
        raise DataError(f"{folder}: no pictures in this folder", hint=f"They end in {', '.join(SUFFIXES)}.")
    return files


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: not UTF-8 (byte {error.start} is {error.object[error.start]:#04x})",
            hint="Save the file with the encoding UTF-8.",
        ) from error


def _read_table(table: Path, folder: Path) -> dict[Path, str]:
    """Captions by image from a CSV or JSONL file with file_name and text."""
    text = _read(table)
    if table.suffix == ".jsonl":
        rows = [_json(table, number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    else:
        try:
            rows = list(csv.DictReader(io.StringIO(text, newline="")))
        except csv.Error as error:
            raise DataError(f"{table} is no CSV file: {error}") from error
    captions_by_image = {}
    for number, row in enumerate(rows, start=1):
        if missing := [name for name in ("file_name", "text") if name not in row]:
            has = ", ".join(str(key) for key in row)
            raise DataError(
                f"{table}: row {number} has no {' and no '.join(missing)}",
                hint=f"A table of captions has the columns file_name and text; this one has {has}.",
            )
        caption = str(row["text"] or "")
        if any("\ud800" <= letter <= "\udfff" for letter in caption):
            raise DataError(f"{table}: the text of row {number} is not valid Unicode")
        captions_by_image[folder / str(row["file_name"])] = caption
    return captions_by_image


def _json(table: Path, number: int, line: str) -> dict[str, object]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:  # also thousands of digits, or of brackets
        raise DataError(f"{table}: line {number} is no JSON ({error})") from error
    if not isinstance(row, dict):
        raise DataError(f"{table}: line {number} is no JSON object")
    return row


def _share(path: Path) -> float:
    """A number in [0, 1) that depends on a file's name alone."""
    return int.from_bytes(hashlib.sha256(os.fsencode(path.as_posix())).digest()[:4]) / 2**32


def _digest(rows: Sequence[Row], folder: Path) -> str:
    """SHA-256 over the names, sizes and captions of the images."""
    digest = hashlib.sha256()
    for path, text, _ in rows:
        name = os.fsencode(path.relative_to(folder).as_posix())  # names of files are bytes
        digest.update(name + f"\0{path.stat().st_size}\0{text}\n".encode())
    return digest.hexdigest()


@lru_cache(maxsize=2)
def _order(seed: int, epoch: int, n: int) -> np.ndarray:
    return np.random.default_rng((seed, epoch)).permutation(n)


def check_image(path: Path) -> None:
    """Decode an image to the end (headers of cut-off files are whole).

    Raises DataError.
    """
    load_image(path, 8)


def load_image(path: Path, size: int) -> np.ndarray:
    """The middle of an image: (size, size, 3) uint8.

    Raises DataError if the file is damaged or has a kind of pixels without a natural range.
    """
    try:
        with Image.open(path, formats=FORMATS) as image:
            image.draft(None, (size, size))  # JPEG: decode no more pixels than needed
            return square(image, size)
    except UnidentifiedImageError:
        known = ", ".join(FORMATS)
        raise DataError(f"{path}: this picture cannot be read: it is none of {known}") from None
    except Exception as error:  # Pillow raises whatever its decoders met
        raise DataError(f"{path}: this picture cannot be read ({error})") from error


def square(image: Image.Image, size: int) -> np.ndarray:
    """The middle of an image as it is to be seen: turned as its camera was held, transparent parts white."""
    image = ImageOps.exif_transpose(image)
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    cut = _rgb(image.crop((left, top, left + side, top + side)))
    return np.asarray(cut.resize((size, size), Image.Resampling.LANCZOS))


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):  # Pillow would cut values above 255
        deep = np.asarray(image).astype(np.float32)
        return Image.fromarray((deep / 257).round().astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise ValueError(f"pixels of mode {image.mode} have no known range: save it with 8 or 16 bits")
    if image.has_transparency_data:
        seen = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", seen.size, "white"), seen).convert("RGB")
    return image.convert("RGB")
