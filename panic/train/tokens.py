"""The tokenizer of a new model: one that exists, or one learnt on the captions of the data."""

from __future__ import annotations

from typing import Any

from panic.pocket.tokens import build
from panic.train.bases import folder_of, told_as
from panic.train.data import DataSet


def tokenizer_of(name: str | None, data: DataSet) -> Any:
    """The tokenizer of a folder or a model; without one, byte-level BPE learnt on the captions.

    Raises UsageError if there is no such tokenizer.
    """
    if name is None:
        return build(data.captions())
    from transformers import AutoTokenizer

    folder = folder_of(name, "model.tokenizer")
    inner = folder / "tokenizer"  # of a pipeline
    with told_as(f"model.tokenizer: {folder} holds no tokenizer"):
        return AutoTokenizer.from_pretrained(inner if inner.is_dir() else folder)
