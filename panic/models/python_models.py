"""Models that users write: a class with five names in a Python file of their own.

`python:FILE.py:Class` names one directly; every such class in the files of a folder (`model_folder` in a
config, or PANIC_MODELS) is known by its class name. What the model maps from and to is read from the
class attributes `modality_in` and `modality_out`; the constructor gets the variant's parameters as
keywords. Each file is imported under a name of its own, so two files may define the same class.

    panic run config.yaml       # with `networks: [["python:shout.py:Shout"]]`
"""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

from panic.errors import ModelError, NotFound, PanicError
from panic.models.protocol import Modality
from panic.models.spec import ModelSpec

_modules: dict[tuple[str, int, int], ModuleType] = {}


def split_source(source: str) -> tuple[Path, str]:
    """("python:FILE.py:Class") -> file and class name."""
    file, _, name = source.removeprefix("python:").rpartition(":")
    if not file or not name:
        raise NotFound(f"{source}: should read python:FILE.py:Class")
    return Path(file).expanduser(), name


def load_file(file: Path) -> ModuleType:
    """Import a user's file under a name of its own; once per content.

    Raises NotFound if there is no such file, ModelError with file and line if it fails.
    """
    if not file.is_file():
        raise NotFound(f"there is no Python file {file}")
    path = file.resolve()
    status = path.stat()
    key = (str(path), status.st_size, status.st_mtime_ns)
    if key in _modules:
        return _modules[key]
    name = f"panic_user_{path.stem}_{hashlib.sha256(repr(key).encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # pickling and dataclasses look classes up by their module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise ModelError(f"{_place(error, path)}: {type(error).__name__}: {_text(error)}") from error
    _modules[key] = module
    return module


def _text(error: BaseException) -> str:
    return error.msg if isinstance(error, SyntaxError) else str(error)


def _place(error: BaseException, path: Path) -> str:
    """FILE:LINE of the innermost frame that is in the user's file."""
    if isinstance(error, SyntaxError) and error.lineno is not None:
        return f"{error.filename}:{error.lineno}"
    lines = [
        frame.lineno for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename) == path
    ]
    return f"{path}:{lines[-1]}" if lines else str(path)


def model_classes(module: ModuleType) -> dict[str, type[Any]]:
    """The classes of a file that are models: five names, modalities as class attributes."""
    return {
        name: value
        for name, value in vars(module).items()
        if inspect.isclass(value)
        and value.__module__ == module.__name__
        and not name.startswith("_")
        and all(hasattr(value, attribute) for attribute in ("load", "invoke", "modality_in", "modality_out"))
    }


def specs_in(folder: Path) -> dict[str, ModelSpec]:
    """All models of a folder of Python files, by class name."""
    if not folder.is_dir():
        raise NotFound(f"the model folder {folder} does not exist")
    found: dict[str, ModelSpec] = {}
    for file in sorted(folder.glob("*.py")):
        for name in model_classes(load_file(file)):
            if name in found:
                first = split_source(found[name].source)[0].name
                raise ModelError(f"two models are called {name}: in {first} and in {file.name} of {folder}")
            found[name] = spec_of(f"python:{file}:{name}", name)
    return found


def spec_of(source: str, name: str) -> ModelSpec:
    """The spec of one class, read from its class attributes; nothing is constructed."""
    file, class_name = split_source(source)
    cls = _class(file, class_name)
    place = f"{file}:{inspect.getsourcelines(cls)[1]}: {class_name}"
    missing = [attribute for attribute in ("load", "invoke") if not callable(getattr(cls, attribute, None))]
    if missing:
        raise ModelError(f"{place} has no method {' and no method '.join(missing)}")
    modalities_in = _class_modalities(cls, "modality_in", place)
    modality_out = _class_modalities(cls, "modality_out", place)
    if len(modality_out) != 1:
        raise ModelError(f"{place}: modality_out should be one of text, image, vector")
    return ModelSpec(
        name=name,
        base=name,
        adapter="python",
        modalities_in=modalities_in,
        modality_out=modality_out[0],
        parameters=_keyword_defaults(cls),
        source=f"python:{file.resolve()}:{class_name}",
        batch_size=int(getattr(cls, "batch_size", 32)),
    )


def _class(file: Path, name: str) -> type[Any]:
    module = load_file(file)
    cls = getattr(module, name, None)
    if not inspect.isclass(cls):
        known = ", ".join(model_classes(module)) or "none"
        raise NotFound(f"{file} has no class {name}; models in it: {known}")
    return cls


def modalities(value: Any) -> tuple[Modality, ...]:
    """`modality_in` or `modality_out` of a class as a tuple; TypeError or ValueError if it is none."""
    return tuple(Modality(item) for item in ((value,) if isinstance(value, str) else value))


def _class_modalities(cls: type[Any], attribute: str, place: str) -> tuple[Modality, ...]:
    value = getattr(cls, attribute, None)
    try:
        return modalities(value)
    except (TypeError, ValueError):
        found = f"not {value!r}" if isinstance(value, str | list | tuple) else "set on the class itself"
        raise ModelError(
            f"{place}: {attribute} should be a class attribute, one of text, image, vector, {found}"
        ) from None


def accepted_keywords(source: str) -> tuple[dict[str, Any], list[str], bool]:
    """A user class's constructor: keywords with defaults, required ones, and whether it takes any keyword."""
    cls = _class(*split_source(source))
    optional, required, takes_any = {}, [], False
    for parameter in inspect.signature(cls).parameters.values():
        if parameter.kind is parameter.VAR_KEYWORD:
            takes_any = True
        elif parameter.kind in (parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            if parameter.default is parameter.empty:
                required.append(parameter.name)
            else:
                optional[parameter.name] = parameter.default
    return optional, required, takes_any


def _keyword_defaults(cls: type[Any]) -> dict[str, Any]:
    """Defaults that are plain values (others stay with the class and its source in the fingerprint)."""
    parameters = inspect.signature(cls).parameters.values()
    plain = (str, int, float, bool)
    return {p.name: p.default for p in parameters if isinstance(p.default, plain)}


def build(spec: ModelSpec) -> Any:
    """Construct a user's model with its parameters; errors say file and line."""
    file, class_name = split_source(spec.source)
    cls = _class(file, class_name)
    try:
        model = cls(**spec.parameters)
    except PanicError:
        raise
    except Exception as error:
        place = _place(error, file.resolve())
        raise ModelError(
            f"{place}: {class_name} cannot be constructed: {type(error).__name__}: {error}"
        ) from error
    if not hasattr(model, "size_bytes"):
        raise ModelError(f"{file}: {class_name} has no size_bytes (bytes of its weights; 0 if it has none)")
    return model
