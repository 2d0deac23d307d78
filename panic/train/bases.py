"""Models and tokenizers that a training goes on from, or takes parts of: nothing is downloaded.

A base is a folder, the name of a model that `panic models` lists, or a hub id whose weights are on this
machine.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from panic.errors import PanicError, UsageError
from panic.pocket.tokens import build as learn_tokenizer
from panic.train.data import DataSet


def folder_of(name: str, key: str) -> Path:
    """The folder with a model's files; `key` is where the config names it, for the message.

    Raises UsageError if there is none.
    """
    from panic.models import registry, weights

    if Path(name).is_dir():
        return Path(name)
    try:
        return weights.folder_of(registry.resolve("base", {"base": {"base": name}}))
    except PanicError as error:
        raise UsageError(
            f"{key}: there is no folder {name}, and no model of this name is on this machine",
            hint=error.hint if "fetch it" in error.hint else "`panic models` lists those with a name.",
        ) from error


@contextmanager
def as_usage_error(what: str) -> Iterator[None]:
    """Turn what a library says about arguments or files into a UsageError that begins with `what`."""
    try:
        yield
    except PanicError:
        raise
    except (TypeError, ValueError, KeyError, OSError, AttributeError, RuntimeError) as error:
        raise UsageError(f"{what}: {type(error).__name__}: {error}") from error


def whole_model(kind: Any, folder: Path, image_size: int) -> Any:
    """A model of transformers that looks at images of `image_size`, with float32 weights.

    Raises UsageError if the folder holds another kind of model, or one of another size.
    """
    from transformers import AutoConfig

    with as_usage_error(f"model.base: {folder} cannot be loaded"):
        config = AutoConfig.from_pretrained(folder)
        if config.model_type != kind.config_class.model_type:
            raise UsageError(
                f"model.base: {folder} is a {config.model_type} model, and this task goes on from "
                f"a {kind.__name__}"
            )
        if config.vision_config.image_size != image_size:
            raise UsageError(
                f"model.base looks at pictures of {config.vision_config.image_size}x"
                f"{config.vision_config.image_size}, and image_size is {image_size}"
            )
        return kind.from_pretrained(folder, dtype=torch.float32)


def tokenizer_of(name: str | None, data: DataSet) -> Any:
    """The tokenizer of a folder or a model; without one, byte-level BPE learnt on the captions.

    Raises UsageError if there is no such tokenizer.
    """
    if name is None:
        return learn_tokenizer(data.captions())
    from transformers import AutoTokenizer

    folder = folder_of(name, "model.tokenizer")
    inner = folder / "tokenizer"  # of a pipeline
    with as_usage_error(f"model.tokenizer: {folder} holds no tokenizer"):
        return AutoTokenizer.from_pretrained(inner if inner.is_dir() else folder)
