"""Writes models as the folders that their libraries load: float16 on disk, float32 in memory."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import torch


def save_half(model: Any, folder: Path, **how: Any) -> None:
    """Save a copy of a model or pipeline in float16, replacing what is in the folder only once it is whole.

    `how` goes to save_pretrained.
    """
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    half(model).save_pretrained(partial, **how)
    load_as_float32(partial)
    replace(partial, folder)


def half(model: Any) -> Any:
    """A copy of a model or pipeline on the CPU in float16."""
    if hasattr(model, "components"):
        parts = {
            name: half(part) if isinstance(part, torch.nn.Module) else part
            for name, part in model.components.items()
        }
        return type(model)(**parts)
    return copy.deepcopy(model).to("cpu", torch.float16)


def replace(partial: Path, folder: Path) -> None:
    """Put a whole folder in the place of an older one."""
    old = folder.with_name(folder.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    if folder.exists():
        folder.rename(old)
    partial.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def load_as_float32(folder: Path) -> None:
    """Make fp16 on disk float32 in memory: transformers takes the dtype from the configs."""
    for path in folder.rglob("config.json"):
        config: dict[str, Any] = _with_float32(json.loads(path.read_text()))
        if config.get("_class_name") == "AutoencoderTiny":
            config.pop("block_out_channels", None)  # written by diffusers and then complained about
        path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def _with_float32(config: dict[str, Any]) -> dict[str, Any]:
    return {
        key: "float32" if key == "dtype" else _with_float32(value) if isinstance(value, dict) else value
        for key, value in config.items()
    }
