"""One training from its config: data, task, loop.

accelerate launch --num_processes 2 -m panic.train configs/train/pocket-clip.yaml
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from panic.train.config import load
from panic.train.loop import Progress


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Where the model lies, and how many of the config's steps it has been trained for."""

    folder: Path
    step: int
    steps: int


def train(
    path: str | Path, overrides: Sequence[str] = (), show: Callable[[Progress], None] = lambda progress: None
) -> Outcome:
    """Perform or go on with the training of a config file.

    Raises UsageError (ConfigError, DataError, ConflictError) before anything is trained; TrainingFailed;
    Interrupted.
    """
    from panic.train.data import open_data
    from panic.train.loop import fit
    from panic.train.tasks import build

    config = load(path, overrides)
    data = open_data(config.data, config.image_size)
    step = fit(build(config, data), data, config, show=show)
    return Outcome(folder=Path(config.output), step=step, steps=config.steps)
