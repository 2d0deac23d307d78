"""What a strip shows and what it leaves out."""

from __future__ import annotations

import base64
import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from panic.analysis.strips import Thumbnails, strip, thumbnail
from panic.store import Store, reading
from panic.store.codec import image_digest
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


def test_a_picture_of_half_the_side_stays_exact_and_a_larger_one_does_not():
    assert [thumbnail(Image.new("RGB", (size, 8)))[1] for size in (64, 65)] == [True, False]
    assert [thumbnail(Image.new("RGB", (8, size)), 40)[1] for size in (20, 21)] == [True, False]
    assert [opened(thumbnail(Image.new("RGB", (size, 8)))[0]).size for size in (128, 256)] == [
        (128, 8), (128, 4)
    ]  # fmt: skip


def test_a_budget_is_spent_to_the_byte_by_every_place_that_shows_a_picture(bench):
    bench.add("start", ["one"])
    digest = image_digest(picture(0)).hex()
    uri = thumbnail(picture(0))[0]
    thumbnails = Thumbnails(bench.store, 2 * len(uri))
    assert [thumbnails.get(digest) for _ in range(3)] == [(uri, True), (uri, True), ("", False)]
    assert (thumbnails.remaining_bytes, thumbnails.num_left_out, thumbnails.num_missing) == (0, 1, 0)


def test_a_lost_picture_counts_once_and_is_no_small_one(bench):
    thumbnails = Thumbnails(bench.store, 10**6)
    assert [thumbnails.get("ab" * 32) for _ in range(2)] == [("", False)] * 2
    assert (thumbnails.num_missing, thumbnails.num_left_out) == (1, 0)


@pytest.mark.parametrize(("length", "shown", "gap"), [(5, "t0 t1 t2 t3 t4", 0), (6, "t0 t1 t2 t4 t5", 1)])
def test_of_an_odd_number_of_tiles_the_beginning_has_one_more(bench, length, shown, gap):
    bench.add("start", [f"t{i}" for i in range(length)], max_length=2 * length)
    found, _ = made(bench, max_tiles=5)
    assert " ".join(tile.text for tile in found.tiles[1:]) == shown
    assert [tile.gap for tile in found.tiles] == [0, 0, 0, 0, gap, 0]
    assert found.num_left_out == gap


def test_the_first_1200_characters_of_texts_are_shown(bench):
    bench.add("p" * 1201, ["x" * 1201], network=("tell",))
    bench.add("start", ["y" * 1201])
    for number, tiles in enumerate((["p" * 1200, "x" * 1200], ["start", "y" * 1200])):
        assert [tile.text for tile in made(bench, number)[0].tiles] == tiles


def test_a_tile_says_what_made_it_and_one_picture_has_one_text(bench):
    """Of a network that describes a picture twice the second text has a tile of its own."""
    bench.add("start", ["one"])
    (tile,) = made(bench)[0].tiles[1:]
    assert (tile.step, tile.model, tile.digest, tile.is_small) == (
        0,
        "draw",
        image_digest(picture(0)).hex(),
        True,
    )
    bench.add("start", ["two", "three"], network=("tell",))
    assert [tile.model for tile in made(bench, 1)[0].tiles] == ["", "tell", "tell"]


def test_a_run_that_began_with_a_picture_shows_it(bench):
    bench.add("start", ["one"])
    (row,) = reading.runs(bench.store, "demo")
    digest = image_digest(picture(0)).hex()
    found = strip(bench.store, replace(row, prompt=f"image:{digest}"), Thumbnails(bench.store, 10**6))
    assert (found.tiles[0].text, found.tiles[0].image) == ("", thumbnail(picture(0))[0])
