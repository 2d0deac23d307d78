"""A model's folder is written whole or not at all."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from panic.errors import PanicError
from panic.train.saving import whole


def test_a_model_that_cannot_be_written_is_told_and_leaves_the_one_before(tmp_path: Path) -> None:
    """A full disk ended a training of hours in a bare error of safetensors, with half a model beside it."""
    with whole(tmp_path / "model") as folder:
        (folder / "config.json").write_text("{}")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(PanicError, match="model cannot be written"), whole(tmp_path / "model") as folder:
            save_file({"weights": torch.zeros(200_000)}, folder / "model.safetensors")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["config.json", "model"]


def test_another_error_is_what_it_is_and_leaves_nothing_either(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), whole(tmp_path / "model") as folder:
        raise ZeroDivisionError(folder.joinpath("part").touch())
    assert list(tmp_path.iterdir()) == []
