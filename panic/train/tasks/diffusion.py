"""Conditional diffusion: a UNet learns to take noise out of images, given a text or class of what was there.

Zero terminal SNR (Lin et al. 2024, "Common Diffusion Noise Schedules and Sample Steps are Flawed", section
3.1) decides between success and failure on small, flat-coloured images: with the usual betas the mean
colour stays visible at the last step, and sampling from pure noise ignores the prompt. Min-SNR weighting:
Hang et al. 2023, "Efficient Diffusion Training via Min-SNR Weighting Strategy", equation 3 ff.
"""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from panic.errors import UsageError
from panic.models.conditional import by_class, encode
from panic.train.adapters import adapters, add_lora, merged
from panic.train.batches import Batch
from panic.train.config import DiffusionTraining
from panic.train.data import DataSet, TrainingItem
from panic.train.image_tensors import grid
from panic.train.saving import save_half, whole
from panic.train.tasks.diffusion_parts import Parts, from_base, new

SHOWN_AT_ONCE = 8  # samples drawn in one batch


class Diffusion(nn.Module):
    """Losses: mean squared error of what the UNet predicts, per item."""

    def __init__(self, config: DiffusionTraining, data: DataSet) -> None:
        super().__init__()
        self.config, self.data = config, data
        self.parts: Parts = from_base(config, data) if config.model.base else new(config, data)
        self.unet, self.text_encoder, self.autoencoder = (
            self.parts.unet,
            self.parts.text_encoder,
            self.parts.autoencoder,
        )
        self.scheduler = self.parts.scheduler
        if self.autoencoder is not None:
            self.autoencoder.requires_grad_(False)
        if self.text_encoder is not None:
            self.text_encoder.requires_grad_(config.train_text_encoder and not config.lora)
        self._visited = self._levels_of_drawing() if config.visited_times else None
        self._forget(config.fresh_words)
        if config.lora:
            add_lora(self.unet, config.lora, config.seed)
        self.unet.to(memory_format=torch.channels_last)
        self._check_sizes()

    def train(self, mode: bool = True) -> Diffusion:
        """Frozen parts stay as they are when they draw."""
        super().train(mode)
        for part in (self.autoencoder, self.text_encoder):
            if part is not None and not any(p.requires_grad for p in part.parameters()):
                part.eval()
        return self

    def forward(self, batch: Batch) -> Tensor:
        """The losses of the items: (n,)."""
        config, device = self.config, self.unet.device
        condition = self._condition(batch, dropped=batch.choices() < config.drop_caption)
        clean = self.encode(batch.images().to(device))
        noise = batch.randn(*clean.shape[1:]).to(device)
        times = self._times(batch).to(device)
        noisy = self.scheduler.add_noise(clean, noise, times).contiguous(memory_format=torch.channels_last)
        predicted = self.unet(noisy, times, **condition).sample.float()
        error = (predicted - self._target(clean, noise, times)) ** 2
        if config.focus:
            fading = max(0.0, 1 - batch.step / config.focus_steps)
            weight = 1 + config.focus * fading * batch.focus(clean.shape[-1]).to(device)
            error = error * weight / weight.mean((1, 2, 3), keepdim=True)
        losses: Tensor = error.mean((1, 2, 3))
        return losses if config.min_snr is None else losses * self.min_snr(times, config.min_snr)

    def _times(self, batch: Batch) -> Tensor:
        """Noise levels from `least_time` on: (n,) int64; some are the very ones that drawing asks for.

        Of those few the first decides where things stand, and a thousand equal ones hardly ever meet it.
        """
        least, num_times = self.config.least_time, self.scheduler.config.num_train_timesteps
        spread = batch.spread()
        times: Tensor = (least + spread * (num_times - least)).long().clamp(max=num_times - 1)
        if self._visited is None:
            return times
        visited = self._visited[(spread * len(self._visited)).long()]
        return torch.where(batch.rand() < self.config.visited_times, visited, times)

    def _levels_of_drawing(self) -> Tensor:
        """Noise levels from `least_time` on that a sampler of `sample_steps` visits: int64."""
        sampler = deepcopy(self.scheduler)
        sampler.set_timesteps(self.config.sample_steps)
        levels: Tensor = sampler.timesteps.round().long()
        levels = levels[levels >= self.config.least_time]
        if not len(levels):
            raise UsageError(
                f"visited_times: of the {self.config.sample_steps} noise levels that drawing visits none is "
                f"from least_time {self.config.least_time} on"
            )
        return levels

    def _condition(self, batch: Batch, dropped: np.ndarray) -> dict[str, Tensor]:
        """What the UNet is conditioned on; nothing for the items of classifier-free dropout."""
        texts = ["" if gone else text for gone, text in zip(dropped, batch.texts(), strict=True)]
        if not self.parts.labels:
            return {"encoder_hidden_states": encode(self.parts.tokenizer, self.text_encoder, texts)}
        numbers = torch.tensor([item.label for item in batch.items])
        numbers[torch.from_numpy(dropped)] = len(self.parts.labels)
        return by_class(self.unet, numbers)

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """(n, 3, side, side) in [-1, 1] -> scaled latents (n, c, h, w), or the pixels themselves."""
        if self.autoencoder is None:
            return images
        encoded = self.autoencoder.encode(images.contiguous(memory_format=torch.channels_last))
        latents = encoded.latents if hasattr(encoded, "latents") else encoded.latent_dist.mode()
        shift = getattr(self.autoencoder.config, "shift_factor", None) or 0.0
        scaled: Tensor = (latents.float() - shift) * self.autoencoder.config.scaling_factor
        return scaled

    def _target(self, clean: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        match self.scheduler.config.prediction_type:
            case "epsilon":
                return noise
            case "sample":
                return clean
        velocity: Tensor = self.scheduler.get_velocity(clean, noise, times)
        return velocity

    def min_snr(self, times: Tensor, gamma: float) -> Tensor:
        """min(SNR, gamma) over SNR, SNR + 1 or 1, as epsilon, v or x0 is predicted: (n,)."""
        kept = self.scheduler.alphas_cumprod.to(times.device)[times]
        snr = kept / (1 - kept).clamp(min=1e-12)
        weight: Tensor = snr.clamp(max=gamma)
        match self.scheduler.config.prediction_type:
            case "epsilon":
                weight = weight / snr.clamp(min=1e-12)
            case "v_prediction":
                weight = weight / (snr + 1)
        return weight

    def pipeline(self) -> Any:
        """The pipeline that samples with the present weights."""
        pipeline = self.parts.pipeline()
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    def samples(self, items: list[TrainingItem], first: int = 0) -> Any:
        """Images, and below them drawings of their captions."""
        pipeline, drawn = self.pipeline(), []
        for start in range(0, len(items), SHOWN_AT_ONCE):
            some = items[start : start + SHOWN_AT_ONCE]
            output = pipeline(
                [item.texts[0] for item in some],
                num_inference_steps=self.config.sample_steps,
                guidance_scale=self.config.guidance,
                generator=[torch.Generator().manual_seed(first + start + i) for i in range(len(some))],
            )
            drawn += [np.asarray(image) for image in output.images]
        return grid([*(item.image for item in items), *drawn], columns=len(items))

    def measures(self, items: list[TrainingItem]) -> dict[str, float]:
        """Measure nothing besides the loss."""
        return {}

    def compile_parts(self, mode: str) -> None:
        """Compile the UNet."""
        self.unet.compile(mode=mode)

    def save(self, folder: Path) -> None:
        """Write the pipeline; adapters are merged into its UNet, and beside it in `lora/`."""
        pipeline = self.pipeline()
        with whole(folder) as partial:
            if not self.config.lora:
                save_half(pipeline, partial)
                return
            pipeline.register_modules(unet=merged(self.unet))
            save_half(pipeline, partial)
            _save_adapters(type(pipeline), self.unet, partial / "lora")

    def _forget(self, words: list[str]) -> None:
        """Give some words random embeddings of the size that words have, so that they are far apart.

        Raises UsageError for what is no single word of the tokenizer.
        """
        if not words:
            return
        if self.text_encoder is None:
            raise UsageError("fresh_words: a model of classes has no words")
        weights = self.text_encoder.get_input_embeddings().weight
        spread = float(weights.detach().std())
        generator = torch.Generator().manual_seed(self.config.seed + 5)
        for word in words:
            tokens = self.parts.tokenizer.tokenize(f" {word}")
            if len(tokens) != 1 or not word.strip():
                raise UsageError(f"fresh_words: {word!r} is {len(tokens)} tokens, and must be one")
            row = self.parts.tokenizer.convert_tokens_to_ids(tokens[0])
            with torch.no_grad():
                weights[row] = spread * torch.randn(weights.shape[1], generator=generator)

    def _check_sizes(self) -> None:
        """Raises UsageError if the images do not become latents of the size that the UNet draws."""
        side = self.config.image_size
        images = torch.zeros(1, 3, side, side)
        if self.autoencoder is not None:
            self.autoencoder.eval()
        have = tuple(self.encode(images).shape[1:])
        shape = self.unet.config
        want = (shape.in_channels, shape.sample_size, shape.sample_size)
        if have != want or shape.out_channels != shape.in_channels:
            raise UsageError(
                f"pictures of image_size {side} are {have} (channels, height, width) to the UNet, which "
                f"takes {want} and gives {shape.out_channels} channels",
                hint="Change image_size, or sample_size, in_channels and out_channels of model.unet.",
            )


def _save_adapters(pipeline_class: Any, unet: Any, folder: Path) -> None:
    """Write a UNet's adapters as `load_lora_weights` of its pipeline reads them."""
    config = unet.peft_config["default"].to_dict()
    pipeline_class.save_lora_weights(
        folder,
        unet_lora_layers=adapters(unet),
        unet_lora_adapter_metadata=config | {"target_modules": sorted(config["target_modules"])},
    )
