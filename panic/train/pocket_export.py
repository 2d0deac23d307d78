"""Writes pocket models as the folders that diffusers and transformers load: fp16 weights, model cards."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from panic.train import pocket_models
from panic.train.loop import CHECKPOINT

CARD = """---
license: mit
tags: [panic, pocket]
---
# {name}

{what} Trained from scratch for the pocket world of coloured shapes (`panic.pocket.world`); licence MIT.

- **Data**: scenes of the training split, rendered on the fly; no scene of the validation or test split, and
  none of the held-out combinations of colour and shape, was ever shown.
- **Training**: `python -m panic.train.pocket_pair {part}`, AdamW, exponential average of the weights,
  {steps}.
- **Use**: {use}
"""


def ema(out: Path, part: str) -> tuple[dict[str, Tensor], int]:
    """The averaged weights of a part and the step they are from."""
    saved = torch.load(out / part / CHECKPOINT, weights_only=True)
    return saved["ema"], int(saved["step"])


def export_diffusion(out: Path, to: Path, size: str = "pocket") -> Path:
    """Write `PocketDiffusion`: a StableDiffusionPipeline whose "latents" are 32x32 pictures folded 2x2."""
    from diffusers import DDIMScheduler, StableDiffusionPipeline

    weights, steps = ema(out, "diffusion")
    pair = nn.ModuleDict(
        {"unet": pocket_models.unet(size, 0), "text_encoder": pocket_models.text_encoder(size, 0)}
    )
    pair.load_state_dict(weights)
    autoencoder = pocket_models.autoencoder(size, 0)
    sharpening, sharpening_steps = ema(out, "decoder")
    autoencoder.load_state_dict(sharpening)
    pipeline: Any = StableDiffusionPipeline(
        vae=autoencoder,
        text_encoder=pair["text_encoder"],
        tokenizer=pocket_models.tokenizer(),
        unet=pair["unet"],
        scheduler=DDIMScheduler(**pocket_models.SCHEDULE),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    folder = to / "PocketDiffusion"
    pipeline.to(torch.float16).save_pretrained(folder)
    _tidy_configs(folder)
    _card(
        folder,
        part="diffusion",
        what="Text to 64x64 pictures: a UNet at 32x32, a CLIP text encoder, a decoder that sharpens.",
        steps=f"{steps:,} steps of 32 pictures (decoder {sharpening_steps:,} steps)",
        use="`DiffusionPipeline.from_pretrained(folder)`, 8 steps, guidance 2.5.",
    )
    return folder


def export_captioner(out: Path, to: Path, size: str = "pocket") -> Path:
    """Write `PocketCaptioner`: a BLIP with its processor."""
    weights, steps = ema(out, "captioner")
    model = pocket_models.captioner(size, 0)
    model.load_state_dict(weights)
    folder = to / "PocketCaptioner"
    model.half().save_pretrained(folder)
    pocket_models.processor().save_pretrained(folder)
    _tidy_configs(folder)
    _card(
        folder,
        part="captioner",
        what="64x64 pictures to text: a small BLIP.",
        steps=f"{steps:,} steps of 48 pictures, half of them spoilt as a diffusion model might draw them",
        use="`AutoModelForImageTextToText` and `AutoProcessor`, greedy or sampled, `max_new_tokens=46`.",
    )
    return folder


def _tidy_configs(folder: Path) -> None:
    """Make fp16 on disk float32 in memory: transformers takes the dtype from the configs."""
    for path in folder.rglob("config.json"):
        config: dict[str, Any] = _with_float32(json.loads(path.read_text()))
        if config.get("_class_name") == "AutoencoderTiny":
            del config["block_out_channels"]  # written by diffusers and then complained about
        path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def _with_float32(config: dict[str, Any]) -> dict[str, Any]:
    return {
        key: "float32" if key == "dtype" else _with_float32(value) if isinstance(value, dict) else value
        for key, value in config.items()
    }


def _card(folder: Path, **facts: str) -> None:
    (folder / "README.md").write_text(CARD.format(name=folder.name, **facts))
