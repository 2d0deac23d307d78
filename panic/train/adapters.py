"""Low-rank adapters (Hu et al. 2021) on a model of diffusers or transformers, through peft."""

from __future__ import annotations

import copy
from pathlib import Path
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

    Raises UsageError if no layer has one of the target names.
    """
    from peft import LoraConfig

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


def adapters(model: Any) -> dict[str, torch.Tensor]:
    """The adapters of a model on the CPU in float16, by peft's names."""
    from peft.utils import get_peft_model_state_dict

    return {
        name: value.detach().to("cpu", torch.float16).contiguous()
        for name, value in get_peft_model_state_dict(model).items()
    }


def save_adapters(model: Any, folder: Path) -> None:
    """Write the adapters of a transformers model as peft reads them; the same bytes for the same weights."""
    from safetensors.torch import save_file

    folder.mkdir()
    weights = {f"base_model.model.{name}": value for name, value in adapters(model).items()}
    save_file(weights, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config = copy.copy(model.peft_config["default"])
    config.base_model_name_or_path = None  # where it was on this machine
    config.target_modules = sorted(config.target_modules)  # a set
    config.inference_mode = True
    config.save_pretrained(folder)
