"""A kind of model describes itself here, so that no other module has to know the kinds there are.

Each kind is one `Kind`, called KIND, in the file that implements it; `panic.models.kinds` lists them. Whoever
resolves names, checks parameters, fingerprints, batches or builds asks the kind. A description is plain data
and functions that import what they need when they are called: listing models must load neither torch nor
transformers.

What a config may set of its models a kind declares as `Parameter`s. A value of `None` means "not set": it is
neither passed to the model nor part of the fingerprint, so a new optional parameter leaves old fingerprints
as they are.

    from panic.models.kinds import kind_of
    kind_of(spec).parameters_of(spec)
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from panic.errors import ModelError
from panic.models.protocol import Modality, Model, ModelSpec, modalities

Bucketer = Callable[[Any], int]
"""It maps an input to its padded length class (0 or more): only items of one class may share a batch."""
ANY = "**"
"""In place of a name: the model takes parameters of any other name, too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """One settable value: its type, its default and its limits (`above` is exclusive).

    Args:
        kind: int, float, bool or str; object takes any value.
        is_required: a config has to say it.
        is_folder, is_file: a path, relative to the config's folder; what is there is part of the fingerprint.
        in_identity: its kind's `identity` says what it means, and the fingerprint leaves the value out.
        idle: tells why a value would silently do nothing beside the other values ("has no effect while ..."),
            or cannot be taken beside them, or gives an empty string.
    """

    kind: type
    default: Any = None
    low: float | None = None
    above: float | None = None
    high: float | None = None
    multiple: int | None = None
    choices: tuple[str, ...] = ()
    is_required: bool = False
    is_folder: bool = False
    is_file: bool = False
    in_identity: bool = False
    idle: Callable[[Mapping[str, Any]], str] | None = None

    def problem(self, value: Any) -> str:
        """Say what is wrong with a value, or return an empty string."""
        if value is None and self.default is None:
            return ""
        if not self._has_kind(value):
            return f"should be {_KIND_NAMES[self.kind]}"
        if self.choices and value not in self.choices:
            return "is not one of the allowed values"
        if self.is_folder and not Path(value).is_dir():
            return "should be a folder, and there is none of this name"
        if self.is_file and not Path(value).is_file():
            return "should be a file, and there is none of this name"
        if self.kind in (int, float):
            return self._range_problem(value)
        return ""

    def _has_kind(self, value: Any) -> bool:
        if self.kind is float:
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            return is_number and abs(value) <= sys.float_info.max
        if self.kind is int:
            return isinstance(value, int) and not isinstance(value, bool)
        return isinstance(value, self.kind)

    def _range_problem(self, value: float) -> str:
        if self.low is not None and value < self.low:
            return f"should be at least {self.low:g}"
        if self.above is not None and value <= self.above:
            return f"should be more than {self.above:g}"
        if self.high is not None and value > self.high:
            return f"should be at most {self.high:g}"
        if self.multiple is not None and value % self.multiple:
            return f"should be a multiple of {self.multiple}"
        return ""


_KIND_NAMES = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}


def settled(model: str, parameters: Mapping[str, Parameter], given: Mapping[str, Any]) -> dict[str, Any]:
    """All of a model's parameters: what is given, else the default. Raises ModelError with all problems."""
    problems = [f"it has no parameter '{name}'" for name in given if name not in parameters]
    for name, parameter in parameters.items():
        if name in given and (reason := parameter.problem(given[name])):
            allowed = f" ({', '.join(parameter.choices)})" if parameter.choices else ""
            problems.append(f"{name} {reason}{allowed}: {given[name]!r}")
    if problems:
        raise ModelError(f"{model}: {'; '.join(problems)}")
    return {name: given.get(name, parameter.default) for name, parameter in parameters.items()}


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
        lengths: a function from an input to a bucket of items with as many tokens, for models whose results
            turn out to depend on the length of batch mates; None where nothing is known of tokens.
        is_invariant: its kind vouches, by tests of its own, that an item's result does not depend on batch
            mates; of all others it is measured once.
        lacks: what is not installed that a model needs, and how it is; "" if nothing is. Called where its
            files are here.
        file_conflicts: which of the parameters that were asked for the model's own files ignore or refuse:
            name -> reason; nothing where they are not here.
        earlier: what the same words of a config meant in earlier versions of the kind, where they have come
            to mean another model, as specs that say so. An experiment goes on with what it started with.
        former: words that parameters had before, and those that they have now: configs and stores may use the
            former ones, and fingerprints keep them.
        is_given: its models cannot be called; their outputs come from elsewhere (`panic import`).
        completed: the spec of a variant with what follows from its parameters, such as its modalities.
        absence: why a model without files could not be called here; "" if it could.
        secrets: the environment variables that hold keys of a model; only who calls it needs them.
        is_repeatable: the same input and seed give the same output, as far as promise 2 says. If not, nothing
            is taken from a memo, and no run with such a model is stuck.
        is_remote: its models are called over the network, without a device and without batches.
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
    lengths: Callable[[ModelSpec], Bucketer | None] = _one_bucket
    is_invariant: Callable[[ModelSpec], bool] = lambda spec: False
    lacks: Callable[[ModelSpec], str] = lambda spec: ""
    file_conflicts: Callable[[ModelSpec, Collection[str]], dict[str, str]] = lambda spec, asked: {}
    earlier: Callable[[ModelSpec], Iterable[ModelSpec]] = lambda spec: ()
    former: Mapping[str, str] = field(default_factory=dict)
    is_given: bool = False
    completed: Callable[[ModelSpec], ModelSpec] = lambda spec: spec
    absence: Callable[[ModelSpec], str] = lambda spec: ""
    secrets: Callable[[ModelSpec], Iterable[str]] = lambda spec: ()
    is_repeatable: bool = True
    is_remote: bool = False

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
        """Return what a config may set of a model, by name; `ANY` stands for any other name."""
        known = self.parameters(spec) if callable(self.parameters) else self.parameters
        return {name: known[name] for name in spec.accepts or known}

    def renamed(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Values by the words that parameters have now. Raises ModelError for one that is given in both."""
        for old, new in self.former.items():
            if old in values and new in values:
                raise ModelError(f"{old} is the former word for {new}", hint=f"say {new} alone")
        return {self.former.get(name, name): value for name, value in values.items()}

    def conflicts(self, spec: ModelSpec) -> dict[str, str]:
        """Settings of a spec that would silently do nothing, with the reason: name -> message."""
        values = spec.parameters
        found = {
            name: parameter.idle(values)
            for name, parameter in self.parameters_of(spec).items()
            if parameter.idle and name != ANY and values.get(name) is not None
        }
        return {name: reason for name, reason in found.items() if reason}

    def paths(self, spec: ModelSpec) -> list[str]:
        """The parameters of a model that are paths of folders or files."""
        known = self.parameters_of(spec).items()
        return [name for name, parameter in known if parameter.is_folder or parameter.is_file]
