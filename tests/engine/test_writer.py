"""The writer and the content cache against a real store, and a disk that is full."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from panic.engine.contents import ContentCache, size_bytes
from panic.engine.outputs import Output, Rejected, finish
from panic.engine.writer import Writer
from panic.errors import StoreError
from panic.models.protocol import Modality
from panic.store import Commit, Store, check, contents, writing
from panic.store.digest import image_digest, text_digest


def noise_image(seed: int, size: int = 64) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8))


def image_output(seed: int) -> Output:
    output = finish(noise_image(seed), Modality.IMAGE, False)
    assert isinstance(output, Output)
    return output


def test_commits_are_stored_in_order_and_flush_waits_for_them(tmp_path: Path) -> None:
    saved: list[bytes] = []
    outputs = [image_output(seed) for seed in range(20)]
    with Store(tmp_path / "s", write=True, create=True) as store:
        writer = Writer(partial(writing.commit, store), saved.append)
        for output in outputs:
            writer.add(Commit(outputs=[output.as_row()]))
        writer.flush()
        assert saved == [output.digest for output in outputs]
        for output in outputs:
            assert contents.image(store, output.digest).tobytes() == output.value.tobytes()
        writer.close()


def add_many(writer: Writer, count: int) -> None:
    for seed in range(count):
        writer.add(Commit(outputs=[image_output(seed).as_row()]))
        writer.flush()


def test_a_full_disk_is_told_and_what_was_stored_stays(tmp_path: Path) -> None:
    with Store(tmp_path / "s", write=True, create=True) as store:
        store.images.connection.execute("PRAGMA max_page_count = 20")
        saved: list[bytes] = []
        writer = Writer(partial(writing.commit, store), saved.append)
        with pytest.raises(StoreError, match="full"):
            add_many(writer, 200)
        with pytest.raises(StoreError, match="full"):
            writer.add(Commit())
        writer.close()
        assert 0 < len(saved) < 200
    with Store(tmp_path / "s") as store:
        assert check.check(store) == []
        for digest in saved:
            assert image_digest(contents.image(store, digest)) == digest


def test_contents_waiting_for_the_writer_are_held_beyond_the_budget() -> None:
    def read(digest: bytes, modality: Modality) -> str:
        raise AssertionError("not in the store yet")

    cache = ContentCache(0, read)
    image = noise_image(1)
    cache.add_unsaved(b"a", image)
    cache.add_unsaved(b"a", image)
    cache.saved(b"a")
    assert cache.get(b"a", Modality.IMAGE) is image
    cache.saved(b"a")
    with pytest.raises(AssertionError):
        cache.get(b"a", Modality.IMAGE)


def test_the_budget_holds_and_the_least_recently_used_goes_first() -> None:
    reads: list[bytes] = []

    def read(digest: bytes, modality: Modality) -> Image.Image:
        reads.append(digest)
        return noise_image(digest[0])

    cache = ContentCache(2 * size_bytes(noise_image(0)), read)
    for key in (b"\0", b"\1", b"\0", b"\2", b"\0", b"\1"):
        cache.get(key, Modality.IMAGE)
        assert cache.saved_bytes <= 2 * size_bytes(noise_image(0))
    assert reads == [b"\0", b"\1", b"\2", b"\1"]


@pytest.mark.parametrize(
    ("raw", "modality", "reason"),
    [
        ("", Modality.TEXT, "empty text"),
        (" \n\t", Modality.TEXT, "empty text"),
        ("\ud800", Modality.TEXT, "text that is not valid Unicode"),
        (np.full((4, 4, 3), np.nan, np.float32), Modality.IMAGE, "image with values that are not numbers"),
        (Image.new("RGB", (4, 4), "red"), Modality.IMAGE, "constant image"),
        (np.array([1.0, np.inf]), Modality.VECTOR, "vector with values that are not numbers"),
    ],
)
def test_unusable_outputs_are_rejected_with_a_reason(raw: object, modality: Modality, reason: str) -> None:
    assert finish(raw, modality, True) == Rejected(reason)


@pytest.mark.parametrize(
    ("raw", "modality"),
    [(3, Modality.TEXT), ("x", Modality.IMAGE), (np.zeros((2, 2)), Modality.VECTOR), (b"x", Modality.TEXT)],
)
def test_an_output_of_another_kind_is_a_defect_of_the_model(raw: object, modality: Modality) -> None:
    with pytest.raises((TypeError, ValueError)):
        finish(raw, modality, False)


def test_outputs_are_normalised() -> None:
    pixels = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    from_array = finish(pixels, Modality.IMAGE, True)
    from_rgba = finish(Image.fromarray(pixels).convert("RGBA"), Modality.IMAGE, True)
    assert isinstance(from_array, Output)
    assert isinstance(from_rgba, Output)
    assert from_array.digest == from_rgba.digest == image_digest(Image.fromarray(pixels))
    text = finish(" a ", Modality.TEXT, True)
    assert text == Output(Modality.TEXT, text_digest(" a "), " a ")
