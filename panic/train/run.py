"""One training from its config: data, task, loop.

    accelerate launch --num_processes 2 -m panic.train configs/train/pocket-clip.yaml
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from panic.train.config import load
from panic.train.loop import Progress


def train(
    path: str | Path, overrides: Sequence[str] = (), show: Callable[[Progress], None] = lambda progress: None
) -> Path:
    """Perform or go on with the training of a config file; returns the folder of the model.

    Raises ConfigError, DataError, ConflictError before anything is trained; TrainingFailed; Interrupted.
    """
    from panic.train.data import open_data
    from panic.train.loop import fit
    from panic.train.tasks import build

    config = load(path, overrides)
    data = open_data(config.data, config.image_size)
    fit(build(config, data), data, config, show=show)
    return Path(config.output)
