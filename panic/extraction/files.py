"""The files of an extraction: its output, and the parts beside it while it is not complete.

Both are Parquet of one form: the columns source, id, file, stamp and digest, then a column per model (a
detector also has boxes and scores), and in the file's metadata (`panic-features`, JSON) what the models
were. What has been computed is whatever rows an output or a part has under the same models: there is no
other account of it. Each file is written whole, under another name first; a part that cannot be read is one
that is not there.

    polars.read_parquet("features.parquet")
    json.loads(polars.read_parquet_metadata("features.parquet")["panic-features"])["models"]
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from panic.errors import PanicError, UsageError, require_utf8
from panic.extraction.inputs import Item, readable
from panic.models.detectors import unpack

KEY = "panic-features"
"""Where the metadata of a file of ours says what it holds."""
FORMAT = 1
ITEM_COLUMNS = frozenset({"source", "id", "file", "stamp", "digest"})
UNREADABLE = (OSError, KeyError, TypeError, ValueError, AttributeError, RecursionError)
"""What reading metadata of others can raise, beside errors of Polars."""
KEY_COLUMNS = ["source", "id", "stamp"]

Row = tuple[Item, bytes, Mapping[str, Any]]
"""An item, the digest of its content, its vectors by model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Features:
    """A file of features: where it is, and what its metadata says."""

    path: Path
    about: Mapping[str, Any]

    def keys(self) -> pl.DataFrame:
        """What its rows are known by, in their order."""
        return self.read(KEY_COLUMNS)

    def read(self, columns: Sequence[str]) -> pl.DataFrame:
        """Read some of its columns. Raises PanicError where the file is damaged."""
        try:
            return pl.read_parquet(self.path, columns=list(columns), glob=False)
        except pl.exceptions.PolarsError as error:
            raise PanicError(
                f"{self.path} is damaged: {error}", hint="Delete it: what it had is computed again."
            ) from error

    def schema(self) -> pl.Schema:
        """Its columns and their types."""
        return pl.scan_parquet(self.path, glob=False).collect_schema()

    def has_exactly(self, wanted: pl.DataFrame) -> bool:
        """Whether its rows are those of the wanted keys that it has, in their order, and no others."""
        own = self.keys()
        return own.equals(wanted.join(own, on=KEY_COLUMNS, how="semi", maintain_order="left"))


def open_features(path: Path) -> Features | None:
    """A file of features; None for a file that is no such, or whose end is damaged."""
    try:
        about = json.loads(pl.read_parquet_metadata(path)[KEY])
        found = Features(path=path, about=about)
        is_ours = about["format"] == FORMAT and _has_what_it_says(found)
    except (pl.exceptions.PolarsError, *UNREADABLE):
        return None
    return found if is_ours else None


def _has_what_it_says(features: Features) -> bool:
    """Whether a file has the columns that its metadata speaks of; what is no metadata of ours raises."""
    about, schema = features.about, features.schema()
    texts = {name for name, kind in schema.items() if kind == pl.String}
    numbers = {name for name, kind in schema.items() if isinstance(kind, pl.Array) and _is_float(kind.inner)}
    wanted: set[str] = set()
    for name, model in about["models"].items():
        wanted |= {name} if model["regions"] is None else {name, f"{name} boxes", f"{name} scores"}
        model["fingerprint"].encode()
    is_whole = isinstance(about["made"], list) and isinstance(about["device"], str)
    return is_whole and texts >= ITEM_COLUMNS and wanted <= numbers


def _is_float(kind: object) -> bool:
    """Whether an array, of however many dimensions, is of float32."""
    return _is_float(kind.inner) if isinstance(kind, pl.Array) else kind == pl.Float32


def claim_output(path: Path) -> Features | None:
    """The output of an earlier call, if there is one.

    Raises UsageError for a name that does not end in .parquet, a folder, a link, and a file that is not ours.
    """
    if path.suffix != ".parquet":
        near = path / "features.parquet" if path.is_dir() else path.with_suffix(".parquet")
        raise UsageError(f"{path}: features are written as Parquet.", hint=f"-o {near}")
    require_utf8(path.absolute())
    if path.is_dir() or path.is_symlink():
        raise UsageError(f"{path} is a {'link' if path.is_symlink() else 'folder'}; name a file.")
    if not path.exists():
        return None
    found = open_features(path)
    if found is None:
        raise UsageError(
            f"{path} is there already, and panic embed did not write it.", hint="Name another with -o."
        )
    return found


def parts_folder(output: Path) -> Path:
    """Where the parts of an output are kept until it is complete."""
    return output.with_name(f"{output.name}.parts")


def list_parts(output: Path) -> dict[Path, Features | None]:
    """The parts of an output in the order in which they were written; None for one that cannot be read."""
    paths = sorted(path for path in parts_folder(output).glob("*.parquet") if path.stem.isdecimal())
    return {path: open_features(path) for path in paths}


class Parts:
    """The folder of parts beside an output, locked for one process; parts that cannot be read are deleted.

    Raises UsageError if another process writes the same output, or if the folder's name is taken.
    """

    def __init__(self, output: Path) -> None:
        self._output, self.folder = output, parts_folder(output)
        if self.folder.is_symlink() or (self.folder.exists() and not _is_ours(self.folder)):
            raise UsageError(f"{self.folder} is in the way: the parts of {output.name} are kept there.")
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock)
            raise UsageError(f"Another process writes {output}.") from None
        found = list_parts(output)
        for path in [path for path, features in found.items() if features is None]:
            path.unlink()
        self.known = [features for features in found.values() if features]
        self._next = 1 + max((int(features.path.stem) for features in self.known), default=0)

    def add(self, rows: Sequence[Row], about: Mapping[str, Any]) -> Features:
        """Write some rows as one more part."""
        path = self.folder / f"{self._next:06}.parquet"
        self._next += 1
        new = path.with_suffix(".new")
        frame_of(rows, about["models"]).write_parquet(new, compression="lz4", metadata=_metadata(about))
        new.replace(path)
        return Features(path=path, about=about)

    def close(self, *, delete: bool) -> None:
        """Let go of the folder; delete it if it has served."""
        if delete:
            shutil.rmtree(self.folder)
        elif not list_parts(self._output):
            (self.folder / "lock").unlink()
            with contextlib.suppress(OSError):  # somebody's file is in it
                self.folder.rmdir()
        os.close(self._lock)


def _is_ours(folder: Path) -> bool:
    """Whether a folder is one of parts, which is deleted at the end: it is empty, or has our lock."""
    return folder.is_dir() and ((folder / "lock").exists() or not any(folder.iterdir()))


def _metadata(about: Mapping[str, Any]) -> dict[str, str]:
    return {KEY: json.dumps(about, sort_keys=True, ensure_ascii=False)}


def frame_of(rows: Sequence[Row], models: Mapping[str, Mapping[str, Any]]) -> pl.DataFrame:
    """Rows as a frame; a model's vectors, which have one length, become a column of arrays of float32."""
    items = [item for item, _, _ in rows]
    columns: dict[str, Any] = {
        "source": [readable(item.source) for item in items],
        "id": [item.id for item in items],
        "file": [readable(item.place) for item in items],
        "stamp": [item.stamp for item in items],
        "digest": [digest.hex() for _, digest, _ in rows],
    }
    for name in models:
        vectors = [vectors[name] for _, _, vectors in rows]
        for column, values in _columns(name, np.stack(vectors), models[name]["regions"]).items():
            columns[column] = pl.Series(column, values, dtype=pl.Array(pl.Float32, values.shape[1:]))
    return pl.DataFrame(columns)


def _columns(name: str, vectors: NDArray[np.float32], regions: int | None) -> dict[str, NDArray[np.float32]]:
    """The columns of a model's vectors (n, d): one, and those of boxes and scores where they are regions."""
    if regions is None:
        return {name: vectors}
    boxes, scores, own = unpack(vectors, regions)
    return {f"{name} boxes": boxes, f"{name} scores": scores, name: own}


def merge(output: Path, sources: Sequence[Features], wanted: pl.DataFrame, about: Mapping[str, Any]) -> int:
    """Write the wanted rows of several files as one, in the order in which they are wanted.

    wanted: their keys. Returns how many there are. Files whose rows follow each other as they are wanted are
    copied row group by row group; otherwise all rows have to fit into memory.
    """
    keys = pl.concat([features.keys() for features in sources])
    places = wanted.with_row_index("place")
    found = keys.join(places, on=KEY_COLUMNS, how="left", maintain_order="left")["place"]
    frame = pl.concat([pl.scan_parquet(features.path, glob=False) for features in sources])
    if found.null_count() or not (found.diff().drop_nulls() > 0).all():
        frame = (
            frame.unique(KEY_COLUMNS, keep="first")
            .join(places.lazy(), on=KEY_COLUMNS)
            .sort("place")
            .drop("place")
        )
    new = output.with_name(f"{output.name}.parts") / "whole"
    try:
        frame.sink_parquet(new, metadata=_metadata(about))
    except pl.exceptions.PolarsError as error:
        raise PanicError(
            f"{output} cannot be written: {error}", hint="What is computed is kept beside it."
        ) from error
    with new.open("rb") as file:
        os.fsync(file.fileno())
    new.replace(output)
    return found.drop_nulls().n_unique()


def keys_of(items: Sequence[Item]) -> pl.DataFrame:
    """What rows of these items are known by."""
    return pl.DataFrame(
        [item.key for item in items], schema=dict.fromkeys(KEY_COLUMNS, pl.String), orient="row"
    )
