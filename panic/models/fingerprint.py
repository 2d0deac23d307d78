"""A model's fingerprint: what makes its results what they are, as one hex digest.

In it: adapter, how it is called (parameters and options), dtype, the image-processor back end where
images are processed, and the weights: the resolved commit of a hub model, or the content of every file
of a local folder. Not in it: the model's name, where its folder lies, versions of packages (those are
recorded with the session).
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from panic.errors import ModelMissing
from panic.models import python_models, weights
from panic.models.spec import ModelSpec

_READS_IMAGES = {"captioner", "image-embedder", "joint-embedder"}
_DOCUMENTS = {".md", ".lock"}
_digests: dict[tuple[str, int, int], str] = {}


def fingerprint(spec: ModelSpec) -> str:
    """The fingerprint of a resolved spec, 64 hex digits.

    Raises ModelMissing if the weights are not on this machine.
    """
    content: dict[str, Any] = {
        "adapter": spec.adapter,
        "parameters": _set_values(spec),
        "options": dict(spec.options),
        "dtype": spec.dtype,
        "weights": _weights(spec),
    }
    if spec.adapter in _READS_IMAGES:
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
    """Which image processors transformers will take: they differ in the last bits of a resize."""
    return "torchvision" if importlib.util.find_spec("torchvision") else "pil"


def _set_values(spec: ModelSpec) -> dict[str, Any]:
    """The parameters that are set; of those that are folders their content."""
    values = {name: value for name, value in spec.parameters.items() if value is not None}
    return values | {name: folder_digest(folder) for name, folder in weights.added_folders(spec).items()}


def _weights(spec: ModelSpec) -> Any:
    if spec.source.startswith("python:"):
        file, name = python_models.split_source(spec.source)
        return [_file_digest(file), name]
    if spec.source.startswith("class:") or not spec.source:
        return spec.source or spec.base
    folder = weights.folder_of(spec)
    if spec.is_hub:
        return [spec.source, folder.name]
    return folder_digest(folder)


def folder_digest(folder: Path) -> str:
    """SHA-256 over the relative names and contents of a model folder's files (documents excepted)."""
    digest = hashlib.sha256()
    for path in sorted(weights.files_in(folder)):
        relative = path.relative_to(folder)
        if path.suffix in _DOCUMENTS or relative.parts[0].startswith("."):
            continue
        digest.update(f"{relative.as_posix()}\0{_file_digest(path)}\n".encode())
    return digest.hexdigest()


def _file_digest(path: Path) -> str:
    status = path.stat()
    key = (str(path.resolve()), status.st_size, status.st_mtime_ns)
    if key not in _digests:
        with path.open("rb") as file:
            _digests[key] = hashlib.file_digest(file, "sha256").hexdigest()
    return _digests[key]
