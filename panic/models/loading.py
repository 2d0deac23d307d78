"""Around the heavy calls: one construction at a time, and every failure as one of our errors.

`loading` is for from_pretrained and moves to a device, `calling` for a batch. Both turn running out of
device memory into `OutOfMemory`; drop that exception before a retry, its traceback keeps tensors alive.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from panic.errors import ModelError, OutOfMemory, PanicError
from panic.models.spec import ModelSpec
from panic.models.weights import fetch_hint

# accelerate's init_empty_weights patches torch.nn.Module process-wide while a model is constructed: two
# threads that load at once strand weights on the meta device.
_CONSTRUCTION = threading.Lock()


@contextmanager
def loading(spec: ModelSpec, folder: Path) -> Iterator[None]:
    """Raises OutOfMemory, or ModelError with the folder and the reason."""
    try:
        with _CONSTRUCTION:
            yield
    except PanicError:
        raise
    except torch.OutOfMemoryError as error:
        raise OutOfMemory(f"{spec.name}: no room to load it: {error}") from error
    except Exception as error:
        reason = f"{type(error).__name__}: {_first_line(error)}"
        hint = fetch_hint(spec) if spec.is_hub else "is the folder complete, as save_pretrained wrote it?"
        raise ModelError(f"{spec.name} cannot be loaded from {folder}: {reason}", hint=hint) from error


@contextmanager
def calling(spec: ModelSpec, num_items: int) -> Iterator[None]:
    """Raises OutOfMemory; other errors pass as they are, for the engine to retry."""
    try:
        with torch.inference_mode():
            yield
    except torch.OutOfMemoryError as error:
        message = f"{spec.name}: no room for a batch of {num_items}: {error}"
        raise OutOfMemory(message) from error


def torch_dtype(spec: ModelSpec) -> torch.dtype:
    """The spec's dtype as torch knows it; float32 if it has none."""
    dtype: torch.dtype = getattr(torch, spec.dtype or "float32")
    return dtype


def module_bytes(module: torch.nn.Module) -> int:
    """Bytes of a module's parameters and buffers, shared ones once."""
    tensors = {id(tensor): tensor for tensor in [*module.parameters(), *module.buffers()]}
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n", 1)[0][:500]
