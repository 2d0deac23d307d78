"""A text model's token vectors become one vector here, as sentence-transformers writes it down.

A folder's modules.json lists pooling, dense layers and normalisation; config_sentence_transformers.json
may name a default prompt, sentence_bert_config.json the longest text. A config's or the table's own
parameters come first; without either it is the mean, normalised.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from panic.errors import ModelError
from panic.models import weights
from panic.models.protocol import ModelSpec

_MAX_TOKENS = 512
_OFFSET_POSITIONS = {"mpnet", "roberta", "xlm-roberta", "camembert"}  # their positions begin at 2
_MODES = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_lasttoken": "last",
}
_ACTIVATIONS = {
    "Identity": torch.nn.Identity,
    "Tanh": torch.nn.Tanh,
    "ReLU": torch.nn.ReLU,
    "GELU": torch.nn.GELU,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A recipe says how a text is read and its tokens are pooled."""

    pooling: str
    normalise: bool
    prefix: str
    max_tokens: int
    dense: tuple[Path, ...]


def read_recipe(spec: ModelSpec, folder: Path, tokenizer_limit: int) -> Recipe:
    """The recipe of a text model's folder, under the spec's own parameters."""
    modules = _modules(folder, spec.name)
    own = spec.parameters
    part = folder / str(spec.options.get("model_folder", ""))
    return Recipe(
        pooling=own.get("pooling") or _written_pooling(folder, modules, spec.name),
        normalise=_first(own.get("normalise"), not modules or "Normalize" in dict(modules)),
        prefix=_first(own.get("prefix"), _written_prefix(folder, spec.name)),
        max_tokens=_max_tokens(spec, folder, part, tokenizer_limit),
        dense=tuple(folder / path for kind, path in modules if kind == "Dense"),
    )


def _first(value: Any, otherwise: Any) -> Any:
    return otherwise if value is None else value


def _modules(folder: Path, name: str) -> list[tuple[str, str]]:
    """(class name, folder) of each module; empty without modules.json."""
    file = folder / "modules.json"
    if not file.is_file():
        return []
    modules = weights.read_json_list(file, name)
    return [(module["type"].rsplit(".", 1)[-1], module["path"]) for module in modules]


def _written_pooling(folder: Path, modules: list[tuple[str, str]], name: str) -> str:
    paths = [path for kind, path in modules if kind == "Pooling"]
    if not paths:
        return "mean"
    config = weights.read_json(folder / paths[0] / "config.json", name)
    chosen = [
        _MODES.get(key, key) for key, on in config.items() if key.startswith("pooling_mode_") and on is True
    ]
    mode = chosen[0] if len(chosen) == 1 else str(config.get("pooling_mode", chosen))
    mode = {"lasttoken": "last"}.get(mode, mode)
    if mode not in _MODES.values():
        raise ModelError(f"{name}: pooling {mode} is not supported", hint="set pooling: mean, cls or last")
    return mode


def _written_prefix(folder: Path, name: str) -> str:
    file = folder / "config_sentence_transformers.json"
    if not file.is_file():
        return ""
    config = weights.read_json(file, name)
    default = config.get("default_prompt_name")
    return str(config.get("prompts", {}).get(default, "")) if default else ""


def _max_tokens(spec: ModelSpec, folder: Path, part: Path, tokenizer_limit: int) -> int:
    config = weights.read_json(part / "config.json", spec.name)
    limits = [_MAX_TOKENS, tokenizer_limit]
    positions = config.get("max_position_embeddings")
    if positions:
        limits.append(positions - (2 if config.get("model_type") in _OFFSET_POSITIONS else 0))
    asked = spec.parameters.get("max_tokens")
    file = folder / "sentence_bert_config.json"
    if asked is None and file.is_file():
        asked = weights.read_json(file, spec.name).get("max_seq_length")
    return min([*limits, asked] if asked else limits)


def pool(hidden: torch.Tensor, mask: torch.Tensor, pooling: str) -> torch.Tensor:
    """(n, tokens, d) and an (n, tokens) mask, padded on the right -> (n, d) float32."""
    hidden = hidden.float()
    if pooling == "cls":
        return hidden[:, 0]
    if pooling == "last":
        last = mask.sum(dim=1).clamp_min(1) - 1
        return hidden[torch.arange(len(hidden), device=hidden.device), last]
    weight = mask.unsqueeze(-1).float()
    return (hidden * weight).sum(dim=1) / weight.sum(dim=1).clamp_min(1)


class Dense(torch.nn.Module):
    """A dense layer of a sentence-transformers folder, in float32."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        from safetensors.torch import load_file

        config = weights.read_json(folder / "config.json", folder.name)
        activation = str(config.get("activation_function", "Identity")).rsplit(".", 1)[-1]
        if activation not in _ACTIVATIONS:
            raise ModelError(f"{folder}: the activation {activation} is not supported")
        self.linear = torch.nn.Linear(config["in_features"], config["out_features"], bias=config["bias"])
        self.activation = _ACTIVATIONS[activation]()
        self.load_state_dict(load_file(folder / "model.safetensors"))

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.activation(self.linear(vectors))
        return result
