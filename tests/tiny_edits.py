"""Tiny image-to-image pipelines of the real classes, built offline and saved to a folder.

`variation` and `flux-variation` are text-to-image folders (`AutoPipelineForImage2Image` finds their other
class); the others are editors of their own.

    from tests import tiny_edits
    tiny_edits.BUILDERS["instruct-pix2pix"](tmp_path / "edit")
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from tests import tiny, tiny_brought
from tests.tiny import VOCABULARY, sharpen, tokenizer


def build_pix2pix(folder: Path, seed: int = 0) -> Path:
    """A StableDiffusionInstructPix2PixPipeline: a UNet that takes the image beside the noise."""
    import diffusers

    plain = diffusers.DiffusionPipeline.from_pretrained(
        tiny.build_stable_diffusion(folder / "plain", seed), local_files_only=True
    )
    torch.manual_seed(seed)
    unet = diffusers.UNet2DConditionModel.from_config({**plain.unet.config, "in_channels": 8})
    parts = {name: part for name, part in plain.components.items() if name not in ("unet", "image_encoder")}
    diffusers.StableDiffusionInstructPix2PixPipeline(
        unet=unet, **parts, requires_safety_checker=False
    ).save_pretrained(folder)
    return folder


def build_kontext(folder: Path, seed: int = 0) -> Path:
    """A FluxKontextPipeline: the parts of a FLUX.1 pipeline, the image as more tokens."""
    index = tiny.build_flux(folder, seed) / "model_index.json"
    content = json.loads(index.read_text()) | {"_class_name": "FluxKontextPipeline"}
    index.write_text(json.dumps(content))
    return folder


def build_klein(folder: Path, seed: int = 0) -> Path:
    """A Flux2KleinPipeline: its text encoder is a Qwen3 of 28 layers, three of which are read."""
    import diffusers
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(seed)
    transformer = diffusers.Flux2Transformer2DModel(
        patch_size=1, in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16,
        num_attention_heads=2, joint_attention_dim=48, timestep_guidance_channels=32,
        axes_dims_rope=(4, 4, 4, 4),
    )  # fmt: skip
    vae = diffusers.AutoencoderKLFlux2(
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 16), latent_channels=4, norm_num_groups=4, sample_size=32,
    )  # fmt: skip
    config = Qwen3Config(
        vocab_size=VOCABULARY, hidden_size=16, intermediate_size=32, num_hidden_layers=28,
        num_attention_heads=2, num_key_value_heads=2, head_dim=8,
    )  # fmt: skip
    words = tokenizer(max_length=512, ends=False)
    words.chat_template = (
        "{% for message in messages %}[{{ message['role'] }}]{{ message['content'] }}{% endfor %}"
    )
    pipeline = diffusers.Flux2KleinPipeline(
        transformer=transformer, vae=vae, text_encoder=sharpen(Qwen3ForCausalLM(config)), tokenizer=words,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
    )  # fmt: skip
    pipeline.save_pretrained(folder)
    return folder


BUILDERS: dict[str, Any] = {
    "variation": tiny.build_stable_diffusion,
    "flux-variation": tiny.build_flux,
    "instruct-pix2pix": build_pix2pix,
    "kontext": build_kontext,
    "klein": build_klein,
    "qwen-image-edit": tiny_brought.build_qwen_image_edit,
}
NEEDS_TORCHVISION = {"qwen-image-edit"}
