"""Names of contents: one SHA-256 per text or image.

A digest covers the kind and the exact content: the UTF-8 of a text, or width, height and RGB bytes of
an image, never an encoded file. Equal digests mean equal contents, whatever codec wrote them.

    >>> text_digest("a red circle").hex()[:8]
    '7a8b4bf4'
"""

from __future__ import annotations

import hashlib
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image


def text_digest(text: str) -> bytes:
    """Digest (32 bytes) of a text. A text with lone surrogates has no UTF-8: UnicodeEncodeError."""
    return hashlib.sha256(b"text\0" + text.encode()).digest()


def image_digest(image: Image) -> bytes:
    """Digest (32 bytes) of an RGB image: its size as two little-endian uint32, then its pixels."""
    assert image.mode == "RGB", image.mode
    state = hashlib.sha256(b"image\0" + struct.pack("<II", *image.size))
    state.update(image.tobytes())
    return state.digest()
