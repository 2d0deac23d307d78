"""The tokenizer of a new model: one that exists, or one learnt on the captions of the data."""

from __future__ import annotations

from typing import Any

from panic.pocket.tokens import build
from panic.train.data import DataSet


def tokenizer_of(folder: str | None, data: DataSet) -> Any:
    """The tokenizer of a folder or hub id; without one, byte-level BPE learnt on the captions."""
    if folder is None:
        return build(data.captions())
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)
