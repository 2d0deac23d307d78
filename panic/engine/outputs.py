"""What comes out of a model, checked, normalised and identified by its digest.

Texts must hold something other than white space; images become RGB and must not be constant if the config
says so; vectors become float32 and must be finite. An item that fails is `Rejected`: it never reaches the
store, and its batch mates are not affected.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from panic.errors import OutputRejected
from panic.models.protocol import Modality
from panic.store.digest import image_digest, text_digest
from panic.store.records import NewOutput


@dataclass(frozen=True, slots=True)
class Output:
    """A text, RGB image or float32 vector (d,). Vectors have no digest: they belong to an output."""

    modality: Modality
    digest: bytes
    value: Any

    def as_row(self) -> NewOutput:
        """What is stored of a text or image; an image is still to be encoded."""
        if self.modality is Modality.TEXT:
            return NewOutput(digest=self.digest, modality="text", text=self.value)
        width, height = self.value.size
        return NewOutput(digest=self.digest, modality="image", width=width, height=height, image=self.value)


@dataclass(frozen=True, slots=True)
class Rejected:
    """An item's output was not usable, or a model gave an exception in its place."""

    reason: str


def finish(raw: Any, modality: Modality, reject_constant_images: bool) -> Output | Rejected:
    """Check one raw output of a model and give it its digest.

    Raises TypeError for something that is not of the modality: that is a defect of the model.
    """
    if isinstance(raw, OutputRejected):
        return Rejected(raw.message)
    if modality is Modality.TEXT:
        return _finish_text(raw)
    if modality is Modality.IMAGE:
        return _finish_image(raw, reject_constant_images)
    return _finish_vector(raw)


def _finish_text(raw: Any) -> Output | Rejected:
    if not isinstance(raw, str):
        raise TypeError(f"a text model returned {type(raw).__name__}, not str")
    if not raw.strip():
        return Rejected("empty text")
    try:
        digest = text_digest(raw)
    except UnicodeEncodeError:
        return Rejected("text that is not valid Unicode")
    return Output(Modality.TEXT, digest, raw)


def _finish_image(raw: Any, reject_constant: bool) -> Output | Rejected:
    if isinstance(raw, np.ndarray):
        if raw.dtype != np.uint8:
            if not np.isfinite(raw).all():
                return Rejected("image with values that are not numbers")
            raise TypeError(f"an image model returned a {raw.dtype} array; uint8 (h, w, 3) is needed")
        raw = Image.fromarray(raw)
    if not isinstance(raw, Image.Image):
        raise TypeError(f"an image model returned {type(raw).__name__}, not PIL.Image.Image or a uint8 array")
    image = raw if raw.mode == "RGB" else raw.convert("RGB")
    if reject_constant and _is_constant(image):
        return Rejected("constant image")
    return Output(Modality.IMAGE, image_digest(image), image)


def _is_constant(image: Image.Image) -> bool:
    pixels = np.asarray(image)
    return bool((pixels == pixels[0, 0]).all())


def _finish_vector(raw: Any) -> Output | Rejected:
    vector = np.ascontiguousarray(raw, dtype=np.float32)
    if vector.ndim != 1 or not vector.size:
        raise TypeError(f"an embedding model returned an array of shape {vector.shape}; (d,) is needed")
    if not np.isfinite(vector).all():
        return Rejected("vector with values that are not numbers")
    return Output(Modality.VECTOR, b"", vector)
