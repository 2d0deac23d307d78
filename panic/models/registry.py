"""The face of this room: it turns a model's name into its spec, and a spec into the model.

Names: an entry of the table ("sd-turbo"), a variant of the config, a class of the user's model folder,
`synthetic/...`, `local:FOLDER`, `python:FILE.py:Class`; a variant's base may also be a hub id
("organisation/name").

    from panic.models import registry
    spec = registry.resolve("sd-turbo", device_kind="cuda")
    model = registry.build(spec); model.load("cuda:0"); model.invoke(["a red circle"], [42])
"""

from __future__ import annotations

from pathlib import Path

from panic.models import resolve as resolving
from panic.models.checks import check_config, resolver_of
from panic.models.kinds import (
    absence,
    bucketing,
    build,
    earlier,
    fingerprint,
    fingerprints,
    fingerprints_here,
    has_weights,
    is_invariant,
    is_present,
    is_remote,
    is_repeatable,
    lengths,
    require_unchanged,
    secrets,
)
from panic.models.protocol import ModelSpec
from panic.models.resolve import Names, Resolver, parameter_problems, resolve, user_models
from panic.models.weights import count_parameters, files, known_digests, learn_digests, size_bytes

__all__ = [
    "Names",
    "Resolver",
    "absence",
    "bucketing",
    "build",
    "check_config",
    "count_parameters",
    "earlier",
    "files",
    "fingerprint",
    "fingerprints",
    "fingerprints_here",
    "has_weights",
    "is_invariant",
    "is_present",
    "is_remote",
    "is_repeatable",
    "known",
    "known_digests",
    "learn_digests",
    "lengths",
    "parameter_problems",
    "require_unchanged",
    "resolve",
    "resolver_of",
    "secrets",
    "size_bytes",
]


def known(model_folder: str | Path | None = None) -> list[ModelSpec]:
    """All models that have a name: the table, those that kinds bring along, and the user's own."""
    return [*resolving.known(), *user_models(model_folder).values()]
