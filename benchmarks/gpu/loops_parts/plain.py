"""The same models by diffusers and transformers alone, in batches: seconds of one call after another.

seconds = plain_seconds("turbo", folder, setting)
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from panic.models.kernels import compiling, steps_compiled

QUESTION = "Describe this image in one or two sentences."


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """How all models are called: the device, the batch, compiled or not, in miniature or not."""

    device: str
    batch_size: int
    compiled: bool
    rehearse: bool

    @property
    def calls(self) -> int:
        return 3 if self.rehearse else 8

    @property
    def max_new_tokens(self) -> int:
        return 8 if self.rehearse else 48

    def side(self, name: str) -> int:
        """Pixels of an image's side."""
        return 64 if self.rehearse else {"turbo": 512, "klein": 1024}[name]


KEYWORDS: dict[str, dict[str, Any]] = {
    "turbo": {"num_inference_steps": 1, "guidance_scale": 0.0},
    "klein": {"num_inference_steps": 4, "guidance_scale": 1.0, "max_sequence_length": 512},
}
"""Of the calls of the pipelines; those that the table's entries set, too."""


def plain_seconds(name: str, folder: Path, setting: Setting) -> float:
    """The median of some calls of a model, loaded and warm."""
    call = _captions(folder, setting) if name == "captioner" else _draws(name, folder, setting)
    seconds = []
    with torch.inference_mode():
        for number in range(setting.calls + 2):
            started = time.perf_counter()
            call()
            if number >= 2:
                seconds.append(time.perf_counter() - started)
    return float(np.median(seconds))


def _draws(name: str, folder: Path, setting: Setting) -> Callable[[], Any]:
    from diffusers import DiffusionPipeline

    pipeline = DiffusionPipeline.from_pretrained(folder, dtype=torch.bfloat16).to(setting.device)
    pipeline.set_progress_bar_config(disable=True)
    if setting.compiled:
        (pipeline.unet if name == "turbo" else pipeline.transformer).compile_repeated_blocks(**compiling())
    side, seeds = setting.side(name), range(setting.batch_size)
    prompts = [f"a red circle above {number} blue squares" for number in seeds]

    def call() -> list[Image.Image]:
        noise = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
        images: list[Image.Image] = pipeline(
            prompt=prompts, generator=noise, width=side, height=side, **KEYWORDS[name]
        ).images
        return images

    return call


def _captions(folder: Path, setting: Setting) -> Callable[[], Any]:
    from transformers import AutoModelForImageTextToText, AutoProcessor

    model = (
        AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.bfloat16).to(setting.device).eval()
    )
    processor = AutoProcessor.from_pretrained(folder)
    processor.tokenizer.padding_side = "left"
    content = [{"type": "image"}, {"type": "text", "text": QUESTION}]
    text = processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
    )
    coarse = np.random.default_rng(0).integers(0, 256, (setting.batch_size, 4, 4, 3), dtype=np.uint8)
    images = [Image.fromarray(one).resize((setting.side("turbo"),) * 2) for one in coarse]
    more = steps_compiled() if setting.compiled else {}

    def call() -> list[str]:
        given = processor(
            text=[text] * len(images), images=[[one] for one in images], padding=True, return_tensors="pt"
        ).to(model.device, model.dtype)
        tokens = model.generate(**given, do_sample=False, max_new_tokens=setting.max_new_tokens, **more)
        texts: list[str] = processor.batch_decode(tokens.cpu(), skip_special_tokens=True)
        return texts

    return call
