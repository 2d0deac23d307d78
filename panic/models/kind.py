"""A kind of model describes itself here, so that no other module has to know the kinds there are.

Each kind is one `Kind`, called KIND, in the file that implements it; `panic.models.kinds` lists them. Whoever
resolves names, checks parameters, fingerprints, batches or builds asks the kind. A description is plain data
and functions that import what they need when they are called: listing models must load neither torch nor
transformers.

    from panic.models.kinds import kind_of
    kind_of(spec).parameters_of(spec)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from panic.models.parameters import ANY, Parameter
from panic.models.protocol import Modality, Model, modalities
from panic.models.spec import ModelSpec

Bucketer = Callable[[Any], int]
"""It maps an input to its padded length class (0 or more): only items of one class may share a batch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Folder:
    """A folder of weights, as its JSON files tell about it.

    Args:
        is_pipeline: it has a model_index.json, as diffusers writes it; `config` is that file.
        config: the content of config.json otherwise, as transformers writes it.
        is_sentence_transformer: it has a modules.json.
    """

    path: Path
    is_pipeline: bool
    config: Mapping[str, Any]
    is_sentence_transformer: bool

    @property
    def architecture(self) -> str:
        """The first architecture that config.json names; empty if there is none."""
        named = self.config.get("architectures")
        first = named[0] if isinstance(named, list) and named else ""
        return first if isinstance(first, str) else ""

    @property
    def model_type(self) -> str:
        return str(self.config.get("model_type"))


class NameReader(Protocol):
    """A kind's function that understands the names that begin with its prefix."""

    def __call__(self, name: str, path: Callable[[str], Path], *, ask: bool) -> ModelSpec:
        """Return the spec of a name.

        Args:
            path: makes a path absolute that is relative to the config's folder.
            ask: whether code of the user may be run, in a process of its own, to learn what cannot be read.

        Raises: NotFound, ModelError.
        """


def _no_models() -> Iterable[ModelSpec]:
    return ()


def _one_bucket(spec: ModelSpec) -> Bucketer | None:
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A kind of model: what is known of its models before one is built, and how one is built.

    Args:
        name: as in `adapter:` of a variant, and as `ModelSpec.adapter`.
        build: makes the model of a spec; its weights are read by the model's `load`.
        modalities_in, modality_out: what its models map from and to, unless each model says so itself.
        parameters: what a config may set, by name; a function of the spec where that differs from model to
            model.
        weights: "files" are read from a folder in the spec's dtype (such a kind can be the `adapter:` of a
            variant); "own" are the model's own business; "none": there are none.
        reads_images: its models process images with transformers, whose back end is part of the fingerprint.
        detect: whether a folder of weights is of this kind; the first kind in the list that says yes has it.
        prefix: names that begin with it belong to this kind.
        read_name: the spec of a name with this prefix; None if only names from `models` exist.
        models: specs of the models of this kind that have a name everywhere.
        identity: a JSON value that stands for the weights in a fingerprint, for a kind without files.
            By default it is the spec's source, or its base if it has none.
        bucketing: for a model whose batches are ragged (its padding follows the longest item, its shape the
            size of an image) a function from an input to its bucket; None where all items fit together. It
            is called without building the model.
        earlier: what the same words of a config meant in earlier versions of the kind, where they have come
            to mean another model, as specs that say so. An experiment goes on with what it started with.
    """

    name: str
    build: Callable[[ModelSpec], Model]
    modalities_in: tuple[str, ...] = ()
    modality_out: str = Modality.TEXT
    parameters: Mapping[str, Parameter] | Callable[[ModelSpec], Mapping[str, Parameter]] = field(
        default_factory=dict
    )
    weights: Literal["files", "own", "none"] = "own"
    reads_images: bool = False
    detect: Callable[[Folder], bool] = lambda folder: False
    prefix: str = ""
    read_name: NameReader | None = None
    models: Callable[[], Iterable[ModelSpec]] = _no_models
    identity: Callable[[ModelSpec], Any] = lambda spec: spec.source or spec.base
    bucketing: Callable[[ModelSpec], Bucketer | None] = _one_bucket
    earlier: Callable[[ModelSpec], Iterable[ModelSpec]] = lambda spec: ()

    def owns(self, name: str) -> bool:
        """Return whether a name begins with the kind's prefix."""
        return bool(self.prefix) and name.startswith(self.prefix)

    def spec(self, name: str, **fields: Any) -> ModelSpec:
        """A spec of this kind with its modalities and default parameters, unless `fields` say otherwise."""
        defaults = {} if callable(self.parameters) else {key: p.default for key, p in self.parameters.items()}
        fields = {"base": name, "parameters": defaults, **fields}
        return ModelSpec(
            name=name,
            adapter=self.name,
            modalities_in=modalities(fields.pop("modalities_in", self.modalities_in)),
            modality_out=Modality(fields.pop("modality_out", self.modality_out)),
            **fields,
        )

    def parameters_of(self, spec: ModelSpec) -> dict[str, Parameter]:
        """Return what a config may set of a model, by name; `parameters.ANY` stands for any other name."""
        known = self.parameters(spec) if callable(self.parameters) else self.parameters
        return {name: known[name] for name in spec.accepts or known}

    def conflicts(self, spec: ModelSpec) -> dict[str, str]:
        """Settings of a spec that would silently do nothing, with the reason: name -> message."""
        values = spec.parameters
        found = {
            name: parameter.idle(values)
            for name, parameter in self.parameters_of(spec).items()
            if parameter.idle and name != ANY and values.get(name) is not None
        }
        return {name: reason for name, reason in found.items() if reason}

    def folders(self, spec: ModelSpec) -> list[str]:
        """The parameters of a model that are paths of folders."""
        return [name for name, parameter in self.parameters_of(spec).items() if parameter.is_folder]
