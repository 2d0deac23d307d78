"""From files to one Parquet file: what is computed once, what is told, what survives being stopped."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from panic.errors import Interrupted, ModelError, PanicError, UsageError
from panic.extraction.extract import Extraction, extract, look
from panic.extraction.files import KEY, Features, Parts, Row, parts_folder
from panic.extraction.inputs import list_images
from panic.models import registry

from .conftest import draw
from .counted import Counted, counted


def wanted(*folders: str, output: str = "f.parquet", **changes: Any) -> Extraction:
    items = [item for folder in folders for item in list_images(folder).items]
    specs = {"counted": counted(batch_size=1)}
    return Extraction(**{"items": items, "specs": specs, "device": "cpu", "output": Path(output), **changes})


def about(path: str) -> dict[str, Any]:
    return dict(json.loads(pl.read_parquet_metadata(path)[KEY]))


def num_seen() -> int:
    return sum(map(len, Counted.calls))


class Stop:
    """Interrupts an extraction once so many items are done."""

    def __init__(self, after: int) -> None:
        self.after = after

    def __call__(self, done: int, total: int, skipped: int) -> None:
        if done >= self.after:
            raise Interrupted("stop")


def test_the_output_has_a_row_per_image_and_says_how_it_was_made(photos: str) -> None:
    draw(Path("more") / "p_01.png", (99, 8))
    done = extract(wanted(photos, "more"))
    assert (done.num_rows, done.num_new, done.skipped) == (21, 21, [])
    frame = pl.read_parquet("f.parquet")
    assert frame.columns == ["source", "id", "file", "stamp", "digest", "counted"]
    assert frame.schema["counted"] == pl.Array(pl.Float32, 2)
    assert frame["source"].to_list() == ["photos"] * 20 + ["more"]
    assert frame["counted"].to_numpy()[:, 0].tolist() == [*range(1, 21), 99]
    said = about("f.parquet")
    assert len(said["models"]["counted"]["fingerprint"]) == 64
    assert said["made"][0]["batch_sizes"] == {"counted": 1}
    assert "numpy" in said["made"][0]["versions"]
    assert not parts_folder(Path("f.parquet")).exists()


def test_a_folder_of_somebody_else_s_files_is_not_taken_for_that_of_the_parts(photos: str) -> None:
    """It was, and deleted with all that was in it."""
    folder = parts_folder(Path("f.parquet"))
    folder.mkdir()
    (folder / "000001.parquet").write_text("not ours")
    with pytest.raises(UsageError, match="is in the way"):
        extract(wanted(photos))
    assert (folder / "000001.parquet").read_text() == "not ours"


@pytest.mark.parametrize("name", ["", ".", "/", "photos", "f.csv"])
def test_an_output_that_is_no_parquet_is_told_with_a_name_that_is_one(photos: str, name: str) -> None:
    with pytest.raises(UsageError, match="written as Parquet") as caught:
        extract(wanted(photos, output=name))
    assert caught.value.hint in ("-o features.parquet", "-o /features.parquet", "-o photos/features.parquet",
                                 "-o f.parquet")  # fmt: skip


def test_the_second_time_nothing_is_computed_or_written(photos: str) -> None:
    extract(wanted(photos))
    before = os.stat("f.parquet").st_ino, os.stat("f.parquet").st_mtime_ns
    Counted.calls.clear()
    done = extract(wanted(photos))
    assert (done.num_rows, done.num_new) == (20, 0)
    assert Counted.calls == []
    assert (os.stat("f.parquet").st_ino, os.stat("f.parquet").st_mtime_ns) == before
    assert not parts_folder(Path("f.parquet")).exists()


def test_what_is_new_is_added_what_is_gone_leaves_what_has_changed_is_computed_again(photos: str) -> None:
    extract(wanted(photos))
    Counted.calls.clear()
    draw(Path("photos/a.png"), (50, 8))
    draw(Path("photos/p_07.png"), (77, 8))
    Path("photos/p_03.png").unlink()
    told: list[str] = []
    done = extract(wanted(photos), tell=told.append)
    assert sorted(call[0][0] for call in Counted.calls) == [50, 77]
    assert (done.num_rows, done.num_new) == (20, 2)
    assert told == ["1 of the items have changed since they were embedded: computed anew."]
    frame = pl.read_parquet("f.parquet")
    assert frame["id"].to_list() == ["a", *(f"p_{n:02}" for n in range(1, 21) if n != 3)]
    assert frame["counted"].to_numpy()[:, 0].tolist() == [50, 1, 2, 4, 5, 6, 77, *range(8, 21)]


@pytest.mark.parametrize("after", [1, 5, 9, 19])
def test_stopped_and_repeated_it_computes_nothing_twice_and_ends_alike(photos: str, after: int) -> None:
    extract(wanted(photos, output="whole.parquet"))
    Counted.calls.clear()
    with pytest.raises(Interrupted):
        extract(wanted(photos), Stop(after))
    assert not Path("f.parquet").exists()
    kept = 20 - len(look(wanted(photos)).missing)
    assert after <= kept
    assert num_seen() - kept <= 3  # a call that is computed, one behind it, an answer that nobody takes
    Counted.calls.clear()
    assert extract(wanted(photos)).num_new == 20 - kept
    assert num_seen() == 20 - kept
    assert pl.read_parquet("f.parquet").equals(pl.read_parquet("whole.parquet"))
    assert about("f.parquet") == about("whole.parquet")


def test_other_models_start_over_and_that_is_told(photos: str) -> None:
    with pytest.raises(Interrupted):
        extract(wanted(photos), Stop(9))
    told: list[str] = []
    other = replace(counted(batch_size=1), options={"another": True})
    done = extract(wanted(photos, specs={"counted": other}), tell=told.append)
    assert done.num_new == 20
    assert len(told) == 1
    assert "is of other models (counted): computed anew" in told[0]
    told.clear()
    extract(wanted(photos, specs={"counted": other, "two": counted()}), tell=told.append)
    assert "of other models (two)" in told[0]
    assert pl.read_parquet("f.parquet").columns[-2:] == ["counted", "two"]


def test_a_damaged_part_is_computed_again(photos: str) -> None:
    with pytest.raises(Interrupted):
        extract(wanted(photos), Stop(9))
    first, *_ = sorted(parts_folder(Path("f.parquet")).glob("*.parquet"))
    first.write_bytes(first.read_bytes()[:-100])
    assert len(look(wanted(photos)).missing) >= 12
    extract(wanted(photos))
    assert pl.read_parquet("f.parquet")["counted"].to_numpy()[:, 0].tolist() == list(range(1, 21))


def test_a_kill_between_the_output_and_its_parts_costs_nothing(photos: str) -> None:
    with pytest.raises(Interrupted):
        extract(wanted(photos), Stop(9))
    shutil.copytree(parts_folder(Path("f.parquet")), "kept")
    extract(wanted(photos))
    shutil.copytree("kept", parts_folder(Path("f.parquet")))
    Counted.calls.clear()
    assert extract(wanted(photos)).num_rows == 20
    assert Counted.calls == []
    assert pl.read_parquet("f.parquet")["counted"].to_numpy()[:, 0].tolist() == list(range(1, 21))


def test_skipped_images_are_told_with_their_reasons(photos: str) -> None:
    Path("photos/p_05.png").write_bytes(b"")
    Counted.broken = {(6, 8)}
    done = extract(wanted(photos))
    assert done.num_rows == 18
    assert [(one["id"], one["reason"][:24]) for one in done.skipped] == [
        ("p_05", "it cannot be decoded as "),
        ("p_06", "counted: ValueError: thi"),
    ]
    assert about("f.parquet")["skipped"] == done.skipped
    Counted.broken = set()
    assert extract(wanted(photos)).num_new == 1
    assert pl.read_parquet("f.parquet")["id"].to_list()[4:6] == ["p_06", "p_07"]


def test_nothing_usable_is_a_failure(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"x")
    with pytest.raises(ModelError, match=r"Nothing could be embedded: x\.png"):
        extract(wanted(str(tmp_path), output=str(tmp_path / "f.parquet")))
    assert not (tmp_path / "f.parquet").exists()


def test_a_file_that_is_not_ours_is_never_overwritten(photos: str) -> None:
    pl.DataFrame({"a": [1]}).write_parquet("f.parquet")
    Path("g.parquet").write_text("mine")
    Path("h.parquet").symlink_to("g.parquet")
    Path("i.parquet").mkdir()
    for name, says in (("f", "did not write"), ("g", "did not write"), ("h", "link"), ("i", "folder")):
        with pytest.raises(UsageError, match=says):
            extract(wanted(photos, output=f"{name}.parquet"))
    with pytest.raises(UsageError, match="written as Parquet"):
        extract(wanted(photos, output="f.csv"))
    assert Path("g.parquet").read_text() == "mine"
    assert Counted.calls == []


def test_two_at_once_are_refused(photos: str) -> None:
    parts = Parts(Path("f.parquet"))
    with pytest.raises(UsageError, match="Another process writes"):
        extract(wanted(photos))
    parts.close(delete=False)
    assert extract(wanted(photos)).num_rows == 20


def test_vectors_of_two_lengths_are_refused(photos: str) -> None:
    with pytest.raises(PanicError, match="vectors of"):
        extract(wanted(photos, specs={"ragged": counted("ragged", batch_of="Ragged")}))


def test_a_vector_of_another_length_costs_no_other(photos: str) -> None:
    """It cost all rows of the part that it would have been in."""
    asked = wanted(photos, specs={"odd": counted("odd", batch_size=1, batch_of="OneOdd")})
    with pytest.raises(ModelError, match="odd gave vectors of 2 and of 3 numbers"):
        extract(asked)
    missing = {item.id for item in look(asked).missing}
    assert "p_11" in missing
    assert missing <= {"p_11", *(f"p_{n}" for n in range(17, 21))}  # its block of eight is kept, too


def test_vectors_are_float32_to_the_bit(photos: str) -> None:
    extract(wanted(photos))
    frame = pl.read_parquet("f.parquet")
    np.testing.assert_array_equal(frame["counted"].to_numpy(), [[n, 8] for n in range(1, 21)])


def test_several_devices_give_the_same_file(photos: str) -> None:
    extract(wanted(photos))
    extract(wanted(photos, output="g.parquet", device=["sim:1GiB", "sim:1GiB"]))
    one, several = (pl.read_parquet(file) for file in ("f.parquet", "g.parquet"))
    assert several.equals(one)
    assert num_seen() == 40, "each once"


BAD = '''
import inspect
import os
import signal
import time

from tests.extraction.counted import Counted


class Bad(Counted):
    """Ends every process of one device, before it can be called there."""

    modality_in = ("image", "text")

    def load(self, device):
        servers = [frame.frame.f_locals.get("self") for frame in inspect.stack()]
        if any(getattr(getattr(one, "settings", None), "device", "") == "sim:1GiB#2" for one in servers):
            os.kill(os.getpid(), signal.SIGKILL)

    def invoke(self, inputs, seeds):
        time.sleep(0.5)  # the other device is not done before this one has ended several times
        return super().invoke(inputs, seeds)
'''


@pytest.mark.slow
def test_a_device_whose_process_ends_again_and_again_ends_no_extraction(photos: str) -> None:
    """Its second end before a call was fatal to all."""
    Path("bad.py").write_text(BAD)
    spec = registry.resolve(f"python:{Path('bad.py').absolute()}:Bad", device_kind="sim")
    specs = {"counted": replace(spec, batch_size=1)}
    done = extract(wanted(photos, specs=specs, device=["sim:1GiB", "sim:1GiB"]))
    assert (done.num_rows, done.skipped) == (20, [])


def test_blocks_of_little_time_are_one_part_and_the_last_one_is_kept(
    photos: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[int] = []
    add = Parts.add

    def counting(parts: Parts, rows: list[Row], about: dict[str, object]) -> Features:
        written.append(len(rows))
        return add(parts, rows, about)

    monkeypatch.setattr(Parts, "add", counting)
    monkeypatch.setattr("panic.extraction.extract.PART_S", 1000.0)
    assert extract(wanted(photos)).num_rows == 20
    assert written == [20]
    Path("f.parquet").unlink()
    written.clear()
    monkeypatch.setattr("panic.extraction.extract.PART_S", 0.0)
    assert extract(wanted(photos)).num_rows == 20
    assert written == [8, 8, 4]  # a part for each block
