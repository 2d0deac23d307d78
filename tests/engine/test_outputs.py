"""What comes out of models: normalised, refused with a reason, or told to be a defect."""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np
import pytest
from PIL import Image

from panic.engine import contents
from panic.engine.contents import ContentCache, Output, Rejected, RemoteImage, finish
from panic.errors import OutputRejected
from panic.models.protocol import Modality
from panic.store.codec import encode_image, image_digest, text_digest

RED = Image.new("RGB", (3, 2), "red")
STRIPES = Image.fromarray(np.array([[[0, 0, 0], [9, 9, 9]]], np.uint8))


def made(raw: Any, modality: Modality, *, reject_constant: bool = False) -> Output:
    found = finish(raw, modality, reject_constant)
    assert isinstance(found, Output), found
    return found


def reason(raw: Any, modality: Modality, *, reject_constant: bool = False) -> str:
    found = finish(raw, modality, reject_constant)
    assert isinstance(found, Rejected), found
    return found.reason


def test_what_a_model_refuses_itself_is_refused_in_its_words() -> None:
    for modality in Modality:
        assert reason(OutputRejected("not today"), modality) == "not today"


@pytest.mark.parametrize(
    ("raw", "modality", "told"),
    [
        ("", Modality.TEXT, "empty text"),
        (" \n\t", Modality.TEXT, "empty text"),
        ("\ud800", Modality.TEXT, "text that is not valid Unicode"),
        (np.full((4, 4, 3), np.nan, np.float32), Modality.IMAGE, "image with values that are not numbers"),
        (Image.new("RGB", (4, 4), "red"), Modality.IMAGE, "constant image"),
        (np.array([1.0, np.inf]), Modality.VECTOR, "vector with values that are not numbers"),
    ],
)
def test_unusable_outputs_are_rejected_with_a_reason(raw: object, modality: Modality, told: str) -> None:
    assert finish(raw, modality, True) == Rejected(told)


def test_outputs_are_normalised() -> None:
    pixels = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    from_array = finish(pixels, Modality.IMAGE, True)
    from_rgba = finish(Image.fromarray(pixels).convert("RGBA"), Modality.IMAGE, True)
    assert isinstance(from_array, Output)
    assert isinstance(from_rgba, Output)
    assert from_array.digest == from_rgba.digest == image_digest(Image.fromarray(pixels))
    text = finish(" a ", Modality.TEXT, True)
    assert text == Output(Modality.TEXT, text_digest(" a "), " a ")


def test_numbers_that_are_not_finite_are_no_pixels() -> None:
    for value in (np.inf, -np.inf, np.nan):
        raw = np.zeros((4, 4, 3), np.float32)
        raw[1, 2, 0] = value
        assert finish(raw, Modality.IMAGE, False) == Rejected("image with values that are not numbers")
    with pytest.raises(TypeError, match="float32"):
        finish(np.zeros((4, 4, 3), np.float32), Modality.IMAGE, False)


def test_a_row_holds_a_text_or_an_image_that_is_still_to_be_encoded() -> None:
    text = made("a", Modality.TEXT).as_row()
    assert (text.digest, text.modality, text.text) == (text_digest("a"), "text", "a")
    assert (text.width, text.height, text.image) == (None, None, None)
    image = made(RED, Modality.IMAGE).as_row()
    assert (image.digest, image.modality, image.text) == (image_digest(RED), "image", None)
    assert (image.width, image.height, image.image) == (3, 2, RED)


class Text(str):
    """A text of a class that no other process knows."""

    __slots__ = ()


def test_a_text_becomes_a_plain_one() -> None:
    assert type(made(Text("a"), Modality.TEXT).value) is str


@pytest.mark.parametrize("raw", [b"a", None, 3])
def test_what_is_no_text_is_a_defect(raw: Any) -> None:
    with pytest.raises(TypeError, match=f"a text model returned {type(raw).__name__}, not str"):
        finish(raw, Modality.TEXT, False)


def test_an_image_of_one_colour_is_refused_only_if_the_config_says_so() -> None:
    assert reason(RED, Modality.IMAGE, reject_constant=True) == "constant image"
    assert made(RED, Modality.IMAGE).value.size == (3, 2)
    for other in ((0, 0), (2, 1)):
        image = RED.copy()
        image.putpixel(other, (255, 0, 1))
        assert made(image, Modality.IMAGE, reject_constant=True).value is image
    assert made(STRIPES, Modality.IMAGE, reject_constant=True).digest == image_digest(STRIPES)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "1"])
def test_images_become_rgb_without_what_stands_beside_the_pixels(mode: str) -> None:
    image = Image.new(mode, (3, 2))
    image.info["secret"] = object()
    value = made(image, Modality.IMAGE).value
    assert (value.mode, value.size, value.info) == ("RGB", (3, 2), {})


def test_an_rgb_image_with_notes_loses_them_and_without_stays_what_it_is() -> None:
    noted = RED.copy()
    noted.info["note"] = "x"
    value = made(noted, Modality.IMAGE).value
    assert value.info == {}
    assert noted.info == {"note": "x"}
    assert made(RED, Modality.IMAGE).value is RED


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 3)])
def test_arrays_of_bytes_are_images(shape: tuple[int, ...]) -> None:
    value = made(np.full(shape, 7, np.uint8), Modality.IMAGE).value
    assert (value.size, value.mode, value.getpixel((2, 1))) == ((3, 2), "RGB", (7, 7, 7))


@pytest.mark.parametrize(
    ("shape", "told"), [((0, 3, 3), "no pixels"), ((2, 20_000, 3), "16,383"), ((0, 3), "no")]
)
def test_arrays_of_a_size_that_no_store_has_are_refused_before_they_are_images(
    shape: tuple[int, ...], told: str
) -> None:
    assert told in reason(np.zeros(shape, np.uint8), Modality.IMAGE)


@pytest.mark.parametrize("image", [Image.new("RGB", (20_000, 2)), Image.new("L", (0, 2))])
def test_images_of_a_size_that_no_store_has_are_refused(image: Image.Image) -> None:
    assert "pixels" in reason(image, Modality.IMAGE)


@pytest.mark.parametrize(
    ("raw", "told"),
    [
        (np.zeros((2, 2, 3), np.float32), "a float32 array; uint8"),
        (np.zeros((2, 2, 3), np.int64), "a int64 array; uint8"),
        ("a", "returned str, not PIL"),
        (None, "returned NoneType, not PIL"),
    ],
)
def test_what_is_no_image_is_a_defect(raw: Any, told: str) -> None:
    with pytest.raises(TypeError, match=told):
        finish(raw, Modality.IMAGE, False)


@pytest.mark.parametrize("shape", [(5,), (), (1, 2, 2, 3)])
def test_an_array_of_other_dimensions_is_no_image(shape: tuple[int, ...]) -> None:
    """Pillow would make an image one pixel wide of a row of numbers."""
    with pytest.raises(TypeError, match=r"an array of shape \(.*\); \(h, w, 3\) is needed"):
        finish(np.zeros(shape, np.uint8), Modality.IMAGE, False)


def test_vectors_become_float32() -> None:
    for raw in ([1, 2.5], np.array([1, 2.5], np.float64), np.array([9, 1, 9, 2.5])[1::2]):
        value = made(raw, Modality.VECTOR).value
        assert (value.dtype, value.tolist(), value.flags.c_contiguous) == (np.float32, [1, 2.5], True)
    assert made([1.0], Modality.VECTOR).digest == b""


@pytest.mark.parametrize(
    ("raw", "told"),
    [
        ([1.0, np.nan], "vector with values that are not numbers"),
        ([-np.inf], "vector with values that are not numbers"),
        ([1e39], "vector with values that are not numbers"),
        ([1j], "vector of complex numbers"),
        (np.ma.masked_array([1.0], [True]), "vector with masked values"),
    ],
)
def test_vectors_that_are_none_are_refused(raw: Any, told: str) -> None:
    assert reason(raw, Modality.VECTOR) == told


@pytest.mark.parametrize("raw", [[], [[1.0]], 1.0, np.zeros((0, 3))])
def test_what_is_no_vector_is_a_defect(raw: Any) -> None:
    with pytest.raises(TypeError, match=r"of shape \(.*\); \(d,\) is needed"):
        finish(raw, Modality.VECTOR, False)


def test_a_mask_that_hides_nothing_is_none() -> None:
    assert made(np.ma.masked_array([1.0], [False]), Modality.VECTOR).value.tolist() == [1.0]


def deep(mode: str, value: int) -> Image.Image:
    return Image.frombytes(
        mode, (2, 2), np.full((2, 2), value, ">u2" if mode == "I;16B" else "<u2").tobytes()
    )


@pytest.mark.parametrize("mode", ["I;16", "I;16B"])
@pytest.mark.parametrize(("value", "expected"), [(0, 0), (40_000, 156), (257, 1), (65_535, 255)])
def test_images_of_16_bits_keep_their_scale(mode: str, value: int, expected: int) -> None:
    made = finish(deep(mode, value), Modality.IMAGE, False)
    assert isinstance(made, Output)
    assert made.value.getpixel((1, 1)) == (expected,) * 3


@pytest.mark.parametrize("raw", [Image.new("F", (4, 4), 0.5), Image.new("I", (4, 4), 40_000)])
def test_images_whose_scale_nobody_knows_are_refused(raw: Image.Image) -> None:
    made = finish(raw, Modality.IMAGE, False)
    assert isinstance(made, Rejected)
    assert f"mode {raw.mode}" in made.reason


@pytest.mark.parametrize(
    "raw", [np.ones(3, complex), np.array([1e300, 0.0]), np.ma.masked_array([1.0, 2.0], [True, False])]
)
def test_vectors_that_float32_cannot_hold_are_refused(raw: Any, recwarn: pytest.WarningsRecorder) -> None:
    assert isinstance(finish(raw, Modality.VECTOR, False), Rejected)
    assert not recwarn.list


# Images whose pixels are elsewhere


def remote(pixels: object, colour: str = "red") -> tuple[bytes, RemoteImage]:
    image = Image.new("RGB", (3, 2), colour)
    return image_digest(image), RemoteImage(size=(3, 2), encoded=encode_image(image), pixels=pixels)


def read_files(digest: bytes, modality: Modality) -> RemoteImage:
    return RemoteImage(size=(3, 2), encoded=encode_image(Image.new("RGB", (3, 2), "blue")))


def test_remote_pixels_are_let_go_when_they_are_stored_and_nobody_waits_for_them() -> None:
    class Pixels:
        """What a weak reference can look at."""

    pixels = Pixels()
    seen = weakref.ref(pixels)
    cache = ContentCache(1000, read_files)
    digest, image = remote(pixels)
    del pixels
    cache.add_unsaved(digest, image)
    del image
    held = cache.remote(digest)
    assert held is not None
    cache.saved(digest)
    assert cache.get(digest, Modality.IMAGE) is held
    assert held.encoded is None, "the store has the file"
    assert seen() is not None
    del held
    assert seen() is None
    assert cache.remote(digest) is None
    again = cache.get(digest, Modality.IMAGE)
    assert isinstance(again, RemoteImage)
    assert again.encoded == read_files(digest, Modality.IMAGE).encoded


def test_remote_pixels_that_are_lost_are_read_from_the_store() -> None:
    cache = ContentCache(1000, read_files)
    digest, image = remote("reference")
    cache.add_unsaved(digest, image)
    image.pixels = None
    assert cache.get(digest, Modality.IMAGE) is image, "its file is still here"
    assert image.encoded is not None
    digest, image = remote("reference", "green")
    cache.add_unsaved(digest, image)
    cache.saved(digest)
    image.pixels = None
    found = cache.get(digest, Modality.IMAGE)
    assert found is not image
    assert isinstance(found, RemoteImage)
    assert found.encoded is not None


def test_a_remote_image_is_decoded_for_those_who_are_here() -> None:
    """An endpoint, or a user's class that tells buckets, gets pixels; from its file, or from the store's."""
    cache = ContentCache(1000, read_files)
    digest, image = remote("reference")
    cache.add_unsaved(digest, image)
    here = cache.decoded(digest, Modality.IMAGE)
    assert isinstance(here, Image.Image)
    assert here.getpixel((0, 0)) == (255, 0, 0)
    cache.saved(digest)
    stored = cache.decoded(digest, Modality.IMAGE)
    assert isinstance(stored, Image.Image)
    assert stored.getpixel((0, 0)) == (0, 0, 255)


# What is held, and how much that is


def test_a_text_may_be_so_long_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert contents.MAX_TEXT_BYTES == 500_000_000, "half of what a row holds"
    monkeypatch.setattr(contents, "MAX_TEXT_BYTES", 4)
    assert made("éé", Modality.TEXT).value == "éé"
    assert reason("éé.", Modality.TEXT) == "text of 5 bytes: it may have at most 4"


def test_the_size_of_a_content_is_about_what_it_takes() -> None:
    assert contents.size_bytes("é" * 7) == 200 + 14
    assert contents.size_bytes(Image.new("RGB", (5, 3))) == 45
    assert contents.size_bytes(RemoteImage(size=(5, 3), encoded=b"x" * 9)) == 9
    assert contents.size_bytes(RemoteImage(size=(5, 3), pixels="there")) == 0


def test_what_is_kept_counts_once_and_only_within_the_budget() -> None:
    cache = ContentCache(2 * 202, read_files)
    for _ in range(2):
        cache.keep(b"a", "a")
    assert cache.saved_bytes == 202
    cache.keep(b"b", "b")
    assert cache.saved_bytes == 404
    cache.keep(b"c", "c")
    assert (cache.saved_bytes, list(cache._saved)) == (404, [b"b", b"c"])
    cache.keep(b"d", "x" * 500)
    assert (cache.saved_bytes, list(cache._saved)) == (0, []), "larger than all of it"
    cache.add_unsaved(b"e", "e")
    cache.add_unsaved(b"e", "another")
    assert cache.get(b"e", Modality.TEXT) == "e", "what came first"
    cache.saved(b"e")
    assert cache.saved_bytes == 0
    cache.saved(b"e")
    assert (cache.saved_bytes, cache.get(b"e", Modality.TEXT)) == (202, "e")


def test_only_images_whose_pixels_are_elsewhere_are_remote() -> None:
    cache = ContentCache(10**6, read_files)
    assert cache.remote(b"a") is None
    held = [RemoteImage(size=(1, 1), encoded=b"x", pixels=pixels) for pixels in ("there", None)]
    cache.add_unsaved(b"a", held[0])
    cache.add_unsaved(b"b", held[1])
    cache.add_unsaved(b"c", Image.new("RGB", (1, 1)))
    assert [cache.remote(name) for name in (b"a", b"b", b"c")] == [held[0], None, None]
    for name in (b"a", b"b", b"c"):
        cache.saved(name)
    assert cache.saved_bytes == 1 + 3, "the pixels of the first are kept in the cluster"
    assert [one.encoded for one in held] == [None, b"x"]
