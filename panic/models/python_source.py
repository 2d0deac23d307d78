"""The source of a user's file is read for what it says about a class, without running any of it.

Read are literals in the class body, the signature of `__init__` and the methods that are defined, also those
inherited from classes of the same file and of `panic` itself. What cannot be read so (decorated, computed,
inherited from elsewhere, bound twice) raises `NotReadable` with its place; `panic.models.python_running` asks
the class itself then.

    read_class(Path("shout.py"), "Shout")
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from panic.errors import ModelError, NotFound, PanicError

BATCH_SIZE = 32
NAMES = ("load", "invoke", "modality_in", "modality_out")
"""A class of a folder that has these is a model."""
PLAIN = (str, int, float, bool)

_Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassFacts:
    """A user's class, as far as it has to be known before it is built; plain values.

    Args:
        line: of the class in its file.
        methods: those of `load`, `invoke` and `bucket` that it has.
        modality_in, modality_out: the class attributes, None where there are none.
        required, optional: names of the constructor's parameters.
        defaults: of the optional ones, where they are plain values (others stay with the class).
        takes_any: the constructor takes any other keyword.
    """

    line: int
    methods: frozenset[str]
    modality_in: Any
    modality_out: Any
    batch_size: int = BATCH_SIZE
    required: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    defaults: dict[str, Any] = field(default_factory=dict)
    takes_any: bool = False


class NotReadable(PanicError):
    """The source does not say what a class is; the message has file, line and reason."""


def split_source(source: str) -> tuple[Path, str]:
    """("python:FILE.py:Class") -> file and class name. Raises NotFound if it reads otherwise."""
    file, _, name = source.removeprefix("python:").rpartition(":")
    if not file or not name:
        raise NotFound(f"{source}: should read python:FILE.py:Class")
    return Path(file).expanduser(), name


def read_class(file: Path, name: str) -> ClassFacts:
    """Return what the source says about a class.

    Raises: NotFound if there is no such file or class, ModelError for a mistake in the syntax, NotReadable.
    """
    return _Source(file, _parsed(file)).facts(name)


def model_names(file: Path) -> list[str]:
    """The classes of a file that have `NAMES`, or one of them where the rest cannot be read."""
    source = _Source(file, _parsed(file))
    return [name for name in source.classes if not name.startswith("_") and source.may_be_model(name)]


def require_python(file: Path) -> None:
    """Raise NotFound if there is no such file, ModelError if its name is not that of a Python file."""
    if not file.is_file():
        raise NotFound(f"there is no Python file {file}")
    if file.suffix != ".py":
        raise ModelError(f"{file} is no Python file", hint="the name of a Python file ends in .py")


def _parsed(file: Path) -> _Tree:
    require_python(file)
    path = file.resolve()
    status = path.stat()
    return _parse(path, (status.st_size, status.st_mtime_ns))


@lru_cache(maxsize=256)
def _parse(path: Path, _stamp: tuple[int, int]) -> _Tree:
    """The syntax tree of a file's content; `_stamp`, its size and time of change, tells contents apart."""
    try:
        content = path.read_bytes()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)  # told when the file is run
            compile(content, path, "exec", dont_inherit=True)  # finds more mistakes than the parser
            return _Tree(ast.parse(content, path))
    except SyntaxError as error:
        raise ModelError(f"{error.filename}:{error.lineno}: {type(error).__name__}: {error.msg}") from error
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: {type(error).__name__}: {error}") from error


class _Tree:
    """A file's syntax tree, walked once: its classes, what binds each name, where attributes are set."""

    def __init__(self, module: ast.Module) -> None:
        self.classes = {node.name: node for node in module.body if isinstance(node, ast.ClassDef)}
        self.bindings: dict[str, list[ast.AST]] = {}
        self.changes: dict[str, int] = {}
        for node in ast.walk(module):
            for name in _bound(node):
                self.bindings.setdefault(name, []).append(node)
            match node:
                case ast.Attribute(value=ast.Name(id=name), ctx=ast.Store() | ast.Del()):
                    self.changes.setdefault(name, node.lineno)
                case ast.Call(func=ast.Name(id="setattr"), args=[ast.Name(id=name), *_]):
                    self.changes.setdefault(name, node.lineno)

    def change(self, name: str) -> int | None:
        """The line in which a class is bound a second time, or one of its attributes is set from outside."""
        bindings = self.bindings.get(name, [])
        return bindings[-1].lineno if len(bindings) > 1 else self.changes.get(name)  # type: ignore[attr-defined]


@dataclass(frozen=True, slots=True)
class _Unclear:
    """An attribute that the source does not settle."""

    line: int
    reason: str


class _Source:
    """The classes of one file, and what is certain about their attributes."""

    def __init__(self, file: Path, tree: _Tree) -> None:
        self._file, self._tree = file, tree
        self.classes = tree.classes

    def facts(self, name: str) -> ClassFacts:
        node = self.classes.get(name)
        if node is None:
            raise self._no_class(name)
        if other := self._tree.change(name):
            raise self._unclear(other, f"{name} is bound or changed here, too")
        if node.decorator_list or node.keywords:
            raise self._unclear(node.lineno, f"{name} has a decorator or a metaclass")
        methods = {key for key in ("load", "invoke", "bucket") if self._value(node, key) is not None}
        signature: dict[str, Any] = {}
        if self._value(node, "__new__") is not None:
            raise self._unclear(node.lineno, f"{name} has a __new__")
        init = self._value(node, "__init__")
        if init is not None:
            signature = self._signature(init, name)
        size = self._literal(node, "batch_size")
        if not isinstance(size, int | None):
            raise self._unclear(node.lineno, f"batch_size of {name} is no whole number")
        return ClassFacts(
            line=node.lineno,
            methods=frozenset(methods),
            modality_in=self._literal(node, "modality_in"),
            modality_out=self._literal(node, "modality_out"),
            batch_size=BATCH_SIZE if size is None else size,
            **signature,
        )

    def may_be_model(self, name: str) -> bool:
        found = [self._attribute(self.classes[name], key) for key in NAMES]
        is_open = any(isinstance(value, _Unclear) for value in found) or self.classes[name].decorator_list
        known = [value for value in found if isinstance(value, ast.AST)]
        return bool(known) if is_open else None not in found

    def _no_class(self, name: str) -> PanicError:
        bindings = self._tree.bindings
        for node in (*bindings.get(name, []), *bindings.get("*", [])):
            return self._unclear(
                getattr(node, "lineno", 1), f"{name} is not defined by a plain class statement"
            )
        known = ", ".join(model_names(self._file)) or "none"
        return NotFound(f"{self._file} has no class {name}; models in it: {known}")

    def _attribute(self, node: ast.ClassDef, key: str) -> ast.AST | _Unclear | None:
        """The value or the function that a class has under a name, or None if it has none."""
        own = _body(node).get(key)
        if own is not None:
            return own
        bases = [base for base in node.bases if not (isinstance(base, ast.Name) and base.id == "object")]
        if not bases:
            return None
        source, name = self._origin(bases[0]) if len(bases) == 1 else (self, "")
        parent = source.classes.get(name)
        if parent is None:
            return _Unclear(node.lineno, f"{node.name} inherits {key} from elsewhere, or not")
        is_plain = not parent.decorator_list and not parent.keywords and source._tree.change(name) is None
        if not is_plain or (source is self and parent.lineno >= node.lineno):
            return _Unclear(node.lineno, f"{node.name} inherits from {name}, which is changed elsewhere")
        return source._attribute(parent, key)

    def _origin(self, base: ast.expr) -> tuple[_Source, str]:
        """The source of a base class (this file, or one of `panic`) and its name there, empty elsewhere."""
        if not isinstance(base, ast.Name):
            return self, ""
        match self._tree.bindings.get(base.id):
            case [ast.ClassDef()]:
                return self, base.id
            case [ast.ImportFrom(module=str(module), level=0, names=names)] if module.startswith("panic."):
                spec = find_spec(module)
                if spec is not None and spec.origin is not None:
                    file = Path(spec.origin)
                    name = next(alias.name for alias in names if base.id in (alias.asname, alias.name))
                    return _Source(file, _parsed(file)), name
        return self, ""

    def _value(self, node: ast.ClassDef, key: str) -> ast.AST | None:
        value = self._attribute(node, key)
        if isinstance(value, _Unclear):
            raise self._unclear(value.line, value.reason)
        return value

    def _literal(self, node: ast.ClassDef, key: str) -> Any:
        value = self._value(node, key)
        return None if value is None else self._evaluated(value, f"{key} of {node.name}")

    def _evaluated(self, node: ast.AST, what: str) -> Any:
        try:
            return ast.literal_eval(node)
        except (ValueError, TypeError, SyntaxError):
            raise self._unclear(getattr(node, "lineno", 1), f"{what} is no literal") from None

    def _signature(self, init: ast.AST, name: str) -> dict[str, Any]:
        """The constructor's parameters, `self` left out, as fields of `ClassFacts`."""
        if not isinstance(init, _Function) or init.decorator_list:
            raise self._unclear(getattr(init, "lineno", 1), f"__init__ of {name} is no plain function")
        given = init.args
        positional = [*given.posonlyargs, *given.args]
        missing: list[ast.expr | None] = [None] * (len(positional) - len(given.defaults))
        pairs = list(zip(positional, missing + list(given.defaults), strict=True))[1:]
        pairs += zip(given.kwonlyargs, given.kw_defaults, strict=True)
        keywords = [arg.arg for arg in (*given.args, *given.kwonlyargs)]
        values = {
            arg.arg: self._evaluated(default, f"the default of {arg.arg}")
            for arg, default in pairs
            if default is not None
        }
        names = [arg.arg for arg, _ in pairs if arg.arg in keywords]
        return {
            "required": tuple(key for key in names if key not in values),
            "optional": tuple(key for key in names if key in values),
            "defaults": {key: value for key, value in values.items() if isinstance(value, PLAIN)},
            "takes_any": given.kwarg is not None,
        }

    def _unclear(self, line: int, reason: str) -> NotReadable:
        return NotReadable(f"{self._file}:{line}: {reason}")


def _bound(node: ast.AST) -> Iterator[str]:
    """The names that a statement or expression binds, wherever it stands."""
    if isinstance(node, ast.ClassDef | _Function):
        yield node.name
    elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store | ast.Del):
        yield node.id
    elif isinstance(node, ast.Import | ast.ImportFrom):
        yield from (alias.asname or alias.name.split(".")[0] for alias in node.names)


def _body(node: ast.ClassDef) -> dict[str, ast.AST | _Unclear]:
    """The functions and values that a class body binds; in a branch, unpacked or deleted they are unclear."""
    found: dict[str, ast.AST | _Unclear] = {}
    for statement in node.body:
        if isinstance(statement, _Function | ast.ClassDef):
            found[statement.name] = statement
            continue
        if isinstance(statement, ast.Assign) and all(isinstance(t, ast.Name) for t in statement.targets):
            found |= {
                target.id: statement.value for target in statement.targets if isinstance(target, ast.Name)
            }
        elif isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            if statement.value is not None:
                found[statement.target.id] = statement.value
        else:
            for inner in ast.walk(statement):
                line = getattr(inner, "lineno", node.lineno)
                found |= {name: _Unclear(line, f"{name} is not simply assigned") for name in _bound(inner)}
    return found
