"""How far two extractions differ: in items, in models, in vectors, and for detectors in boxes and scores.

Rows are matched by their ids, and by their sources too where one of the files has several. Regions of an
image are matched so that the sum of their intersections over unions is largest (Kuhn 1955, by scipy's
linear_sum_assignment), and their vectors and scores are compared along that matching.

    compare(Path("a.parquet"), Path("b.parquet")).models["PocketPixels"].cosine
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from panic.errors import UsageError
from panic.extraction.files import Features, open_features
from panic.models.detectors import intersection_over_union

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Some differences, by their median and the largest of them (of agreements, the smallest)."""

    median: float
    worst: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelDifference:
    """How far the values of a model differ over the rows that both files have.

    cosine: 1 - the cosine of two vectors; two zero vectors do not differ. absolute: largest difference of
    two numbers of a vector. overlap: intersection over union of matched boxes, scores: differences of
    theirs; None for vectors of whole items. All are None where the lengths differ, which `problem` tells.
    """

    same_fingerprint: bool
    cosine: Spread | None = None
    absolute: Spread | None = None
    overlap: Spread | None = None
    scores: Spread | None = None
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Rows of both files, ids of one alone, rows of other content, models of one alone, the differences."""

    num_common: int
    only_a: list[str]
    only_b: list[str]
    num_changed: int
    models_only_a: list[str]
    models_only_b: list[str]
    models: Mapping[str, ModelDifference]


def compare(a: Path, b: Path) -> Comparison:
    """Compare two outputs of `panic embed`.

    Raises UsageError for a file that is none, PanicError for a damaged one.
    """
    first, second = _open(a), _open(b)
    left, right = (one.read(["source", "id", "digest"]).with_row_index("row") for one in (first, second))
    has_several = max(left["source"].n_unique(), right["source"].n_unique()) > 1
    keys = ["source", "id"] if has_several else ["id"]
    common = left.join(right, on=keys, maintain_order="left", suffix="_b")
    rows = common["row"].to_numpy(), common["row_b"].to_numpy()
    names = [name for name in first.about["models"] if name in second.about["models"]]
    return Comparison(
        num_common=common.height,
        only_a=left.join(right, on=keys, how="anti", maintain_order="left")["id"].to_list(),
        only_b=right.join(left, on=keys, how="anti", maintain_order="left")["id"].to_list(),
        num_changed=int((common["digest"] != common["digest_b"]).sum()),
        models_only_a=[name for name in first.about["models"] if name not in names],
        models_only_b=[name for name in second.about["models"] if name not in names],
        models={name: _difference(name, first, second, rows) for name in names},
    )


def _open(path: Path) -> Features:
    if not path.is_file():
        raise UsageError(f"There is no file {path}.")
    found = open_features(path)
    if found is None:
        raise UsageError(
            f"{path} has no features of panic embed.", hint="panic embed --folder FOLDER MODEL -o FILE"
        )
    return found


def _difference(name: str, first: Features, second: Features, rows: tuple[Any, Any]) -> ModelDifference:
    """The differences of a model over pairs of rows, one of each file."""
    models = [one.about["models"][name] for one in (first, second)]
    is_same = models[0]["fingerprint"] == models[1]["fingerprint"]
    shapes = [one.schema()[name] for one in (first, second)]
    if shapes[0] != shapes[1]:
        told = " and ".join(" x ".join(map(str, getattr(shape, "shape", ()))) for shape in shapes)
        return ModelDifference(same_fingerprint=is_same, problem=f"vectors of {told} numbers")
    if not len(rows[0]):
        return ModelDifference(same_fingerprint=is_same, problem="no rows in common")
    has_regions = models[0]["regions"] is not None

    def column(which: int, title: str) -> Floats:
        values = (first, second)[which].read([title])[title].to_numpy()
        return np.asarray(values[rows[which]], np.float64)

    vectors = [column(0, name), column(1, name)]
    overlap = scores = None
    if has_regions:
        boxes = [column(which, f"{name} boxes") for which in (0, 1)]
        order, overlaps = match(*boxes)
        vectors[1] = np.take_along_axis(vectors[1], order[:, :, None], axis=1)
        given = [column(which, f"{name} scores") for which in (0, 1)]
        given[1] = np.take_along_axis(given[1], order, axis=1)
        overlap = Spread(median=float(np.median(overlaps)), worst=float(overlaps.min()))
        scores = _spread(np.abs(given[0] - given[1]))
    return ModelDifference(
        same_fingerprint=is_same,
        cosine=_spread(cosine_distance(*vectors)),
        absolute=_spread(np.abs(vectors[0] - vectors[1]).max(axis=-1)),
        overlap=overlap,
        scores=scores,
    )


def _spread(values: Floats) -> Spread:
    return Spread(median=float(np.median(values)), worst=float(values.max()))


def cosine_distance(a: Floats, b: Floats) -> Floats:
    """1 - the cosine of vectors (..., d), pair by pair; 0 of two zero vectors, 1 of zero and another."""
    lengths = [np.linalg.norm(one, axis=-1) for one in (a, b)]
    units = [
        one / np.where(length == 0, 1, length)[..., None] for one, length in zip((a, b), lengths, strict=True)
    ]
    # Half the squared chord: exactly 0 for equal vectors, where 1 - cosine has a rounding error.
    distance = ((units[0] - units[1]) ** 2).sum(axis=-1) / 2
    is_one_zero = (lengths[0] == 0) ^ (lengths[1] == 0)
    return np.asarray(np.where(is_one_zero, 1.0, distance))


def match(a: Floats, b: Floats) -> tuple[NDArray[np.int64], Floats]:
    """Match boxes (n, r, 4) of images: which of b belongs to each of a (n, r), and their overlap (n, r)."""
    from scipy.optimize import linear_sum_assignment

    orders, overlaps = [], []
    for own, other in zip(a, b, strict=True):
        shared = np.stack([intersection_over_union(box, other) for box in own])
        np.putmask(
            shared, (own[:, None] == other[None]).all(axis=2), 1.0
        )  # equal boxes, also those without area
        _, order = linear_sum_assignment(shared, maximize=True)
        orders.append(order)
        overlaps.append(shared[np.arange(len(own)), order])
    return np.array(orders, np.int64), np.array(overlaps)
