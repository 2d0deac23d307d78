"""Pixels of PNG files that are inflated before Pillow sees them: nothing but the time may differ."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from panic.engine.importing import images, png
from panic.engine.importing.png import inflated

MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")
IDAT = b"IDAT"


def picture(mode: str, width: int = 61, height: int = 300) -> Image.Image:
    """Noise over a slope, so that all of PNG's filters are of use somewhere."""
    noise = np.random.default_rng(0).integers(0, 6, (height, width, 3), np.uint8)
    slope = np.linspace(0, 240, width, dtype=np.uint8)[None, :, None]
    image = Image.fromarray(noise + slope)
    if mode == "I;16":
        return Image.fromarray(np.arange(width * height, dtype=np.uint16).reshape(height, width))
    return image.convert(mode)


def saved(image: Image.Image, **options: Any) -> bytes:
    file = BytesIO()
    image.save(file, "PNG", **options)
    return file.getvalue()


def chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    """The names and contents of a PNG's chunks."""
    found, at = [], 8
    while at < len(data):
        length = int.from_bytes(data[at : at + 4])
        found.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += 12 + length
    return found


def joined(parts: list[tuple[bytes, bytes]]) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        len(content).to_bytes(4) + name + content + zlib.crc32(name + content).to_bytes(4)
        for name, content in parts
    )


def with_pixels(data: bytes, *packed: bytes) -> bytes:
    """A PNG with other chunks of pixels, in place of its own."""
    parts = chunks(data)
    first = next(place for place, (name, _) in enumerate(parts) if name == IDAT)
    others = [part for part in parts if part[0] != IDAT]
    return joined([*others[:first], *((IDAT, content) for content in packed), *others[first:]])


def is_inflated(tmp_path: Path, data: bytes) -> bool:
    """Whether Pillow gets other bytes than the file's. Whichever it gets, from the first one on."""
    path = tmp_path / "it.png"
    path.write_bytes(data)
    with path.open("rb") as file:
        given = inflated(file)
        assert given.tell() == 0
        return given is not file


def outcome(tmp_path: Path, data: bytes) -> tuple[object, ...]:
    """What comes of a file: its image, or why it is none."""
    path = tmp_path / "it.png"
    path.write_bytes(data)
    try:
        with path.open("rb") as file:
            image = images.decode_image(file)
    except ValueError as error:
        return (str(error),)
    return image.mode, image.size, image.tobytes(), tuple(image.getpalette() or ())


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", [(61, 300), (1, 1), (9, 1)])
def test_images_are_what_pillow_makes_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str, size: tuple[int, int]
) -> None:
    """61 x 300 pixels in colour are 55,200 bytes, one block; two with 16 bits a sample would be more."""
    data = saved(picture(mode, *size))
    assert is_inflated(tmp_path, data)
    found = outcome(tmp_path, data)
    monkeypatch.setattr(images, "inflated", lambda file: file)
    assert found == outcome(tmp_path, data)


def test_what_pillow_gets_has_the_same_chunks_and_stored_pixels(tmp_path: Path) -> None:
    """300 x 300 in colour: 270,300 bytes with those of the filters, in blocks of 65,535; Pillow writes 65,536
    bytes of compressed ones a chunk."""
    about = PngImagePlugin.PngInfo()
    about.add_text("prompt", "a red circle")
    data = saved(picture("RGB", 300, 300), pnginfo=about, compress_level=1)
    assert sum(name == IDAT for name, _ in chunks(data)) > 1
    path = tmp_path / "it.png"
    path.write_bytes(data)
    with path.open("rb") as file:
        given = inflated(file).read()
    assert [part for part in chunks(given) if part[0] != IDAT] == [
        part for part in chunks(data) if part[0] != IDAT
    ]
    assert joined(chunks(given)) == given, "its checksums are right"
    (stored,) = (content for name, content in chunks(given) if name == IDAT)
    assert len(stored) == 2 + 5 * 5 + 300 * 901 + 4
    packed = b"".join(content for name, content in chunks(data) if name == IDAT)
    assert zlib.decompress(stored) == zlib.decompress(packed)


def test_an_orientation_behind_the_pixels_counts(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    parts = chunks(saved(picture("RGB")))
    behind = joined([*parts[:-1], (b"eXIf", exif.tobytes()[6:]), parts[-1]])
    assert is_inflated(tmp_path, behind)
    assert outcome(tmp_path, behind)[1] == (300, 61)


def test_what_is_unusual_is_left_to_pillow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = saved(picture("RGB"))
    (packed,) = (content for name, content in chunks(data) if name == IDAT)
    pixels = zlib.decompress(packed)
    header, most = chunks(data)[0][1], 2 * len(pixels) + 2**20
    half, other = len(packed) // 2, (b"tEXt", b"a\0b")
    apart = chunks(with_pixels(data, packed[:half], packed[half:]))
    unusual = {
        "interlaced": joined([(b"IHDR", header[:-1] + b"\1"), *chunks(data)[1:]]),
        "colour type 5": joined([(b"IHDR", header[:9] + b"\5" + header[10:]), *chunks(data)[1:]]),
        "too large": joined([(b"IHDR", struct.pack(">II", 2**20, 2**20) + header[8:]), *chunks(data)[1:]]),
        "pixels in two places": joined([*apart[:2], other, *apart[2:]]),
        "no pixels": with_pixels(data),
        "a row less": with_pixels(data, zlib.compress(pixels[:-184])),
        "a byte more": with_pixels(data, zlib.compress(pixels + b"\0")),
        "bytes behind the stream": with_pixels(data, packed + b"\0"),
        "the checksum of the pixels": with_pixels(data, packed[:-1] + bytes([packed[-1] ^ 1])),
        "no checksum": with_pixels(data, packed[:-4]),
        "damaged": with_pixels(data, packed[:half] + b"\xff" * 40 + packed[half + 40 :]),
        "long": joined([*chunks(data), (b"noTe", bytes(most + 1 - len(data) - 12))]),
        "many chunks": joined([*chunks(data), *[(b"noTe", b"")] * (2**16 - 2)]),
        "no PNG": b"GIF" + data[3:],
        "another first chunk": joined([(b"IHDS", header), *chunks(data)[1:]]),
        "short": data[:32],
        "empty": b"",
    }
    usual = {
        "pixels in two chunks": with_pixels(data, packed[:half], packed[half:]),
        "not long": unusual["long"][:-1],
        "not so many chunks": joined([*chunks(data), *[(b"noTe", b"")] * (2**16 - 3)]),
    }
    assert len(usual["not long"]) == most
    for what, content in usual.items():
        assert is_inflated(tmp_path, content), what
    for what, content in unusual.items():
        assert not is_inflated(tmp_path, content), what
        found = outcome(tmp_path, content)
        with monkeypatch.context() as patched:
            patched.setattr(images, "inflated", lambda file: file)
            assert found == outcome(tmp_path, content), what


def test_damaged_files_are_refused_as_they_are_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut anywhere, and with any bit of the chunks' frames or some of the pixels' turned."""
    data = saved(picture("RGB", 20, 20).quantize(4))
    rng = np.random.default_rng(1)
    damaged = [data[:end] for end in range(len(data))]
    for at in range(len(data)):
        turned = bytearray(data)
        turned[at] ^= 1 << int(rng.integers(8))
        damaged.append(bytes(turned))
    found = [outcome(tmp_path, content) for content in damaged]
    assert len(set(found)) > 4
    with monkeypatch.context() as patched:
        patched.setattr(images, "inflated", lambda file: file)
        assert found == [outcome(tmp_path, content) for content in damaged]


def test_a_bomb_is_not_inflated(tmp_path: Path) -> None:
    """Ten million bytes behind a header that speaks of 61 x 300 pixels: no more than those are taken."""
    data = saved(picture("L"))
    bomb = with_pixels(data, zlib.compress(bytes(10**7)))
    assert not is_inflated(tmp_path, bomb)
    most = png._num_bytes(bomb[: png.HEADER.size])
    assert most == 300 * 62
    assert png._inflate(zlib.compress(bytes(10**7)), most) == b""
