"""From a model's name to its spec, and from the spec to the model.

Names: an entry of the table ("sd-turbo"), a variant of the config, a class of the user's model folder,
`synthetic/...`, `local:FOLDER`, `python:FILE.py:Class`; a variant's base may also be a hub id
("organisation/name").

    from panic.models import registry
    spec = registry.resolve("sd-turbo", device_kind="cuda")
    model = registry.build(spec); model.load("cuda:0"); model.invoke(["a red circle"], [42])
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from panic.models import python_models
from panic.models.checks import check_config
from panic.models.fingerprint import fingerprint, fingerprints
from panic.models.protocol import Model
from panic.models.resolve import parameter_problems, resolve, synthetic_models, user_models
from panic.models.spec import ModelSpec
from panic.models.table import TABLE
from panic.models.weights import count_parameters, files, is_present, size_bytes

__all__ = [
    "build",
    "check_config",
    "count_parameters",
    "files",
    "fingerprint",
    "fingerprints",
    "is_present",
    "known",
    "parameter_problems",
    "resolve",
    "size_bytes",
]

_ADAPTERS = {
    "diffusers": "panic.models.diffusers_adapter:DiffusersModel",
    "captioner": "panic.models.transformers_adapter:Captioner",
    "text-embedder": "panic.models.embedders:TextEmbedder",
    "image-embedder": "panic.models.embedders:ImageEmbedder",
    "joint-embedder": "panic.models.embedders:JointEmbedder",
}


def known(model_folder: str | Path | None = None) -> list[ModelSpec]:
    """All models that have a name: the table, the synthetic ones and the user's own."""
    return [*TABLE.values(), *synthetic_models().values(), *user_models(model_folder).values()]


def build(spec: ModelSpec) -> Model:
    """Make the model that a spec describes; its weights are read by `load`.

    Raises ModelError, ModelMissing.
    """
    model: Model
    if spec.adapter == "python":
        model = python_models.build(spec)
    elif spec.adapter == "synthetic":
        from panic.models import synthetic

        model = synthetic.MODELS[spec.base](**spec.parameters)
    elif spec.adapter == "class":
        model = _import(spec.source.removeprefix("class:"))(**spec.parameters)
    else:
        model = _import(_ADAPTERS[spec.adapter])(spec)
    return model


def _import(path: str) -> Any:
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)
