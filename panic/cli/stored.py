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
    from collections.abc import Mapping

    from panic.config import ExperimentConfig
    from panic.models.protocol import ModelSpec
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


def trusted_config(row: ExperimentRow, *, trust: bool, is_all: bool = True) -> ExperimentConfig:
    """Return the config that performs an experiment, as the environment has it.

    It is told on stderr if nobody had to trust it.

    Args:
        is_all: all that is acted on; otherwise the caller tells (`tell_trust`), who knows of more.

    Raises: as `own_config`; NotTrusted if it names what is outside its store and `trust` is false.
    """
    from panic.engine.trust import require_trust

    config = own_config(row)
    if settings := read_settings():
        config = settings.over(config)
    require_trust(config, is_trusted=trust, laid=_laid_models())
    if is_all:
        tell_trust(config, trust=trust)
    return config


def tell_trust(
    config: ExperimentConfig, *, trust: bool, described: Mapping[str, ModelSpec] | None = None
) -> None:
    """Say on stderr that nobody had to trust a config, nor models that are built as their store has them."""
    from panic.engine.trust import described_outside, named_outside

    is_needed = bool(named_outside(config, _laid_models()) or described_outside(described or {}))
    tell_options({"--trust": trust and not is_needed}, "for a config that names nothing outside")


def _laid_models() -> Path | None:
    """The folder of Python models that only a project's file of settings names: both may be a stranger's."""
    from panic.config.settings import resolve

    files = settings_files()
    found = resolve(files, {}, user_settings()).of_project("models") if files else None
    return found if found is not None and str(found) == os.environ.get("PANIC_MODELS") else None
