"""Main memory that this process may use: a container or a job of a cluster may have less than the machine.

Limits of Linux control groups, of versions 1 and 2, of the group and of all that it is in. Files that the
system keeps in memory count as used there, but are given up when memory is asked for: here they are free.

    limit_bytes(), free_bytes()     # None, None outside of any limit
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

VERSIONS = {
    2: ("", "memory.max", "memory.current", ("inactive_file", "active_file")),
    1: (
        "memory",
        "memory.limit_in_bytes",
        "memory.usage_in_bytes",
        ("total_inactive_file", "total_active_file"),
    ),
}
"""Each version has a folder below /sys/fs/cgroup, files of limit and usage, and lines of `memory.stat`."""
NO_LIMIT = 2**60
"""Version 1 says that there is none with a number of this size."""


def limit_bytes(root: Path = Path("/")) -> int | None:
    """Bytes of the smallest limit; None outside of any limit."""
    return min((limit for limit, _ in _limits(root)), default=None)


def free_bytes(root: Path = Path("/")) -> int | None:
    """Bytes that the fullest group has left; None outside of any limit."""
    return min((max(0, limit - used) for limit, used in _limits(root)), default=None)


def _limits(root: Path) -> list[tuple[int, int]]:
    """(limit, bytes used that cannot be had back) of every group with a limit."""
    found = []
    for version, path in _groups(root):
        folder, limit_file, usage_file, lines = VERSIONS[version]
        base = root / "sys/fs/cgroup" / folder
        for group in [base / path, *(base / path).parents]:
            limit, usage = _number(group / limit_file), _number(group / usage_file)
            if limit is not None and limit < NO_LIMIT and usage is not None:
                files = sum(_stat(group / "memory.stat", line) for line in lines)
                found.append((limit, max(0, usage - files)))
            if group == base:
                break
    return found


@cache
def _groups(root: Path) -> list[tuple[int, str]]:
    """(version, path) of the groups of this process that may limit its memory; asked once.

    In a container the path may be that of the machine, which cannot be seen there: then the root's files are
    the container's.
    """
    groups = []
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers or "memory" in controllers.split(","):
            groups.append((1 if controllers else 2, path.strip("/")))
    return groups or [(2, "")]


def _stat(path: Path, name: str) -> int:
    lines = dict(line.split(" ", 1) for line in _text(path).splitlines() if " " in line)
    return int(lines.get(name, "0"))


def _number(path: Path) -> int | None:
    text = _text(path).strip()
    return int(text) if text.isdigit() else None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return ""
