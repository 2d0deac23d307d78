"""Trainings of models so small that a step takes milliseconds, on pictures of 16x16 in two colours.

from tests.train import small
small.fit(small.config("contrastive", tmp_path, steps=3))
"""

from __future__ import annotations

import csv
from pathlib import Path

import torch
from PIL import Image

from panic.train import loop
from panic.train.checkpoints import read
from panic.train.config import TASKS
from panic.train.tasks import build
from panic.train.training import open_data

SIDE = 16
TRANSFORMER = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "num_hidden_layers": 1}
UNET = {
    "sample_size": SIDE,
    "in_channels": 3,
    "out_channels": 3,
    "layers_per_block": 1,
    "down_block_types": ["CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D"],
    "block_out_channels": [16],
    "cross_attention_dim": 16,
    "attention_head_dim": 2,
    "norm_num_groups": 8,
}
AUTOENCODER = {
    "latent_channels": 4,
    "encoder_block_out_channels": [8, 8],
    "decoder_block_out_channels": [8, 8],
    "num_encoder_blocks": [1, 1],
    "num_decoder_blocks": [1, 1],
    "scaling_factor": 1.0,
}
MODELS = {
    "autoencoder": {"autoencoder": AUTOENCODER},
    "diffusion": {"unet": UNET, "text_encoder": TRANSFORMER},
    "captioning": {"vision": TRANSFORMER | {"patch_size": 8}, "text": TRANSFORMER},
    "contrastive": {"vision": TRANSFORMER | {"patch_size": 8}, "text": TRANSFORMER, "projection": 8},
}
COLOURS = ("red", "blue")


def pictures(folder: Path, each: int = 4, colours: tuple[str, ...] = COLOURS) -> Path:
    """`each` pictures of a colour, with a dot that tells them apart, in a subfolder of that name."""
    for colour in colours:
        (folder / colour).mkdir(parents=True, exist_ok=True)
        for i in range(each):
            picture = Image.new("RGB", (SIDE, SIDE), colour.replace("_", ""))
            picture.paste("white", (i, i, i + 3, i + 3))
            picture.save(folder / colour / f"{i}.png")
    return folder


def raw(task: str, tmp_path: Path, **changes):
    """What a config says, as plain data."""
    data = tmp_path / "pictures"
    if not data.exists():
        pictures(data)
    values = {
        "task": task,
        "output": str(tmp_path / "model"),
        "data": {"folder": str(data), "validation": 0.0},
        "image_size": SIDE,
        "model": MODELS[task],
        "steps": 6,
        "batch_size": 4,
        "warmup": 0,
        "log_every": 1,
        "checkpoint_minutes": 0.0,
    }
    if task in ("captioning", "contrastive"):
        values["max_tokens"] = 12
    return values | changes


def config(task: str, tmp_path: Path, **changes):
    """A validated config."""
    return TASKS[task].model_validate(raw(task, tmp_path, **changes))


def fit(settings, *, killed_at: int | None = None):
    """Perform a training; returns its task. `killed_at`: it dies before this step."""
    data = open_data(settings.data, settings.image_size)
    task = build(settings, data)
    if killed_at is not None:
        forward = task.forward

        def die(batch):
            if batch.step == killed_at:
                raise KeyboardInterrupt
            return forward(batch)

        task.forward = die
    loop.fit(task, data, settings)
    return task


def folder_of(settings) -> Path:
    return Path(f"{settings.output}.training")


def newest(settings):
    """The last checkpoint's state."""
    return read(max(folder_of(settings).glob("step-*.pt")))


def averages(state) -> dict[str, torch.Tensor]:
    """The averaged weights of a checkpoint, by name."""
    return dict(zip(state["weights"], state["ema"]["shadow_params"], strict=True))


def rows(settings, name: str) -> list[dict[str, str]]:
    with (folder_of(settings) / f"{name}.csv").open() as file:
        return list(csv.DictReader(file))


def losses(settings) -> list[float]:
    return [float(row["loss"]) for row in rows(settings, "loss")]
