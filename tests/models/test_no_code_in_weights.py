"""Weights are data: a pickle that would run code is refused, and code beside weights is never asked for."""

from __future__ import annotations

import ast
import os
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

import panic
from panic.errors import PanicError
from panic.models import registry

SOURCES = sorted(Path(panic.__file__).parent.rglob("*.py"))
BETWEEN_PROCESSES = {"channel.py", "ray_cluster.py", "ray_place.py", "ray_worker.py"}
"""What the driver and its processes or actors say to each other; Ray itself pickles what passes there."""


class Evil:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.mark),)


@cache
def calls() -> list[tuple[str, ast.Call]]:
    """All calls, each with the name of its module."""
    trees = [(path.name, ast.parse(path.read_text())) for path in SOURCES]
    return [(name, node) for name, tree in trees for node in ast.walk(tree) if isinstance(node, ast.Call)]


def test_torch_load_reads_weights_only_and_nobody_trusts_remote_code() -> None:
    loads = [call for _, call in calls() if ast.unparse(call.func) == "torch.load"]
    assert loads
    for call in loads:
        assert any(k.arg == "weights_only" and ast.unparse(k.value) == "True" for k in call.keywords)
    names = {keyword.arg for _, call in calls() for keyword in call.keywords}
    assert not names & {"trust_remote_code", "custom_pipeline"}
    pickled = {
        name for name, call in calls() if ast.unparse(call.func).startswith(("pickle.load", "joblib.load"))
    }
    assert pickled <= BETWEEN_PROCESSES


@pytest.mark.parametrize("kind", ["blip", "clip", "dinov2", "stable-diffusion"])
def test_a_pickle_that_runs_code_is_refused(
    folder_of: Callable[..., Path], tmp_path: Path, kind: str
) -> None:
    folder = shutil.copytree(folder_of(kind), tmp_path / "model")
    for file in folder.rglob("*.safetensors"):
        name = "diffusion_pytorch_model.bin" if file.name.startswith("diffusion") else "pytorch_model.bin"
        torch.save({"weight": Evil(tmp_path / "ran")}, file.with_name(name))
        file.unlink()
    model = registry.build(registry.resolve(f"local:{folder}"))
    with pytest.raises(PanicError):
        model.load("cpu")
    assert not (tmp_path / "ran").exists()


def test_the_pickle_of_that_test_does_run_where_it_is_trusted(tmp_path: Path) -> None:
    torch.save({"weight": Evil(tmp_path / "ran")}, tmp_path / "x.bin")
    torch.load(tmp_path / "x.bin", weights_only=False)
    assert (tmp_path / "ran").exists()
