"""What a training writes down: losses, evaluations with samples, and where the time goes.

loss.csv         step, loss, log_loss, learning_rate
evaluation.csv   step and the figures of the averaged weights on validation items
profile.csv      step, seconds per step and part, peak memory
samples/         a grid of images or a text per evaluation
"""

from __future__ import annotations

import csv
import math
import resource
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from panic.errors import PanicError

PARTS = ("data", "forward", "backward", "optimise", "evaluate", "save")


class Profile:
    """Seconds per part since the last row, and peak memory."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._seconds: dict[str, float] = defaultdict(float)
        self._steps, self._started = 0, time.perf_counter()

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count the seconds inside as `name`; on a GPU those of its launched work, too."""
        started = time.perf_counter()
        yield
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self._seconds[name] += time.perf_counter() - started

    def count(self) -> None:
        """Count a step that is done."""
        self._steps += 1

    def per_step(self) -> float:
        """Wall seconds per step since the last row."""
        return (time.perf_counter() - self._started) / max(1, self._steps)

    def row(self) -> dict[str, float]:
        """Seconds per step of each part, wall seconds, peak memory in MiB. `restart` begins the next row."""
        seconds = {f"{name}_s": round(self._seconds[name] / max(1, self._steps), 5) for name in PARTS}
        return {"wall_s": round(self.per_step(), 5)} | seconds | {"peak_mib": round(self._peak_mib(), 1)}

    def restart(self) -> None:
        """Begin the next row."""
        self._seconds.clear()
        self._steps, self._started = 0, time.perf_counter()

    def _peak_mib(self) -> float:
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) / 2**20
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / (2**20 if sys.platform == "darwin" else 2**10)


class Journal:
    """The files of a training's folder; processes that are not the main one write nothing."""

    def __init__(self, folder: Path, is_writer: bool) -> None:
        self.folder, self.is_writer = folder, is_writer

    def forget_after(self, step: int) -> None:
        """Leave out what was written after the step that training goes on from."""
        if not self.is_writer:
            return
        for path in (self.folder / f"{name}.csv" for name in ("loss", "evaluation", "profile")):
            if not path.exists():
                continue
            try:
                with path.open(newline="", errors="replace") as file:
                    header, *rows = list(csv.reader(file)) or [[]]
            except csv.Error as error:
                raise PanicError(f"{path} is no CSV file: {error}", hint="Move it away to go on.") from error
            longest = len(str(step))
            kept = [row for row in rows if row and row[0].isdecimal() and len(row[0]) <= longest]
            kept = [row for row in kept if int(row[0]) <= step]
            partial = path.with_suffix(".partial")
            with partial.open("w", newline="") as file:
                csv.writer(file).writerows([header, *kept])
            partial.replace(path)

    def loss(self, step: int, loss: float, learning_rate: float) -> None:
        """Write a row of loss.csv."""
        log_loss = math.log10(loss) if loss > 0 else -math.inf
        self._append(
            "loss",
            {
                "step": step,
                "loss": f"{loss:.6g}",
                "log_loss": f"{log_loss:.4f}",
                "learning_rate": f"{learning_rate:.3g}",
            },
        )

    def profile(self, step: int, profile: Profile) -> None:
        """Write a row of profile.csv."""
        self._append("profile", {"step": step} | profile.row())

    def evaluation(self, step: int, measures: Mapping[str, float], samples: Any) -> None:
        """Write a row of evaluation.csv, and the samples as an image or a text (None: nothing to look at)."""
        self._append("evaluation", {"step": step} | {key: f"{value:.6g}" for key, value in measures.items()})
        folder = self.folder / "samples"
        folder.mkdir(exist_ok=True)
        if isinstance(samples, str):
            (folder / f"{step:08d}.txt").write_text(samples, encoding="utf-8")
        elif samples is not None:
            samples.save(folder / f"{step:08d}.png")

    def _append(self, name: str, row: Mapping[str, Any]) -> None:
        if not self.is_writer:
            return
        path = self.folder / f"{name}.csv"
        is_new = not path.exists()
        with path.open("a", newline="") as file:
            writer = csv.writer(file)
            if is_new:
                writer.writerow(row.keys())
            writer.writerow(row.values())
