"""Around the heavy calls: one construction at a time, every failure as one of our errors, a generator per
item, and low-rank adapters.

`FromFolder` is what models with weights in a folder share. `loading` is for from_pretrained and moves to a
device, `calling` for a batch. Both turn running out of device memory into `OutOfMemory`; drop that
exception before a retry, its traceback keeps tensors alive.

Adapters (LoRA, Hu et al. 2021) are read from folders as `panic train` with `lora:` writes them, or as
diffusers' `save_lora_weights` and peft do, and are added to loaded weights for good:

    models:
      styled: {base: sd-turbo, lora: checkpoints/style/lora}
"""

from __future__ import annotations

import textwrap
import threading
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from panic.errors import ModelError, OutOfMemory, PanicError
from panic.models import kernels
from panic.models.protocol import ModelSpec
from panic.models.weights import fetch_hint, folder_of, size_bytes, variant

if TYPE_CHECKING:
    import torch

# accelerate's init_empty_weights patches torch.nn.Module process-wide while a model is constructed: two
# threads that load at once strand weights on the meta device.
_CONSTRUCTION = threading.Lock()


@contextmanager
def loading(spec: ModelSpec, folder: Path) -> Iterator[None]:
    """Turn what goes wrong into OutOfMemory, or into ModelError with the folder and the reason."""
    import torch

    try:
        with _CONSTRUCTION:
            yield
    except PanicError:
        raise
    except torch.OutOfMemoryError as error:
        raise OutOfMemory(f"{spec.name}: no room to load it: {error}") from error
    except Exception as error:
        reason = f"{type(error).__name__}: {_first_paragraph(error)}"
        hint = fetch_hint(spec) if spec.is_hub else "is the folder complete, as save_pretrained wrote it?"
        raise ModelError(f"{spec.name} cannot be loaded from {folder}: {reason}", hint=hint) from error


@contextmanager
def calling(spec: ModelSpec, num_items: int) -> Iterator[None]:
    """Turn a device without room into OutOfMemory; other errors pass as they are, for the engine to retry."""
    import torch

    try:
        is_compiled = "compile" in spec.kernels
        with torch.inference_mode(), kernels.every_shape_compiled() if is_compiled else nullcontext():
            yield
    except torch.OutOfMemoryError as error:
        message = f"{spec.name}: no room for a batch of {num_items}: {error}"
        raise OutOfMemory(message) from error


@contextmanager
def without_bars(libraries: Sequence[str]) -> Iterator[None]:
    """Let libraries draw no bars for a while.

    A bar that cannot be written, since nobody reads stderr any more, keeps the lock that all bars share:
    whatever thread drops a bar later waits for it for ever.
    """
    told = [import_module(f"{library}.utils.logging") for library in libraries]
    shown = [module for module in told if module.is_progress_bar_enabled()]
    for module in shown:
        module.disable_progress_bar()
    try:
        yield
    finally:
        for module in shown:
            module.enable_progress_bar()


class FromFolder(ABC):
    """A model whose weights lie in a folder: they are read once, and moved to where it is called."""

    _readers: tuple[str, ...] = ("transformers",)
    """The libraries that read them."""

    def __init__(self, spec: ModelSpec) -> None:
        self.spec = spec
        self.parameters = dict(spec.parameters)
        self._model: Any = None

    @property
    def size_bytes(self) -> int:
        """Bytes of the weights: of the files, until they are read (and quantised)."""
        if self._model is None:
            return size_bytes(self.spec)
        return sum(module_bytes(module) for module in self.weight_modules())

    @property
    def is_compiled(self) -> bool:
        return "compile" in self.spec.kernels

    def weight_modules(self) -> list[Any]:
        """Everything loaded that has weights."""
        return [self._model]

    def load(self, device: str) -> None:
        """Read the weights if that has not been done, and bring them onto a device.

        Raises ModelMissing, ModelError, OutOfMemory.
        """
        folder = folder_of(self.spec)
        with loading(self.spec, folder):
            if self._model is None:
                with without_bars(self._readers):
                    model = self._read(folder)
                if self.spec.kernels:
                    kernels.prepare(self.spec, model)
                self._model = model
            self._model.to(device)

    @abstractmethod
    def _read(self, folder: Path) -> Any:
        """Read the model, ready to be called, and what it needs besides."""


def generators(seeds: Sequence[int]) -> list[torch.Generator]:
    """One generator on the CPU per item: the same noise on every device, whatever else is in the batch."""
    import torch

    return [torch.Generator("cpu").manual_seed(seed) for seed in seeds]


def torch_dtype(spec: ModelSpec) -> torch.dtype:
    """The spec's dtype as torch knows it; float32 if it has none."""
    import torch

    dtype: torch.dtype = getattr(torch, spec.dtype or "float32")
    return dtype


def reading_options(spec: ModelSpec, folder: Path) -> dict[str, Any]:
    """How `from_pretrained` of transformers reads a model's folder."""
    options = {"dtype": torch_dtype(spec), "variant": variant(folder)}
    if "attention" in spec.kernels:
        options["attn_implementation"] = spec.kernels["attention"]
    return options


def module_bytes(module: torch.nn.Module) -> int:
    """Bytes of a module's parameters and buffers, shared ones once."""
    tensors = {id(tensor): tensor for tensor in [*module.parameters(), *module.buffers()]}
    return sum(_tensor_bytes(tensor) for tensor in tensors.values())


def _tensor_bytes(tensor: torch.Tensor) -> int:
    """Bytes of a tensor; of one that is made of others, as quantised ones are, the bytes of those."""
    if not hasattr(tensor, "__tensor_flatten__"):
        return tensor.numel() * tensor.element_size()
    names, _ = tensor.__tensor_flatten__()
    return sum(_tensor_bytes(part) for name in names if (part := getattr(tensor, name)) is not None)


def _first_paragraph(error: BaseException) -> str:
    """What an error says, up to its first empty line, on one line and not longer than is read."""
    return textwrap.shorten(str(error).strip().split("\n\n", 1)[0], 500, placeholder=" ...")


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
