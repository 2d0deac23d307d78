"""Every notebook runs top to bottom without a screen, on the demo and on the controls."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from panic import load_config, run

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "analysis").glob("*.py"))
NAMES = {"quickstart", "is_it_stuck", "topology", "controls", "compare_networks"}


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The demo, shortened, and the synthetic controls with several networks."""
    folder = tmp_path_factory.mktemp("notebooks")
    for name, changes in {"demo": ["max_length=16"], "synthetic": ["max_length=40"]}.items():
        run(load_config(ROOT / "configs" / f"{name}.yaml", overrides=changes), store=folder / name)
    return {name: folder / name for name in ("demo", "synthetic")}


def test_all_notebooks_are_there_and_say_how_to_open_them():
    assert {path.stem for path in NOTEBOOKS} == NAMES
    for path in NOTEBOOKS:
        source = path.read_text(encoding="utf-8")
        assert f"marimo edit analysis/{path.name}" in source
        assert 'if __name__ == "__main__":\n    app.run()' in source


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
@pytest.mark.parametrize("name", ["demo", "synthetic"])
def test_it_runs_top_to_bottom(path, name, stores):
    done = subprocess.run(
        [sys.executable, str(path)],
        env={**os.environ, "PANIC_STORE": str(stores[name]), "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert not re.search(r"Traceback|Error", done.stderr), done.stderr[-3000:]


@pytest.mark.slow
def test_a_notebook_without_a_store_fails_with_the_reason(tmp_path):
    done = subprocess.run(
        [sys.executable, str(ROOT / "analysis" / "quickstart.py")],
        env={**os.environ, "PANIC_STORE": str(tmp_path / "none"), "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode != 0
    assert "none" in done.stderr
