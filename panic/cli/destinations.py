"""Files and folders that results are written to: what is refused, what is made.

What is there already is overwritten with --force only, except for the report that panic keeps in the store.
A destination is claimed for as long as a block lasts: where that fails, what is new of it goes again.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated

import typer

from panic.errors import UsageError

REPORT_MARK = b'<meta name="generator" content="panic">'
"""It stands near the beginning of every report."""

ForceOption = Annotated[bool, typer.Option("--force", "-f", help="Overwrite what is there already.")]


@contextmanager
def claim_file(path: Path, *, force: bool) -> Iterator[Path]:
    """Have the folder of a file that the block writes. Raises UsageError if it may not."""
    if path.is_dir():
        raise UsageError(f"{path} is a folder; the name of a file is needed.")
    if path.exists() and not force:
        raise UsageError(f"{path} is there already.", hint="--force overwrites it.")
    with _made(path, path.parent):
        yield path


@contextmanager
def claim_report(store: Path, name: str) -> Iterator[Path]:
    """Have a store's folder of reports, and the file in it, which is written anew every time.

    Raises UsageError for a link, or for a file that panic did not write; StoreError for a link as the folder.
    """
    from panic.store.files import refuse_link

    folder = store / "reports"
    refuse_link(folder)
    file = folder / name
    if file.is_symlink() or (file.exists() and REPORT_MARK not in _beginning(file)):
        raise UsageError(
            f"{file} is there already, and is no report of panic.", hint="Name another with --output FILE."
        )
    with _made(None, folder):  # a report is written beside its name and put there whole
        yield file


def _beginning(file: Path) -> bytes:
    if not file.is_file():
        return b""
    with file.open("rb") as opened:
        return opened.read(1000)


@contextmanager
def claim_folder(path: Path, *, force: bool) -> Iterator[Path]:
    """Have a folder for the files of the block. Raises UsageError if there are other things in it."""
    if path.exists() and not path.is_dir():
        raise UsageError(f"{path} is a file; a folder is needed.")
    if path.is_dir() and any(path.iterdir()) and not force:
        raise UsageError(f"{path} is not empty.", hint="Name another folder; --force overwrites its files.")
    with _made(path, path):
        yield path


@contextmanager
def _made(path: Path | None, folder: Path) -> Iterator[None]:
    """Make a folder for what is written, at a path that is the folder itself or a file in it, if it is given.

    If the block fails, what is at that path goes again unless something was there before, and so do folders
    that were made, as far as nobody else has put anything into them.
    """
    is_new = path is not None and not os.path.lexists(path)
    new = [one for one in (folder, *folder.parents) if not one.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        with suppress(OSError):
            if path is not None and is_new:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        for one in new:
            with suppress(OSError):
                one.rmdir()
        raise
