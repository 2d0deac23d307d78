"""How far two extractions differ, with differences that are known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars
import pytest

from panic.errors import PanicError, UsageError
from panic.extraction.comparing import Comparison, Spread, compare, cosine_distance, match
from panic.extraction.files import FORMAT, KEY, Parts
from panic.extraction.inputs import Item


def write(
    path: Path,
    rows: dict[str, list[float]],
    *,
    regions: int | None = None,
    fingerprint: str = "f",
    source: str = "s",
    digest: bytes = b"d",
) -> Path:
    """A file of features of one model, `m`; packed regions where there are some."""
    model = {"fingerprint": fingerprint, "regions": regions}
    said = {"format": FORMAT, "device": "cpu", "made": [], "models": {"m": model}}
    sources = source * len(rows)
    items = [Item(source=one, id=id, place=id, stamp="1") for one, id in zip(sources, rows, strict=False)]
    parts = Parts(path)
    given = [(item, digest, {"m": np.array(rows[item.id], np.float32)}) for item in items]
    parts.add(given, said).path.rename(path)
    parts.close(delete=True)
    return path


def compared(
    tmp_path: Path, a: dict[str, list[float]], b: dict[str, list[float]], **about: Any
) -> Comparison:
    return compare(write(tmp_path / "a.parquet", a), write(tmp_path / "b.parquet", b, **about))


def test_equal_files_do_not_differ_at_all(tmp_path: Path) -> None:
    rows = {"1": [0.1, 0.2], "2": [0.3, -0.7]}
    found = compared(tmp_path, rows, dict(reversed(rows.items())), source="e")
    assert (found.num_common, found.only_a, found.only_b, found.num_changed) == (2, [], [], 0)
    none = Spread(median=0.0, worst=0.0)
    assert (found.models["m"].cosine, found.models["m"].absolute) == (none, none)
    assert found.models["m"].same_fingerprint


def test_a_file_with_brackets_in_its_name_is_compared(tmp_path: Path) -> None:
    """Its name was read as a pattern of names."""
    file = write(tmp_path / "a[1].parquet", {"1": [0.5, 0.25]})
    assert compare(file, file).num_common == 1


@pytest.mark.parametrize(
    "change",
    [
        lambda frame, about: (frame.drop("digest"), about),
        lambda frame, about: (frame.drop("m"), about),
        lambda frame, about: (frame.with_columns(m=polars.lit("a")), about),
        lambda frame, about: (frame, about | {"models": {"m": {}}}),
        lambda frame, about: (frame, about | {"models": {"m": 3}}),
        lambda frame, about: (frame, {name: about[name] for name in ("format", "models")}),
    ],
)
def test_a_file_that_lacks_what_its_metadata_says_is_refused(tmp_path: Path, change: Any) -> None:
    good, bad = write(tmp_path / "a.parquet", {"1": [0.5, 0.25]}), tmp_path / "b.parquet"
    about = json.loads(polars.read_parquet_metadata(good)[KEY])
    frame, said = change(polars.read_parquet(good), about)
    frame.write_parquet(bad, metadata={KEY: json.dumps(said)})
    for pair in ((good, bad), (bad, good)):
        with pytest.raises(UsageError, match=r"b\.parquet has no features of panic embed"):
            compare(*pair)


def test_a_file_that_is_damaged_in_the_middle_is_told(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", {str(number): [number, 0.5] for number in range(400)})
    content = bytearray(path.read_bytes())
    content[100 : len(content) // 2] = bytes(len(content) // 2 - 100)
    path.write_bytes(content)
    with pytest.raises(PanicError, match=r"a\.parquet is damaged"):
        compare(path, path)


def test_differences_have_their_known_values(tmp_path: Path) -> None:
    a = {"1": [1, 0], "2": [1, 0], "3": [1, 0], "x": [5, 5]}
    b = {"1": [0, 1], "2": [3, 0], "3": [1, 1], "y": [5, 5]}
    found = compared(tmp_path, a, b, fingerprint="g", digest=b"e")
    assert (found.num_common, found.only_a, found.only_b, found.num_changed) == (3, ["x"], ["y"], 3)
    model = found.models["m"]
    assert not model.same_fingerprint
    assert model.cosine is not None
    assert model.cosine.worst == pytest.approx(1)
    assert model.cosine.median == pytest.approx(1 - 2**-0.5)
    assert model.absolute == Spread(median=1.0, worst=2.0)


def test_sources_count_where_there_are_several(tmp_path: Path) -> None:
    a = write(tmp_path / "a.parquet", {"1": [1, 0]})
    b = write(tmp_path / "b.parquet", {"1": [1, 0]}, source="t")
    c = write(tmp_path / "c.parquet", {"1": [1, 0], "2": [1, 0]}, source="tu")
    assert compare(a, b).num_common == 1
    assert compare(a, c).num_common == 0
    assert compare(b, c).num_common == 1
    assert compare(a, c).models["m"].problem == "no rows in common"


def test_vectors_of_other_lengths_are_told(tmp_path: Path) -> None:
    found = compared(tmp_path, {"1": [1, 0]}, {"1": [1, 0, 0]})
    assert found.models["m"].problem == "vectors of 2 and 3 numbers"


def test_regions_are_compared_along_their_matching(tmp_path: Path) -> None:
    left, right, wide = [0, 0, 0.5, 1], [0.5, 0, 1, 1], [0.5, 0, 0.9, 1]
    a = write(tmp_path / "a.parquet", {"1": [*left, 0.9, 1, 0, *right, 0.5, 0, 1]}, regions=2)
    b = write(tmp_path / "b.parquet", {"1": [*wide, 0.8, 0, 1, *left, 0.7, 1, 0]}, regions=2)
    model = compare(a, b).models["m"]
    assert model.cosine == Spread(median=0.0, worst=0.0)
    assert model.overlap is not None
    assert model.scores is not None
    assert model.overlap.worst == pytest.approx(0.8)
    assert model.overlap.median == pytest.approx(0.9)
    assert model.scores.worst == pytest.approx(0.3, abs=1e-6)
    assert model.scores.median == pytest.approx(0.25, abs=1e-6)


def test_boxes_without_area_match_themselves() -> None:
    boxes = np.array([[[0.2, 0.2, 0.2, 0.2], [0.4, 0.4, 0.4, 0.5]]])
    order, overlaps = match(boxes, boxes[:, ::-1])
    assert order.tolist() == [[1, 0]]
    assert overlaps.tolist() == [[1, 1]]


def test_zero_vectors_have_a_distance() -> None:
    found = cosine_distance(np.array([[0.0, 0], [0, 0], [2, 0]]), np.array([[0.0, 0], [1, 0], [-1, 0]]))
    assert found.tolist() == [0, 1, 2]


def test_what_is_no_file_of_features_is_refused(tmp_path: Path) -> None:
    good = write(tmp_path / "a.parquet", {"1": [1, 0]})
    (tmp_path / "b.parquet").write_text("x")
    with pytest.raises(UsageError, match="no features of panic embed"):
        compare(good, tmp_path / "b.parquet")
    with pytest.raises(UsageError, match="no file"):
        compare(good, tmp_path / "c.parquet")
