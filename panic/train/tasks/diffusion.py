"""Conditional diffusion: a UNet learns to take noise out of latents, told by a text what was there.

Zero terminal SNR (Lin et al. 2024, "Common Diffusion Noise Schedules and Sample Steps are Flawed", section
3.1) decides between success and failure on small, flat-coloured pictures: with the usual betas the mean
colour stays visible at the last step, and sampling from pure noise ignores the prompt. Min-SNR weighting:
Hang et al. 2023, "Efficient Diffusion Training via Min-SNR Weighting Strategy", equation 3 ff.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from panic.train.batches import Batch
from panic.train.config import DiffusionTraining
from panic.train.data import DataSet, Item
from panic.train.export import save_half
from panic.train.grids import grid
from panic.train.lora import add_lora, merged
from panic.train.tokens import tokenizer_of

NUM_TIMES = 1000


class Diffusion(nn.Module):
    """Losses: mean squared error of what the UNet predicts, per item."""

    def __init__(self, config: DiffusionTraining, data: DataSet) -> None:
        super().__init__()
        self.config, self.data = config, data
        parts = _from_base(config) if config.model.base else _new(config, data)
        self.unet, self.text_encoder, self.autoencoder = parts["unet"], parts["text_encoder"], parts["vae"]
        self.tokenizer, self.scheduler = parts["tokenizer"], parts["scheduler"]
        self.autoencoder.requires_grad_(False).eval()
        self.text_encoder.requires_grad_(config.train_text_encoder)
        if config.lora:
            self.text_encoder.requires_grad_(False)
            add_lora(self.unet, config.lora, config.seed)
        self.unet.to(memory_format=torch.channels_last)

    def forward(self, batch: Batch) -> Tensor:
        """The losses of the items: (n,)."""
        config, device = self.config, self.unet.device
        drop = batch.choices() < config.drop_caption
        texts = ["" if gone else text for gone, text in zip(drop, batch.texts(), strict=True)]
        clean = self.encode(batch.pictures().to(device))
        noise = batch.randn(*clean.shape[1:]).to(device)
        spread = config.least_time + batch.spread() * (NUM_TIMES - config.least_time)
        times = spread.long().clamp(max=NUM_TIMES - 1).to(device)
        noisy = self.scheduler.add_noise(clean, noise, times).contiguous(memory_format=torch.channels_last)
        predicted = self.unet(noisy, times, self.embed(texts)).sample.float()
        error = (predicted - self._target(clean, noise, times)) ** 2
        if config.focus:
            fading = max(0.0, 1 - batch.step / config.focus_steps)
            weight = 1 + config.focus * fading * batch.focus(clean.shape[-1]).to(device)
            error = error * weight / weight.mean((1, 2, 3), keepdim=True)
        losses: Tensor = error.mean((1, 2, 3))
        return losses if config.min_snr is None else losses * self._min_snr(times, config.min_snr)

    @torch.no_grad()
    def encode(self, pictures: Tensor) -> Tensor:
        """(n, 3, side, side) in [-1, 1] -> scaled latents (n, c, h, w)."""
        encoded = self.autoencoder.encode(pictures.contiguous(memory_format=torch.channels_last))
        latents = encoded.latents if hasattr(encoded, "latents") else encoded.latent_dist.mode()
        shift = getattr(self.autoencoder.config, "shift_factor", None) or 0.0
        scaled: Tensor = (latents.float() - shift) * self.autoencoder.config.scaling_factor
        return scaled

    def embed(self, texts: list[str]) -> Tensor:
        """Texts -> what the UNet attends to: (n, tokens, d)."""
        length = self.tokenizer.model_max_length
        tokens = self.tokenizer(
            texts, padding="max_length", max_length=length, truncation=True, return_tensors="pt"
        )
        states: Tensor = self.text_encoder(input_ids=tokens.input_ids.to(self.unet.device)).last_hidden_state
        return states

    def _target(self, clean: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        match self.scheduler.config.prediction_type:
            case "epsilon":
                return noise
            case "sample":
                return clean
        velocity: Tensor = self.scheduler.get_velocity(clean, noise, times)
        return velocity

    def _min_snr(self, times: Tensor, gamma: float) -> Tensor:
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
        from diffusers import StableDiffusionPipeline

        pipeline: Any = StableDiffusionPipeline(
            vae=self.autoencoder,
            text_encoder=self.text_encoder,
            tokenizer=self.tokenizer,
            unet=self.unet,
            scheduler=self.scheduler,
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    def samples(self, items: list[Item]) -> Any:
        """Pictures, and below them drawings of their captions."""
        output = self.pipeline()(
            [item.texts[0] for item in items],
            num_inference_steps=self.config.sample_steps,
            guidance_scale=self.config.guidance,
            generator=[torch.Generator().manual_seed(i) for i in range(len(items))],
        )
        drawn = [np.asarray(image) for image in output.images]
        return grid([*(item.picture for item in items), *drawn], columns=len(items))

    def measures(self, items: list[Item]) -> dict[str, float]:
        """Nothing but the loss."""
        return {}

    def compile_parts(self, mode: str) -> None:
        """Compile the UNet."""
        self.unet.compile(mode=mode)

    def save(self, folder: Path) -> None:
        """Write a StableDiffusionPipeline; adapters are merged into its UNet, and beside it in `lora/`."""
        pipeline = self.pipeline()
        if self.config.lora:
            pipeline.register_modules(unet=merged(self.unet))
        save_half(pipeline, folder)
        if self.config.lora:
            self.unet.save_lora_adapter(folder / "lora")


def _from_base(config: DiffusionTraining) -> dict[str, Any]:
    from diffusers import DDIMScheduler, DiffusionPipeline

    base: Any = DiffusionPipeline.from_pretrained(config.model.base)
    return dict(base.components) | {"scheduler": DDIMScheduler.from_config(base.scheduler.config)}


def _new(config: DiffusionTraining, data: DataSet) -> dict[str, Any]:
    from diffusers import AutoencoderTiny, DDIMScheduler, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    model, tokens = config.model, tokenizer_of(config.model.tokenizer, data)
    torch.manual_seed(config.seed)
    unet: Any = UNet2DConditionModel(**(model.unet or {}))
    if isinstance(model.text_encoder, str):
        encoder: Any = CLIPTextModel.from_pretrained(model.text_encoder)
    else:
        arguments: dict[str, Any] = model.text_encoder or {}
        encoder = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(tokens),
                max_position_embeddings=tokens.model_max_length,
                bos_token_id=tokens.bos_token_id,
                eos_token_id=tokens.eos_token_id,
                pad_token_id=tokens.pad_token_id,
                **arguments,
            )
        )
    scheduler = DDIMScheduler(
        num_train_timesteps=NUM_TIMES,
        beta_schedule=config.betas,
        prediction_type=config.predict,
        rescale_betas_zero_snr=config.zero_terminal_snr,
        timestep_spacing="trailing",
        steps_offset=1,
        clip_sample=False,
        set_alpha_to_one=True,
    )
    return {
        "unet": unet,
        "text_encoder": encoder,
        "vae": AutoencoderTiny.from_pretrained(model.autoencoder),
        "tokenizer": tokens,
        "scheduler": scheduler,
    }
