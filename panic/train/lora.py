"""Low-rank adapters (Hu et al. 2021) on a model of diffusers or transformers, through peft."""

from __future__ import annotations

import copy
from typing import Any

import torch

from panic.errors import UsageError
from panic.train.config import Lora


def add_lora(model: Any, lora: Lora, seed: int) -> None:
    """Freeze a model and put trainable adapters on it; they change nothing before they are trained.

    Raises UsageError if no layer has one of the target names.
    """
    from peft import LoraConfig

    model.requires_grad_(False)
    torch.manual_seed(seed)
    names = {
        name.rsplit(".", 1)[-1] for name, part in model.named_modules() if isinstance(part, torch.nn.Linear)
    }
    if not any(any(name.endswith(f".{t}") for t in lora.targets) for name, _ in model.named_modules()):
        raise UsageError(
            f"lora.targets: no layer is called {', '.join(lora.targets)}",
            hint=f"This model's linear layers are called {', '.join(sorted(names))}.",
        )
    model.add_adapter(
        LoraConfig(r=lora.rank, lora_alpha=lora.alpha or lora.rank, target_modules=lora.targets)
    )


def merged(model: Any) -> Any:
    """A copy of a model with its adapters merged into its weights."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    plain = copy.deepcopy(model)
    for name, part in list(plain.named_modules()):
        if isinstance(part, BaseTunerLayer):
            part.merge()
            parent = plain.get_submodule(name.rpartition(".")[0]) if "." in name else plain
            parent.register_module(name.rpartition(".")[2], part.get_base_layer())
    plain._hf_peft_config_loaded = False
    return plain
