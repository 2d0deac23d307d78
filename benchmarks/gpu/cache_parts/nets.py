"""Random-weight models in real sizes, built from configs; as models that the cache can move.

An SDXL-size UNet (2.6 B parameters), a decoder of Qwen3-4B's shape, a vision-language model of Qwen2-VL-2B's.
Nothing is downloaded; `rehearse` builds the same in miniature.

    Net("unet", rehearse=True, device="cpu").invoke([0])
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch


class Net:
    """A module with random bfloat16 weights, called on fixed inputs; a model to the cache."""

    modality_in = modality_out = "text"

    def __init__(self, name: str, rehearse: bool, device: str) -> None:
        self.name = name
        with torch.device(device):  # random numbers are made where that is fast
            self.net, self.inputs = BUILDERS[name](rehearse)
        self.net = self.net.eval().to("cpu", torch.bfloat16)

    @property
    def size_bytes(self) -> int:
        tensors = [*self.net.parameters(), *self.net.buffers()]  # tied ones once
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    def weight_modules(self) -> list[Any]:
        return [self.net]

    def load(self, device: str) -> None:
        self.net.to(device)

    @torch.inference_mode()
    def invoke(self, inputs: Sequence[Any], seeds: Sequence[int] = ()) -> list[Any]:
        device = next(self.net.parameters()).device
        moved = {key: _to(value, device) for key, value in self.inputs.items()}
        output = None
        for _ in range(len(inputs)):
            output = self.net(**moved)
        synchronise(device)
        return [output]


def unet(rehearse: bool) -> tuple[torch.nn.Module, dict[str, Any]]:
    """Stable Diffusion XL's UNet at 1024 px."""
    from diffusers import UNet2DConditionModel

    width, text_width = (16, 64) if rehearse else (320, 2048)
    net = UNet2DConditionModel(
        sample_size=16 if rehearse else 128,
        in_channels=4,
        out_channels=4,
        block_out_channels=(width, 2 * width, 4 * width),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 2, 4) if rehearse else (1, 2, 10),
        attention_head_dim=(2, 2, 4) if rehearse else (5, 10, 20),
        norm_num_groups=8 if rehearse else 32,
        cross_attention_dim=text_width,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=2816,
    )
    size = net.config.sample_size
    added = {"text_embeds": torch.randn(1, 1280), "time_ids": torch.ones(1, 6)}
    return net, {
        "sample": torch.randn(1, 4, size, size),
        "timestep": torch.tensor(500),
        "encoder_hidden_states": torch.randn(1, 77, text_width),
        "added_cond_kwargs": added,
    }


def transformer(rehearse: bool) -> tuple[torch.nn.Module, dict[str, Any]]:
    """A decoder of Qwen3-4B's shape over 512 tokens."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    config = Qwen3Config(
        hidden_size=256 if rehearse else 2560,
        intermediate_size=512 if rehearse else 9728,
        num_hidden_layers=8 if rehearse else 36,
        num_attention_heads=4 if rehearse else 32,
        num_key_value_heads=2 if rehearse else 8,
        head_dim=64 if rehearse else 128,
        vocab_size=1000 if rehearse else 151936,
        tie_word_embeddings=True,
    )
    return Qwen3ForCausalLM(config), {"input_ids": torch.arange(512 if not rehearse else 8)[None]}


def captioner(rehearse: bool) -> tuple[torch.nn.Module, dict[str, Any]]:
    """A vision-language model of Qwen2-VL-2B's shape, over 512 tokens of text."""
    from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

    width = 256 if rehearse else 1536
    config = Qwen2VLConfig(
        text_config={
            "hidden_size": width,
            "intermediate_size": 2 * width if rehearse else 8960,
            "num_hidden_layers": 6 if rehearse else 28,
            "num_attention_heads": 4 if rehearse else 12,
            "num_key_value_heads": 2,
            "vocab_size": 1000 if rehearse else 151936,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1e6,
                "mrope_section": [8, 12, 12] if rehearse else [16, 24, 24],
            },
        },
        vision_config={
            "depth": 2 if rehearse else 32,
            "embed_dim": 64 if rehearse else 1280,
            "hidden_size": width,
            "num_heads": 4 if rehearse else 16,
        },
        tie_word_embeddings=True,
    )
    net = Qwen2VLForConditionalGeneration(config)
    return net, {"input_ids": torch.arange(512 if not rehearse else 8)[None]}


BUILDERS: dict[str, Callable[[bool], tuple[torch.nn.Module, dict[str, Any]]]] = {
    "unet": unet,
    "transformer": transformer,
    "captioner": captioner,
}


def _to(value: Any, device: Any) -> Any:
    if isinstance(value, dict):
        return {key: _to(item, device) for key, item in value.items()}
    floating = value.is_floating_point()
    return value.to(device, torch.bfloat16 if floating else value.dtype)


def synchronise(device: Any) -> None:
    """Wait for everything that a device is at."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
