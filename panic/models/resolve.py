"""From a model's name to its spec: the table, variants, user's own models, folders, hub ids.

A variant (`models:` in a config) is a base with other parameters, revision or dtype; its base may be
another variant. Everything is read from plain data, JSON files and class attributes: nothing is built,
no weights are read, torch is not imported (unless a user's own Python file does).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from panic.config.problems import Problem
from panic.errors import ConfigError, ModelError, NotFound, nearest
from panic.models import parameters as adapter_parameters
from panic.models import python_models, weights
from panic.models.detect import ADAPTER_MODALITIES, detect_adapter
from panic.models.protocol import Modality
from panic.models.spec import ModelSpec
from panic.models.table import TABLE

VARIANT_FIELDS = ("base", "revision", "dtype", "adapter")
ACCELERATORS = ("cuda", "mps")


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """What the model names of a config can refer to, besides the table.

    base_folder: what the relative paths of `local:` and `python:` names refer to; the working directory
    if there is none.
    """

    variants: Mapping[str, Any] = field(default_factory=dict)
    model_folder: str | Path | None = None
    base_folder: str | Path | None = None

    def path(self, text: str) -> Path:
        """An absolute path. Raises ConfigError for what cannot be one."""
        if "\0" in text:
            raise ConfigError("a path must not contain the character NUL")
        # realpath, because Path.resolve raises for links that lead to each other.
        return Path(os.path.realpath(Path(self.base_folder or ".") / Path(text).expanduser()))


def resolve(
    name: str,
    config_models: Mapping[str, Any] | None = None,
    model_folder: str | Path | None = None,
    *,
    base_folder: str | Path | None = None,
    device_kind: str = "cpu",
) -> ModelSpec:
    """The spec of a model by name, with its parameters merged and its dtype decided.

    A dtype that nobody asked for is the table's on "cuda" and "mps", and float32 elsewhere.
    Raises NotFound (with the nearest name), ConfigError for parameters the model does not take.
    """
    variants = config_models or {}
    names = Names(variants=variants, model_folder=model_folder, base_folder=base_folder)
    spec = unchecked(name, names)
    problems = parameter_problems(spec)
    if problems:
        raise ConfigError("\n".join(f"model {name}: {problem.message}" for problem in problems))
    if spec.adapter not in adapter_parameters.PARAMETERS:
        return replace(spec, dtype=None)
    preferred = (spec.dtype or "float32") if device_kind in ACCELERATORS else "float32"
    return replace(spec, dtype=_asked_dtype(name, variants) or preferred)


def unchecked(name: str, names: Names, outer: tuple[str, ...] = ()) -> ModelSpec:
    """The spec of a model by name, with parameters merged but not checked.

    `outer` are the variants on the way here: inside its own definition a name means the table's model.
    """
    variant = None if name in outer else _variant(names.variants, name)
    if variant is None:
        return _lookup(name, names, outer)
    spec = _base(str(variant.get("base", "")), variant, names, (*outer, name))
    own = {key: value for key, value in variant.items() if key not in VARIANT_FIELDS}
    for key in adapter_parameters.folders(spec.adapter):
        if isinstance(own.get(key), str):
            own[key] = str(names.path(own[key]))
    revision = variant.get("revision") or spec.revision
    return replace(spec, name=name, revision=revision, parameters={**spec.parameters, **own})


def _base(base: str, variant: Mapping[str, Any], names: Names, outer: tuple[str, ...]) -> ModelSpec:
    """The spec that a variant is based on."""
    adapter = variant.get("adapter")
    listed = [spec for spec in TABLE.values() if spec.source == base]
    if listed and adapter in (None, listed[0].adapter):
        return listed[0]
    if base in names.variants and base not in outer:
        return unchecked(base, names, outer)
    if base.startswith("local:"):
        return _local(base, names, adapter)
    if _is_hub_id(base):
        return _hub(base, adapter, variant.get("revision"))
    spec = unchecked(base, names, outer)
    if adapter not in (None, spec.adapter):
        raise ConfigError(f"{base} has an adapter already: {spec.adapter}", hint="leave out adapter:")
    return spec


def _variant(variants: Mapping[str, Any], name: str) -> dict[str, Any] | None:
    """A variant as a plain mapping, from the raw config or from the validated one."""
    value = variants.get(name)
    if value is None:
        return None
    return dict(value) if isinstance(value, Mapping) else dict(value.model_dump())


def _asked_dtype(name: str, variants: Mapping[str, Any]) -> str | None:
    """The dtype that the variant, or the nearest variant it is based on, asks for."""
    seen: set[str] = set()
    while name not in seen and (variant := _variant(variants, name)):
        seen.add(name)
        if variant.get("dtype"):
            return str(variant["dtype"])
        name = str(variant.get("base"))
    return None


def _lookup(name: str, names: Names, outer: tuple[str, ...]) -> ModelSpec:
    if name.startswith("local:"):
        return _local(name, names)
    if name.startswith("python:"):
        file, class_name = python_models.split_source(name)
        return python_models.spec_of(f"python:{names.path(str(file))}:{class_name}", name)
    own = {} if name.startswith("synthetic/") else user_models(names.model_folder)
    candidates = {**TABLE, **synthetic_models(), **own}
    if name in candidates:
        return candidates[name]
    if name in outer:
        raise NotFound(f"the variants {' -> '.join([*outer, name])} are based on each other")
    raise UnknownModel(name, [*(other for other in names.variants if other not in outer), *candidates])


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


def _is_hub_id(name: str) -> bool:
    return name.count("/") == 1 and ":" not in name and not name.startswith(("synthetic/", ".", "/", "~"))


def _blank(name: str, source: str, revision: str | None = None) -> ModelSpec:
    return ModelSpec(
        name=name,
        base=name,
        adapter="",
        modalities_in=(),
        modality_out=Modality.TEXT,
        source=source,
        revision=revision,
    )


def _hub(source: str, adapter: str | None, revision: str | None) -> ModelSpec:
    blank = _blank(source, source, revision)
    return _with_adapter(blank, adapter or detect_adapter(weights.folder_of(blank), source))


def _local(name: str, names: Names, adapter: str | None = None) -> ModelSpec:
    blank = _blank(name, f"local:{names.path(name.removeprefix('local:'))}")
    return _with_adapter(blank, adapter or detect_adapter(weights.folder_of(blank), name))


def _with_adapter(spec: ModelSpec, adapter: str) -> ModelSpec:
    if adapter not in tuple(ADAPTER_MODALITIES):
        known = ", ".join(ADAPTER_MODALITIES)
        raise ConfigError(f"model {spec.name}: there is no adapter {adapter}", hint=f"one of {known}")
    modalities_in, modality_out = ADAPTER_MODALITIES[adapter]
    return replace(
        spec,
        adapter=adapter,
        modalities_in=modalities_in,
        modality_out=modality_out,
        parameters=adapter_parameters.defaults(adapter),
    )


def synthetic_models() -> dict[str, ModelSpec]:
    """The models without weights, by name."""
    from panic.models import synthetic

    return {
        name: ModelSpec(
            name=name,
            base=name,
            adapter="synthetic",
            modalities_in=python_models.modalities(cls.modality_in),
            modality_out=Modality(cls.modality_out),
            parameters={key: parameter.default for key, parameter in cls.PARAMETERS.items()},
            num_parameters=0,
            licence="MIT",
        )
        for name, cls in synthetic.MODELS.items()
    }


def user_models(model_folder: str | Path | None) -> dict[str, ModelSpec]:
    """The models of the user's folder (or of PANIC_MODELS), by class name."""
    folder = model_folder or os.environ.get("PANIC_MODELS")
    specs = python_models.specs_in(Path(folder).expanduser()) if folder else {}
    for name in specs.keys() & TABLE.keys():
        raise ModelError(f"{specs[name].source}: the name {name} is taken by a model of the table")
    return specs


def allowed_parameters(spec: ModelSpec) -> list[str]:
    """The parameters that a config may set for a model."""
    if spec.adapter == "synthetic":
        return list(synthetic_models()[spec.base].parameters)
    if spec.adapter == "python":
        optional, required, _ = python_models.accepted_keywords(spec.source)
        return [*required, *optional]
    return list(spec.accepts or adapter_parameters.PARAMETERS.get(spec.adapter, {}))


def parameter_problems(spec: ModelSpec) -> list[Problem]:
    """What is wrong with a spec's parameters; paths are (parameter,), or () for the whole model."""
    allowed = allowed_parameters(spec)
    takes_any = spec.adapter == "python" and python_models.accepted_keywords(spec.source)[2]
    unknown = [key for key in spec.parameters if key not in allowed and not takes_any]
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
    if spec.adapter == "python":
        required = python_models.accepted_keywords(spec.source)[1]
        missing = [key for key in required if key not in spec.parameters]
        return problems + [Problem((), f"{spec.base} needs the parameter '{key}'") for key in missing]
    return problems + _value_problems(spec, unknown)


def _value_problems(spec: ModelSpec, unknown: list[str]) -> list[Problem]:
    schema = adapter_parameters.PARAMETERS.get(spec.adapter, {})
    if spec.adapter == "synthetic":
        schema = adapter_parameters.SYNTHETIC
    problems = [
        Problem((key,), f"{key} {reason}")
        for key, reason in adapter_parameters.conflicts(spec.adapter, spec.parameters).items()
    ]
    for key, value in spec.parameters.items():
        if key not in unknown and (reason := schema[key].problem(value)):
            found = value if value is not None else "null"
            problems.append(Problem((key,), f"{key} {reason}", found=found, allowed=schema[key].choices))
    return problems
