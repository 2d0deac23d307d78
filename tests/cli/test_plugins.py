"""A kind of model that another package adds: performed by the command line, in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from panic.store import Store, contents, reading
from tests.patience import LONGEST_S

ROOT = Path(__file__).parents[2]
CONFIG = """
name: plugged
networks: [[shuffled/words]]
prompts: [one two three]
seeds: [7]
max_length: 20
"""


def run(tmp_path: Path, *folders: Path) -> subprocess.CompletedProcess[str]:
    """Perform the config with these folders on Python's path, beside the package's own."""
    (tmp_path / "config.yaml").write_text(CONFIG)
    path = os.pathsep.join(map(str, [*folders, ROOT]))
    return subprocess.run(
        [sys.executable, "-P", "-m", "panic", "run", "config.yaml", "--store", "store", "--quiet"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=LONGEST_S,
    )


def test_an_added_kind_of_model_is_performed(tmp_path: Path) -> None:
    done = run(tmp_path, ROOT / "tests" / "plugins")
    assert done.returncode == 0, done.stderr
    with Store(tmp_path / "store") as store:
        (row,) = reading.runs(store)
        texts = [step.text for step in contents.invocations(store, row.id)]
        assert {tuple(sorted(text.split())) for text in texts} == {("one", "three", "two")}
        assert row.state == "stuck"  # a fixed permutation of three words comes back


def test_without_the_package_the_name_is_not_known(tmp_path: Path) -> None:
    done = run(tmp_path)
    assert done.returncode == 2
    assert "there is no model shuffled/words" in done.stderr
