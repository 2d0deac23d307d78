"""A diffusers pipeline for what StableDiffusionPipeline leaves out: classes, and models without latents.

With `labels` the UNet adds an embedding of the class to that of the time, and the class is the one that a
prompt names; without, it looks at the prompt's text by cross-attention. Without a `vae` there are no latents.
Saved and loaded like any pipeline, but by its own class (diffusers does not know it by name):

    ConditionalPipeline.from_pretrained("checkpoints/mine")("a cat", num_inference_steps=8).images[0]
"""

from __future__ import annotations

import hashlib
import inspect
import re
from collections.abc import Sequence
from typing import Any

import torch
from diffusers import DiffusionPipeline, ImagePipelineOutput
from diffusers.image_processor import VaeImageProcessor
from diffusers.loaders.lora_pipeline import StableDiffusionLoraLoaderMixin
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor


def class_of(text: str, names: Sequence[str]) -> int:
    """The position of the class that a text is about.

    That is the class whose name stands in it as whole words, in upper or lower case; of several the longest
    name, of those the first in the text. A text that names none (captions in a loop may say anything) gets
    the class that its SHA-256 falls on: always the same one, and over many texts every one equally often.
    """
    found = []
    for index, name in enumerate(names):
        words = re.escape(plain(name))
        place = re.search(rf"(?<!\w){words}(?!\w)", plain(text))
        if place:
            found.append((-len(name), place.start(), index))
    if found:
        return min(found)[2]
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) % len(names)


def plain(name: str) -> str:
    """A name as it is said: lower case, one space where it has spaces, underscores or slashes."""
    return re.sub(r"[\s_/]+", " ", name).strip().lower()


# Typed, but without most of their attributes.
_Pipeline: Any = DiffusionPipeline
_Lora: Any = StableDiffusionLoraLoaderMixin


class ConditionalPipeline(_Pipeline, _Lora):  # type: ignore[misc]
    """Text-to-image by a UNet2DConditionModel, conditioned on a class or a text, with latents or without.

    labels: names of the classes by number, {"0": "cat", ...}, as in diffusers' DiTPipeline; the UNet has one
    class more, which stands for none.
    """

    model_cpu_offload_seq = "text_encoder->unet->vae"
    _optional_components = ["vae", "text_encoder", "tokenizer"]  # noqa: RUF012 (diffusers wants a list)

    def __init__(
        self,
        unet: torch.nn.Module,
        scheduler: Any,
        vae: torch.nn.Module | None = None,
        text_encoder: torch.nn.Module | None = None,
        tokenizer: Any = None,
        labels: dict[str, str] | None = None,
    ) -> None:
        super().__init__()
        self.register_modules(
            unet=unet, scheduler=scheduler, vae=vae, text_encoder=text_encoder, tokenizer=tokenizer
        )
        self.register_to_config(labels=labels)

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | Sequence[str],
        num_inference_steps: int = 20,
        guidance_scale: float = 2.5,
        generator: Any = None,
        output_type: str = "pil",
        return_dict: bool = True,
    ) -> Any:
        """Draw each prompt: `images` is a list of PIL images or an array (n, h, w, 3) of floats in [0, 1]."""
        texts = [prompt] if isinstance(prompt, str) else list(prompt)
        guided = guidance_scale > 1
        condition = self.condition([*texts, *([None] * len(texts) if guided else [])])
        side, channels = self.unet.config.sample_size, self.unet.config.in_channels
        latents = randn_tensor(
            (len(texts), channels, side, side),
            generator=generator,
            device=self.device,
            dtype=self.unet.dtype,
        )
        self.scheduler.set_timesteps(num_inference_steps, device=self.device)
        latents = latents * self.scheduler.init_noise_sigma
        takes_generator = "generator" in inspect.signature(self.scheduler.step).parameters
        how = {"generator": generator} if takes_generator else {}
        for time in self.progress_bar(self.scheduler.timesteps):
            scaled = self.scheduler.scale_model_input(latents, time)
            predicted = self.unet(torch.cat([scaled, scaled]) if guided else scaled, time, **condition).sample
            if guided:
                with_it, without = predicted.chunk(2)
                predicted = without + guidance_scale * (with_it - without)
            latents = self.scheduler.step(predicted, time, latents, **how).prev_sample
        images = VaeImageProcessor().postprocess(self._decode(latents), output_type=output_type)
        self.maybe_free_model_hooks()
        return ImagePipelineOutput(images=images) if return_dict else (images,)

    def condition(self, texts: Sequence[str | None]) -> dict[str, Tensor]:
        """Return what the UNet gets beside the noise and the time, for each text; None is no condition."""
        if self.config.labels is None:
            return {
                "encoder_hidden_states": encode(self.tokenizer, self.text_encoder, [t or "" for t in texts])
            }
        names = list(self.config.labels.values())
        numbers = [len(names) if text is None else class_of(text, names) for text in texts]
        return by_class(self.unet, torch.tensor(numbers))

    def _decode(self, latents: Tensor) -> Tensor:
        """Latents -> images (n, 3, h, w) in [-1, 1]."""
        if self.vae is None:
            return latents
        shift = getattr(self.vae.config, "shift_factor", None) or 0.0
        images: Tensor = self.vae.decode(latents / self.vae.config.scaling_factor + shift).sample
        return images


def encode(tokenizer: Any, text_encoder: Any, texts: list[str]) -> Tensor:
    """Texts -> what a UNet attends to: (n, tokens, d)."""
    tokens = tokenizer(
        texts,
        padding="max_length",
        max_length=tokenizer.model_max_length,
        truncation=True,
        return_tensors="pt",
    )
    states: Tensor = text_encoder(input_ids=tokens.input_ids.to(text_encoder.device)).last_hidden_state
    return states


def by_class(unet: Any, numbers: Tensor) -> dict[str, Tensor]:
    """The condition of a UNet with class embeddings: (n,) numbers of classes, and nothing to attend to."""
    nothing = torch.zeros(
        len(numbers), 1, unet.config.cross_attention_dim, device=unet.device, dtype=unet.dtype
    )
    return {"class_labels": numbers.to(unet.device), "encoder_hidden_states": nothing}
