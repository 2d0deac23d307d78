"""What a stored config names outside its store, and whether that may be acted on.

A store may come from anybody. A Python file that it names would run with the user's rights, a folder be
read, an address be asked. So whatever starts from a stored config asks `require_trust` first, and what it
finds needs `--trust`, or a config that the user gives. Names of the table, of the hub's local cache (weights,
read without running code) and synthetic models are harmless.

    require_trust(stored(row.config, row.name), is_trusted=False)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from panic.arms import NOISE, models_of
from panic.config import ExperimentConfig
from panic.config.fields import HUB_ID, is_revision
from panic.errors import UsageError
from panic.models import kinds
from panic.models.protocol import ModelSpec
from panic.models.resolve import user_models
from panic.models.table import TABLE

HARMLESS_PREFIXES = ("synthetic/", NOISE)
PATH_PARAMETERS = ("lora", "gguf")
"""Parameters of models that are paths, however they are written; a test compares them with the kinds."""


class NotTrusted(UsageError):
    """A stored config names what is only used with the user's consent."""


def named_outside(config: ExperimentConfig, laid: Path | None = None) -> list[str]:
    """What acting on a config would reach outside its store, in words; an empty list is harmless.

    Args:
        laid: a folder of Python models that may have come with the store.
    """
    folder = config.model_folder
    found = [] if folder is None else [f"the folder of Python models {str(folder)!r}"]
    found += [] if config.snapshot is None else [f"the folder of snapshots {str(config.snapshot.to)!r}"]
    if config.ray is not None and config.ray.address is not None:
        found.append(f"the Ray cluster {config.ray.address!r}")
    found += [] if config.notify is None else [f"the addresses of notices in {', '.join(config.notify.to)}"]
    names = [name for network in config.networks for name in network] + config.embeddings
    names += [name for arm in config.interventions.values() for name in models_of((), arm)]
    names += [variant.base for variant in config.models.values()]
    found += [f"the model {name!r}" for name in dict.fromkeys(names) if not _is_harmless(name, config)]
    if laid is not None:
        of_folder = user_models(laid).keys() & {*names}
        found += [f"the model {name!r} of the folder {str(laid)!r}" for name in sorted(of_folder)]
    for name, variant in config.models.items():
        adapter = variant.parameters.get("adapter")
        if adapter is not None and adapter not in kinds.adapters():
            found.append(f"the adapter {adapter!r} of the model {name!r}")
        if (variable := variant.parameters.get("api_key_env")) is not None:
            found.append(f"the key in {variable!r} of the environment, for the model {name!r}")
        for key, value in variant.parameters.items():
            found += [f"{key} of the model {name!r}: {text!r}" for text in _paths(key, value)]
    return found


def described_outside(specs: Mapping[str, ModelSpec]) -> list[str]:
    """What building models as a store describes them would reach outside of it, in words."""
    found = []
    for name, spec in specs.items():
        is_known = not spec.source or spec.source.startswith("pocket:") or HUB_ID.fullmatch(spec.source)
        found += [] if is_known else [f"the model {name!r}, which is {spec.source!r}"]
        if spec.revision is not None and not is_revision(spec.revision):
            found.append(f"the revision {spec.revision!r} of the model {name!r}")
        values = {**spec.parameters, **spec.options}
        found += [
            f"{key} of the model {name!r}: {text!r}" for key in values for text in _paths(key, values[key])
        ]
    return found


def require_trust(
    config: ExperimentConfig,
    *,
    is_trusted: bool,
    laid: Path | None = None,
    described: Mapping[str, ModelSpec] | None = None,
) -> None:
    """Raise NotTrusted if a stored config names what is outside its store, unless the user trusts it.

    Args:
        laid: as in `named_outside`.
        described: models that are built as the store describes them, since their names mean none here.
    """
    found = [] if is_trusted else named_outside(config, laid) + described_outside(described or {})
    if found:
        more = f" and {len(found) - 5:,} more" if len(found) > 5 else ""
        raise NotTrusted(
            f"The stored config of {config.name} names {', '.join(found[:5])}{more}. Nothing was done.",
            hint="If this store is yours, or you trust its maker with running code: --trust. Or perform the"
            " experiment from a config of your own: panic run CONFIG.",
        )


def _is_harmless(name: str, config: ExperimentConfig) -> bool:
    return (
        name in config.models
        or name in TABLE
        or name.startswith(HARMLESS_PREFIXES)
        or HUB_ID.fullmatch(name) is not None
    )


def _paths(key: str, value: Any) -> Iterator[str]:
    """The texts in a parameter's value that are, or may be, paths, addresses or commands."""
    if isinstance(value, str):
        if key in PATH_PARAMETERS or "://" in value or value.startswith(("/", "~", "./", "../", "$")):
            yield value
    elif isinstance(value, list | dict):
        for part in value if isinstance(value, list) else value.values():
            yield from _paths(key, part)
