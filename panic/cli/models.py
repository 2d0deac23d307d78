"""`panic models`: which models there are, and which could be used at once.

panic models --json
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from panic.cli.common import JsonOption, Shared, command
from panic.cli.render import count, print_json, print_table, size

if TYPE_CHECKING:
    from panic.models.protocol import ModelSpec


@command
def models(
    shared: Shared,
    model_folder: Annotated[
        Path | None, typer.Option(metavar="PATH", help="Folder of your own models (or PANIC_MODELS).")
    ] = None,
    present: Annotated[bool, typer.Option("--present", help="Only models that are here.")] = False,
    as_json: JsonOption = False,
) -> None:
    """List all known models: modality, parameters, licence, memory, whether they are here."""
    from panic.models import registry

    known = [(spec, as_dict(spec)) for spec in registry.known(model_folder)]
    found = [(spec, model) for spec, model in known if model["present"] or not present]
    if as_json:
        return print_json([model for _, model in found])
    columns = ["model", "modality", "parameters #", "memory #", "here", "licence", "source"]
    rows = [
        (
            m["name"],
            spec.mapping,
            count(m["parameters"]),
            size(m["memory_bytes"]),
            "yes" if m["present"] else "no",
            m["licence"],
            m["source"] + (" (gated)" if m["gated"] else ""),
        )
        for spec, m in found
    ]
    return print_table(columns, rows)


def as_dict(spec: ModelSpec) -> dict[str, Any]:
    """The JSON of a model; parameters, memory and modality are null where they cannot be known yet."""
    from panic.errors import ModelError
    from panic.models import registry
    from panic.models.protocol import NOT_KNOWN

    parameters: int | None
    try:
        parameters, memory = registry.count_parameters(spec), registry.size_bytes(spec)
    except ModelError:
        parameters = memory = None
    return {
        "name": spec.name,
        "modalities_in": [str(modality) for modality in spec.modalities_in],
        "modality_out": None if spec.unread else str(spec.modality_out),
        "parameters": parameters,
        "memory_bytes": memory,
        "dtype": spec.dtype,
        "batch_size": spec.batch_size,
        "licence": spec.licence,
        "present": registry.is_present(spec),
        "gated": spec.gated,
        "repeatable": registry.is_repeatable(spec),
        "adapter": spec.adapter,
        "source": spec.source,
        "settings": dict(spec.parameters),
        "context_tokens": spec.context_tokens,
        "note": f"{NOT_KNOWN}: {spec.unread}" if spec.unread else spec.note,
    }
