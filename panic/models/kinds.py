"""The kinds of models there are: one line each for those of this package, entry points for those of others.

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

import importlib
import logging
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from panic.errors import ModelError
from panic.models import diffusers_adapter, embedders, python_models, synthetic, transformers_adapter
from panic.models.kind import Bucketer, Folder, Kind
from panic.models.protocol import Model, ModelSpec
from panic.models.weights import index_file, read_json

log = logging.getLogger("panic.models")

GROUP = "panic.models"


def _build_class(spec: ModelSpec) -> Any:
    """Construct a class of an installed package, named by the spec's source: "class:module:Class"."""
    module, _, name = spec.source.removeprefix("class:").partition(":")
    return getattr(importlib.import_module(module), name)(**spec.parameters)


KINDS = (
    diffusers_adapter.KIND,
    embedders.JOINT_KIND,
    transformers_adapter.KIND,
    embedders.IMAGE_KIND,
    embedders.TEXT_KIND,
    synthetic.KIND,
    python_models.KIND,
    Kind(name="class", build=_build_class),
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
    """The kind with a name."""
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


def has_weights(spec: ModelSpec) -> bool:
    """Return whether a model may take memory of a device."""
    return kind_of(spec).weights != "none"


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
