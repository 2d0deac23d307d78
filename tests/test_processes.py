"""Processes of ours find modules where this one does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from panic.processes import python


def test_what_python_ignores_on_its_path_harms_no_process(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A path that is no text ended every child with a NameError; the empty one is the working folder."""
    (tmp_path / "json.py").write_text("raise SystemExit('the working folder came first')\n")
    monkeypatch.setattr(sys, "path", ["", *sys.path, Path("src")])
    monkeypatch.chdir(tmp_path)
    done = subprocess.run(python("json:dumps", "text"), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
