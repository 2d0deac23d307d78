"""What a strip shows and what it leaves out."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

from panic.analysis.strips import Thumbnails, strip, thumbnail
from panic.store import Store, reading
from tests.analysis.conftest import picture


def opened(uri: str) -> Image.Image:
    kind, data = uri.split(",")
    assert kind == "data:image/webp;base64"
    return Image.open(io.BytesIO(base64.b64decode(data)))


def made(bench, number: int = 0, *, budget: int = 10**6, max_tiles: int = 24):
    thumbnails = Thumbnails(bench.store, budget)
    return strip(bench.store, reading.runs(bench.store, "demo")[number], thumbnails, max_tiles), thumbnails


def test_a_text_stands_under_the_picture_it_was_made_from(bench):
    bench.add("start", ["one", "two"])
    found, _ = made(bench)
    assert [(tile.step, tile.text, bool(tile.image)) for tile in found.tiles] == [
        (None, "start", False), (0, "one", True), (2, "two", True)
    ]  # fmt: skip


def test_a_network_of_texts_shows_texts(bench):
    bench.add("start", ["one", "two"], network=("tell",))
    found, _ = made(bench)
    assert [(tile.step, tile.text, tile.image) for tile in found.tiles] == [
        (None, "start", ""), (0, "one", ""), (1, "two", "")
    ]  # fmt: skip


def test_a_long_run_shows_its_ends(bench):
    bench.add("start", [f"t{i}" for i in range(40)], max_length=80)
    found, _ = made(bench, max_tiles=6)
    assert [tile.text for tile in found.tiles] == ["start", "t0", "t1", "t2", "t37", "t38", "t39"]
    assert [tile.gap for tile in found.tiles] == [0, 0, 0, 0, 34, 0, 0]
    assert found.num_left_out == 34


def test_pictures_beyond_the_budget_are_left_out_and_counted(bench):
    bench.add("start", [f"t{i}" for i in range(6)])
    one = len(thumbnail(picture(0))[0])
    found, thumbnails = made(bench, budget=3 * one + one // 2)
    assert sum(bool(tile.image) for tile in found.tiles) == 3
    assert thumbnails.num_left_out == 3
    assert thumbnails.remaining_bytes >= 0


@pytest.mark.parametrize(
    "damage",
    ["DELETE FROM image", "UPDATE image SET bytes = x'00'", "UPDATE image SET bytes = substr(bytes, 1, 30)"],
)
def test_a_lost_picture_is_counted_not_fatal(bench, tmp_path, damage):
    bench.add("start", ["one"])
    bench.store.images.connection.execute(damage)
    with Store(tmp_path / "store") as store:
        thumbnails = Thumbnails(store, 10**6)
        found = strip(store, reading.runs(store, "demo")[0], thumbnails)
    assert (found.tiles[1].image, thumbnails.num_missing) == ("", 1)


def test_small_pictures_stay_exact_and_large_ones_shrink():
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8))
    uri, is_small = thumbnail(noise)
    assert is_small
    assert opened(uri).convert("RGB").tobytes() == noise.tobytes()
    uri, is_small = thumbnail(Image.new("RGB", (1024, 512)))
    assert (is_small, opened(uri).size) == (False, (128, 64))
