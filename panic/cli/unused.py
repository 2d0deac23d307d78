"""What was given and has no effect in a call is named once on stderr: options, fields, misspelt variables.

Consent to what might have happened (`delete -y`, `--force` where nothing would be overwritten) is none of
these. Consent to what cannot happen is one: `run -y` without --repin, `--trust` for a config that names
nothing outside its store, which whoever gives it needs to know.

    tell_options({"--repair": repair}, "in a dry run")
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from panic.cli.common import say
from panic.errors import nearest

if TYPE_CHECKING:
    from panic.config import ExperimentConfig

PREFIX = "PANIC_"
VARIABLES = ("STORE", "MODELS")


def tell_options(given: Mapping[str, object], because: str) -> None:
    """Name the options that were given (their values are true) and have no effect, with the reason."""
    if names := [name for name, value in given.items() if value]:
        say(f"{', '.join(names)}: without effect {because}.", err=True)


def tell_variables() -> None:
    """Name variables of the environment that look like one of ours, and what they may have meant."""
    for name in sorted(os.environ):
        own = name.removeprefix(PREFIX)
        if own not in (name, *VARIABLES) and (near := nearest(own, VARIABLES)):
            say(f"{name}: without effect; did you mean {PREFIX}{near[0]}?", err=True)


def tell_fields(config: ExperimentConfig) -> None:
    """Name the fields of a config that nothing in it uses."""
    used = [*config.embeddings, *(name for network in config.networks for name in network)]
    for name in used:  # grows: the base of a variant in use is in use
        base = config.models[name].base if name in config.models else name
        if base not in used:
            used.append(base)
    unused = [name for name in config.models if name not in used]
    without = "is without effect, for"
    found = {
        f"no network and no embedding uses {', '.join(unused)} of `models`": bool(unused),
        f"`root_seed` {without} no run has fresh noise (seed -1)": (
            "root_seed" in config.model_fields_set and -1 not in config.seeds
        ),
        f"`diagram_workers` {without} no diagrams are asked for": (
            config.diagram_workers is not None and not config.diagrams
        ),
    }
    for sentence in (sentence for sentence, is_so in found.items() if is_so):
        say(f"{config.name}: {sentence}.", err=True)
