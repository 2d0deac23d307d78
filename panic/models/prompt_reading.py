"""How many tokens a pipeline makes of a prompt, by its tokenizers alone: which prompts may share a batch."""

from __future__ import annotations

from collections.abc import Callable
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
    pad_to = _RAGGED.get(weights.pipeline_class(spec, weights.folder_of(spec)))
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
    return len(tokenizer(as_asked(tokenizer, text)).input_ids)


def as_asked(tokenizer: Any, text: str) -> str:
    """A text as a chat model is asked it, else as it is."""
    if not tokenizer.chat_template:
        return text
    messages = [{"role": "user", "content": text}]
    asked = tokenizer.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=True, enable_thinking=True
    )
    return str(asked)
