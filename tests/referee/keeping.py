"""What was ruled of a replicate is kept in a file, so that a count of hours goes on where it was ended."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from panic.errors import UsageError
from tests.referee.rulings import Ruling

Ruled = list[tuple[str, Ruling]]
ROOT = Path(__file__).parents[2]
JUDGED = ("panic", "tests/referee")


def code() -> str:
    """Digest of what is counted and of what counts it: the sources of panic and of the referee."""
    digest = hashlib.sha256()
    for folder in JUDGED:
        for path in sorted((ROOT / folder).rglob("*.py")):
            digest.update(f"{path.relative_to(ROOT)}\n".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


class Kept:
    """Rulings by (design, replicate, whether every question was asked), one JSON line each in a file.

    Those of earlier code count, too; `versions` has the digests of all code whose rulings were asked for.
    Raises UsageError for a file of something else, which stays as it is, or of a count that is under way.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.versions: set[str] = set()
        self._code = code()
        self._file = None if path is None else path.open("a+b")
        self._lines: dict[tuple[str, int, bool], tuple[str, Ruled]] = {}
        if self._file is not None:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise UsageError(f"{path}: another count is under way there.") from error
            self._file.seek(0)
            whole, line_end, torn = self._file.read().rpartition(b"\n")  # a kill may have torn the last line
            try:
                for line in map(json.loads, whole.splitlines()):
                    ruled = [(question, Ruling(**ruling)) for question, ruling in line["rulings"]]
                    self._lines[line["design"], line["replicate"], line["is_whole"]] = line["code"], ruled
                if torn and not torn.startswith(b'{"code": '):
                    raise ValueError("its last line is of something else")
            except (KeyError, TypeError, ValueError) as error:
                raise UsageError(f"{path} holds no rulings of this version: {error}") from error
            os.truncate(self._file.fileno(), len(whole + line_end))

    def get(self, design: str, replicate: int, is_whole: bool) -> Ruled | None:
        """What was ruled, or None."""
        if (known := self._lines.get((design, replicate, is_whole))) is None:
            return None
        self.versions.add(known[0])
        return known[1]

    def add(self, design: str, replicate: int, is_whole: bool, ruled: Ruled) -> None:
        """Keep what was ruled just now."""
        self.versions.add(self._code)
        if self._file is None:
            return
        line = {
            "code": self._code, "design": design, "replicate": replicate, "is_whole": is_whole,
            "rulings": [(question, asdict(ruling)) for question, ruling in ruled],
        }  # fmt: skip
        self._file.write(json.dumps(line, default=_plain).encode() + b"\n")
        self._file.flush()


def _plain(value: Any) -> Any:
    """A number of NumPy as one of Python."""
    return value.item()
