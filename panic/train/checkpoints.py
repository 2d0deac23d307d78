"""Checkpoints of a training: written whole or not at all, the last few and the best one kept.

<output>.training/recipe.json            what the checkpoints are of
<output>.training/step-00001000.pt       the last `keep_last`
<output>.training/best.pt                the one with the lowest validation loss, and best.json its score
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
from pathlib import Path
from typing import Any

import torch

from panic.errors import ConflictError, PanicError


class Checkpoints:
    """The checkpoints in a folder, all of one recipe (`panic.train.config.recipe`, and what the data are).

    Several processes read them, the one that `is_writer` writes. Raises PanicError if what they are of, or
    how good the best one is, is damaged, ConflictError if those that are there are of another recipe.
    """

    def __init__(
        self, folder: Path, recipe: dict[str, Any], *, keep_last: int, is_writer: bool = True
    ) -> None:
        self.folder, self.keep_last, self.is_writer = folder, keep_last, is_writer
        path = folder / "recipe.json"
        if path.exists():
            _refuse_difference(_saved_recipe(path), recipe, folder)
        elif is_writer:
            folder.mkdir(parents=True, exist_ok=True)
            _write_text(path, json.dumps(recipe, indent=2, sort_keys=True) + "\n")
        self._kept_at = self._place()
        self._lowest()

    def latest(self) -> dict[str, Any] | None:
        """The newest checkpoint, or None."""
        found = self._all()
        return read(found[-1]) if found else None

    def best(self) -> dict[str, Any] | None:
        """The checkpoint with the lowest validation loss, or None."""
        path = self.folder / "best.pt"
        return read(path) if path.exists() else None

    def save(self, state: dict[str, Any], step: int, score: float | None = None) -> None:
        """Write a checkpoint; with a validation loss (`score`) it may become the best.

        Raises PanicError where the folder has gone or is another one, or the file cannot be written.
        """
        if not self.is_writer:
            return
        self.require_in_place()
        path = self.folder / f"step-{step:08d}.pt"
        partial = path.with_suffix(".partial")
        try:
            torch.save(state, partial)
        except torch.OutOfMemoryError:
            partial.unlink(missing_ok=True)
            raise
        except RuntimeError as error:  # what torch makes of a full disk
            partial.unlink(missing_ok=True)
            raise PanicError(
                f"{path} cannot be written ({str(error).split(chr(10), 1)[0]}).",
                hint="Is the disk full? The checkpoints before it are kept, and the same command goes on.",
            ) from error
        partial.replace(path)
        if score is not None and score < self._lowest():
            _link(path, self.folder / "best.pt")
            _write_text(self.folder / "best.json", json.dumps({"step": step, "loss": score}) + "\n")
        for old in self._all()[: -self.keep_last]:
            old.unlink()

    def require_in_place(self) -> None:
        """Raise PanicError, in the process that writes, where the folder has gone or is another one."""
        if self.is_writer and (self._kept_at is None or self._place() != self._kept_at):
            raise PanicError(
                f"{self.folder} was removed or replaced during the training.",
                hint="Put it back if you moved it, and run the same command again.",
            )

    def _place(self) -> tuple[int, int, int] | None:
        """Which recipe.json is there: device, number and time (numbers are given again); None for none."""
        try:
            about = (self.folder / "recipe.json").stat()
        except OSError:
            return None
        return about.st_dev, about.st_ino, about.st_mtime_ns

    def _all(self) -> list[Path]:
        return sorted(self.folder.glob("step-*.pt"))

    def _lowest(self) -> float:
        path = self.folder / "best.json"
        if not path.exists():
            return float("inf")
        with contextlib.suppress(ValueError, KeyError, TypeError, OverflowError, RecursionError):
            if math.isfinite(loss := float(json.loads(path.read_bytes())["loss"])):
                return loss
        raise PanicError(
            f"{path}: how good the best checkpoint is cannot be read.",
            hint="Move it and best.pt away, and the next evaluation is the best one.",
        )


def read(path: Path) -> dict[str, Any]:
    """A checkpoint's state, on the CPU.

    Raises PanicError if the file is damaged.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises whatever its unpickler met
        raise PanicError(
            f"{path}: this checkpoint cannot be read ({type(error).__name__})",
            hint="Delete it to go on from the one before.",
        ) from error
    return state


def _saved_recipe(path: Path) -> dict[str, Any]:
    try:
        saved = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        saved = None
    if not isinstance(saved, dict):
        raise PanicError(
            f"{path}: what the checkpoints beside it are of cannot be read.",
            hint="Choose another output, or delete that folder to begin anew.",
        )
    return saved


def _refuse_difference(saved: dict[str, Any], mine: dict[str, Any], folder: Path) -> None:
    differing = sorted(key for key in saved.keys() | mine.keys() if saved.get(key) != mine.get(key))
    if differing:
        lines = [f"  {key}: {_said(saved, key)} then, {_said(mine, key)} now" for key in differing]
        raise ConflictError(
            "\n".join([f"{folder} has checkpoints of another recipe:", *lines]),
            hint="Choose another output, or delete that folder to begin anew.",
        )


def _said(recipe: dict[str, Any], key: str) -> str:
    return repr(recipe[key]) if key in recipe else "the default"


def _link(path: Path, other: Path) -> None:
    """Make `other` the same file as `path`; a copy where the file system has no links."""
    partial = other.with_name(other.name + ".partial")
    partial.unlink(missing_ok=True)
    try:
        os.link(path, partial)
    except OSError:
        shutil.copyfile(path, partial)
    partial.replace(other)


def _write_text(path: Path, text: str) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text)
    partial.replace(path)
