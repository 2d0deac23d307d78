"""What was ruled of a replicate is kept in a file, so that a count of hours goes on where it was ended."""

from __future__ import annotations

import hashlib
import json
from dataclasses import astuple, fields
from functools import cache
from pathlib import Path
from typing import Any

from tests.referee.rulings import Ruling

Ruled = list[tuple[str, Ruling]]
ROOT = Path(__file__).parents[2]
FIELDS = [one.name for one in fields(Ruling)]
JUDGED = ("panic/analysis", "tests/referee")


@cache
def code() -> str:
    """Digest of what is counted and of what counts it: the sources of the analysis and of the referee."""
    digest = hashlib.sha256()
    for folder in JUDGED:
        for path in sorted((ROOT / folder).rglob("*.py")):
            digest.update(f"{path.relative_to(ROOT)}\n".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


class Kept:
    """Rulings by (design, replicate, whether every question was asked), one JSON line each in a file.

    Those of earlier code count, too; `versions` has the digests of all code whose rulings were asked for.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.versions: set[str] = set()
        self._path = path
        self._lines: dict[tuple[str, int, bool], dict[str, Any]] = {}
        if path is not None and path.exists():
            whole, line_end, _ = path.read_bytes().rpartition(b"\n")  # a kill may have torn the last line
            path.write_bytes(whole + line_end)
            for line in map(json.loads, whole.splitlines()):
                self._lines[line["design"], line["replicate"], line["is_whole"]] = line

    def get(self, design: str, replicate: int, is_whole: bool) -> Ruled | None:
        """What was ruled, or None."""
        if (line := self._lines.get((design, replicate, is_whole))) is None:
            return None
        self.versions.add(line["code"])
        return [
            (question, Ruling(**dict(zip(FIELDS, values, strict=True))))
            for question, *values in line["rulings"]
        ]

    def add(self, design: str, replicate: int, is_whole: bool, ruled: Ruled) -> None:
        """Keep what was ruled just now."""
        self.versions.add(code())
        if self._path is None:
            return
        line = {
            "code": code(), "design": design, "replicate": replicate, "is_whole": is_whole,
            "rulings": [(question, *astuple(ruling)) for question, ruling in ruled],
        }  # fmt: skip
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, default=lambda value: value.item()) + "\n")  # NumPy's numbers


def _ruling(values: list[Any]) -> Ruling:
    return Ruling(**dict(zip(FIELDS, values, strict=True)))
