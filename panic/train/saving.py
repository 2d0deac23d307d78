"""Writes models as the folders that their libraries load: float16 on disk, float32 in memory.

with whole(Path("checkpoints/mine")) as folder:
    save_half(model, folder)
"""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from panic.errors import PanicError


@contextmanager
def whole(folder: Path) -> Iterator[Path]:
    """An empty folder to write into, which takes the place of `folder` once everything is there.

    Raises PanicError where the weights cannot be written; nothing of them is left then.
    """
    partial, old = (folder.with_name(folder.name + ending) for ending in (".partial", ".old"))
    for path in (partial, old):
        shutil.rmtree(path, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
    except BaseException as error:
        shutil.rmtree(partial, ignore_errors=True)  # a full disk needs the room
        if isinstance(error, SafetensorError):
            raise PanicError(
                f"{folder} cannot be written ({error}).",
                hint="Is the disk full? The checkpoints are kept, and the same command writes it again.",
            ) from error
        raise
    if folder.exists():
        folder.rename(old)
    partial.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def save_half(model: Any, folder: Path) -> None:
    """Save a copy of a model or pipeline in float16; it loads as float32."""
    half(model).save_pretrained(folder)
    for path in folder.rglob("config.json"):
        # transformers takes the dtype from the configs
        config: dict[str, Any] = _with_float32(json.loads(path.read_text()))
        config.pop("_name_or_path", None)  # where the base was on this machine
        if config.get("_class_name") == "AutoencoderTiny":
            config.pop("block_out_channels", None)  # written by diffusers and then complained about
        path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def half(model: Any) -> Any:
    """A copy of a model or pipeline on the CPU in float16."""
    if hasattr(model, "components"):
        parts = {
            name: half(part) if isinstance(part, torch.nn.Module) else part
            for name, part in model.components.items()
        }
        return type(model)(**parts, **_settings(model, parts))
    return copy.deepcopy(model).to("cpu", torch.float16)


def _settings(pipeline: Any, parts: dict[str, Any]) -> dict[str, Any]:
    """What a pipeline was made with besides its parts."""
    return {
        name: value
        for name, value in pipeline.config.items()
        if name not in parts and not name.startswith("_")
    }


def _with_float32(config: dict[str, Any]) -> dict[str, Any]:
    return {
        key: "float32" if key == "dtype" else _with_float32(value) if isinstance(value, dict) else value
        for key, value in config.items()
    }
