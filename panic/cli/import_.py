"""`panic import`: trajectories that were made elsewhere become an experiment.

panic import chains.jsonl --name chains; panic import pictures/ --name pictures --deterministic
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from panic.cli.common import Shared, command, say
from panic.cli.render import console
from panic.errors import UsageError, require_utf8

if TYPE_CHECKING:
    from panic.cli.progress import Tell

BYTES_AT_ONCE = 2**22
MOST_AT_ONCE = 2**14
"""Rows of an export that are in memory at a time: so many bytes of its file, and not more."""


@command
def import_(
    shared: Shared,
    path: Annotated[
        Path,
        typer.Argument(
            metavar="FILE|FOLDER",
            help="JSON lines, CSV (also .gz) or Parquet, or a folder with a folder of images per run.",
        ),
    ],
    name: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Name of the experiment; needed unless it is an export."),
    ] = None,
    columns: Annotated[
        list[str] | None,
        typer.Option(
            "--column",
            metavar="FIELD=COLUMN",
            help="The column of a field; several, with commas, are joined; none leaves the field out.",
        ),
    ] = None,
    about: Annotated[
        str | None, typer.Option(metavar="TEXT", help="What else is known of the models, for people.")
    ] = None,
    deterministic: Annotated[
        bool,
        typer.Option("--deterministic", help="The same model, seed and input always gave the same output."),
    ] = False,
) -> None:
    """Import trajectories: rows with run, step, text or image, maybe prompt, seed, repeat, model, network.

    Everything is checked before anything is written. The same command again adds what is new in the file.
    Runs count as stuck with --deterministic only.
    """
    from panic.cli.logs import silence_libraries
    from panic.cli.progress import telling
    from panic.engine.importing.write import ImportOptions, read_import, write_import
    from panic.store import Store, reading

    silence_libraries()
    if (path / "experiment.parquet").is_file():
        return _restore(shared, path)
    if name is None:
        raise UsageError("The experiment needs a name.", hint="--name NAME")
    options = ImportOptions(
        name=name,
        path=path,
        columns=dict(map(_column, columns or [])),
        about=about,
        deterministic=deterministic,
    )
    with telling(name, quiet=shared.quiet) as show:
        found = read_import(options, show, lambda text: say(f"Warning: {text}", err=True))
        with Store(shared.store_path(), write=True, create=True) as store:
            experiment = write_import(store, found, show)
            counts = reading.counts(store, experiment)
    if not shared.quiet:
        told = f"{counts.runs:,} runs ({counts.stuck:,} stuck), {counts.invocations:,} outputs"
        console().print(f"{name}: {told}\nStore: {shared.store_path()}")


def _restore(shared: Shared, path: Path) -> None:
    """Import what panic export wrote into a folder: as computed, with all that it has."""
    from panic.cli.progress import telling
    from panic.store import Store
    from panic.store.restore import restore

    with telling(str(path), quiet=shared.quiet, goes_on=False) as show:
        tables = _tables(path, show)
        with Store(shared.store_path(), write=True, create=True) as store:
            names = restore(store, tables, shlex.join(sys.argv))
        number = len(tables.get("training", ()))
    if not shared.quiet:
        told = [*names, *([f"{number:,} training{'s' * (number != 1)}"] if number else [])]
        console().print(f"Imported: {', '.join(told) or 'nothing'}\nStore: {shared.store_path()}")


class Rows(Collection[dict[str, Any]]):
    """The rows of a Parquet file, a few in memory at a time; `show` hears how many have been read.

    Raises UsageError for a file that cannot be read.
    """

    def __init__(self, file: Path, show: Tell) -> None:
        import polars

        require_utf8(file)
        self._file, self._show = file, show
        self._frame = polars.scan_parquet(file, glob=False)
        self._height = 0
        with self._read():
            self._height = self._frame.select(polars.len()).collect().item()

    @contextmanager
    def _read(self) -> Iterator[None]:
        import polars

        try:
            yield
        except (polars.exceptions.PolarsError, OSError) as error:
            raise UsageError(f"{self._file} cannot be read: {error}") from error
        except KeyboardInterrupt:  # polars raises it whoever handles the signal
            self._show(f"rows read of {self._file.name}", 0, self._height)
            raise

    def __len__(self) -> int:
        return self._height

    def __iter__(self) -> Iterator[dict[str, Any]]:
        at_once = min(MOST_AT_ONCE, max(1, BYTES_AT_ONCE * self._height // self._file.stat().st_size))
        num_read = 0
        with self._read():  # in batches, since each slice would decode its row group from its start
            for batch in self._frame.collect_batches(chunk_size=at_once, maintain_order=True):
                self._show(f"rows read of {self._file.name}", num_read, self._height)
                yield from batch.iter_rows(named=True)
                num_read += batch.height

    def __contains__(self, row: object) -> bool:
        return any(one == row for one in self)


def _tables(path: Path, show: Tell) -> dict[str, Collection[dict[str, Any]]]:
    """The rows of an export's files."""
    found: dict[str, Collection[dict[str, Any]]] = {}
    for file in sorted(path.glob("*.parquet")):
        if file.is_symlink() or not file.is_file():
            raise UsageError(f"{file} is a link or no file, and an export has none.")
        found[file.stem] = Rows(file, show)
    return found


def _column(text: str) -> tuple[str, str]:
    name, equals, column = text.partition("=")
    if not equals:
        raise UsageError(f"--column {text}: it is FIELD=COLUMN, for example run=chain.")
    return name, column
