"""What goes round in a loop: checked when it comes out of a model, held as long as the loop may need it.

Texts must hold something other than white space; images become RGB and must not be constant if the config
says so; vectors become float32 and must be finite. What the store could not give back to the bit is refused
here: images of a size or scale that it does not have, texts that are too long, vectors that are no float32.
An item that fails is `Rejected`: it never reaches the store, and its batch mates are not affected.

The driver keeps texts and images in a cache with a byte budget over what the store holds. Contents that are
not yet in the store are held whatever the budget says (the writer's queue bounds them); others are dropped
least recently used first and read from the store when they are needed again. An image comes back from the
store with exactly the pixels it was stored with.

Images that are made in a cluster stay there: what the driver has of one is a `RemoteImage`, whose pixels are
kept in the cluster as long as somebody holds it.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
from PIL import Image

from panic.errors import OutputRejected
from panic.models.protocol import Modality
from panic.store.codec import decode_image, image_digest, size_problem, text_digest, writable
from panic.store.records import NewOutput


@dataclass(slots=True, weakref_slot=True, eq=False, kw_only=True)
class RemoteImage:
    """An image whose pixels are not in this process.

    encoded: its file, where there is one at hand. pixels: what the cluster finds its pixels by; on the way
    between processes its place among the pixels that come along.
    """

    size: tuple[int, int]
    encoded: bytes | None = None
    pixels: Any = None

    @property
    def width(self) -> int:
        return self.size[0]

    @property
    def height(self) -> int:
        return self.size[1]


Content = str | Image.Image | RemoteImage
TEXT_OVERHEAD = 200
MAX_TEXT_BYTES = 500_000_000
"""A row of SQLite holds a thousand million bytes."""
DEEP_MODES = ("I;16", "I;16L", "I;16B", "I;16N")
UNSCALED_MODES = ("I", "F")


@dataclass(frozen=True, slots=True)
class Output:
    """A text, an RGB or remote image, or a float32 vector (d,), without a digest: it belongs to an output."""

    modality: Modality
    digest: bytes
    value: Any

    def __reduce__(self) -> tuple[type[Output], tuple[Any, ...]]:
        """Pickle it by its fields: what a frozen class with slots does by itself takes four times as long."""
        return Output, (self.modality, self.digest, self.value)

    def as_row(self) -> NewOutput:
        """What is stored of a text or image; an image is still to be encoded."""
        if self.modality is Modality.TEXT:
            return NewOutput(digest=self.digest, modality="text", text=self.value)
        width, height = self.value.size
        image = self.value.encoded if isinstance(self.value, RemoteImage) else self.value
        return NewOutput(digest=self.digest, modality="image", width=width, height=height, image=image)


@dataclass(frozen=True, slots=True)
class Rejected:
    """An item's output was not usable, or a model gave an exception in its place."""

    reason: str


def finish(raw: Any, modality: Modality, reject_constant_images: bool) -> Output | Rejected:
    """Check one raw output of a model and give it its digest.

    Raises TypeError for something that is not of the modality: that is a defect of the model.
    """
    if isinstance(raw, OutputRejected):
        return Rejected(writable(str(raw.message)))
    if modality is Modality.TEXT:
        return _finish_text(raw)
    if modality is Modality.IMAGE:
        return _finish_image(raw, reject_constant_images)
    return _finish_vector(raw)


def _finish_text(raw: Any) -> Output | Rejected:
    if not isinstance(raw, str):
        raise TypeError(f"a text model returned {type(raw).__name__}, not str")
    text = str.__str__(raw)  # of a class of the user's, which no other process knows
    if not text.strip():
        return Rejected("empty text")
    try:
        num_bytes = len(text.encode())
    except UnicodeEncodeError:
        return Rejected("text that is not valid Unicode")
    if num_bytes > MAX_TEXT_BYTES:
        return Rejected(f"text of {num_bytes:,} bytes: it may have at most {MAX_TEXT_BYTES:,}")
    return Output(Modality.TEXT, text_digest(text), text)


def _finish_image(raw: Any, reject_constant: bool) -> Output | Rejected:
    if isinstance(raw, np.ndarray):
        if raw.dtype != np.uint8:
            if not np.isfinite(raw).all():
                return Rejected("image with values that are not numbers")
            raise TypeError(f"an image model returned a {raw.dtype} array; uint8 (h, w, 3) is needed")
        if raw.ndim not in (2, 3):
            raise TypeError(f"an image model returned an array of shape {raw.shape}; (h, w, 3) is needed")
        if problem := size_problem(raw.shape[1], raw.shape[0]):
            return Rejected(problem)
        raw = Image.fromarray(raw)
    if not isinstance(raw, Image.Image):
        raise TypeError(f"an image model returned {type(raw).__name__}, not PIL.Image.Image or a uint8 array")
    if problem := size_problem(*raw.size):
        return Rejected(problem)
    if raw.mode in UNSCALED_MODES:
        return Rejected(f"image of mode {raw.mode}, whose scale is not known: RGB, L or I;16 is needed")
    image = _rgb(raw)
    if reject_constant and _is_constant(image):
        return Rejected("constant image")
    return Output(Modality.IMAGE, image_digest(image), image)


def _rgb(image: Image.Image) -> Image.Image:
    """The image as RGB, with nothing but pixels; 16 bits keep their scale, where Pillow would clip."""
    if image.mode in DEEP_MODES:
        image = Image.fromarray((np.asarray(image) / 257).round().astype(np.uint8))
    if image.mode != "RGB" or image.info:  # what stands in `info` may be of a class of the user's
        image = image.convert("RGB")
        image.info = {}
    return image


def _is_constant(image: Image.Image) -> bool:
    pixels = np.asarray(image)
    return bool((pixels == pixels[0, 0]).all())


def _finish_vector(raw: Any) -> Output | Rejected:
    if np.ma.is_masked(raw):
        return Rejected("vector with masked values")
    if np.iscomplexobj(raw):
        return Rejected("vector of complex numbers")
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is refused below
        vector = np.asarray(raw, dtype=np.float32, order="C")
    if vector.ndim != 1 or not vector.size:
        raise TypeError(f"an embedding model returned an array of shape {vector.shape}; (d,) is needed")
    if not np.isfinite(vector).all():
        return Rejected("vector with values that are not numbers")
    return Output(Modality.VECTOR, b"", vector)


def size_bytes(content: Content) -> int:
    """Memory of an image's pixels or file, or about that of a text and its places in dictionaries."""
    if isinstance(content, str):
        return TEXT_OVERHEAD + 2 * len(content)
    if isinstance(content, RemoteImage):
        return len(content.encoded or b"")
    return 3 * content.width * content.height


class ContentCache:
    """Digest -> text or RGB image. Thread safe.

    Args:
        budget_bytes: for contents that are in the store.
        read: reads a content from the store.
    """

    def __init__(self, budget_bytes: int, read: Callable[[bytes, Modality], Content]) -> None:
        self._budget = budget_bytes
        self._read = read
        self._lock = threading.Lock()
        self._saved: OrderedDict[bytes, Content] = OrderedDict()
        self._saved_bytes = 0
        self._unsaved: dict[bytes, tuple[Content, int]] = {}
        self._remote: WeakValueDictionary[bytes, RemoteImage] = WeakValueDictionary()

    @property
    def saved_bytes(self) -> int:
        """Bytes held within the budget."""
        return self._saved_bytes

    def add_unsaved(self, digest: bytes, content: Content) -> None:
        """Hold a content until `saved` was called as often as this."""
        with self._lock:
            held, holders = self._unsaved.get(digest, (content, 0))
            self._unsaved[digest] = (held, holders + 1)
            if isinstance(held, RemoteImage) and held.pixels is not None:
                self._remote[digest] = held

    def saved(self, digest: bytes) -> None:
        """The store has it now: keep it within the budget only, and pixels that are elsewhere not at all."""
        with self._lock:
            content, holders = self._unsaved.pop(digest)
            if holders > 1:
                self._unsaved[digest] = (content, holders - 1)
            elif isinstance(content, RemoteImage) and content.pixels is not None:
                content.encoded = None
            else:
                self._keep(digest, content)

    def keep(self, digest: bytes, content: Content) -> None:
        """Hold a content that the store has, within the budget."""
        with self._lock:
            self._keep(digest, content)

    def get(self, digest: bytes, modality: Modality) -> Content:
        """The content, from memory or from the store."""
        with self._lock:
            if unsaved := self._unsaved.get(digest):
                return unsaved[0]
            if (remote := self._remote.get(digest)) and remote.pixels is not None:
                return remote
            if saved := self._saved.get(digest):
                self._saved.move_to_end(digest)
                return saved
        content = self._read(digest, modality)
        with self._lock:
            self._keep(digest, content)
        return content

    def remote(self, digest: bytes) -> RemoteImage | None:
        """The image, if its pixels are elsewhere: whoever needs them later has to hold it."""
        return self._remote.get(digest) if self._remote else None

    def decoded(self, digest: bytes, modality: Modality) -> str | Image.Image:
        """The content as it is in this process; a remote image is decoded from its file."""
        content = self.get(digest, modality)
        if not isinstance(content, RemoteImage):
            return content
        encoded = content.encoded  # the writer's thread takes it away once the store has it
        if encoded is None:
            read = self._read(digest, modality)
            assert isinstance(read, RemoteImage)
            encoded = read.encoded
        assert encoded is not None
        return decode_image(encoded)

    def _keep(self, digest: bytes, content: Content) -> None:
        if digest in self._saved:
            return
        self._saved[digest] = content
        self._saved_bytes += size_bytes(content)
        while self._saved_bytes > self._budget and self._saved:
            _, dropped = self._saved.popitem(last=False)
            self._saved_bytes -= size_bytes(dropped)
