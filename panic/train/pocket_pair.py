"""Trains the pocket pair: `diffusion` (text to 32x32), `decoder` (32x32 to 64x64), `captioner`.

Every part resumes from `OUT/<part>/checkpoint.pt`; the data of a step depend on the seed and the step alone.

    python -m panic.train.pocket_pair diffusion --minutes 60 --out checkpoints
    python -m panic.train.pocket_pair decoder --minutes 10 --out checkpoints
    python -m panic.train.pocket_pair captioner --minutes 25 --out checkpoints
    python -m panic.train.pocket_pair export --out checkpoints --to panic/pocket/weights
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from panic.pocket.tokens import MAX_TOKENS
from panic.pocket.world import Example, describe, examples, shrink
from panic.train import pocket_models
from panic.train.loop import Settings, fit, generator
from panic.train.pocket_export import export_captioner, export_diffusion

DROP_CAPTION = 0.1
FORGET_WORD = 0.15
LEAST_TIME = 50  # no sampler of up to 16 steps looks at less noise
# Most of a picture is background, which is learnt first; objects count more until shapes are there.
FOCUS = 3.0
FOCUS_STEPS = 5000


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One thing to train: its module and the loss of a step."""

    module: nn.Module
    loss: Callable[[int], Tensor]


def batch(seed: int, step: int, size: int) -> list[Example]:
    """The training examples of a step."""
    return examples("train", size, (seed, step))


def as_tensor(pictures: np.ndarray) -> Tensor:
    """(n, h, w, 3) in [0, 255] -> (n, 3, h, w) in [-1, 1]."""
    return torch.from_numpy(pictures).float().permute(0, 3, 1, 2) / 127.5 - 1


def diffusion(size: str, batch_size: int, seed: int) -> Part:
    """v-prediction on 32x32 pictures, folded to 16x16x12; the text encoder is trained along."""
    from diffusers import DDIMScheduler

    unet, encoder = pocket_models.unet(size, seed), pocket_models.text_encoder(size, seed)
    tokenizer = pocket_models.tokenizer()
    scheduler: Any = DDIMScheduler(**pocket_models.SCHEDULE)
    unet.to(memory_format=torch.channels_last)
    steps = scheduler.config.num_train_timesteps

    def loss(step: int) -> Tensor:
        shown = batch(seed, step, batch_size)
        rng = np.random.default_rng((seed, step, 1))
        # Half of them in the canonical wording, which is what the captioner says in a loop.
        captions = [describe(e.scene) if rng.random() < 0.5 else e.caption for e in shown]
        captions = ["" if rng.random() < DROP_CAPTION else caption for caption in captions]
        tokens = tokenizer(
            captions, padding="max_length", max_length=MAX_TOKENS, truncation=True, return_tensors="pt"
        )
        clean = fold(as_tensor(shrink(np.stack([e.picture for e in shown]))))
        dice = generator(seed, step)
        noise = torch.randn(clean.shape, generator=dice)
        # Stratified: every batch sees the whole range of noise, which halves the variance of the loss.
        spread = (torch.arange(batch_size) + torch.rand(batch_size, generator=dice)) / batch_size
        times = (LEAST_TIME + spread * (steps - LEAST_TIME)).long().clamp(max=steps - 1)
        noisy = scheduler.add_noise(clean, noise, times).contiguous(memory_format=torch.channels_last)
        text = encoder(input_ids=tokens.input_ids).last_hidden_state
        with sdpa_kernel(SDPBackend.MATH):  # 8 % faster than flash attention at this size on a CPU
            predicted = unet(noisy, times, text).sample
        error: Tensor = (predicted.float() - scheduler.get_velocity(clean, noise, times)) ** 2
        weight = 1 + FOCUS * max(0.0, 1 - step / FOCUS_STEPS) * fold(near_objects(shown))
        return (weight * error).sum() / weight.sum()

    return Part(module=nn.ModuleDict({"unet": unet, "text_encoder": encoder}), loss=loss)


def near_objects(shown: Sequence[Example]) -> Tensor:
    """1 in the boxes around objects, 0 elsewhere: (n, 3, 32, 32)."""
    axis = np.arange(32, dtype=np.float32) * 2 + 1
    masks = np.zeros((len(shown), 32, 32), np.float32)
    for mask, example in zip(masks, shown, strict=True):
        layout = example.layout
        for x, y, radius in zip(layout.x, layout.y, layout.radius, strict=True):
            near = radius * 1.3
            mask[np.ix_(abs(axis - y) < near, abs(axis - x) < near)] = 1
    return torch.from_numpy(masks)[:, None].expand(-1, 3, -1, -1)


def captioner(size: str, batch_size: int, seed: int) -> Part:
    """Cross-entropy on canonical captions; half of the pictures are spoilt as a diffusion model would."""
    model, tokenizer = pocket_models.captioner(size, seed), pocket_models.tokenizer()

    def loss(step: int) -> Tensor:
        shown = batch(seed, step, batch_size)
        tokens = tokenizer([example.canonical for example in shown], padding=True, return_tensors="pt")
        pictures = spoil(as_tensor(np.stack([e.picture for e in shown])), generator(seed, step))
        labels = tokens.input_ids.masked_fill(tokens.attention_mask == 0, -100)
        labels[:, 0] = -100
        # Forgetting words that were said makes it look: otherwise "purple" rules out "cross" for ever, which
        # training never shows together.
        forgotten = torch.rand(labels.shape, generator=generator(seed, step, 1)) < FORGET_WORD
        forgotten[:, 0] = False
        output = model(
            pixel_values=pictures,
            input_ids=tokens.input_ids.masked_fill(forgotten, tokenizer.pad_token_id),
            attention_mask=tokens.attention_mask,
            labels=labels,
        )
        value: Tensor = output.loss
        return value

    return Part(module=model, loss=loss)


def spoil(pictures: Tensor, dice: torch.Generator) -> Tensor:
    """Blur, tint and roughen half of the pictures (n, 3, h, w), as a diffusion model might draw them."""
    n = len(pictures)

    def roll(*shape: int) -> Tensor:
        return torch.rand(n, *shape, generator=dice)

    coarse = functional.interpolate(functional.avg_pool2d(pictures, 2), scale_factor=2.0, mode="bilinear")
    blurred = torch.lerp(pictures, coarse, roll(1, 1, 1))
    patchy = functional.interpolate(
        torch.randn(n, 3, 8, 8, generator=dice), size=pictures.shape[-1], mode="bilinear"
    )
    fine = torch.randn(pictures.shape, generator=dice)
    tint = (roll(3, 1, 1) - 0.5) * 0.2
    rough = blurred + tint + 0.12 * roll(1, 1, 1) * patchy + 0.1 * roll(1, 1, 1) * fine
    return torch.where(roll(1, 1, 1) < 0.5, rough.clamp(-1, 1), pictures)


def decoder(size: str, batch_size: int, seed: int) -> Part:
    """Sharp 64x64 pictures from spoilt 32x32 ones; the encoder learns to shrink and fold."""
    model = pocket_models.autoencoder(size, seed)
    model.to(memory_format=torch.channels_last)

    def loss(step: int) -> Tensor:
        pictures = np.stack([example.picture for example in batch(seed, step, batch_size)])
        sharp, folded = as_tensor(pictures), fold(as_tensor(shrink(pictures)))
        drawn = fold(spoil(as_tensor(shrink(pictures)), generator(seed, step)))
        decoded = model.decoder(drawn.contiguous(memory_format=torch.channels_last))
        encoded = model.encoder(sharp.contiguous(memory_format=torch.channels_last))
        return functional.l1_loss(decoded, sharp) + functional.mse_loss(encoded, folded)

    return Part(module=model, loss=loss)


def fold(small: Tensor) -> Tensor:
    """(n, 3, 32, 32) -> (n, 12, 16, 16), the space that the UNet works in."""
    return functional.pixel_unshuffle(small, 2)


PARTS: dict[str, Callable[[str, int, int], Part]] = {
    "diffusion": diffusion,
    "decoder": decoder,
    "captioner": captioner,
}
SETTINGS = {
    "diffusion": {"learning_rate": 8e-4, "steps": 8000, "bfloat16": True},
    "decoder": {"learning_rate": 2e-3, "steps": 2000},
    "captioner": {"learning_rate": 1e-3, "steps": 8000, "bfloat16": True},
}


def main() -> None:
    """Parse the command line and train or export."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("part", choices=[*PARTS, "export"])
    parser.add_argument("--out", type=Path, required=True, help="folder of the checkpoints")
    parser.add_argument("--to", type=Path, help="folder of the exported models")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--steps", type=int, help="steps until the end of the learning-rate schedule")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--size", choices=["pocket", "tiny"], default="pocket")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    if given.part == "export" and given.to is None:
        parser.error("export needs --to")
    torch.set_num_threads(given.threads)
    if given.part == "export":
        for write in (export_diffusion, export_captioner):
            print(write(given.out, given.to, given.size))
        return
    chosen = SETTINGS[given.part] | ({"steps": given.steps} if given.steps else {})
    part = PARTS[given.part](given.size, given.batch_size, given.seed)
    fit(part.module, part.loss, Settings(**chosen), given.out / given.part, minutes=given.minutes)


if __name__ == "__main__":
    main()
