"""How a pipeline reads its prompts: their tokens, what they are padded to, and where they are cut.

A pipeline may have several text encoders. Those of CLIP read 77 tokens, others as many as its parameter
`max_sequence_length` says. A prompt is cut where none of them reads all of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from panic.models import pipeline_files, weights
from panic.models.kind import Bucketer
from panic.models.loading import loading
from panic.models.protocol import ModelSpec

# Pipelines whose padding follows the longest prompt of the batch, with the multiple they pad to.
_RAGGED = {"ZImagePipeline": 32, "QwenImagePipeline": 1}
MAX_TOKENS = 512
_BITS = 20
"""Of a number of tokens in a bucket of several tokenizers."""


def bucketing(spec: ModelSpec) -> Bucketer | None:
    """Count the tokens that a prompt is padded to, if the pipeline pads to the longest of its batch."""
    pad_to = _RAGGED.get(pipeline_files.class_name(spec, weights.folder_of(spec)))
    if pad_to is None:
        return None
    limit = spec.parameters.get("max_sequence_length") or MAX_TOKENS
    tokenizer = _tokenizer(spec, "tokenizer")

    def bucket(text: str) -> int:
        tokens = min(_count(tokenizer(), text), limit)
        return -(-tokens // pad_to) * pad_to

    return bucket


def lengths(spec: ModelSpec) -> Bucketer | None:
    """Tell apart prompts of different numbers of tokens, by any of the pipeline's tokenizers."""
    names = pipeline_files.tokenizers(spec, weights.folder_of(spec))
    if not names:
        return None
    readers = [_tokenizer(spec, name) for name in names[:3]]

    def bucket(text: str) -> int:
        return sum(_count(read(), text) << place * _BITS for place, read in enumerate(readers))

    return bucket


def _tokenizer(spec: ModelSpec, name: str) -> Callable[[], Any]:
    """Reads a tokenizer of a pipeline when it is first called."""
    folder = weights.folder_of(spec)

    @cache
    def read() -> Any:
        from transformers import AutoTokenizer

        with loading(spec, folder):
            return AutoTokenizer.from_pretrained(folder / name)

    return read


def _count(tokenizer: Any, text: str) -> int:
    return len(tokenizer(_as_asked(tokenizer, text)).input_ids)


def _as_asked(tokenizer: Any, text: str) -> str:
    """A text as a chat model is asked it, else as it is."""
    if not tokenizer.chat_template:
        return text
    messages = [{"role": "user", "content": text}]
    asked = tokenizer.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=True, enable_thinking=True
    )
    return str(asked)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """A prompt that is longer than what a model reads: its tokens, and how many are read, by which limit."""

    tokens: int
    limit: int
    said_by: str


def longest_cut(pipeline: Any, keywords: Mapping[str, Any], texts: Sequence[str]) -> Cut | None:
    """The longest prompt of which no text encoder reads all; None if all are read.

    Args:
        pipeline: a loaded diffusers pipeline.
        keywords: those that it is called with, defaults of its signature included.
    """
    found: list[Cut] = []
    for name, tokenizer in pipeline.components.items():
        if not name.startswith("tokenizer") or tokenizer is None:
            continue
        encoder = pipeline.components.get(name.replace("tokenizer", "text_encoder"))
        if encoder is None:
            continue
        found.append(_longest(pipeline, tokenizer, encoder, keywords, texts))
    least = min(found, key=lambda cut: cut.tokens - cut.limit, default=None)
    return least if least is not None and least.tokens > least.limit else None


def _longest(
    pipeline: Any, tokenizer: Any, encoder: Any, keywords: Mapping[str, Any], texts: Sequence[str]
) -> Cut:
    """The longest prompt as one encoder reads it."""
    words = getattr(tokenizer, "tokenizer", tokenizer)  # of a processor
    asked = keywords.get("max_sequence_length")
    own = int(words.model_max_length)
    if asked is None or type(encoder).__name__.startswith("CLIP"):
        return Cut(tokens=_most(words, texts), limit=own, said_by="its tokenizer")
    begin = getattr(pipeline, "prompt_template_encode_start_idx", 0)
    template = getattr(pipeline, "prompt_template_encode", None) or getattr(pipeline, "prompt_template", None)
    read = (
        [str(template).format(text) for text in texts]
        if begin
        else [_as_asked(words, text) for text in texts]
    )
    return Cut(tokens=_most(words, read) - begin, limit=int(asked), said_by="max_sequence_length")


def _most(tokenizer: Any, texts: Sequence[str]) -> int:
    return max(len(tokens) for tokens in tokenizer(list(texts), truncation=False).input_ids)
