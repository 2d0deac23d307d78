"""A model's name leads to its spec by the table, variants, the user's own models, folders and hub ids.

A variant (`models:` in a config) is a base with other parameters, revision or dtype; its base may be
another variant. Everything is read from plain data, JSON files and the sources of users' files: nothing is
built, no weights are read, torch is not imported. A `Resolver` resolves each name of a config once; a
config's check hands it on to whoever performs the config.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from panic.config.fields import is_utf8
from panic.config.problems import Problem
from panic.errors import ConfigError, ModelError, NotFound, PanicError, nearest
from panic.models import hidden, kernels, kinds, python_models, python_running, weights
from panic.models.kind import ANY, Kind
from panic.models.protocol import ModelSpec
from panic.models.table import TABLE

VARIANT_FIELDS = ("base", "revision", "dtype", "adapter")
ACCELERATORS = ("cuda", "mps")


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """The names of a config refer to these, besides the table.

    Args:
        variants: by name, from the raw config or from the validated one.
        base_folder: what the relative paths of `local:` and `python:` names refer to; the working directory
            if there is none.
        ask: whether a user's file may be run, in a process of its own, where its source does not tell all.
        hidden: variables of the environment that such a process does not get, as it does not get those that
            hold keys of variants.
        has_begun: they are those of a stored experiment.
    """

    variants: Mapping[str, Any] = field(default_factory=dict)
    model_folder: str | Path | None = None
    base_folder: str | Path | None = None
    ask: bool = True
    hidden: Collection[str] = ()
    has_begun: bool = False

    def path(self, text: str) -> Path:
        """An absolute path. Raises ConfigError for what cannot be one."""
        if "\0" in text:
            raise ConfigError("a path must not contain the character NUL")
        if not is_utf8(text):
            raise ConfigError("a path must be a text that can be written as UTF-8")
        # realpath, because Path.resolve raises for links that lead to each other.
        return Path(os.path.realpath(Path(self.base_folder or ".") / Path(text).expanduser()))

    def variant(self, name: str) -> dict[str, Any] | None:
        """A variant as a plain mapping; None if there is none of this name."""
        value = self.variants.get(name)
        if value is None:
            return None
        return dict(value) if isinstance(value, Mapping) else dict(value.model_dump())


class UnknownModel(NotFound):
    """No model has this name; `candidates` are the names there are."""

    def __init__(self, name: str, candidates: list[str]) -> None:
        by_source = [spec.name for spec in TABLE.values() if spec.source == name]
        near = nearest(name, candidates, most=3)
        if by_source:
            hint = f"here it is called {by_source[0]}"
        elif near:
            hint = f"did you mean {' or '.join(near)}?"
        elif _is_hub_id(name):
            hint = f"a hub model needs a variant: {{base: {name}, adapter: diffusers}} (or captioner, ...)"
        else:
            hint = "`panic models` lists all; local:FOLDER and python:FILE.py:Class name your own"
        super().__init__(f"there is no model {name or 'without a name'}", hint=hint)
        self.name, self.candidates = name, candidates


class Resolver:
    """The specs of the models that a config names, each resolved once, or the reason why it cannot be."""

    def __init__(self, names: Names) -> None:
        self.names = names
        self._known: dict[str, ModelSpec | PanicError] = {}
        self._kept: dict[str, ModelSpec] = {}
        self._own: dict[str, ModelSpec] | None = None
        keys = ((names.variant(name) or {}).get("api_key_env") for name in names.variants)
        if unseen := [*names.hidden, *(key for key in keys if isinstance(key, str))]:
            python_running.hide(unseen)

    def resolve(self, name: str, device_kind: str = "cpu") -> ModelSpec:
        """The spec of a model by name, its parameters checked, with the dtype it has on this kind of device.

        What its own files say against them is not asked of what has begun: an earlier version did not ask.
        The dtype that nobody asks for is the table's on "cuda" and "mps", and float32 elsewhere.
        Raises: NotFound (with the nearest name), ConfigError for parameters the model does not take.
        """
        if name in self._kept:
            return self._kept[name]
        spec = self.spec(name)
        if problems := parameter_problems(spec, asks_files=not self.names.has_begun):
            raise ConfigError("\n".join(f"model {name}: {problem.message}" for problem in problems))
        if kinds.kind_of(spec).weights != "files":
            return replace(spec, dtype=None)
        if spec.kernels and (reason := kernels.refusal(spec, device_kind)):
            raise ConfigError(f"model {name}: {reason}")
        preferred = (spec.dtype or "float32") if device_kind in ACCELERATORS else "float32"
        return replace(spec, dtype=self._asked_dtype(name) or preferred)

    def spec(self, name: str) -> ModelSpec:
        """The spec of a model by name, with parameters merged but not checked. Raises PanicError."""
        found = self.get(name)
        if isinstance(found, PanicError):
            raise found
        return found

    def get(self, name: str) -> ModelSpec | PanicError:
        """The spec of a model, or the error that tells why it has none."""
        if name not in self._known:
            try:
                self._known[name] = self._unchecked(name, ())
            except PanicError as error:
                self._known[name] = error
        return self._known[name]

    def keep(self, name: str, spec: ModelSpec) -> None:
        """Take this resolved spec for a model that is not here any more; one that is here stays as it is."""
        if isinstance(self.get(name), PanicError):
            kind = kinds.kind_of(spec)
            spec = replace(
                spec,
                parameters=kind.renamed(spec.parameters),
                accepts=tuple(kind.renamed(dict.fromkeys(spec.accepts))),
            )
            self._known[name] = self._kept[name] = spec

    def user_models(self) -> dict[str, ModelSpec]:
        """The models of the user's folder, by class name. Raises NotFound, ModelError."""
        if self._own is None:
            self._own = user_models(self.names.model_folder)
        return self._own

    def _unchecked(self, name: str, outer: tuple[str, ...]) -> ModelSpec:
        """The spec of a model; `outer` are the variants on the way here.

        Inside its own definition a name means the table's model.
        """
        variant = None if name in outer else self.names.variant(name)
        if variant is None:
            return self._lookup(name, outer)
        spec = self._base(str(variant.get("base", "")), variant, (*outer, name))
        if "layer" in variant and "layer" not in kinds.kind_of(spec).parameters_of(spec):
            spec = hidden.of(spec)
        own = kinds.kind_of(spec).renamed(
            {key: value for key, value in variant.items() if key not in VARIANT_FIELDS}
        )
        for key in kinds.kind_of(spec).paths(spec):
            if isinstance(own.get(key), str):
                own[key] = str(self.names.path(own[key]))
        revision = variant.get("revision") or spec.revision
        merged = replace(spec, name=name, revision=revision, parameters={**spec.parameters, **own})
        return kinds.kind_of(spec).completed(merged)

    def _base(self, base: str, variant: Mapping[str, Any], outer: tuple[str, ...]) -> ModelSpec:
        """The spec that a variant is based on."""
        adapter = variant.get("adapter")
        listed = [spec for spec in TABLE.values() if spec.source == base]
        if listed and adapter in (None, listed[0].adapter):
            return listed[0]
        if base in self.names.variants and base not in outer:
            return self._unchecked(base, outer)
        if base.startswith("local:"):
            return self._local(base, adapter)
        if _is_hub_id(base) and (adapter is not None or kinds.named_model(base, kinds.others()) is None):
            return _weights(base, base, adapter, variant.get("revision"))
        spec = self._unchecked(base, outer)
        if adapter not in (None, spec.adapter):
            raise ConfigError(f"{base} has an adapter already: {spec.adapter}", hint="leave out adapter:")
        return spec

    def _asked_dtype(self, name: str) -> str | None:
        """The dtype that the variant, or the nearest variant it is based on, asks for."""
        seen: set[str] = set()
        while name not in seen and (variant := self.names.variant(name)):
            seen.add(name)
            if variant.get("dtype"):
                return str(variant["dtype"])
            name = str(variant.get("base"))
        return None

    def _local(self, name: str, adapter: str | None = None) -> ModelSpec:
        return _weights(name, f"local:{self.names.path(name.removeprefix('local:'))}", adapter)

    def _lookup(self, name: str, outer: tuple[str, ...]) -> ModelSpec:
        if name in TABLE:
            return TABLE[name]
        if name.startswith("local:"):
            return self._local(name)
        found = self._named(name, kinds.KINDS) or self._of_user(name) or self._named(name, kinds.others())
        if found:
            return found
        if name in outer:
            raise NotFound(f"the variants {' -> '.join([*outer, name])} are based on each other")
        variants = (other for other in self.names.variants if other not in outer)
        raise UnknownModel(name, [*variants, *(spec.name for spec in known()), *self.user_models()])

    def _named(self, name: str, among: tuple[Kind, ...]) -> ModelSpec | None:
        """The model that one of these kinds knows, or understands by its prefix."""
        for kind in among:
            if kind.read_name is not None and kind.owns(name):
                return kind.read_name(name, self.names.path, ask=self.names.ask)
        return kinds.named_model(name, among)

    def _of_user(self, name: str) -> ModelSpec | None:
        spec = self.user_models().get(name)
        if spec is not None and spec.unread and self.names.ask:
            return python_models.spec_of(spec.source, name, ask=True)
        return spec


def resolve(
    name: str,
    config_models: Mapping[str, Any] | None = None,
    model_folder: str | Path | None = None,
    *,
    base_folder: str | Path | None = None,
    device_kind: str = "cpu",
    ask: bool = True,
) -> ModelSpec:
    """The spec of one model by name; `Resolver.resolve` says which, and what it raises.

    Args:
        config_models: variants by name.
        ask: see `Names`.
    """
    names = Names(variants=config_models or {}, model_folder=model_folder, base_folder=base_folder, ask=ask)
    return Resolver(names).resolve(name, device_kind)


def known() -> list[ModelSpec]:
    """All models that have a name everywhere: the table, and those that kinds bring along."""
    return [*TABLE.values(), *(spec for kind in kinds.every() for spec in kind.models())]


def user_models(model_folder: str | Path | None) -> dict[str, ModelSpec]:
    """The models of the user's folder (or of PANIC_MODELS), by class name, as far as their sources tell.

    Raises: NotFound for a folder that is not there, ModelError for a mistake in a file or a name that is
    taken.
    """
    folder = model_folder or os.environ.get("PANIC_MODELS")
    specs = python_models.specs_in(Path(folder).expanduser()) if folder else {}
    for name in specs:
        if name in TABLE or kinds.named_model(name, kinds.KINDS):
            raise ModelError(f"{specs[name].source}: the name {name} is taken by a model of the table")
    return specs


def _is_hub_id(name: str) -> bool:
    is_owned = any(kind.owns(name) for kind in kinds.KINDS)
    return name.count("/") == 1 and ":" not in name and not is_owned and not name.startswith((".", "/", "~"))


def _weights(name: str, source: str, adapter: str | None, revision: str | None = None) -> ModelSpec:
    """The spec of weights in a folder or on the hub, of the kind that is asked for or detected."""
    blank = ModelSpec.blank(name, source=source, revision=revision)
    kind = kinds.named(adapter) if adapter else kinds.detect(weights.folder_of(blank), name)
    if kind is None or kind.weights != "files":
        raise ConfigError(
            f"model {name}: there is no adapter {adapter}", hint=f"one of {', '.join(kinds.adapters())}"
        )
    return kind.spec(name, source=source, revision=revision)


def _file_conflicts(kind: Kind, spec: ModelSpec) -> dict[str, str]:
    """What a model's own files say against parameters that are not the table's."""
    if weights.is_pocket(spec):
        return {}
    usual = TABLE[spec.base].parameters if spec.base in TABLE else {}
    asked = [key for key, value in spec.parameters.items() if value is not None and usual.get(key) != value]
    return kind.file_conflicts(spec, asked) if asked else {}


def allowed_parameters(spec: ModelSpec) -> list[str]:
    """The parameters that a config may set for a model."""
    return [name for name in kinds.kind_of(spec).parameters_of(spec) if name != ANY]


def parameter_problems(spec: ModelSpec, *, asks_files: bool = True) -> list[Problem]:
    """All problems of a spec's parameters; paths are (parameter,), or () for the whole model.

    asks_files: also whether the model's own files, where they are here, ignore or refuse some.
    """
    kind = kinds.kind_of(spec)
    known, allowed = kind.parameters_of(spec), allowed_parameters(spec)
    unknown = [key for key in spec.parameters if key not in known and ANY not in known]
    problems = [
        Problem(
            (key,),
            f"{spec.base} has no parameter '{key}'",
            found=key,
            allowed=allowed,
            hint="" if allowed else "it takes none",
            on_key=True,
        )
        for key in unknown
    ]
    required = [key for key in allowed if known[key].is_required and key not in spec.parameters]
    problems += [Problem((), f"{spec.base} needs the parameter '{key}'") for key in required]
    conflicts = kind.conflicts(spec) or (_file_conflicts(kind, spec) if asks_files else {})
    problems += [Problem((key,), f"{key} {reason}") for key, reason in conflicts.items()]
    for key, value in spec.parameters.items():
        parameter = known.get(key)
        if parameter is not None and (reason := parameter.problem(value)):
            found = value if value is not None else "null"
            problems.append(Problem((key,), f"{key} {reason}", found=found, allowed=parameter.choices))
    return problems
