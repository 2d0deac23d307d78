"""A store that the real `panic run` has filled once, and a way to call the command line in this process."""

from __future__ import annotations

import os
import select
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from panic.cli.app import app
from panic.store import Store
from tests.patience import LONGEST_S
from tests.store.sample import fill

CONFIG = """\
name: {name}
project: colours
networks: [[draw, chain]]
models:
  draw: {{base: synthetic/text-to-image, states: 5, size: 32, delay_s: {delay_s}}}
  chain: {{base: synthetic/image-to-text, states: 5, kernel: cycle, epsilon: 0.3, fail_at: {fail_at}}}
  circle: {{base: synthetic/state-embedding, states: 5}}
prompts: {prompts}
seeds: [7, -1]
repeats: 2
max_length: {max_length}
embeddings: [circle]
{diagrams}
device: cpu
executor: local
"""
ROOT = Path(__file__).parents[2]
DIAGRAMS = "diagrams: {max_dimension: 1, modality: text}"
Invoke = Callable[..., Result]
SLOWED = """\
import time
from pathlib import Path
from panic.models.synthetic import TextToImage


class Draw:
    modality_in = "text"
    modality_out = "image"
    size_bytes = 0
    batch_size = 8

    def load(self, device):
        self.model = TextToImage(states=5, size=32)
        self.num_calls = 0

    def invoke(self, inputs, seeds):
        self.num_calls += 1
        if self.num_calls > 6 and not Path("go").exists():
            time.sleep(1)
        return self.model.invoke(inputs, seeds)
"""
"""A model that takes a second for every further call until there is a file `go`: what calls it can be
interrupted in the middle however late the signal comes, and is through at once afterwards."""


def write_config(folder: Path, name: str = "demo", **changes: Any) -> Path:
    """A config of the synthetic pair: 2 prompts x (1 fixed + 2 fresh seeds) = 6 runs of 8 steps."""
    values = {"delay_s": 0.0, "max_length": 8, "prompts": ["state 0", "state 3"], "fail_at": "null"}
    path = folder / f"{name}.yaml"
    path.write_text(CONFIG.format(**({"name": name, "diagrams": ""} | values | changes)))
    return path


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test works in a folder of its own, without the user's settings."""
    for name in [name for name in os.environ if name.startswith("PANIC_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "user"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.chdir(tmp_path)


def call(*arguments: object, **options: Any) -> Result:
    """The command line in this process; what escapes it is a failure of the test."""
    before = dict(os.environ)
    try:
        return CliRunner().invoke(app, [str(argument) for argument in arguments], **options)
    finally:
        os.environ.clear()
        os.environ.update(before)


def write_slowed(folder: Path, name: str = "demo", **changes: Any) -> Path:
    """Such a config, with `SLOWED` as what draws."""
    (folder / "slowed.py").write_text(SLOWED)
    path = write_config(folder, name, **changes)
    lines = path.read_text().splitlines(keepends=True)
    [place] = [number for number, line in enumerate(lines) if line.startswith("  draw: ")]
    lines[place] = '  draw: {base: "python:slowed.py:Draw"}\n'
    path.write_text("".join(lines))
    return path


def read_terminal(ours: int, hear: Callable[[bytes], None] = lambda seen: None) -> bytes:
    """All that comes out of a terminal until nobody holds its other end; `hear` is told what came so far."""
    seen = b""
    try:
        while select.select([ours], [], [], LONGEST_S)[0] and (part := os.read(ours, 65536)):
            seen += part
            hear(seen)
    except OSError:  # Linux says so when the other end is closed
        pass
    finally:
        os.close(ours)
    return seen


@pytest.fixture
def panic() -> Invoke:
    return call


@pytest.fixture(scope="session")
def performed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with two experiments: `demo`, complete with diagrams, and `broken`, where runs have failed."""
    folder = tmp_path_factory.mktemp("performed")
    store = folder / "panic-store"
    done = call("run", write_config(folder, diagrams=DIAGRAMS), "--store", store)
    assert done.exit_code == 0, done.output
    failed = call("run", write_config(folder, "broken", fail_at=1), "--store", store)
    assert failed.exit_code == 1, failed.output
    return store


@pytest.fixture
def store(performed: Path, tmp_path: Path) -> Path:
    """A copy of that store, at ./panic-store of the test's folder."""
    copy = tmp_path / "panic-store"
    shutil.copytree(performed, copy)
    return copy


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """Two experiments of one project, written without an engine; the vectors of `alpha` are by `beta`."""
    path = tmp_path / "panic-store"
    with Store(path, write=True, create=True) as opened:
        fill(opened)
        with opened.transaction() as connection:
            connection.execute("UPDATE experiment SET config = json_set(config, '$.project', 'colours')")
    return path
