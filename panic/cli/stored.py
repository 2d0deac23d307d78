"""What a command names in a store: a run by its number, and the config that performs an experiment.

config = trusted_config(row, trust=False)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from panic.cli.common import tell_options
from panic.errors import NotFound, UsageError

if TYPE_CHECKING:
    from panic.config import ExperimentConfig
    from panic.store import Store
    from panic.store.records import ExperimentRow, RunRow


def find_run(store: Store, row: ExperimentRow, number: int) -> RunRow:
    """The run with this number. NotFound tells which there are."""
    from panic.store import reading

    runs = reading.runs(store, row.id)
    for run in runs:
        if run.id == number:
            return run
    there_are = f"Its runs are {runs[0].id} to {runs[-1].id}." if len(runs) > 1 else "It has no runs."
    there_are = f"Its only run is {runs[0].id}." if len(runs) == 1 else there_are
    raise NotFound(f"{row.name} has no run {number}.", hint=there_are)


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
    """Return the config that performs an experiment, and tell on stderr if nobody had to trust it.

    Raises: as `own_config`; NotTrusted if it names what is outside its store and `trust` is false.
    """
    from panic.engine.trust import named_outside, require_trust

    config = own_config(row)
    require_trust(config, is_trusted=trust)
    tell_options({"--trust": trust and not named_outside(config)}, "for a config that names nothing outside")
    return config
