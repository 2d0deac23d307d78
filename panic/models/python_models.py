"""Models that users write: a class with five names in a Python file of their own.

`python:FILE.py:Class` names one directly; every such class in the files of a folder (`model_folder` in a
config, or PANIC_MODELS) is known by its class name, unless it is inherited from elsewhere altogether. What
the model maps from and to is read from the class attributes `modality_in` and `modality_out`; the
constructor gets the variant's parameters as keywords. Nothing of a file runs where a config is checked: its
source is read.

    panic run config.yaml       # with `networks: [["python:shout.py:Shout"]]`
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from panic.errors import ModelError, NotFound
from panic.models import python_running
from panic.models.kind import ANY, Bucketer, Kind, Parameter
from panic.models.protocol import Modality, ModelSpec, modalities
from panic.models.python_source import ClassFacts, NotReadable, model_names, read_class, split_source
from panic.models.weights import file_digest

_asked: dict[tuple[str, int, int, str], ClassFacts] = {}


def specs_in(folder: Path) -> dict[str, ModelSpec]:
    """All models of a folder of Python files, by class name, as far as their sources tell.

    Raises: NotFound for a folder that is not there, ModelError for a mistake in a file.
    """
    if not folder.is_dir():
        raise NotFound(f"the model folder {folder} does not exist")
    found: dict[str, ModelSpec] = {}
    for file in sorted(folder.glob("*.py")):
        for name in model_names(file):
            if name in found:
                first = split_source(found[name].source)[0].name
                raise ModelError(f"two models are called {name}: in {first} and in {file.name} of {folder}")
            found[name] = spec_of(f"python:{file}:{name}", name, ask=False)
    return found


def spec_of(source: str, name: str, *, ask: bool) -> ModelSpec:
    """The spec of one class; nothing is constructed, and nothing runs in this process.

    Args:
        ask: run the file in a process of its own where its source does not tell all; else such a class
            gives a spec that says why nothing is known (`unread`).

    Raises: NotFound if there is no such file or class, ModelError with file and line for what is wrong with
    it.
    """
    file, class_name = split_source(source)
    facts = _facts(file, class_name, ask=ask)
    source = f"python:{file.resolve()}:{class_name}"
    if isinstance(facts, NotReadable):
        return KIND.spec(name, source=source, unread=facts.message)
    place = f"{file}:{facts.line}: {class_name}"
    missing = [method for method in ("load", "invoke") if method not in facts.methods]
    if missing:
        raise ModelError(f"{place} has no method {' and no method '.join(missing)}")
    modalities_in = _modalities(facts, "modality_in", place)
    modality_out = _modalities(facts, "modality_out", place)
    if len(modality_out) != 1:
        raise ModelError(f"{place}: modality_out should be one of text, image, vector")
    return KIND.spec(
        name,
        modalities_in=modalities_in,
        modality_out=modality_out[0],
        parameters=facts.defaults,
        source=source,
        batch_size=facts.batch_size,
    )


def _facts(file: Path, name: str, *, ask: bool) -> ClassFacts | NotReadable:
    """Return what is known of a class: from its source, or from itself, asked once per content."""
    try:
        return read_class(file, name)
    except NotReadable as error:
        status = file.stat()
        key = (str(file.resolve()), status.st_size, status.st_mtime_ns, name)
        if key not in _asked and ask:
            _asked[key] = python_running.ask(file, name)
        return _asked.get(key, error)


def _modalities(facts: ClassFacts, attribute: str, place: str) -> tuple[Modality, ...]:
    value = getattr(facts, attribute)
    try:
        return modalities(value)
    except (TypeError, ValueError):
        found = f"not {value!r}" if isinstance(value, str | list | tuple) else "set on the class itself"
        raise ModelError(
            f"{place}: {attribute} should be a class attribute, one of text, image, vector, {found}"
        ) from None


def _parameters(spec: ModelSpec) -> Mapping[str, Parameter]:
    """The constructor's parameters: the required ones first, any value for each."""
    facts = _facts(*split_source(spec.source), ask=False)
    anything = Parameter(kind=object)
    if isinstance(facts, NotReadable):
        return {ANY: anything}
    return {
        **dict.fromkeys(facts.required, Parameter(kind=object, is_required=True)),
        **dict.fromkeys(facts.optional, anything),
        **({ANY: anything} if facts.takes_any else {}),
    }


def _read_name(name: str, path: Callable[[str], Path], *, ask: bool) -> ModelSpec:
    file, class_name = split_source(name)
    return spec_of(f"python:{path(str(file))}:{class_name}", name, ask=ask)


def _identity(spec: ModelSpec) -> Any:
    file, name = split_source(spec.source)
    return [file_digest(file), name]


def _bucketing(spec: ModelSpec) -> Bucketer | None:
    """The class's own `bucket`, asked in a process where it is constructed for nothing else."""
    facts = _facts(*split_source(spec.source), ask=False)
    if isinstance(facts, NotReadable) or "bucket" not in facts.methods:
        return None
    asked = cache(python_running.Asked)
    return lambda item: asked().bucket(spec, item)


KIND = Kind(
    name="python",
    build=python_running.build,
    parameters=_parameters,
    prefix="python:",
    read_name=_read_name,
    identity=_identity,
    bucketing=_bucketing,
)
