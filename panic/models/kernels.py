"""What a loaded model computes with: quantised weights, compiled blocks, an attention that was chosen.

Three parameters of the kinds whose weights are files of diffusers and transformers. Each makes another model
of the same files, with a fingerprint of its own:

    fast: {base: FLUX.1-schnell, quantize: int8, compile: true, attention: _native_flash}

`quantize` stores the matrices of linear layers in fewer bits, computing stays in the model's dtype; of a
pipeline those of the denoiser and the text encoders, of a language model all but its last layer. `compile`
compiles a denoiser's repeated blocks, or the steps in which a language model writes. Each shape is compiled
for itself (`dynamic=False`) and without timing kernels against each other (`deterministic`): else what a
shape computes would depend on the shapes before it, or on the clock.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from panic.errors import ModelError
from panic.models import library_source, weights
from panic.models.kind import Parameter
from panic.models.protocol import ModelSpec

if TYPE_CHECKING:
    import torch

PACKAGES = {"int8": "torchao", "float8": "torchao", "int4": "torchao", "nf4": "bitsandbytes"}
"""What each quantisation is made with."""
MOST_SHAPES = 256
"""Shapes of one block that are compiled; more end in an error, where torch would stop compiling."""
_OF_TRANSFORMERS = ("eager", "sdpa", "flex_attention", "flash_attention_2", "flash_attention_3")
_OF_DIFFUSERS = ("native", "_native_math", "_native_flash", "_native_efficient", "_native_cudnn", "flex",
                 "flash", "_flash_3", "sage", "xformers")  # fmt: skip
_ON_CPU = {"eager", "sdpa", "native", "_native_math"}
"""The attentions that a CPU computes."""
_DENOISERS = ("unet", "transformer", "prior")
"""The beginnings of the names of a pipeline's parts that draw."""
_COMPILERS = ("g++", "c++", "clang++")


def _said(values: Mapping[str, Any]) -> str:
    return "of false is what there is without it: leave it out" if values["compile"] is False else ""


_QUANTIZE = Parameter(kind=str, choices=tuple(PACKAGES))
_COMPILE = Parameter(kind=bool, idle=_said)

OF_PIPELINES = {
    "quantize": _QUANTIZE,
    "compile": _COMPILE,
    "attention": Parameter(kind=str, choices=_OF_DIFFUSERS),
}
OF_ENCODERS = {"quantize": _QUANTIZE, "attention": Parameter(kind=str, choices=_OF_TRANSFORMERS)}
OF_WRITERS = {**OF_ENCODERS, "compile": _COMPILE}


# What is told before anything is loaded


def lacks(spec: ModelSpec) -> str:
    """Which package is not installed that a model's quantisation needs, and how it is; "" if none."""
    package = PACKAGES.get(str(spec.kernels.get("quantize")))
    if package is None or importlib.util.find_spec(package) is not None:
        return ""
    return f"{package} (the extra quantize: pip install 'panic[quantize]')"


def refusal(spec: ModelSpec, device_kind: str) -> str:
    """Why a kind of device cannot compute what is asked for, as a sentence; "" if it can."""
    values = spec.kernels
    if device_kind == "cuda":
        return ""
    if values.get("quantize") == "int4":
        return "quantize: int4 needs a CUDA device, where torchao has kernels for it; int8 and float8 do not"
    if "attention" in values and values["attention"] not in _ON_CPU:
        return f"attention: {values['attention']} needs a CUDA device"
    if "compile" in values and not _compiler():
        return (
            f"compile: on a CPU it needs a C++ compiler, and there is none ({', '.join(_COMPILERS)}, or CXX)"
        )
    return ""


def _compiler() -> str | None:
    named = [os.environ["CXX"]] if os.environ.get("CXX") else _COMPILERS
    return next((path for name in named if (path := shutil.which(name))), None)


def pipeline_conflicts(index: Mapping[str, Any], wanted: Collection[str]) -> dict[str, str]:
    """Which of the parameters a pipeline's denoiser cannot follow: name -> reason.

    Args:
        index: the content of model_index.json: each part's library and class.
        wanted: the names of parameters that were set.
    """
    classes = [
        str(part[-1]) for name, part in index.items()
        if name.startswith(_DENOISERS) and isinstance(part, list) and part[-1]
    ]  # fmt: skip
    sources = {name: library_source.diffusers_class(name) for name in classes}
    found = {}
    for name, words, reason in (
        ("compile", "_repeated_blocks = [", "cannot be: a {} names no blocks that repeat"),
        ("attention", "dispatch_attention_fn", "has no effect: a {} has only one"),
    ):
        lacking = [one for one, source in sources.items() if source and words not in source]
        if name in wanted and lacking:
            found[name] = reason.format(lacking[0])
    return found


def writer_conflicts(spec: ModelSpec, wanted: Collection[str]) -> dict[str, str]:
    """The same of a model of transformers that writes, told by its config.json.

    Steps can be compiled where the cache of keys and values has one length from the beginning.
    """
    if "compile" not in wanted:
        return {}
    try:
        config = weights.read_json(weights.folder_of(spec) / "config.json", spec.name)
    except ModelError:
        return {}
    kind = str(config.get("model_type"))
    source = library_source.modeling_source(kind)
    if not source or "_can_compile_fullgraph = True" in source:
        return {}
    return {"compile": f"cannot be: transformers cannot compile the steps of a {kind}"}


# What is done to a loaded model


def prepare(spec: ModelSpec, model: Any) -> None:
    """Choose, quantise and compile what is asked for in what was loaded, its weights in main memory.

    Args:
        model: a pipeline of diffusers, or a model of transformers, whose attention was chosen when it was
            read and whose steps are compiled when it writes (`steps_compiled`).
    """
    values = spec.kernels
    parts: dict[str, Any] = getattr(model, "components", {})
    denoisers = [part for name, part in parts.items() if name.startswith(_DENOISERS) and part is not None]
    if denoisers and "attention" in values:
        _choose_attention(denoisers, str(values["attention"]))
    if "quantize" in values:
        readers = [
            part for name, part in parts.items() if name.startswith("text_encoder") and part is not None
        ]
        for module in [*denoisers, *readers] if parts else [model]:
            quantize(module, str(values["quantize"]))
    if "compile" in values:
        for part in denoisers:
            part.compile_repeated_blocks(**compiling())


def quantize(module: torch.nn.Module, how: str) -> None:
    """Store the weights of all linear layers in fewer bits, except those of the layer that scores words.

    Per row of a matrix: int8 symmetric, float8 (e4m3); in groups of 128: int4; in blocks of 64: nf4
    (Dettmers et al. 2023).
    """
    import torch

    last = getattr(module, "get_output_embeddings", lambda: None)()
    names = {
        name for name, layer in module.named_modules()
        if type(layer) is torch.nn.Linear and layer is not last
    }  # fmt: skip
    if not names:
        raise ModelError(f"there are no linear layers to quantise in a {type(module).__name__}")
    if how == "nf4":
        _to_nf4(module, names)
        return
    from torchao import quantization as ao

    configs = {
        "int8": lambda: ao.Int8WeightOnlyConfig(set_inductor_config=False),
        "float8": lambda: ao.Float8WeightOnlyConfig(set_inductor_config=False),
        "int4": lambda: ao.Int4WeightOnlyConfig(set_inductor_config=False),
    }
    ao.quantize_(module, configs[how](), filter_fn=lambda layer, name: name in names)


def _to_nf4(module: torch.nn.Module, names: Collection[str]) -> None:
    import bitsandbytes.nn as bnb

    for name in names:
        layer: Any = module.get_submodule(name)
        new = bnb.Linear4bit(
            *(layer.in_features, layer.out_features, layer.bias is not None),
            compute_dtype=layer.weight.dtype,
            quant_type="nf4",
        )
        new.weight = bnb.Params4bit(layer.weight.data, requires_grad=False, quant_type="nf4", module=new)
        new.bias = layer.bias
        place, _, attribute = name.rpartition(".")
        setattr(module.get_submodule(place), attribute, new)


def _choose_attention(denoisers: list[Any], backend: str) -> None:
    """Have denoisers use an attention of diffusers; that this makes it all other models', too, is undone."""
    from diffusers.models.attention_dispatch import _AttentionBackendRegistry as registry

    before, _ = registry.get_active_backend()
    try:
        for denoiser in denoisers:
            denoiser.set_attention_backend(backend)
    finally:
        registry.set_active_backend(before)


def steps_compiled() -> dict[str, Any]:
    """What `generate` of transformers is told, so that the steps after the first are compiled."""
    from transformers import CompileConfig

    config: Any = CompileConfig(**compiling())
    config.mode = None  # torch takes a mode or options
    config._compile_all_devices = True  # also on a CPU
    return {"cache_implementation": "static", "compile_config": config}


def compiling() -> dict[str, Any]:
    """How `torch.compile` is told to give the same result of a shape whenever it is compiled.

    Raises ModelError where torch cannot.
    """
    from torch._inductor import config

    if not hasattr(config, "deterministic"):
        raise ModelError("compile needs torch 2.10 or newer: older ones time kernels to choose among them")
    return {"dynamic": False, "options": {"deterministic": True}}


@contextmanager
def every_shape_compiled() -> Iterator[None]:
    """During a call a shape is compiled or the call fails: by itself torch gives up after eight of them."""
    from torch._dynamo import config

    limits = {"recompile_limit": MOST_SHAPES, "accumulated_recompile_limit": 16 * MOST_SHAPES}
    with config.patch({**limits, "fail_on_recompile_limit_hit": True}):
        yield
