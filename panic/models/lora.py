"""Low-rank adapters (Hu et al. 2021) from a folder, added to loaded weights for good.

Folders as `panic train` with `lora:` writes them, or as diffusers' `save_lora_weights` and peft do:

    models:
      styled: {base: sd-turbo, lora: checkpoints/style/lora}
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from panic.errors import ModelError


def fuse_pipeline(name: str, pipeline: Any, folder: Path) -> None:
    """Add a folder's adapters to the weights of a diffusers pipeline.

    Raises ModelError if the folder holds none, or none for this pipeline.
    """
    if not hasattr(pipeline, "load_lora_weights"):
        raise ModelError(f"{name}: a {type(pipeline).__name__} takes no lora")
    with _fitting(name, folder):
        pipeline.load_lora_weights(folder, local_files_only=True)
    if not pipeline.get_active_adapters():
        raise ModelError(f"{name}: {folder} holds no adapters for this pipeline")
    pipeline.fuse_lora()
    pipeline.unload_lora_weights()


def fuse_model(name: str, model: Any, folder: Path) -> Any:
    """A transformers model with a folder's adapters added to its weights.

    Raises ModelError if the folder holds none, or others than this model's.
    """
    from peft import PeftModel, get_peft_model_state_dict
    from safetensors.torch import load_file

    with _fitting(name, folder), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft and transformers among themselves
        given = load_file(folder / "adapter_model.safetensors")
        adapted = PeftModel.from_pretrained(model, str(folder), torch_device="cpu")
        missing = get_peft_model_state_dict(adapted).keys() ^ given.keys()
        if missing:  # peft only warns
            raise ValueError(f"no counterpart of {min(missing)}")
    return adapted.merge_and_unload()


@contextmanager
def _fitting(name: str, folder: Path) -> Iterator[None]:
    """Raises ModelError for whatever files of another model lead to."""
    try:
        yield
    except Exception as error:
        reason = str(error).strip().split("\n", 1)[0]
        raise ModelError(f"{name}: the adapters of {folder} do not fit: {reason}") from error
