"""`panic import`: trajectories that were made elsewhere become an experiment.

panic import chains.jsonl --name chains; panic import pictures/ --name pictures --deterministic
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from panic.cli.common import Shared, command, say
from panic.cli.render import console
from panic.errors import UsageError

if TYPE_CHECKING:
    import polars


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
    from panic.store import Store
    from panic.store.restore import restore

    tables = _tables(path)
    with Store(shared.store_path(), write=True, create=True) as store:
        names = restore(store, tables, shlex.join(sys.argv))
    if not shared.quiet:
        number = len(tables.get("training", ()))
        told = [*names, *([f"{number:,} training{'s' * (number != 1)}"] if number else [])]
        console().print(f"Imported: {', '.join(told) or 'nothing'}\nStore: {shared.store_path()}")


class _Rows(Collection[dict[str, Any]]):
    """The rows of a table, made one after another: as a list, those of images take their bytes twice."""

    def __init__(self, frame: polars.DataFrame) -> None:
        self._frame = frame

    def __len__(self) -> int:
        return self._frame.height

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return self._frame.iter_rows(named=True, buffer_size=64)

    def __contains__(self, row: object) -> bool:
        return any(one == row for one in self)


def _tables(path: Path) -> dict[str, Collection[dict[str, Any]]]:
    """The rows of an export's files."""
    import polars

    found: dict[str, Collection[dict[str, Any]]] = {}
    for file in sorted(path.glob("*.parquet")):
        if file.is_symlink() or not file.is_file():
            raise UsageError(f"{file} is a link or no file, and an export has none.")
        try:
            frame = polars.read_parquet(file, glob=False)
            found[file.stem] = _Rows(frame) if file.stem == "image" else frame.to_dicts()
        except (polars.exceptions.PolarsError, OSError) as error:
            raise UsageError(f"{file} cannot be read: {error}") from error
    return found


def _column(text: str) -> tuple[str, str]:
    name, equals, column = text.partition("=")
    if not equals:
        raise UsageError(f"--column {text}: it is FIELD=COLUMN, for example run=chain.")
    return name, column
