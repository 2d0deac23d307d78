"""Models whose outputs were given by `panic import`, and that therefore cannot be called.

An imported experiment names its models as variants, so that each says what the import said of it:

    models:
      gpt: {base: imported/text, called: gpt, about: temperature 0.8, deterministic: false}

`imported/text` puts out texts, `imported/image` images; what such a model takes is not asked. These three
parameters are all that is known of it, and make its fingerprint.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from panic.errors import ModelError, NotFound
from panic.models.kind import Kind, Parameter
from panic.models.protocol import Modality, ModelSpec

GIVEN = "given"
"""The kind of device that imported outputs were made on, as far as the store can tell."""
PREFIX = "imported/"
OUTPUTS = (Modality.TEXT, Modality.IMAGE)


def _read_name(name: str, path: Callable[[str], Path], *, ask: bool) -> ModelSpec:
    output = name.removeprefix(PREFIX)
    if output not in OUTPUTS:
        raise NotFound(
            f"there is no model {name}", hint="imported/text and imported/image stand for given outputs"
        )
    return KIND.spec(name, modality_out=output, num_parameters=0, batch_size=1)


def _build(spec: ModelSpec) -> NoReturn:
    raise ModelError(
        f"{spec.name} cannot be called: its outputs were given by an import",
        hint="panic import brings more of them.",
    )


KIND = Kind(
    name="imported",
    build=_build,
    modalities_in=OUTPUTS,
    parameters={
        "called": Parameter(kind=str),
        "about": Parameter(kind=str),
        "deterministic": Parameter(kind=bool, default=False),
    },
    weights="none",
    is_given=True,
    prefix=PREFIX,
    read_name=_read_name,
)
