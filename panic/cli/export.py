"""`panic export` and `panic dump`: results for other programs.

panic export --output tables; panic dump latest | sha256sum
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from panic.cli.common import OptionalExperiment, ProjectOption, Shared, command
from panic.cli.destinations import ForceOption, claim_folder
from panic.cli.finding import WhereOption, experiments_where
from panic.cli.render import console, print_json
from panic.errors import PanicError, StoreCorrupt

if TYPE_CHECKING:
    import polars as pl

    from panic.store import Store

CHUNK_ROWS = 100_000
GROUP_BYTES = 2**22
"""About so much a row group has: whoever reads or writes one has a few of them in memory."""
TYPES = {"INTEGER": "Int64", "REAL": "Float64", "TEXT": "String"}
OUTPUT_COLUMNS = {"id": "Int64", "digest": "String", "modality": "String", "text": "String"} | {
    "width": "Int64",
    "height": "Int64",
}


@command
def dump(shared: Shared, experiment: OptionalExperiment = None) -> None:
    """Print the canonical content as JSON lines, in a fixed order: equal results give equal dumps."""
    from panic.store.dump import dump as dump_lines

    num_damaged = 0
    with shared.open_store() as store:
        for entry in dump_lines(store, experiment):
            num_damaged += entry["kind"] == "damaged"
            print_json(entry, indent=None)
    if num_damaged:
        raise StoreCorrupt(
            f"{num_damaged:,} lines are of the kind damaged, because what they tell cannot be read.",
            hint="panic check tells what else is wrong.",
        )


@command
def export(
    shared: Shared,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Folder for the files.")],
    images: Annotated[
        bool, typer.Option("--images", help="Also the encoded pictures (lossless WebP).")
    ] = False,
    where: WhereOption = None,
    project: ProjectOption = None,
    force: ForceOption = False,
) -> None:
    """Write the whole store as Parquet files, one per table and one of vectors per embedding model.

    With --where or --project what belongs to the experiments that these find.
    """
    from polars.exceptions import ComputeError

    counts: dict[str, int] = {}
    with (
        shared.open_store() as store,
        _part(store, where, project),
        store.db.snapshot(),
        claim_folder(output, force=force) as folder,
    ):
        for name, write in _writers(store, images=images):
            try:
                counts[name] = write(folder / f"{name}.parquet")
            except ComputeError as error:  # polars' word for what the disk answered
                raise PanicError(f"{output / name}.parquet cannot be written: {error}") from error
    if not shared.quiet:  # by now the files are there
        for name, num_rows in counts.items():
            console().print(f"{name}.parquet: {num_rows:,} rows")


@contextmanager
def _part(store: Store, where: str | None, project: str | None) -> Iterator[None]:
    """See the experiments alone that a filter finds, or those of a project; all without either."""
    from panic.store.finding.narrowing import only_experiments

    if where is None and project is None:
        yield
        return
    with only_experiments(store, [row.id for row in experiments_where(store, where, project)]):
        yield


def _writers(store: Store, *, images: bool) -> Iterator[tuple[str, Callable[[Path], int]]]:
    """By the name of each file, what writes it and gives the number of its rows."""

    def whole(frame: pl.DataFrame, file: Path) -> int:
        at_once = _rows_at_once(frame.height, int(frame.estimated_size()))
        with file.open("wb") as opened:  # polars itself knows names of UTF-8 alone
            frame.write_parquet(opened, row_group_size=at_once)
        return frame.height

    for name, frame in tables(store):
        yield name, partial(whole, frame)
    if images:
        yield "image", partial(_write_images, store)


def _rows_at_once(number: int, num_bytes: int) -> int:
    """How many rows a row group has, where so many of them have so many bytes."""
    return max(1, GROUP_BYTES * number // max(1, num_bytes))


def _write_images(store: Store, file: Path) -> int:
    """Write the table of images, a few at a time: together they may be larger than the memory."""
    import polars as pl
    from polars.io.plugins import register_io_source

    from panic.store import export as tables_of

    schema = pl.Schema({"digest": pl.String, "encoding": pl.String, "bytes": pl.Binary})
    num_rows = 0
    number, num_bytes = tables_of.image_bytes(store)
    at_once = _rows_at_once(number, num_bytes)

    def frames(*_: object) -> Iterator[pl.DataFrame]:
        nonlocal num_rows
        rows = tables_of.images(store)
        while chunk := list(islice(rows, at_once)):
            num_rows += len(chunk)
            yield pl.DataFrame(chunk, schema=schema, orient="row")

    with file.open("wb") as opened:
        register_io_source(frames, schema=schema).sink_parquet(opened, row_group_size=at_once)
    return num_rows


def tables(store: Store) -> Iterator[tuple[str, pl.DataFrame]]:
    """The store's tables without the images, one after another.

    Row numbers are as in the store; digests are hexadecimal.
    """
    from panic.store import export as tables_of

    for name in tables_of.PLAIN_TABLES:
        schema = {column: TYPES[kind] for column, kind in tables_of.columns(store, name).items()}
        yield name, _frame(tables_of.rows(store, name), schema)
    yield "output", _frame(tables_of.outputs(store), OUTPUT_COLUMNS)
    yield from _vectors(store)
    bars = {"diagram": "Int64", "dimension": "Int64", "birth": "Float64", "death": "Float64"}
    yield "bars", _frame(tables_of.bars(store), bars)
    yield "vectorisation", _vectorisations(store)


def _frame(rows: Iterator[tuple[Any, ...]], schema: dict[str, str]) -> pl.DataFrame:
    import polars as pl

    types = {name: getattr(pl, kind) for name, kind in schema.items()}
    frames = [pl.DataFrame([], schema=types, orient="row")]
    while chunk := list(islice(rows, CHUNK_ROWS)):
        frames.append(pl.DataFrame(chunk, schema=types, orient="row"))
    return pl.concat(frames)


def _vectors(store: Store) -> Iterator[tuple[str, pl.DataFrame]]:
    """Per embedding model: the output's row and digest, the batch, the vector as an array of fixed size."""
    import polars as pl

    from panic.store import contents, reading
    from panic.store import export as tables_of

    taken: set[str] = set()
    for model in reading.models(store):
        rows = tables_of.vectors(store, model.id)
        if not rows:
            continue
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", model.name)
        name = f"{name}-{model.id}" if name in taken else name
        taken.add(name)
        vectors = contents.stack([row.vector for row in rows])
        yield (
            f"embedding-{name}",
            pl.DataFrame(
                {
                    "output": [row.output for row in rows],
                    "digest": [row.digest for row in rows],
                    "model": [model.id] * len(rows),
                    "batch": [row.batch for row in rows],
                    "vector": pl.Series(vectors, dtype=pl.Array(pl.Float32, vectors.shape[1])),
                }
            ),
        )


def _vectorisations(store: Store) -> pl.DataFrame:
    """One row per diagram, dimension and measure: the values in one list, the last axis running fastest."""
    import polars as pl

    from panic.store import export as tables_of

    rows = [
        (row.diagram, row.dimension, row.measure, list(row.values.shape), row.values.ravel())
        for row in tables_of.vectorisations(store)
    ]
    frame = pl.DataFrame(rows, schema=["diagram", "dimension", "measure", "shape", "values"], orient="row")
    return frame.cast({"shape": pl.List(pl.Int64), "values": pl.List(pl.Float64)})
