"""The code of users' files runs here: a worker builds a model, a process of its own answers questions.

A worker loads the file and constructs the class (`build`). The driver never does: what it has to know and
cannot read from the source (`panic.models.python_source`) it asks a short-lived process for (`Asked`), with
a time limit, so that neither a side effect nor a hang of a user's module reaches it.
"""

from __future__ import annotations

import hashlib
import inspect
import os
import signal
import subprocess
import traceback
import weakref
from collections.abc import Iterable
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from types import ModuleType
from typing import Any

from panic.errors import ModelError, NotFound, PanicError
from panic.models.protocol import ModelSpec
from panic.models.python_beside import run_file
from panic.models.python_source import (
    BATCH_SIZE,
    PLAIN,
    ClassFacts,
    model_names,
    require_python,
    split_source,
)
from panic.processes import lose_unread, python

ANSWER_S = 20.0
"""The longest that a user's class may take to answer, the imports of its file included."""
_modules: dict[tuple[str, int, int], ModuleType] = {}
_hidden: set[str] = set()
"""Variables of the environment that no process gets which is asked."""


def hide(variables: Iterable[str]) -> None:
    """Keep variables of the environment, such as those of keys, from all processes that are asked."""
    _hidden.update(variables)


def load_file(file: Path) -> ModuleType:
    """Import a user's file under a name of its own; once per content.

    Raises NotFound if there is no such file, ModelError with file and line if it fails.
    """
    require_python(file)
    path = file.resolve()
    status = path.stat()
    key = (str(path), status.st_size, status.st_mtime_ns)
    if key in _modules:
        return _modules[key]
    name = f"{path.stem.replace('.', '_')}_{hashlib.sha256(repr(key).encode()).hexdigest()[:12]}"
    try:
        module = run_file(path, name)
    except (Exception, SystemExit) as error:
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


def build(spec: ModelSpec) -> Any:
    """Construct a user's model with its parameters. Raises ModelError with file and line."""
    file, name = split_source(spec.source)
    cls = _class(file, name)
    try:
        model = cls(**_keywords(cls, spec.parameters))
    except PanicError:
        raise
    except Exception as error:
        place = _place(error, file.resolve())
        raise ModelError(f"{place}: {name} cannot be constructed: {type(error).__name__}: {error}") from error
    if not hasattr(model, "size_bytes"):
        raise ModelError(f"{file}: {name} has no size_bytes (bytes of its weights; 0 if it has none)")
    return model


def _keywords(cls: type[Any], values: Any) -> dict[str, Any]:
    """The values to pass; a default that is more than a plain value (of an enumeration) is not passed."""
    defaults = {key: p.default for key, p in inspect.signature(cls).parameters.items()}
    return {
        key: value
        for key, value in values.items()
        if type(defaults.get(key)) in (*PLAIN, type(None)) or defaults.get(key) != value
    }


def _class(file: Path, name: str) -> type[Any]:
    cls = getattr(load_file(file), name, None)
    if not inspect.isclass(cls):
        known = ", ".join(model_names(file)) or "none"
        raise NotFound(f"{file} has no class {name}; models in it: {known}")
    return cls


def class_facts(file: Path, name: str) -> ClassFacts:
    """Return what a class itself says; its file is imported, and nothing constructed."""
    cls = _class(file, name)
    parameters = inspect.signature(cls).parameters.values()
    keywords = [p for p in parameters if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)]
    try:
        line = inspect.getsourcelines(cls)[1]
    except (OSError, TypeError):  # made by a function
        line = 1
    return ClassFacts(
        line=line,
        methods=frozenset(key for key in ("load", "invoke", "bucket") if callable(getattr(cls, key, None))),
        modality_in=_plain(getattr(cls, "modality_in", None)),
        modality_out=_plain(getattr(cls, "modality_out", None)),
        batch_size=int(getattr(cls, "batch_size", BATCH_SIZE)),
        required=tuple(p.name for p in keywords if p.default is p.empty),
        optional=tuple(p.name for p in keywords if p.default is not p.empty),
        defaults={p.name: _plain(p.default) for p in parameters if isinstance(p.default, PLAIN)},
        takes_any=any(p.kind is p.VAR_KEYWORD for p in parameters),
    )


def _plain(value: Any) -> Any:
    """A value without classes of the user's, which this side alone knows; None for what is not plain."""
    if isinstance(value, bool):
        return value
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int.__int__(value)
    return float.__float__(value) if isinstance(value, float) else None


class Asked:
    """A process that runs a user's file in place of this one; it ends when nobody refers to it any more."""

    def __init__(self, timeout_s: float = ANSWER_S) -> None:
        ours, theirs = Pipe()
        self._process = subprocess.Popen(
            python("panic.models.python_running:answer", str(theirs.fileno())),
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            env={name: value for name, value in os.environ.items() if name not in _hidden},
            start_new_session=True,
        )
        theirs.close()
        self._connection, self._timeout_s = ours, timeout_s
        self.close = weakref.finalize(self, _end, self._process, ours)

    def facts(self, file: Path, name: str) -> ClassFacts:
        """Ask what the class itself says. Raises ModelError, also if no answer comes in time, or NotFound."""
        facts: ClassFacts = self._ask(f"{file}: {name}", "facts", file, name)
        return facts

    def bucket(self, spec: ModelSpec, item: Any) -> int:
        """Ask the `bucket` of a model, which is constructed once, at the first question."""
        return int(self._ask(spec.source.removeprefix("python:"), "bucket", spec, item))

    def _ask(self, whom: str, *question: Any) -> Any:
        try:
            self._connection.send(question)
            if not self._connection.poll(self._timeout_s):
                self.close()
                raise ModelError(
                    f"{whom} has not answered within {self._timeout_s:g} s, in a process of its own",
                    hint="what the file does when it is imported takes too long",
                )
            answer = self._connection.recv()
        except (EOFError, OSError) as error:
            self.close()
            raise ModelError(
                f"{whom}: the process that imported its file has ended without a word"
            ) from error
        if isinstance(answer, PanicError):
            raise answer
        return answer


def ask(file: Path, name: str, timeout_s: float = ANSWER_S) -> ClassFacts:
    """Ask what a class says about itself, in a process that ends at once. Raises ModelError, NotFound."""
    asked = Asked(timeout_s)
    try:
        return asked.facts(file, name)
    finally:
        asked.close()


def _end(process: subprocess.Popen[bytes], connection: Connection[Any, Any]) -> None:
    """End a process with all that it has started."""
    connection.close()
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def answer(handle: str) -> None:
    """Answer questions until the other side is gone: all that such a process does.

    handle: the number of its end of the pipe.
    """
    lose_unread()
    connection: Connection[Any, Any] = Connection(int(handle))
    models: dict[str, Any] = {}
    while True:
        try:
            question, *about = connection.recv()
        except EOFError:
            return
        try:
            connection.send(_answer(models, question, about))
        except PanicError as error:
            connection.send(error)
        except Exception as error:
            connection.send(ModelError(f"{type(error).__name__}: {error}"))


def _answer(models: dict[str, Any], question: str, about: list[Any]) -> Any:
    if question == "facts":
        return class_facts(*about)
    spec, item = about
    if spec.name not in models:
        models[spec.name] = build(spec)
    return int(models[spec.name].bucket(item))
