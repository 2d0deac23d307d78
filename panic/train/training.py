"""One training from its config: data, task, loop.

accelerate launch --num_processes 2 -m panic.train configs/train/pocket-clip.yaml
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from panic.train.config import Data, Training
from panic.train.data import DataSet, World
from panic.train.folder import Folder
from panic.train.loop import TrainingProgress, fit
from panic.train.tasks import build


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedModel:
    """The folder of a model, and how many of the config's steps it has been trained for."""

    folder: Path
    step: int
    steps: int


def train(config: Training, show: Callable[[TrainingProgress], None] = lambda progress: None) -> TrainedModel:
    """Perform or go on with the training of a config.

    Raises UsageError (DataError, ConflictError) before anything is trained; TrainingFailed; Interrupted.
    """
    data = open_data(config.data, config.image_size)
    step = fit(build(config, data), data, config, show=show)
    return TrainedModel(folder=Path(config.output), step=step, steps=config.steps)


def open_data(data: Data, size: int) -> DataSet:
    """Open the data set of a config, its images squares of `size`.

    Raises DataError for a folder that cannot be learnt from.
    """
    if data.folder is None:
        return World(data, size=size)
    return Folder(
        data.folder,
        size=size,
        captions=data.captions,
        balance=data.balance,
        held_back=data.validation,
    )
