"""A model's fingerprint: what makes its results what they are, as one hex digest.

In it: adapter, how it is called (parameters and options), dtype, the image-processor back end where
images are processed, and the weights: the resolved commit of a hub model, the content of every file
of a local folder, or what the model's kind names in their place. Not in it: the model's name, where its
folder lies, versions of packages (those are recorded with the session).
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from panic.errors import ModelError, ModelMissing
from panic.models import weights
from panic.models.kinds import kind_of
from panic.models.protocol import NOT_KNOWN, ModelSpec


def fingerprint(spec: ModelSpec) -> str:
    """The fingerprint of a resolved spec, 64 hex digits.

    Raises ModelMissing if the weights are not on this machine, ModelError for a class that nothing is known
    of.
    """
    if spec.unread:
        raise ModelError(f"{spec.name}: its parameters are {NOT_KNOWN}", hint=spec.unread)
    content: dict[str, Any] = {
        "adapter": spec.adapter,
        "parameters": _set_values(spec),
        "options": dict(spec.options),
        "dtype": spec.dtype,
        "weights": _weights(spec),
    }
    if kind_of(spec).reads_images:
        content["image_processor"] = image_backend()
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def fingerprints(specs: Mapping[str, ModelSpec]) -> dict[str, str]:
    """The fingerprints of several models by name.

    Raises ModelMissing that names all of those whose weights are not on this machine, each with its remedy.
    """
    found, missing = {}, []
    for name, spec in specs.items():
        try:
            found[name] = fingerprint(spec)
        except ModelMissing as error:
            missing.append(error)
    if len(missing) == 1:
        raise missing[0]
    if missing:
        text = "\n\n".join(str(error) for error in missing)
        raise ModelMissing(f"the weights of {len(missing)} models are missing\n\n{text}")
    return found


def image_backend() -> str:
    """The image processors that transformers will take: they differ in the last bits of a resize."""
    return "torchvision" if importlib.util.find_spec("torchvision") else "pil"


def added_folders(spec: ModelSpec) -> dict[str, Path]:
    """The folders of weights that are added to a model's own, by parameter.

    Raises ModelMissing if there is nothing in one.
    """
    names = kind_of(spec).folders(spec)
    found = {name: Path(spec.parameters[name]) for name in names if spec.parameters.get(name)}
    for name, folder in found.items():
        if next(weights.weight_files(folder), None) is None:
            raise ModelMissing(f"{spec.name}: there are no weights in {folder}, its {name}")
    return found


def is_present(spec: ModelSpec) -> bool:
    """Return whether a model could be loaded without fetching anything."""
    try:
        if kind_of(spec).weights == "files":
            weights.folder_of(spec)
        added_folders(spec)
    except (ModelError, ImportError):
        return False
    return True


def _set_values(spec: ModelSpec) -> dict[str, Any]:
    """The parameters that are set; of those that are folders their content."""
    left_out = {name for name, known in kind_of(spec).parameters_of(spec).items() if known.in_identity}
    values = {
        name: value for name, value in spec.parameters.items() if value is not None and name not in left_out
    }
    return values | {name: weights.folder_digest(folder) for name, folder in added_folders(spec).items()}


def _weights(spec: ModelSpec) -> Any:
    kind = kind_of(spec)
    if kind.weights != "files":
        return kind.identity(spec)
    folder = weights.folder_of(spec)
    if spec.is_hub:
        return [spec.source, folder.name]
    return weights.folder_digest(folder)
