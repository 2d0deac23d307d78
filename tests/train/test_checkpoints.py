"""Files beside checkpoints that are damaged: what is told, and what goes on."""

from __future__ import annotations

import resource
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from panic.errors import ConflictError, PanicError
from panic.train.checkpoints import Checkpoints
from panic.train.journal import Journal


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff", b"[" * 5000])
def test_a_damaged_recipe_is_told_with_its_file(tmp_path: Path, content: bytes) -> None:
    """It ended in a bare error of the reader of JSON."""
    (tmp_path / "recipe.json").write_bytes(content)
    with pytest.raises(PanicError, match=r"recipe\.json: what the checkpoints beside it are of") as told:
        Checkpoints(tmp_path, {"steps": 1}, keep_last=1)
    assert not isinstance(told.value, ConflictError)


@pytest.mark.parametrize(
    "content", [b"", b"[1]", b'{"loss": "low"}', b'{"loss": null}', b'{"loss": NaN}', b"\xff", b"[" * 5000]
)
def test_a_damaged_best_score_is_told_and_the_best_checkpoint_stays(tmp_path: Path, content: bytes) -> None:
    kept = Checkpoints(tmp_path, {"steps": 1}, keep_last=1)
    kept.save({"step": 3}, 3, score=0.5)
    kept.save({"step": 4}, 4, score=0.75)
    assert kept.best() == {"step": 3}
    (tmp_path / "best.json").write_bytes(content)
    with pytest.raises(PanicError, match=r"best\.json: how good the best checkpoint is"):
        Checkpoints(tmp_path, {"steps": 1}, keep_last=1)
    with pytest.raises(PanicError, match=r"best\.json"):
        kept.save({"step": 5}, 5, score=0.6)
    assert kept.best() == {"step": 3}
    assert kept.latest() == {"step": 5}


def test_a_damaged_journal_ends_a_training_with_an_answer(tmp_path: Path) -> None:
    (tmp_path / "loss.csv").write_bytes(b"step,loss\n1,\xff\n9,2\n")
    Journal(tmp_path, is_writer=True).forget_after(3)
    assert (tmp_path / "loss.csv").read_text() == "step,loss\n1,\ufffd\n"
    (tmp_path / "loss.csv").write_text("step,loss\n1," + "x" * 200_000)
    with pytest.raises(PanicError, match=r"loss\.csv is no CSV file"):
        Journal(tmp_path, is_writer=True).forget_after(3)


def test_a_folder_that_goes_during_a_training_is_told(tmp_path: Path) -> None:
    kept = Checkpoints(tmp_path / "m.training", {"steps": 1}, keep_last=1)
    kept.save({"step": 1}, 1)
    shutil.rmtree(tmp_path / "m.training")
    for _ in range(2):
        with pytest.raises(PanicError, match="was removed or replaced during the training"):
            kept.save({"step": 2}, 2)
        (tmp_path / "m.training").mkdir(exist_ok=True)
    assert list((tmp_path / "m.training").iterdir()) == []


@pytest.mark.parametrize("recipe", [{"steps": 1}, {"steps": 2}])
@pytest.mark.parametrize("go", [shutil.rmtree, lambda folder: folder.rename(folder.with_name("away"))])
def test_another_training_in_its_place_is_left_alone(
    tmp_path: Path, recipe: dict[str, int], go: Callable[[Path], None]
) -> None:
    folder = tmp_path / "m.training"
    kept = Checkpoints(folder, {"steps": 1}, keep_last=1)
    kept.save({"step": 1}, 1)
    go(folder)
    other = Checkpoints(folder, recipe, keep_last=1)
    with pytest.raises(PanicError, match="was removed or replaced during the training"):
        kept.save({"step": 5}, 5)
    other.save({"step": 2}, 2)
    assert [path.name for path in folder.glob("*.pt")] == ["step-00000002.pt"]


def test_a_training_that_is_moved_away_and_put_back_goes_on(tmp_path: Path) -> None:
    folder, away = tmp_path / "m.training", tmp_path / "away"
    kept = Checkpoints(folder, {"steps": 1}, keep_last=1)
    folder.rename(away)
    away.rename(folder)
    kept.save({"step": 1}, 1)
    assert kept.latest() == {"step": 1}


class Full:
    """No room on the device, when it is to be written."""

    def __reduce__(self) -> str:
        raise torch.OutOfMemoryError("CUDA out of memory.")


def test_a_device_without_room_is_not_taken_for_a_full_disk(tmp_path: Path) -> None:
    kept = Checkpoints(tmp_path / "m.training", {"steps": 1}, keep_last=1)
    with pytest.raises(torch.OutOfMemoryError):
        kept.save({"weights": Full()}, 1)
    assert [path.name for path in kept.folder.iterdir()] == ["recipe.json"]


def test_a_checkpoint_that_cannot_be_written_is_told_and_leaves_those_before(tmp_path: Path) -> None:
    """Torch raises a RuntimeError about its container where a disk is full, or a file may not grow."""
    kept = Checkpoints(tmp_path / "m.training", {"steps": 1}, keep_last=2)
    kept.save({"step": 1}, 1)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(PanicError, match=r"step-00000002\.pt cannot be written"):
            kept.save({"step": 2, "weights": torch.zeros(200_000)}, 2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert kept.latest() == {"step": 1}
    assert not list(kept.folder.glob("*.partial"))
