"""What is learnt from: pictures with captions from a folder, or the pocket world.

A data set is asked for the items of a step, and its answer depends on the seed, the step and the positions
in the batch alone: a resumed training, one with accumulated gradients and one on several processes see the
same batches.

    python -c "from panic.train.data import Folder; print(Folder('photos', size=64).item(0).texts)"
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image, UnidentifiedImageError

from panic.errors import PanicError, UsageError
from panic.train.config import Data

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
NUM_VALIDATION = 64  # items of the world that training never shows


class DataError(UsageError):
    """The data cannot be learnt from; the message names the file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One picture (side, side, 3) uint8 with its texts, the first one canonical, and its class.

    `focus` (side, side) float32 is 1 where something is that matters more than the rest.
    """

    picture: np.ndarray
    texts: tuple[str, ...]
    label: int = 0
    focus: np.ndarray | None = None


class DataSet(Protocol):
    """Items for training, and a fixed set for validation; `labels` are the names of the classes."""

    labels: tuple[str, ...]

    def training(self, seed: int, step: int, size: int, positions: range) -> list[Item]:
        """The items at some positions of a step's batch of `size`."""
        ...

    def validation(self, n: int) -> list[Item]:
        """The first n items that training never shows."""
        ...

    def captions(self) -> Iterator[str]:
        """Texts to learn a tokenizer from."""
        ...


def open_data(data: Data, size: int) -> DataSet:
    """The data set of a config.

    Raises DataError for a folder that cannot be learnt from.
    """
    if data.folder is None:
        return World(size=size, styles=data.styles)
    return Folder(
        data.folder,
        size=size,
        captions=data.captions,
        balance=data.balance,
        held_back=data.validation,
    )


class World:
    """The pocket world's training split, drawn anew for every step; validation has its own split."""

    labels: tuple[str, ...] = ()

    def __init__(self, *, size: int = 64, styles: str = "all") -> None:
        from panic.pocket.scene import SIDE

        if size != SIDE:
            raise DataError(f"pocket-world has pictures of {SIDE}x{SIDE}, and image_size is {size}")
        self.styles = styles

    def training(self, seed: int, step: int, size: int, positions: range) -> list[Item]:
        """The items at some positions of a step's batch; half a millisecond each."""
        return self._items("train", size, (seed, step))[positions.start : positions.stop]

    def validation(self, n: int) -> list[Item]:
        """n scenes of the validation split."""
        return self._items("validation", n, 0)

    def captions(self) -> Iterator[str]:
        """4,000 captions of the training split."""
        from panic.pocket.world import describe, sample

        rng = np.random.default_rng(7)
        return (describe(sample("train", rng)[0], rng) for _ in range(4000))

    def _items(self, split: str, n: int, seed: int | Sequence[int]) -> list[Item]:
        from panic.pocket.world import describe, examples

        def texts(shown: object) -> tuple[str, ...]:
            assert isinstance(shown, Example)
            # Twice the plain wording: it is what a captioner says in a loop.
            if self.styles == "canonical":
                return (shown.canonical,)
            return (shown.canonical, describe(shown.scene), shown.caption, shown.caption)

        from panic.pocket.world import Example

        return [
            Item(picture=e.picture, texts=texts(e), focus=_near_objects(e.layout))
            for e in examples(split, n, seed)
        ]


def _near_objects(layout: object) -> np.ndarray:
    """1 in the boxes around a layout's objects, 0 elsewhere: (64, 64) float32."""
    from panic.pocket.scene import SIDE, Layout

    assert isinstance(layout, Layout)
    axis = np.arange(SIDE, dtype=np.float32) + 0.5
    mask = np.zeros((SIDE, SIDE), np.float32)
    for x, y, radius in zip(layout.x, layout.y, layout.radius, strict=True):
        near = radius * 1.3
        mask[np.ix_(abs(axis - y) < near, abs(axis - x) < near)] = 1
    return mask


class Folder:
    """Pictures in a folder, with captions from a table, from text files beside them, or by subfolder."""

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
        if not self.folder.is_dir():
            raise DataError(f"there is no folder {self.folder}")
        files = sorted(p for p in self.folder.rglob("*") if p.suffix.lower() in PICTURES and p.is_file())
        if not files:
            raise DataError(f"{self.folder}: no pictures ({', '.join(PICTURES)}) in this folder")
        texts = self._texts(files, captions)
        classes = {path: self._class(path) for path in files}
        self.labels = tuple(sorted(set(classes.values()))) if all(classes.values()) else ()
        if balance and len(self.labels) < 2:
            found = (
                f"only the class {self.labels[0]!r}" if self.labels else "no subfolders with names of classes"
            )
            raise DataError(f"{self.folder}: balance needs at least two classes, and there is {found}")
        rows = [(p, texts[p], self.labels.index(classes[p]) if self.labels else 0) for p in files]
        held = [row for row in rows if _share(row[0].relative_to(self.folder)) < held_back]
        self._held = held or rows[: max(1, round(held_back * len(rows)))]
        self._rows = [row for row in rows if row not in held] or rows
        self._check_pictures(files)
        self._odds = self._balanced() if balance else None

    def training(self, seed: int, step: int, size: int, positions: range) -> list[Item]:
        """The items at some positions of a step's batch: shuffled epochs, or drawn by class if balanced."""
        return [self._load(self._rows[self.index(seed, step * size + i)]) for i in positions]

    def index(self, seed: int, position: int) -> int:
        """Which picture stands at a position of the endless sequence of training."""
        if self._odds is not None:
            return int(np.random.default_rng((seed, position)).choice(len(self._rows), p=self._odds))
        epoch, place = divmod(position, len(self._rows))
        return int(self._order(seed, epoch)[place])

    def validation(self, n: int) -> list[Item]:
        """Pictures that training never shows (of a very small folder, its first ones)."""
        return [self._load(row) for row in self._held[:n]]

    def captions(self) -> Iterator[str]:
        """All captions."""
        return (text for _, text, _ in self._rows)

    @cached_property
    def _orders(self) -> dict[tuple[int, int], np.ndarray]:
        return {}

    def _order(self, seed: int, epoch: int) -> np.ndarray:
        if (seed, epoch) not in self._orders:
            self._orders.clear()
            self._orders[seed, epoch] = np.random.default_rng((seed, epoch)).permutation(len(self._rows))
        return self._orders[seed, epoch]

    def _balanced(self) -> np.ndarray:
        """Odds under which every class is drawn equally often: (n,)."""
        count = Counter(label for _, _, label in self._rows)
        odds = np.array([1 / count[label] for _, _, label in self._rows])
        balanced: np.ndarray = odds / odds.sum()
        return balanced

    def _class(self, path: Path) -> str:
        parent = path.parent
        return "" if parent == self.folder else parent.relative_to(self.folder).as_posix()

    def _texts(self, files: Sequence[Path], captions: str | None) -> dict[Path, str]:
        table = (
            Path(captions)
            if captions
            else next(
                (p for name in ("metadata.csv", "metadata.jsonl") if (p := self.folder / name).is_file()),
                None,
            )
        )
        told = _read_table(table, self.folder) if table else {}
        texts = {}
        for path in files:
            beside = path.with_suffix(".txt")
            if path in told:
                texts[path] = told[path]
            elif table is None and beside.is_file():
                texts[path] = beside.read_text(encoding="utf-8").strip()
            elif table is None:
                texts[path] = self._class(path).replace("_", " ").replace("/", " ")
            if not texts.get(path, "").strip():
                where = (
                    f"{table} has no row for it" if table else f"no {beside.name} beside it, and no subfolder"
                )
                raise DataError(f"{path}: this picture has no caption: {where}")
        return texts

    def _check_pictures(self, files: Sequence[Path]) -> None:
        """Open every picture once before training starts: a broken one should not end the night's work."""
        for path in files:
            try:
                with Image.open(path) as picture:
                    picture.verify()
            except (OSError, UnidentifiedImageError, SyntaxError, ValueError) as error:
                raise DataError(f"{path}: this picture cannot be read ({error})") from error

    def _load(self, row: tuple[Path, str, int]) -> Item:
        path, text, label = row
        try:
            with Image.open(path) as picture:
                return Item(picture=square(picture, self.size), texts=(text,), label=label)
        except OSError as error:
            raise DataError(f"{path}: this picture cannot be read ({error})") from error


def square(picture: Image.Image, size: int) -> np.ndarray:
    """The middle of a picture as (size, size, 3) uint8; grey becomes RGB, what is transparent white."""
    if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        seen = picture.convert("RGBA")
        ground = Image.new("RGBA", seen.size, "white")
        picture = Image.alpha_composite(ground, seen)
    side = min(picture.size)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    cut = picture.convert("RGB").crop((left, top, left + side, top + side))
    return np.asarray(cut.resize((size, size), Image.Resampling.LANCZOS))


def _read_table(table: Path, folder: Path) -> dict[Path, str]:
    """Captions by picture from a CSV or JSONL file with file_name and text."""
    try:
        text = table.read_text(encoding="utf-8")
        rows = (
            [json.loads(line) for line in text.splitlines() if line.strip()]
            if table.suffix == ".jsonl"
            else list(csv.DictReader(text.splitlines()))
        )
        return {folder / row["file_name"]: str(row["text"] or "") for row in rows}
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(f"{table}: cannot be read ({error})") from error
    except (KeyError, TypeError) as error:
        raise DataError(f"{table}: needs the columns file_name and text; {error} is missing") from error


def _share(path: Path) -> float:
    """A number in [0, 1) that depends on a file's name alone."""
    return int.from_bytes(hashlib.sha256(path.as_posix().encode()).digest()[:4]) / 2**32


__all__ = ["DataError", "DataSet", "Folder", "Item", "PanicError", "World", "open_data", "square"]
