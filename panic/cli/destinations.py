"""Files and folders that results are written to: what is refused, what is made.

What is there already is overwritten with --force only, except for the report that panic keeps in the store.
A block writes in a folder of its own beside its destination, and what it has written is put there whole when
it ends. Where it fails, nothing that somebody else has put there meanwhile is touched. What is overwritten
keeps its mode, and a link is kept: what it leads to is overwritten.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Annotated

import typer

from panic.errors import PanicError, UsageError

REPORT_MARK = b'<meta name="generator" content="panic">'
"""It stands near the beginning of every report."""
WORKING = ".panic-"
"""How the names of the folders begin in which results wait until they are whole; a kill leaves them."""
UNMOVED = (errno.EXDEV, errno.EACCES, errno.EPERM)
"""Errors of a move to another file system, or into a folder that one may not write to."""

ForceOption = Annotated[bool, typer.Option("--force", "-f", help="Overwrite what is there already.")]


@contextmanager
def claim_file(path: Path, *, force: bool) -> Iterator[Path]:
    """Have a path that the block writes to, of the same name; the file is put to its own at the end.

    Raises UsageError for a folder, and for a file that is there before or after, unless it is forced.
    """
    if path.is_dir():
        raise UsageError(f"{path} is a folder; the name of a file is needed.")
    if path.exists() and not force:
        raise _taken(path)
    if path.exists() and not path.is_file():  # a pipe or a device, which nothing may take the place of
        yield path
        return
    target = _led_to(path)
    with _made(target.parent), _working(target.parent, path) as folder:
        yield folder / path.name
        _put(folder / path.name, target, force=force)


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
    with _made(folder):  # a report is written beside its name and put there whole
        yield file


def _beginning(file: Path) -> bytes:
    if not file.is_file():
        return b""
    with file.open("rb") as opened:
        return opened.read(1000)


@contextmanager
def claim_folder(path: Path, *, force: bool) -> Iterator[Path]:
    """Have a folder for the files of the block, which are put into `path` at the end, by their names.

    All are put there or, unless it is forced, none.

    Raises UsageError if there are other things in it before, or a file of the same name after, unless it is
    forced.
    """
    if path.exists() and not path.is_dir():
        raise UsageError(f"{path} is a file; a folder is needed.")
    if path.is_dir() and not force and any(not one.name.startswith(WORKING) for one in path.iterdir()):
        raise UsageError(f"{path} is not empty.", hint="Name another folder; --force overwrites its files.")
    with _made(path), _working(path, path) as folder:
        yield folder
        with ExitStack() as undo:
            for file in sorted(folder.iterdir()):
                state = file.stat()
                _put(file, path / file.name, force=force)
                if not force:
                    undo.callback(_take_back, path / file.name, state)
            undo.pop_all()


def _taken(path: Path) -> UsageError:
    return UsageError(f"{path} is there already.", hint="--force overwrites it.")


def _take_back(path: Path, state: os.stat_result) -> None:
    """Remove a file that was put to a new place, unless somebody has put another there meanwhile."""
    with suppress(OSError):
        if os.path.samestat(path.lstat(), state):
            path.unlink()


def _led_to(path: Path) -> Path:
    """What a link leads to in the end; any other path as it is."""
    return Path(os.path.realpath(path)) if path.is_symlink() else path


def _put(file: Path, target: Path, *, force: bool) -> None:
    """Give a file its place. Raises UsageError if something is there by now, unless it is forced.

    It is written into what is there where that is no file, or where nothing may take the place of the file.
    """
    if not force:
        try:
            os.link(file, target)
        except FileExistsError:
            raise _taken(target) from None
        except OSError:  # a file system without links
            if os.path.lexists(target):
                raise _taken(target) from None
        else:
            return
    target = _led_to(target)
    if target.is_file():
        shutil.copymode(target, file)
    elif target.exists() and not target.is_dir():
        shutil.copyfile(file, target)
        return
    try:
        file.replace(target)
    except OSError as error:
        if error.errno not in UNMOVED or not target.is_file():
            raise
        shutil.copyfile(file, target)


@contextmanager
def _working(folder: Path, path: Path) -> Iterator[Path]:
    """Have a folder in another one for as long as the block lasts; errors speak of `path` in its stead.

    It is elsewhere where `path` may be written, but nothing may be put beside it.
    """
    try:
        working = Path(tempfile.mkdtemp(prefix=WORKING, dir=folder))
    except OSError as error:
        if not (isinstance(error, PermissionError) and path.is_file() and os.access(path, os.W_OK)):
            raise OSError(error.errno, error.strerror, str(path)) from error
        working = Path(tempfile.mkdtemp(prefix=WORKING))
    shown = str(path if folder == path else folder)
    try:
        yield working
    except OSError as error:
        if error.filename is not None:
            error.filename = str(error.filename).replace(str(working), shown)
        raise
    except PanicError as error:
        error.message = error.message.replace(str(working), shown)
        raise
    finally:
        shutil.rmtree(working, ignore_errors=True)


@contextmanager
def _made(folder: Path) -> Iterator[None]:
    """Make a folder; if the block fails, the folders that were made go again, unless something is in them.

    Raises UsageError for one below a file.
    """
    new = [one for one in (folder, *folder.parents) if not one.exists()]
    above = next((one for one in (folder, *folder.parents) if one.exists()), folder)
    if above.exists() and not above.is_dir():
        raise UsageError(f"{above} is a file; a folder is needed.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        for one in new:
            with suppress(OSError):
                one.rmdir()
        raise
