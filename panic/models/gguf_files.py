"""Weights from a GGUF file in place of a model's own, as llama.cpp and its like write them.

A parameter of the kinds whose weights are files. All else comes from the model's folder: configuration,
tokenizer, chat template, the other parts of a pipeline. Each file makes another model of the same folder:

    models:
      small: {base: FLUX.1-schnell, gguf: files/flux1-schnell-Q4_K_S.gguf}
      talks: {base: Qwen3-0.6B, gguf: files/Qwen3-0.6B-Q8_0.gguf}

Of a pipeline the transformer is read so, by diffusers: its linear layers stay packed and are unpacked as they
are computed. Of a language model all is read so, by transformers, and unpacked at once. The header of a file
is read here without either, so that a file that is none, is cut off or is of another model is told by the
check of a config.
"""

from __future__ import annotations

import importlib.util
import math
import struct
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

from panic.errors import ModelError
from panic.models import library_source
from panic.models.kind import Parameter
from panic.models.protocol import BYTES_PER_ELEMENT, ModelSpec

PART = "transformer"
"""The part of a pipeline that is read from a file."""
PACKAGE = "gguf"
_NOT_INSTALLED = f"{PACKAGE} (the extra quantize: pip install 'panic[quantize]')"
_PLAIN = ("F32", "F16")
"""The types of tensors that are no blocks."""
_VERSIONS = (2, 3)
_FORMATS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_TEXT, _LIST = 8, 9
_MOST_SIDES = 4
"""More dimensions a tensor of ggml cannot have; the product of a million takes minutes."""
_ARCHITECTURES = {"gemma3_text": "gemma3", "mistral": "llama", "umt5": "t5"}
"""What a file calls models that transformers calls otherwise, beside how words are joined."""
_SIZES = {
    "block_count": ("num_hidden_layers", "n_layer", "num_layers"),
    "embedding_length": ("hidden_size", "n_embd", "d_model"),
    "attention.head_count": ("num_attention_heads", "n_head", "num_heads"),
    "attention.head_count_kv": ("num_key_value_heads",),
}
"""What a file and a config.json say of the same model, by their words for it."""
_NEEDED = ("block_count", "attention.head_count")
"""Without the number of heads the order of llama's weights would be mistaken, silently."""
_SHARE = 1e-4
"""Of its values so many a file may lack or have beside a class's: some hold a norm that is not used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """A tensor of a file: its shape as torch has it, the name of its type, and its bytes in the file."""

    shape: tuple[int, ...]
    type: str
    num_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What a file says of itself: numbers and texts by name (lists are left out), and its tensors."""

    says: Mapping[str, Any]
    tensors: Mapping[str, Tensor]

    @property
    def architecture(self) -> str:
        return str(self.says.get("general.architecture"))

    @property
    def num_values(self) -> int:
        return sum(math.prod(tensor.shape) for tensor in self.tensors.values())

    def packed_bytes(self, bytes_per_value: int) -> int:
        """The bytes of all tensors where quantised ones stay so, and others have so many bytes a value."""
        return sum(
            math.prod(tensor.shape) * bytes_per_value if tensor.type in _PLAIN else tensor.num_bytes
            for tensor in self.tensors.values()
        )


class NoGGUF(ValueError):
    """A file that cannot be read as one; what it says follows the file's name."""


def _beside(values: Mapping[str, Any]) -> str:
    return "cannot be beside quantize: the file says how it is quantised" if values.get("quantize") else ""


def _beside_in_pipeline(values: Mapping[str, Any]) -> str:
    return _beside(values) or (
        "cannot be beside lora: packed weights take none" if values.get("lora") else ""
    )


OF_PIPELINES = {"gguf": Parameter(kind=str, is_file=True, idle=_beside_in_pipeline)}
OF_WRITERS = {"gguf": Parameter(kind=str, is_file=True, idle=_beside)}


def lacks(spec: ModelSpec) -> str:
    """Which package is not installed that reads a model's file, and how it is; "" if none."""
    return _NOT_INSTALLED if spec.parameters.get("gguf") and not _is_installed() else ""


def _is_installed() -> bool:
    return importlib.util.find_spec(PACKAGE) is not None


# What a file says


def read_header(path: Path) -> Header:
    """What a file says of itself; its weights are not read. Raises NoGGUF."""
    if not _is_installed():  # it knows the types of tensors
        raise NoGGUF(f"cannot be read without {_NOT_INSTALLED}")
    try:
        status = path.stat()
        return _read_header(path, (status.st_size, status.st_mtime_ns))
    except OSError as error:
        raise NoGGUF(f"cannot be read ({error.strerror})") from error


@lru_cache(maxsize=16)
def _read_header(path: Path, state: tuple[int, int]) -> Header:
    """Of a file of so many bytes that was changed at that time (ns)."""
    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise NoGGUF("is no GGUF file")
        try:
            return _parsed(file, state[0])
        except NoGGUF:
            raise
        except (struct.error, ValueError, TypeError, ArithmeticError, MemoryError, RecursionError) as error:
            raise NoGGUF("is cut off or broken") from error


def _parsed(file: BinaryIO, num_bytes: int) -> Header:
    version, num_tensors, num_said = _numbers(file, "<IQQ")
    if version not in _VERSIONS:
        raise NoGGUF(f"is of version {version & 0xFFFF or version}, which is not read here (2 and 3 are)")
    said: dict[str, Any] = {}
    for _ in range(num_said):
        name = _text(file)
        said[name] = _value(file, _numbers(file, "<I")[0])
    tensors, end = {}, 0
    for _ in range(num_tensors):
        name = _text(file)
        (num_sides,) = _numbers(file, "<I")
        if num_sides > _MOST_SIDES:
            raise NoGGUF(f"has a tensor of {num_sides:,} dimensions: {name[:100]}")
        shape = tuple(reversed(_numbers(file, f"<{num_sides}Q")))
        number, offset = _numbers(file, "<IQ")
        tensors[name] = tensor = _tensor(name, shape, number)
        end = max(end, offset + tensor.num_bytes)
    step = int(said.get("general.alignment", 32))
    begin = -(-file.tell() // step) * step
    if begin + end > num_bytes:
        raise NoGGUF(f"is cut off: it should have {begin + end:,} bytes, and has {num_bytes:,}")
    return Header(says=said, tensors=tensors)


def _tensor(name: str, shape: tuple[int, ...], number: int) -> Tensor:
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    try:
        kind = GGMLQuantizationType(number)
        values_each, bytes_each = GGML_QUANT_SIZES[kind]
    except (ValueError, KeyError):
        raise NoGGUF(f"has a tensor of a type that is not known here: {name} ({number})") from None
    return Tensor(shape=shape, type=kind.name, num_bytes=math.prod(shape) // values_each * bytes_each)


def _numbers(file: BinaryIO, form: str) -> tuple[Any, ...]:
    return struct.unpack(form, file.read(struct.calcsize(form)))


def _text(file: BinaryIO) -> str:
    (length,) = _numbers(file, "<Q")
    found = file.read(length)
    if len(found) != length:
        raise NoGGUF("is cut off")
    return found.decode()


def _value(file: BinaryIO, kind: int) -> Any:
    """A value of the header; None for a list, which is passed over."""
    if kind == _TEXT:
        return _text(file)
    if kind != _LIST:
        (value,) = _numbers(file, f"<{_format(kind)}")
        return value
    kind, count = _numbers(file, "<IQ")
    if kind in (_TEXT, _LIST):
        for _ in range(count):
            _value(file, kind)
    else:
        file.seek(count * struct.calcsize(_format(kind)), 1)
    return None


def _format(kind: int) -> str:
    if kind not in _FORMATS:
        raise NoGGUF(f"has a value of a type that is not known here ({kind})")
    return _FORMATS[kind]


# What is told before anything is loaded


def conflicts(spec: ModelSpec, asked: Collection[str], misfit: Callable[[Header], str]) -> dict[str, str]:
    """Why a model's file cannot be used, as its parameter and a reason; nothing where it can.

    Args:
        asked: the names of parameters that were set.
        misfit: tells why a file with this header is of another model, or gives "".
    """
    path = Path(str(spec.parameters.get("gguf")))
    if "gguf" not in asked or not path.is_file() or lacks(spec):
        return {}
    try:
        reason = misfit(read_header(path))
    except NoGGUF as error:
        reason = f"cannot be: {path.name} {error}"
    return {"gguf": reason} if reason else {}


def misfit_of_pipeline(header: Header, index: Mapping[str, Any], num_values: int | None) -> str:
    """Why a file is not that of a pipeline's transformer; "" if it may be.

    Args:
        index: the content of model_index.json: each part's library and class.
        num_values: how many its own weights have; None where they are not here.
    """
    part = index.get(PART)
    name = str(part[-1]) if isinstance(part, list) and part and part[-1] else ""
    if not name:
        return f"cannot be: the pipeline has no {PART}"
    if f'    "{name}": {{' not in library_source.single_files():
        return f"cannot be: diffusers reads no single files of a {name}"
    unread = {tensor.type for tensor in header.tensors.values()} - library_source.unpacked_types() - {*_PLAIN}
    if unread:
        return f"cannot be: diffusers does not read weights of the type {min(unread)}"
    return "" if num_values is None else _misfit(header, name, num_values)


def _misfit(header: Header, name: str, num_values: int) -> str:
    if abs(header.num_values - num_values) <= _SHARE * num_values:
        return ""
    return (
        f"cannot be: the file is of another model ({header.architecture}): "
        f"it has {header.num_values:,} values, and a {name} of this pipeline {num_values:,}"
    )


def misfit_of_writer(header: Header, config: Mapping[str, Any]) -> str:
    """Why a file is not that of the language model that a config.json describes; "" if it may be."""
    kind = str(config.get("model_type"))
    found = _joined(header.architecture)
    if found not in map(_joined, library_source.gguf_architectures()):
        return f"cannot be: transformers reads no GGUF files of the architecture {header.architecture}"
    if found not in map(_joined, {kind, _ARCHITECTURES.get(kind, kind)}):
        return f"cannot be: the file is of the architecture {header.architecture}, the model is a {kind}"
    for word, others in _SIZES.items():
        here = header.says.get(f"{header.architecture}.{word}")
        wanted = next((config[other] for other in others if config.get(other)), None)
        if here is None and word in _NEEDED:
            return f"cannot be: the file does not say its {word}"
        if None not in (here, wanted) and here != wanted:
            return f"cannot be: the file is of another model: its {word} is {here}, and the model's {wanted}"
    words = header.tensors.get("token_embd.weight")
    if words is not None and config.get("vocab_size") not in (None, words.shape[0]):
        return f"cannot be: the file has {words.shape[0]:,} words, and the model {config['vocab_size']:,}"
    return ""


def _joined(name: str) -> str:
    """A name without what joins its words: qwen2moe of a file, qwen2_moe of a model; gpt-oss and gpt_oss."""
    return name.replace("-", "").replace("_", "")


# How it is read


def transformer(spec: ModelSpec, folder: Path, index: Mapping[str, Any]) -> Any:
    """The transformer of a pipeline with its weights from the file.

    Raises ModelError where they are not all there, as far as the header did not tell.
    """
    import diffusers
    import torch
    from diffusers.models.model_loading_utils import load_gguf_checkpoint
    from diffusers.quantizers.gguf.utils import dequantize_gguf_tensor

    dtype = getattr(torch, spec.dtype or "float32")
    path, name = Path(spec.parameters["gguf"]), str(index[PART][-1])
    try:
        module = getattr(diffusers, name).from_single_file(
            load_gguf_checkpoint(str(path)),  # of a path its ending would decide how it is read
            config=str(folder),
            subfolder=PART,
            quantization_config=diffusers.GGUFQuantizationConfig(compute_dtype=dtype),
            dtype=dtype,
            local_files_only=True,
        )
    except NotImplementedError:  # a weight without values was to be moved
        raise ModelError(f"{spec.name}: {path.name} has not all weights of a {name}") from None
    except (LookupError, ValueError, AttributeError, RuntimeError) as error:
        raise _unread(spec, path, name, error) from error
    values = dict(module.named_parameters())
    shapes = [getattr(values.get(key, v), "quant_shape", v.shape) for key, v in module.state_dict().items()]
    counted = sum(map(math.prod, shapes))
    if reason := _misfit(read_header(path), name, counted):
        raise ModelError(f"{spec.name}: gguf {reason}")
    for key, value in values.items():
        place, _, attribute = key.rpartition(".")
        owner = module.get_submodule(place)
        if hasattr(value, "quant_type") and not isinstance(owner, torch.nn.Linear):  # would be read as bytes
            plain = torch.nn.Parameter(dequantize_gguf_tensor(value).to(dtype), requires_grad=False)
            setattr(owner, attribute, plain)
    return module


def language_model(spec: ModelSpec, folder: Path, loader: Any, options: Mapping[str, Any]) -> Any:
    """A language model with its weights from the file, all of them unpacked.

    Args:
        loader: the class of transformers that reads it.
        options: how it reads a model's folder.

    Raises ModelError where weights are missing.
    """
    import transformers

    path = Path(spec.parameters["gguf"])
    kept = {name: value for name, value in options.items() if name != "variant"}
    if hasattr(transformers, "GgufConfig"):  # others always unpack; left packed they need kernels of the hub
        kept["quantization_config"] = transformers.GgufConfig(dequantize=True)
    config = transformers.AutoConfig.from_pretrained(folder)
    try:
        model, told = loader.from_pretrained(
            folder, config=config, gguf_file=str(path), output_loading_info=True, **kept
        )
    except (LookupError, ValueError, AttributeError, RuntimeError) as error:
        raise _unread(spec, path, type(config).__name__.removesuffix("Config"), error) from error
    if lacking := [*told["missing_keys"], *told["mismatched_keys"]]:
        raise ModelError(
            f"{spec.name}: {path.name} lacks what the model needs: {sorted(map(str, lacking))[0]}"
        )
    if (folder / "generation_config.json").is_file():  # which is not read beside a file
        model.generation_config = transformers.GenerationConfig.from_pretrained(folder)
    return model


def _unread(spec: ModelSpec, path: Path, name: str, error: Exception) -> ModelError:
    reason = f"{type(error).__name__}: {str(error).strip().split(chr(10), 1)[0]}"
    return ModelError(f"{spec.name}: {path.name} is not read as a {name} ({reason})")


def size_bytes(path: Path, others: int | None, dtype: str | None) -> int:
    """Bytes of a model's weights with those of a file among them. Raises ModelError.

    Args:
        others: how many values the other parts of a pipeline have; None for a language model.
    """
    each = BYTES_PER_ELEMENT[dtype or "float32"]
    try:
        header = read_header(path)
    except NoGGUF as error:
        raise ModelError(f"{path} {error}") from error
    return header.num_values * each if others is None else others * each + header.packed_bytes(each)
