"""GGUF files of tiny models, written from their folders with the package `gguf`.

from tests import tiny_gguf
tiny_gguf.of_transformer(folder, tmp_path / "small.gguf", "Q8_0")     # of a pipeline of diffusers
tiny_gguf.of_language_model(folder, tmp_path / "small.gguf", "Q8_0")  # of a model of transformers
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

_PUBLISHED = {"all_final_layer.2-1.": "final_layer.", "all_x_embedder.2-1.": "x_embedder.",
              "attention.to_out.0": "attention.out", "norm_k": "k_norm", "norm_q": "q_norm"}  # fmt: skip
ARCHITECTURES = {"qwen3": "qwen3", "llama": "llama", "gemma3_text": "gemma3"}


def write(path: Path, says: Mapping[str, Any], tensors: Mapping[str, torch.Tensor], kind: str) -> Path:
    """A file with these tensors; those that blocks of `kind` (F16, BF16, Q8_0, Q4_0) fit are stored as it."""
    import gguf

    writer = gguf.GGUFWriter(path, str(says["architecture"]))
    for name, value in says.items():
        if name != "architecture" and value is not None:
            writer.add_uint32(name, value)
    writer.add_array("tokenizer.ggml.tokens", ["a", "b", "a longer one"])
    writer.add_array("tokenizer.ggml.scores", [0.5, 0.25, 0.0])
    for name, tensor in tensors.items():
        packed = gguf.quants.quantize(tensor.float().numpy(), stored_as(tensor, kind))
        writer.add_tensor(name, packed, raw_shape=packed.shape, raw_dtype=stored_as(tensor, kind))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def stored_as(tensor: torch.Tensor, kind: str) -> Any:
    """The type that a tensor is stored as: F32 if it is a vector, or its rows are no whole blocks."""
    import gguf

    number = gguf.GGMLQuantizationType[kind]
    fits = tensor.ndim > 1 and tensor.shape[-1] % gguf.GGML_QUANT_SIZES[number][0] == 0
    return number if fits else gguf.GGMLQuantizationType.F32


def rounded(tensor: torch.Tensor, kind: str, *, half: bool) -> torch.Tensor:
    """What is read again of a tensor that was stored as `kind`.

    Args:
        half: blocks are unpacked in float16, as diffusers does.
    """
    import gguf

    number = stored_as(tensor, kind)
    values = gguf.quants.dequantize(gguf.quants.quantize(tensor.float().numpy(), number), number)
    found = torch.from_numpy(np.ascontiguousarray(values))
    return (found.half() if half and number.name[0] == "Q" else found).to(tensor.dtype)


def of_part(folder: Path, *, published: bool = False) -> dict[str, torch.Tensor]:
    """The weights of a pipeline's transformer.

    Args:
        published: a Z-Image has the names that it was published with, queries, keys and values in one.
    """
    (source,) = (folder / "transformer").glob("*.safetensors")
    tensors = load_file(source)
    if not published:
        return tensors
    for name in [name for name in tensors if name.endswith("attention.to_q.weight")]:
        three = [tensors.pop(name.replace("to_q", f"to_{one}")) for one in "qkv"]
        tensors[name.replace("to_q", "qkv")] = torch.cat(three)
    for here, there in _PUBLISHED.items():
        tensors = {name.replace(here, there): tensor for name, tensor in tensors.items()}
    return tensors


def of_transformer(folder: Path, path: Path, kind: str, *, published: bool = False) -> Path:
    """A file of a pipeline's transformer, with names as `of_part` gives them."""
    return write(path, {"architecture": "tiny"}, of_part(folder, published=published), kind)


def of_language_model(folder: Path, path: Path, kind: str, *, leave_out: str = "-", **says: Any) -> Path:
    """A file of a causal language model, as llama.cpp's converter would write it.

    Args:
        leave_out: tensors of whose names this is a part are not written.
        says: what the header says otherwise.
    """
    import gguf

    config = json.loads((folder / "config.json").read_text())
    name = ARCHITECTURES[config["model_type"]]
    (number,) = [key for key, value in gguf.MODEL_ARCH_NAMES.items() if value == name]
    names = gguf.get_tensor_name_map(number, config["num_hidden_layers"])
    tensors = {}
    for key, tensor in load_file(folder / "model.safetensors").items():
        stem, _, ending = key.rpartition(".")
        if leave_out not in key:
            tensors[f"{names.get_name(stem)}.{ending}"] = _as_stored(name, key, tensor, config)
    header = {
        "architecture": name,
        f"{name}.block_count": config["num_hidden_layers"],
        f"{name}.embedding_length": config["hidden_size"],
        f"{name}.attention.head_count": config["num_attention_heads"],
        f"{name}.attention.head_count_kv": config["num_key_value_heads"],
    }
    return write(path, header | says, tensors, kind)


def _as_stored(architecture: str, name: str, tensor: torch.Tensor, config: Mapping[str, Any]) -> torch.Tensor:
    """A tensor as such files have it: gemma's norms with 1 added, halves of llama's heads interleaved."""
    if architecture == "gemma3" and "norm" in name:
        return tensor + 1
    heads = {"q_proj": "num_attention_heads", "k_proj": "num_key_value_heads"}
    for part, number in heads.items():
        if architecture == "llama" and part in name:
            halves = tensor.reshape(config[number], 2, -1, tensor.shape[1])
            return halves.swapaxes(1, 2).reshape(tensor.shape)
    return tensor
