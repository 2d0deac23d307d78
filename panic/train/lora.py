"""Low-rank adapters (Hu et al. 2021) on a model of diffusers or transformers, through peft."""

from __future__ import annotations

import copy
from typing import Any

import torch

from panic.errors import UsageError
from panic.train.config import Lora

# What diffusers, CLIP and BLIP call the projections of their attention.
ATTENTION = (
    "to_q",
    "to_k",
    "to_v",
    "to_out.0",
    "q_proj",
    "k_proj",
    "v_proj",
    "out_proj",
    "query",
    "key",
    "value",
    "qkv",
)


def add_lora(model: Any, lora: Lora, seed: int) -> None:
    """Freeze a model and put trainable adapters on it; they change nothing before they are trained.

    Raises UsageError if no layer has one of the target names, or peft is not installed.
    """
    try:
        from peft import LoraConfig
    except ImportError as error:
        raise UsageError("lora needs peft", hint="Install it with: pip install 'panic[lora]'") from error

    model.requires_grad_(False)
    linear = [name for name, part in model.named_modules() if isinstance(part, torch.nn.Linear)]
    wanted = lora.targets or ATTENTION
    found = [target for target in wanted if any(f".{name}".endswith(f".{target}") for name in linear)]
    if not found or (lora.targets and len(found) < len(lora.targets)):
        names = sorted({name.rsplit(".", 1)[-1] for name in linear})
        missing = ", ".join(target for target in wanted if target not in found)
        raise UsageError(
            f"lora.targets: no layer is called {missing}",
            hint=f"This model's linear layers are called {', '.join(names)}.",
        )
    torch.manual_seed(seed)
    model.add_adapter(LoraConfig(r=lora.rank, lora_alpha=lora.alpha or lora.rank, target_modules=found))


def merged(model: Any) -> Any:
    """A copy of a model with its adapters merged into its weights."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    plain = copy.deepcopy(model)
    for name, part in list(plain.named_modules()):
        if isinstance(part, BaseTunerLayer):
            part.merge()
            parent = plain.get_submodule(name.rpartition(".")[0])
            parent.register_module(name.rpartition(".")[2], part.get_base_layer())
    plain._hf_peft_config_loaded = False
    return plain
