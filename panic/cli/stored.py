"""What a command names in a store: a run by its number, and the config that performs an experiment.

config = trusted_config(row, trust=False)
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from panic.cli.common import read_settings, settings_files, tell_options, user_settings
from panic.errors import UsageError

if TYPE_CHECKING:
    from panic.config import ExperimentConfig
    from panic.store.records import ExperimentRow


def own_config(row: ExperimentRow) -> ExperimentConfig:
    """Return the config that performs an experiment.

    Raises: UsageError for null models, which no config performs; ConfigError for a config of another version.
    """
    from panic.config import stored
    from panic.store import reading

    if reading.is_null(row.name):
        raise UsageError(
            f"{row.name} holds null models: no config performs it, and it has what the experiment has that it"
            " is of.",
            hint="panic nulls brings it up to date.",
        )
    return stored(row.config, row.name)


def trusted_config(row: ExperimentRow, *, trust: bool) -> ExperimentConfig:
    """Return the config that performs an experiment, as the environment has it.

    It is told on stderr if nobody had to trust it.
    Raises: as `own_config`; NotTrusted if it names what is outside its store and `trust` is false.
    """
    from panic.engine.trust import named_outside, require_trust

    config = own_config(row)
    if settings := read_settings():
        config = settings.over(config)
    laid = _laid_models()
    require_trust(config, is_trusted=trust, laid=laid)
    is_needed = bool(named_outside(config, laid))
    tell_options({"--trust": trust and not is_needed}, "for a config that names nothing outside")
    return config


def _laid_models() -> Path | None:
    """The folder of Python models that only a project's file of settings names: both may be a stranger's."""
    from panic.config.settings import resolve

    files = settings_files()
    found = resolve(files, {}, user_settings()).of_project("models") if files else None
    return found if found is not None and str(found) == os.environ.get("PANIC_MODELS") else None
