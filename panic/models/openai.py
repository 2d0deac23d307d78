"""Requests and answers of OpenAI's protocol, as plain data: what is sent for an item, and what came back.

Four paths: `chat/completions` (text to text, image to text), `images/generations`, `images/edits` and
`embeddings`. Images travel as base64 in both directions; a URL in an answer is never followed. An answer is
not trusted: it is parsed within limits, and what is not as the protocol says raises `BadAnswer`.

    request = write(spec, "a red circle", seed=42)
    answer = read(spec, body)
"""

from __future__ import annotations

import base64
import io
import json
import re
import threading
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from panic.errors import ModelError, OutputRejected
from panic.models.endpoints import model_name
from panic.models.protocol import Modality, ModelSpec

FORMATS = ("PNG", "JPEG", "WEBP")
SEED_BITS = 31
"""Some servers refuse seeds beyond 32 bits with a sign."""
IMAGE_TOKENS = 2048
"""At least so many tokens are reckoned for an image that is sent: more than common models take."""
OVERHEAD_TOKENS = 64
"""Tokens of a chat template around the texts."""
MOST_TOKENS = 10**9
"""No request has taken so many: what claims more is no count. Sums of many counts stay within 64 bits."""
MAX_NAME = 200
_OPENING = threading.Lock()
"""Images are read in several threads, and filters of warnings are the process's."""
THINKING = re.compile(r"\A\s*<think>.*?</think>", re.DOTALL)


class BadAnswer(ModelError):
    """An answer that is not as the protocol says; the server may give a better one next time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is sent for one item: JSON, or a form with files where there are any.

    files: by field, a PNG.
    """

    path: str
    fields: Mapping[str, Any]
    files: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a server said: the output, and about it as far as it told.

    output: a text, an image, a float32 vector (d,), or an OutputRejected.
    """

    output: Any
    input_tokens: int | None = None
    output_tokens: int | None = None
    served_model: str | None = None
    system_fingerprint: str | None = None


def most_tokens(spec: ModelSpec, item: Any) -> int:
    """How many tokens a request takes at most: a token has a byte or more, an image is reckoned."""
    values = spec.parameters
    texts = [
        item if isinstance(item, str) else "",
        values.get("prompt") or "",
        values.get("system_prompt") or "",
    ]
    images = 0 if isinstance(item, str) else IMAGE_TOKENS
    sent = sum(len(text.encode()) for text in texts) + images + OVERHEAD_TOKENS
    return sent + int(values.get("max_tokens", 0))


def write(spec: ModelSpec, item: Any, seed: int) -> Request:
    """The request for an item: a text (str) or an image (PIL, RGB), and its seed."""
    task, values = spec.parameters["task"], spec.parameters
    if task == "embedding":
        return _request(spec, "embeddings", {"input": item, "dimensions": values["dimensions"]})
    if task in ("text-to-text", "image-to-text"):
        fields = {
            "messages": _messages(spec, item),
            **{name: values[name] for name in ("max_tokens", "temperature", "top_p")},
            "seed": seed % 2**SEED_BITS if values["send_seed"] is not False else None,
        }
        return _request(spec, "chat/completions", fields)
    fields = {
        "prompt": item if task == "text-to-image" else values["prompt"],
        "n": 1,
        "size": f"{values['width']}x{values['height']}" if values["width"] and values["height"] else None,
        "response_format": "b64_json",
        "seed": seed % 2**SEED_BITS if values["send_seed"] else None,
    }
    if task == "text-to-image":
        return _request(spec, "images/generations", fields)
    return _request(spec, "images/edits", fields, {"image": _png(item)})


def _request(
    spec: ModelSpec, path: str, fields: Mapping[str, Any], files: Mapping[str, bytes] | None = None
) -> Request:
    merged = {"model": model_name(spec), **fields, **(spec.parameters["extra"] or {})}
    sent = {name: value for name, value in merged.items() if value is not None}
    return Request(path=path, fields=sent, files=files or {})


def _messages(spec: ModelSpec, item: Any) -> list[dict[str, Any]]:
    system, prompt = spec.parameters["system_prompt"], spec.parameters["prompt"]
    content: Any
    if isinstance(item, str):
        content = f"{prompt}\n\n{item}" if prompt else item
    else:
        url = f"data:image/png;base64,{base64.b64encode(_png(item)).decode()}"
        content = [{"type": "text", "text": prompt}, {"type": "image_url", "image_url": {"url": url}}]
    begin = [{"role": "system", "content": system}] if system else []
    return [*begin, {"role": "user", "content": content}]


def _png(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def read(spec: ModelSpec, body: bytes) -> Answer:
    """What the body of a successful answer says. Raises BadAnswer."""
    try:
        raw = json.loads(body)
    except (ValueError, RecursionError):
        raise BadAnswer("the answer is no JSON") from None
    try:
        output = _output(spec, raw)
        usage = raw.get("usage") or {}
        input_tokens = _count(usage.get("prompt_tokens", usage.get("input_tokens")))
        output_tokens = _count(usage.get("completion_tokens", usage.get("output_tokens")))
    except (LookupError, TypeError, AttributeError, ValueError, OverflowError):
        raise BadAnswer(f"the answer is not as the protocol says for {spec.parameters['task']}") from None
    return Answer(
        output=output,
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        served_model=_name(raw.get("model")),
        system_fingerprint=_name(raw.get("system_fingerprint")),
    )


def _output(spec: ModelSpec, raw: Any) -> Any:
    if spec.modality_out is Modality.TEXT:
        return _text(raw["choices"][0]["message"])
    entry = raw["data"][0]
    if spec.modality_out is Modality.VECTOR:
        return np.array(entry["embedding"], dtype=np.float32)
    data = entry.get("b64_json")
    if data is None:
        hint = "URLs in answers are not followed; some servers need extra: {response_format: null}"
        return OutputRejected("the answer holds no image as base64", hint=hint)
    return _image(data, spec.parameters["max_pixels"])


def _text(message: Any) -> Any:
    """The text of a message, without the thinking before it."""
    content = message["content"]
    if content is None or not str.strip(content):
        refusal = message.get("refusal")
        return OutputRejected(
            f"the model refuses: {refusal[:500]}" if isinstance(refusal, str) else "empty text"
        )
    return THINKING.sub("", content).strip()


def _image(data: str, max_pixels: int) -> Any:
    """An image within its limits, in its own mode; what it claims is known before it is decoded."""
    try:
        file = io.BytesIO(base64.b64decode(data, validate=True))
        with _OPENING, warnings.catch_warnings():  # of large images, which are refused below
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(file, formats=FORMATS)
        if image.width * image.height > max_pixels:
            return OutputRejected(
                f"an image of {image.width} x {image.height}: at most {max_pixels:,} pixels"
            )
        if getattr(image, "n_frames", 1) > 1:
            return OutputRejected("an image of several frames")
        return image.copy()  # in its own mode: 16 bits keep their scale where they are checked
    except MemoryError:
        raise
    except Exception:  # damaged bytes make Pillow raise many kinds
        raise BadAnswer("the answer holds no image that can be read") from None


def _count(value: Any) -> int | None:
    return value if type(value) is int and 0 <= value <= MOST_TOKENS else None


def _name(value: Any) -> str | None:
    """A name as it can be stored and shown."""
    if not isinstance(value, str):
        return None
    return "".join(c for c in value[:MAX_NAME] if c.isprintable()) or None


def error_text(body: bytes) -> tuple[str, str]:
    """(code, message) of a server's refusal, as far as it says them; the beginning of the body otherwise."""
    try:
        raw = json.loads(body)
        error = raw.get("error", raw) if isinstance(raw, dict) else raw
        code, message = (
            error.get("code") or error.get("type") or "",
            error.get("message") or error.get("detail"),
        )
        if message:
            return str(code)[:MAX_NAME], str(message)[:500]
    except (ValueError, AttributeError, RecursionError):
        pass
    return "", body[:200].decode(errors="replace").strip()
