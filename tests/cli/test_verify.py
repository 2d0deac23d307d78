"""`panic verify`: results that are computed again, and what is told of those that differ."""

from __future__ import annotations

import io
import json
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from .conftest import Invoke


def verified(panic: Invoke, *arguments: object, exit_code: int = 0) -> dict[str, Any]:
    done = panic("verify", "demo", "--sample", 1000, *arguments, "--json")
    assert done.exit_code == exit_code, done.output
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def different(found: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return [one for one in found["findings"] if one["verdict"] != "same" and one["kind"] == kind]


def change(file: Path, sql: str, *parameters: object) -> None:
    with sqlite3.connect(file) as connection:
        connection.execute("PRAGMA ignore_check_constraints=ON")
        assert connection.execute(sql, parameters).rowcount == 1
    connection.close()


def test_a_sound_store_is_reproducible_and_stays_as_it_is(panic: Invoke, store: Path) -> None:
    before = {file.name: file.read_bytes() for file in store.glob("*.sqlite")}
    found = verified(panic)
    assert set(found["counts"]) == {"same"}
    assert {one["kind"] for one in found["findings"]} == {"invocation", "embedding", "diagram"}
    assert found["ok"]
    assert found["differs_here"] == {}
    assert {file.name: file.read_bytes() for file in store.glob("*.sqlite")} == before
    assert "same" in panic("verify", "demo", "--sample", 2).stdout


def test_the_sample_is_chosen_by_the_seed(panic: Invoke, store: Path) -> None:
    def chosen(seed: int) -> list[str]:
        done = panic("verify", "demo", "--sample", 3, "--seed", seed, "--json")
        return sorted(one["what"] for one in json.loads(done.stdout)["findings"])

    assert chosen(0) == chosen(0)
    assert chosen(0) != chosen(1)
    assert len(chosen(0)) == 9


def test_a_flipped_pixel_is_seen(panic: Invoke, store: Path) -> None:
    file = store / "images.sqlite"
    with sqlite3.connect(file) as connection:
        digest, data = connection.execute("SELECT digest, bytes FROM image LIMIT 1").fetchone()
    pixels = np.array(Image.open(io.BytesIO(data)))
    pixels[3, 5, 1] ^= 8
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "WEBP", lossless=True, quality=0, method=0)
    change(file, "UPDATE image SET bytes = ? WHERE digest = ?", buffer.getvalue(), digest)
    found = verified(panic, exit_code=1)
    pictures = [one for one in different(found, "invocation") if one["verdict"] == "different"]
    assert pictures
    assert {one["difference"] for one in pictures} == {8.0}
    assert {one["verdict"] for one in different(found, "embedding")} <= {"damaged"}  # of the picture's vector


def test_a_flipped_vector_is_seen(panic: Invoke, store: Path) -> None:
    file = store / "store.sqlite"
    with sqlite3.connect(file) as connection:
        id, data = connection.execute("SELECT rowid, vector FROM embedding LIMIT 1").fetchone()
    vector = np.frombuffer(data, "<f4").copy()
    vector[0] += 0.25
    change(file, "UPDATE embedding SET vector = ? WHERE rowid = ?", vector.tobytes(), id)
    found = verified(panic, exit_code=1)
    [one] = different(found, "embedding")
    assert one["difference"] == pytest.approx(0.25)
    assert not different(found, "invocation")


def test_a_flipped_bar_is_seen(panic: Invoke, store: Path) -> None:
    file = store / "store.sqlite"
    with sqlite3.connect(file) as connection:
        rows = connection.execute("SELECT rowid, bars FROM diagram_bars WHERE length(bars) > 16").fetchall()
    row, data = rows[0]
    bars = np.frombuffer(data, "<f8").copy()
    bars[1] += 0.5
    change(file, "UPDATE diagram_bars SET bars = ? WHERE rowid = ?", bars.tobytes(), row)
    found = verified(panic, exit_code=1)
    [one] = different(found, "diagram")
    assert one["difference"] == pytest.approx(0.5)
    assert not different(found, "invocation")
    assert not different(found, "embedding")


DAMAGES = {
    "a vector": (
        "embedding",
        "UPDATE embedding SET vector = x'00' WHERE rowid = (SELECT min(rowid) FROM embedding)",
    ),
    "a caption": (
        "invocation",
        "UPDATE output SET text = CAST(x'ff' AS TEXT) WHERE id ="
        " (SELECT max(output.id) FROM output JOIN invocation ON output = output.id WHERE modality = 'text')",
    ),
    "bars": (
        "diagram",
        "UPDATE diagram_bars SET bars = x'00' WHERE rowid = (SELECT min(rowid) FROM diagram_bars)",
    ),
    "no bars": ("diagram", "DELETE FROM diagram_bars WHERE rowid = (SELECT max(rowid) FROM diagram_bars)"),
    "settings": (
        "diagram",
        "UPDATE diagram SET settings = '{\"x\": 1}' WHERE id = (SELECT max(id) FROM diagram)",
    ),
}


@pytest.mark.parametrize("what", DAMAGES)
def test_what_is_damaged_is_told_and_the_rest_is_computed_again(
    panic: Invoke, store: Path, what: str
) -> None:
    """One damaged row ended the command, missing bars with a KeyError."""
    kind, statement = DAMAGES[what]
    change(store / "store.sqlite", statement)
    found = verified(panic, exit_code=1)
    assert "damaged" in {one["verdict"] for one in different(found, kind)}
    assert found["counts"]["same"] > 10


def test_changed_models_and_other_devices_are_not_called_irreproducible(panic: Invoke, store: Path) -> None:
    with sqlite3.connect(store / "store.sqlite") as connection:
        connection.execute("UPDATE model SET fingerprint = 'other ' || id WHERE name = 'chain'")
        connection.execute("UPDATE epoch SET device_kind = 'cuda' WHERE name = 'draw'")
    found = verified(panic)
    assert {one["verdict"] for one in different(found, "invocation")} == {"changed", "not comparable"}
    assert "different" not in found["counts"]
    verified(panic, "--strict", exit_code=1)


def test_where_nothing_can_be_compared_it_fails(panic: Invoke, store: Path) -> None:
    with sqlite3.connect(store / "store.sqlite") as connection:
        connection.execute("UPDATE model SET fingerprint = 'other ' || id")
        connection.execute("DELETE FROM diagram")
    assert not verified(panic, exit_code=1)["ok"]
    assert "Nothing could be compared" in panic("verify", "demo").stderr
