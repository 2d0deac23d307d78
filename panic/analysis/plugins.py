"""What other installed packages add to the analysis, found by the entry points in their metadata."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import metadata
from typing import Any

from panic.errors import UsageError


def added(group: str) -> Iterator[tuple[str, Any]]:
    """Names and objects that packages add to a group ("panic.questions", "panic.nulls"), by their names.

    UsageError, naming the entry point, for one that cannot be loaded.
    """
    for point in sorted(metadata.entry_points(group=group), key=lambda point: point.name):
        try:
            yield point.name, point.load()
        except Exception as error:  # whatever its import raises
            raise UsageError(f"{point.name} ({point.value}) of {group} cannot be loaded: {error}") from error
