"""The kinds of models there are, and what is asked of a model by its kind: building, buckets, fingerprint.

Each kind of this package has one line here; those of others are found by entry points.

To add a kind, write one file that implements it and describes it as a `Kind` (`panic.models.kind`), and add
it to `KINDS`. Another package announces a kind of its own by an entry point of the group `panic.models`,
which must give a `Kind`:

    # pyproject.toml of the package "echo"
    [project.entry-points."panic.models"]
    echo = "echo:KIND"

    # echo.py
    from panic.models.kind import Kind

    class Echo:
        modality_in = modality_out = "text"
        size_bytes = 0
        def load(self, device): ...
        def invoke(self, inputs, seeds): return list(inputs)

    KIND: Kind = Kind(name="echo", build=lambda spec: Echo(), modalities_in=("text",), modality_out="text",
                      weights="none", prefix="echo/", models=lambda: [KIND.spec("echo/plain")])

`KINDS` is in the order in which kinds look at a folder of weights: the first that knows it has it.

Such packages are imported only where a name, a prefix or an adapter is asked for that is not known here,
and where all models are listed. Importing one must be light: heavy packages belong into the functions that
need them.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from panic.errors import ModelError, ModelMissing, PanicError
from panic.models import (
    controls,
    detectors,
    diffusers_adapter,
    embedders,
    endpoints,
    gguf_files,
    hidden,
    image_to_image,
    imported,
    kernels,
    python_models,
    synthetic,
    text_to_text,
    transformers_adapter,
    weights,
)
from panic.models.kind import Bucketer, Folder, Kind
from panic.models.protocol import NOT_KNOWN, Model, ModelSpec
from panic.models.weights import index_file, read_json

log = logging.getLogger("panic.models")

GROUP = "panic.models"


def _build_class(spec: ModelSpec) -> Any:
    """Construct a class of an installed package, named by the spec's source: "class:module:Class"."""
    module, _, name = spec.source.removeprefix("class:").partition(":")
    return getattr(importlib.import_module(module), name)(**spec.parameters)


KINDS = (
    image_to_image.KIND,
    diffusers_adapter.KIND,
    detectors.KIND,
    embedders.JOINT_KIND,
    text_to_text.KIND,
    transformers_adapter.KIND,
    embedders.IMAGE_KIND,
    embedders.TEXT_KIND,
    synthetic.KIND,
    controls.KIND,
    python_models.KIND,
    imported.KIND,
    endpoints.KIND,
    Kind(name="class", build=_build_class, is_invariant=lambda spec: True),
)
"""In the order in which they look at a folder of weights."""


@cache
def others() -> tuple[Kind, ...]:
    """The kinds that other packages announce; what cannot be imported is left out with a warning."""
    found = {kind.name: kind for kind in KINDS}
    for entry in entry_points(group=GROUP):
        try:
            kind = entry.load()
        except Exception as error:
            log.warning(
                "the kind of model %s cannot be imported: %s: %s", entry.value, type(error).__name__, error
            )
            continue
        if not isinstance(kind, Kind):
            log.warning(
                "%s should be a panic.models.kind.Kind, and is a %s", entry.value, type(kind).__name__
            )
        elif kind.name in found:
            log.warning("%s is left out: there is a kind of model called %s already", entry.value, kind.name)
        else:
            found[kind.name] = kind
    return tuple(found.values())[len(KINDS) :]


def every() -> Iterator[Kind]:
    """All kinds; other packages are looked at only by who comes as far as theirs, which are last."""
    yield from KINDS
    yield from others()


def named(name: str) -> Kind | None:
    """The kind with a name, or of the hidden states of the models of one."""
    if name.startswith(hidden.PREFIX):
        base = named(name.removeprefix(hidden.PREFIX))
        return base and hidden.over(base)
    return next((kind for kind in every() if kind.name == name), None)


def kind_of(spec: ModelSpec) -> Kind:
    """The kind of a resolved spec. Raises ModelError if the package that brought it is gone."""
    kind = named(spec.adapter)
    if kind is None:
        raise ModelError(f"{spec.name}: there is no kind of model {spec.adapter} here; a package is missing")
    return kind


def build(spec: ModelSpec) -> Model:
    """Make the model that a spec describes; its weights are read by `load`.

    Raises ModelError, ModelMissing.
    """
    kind = kind_of(spec)
    if kind.weights == "files":
        # A worker sets torch's number of threads between building a model and loading it.
        importlib.import_module("torch")
    return kind.build(spec)


def bucketing(spec: ModelSpec) -> Bucketer | None:
    """A function from an input to its padded length class, or None where all items of the model fit together.

    The model is not built. Raises ModelMissing, ModelError; the function does, too.
    """
    return kind_of(spec).bucketing(spec)


def lengths(spec: ModelSpec) -> Bucketer | None:
    """A function from an input to a bucket of items with as many tokens, or None where nobody can count them.

    The model is not built. Raises ModelMissing, ModelError; the function does, too.
    """
    return kind_of(spec).lengths(spec)


def is_invariant(spec: ModelSpec, is_tested: bool) -> bool:
    """Return whether it is known without measuring that results do not depend on batch mates.

    That is where there are no weights and nothing is computed in batches, and where the kind vouches for it.

    Args:
        is_tested: what the kind vouches for was tested with kernels as they are here.
    """
    kind = kind_of(spec)
    return kind.weights == "none" or (is_tested and kind.is_invariant(spec) and not spec.kernels)


def earlier(spec: ModelSpec) -> list[ModelSpec]:
    """What the words of a config that mean this model meant in earlier versions, where that was another."""
    return list(kind_of(spec).earlier(spec))


def is_repeatable(spec: ModelSpec) -> bool:
    """Return whether the same input and seed give the same output again."""
    return kind_of(spec).is_repeatable


def is_remote(spec: ModelSpec) -> bool:
    """Return whether a model is called over the network."""
    return kind_of(spec).is_remote


def secrets(specs: Iterable[ModelSpec]) -> list[str]:
    """The environment variables that hold keys of these models."""
    return sorted({name for spec in specs for name in kind_of(spec).secrets(spec)})


def has_weights(spec: ModelSpec) -> bool:
    """Return whether a model may take memory of a device."""
    return kind_of(spec).weights != "none"


def fingerprint(spec: ModelSpec) -> str:
    """The fingerprint of a resolved spec: what makes its results what they are, as 64 hex digits.

    In it: adapter, how it is called (parameters and options), dtype, the image-processor back end where
    images are processed, and the weights: the resolved commit of a hub model, the content of every file of a
    local folder, or what the model's kind names in their place. Not in it: the model's name, where its folder
    lies, versions of packages (those are recorded with the session).

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

    Raises ModelMissing that names all whose weights or packages are not on this machine, and the remedies.
    """
    found, missing = {}, []
    for name, spec in specs.items():
        try:
            if lacks(spec):
                raise ModelMissing(_needs(spec))
            found[name] = fingerprint(spec)
        except ModelMissing as error:
            missing.append(error)
    if len(missing) == 1:
        raise missing[0]
    if missing:
        text = "\n\n".join(str(error) for error in missing)
        raise ModelMissing(f"what {len(missing)} models need is missing\n\n{text}")
    return found


def fingerprints_here(specs: Mapping[str, ModelSpec]) -> dict[str, str]:
    """The fingerprints of those of several models that have one here, by name."""
    found = {}
    for name, spec in specs.items():
        with suppress(PanicError):
            found[name] = fingerprint(spec)
    return found


def require_unchanged(spec: ModelSpec, before: str) -> None:
    """Raise ModelError where a model's fingerprint is not what it was: its files have been replaced since."""
    if fingerprint(spec) != before:
        raise ModelError(
            f"{spec.name}: its files have changed since the session began, so it is another model",
            hint="What was computed is stored. Put the former files back, or give the changed model a name of"
            " its own.",
        )


def image_backend() -> str:
    """The image processors that transformers will take: they differ in the last bits of a resize."""
    return "torchvision" if importlib.util.find_spec("torchvision") else "pil"


def added_paths(spec: ModelSpec) -> dict[str, Path]:
    """The folders and files of weights beside a model's own, by parameter.

    Raises ModelMissing if there is nothing in one.
    """
    names = kind_of(spec).paths(spec)
    found = {name: Path(spec.parameters[name]) for name in names if spec.parameters.get(name)}
    for name, path in found.items():
        if not path.is_file() and next(weights.weight_files(path), None) is None:
            raise ModelMissing(f"{spec.name}: there are no weights in {path}, its {name}")
    return found


def absence(spec: ModelSpec) -> str:
    """Why a model could not be loaded without fetching something, as a sentence; "" if it could."""
    try:
        if kind_of(spec).weights == "files":
            weights.folder_of(spec)
        added_paths(spec)
    except (PanicError, ImportError) as error:
        return str(error)
    return kind_of(spec).absence(spec) or (_needs(spec) if lacks(spec) else "")


def is_present(spec: ModelSpec) -> bool:
    """Return whether a model could be loaded without fetching anything."""
    return not absence(spec)


def _needs(spec: ModelSpec) -> str:
    return f"{spec.name} needs what is not installed: {lacks(spec)}"


def lacks(spec: ModelSpec) -> str:
    """What is not installed that a model needs; "" if nothing is, or its files are not here."""
    kind = kind_of(spec)
    if spec.kernels and (package := kernels.lacks(spec)):
        return package
    if spec.parameters.get("gguf") and (package := gguf_files.lacks(spec)):
        return package
    if kind.weights != "files" or weights.is_pocket(spec):
        return ""
    try:
        weights.folder_of(spec)
    except ModelError:
        return ""
    return kind.lacks(spec)


def _set_values(spec: ModelSpec) -> dict[str, Any]:
    """The parameters that are set, by the words they had first; of those that are paths what is there."""
    left_out = {name for name, known in kind_of(spec).parameters_of(spec).items() if known.in_identity}
    values = {
        name: value for name, value in spec.parameters.items() if value is not None and name not in left_out
    }
    values |= {name: weights.digest(path) for name, path in added_paths(spec).items()}
    first = {new: old for old, new in kind_of(spec).former.items()}
    return {first.get(name, name): value for name, value in values.items()}


def _weights(spec: ModelSpec) -> Any:
    kind = kind_of(spec)
    if kind.weights != "files":
        return kind.identity(spec)
    folder = weights.folder_of(spec)
    if spec.is_hub:
        return [spec.source, folder.name]
    return weights.folder_digest(folder)


def origin(spec: ModelSpec) -> dict[str, Any]:
    """What tells people and other machines which model this is, as far as it is known here.

    Keys: source, adapter, dtype, and where they are known revision (the commit of a hub model), digest
    (of the files of a folder), folder (of a local one).
    """
    found: dict[str, Any] = {"source": spec.source, "adapter": spec.adapter, "dtype": spec.dtype}
    if spec.revision:
        found["asked_revision"] = spec.revision
    try:
        if kind_of(spec).weights == "files":
            folder = weights.folder_of(spec)
            if spec.is_hub:
                return found | {"revision": folder.name}
            where = {} if weights.is_pocket(spec) else {"folder": str(folder)}
            return found | {"digest": weights.folder_digest(folder)} | where
    except (PanicError, OSError):
        pass
    return found


def adapters() -> list[str]:
    """Return what a variant may say as its `adapter:`: the kinds whose weights are files."""
    return [kind.name for kind in every() if kind.weights == "files"]


def named_model(name: str, kinds: Iterable[Kind]) -> ModelSpec | None:
    """The model that one of these kinds knows by its name everywhere."""
    return next((spec for kind in kinds for spec in kind.models() if spec.name == name), None)


def detect(path: Path, name: str) -> Kind:
    """The kind of a folder of weights, read from its JSON files alone: the first that recognises it.

    Raises ModelError, telling how a variant can say it, if there is none.
    """
    index = index_file(path)
    if index is None:
        raise ModelError(f"{name}: {path} has neither model_index.json (diffusers) nor config.json")
    folder = Folder(
        path=path,
        is_pipeline=index.name == "model_index.json",
        config=read_json(index, name),
        is_sentence_transformer=(path / "modules.json").is_file(),
    )
    for kind in every():
        if kind.detect(folder):
            return kind
    architecture = folder.architecture or "missing in config.json"
    raise ModelError(
        f"{name}: no adapter for the architecture {architecture} of {path}",
        hint=f"say which in a variant: {{base: {name}, adapter: {' | '.join(adapters())}}}",
    )
