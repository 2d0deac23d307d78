"""The rules of the house that can be read from the source: who imports whom, how long a module may be,
what `panic --help` may load."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "panic"
MODULES = sorted(PACKAGE.rglob("*.py"))
MAX_LINES = 600
MODULE_NAME = re.compile(r"panic(\.\w+)+(:\w+)?")

BASE = {"arms", "config", "errors"}
MAY_IMPORT = {
    "errors": set(),
    "arms": set(),
    "config": {"arms", "errors"},
    "store": BASE,
    "topology": BASE,
    "pocket": BASE,
    "models": BASE | {"processes", "pocket"},
    "devices": {"errors", "models.protocol"},
    "interrupts": set(),
    "processes": set(),
    "engine": BASE | {"interrupts", "processes", "store", "topology", "models", "pocket", "devices"},
    "analysis": BASE | {"store", "topology", "models"},
    "extraction": BASE | {"models", "devices", "engine"},
    "cluster": {"errors", "interrupts"},
    "train": BASE | {"interrupts", "models", "pocket"},
}
ANYTHING = {"__init__", "__main__", "cli", "view"}
HEAVY = {
    "torch",
    "transformers",
    "diffusers",
    "accelerate",
    "altair",
    "polars",
    "numpy",
    "scipy",
    "sklearn",
    "PIL",
    "gph",
}


def imports(source: str, package: str) -> Iterator[str]:
    """All modules of ours that a source imports, anywhere in it, as dotted names without "panic."."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parents, *([base] if base else [])])
            names = [f"{base}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            if name == "panic" or name.startswith("panic."):
                yield name.removeprefix("panic").removeprefix(".")


def forbidden(room: str, source: str, package: str = "panic") -> list[str]:
    """The imports in a source of this room that the house plan does not allow."""
    if room in ANYTHING:
        return []
    allowed = MAY_IMPORT[room] | {room}
    return [
        name
        for name in imports(source, package)
        if not any(name == other or name.startswith(f"{other}.") for other in allowed)
    ]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_modules_import_only_what_their_room_may_and_stay_short(path: Path) -> None:
    inside = path.relative_to(PACKAGE)
    package = ".".join(["panic", *inside.parts[:-1]])
    source = path.read_text()
    room = "__main__" if inside.name == "__main__.py" else inside.parts[0].removesuffix(".py")
    assert forbidden(room, source, package) == []
    assert len(source.splitlines()) <= MAX_LINES


STRINGS = {
    "__init__": {
        "panic.store",
        "panic.store.reading",
        "panic.analysis.measured",
        "panic.engine.plan",
        "panic.engine.perform",
    },
    "engine": {
        "panic.engine.child:main",
        "panic.engine.notices",
        "panic.engine.pool:serve_connection",
        "panic.engine.process_worker:serve_connection",
    },
    "models": {"panic.models", "panic.models.python_running:answer"},
    "analysis": {"panic.analysis.checks", "panic.analysis.data"}
    | {"panic.questions", "panic.nulls"},  # groups of entry points
    "cli": {"panic.questions", "panic.toml"},  # that group again, for completion; a file
    "store": {"panic.store"},
    "view": {"panic.view.worker", "panic.view.shrinking"},
}
"""Names of ours in texts, by room: what is imported, or started as a process, by its name."""
LOGGERS = {
    "panic",
    "panic.engine",
    "panic.models",
    "panic.devices",
    "panic.store",
    "panic.cli",
    "panic.analysis",
    "panic.topology",
}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_names_of_modules_in_texts_are_listed(path: Path) -> None:
    room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    known = STRINGS.get(room, set()) | LOGGERS | {"panic.train"}
    texts = (node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant))
    found = {text for text in texts if isinstance(text, str) and MODULE_NAME.fullmatch(text)}
    assert found <= known


def test_the_import_rule_can_fail() -> None:
    assert forbidden("store", "def f():\n    from panic.engine import x") == ["engine.x"]
    assert forbidden("store", "from ..models import y", "panic.store") == ["models.y"]
    assert forbidden("devices", "from panic.models.table import t") == ["models.table.t"]
    assert forbidden("engine", "from panic import Store") == ["Store"]
    assert (
        forbidden("devices", "from panic.models.protocol import Model\nfrom .cache import a", "panic.devices")
        == []
    )


SQL = re.compile(r"\s*(SELECT|INSERT|UPDATE|DELETE|WITH)\s")


def sql(source: str) -> list[str]:
    """The string literals in a source that begin like SQL; docstrings and parts of f-strings, too."""
    texts = [node.value for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Constant)]
    return [text for text in texts if isinstance(text, str) and SQL.match(text)]


def test_there_is_no_sql_outside_the_store() -> None:
    inside = {str(path.relative_to(PACKAGE)): path for path in MODULES}
    found = {name for name, path in inside.items() if not name.startswith("store/") and sql(path.read_text())}
    assert found == set()


def test_the_rule_on_sql_can_fail() -> None:
    assert sql('rows = db.rows(f"SELECT id FROM run {where}")') == ["SELECT id FROM run "]
    assert sql('"""\n  DELETE FROM run"""') == ["\n  DELETE FROM run"]
    assert sql('"Select a run, with care"') == []


def loaded_by(code: str) -> set[str]:
    """The heavy packages that are loaded after running this code in a fresh interpreter."""
    code += "\nimport sys\nprint('\\n' + ' '.join({name.split('.')[0] for name in sys.modules}))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=250, check=True
    )
    return HEAVY & set(done.stdout.splitlines()[-1].split())


def test_importing_panic_loads_nothing_heavy() -> None:
    assert loaded_by("import panic") == set()


def test_help_loads_nothing_heavy() -> None:
    code = """
import sys
from panic.cli import main
sys.argv = ["panic", "--help"]
try:
    main()
except SystemExit as end:
    assert not end.code
"""
    assert loaded_by(code) == set()
