"""The rows of an import, in a temporary file: what is imported may be larger than the memory.

Of each run only the places of its rows are kept. The file has no name, and is gone when it is closed,
or nobody holds it.

    spool = Spool()
    spool.add(read_rows(path, columns, problems))
    for run, places in spool.runs.items():
        rows = list(spool.rows(places))
"""

from __future__ import annotations

import json
import os
import tempfile
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import fields
from typing import Any

from panic.engine.importing.rows import Row

_NAMES = tuple(field.name for field in fields(Row))


class Spool:
    """Rows by the name of their run; `runs` has the places of each, in the order of what is imported."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 (it lives as long as the spool)
        self.runs: dict[str, array[int]] = {}
        self.num_rows = 0

    def add(self, rows: Iterable[Row]) -> None:
        """Write rows behind those that are there."""
        place = self._file.seek(0, os.SEEK_END)
        for row in rows:
            self.runs.setdefault(row.run, array("q")).append(place)
            place += self._file.write(json.dumps([getattr(row, name) for name in _NAMES]).encode() + b"\n")
            self.num_rows += 1

    def rows(self, places: Iterable[int]) -> Iterator[Row]:
        """The rows at these places."""
        for place in places:
            self._file.seek(place)
            yield _row(json.loads(self._file.readline()))

    def close(self) -> None:
        """Give the file up; no row can be read any more."""
        self._file.close()


def _row(values: list[Any]) -> Row:
    named = dict(zip(_NAMES, values, strict=True))
    if named["network"] is not None:
        named["network"] = tuple(named["network"])
    return Row(**named)
