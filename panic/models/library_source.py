"""What the classes of diffusers and transformers do, read from their source: nothing is imported for it.

Importing either takes seconds, and a config is checked before anything is loaded. The source says what a call
takes, by what an image's sides must divide, and which tasks a model's class is for.

    call_parameters("FluxPipeline")["max_sequence_length"]    # 512
    does_task("t5", "TEXT_TO_TEXT")
"""

from __future__ import annotations

import ast
import importlib.util
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any


@cache
def _root(package: str) -> Path | None:
    """The folder of an installed package, which is not imported for it."""
    spec = importlib.util.find_spec(package)
    places = spec.submodule_search_locations if spec else None
    return Path(places[0]) if places else None


@cache
def _classes(folder: str) -> dict[str, Path]:
    """Where the classes of a folder of diffusers are; its files are read once, a quarter of a second."""
    root = _root("diffusers")
    begin = re.compile(r"^class (\w+)", re.MULTILINE)
    paths = sorted((root / folder).rglob("*.py")) if root else []
    return {name: path for path in paths for name in begin.findall(path.read_text(encoding="utf-8"))}


@cache
def diffusers_class(name: str) -> str:
    """The source of the file with a class of diffusers; empty where there is none.

    Pipelines and schedulers are called so, all others are parts with weights.
    """
    folder = "schedulers" if name.endswith("Scheduler") else "pipelines" if "Pipeline" in name else "models"
    path = _classes(folder).get(name)
    return path.read_text(encoding="utf-8") if path else ""


@cache
def parameters(name: str, method: str) -> dict[str, Any] | None:
    """What a method of a class of diffusers takes by name, with its defaults as far as they are plain values.

    None where the class or its method cannot be found.
    """
    for function in _methods(diffusers_class(name), name):
        if function.name == method:
            given = function.args
            names = [argument.arg for argument in (*given.posonlyargs, *given.args)]
            defaults = [None] * (len(names) - len(given.defaults)) + [_value(node) for node in given.defaults]
            by_keyword = zip(
                (one.arg for one in given.kwonlyargs), map(_value, given.kw_defaults), strict=True
            )
            return dict(zip(names, defaults, strict=True)) | dict(by_keyword)
    return None


def _methods(source: str, name: str) -> Iterator[ast.FunctionDef]:
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            yield from (part for part in node.body if isinstance(part, ast.FunctionDef))


def _value(node: ast.expr | None) -> Any:
    try:
        return None if node is None else ast.literal_eval(node)
    except ValueError:
        return None


@cache
def compares_guidance(name: str) -> bool:
    """Return whether a pipeline guides by a second, empty prompt: somewhere it compares guidance_scale."""
    for node in ast.walk(ast.parse(diffusers_class(name))):
        if isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.Gt):
            compared = str(getattr(node.left, "attr", "") or getattr(node.left, "id", ""))
            if compared.strip("_") == "guidance_scale":
                return True
    return False


@cache
def single_files() -> str:
    """The source of what diffusers reads single files of weights with."""
    root = _root("diffusers")
    path = root / "loaders/single_file_model.py" if root else None
    return path.read_text(encoding="utf-8") if path is not None and path.is_file() else ""


@cache
def unpacked_types() -> frozenset[str]:
    """The types of blocks in GGUF files that diffusers unpacks."""
    root = _root("diffusers")
    path = root / "quantizers/gguf/utils.py" if root else None
    source = path.read_text(encoding="utf-8") if path is not None and path.is_file() else ""
    return frozenset(re.findall(r"GGMLQuantizationType\.(\w+): dequantize", source))


@cache
def gguf_architectures() -> frozenset[str]:
    """The architectures of the GGUF files that transformers reads, by its words for them."""
    root = _root("transformers")
    integrations = root / "integrations" if root else Path()
    paths = [integrations / "ggml.py", integrations / "gguf/gguf_config_mapping.py"]
    found = set[str]()
    for path in (path for path in paths if path.is_file()):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            target = node.targets[0] if isinstance(node, ast.Assign) else None
            if isinstance(target, ast.Name) and target.id in ("GGUF_CONFIG_MAPPING", "GGUF_CONFIG_ARCHS"):
                assert isinstance(node, ast.Assign)
                assert isinstance(node.value, ast.Dict)
                found |= {str(_value(key)) for key in node.value.keys}
    return frozenset(found)


@cache
def processor_source(model_type: str) -> str:
    """The source of the processor of a transformers model; empty where it has none of its own."""
    return _transformers_file("processing", model_type)


@cache
def modeling_source(model_type: str) -> str:
    """The source of the classes of a transformers model; empty where it has none of its own."""
    return _transformers_file("modeling", model_type)


def _transformers_file(part: str, model_type: str) -> str:
    root = _root("transformers")
    name = model_type.replace("-", "_")
    if root is None or not name.isidentifier():
        return ""
    path = root / "models" / name / f"{part}_{name}.py"
    return path.read_text(encoding="utf-8") if path.is_file() else ""


@cache
def classes_for(task: str) -> dict[str, tuple[str, ...]]:
    """The classes of transformers for a task, by model type: {"git": ("GitForCausalLM",)}.

    Args:
        task: as transformers names it, "IMAGE_TEXT_TO_TEXT", "CAUSAL_LM", "SEQ_TO_SEQ_CAUSAL_LM".
    """
    root = _root("transformers")
    path = root / "models/auto/modeling_auto.py" if root else None
    if path is None or not path.is_file():
        return {}
    wanted = f"MODEL_FOR_{task}_MAPPING_NAMES"
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        target = node.targets[0] if isinstance(node, ast.Assign) else None
        if isinstance(target, ast.Name) and target.id == wanted and isinstance(node, ast.Assign):
            pairs = _value(node.value.args[0]) if isinstance(node.value, ast.Call) else _value(node.value)
            return {
                key: (value,) if isinstance(value, str) else tuple(value)
                for key, value in dict(pairs or ()).items()
            }
    return {}
