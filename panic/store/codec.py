"""Contents have names and bytes: a digest for each text and image, an exact encoding for what is stored.

A digest is one SHA-256 over the kind and the exact content: the UTF-8 of a text, or width, height and RGB
bytes of an image, never an encoded file. Equal digests mean equal contents, whatever codec wrote them.

Images are lossless WebP at the fastest setting: for 512 x 512 px 7.6 ms and 332 KB, against 20 ms and
424 KB of PNG level 1 and 106 ms of WebP's own default. Vectors are little-endian float32, persistence
bars little-endian float64, generators the self-describing .npy format. numpy is imported where it is
used: `panic list` does without, which saves 0.1 s.

    >>> text_digest("a red circle").hex()[:8]
    '7a8b4bf4'
    >>> decode_vector(encode_vector(np.arange(3)))
    array([0., 1., 2.], dtype=float32)
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import re
import struct
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from panic.errors import StoreCorrupt

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

ENCODING = "webp-lossless"
IMAGE_PROMPT = re.compile(r"image:([0-9a-f]{64})")
PROMPT = "coalesce(text, 'image:' || lower(hex(digest)))"
"""The prompt that a row of `output` is, in SQL."""
MAX_SIDE = 16_383
"""The longest side of a WebP image."""
MAX_PIXELS = 89_000_000
"""The most pixels of an image, for writing and for reading; above 89.5 million Pillow warns, above twice as
many it refuses."""


def readable(text: str) -> str:
    """A text of the operating system as UTF-8, which its bytes need not be: others are shown as \\xff."""
    try:
        return os.fsencode(text).decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # it came from elsewhere: no operating system has it
        return writable(text)


def writable(text: str) -> str:
    """A text as UTF-8 can have it: lone surrogates, such as JSON can write, are shown as \\ud800."""
    return text.encode(errors="backslashreplace").decode()


def text_digest(text: str) -> bytes:
    """Digest (32 bytes) of a text. A text with lone surrogates has no UTF-8: UnicodeEncodeError."""
    return hashlib.sha256(b"text\0" + text.encode()).digest()


def image_prompt(digest: bytes) -> str:
    """What stands for an image among the prompts of a config, a run and a dump."""
    return f"image:{digest.hex()}"


def prompt_digest(prompt: str) -> bytes:
    """Digest of the output that a prompt is: of its text, or of the image that it names."""
    named = IMAGE_PROMPT.fullmatch(prompt)
    return bytes.fromhex(named[1]) if named else text_digest(prompt)


def is_image_prompt(prompt: str) -> bool:
    """Return whether a prompt names an image."""
    return IMAGE_PROMPT.fullmatch(prompt) is not None


def prompt_label(prompt: str) -> str:
    """Return a prompt as people read it: a text, or "image" and the beginning of its digest."""
    return f"image {prompt_digest(prompt).hex()[:12]}" if is_image_prompt(prompt) else prompt


def prompt_modality(prompt: str) -> str:
    """Return "text" or "image"."""
    return "image" if is_image_prompt(prompt) else "text"


def image_digest(image: Image) -> bytes:
    """Digest (32 bytes) of an RGB image: its size as two little-endian uint32, then its pixels."""
    assert image.mode == "RGB", image.mode
    state = hashlib.sha256(b"image\0" + struct.pack("<II", *image.size))
    state.update(image.tobytes())
    return state.digest()


def size_problem(width: int, height: int) -> str:
    """Why an image of this size cannot be stored; empty if it can."""
    if not width or not height:
        return f"image of {width:,} x {height:,}: it has no pixels"
    if max(width, height) > MAX_SIDE:
        return f"image of {width:,} x {height:,} pixels: a side may have at most {MAX_SIDE:,}"
    if width * height > MAX_PIXELS:
        return f"image of {width:,} x {height:,} pixels: it may have at most {MAX_PIXELS:,}"
    return ""


def encode_image(image: Image) -> bytes:
    """Lossless WebP of an RGB image: its pixels, without a colour profile or other remarks.

    Raises ValueError if it is larger than WebP allows.
    """
    assert image.mode == "RGB", image.mode
    file = io.BytesIO()
    image.save(
        file, "WEBP", lossless=True, exact=True, method=0, quality=0, icc_profile=b"", exif=b"", xmp=b""
    )
    return file.getvalue()


def decode_image(data: bytes) -> Image:
    """The RGB image that was encoded, fully loaded.

    Raises ValueError if the bytes are damaged, are not WebP, or are of an image larger than may be stored.
    No other decoder is started: that of EPS, for one, runs a program.
    """
    from PIL.WebPImagePlugin import WebPImageFile

    if data[:4] != b"RIFF" or data[8:12] != b"WEBP":
        raise ValueError("its bytes cannot be decoded (no WebP)")
    try:
        with WebPImageFile(io.BytesIO(data)) as image:  # Image.open would warn of large ones on stderr
            problem = size_problem(*image.size)
            decoded = None if problem else image.convert("RGB")
    except MemoryError:
        raise
    except Exception as error:  # damaged bytes make Pillow raise many kinds
        raise ValueError(f"its bytes cannot be decoded ({type(error).__name__})") from error
    if decoded is None:
        raise ValueError(problem)
    return decoded


def encode_vector(vector: NDArray[Any]) -> bytes:
    """Little-endian float32 bytes of a vector (d,)."""
    import numpy as np

    return np.ascontiguousarray(vector, dtype="<f4").tobytes()


def decode_vector(data: bytes) -> NDArray[np.float32]:
    """The float32 vector (d,) of its bytes. Raises StoreCorrupt for a part of a number."""
    import numpy as np

    if len(data) % 4:
        raise _damaged(f"where a vector should be, it has {len(data):,} bytes")
    return np.frombuffer(data, dtype="<f4")


def decode_vectors(blobs: Sequence[bytes], dimension: int) -> NDArray[np.float32]:
    """Vectors (n, dimension) of their bytes, at once. Raises StoreCorrupt where one has another length."""
    import numpy as np

    if any(len(data) != 4 * dimension for data in blobs):
        raise _damaged(f"not all vectors of a model have {dimension:,} numbers")
    return np.frombuffer(b"".join(blobs), dtype="<f4").reshape(len(blobs), dimension)


def encode_bars(bars: NDArray[Any]) -> bytes:
    """Little-endian float64 bytes of persistence bars (m, 2)."""
    import numpy as np

    return np.ascontiguousarray(bars, dtype="<f8").tobytes()


def decode_bars(data: bytes) -> NDArray[np.float64]:
    """Persistence bars (m, 2) as birth and death; a death may be infinite. Raises StoreCorrupt for a part."""
    import numpy as np

    if len(data) % 16:
        raise _damaged(f"where bars should be, it has {len(data):,} bytes")
    return np.frombuffer(data, dtype="<f8").reshape(-1, 2)


def encode_array(array: NDArray[Any]) -> bytes:
    """Any plain array in the .npy format."""
    import numpy as np

    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    return file.getvalue()


def decode_array(data: bytes) -> NDArray[Any]:
    """The array of numbers of its .npy bytes. Raises StoreCorrupt for every other content."""
    import numpy as np

    try:
        array: NDArray[Any] = np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
    except Exception as error:  # numpy reads the header as Python: damaged ones raise many kinds
        raise _damaged(f"where an array should be, it has {len(data):,} other bytes") from error
    if array.dtype.kind not in "biuf":
        raise _damaged(f"where numbers should be, it has an array of {array.dtype}")
    return array


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spaces."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def told_json(value: Any, **options: Any) -> str:
    """JSON for others, in which numbers that JSON has none for (NaN, infinities) are null.

    options: those of `json.dumps`.
    """
    try:
        return json.dumps(value, allow_nan=False, **options)
    except ValueError:
        return json.dumps(_finite(value), allow_nan=False, **options)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(one) for key, one in value.items()}
    return [_finite(one) for one in value] if isinstance(value, list | tuple) else value


def run_key(experiment: str, network: Sequence[str], prompt: str, *of_run: int | str) -> str:
    """What stands for a run of the experiment of this name: 16 hexadecimal digits.

    of_run: its seed and repeat, and its arm if that is not the baseline.
    """
    identity = canonical_json([experiment, list(network), prompt, *of_run])
    return hashlib.sha256(identity.encode()).hexdigest()[:16]


def decode_json(text: str) -> Any:
    """The value of a stored JSON text. Raises StoreCorrupt where it is none."""
    try:
        return json.loads(text)
    except (ValueError, TypeError, RecursionError) as error:
        raise _no_json(text, "value") from error


def decode_object(text: str) -> dict[str, Any]:
    """The mapping of a stored JSON object. Raises StoreCorrupt for every other text."""
    value = decode_json(text)
    if not isinstance(value, dict):
        raise _no_json(text, "object")
    return value


def config_problems(config: Mapping[str, Any]) -> dict[str, str]:
    """What parts of a stored config are of another kind than readers expect, by name; of what is there."""
    found = {}
    networks, diagrams = config.get("networks", []), config.get("diagrams") or []
    if not isinstance(networks, list) or not all(map(_are_texts, networks)):
        found["networks"] = "no lists of names"
    if not all(isinstance(one, dict) for one in (diagrams if isinstance(diagrams, list) else [diagrams])):
        found["diagrams"] = "no settings"
    found |= {name: "no list of texts" for name in TEXTS if not _are_texts(config.get(name, []))}
    return found | {name: "no mapping" for name in MAPPINGS if not isinstance(config.get(name) or {}, dict)}


def sound_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The parts of a stored config that are of the kind that readers expect: for showing, not for running."""
    wrong = config_problems(config)
    return {name: part for name, part in config.items() if name not in wrong}


TEXTS = ("embeddings", "tags")
MAPPINGS = ("models", "arms", "labels", "budget")
"""Parts of a config that have names."""


def _are_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def decode_network(text: str) -> tuple[str, ...]:
    """The names of a stored network, at least one. Raises StoreCorrupt for every other text."""
    names = decode_json(text)
    if not names or not _are_texts(names):
        raise _no_json(text, "list of models")
    return tuple(names)


def _no_json(text: object, kind: str) -> StoreCorrupt:
    return _damaged(f"where a JSON {kind} should be, it has {str(text)[:60]!r}")


def _damaged(problem: str) -> StoreCorrupt:
    return StoreCorrupt(
        f"The store is damaged: {problem}.",
        hint="What is affected: panic check. A damaged store has to come from a backup.",
    )
