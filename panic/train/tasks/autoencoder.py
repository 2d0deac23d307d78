"""An autoencoder with small, smooth latents for a latent diffusion model (diffusers' AutoencoderTiny).

The latents are roughened on their way, so that the decoder draws crisp shapes from what a diffusion model
only nearly hits, and neighbouring latents mean similar images. They have mean 0 and variance 1 per
channel: by batch normalisation in training, folded into the encoder's last convolution when saved. Several
processes, and the parts of an accumulated batch, normalise by their own items.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from panic.train.bases import as_usage_error, folder_of
from panic.train.batches import Batch
from panic.train.config import AutoencoderTraining
from panic.train.data import DataSet, TrainingItem
from panic.train.image_tensors import grid, recolour, to_images
from panic.train.saving import save_half, whole


class Autoencoder(nn.Module):
    """Losses: mean absolute error of each image, its objects counting more by `focus`."""

    def __init__(self, config: AutoencoderTraining, data: DataSet) -> None:
        from diffusers import AutoencoderTiny

        super().__init__()
        self.config, self.data = config, data
        torch.manual_seed(config.seed + 3)
        if config.model.base:
            folder = folder_of(config.model.base, "model.base")
            with as_usage_error(f"model.base: {folder} is no AutoencoderTiny"):
                self.model: Any = AutoencoderTiny.from_pretrained(folder)
        else:
            with as_usage_error("model.autoencoder"):
                self.model = AutoencoderTiny(**(config.model.autoencoder or {}))
        self.model.to(memory_format=torch.channels_last)
        self.model.encoder.requires_grad_(config.learn == "both")
        self.norm = nn.BatchNorm2d(self.model.config.latent_channels, affine=False, momentum=0.01)

    def encode(self, images: Tensor) -> Tensor:
        """(n, 3, side, side) in [-1, 1] -> latents (n, c, h, w) of mean 0 and variance 1."""
        latents: Tensor = self.model.encoder(images).float()
        return latents if self.config.learn == "decoder" else self.norm(latents)

    def forward(self, batch: Batch) -> Tensor:
        """The losses of the items: (n,)."""
        device = self.norm.running_mean.device  # type: ignore[union-attr]
        shown = batch.images()
        if self.config.recolour:
            shown, _ = recolour(shown, self.config.recolour, batch)
        images = shown.to(device, memory_format=torch.channels_last)
        latents = self.encode(images)
        amount = self.config.roughen * batch.rand(1, 1, 1)
        rough = latents + (amount * batch.randn(*latents.shape[1:])).to(device)
        drawn = self.model.decoder(rough).float()
        weight = 1 + self.config.focus * batch.focus(images.shape[-1]).to(device)
        error: Tensor = (weight * (drawn - images).abs()).mean((1, 2, 3)) / weight.mean((1, 2, 3))
        return error

    @torch.no_grad()
    def samples(self, items: list[TrainingItem], first: int = 0) -> Any:
        """Images above what comes back of them."""
        batch = Batch(items, range(len(items)), len(items), 0, 0)
        images = batch.images().to(self.norm.running_mean.device)  # type: ignore[union-attr]
        back = self.model.decoder(self.encode(images))
        return grid([*to_images(images), *to_images(back)], columns=len(items))

    def measures(self, items: list[TrainingItem]) -> dict[str, float]:
        """Measure nothing besides the loss."""
        return {}

    def compile_parts(self, mode: str) -> None:
        """Compile encoder and decoder."""
        self.model.encoder.compile(mode=mode)
        self.model.decoder.compile(mode=mode)

    def save(self, folder: Path) -> None:
        """Write a plain AutoencoderTiny that does the same."""
        with whole(folder) as partial:
            save_half(self.folded(), partial)

    def folded(self) -> Any:
        """A copy of the autoencoder with the normalisation in its encoder's last convolution."""
        from diffusers import AutoencoderTiny

        plain: Any = AutoencoderTiny.from_config(self.model.config)
        plain.load_state_dict(self.model.state_dict())
        if self.config.learn == "decoder":
            return plain
        last = plain.encoder.layers[-1]
        mean, variance = self.norm.running_mean, self.norm.running_var
        assert mean is not None
        assert variance is not None
        scale = (variance + self.norm.eps).rsqrt().cpu()
        with torch.no_grad():
            last.weight.mul_(scale[:, None, None, None])
            last.bias.sub_(mean.cpu()).mul_(scale)
        return plain
