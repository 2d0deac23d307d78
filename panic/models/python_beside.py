"""What a user's file imports from its own folder is that folder's: two users' `utils.py` are two modules.

The files of a folder are modules of a package of its own. Their import statements, at the top or in a
function, look there for what no library is called: each such module has an `__import__` of its own among its
builtins, and nothing changes for other modules. A name that is no import statement (in a pickle, in
`import_module`) is looked for in all users' folders, last.

    module = run_file(Path("/home/ada/shout.py"), "shout_1")
"""

from __future__ import annotations

import builtins
import hashlib
import importlib.util
import sys
from collections.abc import Mapping, Sequence
from functools import cache, partial
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

_folders: dict[str, Path] = {}
"""Users' folders by the names of their packages."""


def run_file(file: Path, name: str) -> ModuleType:
    """Run a file, told by its absolute path, as a module of this name in the package of its folder.

    It is in `sys.modules`, unless it raises something, which passes as it is.
    """
    name = f"{_package(file.parent)}.{name}"
    spec = importlib.util.spec_from_file_location(name, file, loader=_Loader(name, str(file)))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # pickling and dataclasses look classes up by their module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _package(folder: Path) -> str:
    """The name of a folder's package, which is there from now on."""
    name = f"panic_user_{hashlib.sha256(str(folder).encode()).hexdigest()[:12]}"
    if name not in _folders:
        _folders[name] = folder
        package = ModuleType(name)
        package.__path__ = [str(folder)]
        sys.modules[name] = package
        if _Finder not in sys.meta_path:
            sys.meta_path.insert(0, _Finder)
        if str(folder) not in sys.path:
            sys.path.append(str(folder))
    return name


class _Loader(SourceFileLoader):
    """Runs a file of a user's folder with builtins of its own."""

    def exec_module(self, module: ModuleType) -> None:
        own = partial(_import, module.__name__.partition(".")[0])
        module.__dict__["__builtins__"] = {**vars(builtins), "__import__": own}
        super().exec_module(module)


class _Finder:
    """Finds the modules of users' packages."""

    @staticmethod
    def find_spec(
        name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name.partition(".")[0] not in _folders:
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _Loader(spec.loader.name, spec.loader.path)
        return spec


def _import(
    package: str,
    name: str,
    globals: Mapping[str, Any] | None = None,
    locals: Mapping[str, Any] | None = None,
    fromlist: Sequence[str] | None = (),
    level: int = 0,
) -> ModuleType:
    """What `__import__` is to the modules of a user's package."""
    top = name.partition(".")[0]
    if level or not _is_beside(package, top):
        return builtins.__import__(name, globals, locals, fromlist, level)
    module = builtins.__import__(f"{package}.{name}", globals, locals, fromlist, 0)
    return module if fromlist else sys.modules[f"{package}.{top}"]


@cache
def _is_beside(package: str, top: str) -> bool:
    """Whether a name is that of a module in the package's folder, and of none in a library."""
    if PathFinder.find_spec(top, [str(_folders[package])]) is None:
        return False
    found = (finder.find_spec(top, None) for finder in sys.meta_path if hasattr(finder, "find_spec"))
    spec = next(filter(None, found), None)
    if spec is None:
        return True
    places = [Path(place) for place in spec.submodule_search_locations or [spec.origin or ""]]
    return all(place.parent in _folders.values() for place in places)
