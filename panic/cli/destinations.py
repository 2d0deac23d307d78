"""Files and folders that results are written to: what is refused, what is made.

What is there already is overwritten with --force only, except for the report that panic keeps in the store.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from panic.errors import UsageError

REPORT_MARK = b'<meta name="generator" content="panic">'
"""It stands near the beginning of every report."""

ForceOption = Annotated[bool, typer.Option("--force", "-f", help="Overwrite what is there already.")]


def claim_file(path: Path, *, force: bool) -> None:
    """Make the folder of a file that is to be written. Raises UsageError if it may not be."""
    if path.is_dir():
        raise UsageError(f"{path} is a folder; the name of a file is needed.")
    if path.exists() and not force:
        raise UsageError(f"{path} is there already.", hint="--force overwrites it.")
    path.parent.mkdir(parents=True, exist_ok=True)


def claim_report(folder: Path, name: str) -> Path:
    """The file of a report in a store's folder of them, which is written anew every time.

    Raises UsageError for a link, or for a file that panic did not write.
    """
    file = folder / name
    if file.is_symlink() or (file.exists() and REPORT_MARK not in _beginning(file)):
        raise UsageError(
            f"{file} is there already, and is no report of panic.", hint="Name another with --output FILE."
        )
    return file


def _beginning(file: Path) -> bytes:
    if not file.is_file():
        return b""
    with file.open("rb") as opened:
        return opened.read(1000)


def claim_folder(path: Path, *, force: bool) -> None:
    """Make a folder for several files. Raises UsageError if there are other things in it."""
    if path.exists() and not path.is_dir():
        raise UsageError(f"{path} is a file; a folder is needed.")
    if path.is_dir() and any(path.iterdir()) and not force:
        raise UsageError(f"{path} is not empty.", hint="Name another folder; --force overwrites its files.")
    path.mkdir(parents=True, exist_ok=True)
