"""What can be trained: one module per task, each an nn.Module that gives the losses of a batch's items."""

from __future__ import annotations

from typing import Any

from panic.train.config import (
    AutoencoderTraining,
    CaptioningTraining,
    ContrastiveTraining,
    DiffusionTraining,
    Training,
)
from panic.train.data import DataSet


def build(config: Training, data: DataSet) -> Any:
    """The task of a config, with fresh weights or those of its base."""
    match config:
        case AutoencoderTraining():
            from panic.train.tasks.autoencoder import Autoencoder

            return Autoencoder(config, data)
        case DiffusionTraining():
            from panic.train.tasks.diffusion import Diffusion

            return Diffusion(config, data)
        case CaptioningTraining():
            from panic.train.tasks.captioning import Captioning

            return Captioning(config, data)
        case ContrastiveTraining():
            from panic.train.tasks.contrastive import Contrastive

            return Contrastive(config, data)
    raise TypeError(type(config))
