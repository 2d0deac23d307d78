"""Small copies of images are made once, kept beside the store or elsewhere, and never instead of an image."""

import io
from pathlib import Path

import pytest
from PIL import Image

from panic.errors import NotFound, StoreCorrupt
from panic.store import contents, images
from panic.store.codec import encode_image, image_digest
from panic.store.thumbnails import NAME, Thumbnails, shrunk
from tests.processes import Held
from tests.store.sample import picture

ONE = image_digest(picture(1)).hex()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "panic" / "thumbnails"


@pytest.mark.parametrize(
    ("size", "side", "small"),
    [((400, 200), 64, (64, 32)), ((50, 100), 64, (32, 64)), ((65, 65), 64, (64, 64))],
)
def test_the_longest_side_is_as_long_as_asked(size, side, small):
    with Image.open(io.BytesIO(shrunk(encode_image(picture(1, size)), side))) as image:
        assert (image.format, image.size) == ("WEBP", small)


def test_what_is_no_larger_or_no_image_comes_as_it_is():
    for size in ((64, 10), (10, 64), (64, 64)):
        data = encode_image(picture(1, size))
        assert shrunk(data, 64) is data
    assert shrunk(b"no image", 64) == b"no image"


def test_a_thumbnail_is_made_once_per_side(folder, store, cache):
    made = []

    def shrink(data, side):
        made.append(side)
        return b"%d of %d" % (side, len(data))

    thumbnails = Thumbnails(folder, shrink)
    size = len(contents.image_bytes(store, image_digest(picture(1))))
    for _ in range(2):
        assert thumbnails.get(store, ONE, 64) == b"64 of %d" % size
        assert thumbnails.get(store, ONE, 128) == b"128 of %d" % size
    assert made == [64, 128]
    other = image_digest(picture(2)).hex()
    assert thumbnails.kept([ONE, other], 64) == {ONE: b"64 of %d" % size}
    thumbnails.close()
    again = Thumbnails(folder, shrink)
    again.get(store, ONE, 64)
    again.close()
    assert made == [64, 128], "they outlast a process"
    assert (folder / NAME).is_file()
    assert not cache.exists()


def test_an_image_that_is_small_enough_is_not_kept_twice(folder, store, cache):
    thumbnails = Thumbnails(folder)
    assert thumbnails.get(store, ONE, 64) == contents.image_bytes(store, image_digest(picture(1)))
    assert thumbnails.kept([ONE], 64) == {}
    thumbnails.close()


def test_a_store_that_cannot_be_written_has_its_thumbnails_in_the_cache(folder, store, cache, tmp_path):
    (folder / NAME).symlink_to(tmp_path / "elsewhere")
    thumbnails = Thumbnails(folder, lambda data, side: b"small")
    assert thumbnails.get(store, ONE, 64) == b"small"
    thumbnails.close()
    assert not (tmp_path / "elsewhere").exists(), "a link leads anywhere"
    (file,) = cache.glob("*.sqlite")
    assert len(file.stem) == 16


def test_thumbnails_of_a_store_on_a_network_file_system_are_in_the_cache(folder, store, cache, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(Path, "read_text", lambda *_, **__: f"server:/ {folder} nfs4 rw 0 0\n")
        thumbnails = Thumbnails(folder, lambda data, side: b"small")
    assert thumbnails.get(store, ONE, 64) == b"small"
    thumbnails.close()
    assert not (folder / NAME).exists()
    assert len(list(cache.glob("*.sqlite"))) == 1


def test_without_a_place_each_is_made_again(folder, store, cache, tmp_path):
    (folder / NAME).mkdir()
    (tmp_path / "cache").write_text("")
    made = []
    thumbnails = Thumbnails(folder, lambda data, side: made.append(side) or b"small")
    assert [thumbnails.get(store, ONE, 64) for _ in range(2)] == [b"small"] * 2
    assert made == [64, 64]
    assert thumbnails.kept([ONE], 64) == {}
    thumbnails.close()


def test_an_image_that_is_not_there_has_none(folder, writer, cache):
    thumbnails = Thumbnails(folder)
    with pytest.raises(NotFound):
        thumbnails.get(writer, "00" * 32, 64)
    images.drop_images(writer, [bytes.fromhex(ONE)])
    with pytest.raises(StoreCorrupt):
        thumbnails.get(writer, ONE, 64)
    thumbnails.close()


def test_a_closed_file_is_held_no_longer(folder, store, cache):
    before = Held()
    thumbnails = Thumbnails(folder, lambda data, side: b"small")
    thumbnails.get(store, ONE, 64)
    assert any(name == str(folder / NAME) for _, name in before.new_files())
    thumbnails.close()
    assert not any("thumbnails" in name for _, name in before.new_files())


def test_a_file_that_is_none_of_ours_is_left_alone_and_nothing_in_it_is_trusted(folder, store, cache):
    (folder / NAME).write_bytes(b"no database" * 100)
    thumbnails = Thumbnails(folder, lambda data, side: b"small")
    assert thumbnails.get(store, ONE, 64) == b"small"
    (file,) = cache.glob("*.sqlite")
    assert thumbnails._kept.filename == str(file)
    assert thumbnails._kept.pragma("trusted_schema") == 0
    thumbnails._kept.pragma("writable_schema", True)
    assert not thumbnails._kept.pragma("writable_schema")
    thumbnails.close()
    assert (folder / NAME).read_bytes() == b"no database" * 100
