"""`panic export` and `panic dump`: results for other programs.

panic export --output tables; panic dump latest | sha256sum
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from panic.cli.common import Shared, command, complete_experiment
from panic.cli.destinations import ForceOption, claim_folder
from panic.cli.render import console, print_json
from panic.errors import PanicError

if TYPE_CHECKING:
    import polars as pl

    from panic.store import Store

CHUNK_ROWS = 100_000
TYPES = {"INTEGER": "Int64", "REAL": "Float64", "TEXT": "String"}
# Tables without blobs, as they are; the others need work (see below).
PLAIN = (
    *("experiment", "model", "epoch", "session", "batch", "run", "invocation"),
    *("stuck", "failure", "diagram", "measure", "distance", "annotation", "working_memory"),
)
OptionalExperiment = Annotated[
    str | None,
    typer.Argument(
        metavar="EXPERIMENT",
        help="Name, beginning of an id, or latest; by default the whole store.",
        autocompletion=complete_experiment,
        show_default=False,
    ),
]


@command
def dump(shared: Shared, experiment: OptionalExperiment = None) -> None:
    """Print the canonical content as JSON lines, in a fixed order: equal results give equal dumps."""
    from panic.store.dump import dump as dump_lines

    with shared.open_store() as store:
        for entry in dump_lines(store, experiment):
            print_json(entry, indent=None)


@command
def export(
    shared: Shared,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Folder for the files.")],
    images: Annotated[
        bool, typer.Option("--images", help="Also the encoded pictures (lossless WebP).")
    ] = False,
    force: ForceOption = False,
) -> None:
    """Write the whole store as Parquet files, one per table and one of vectors per embedding model."""
    from polars.exceptions import ComputeError

    with shared.open_store() as store, store.db.snapshot():
        claim_folder(output, force=force)
        for name, frame in tables(store, images=images):
            try:
                frame.write_parquet(output / f"{name}.parquet")
            except ComputeError as error:  # polars' word for what the disk answered
                raise PanicError(f"{output / name}.parquet cannot be written: {error}") from error
            if not shared.quiet:
                console().print(f"{name}.parquet: {frame.height:,} rows")


def tables(store: Store, *, images: bool = False) -> Iterator[tuple[str, pl.DataFrame]]:
    """The store's tables, one after another. Row numbers are as in the store; digests are hexadecimal."""
    for name in PLAIN:
        yield name, _plain(store, name)
    yield (
        "output",
        _query(
            store,
            "SELECT id, lower(hex(digest)), modality, text, width, height FROM output ORDER BY id",
            {"id": "Int64", "digest": "String", "modality": "String", "text": "String"}
            | {"width": "Int64", "height": "Int64"},
        ),
    )
    yield from _vectors(store)
    yield "bars", _bars(store)
    yield "vectorisation", _vectorisations(store)
    if images:
        yield "image", _images(store)


def _plain(store: Store, name: str) -> pl.DataFrame:
    columns = store.db.rows("SELECT name, type FROM pragma_table_info(?)", name)
    return _query(store, f"SELECT * FROM {name}", {column: TYPES[kind] for column, kind in columns})


def _query(store: Store, sql: str, schema: dict[str, str]) -> pl.DataFrame:
    import polars as pl

    types = {name: getattr(pl, kind) for name, kind in schema.items()}
    stream = store.db.stream(sql)
    frames = [pl.DataFrame([], schema=types, orient="row")]
    while rows := list(islice(stream, CHUNK_ROWS)):
        frames.append(pl.DataFrame(rows, schema=types, orient="row"))
    return pl.concat(frames)


def _vectors(store: Store) -> Iterator[tuple[str, pl.DataFrame]]:
    """Per embedding model: the output's row and digest, the batch, the vector as an array of fixed size."""
    import numpy as np
    import polars as pl

    from panic.store import reading

    taken: set[str] = set()
    for model in reading.models(store):
        rows = store.db.rows(
            "SELECT output, lower(hex(digest)), batch, vector FROM embedding"
            " JOIN output ON output.id = output WHERE model = ? ORDER BY output",
            model.id,
        )
        if not rows:
            continue
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", model.name)
        name = f"{name}-{model.id}" if name in taken else name
        taken.add(name)
        vectors = np.frombuffer(b"".join(row[3] for row in rows), "<f4").reshape(len(rows), -1)
        yield (
            f"embedding-{name}",
            pl.DataFrame(
                {
                    "output": [row[0] for row in rows],
                    "digest": [row[1] for row in rows],
                    "model": [model.id] * len(rows),
                    "batch": [row[2] for row in rows],
                    "vector": pl.Series(vectors, dtype=pl.Array(pl.Float32, vectors.shape[1])),
                }
            ),
        )


def _bars(store: Store) -> pl.DataFrame:
    """One row per bar; an infinite death stays infinite."""
    import polars as pl

    from panic.store.codec import decode_bars

    found: list[tuple[Any, ...]] = []
    for diagram, dimension, blob in store.db.stream(
        "SELECT diagram, dimension, bars FROM diagram_bars ORDER BY diagram, dimension"
    ):
        found += [(diagram, dimension, birth, death) for birth, death in decode_bars(blob).tolist()]
    schema = {"diagram": pl.Int64, "dimension": pl.Int64, "birth": pl.Float64, "death": pl.Float64}
    return pl.DataFrame(found, schema=schema, orient="row")


def _vectorisations(store: Store) -> pl.DataFrame:
    """One row per diagram, dimension and measure: the values in one list, the last axis running fastest."""
    import polars as pl

    from panic.store.codec import decode_array

    rows = [
        (*key, list(array.shape), array.ravel())
        for *key, array in (
            (diagram, dimension, measure, decode_array(blob))
            for diagram, dimension, measure, blob in store.db.stream(
                "SELECT diagram, dimension, measure, vector FROM vectorisation ORDER BY 1, 2, 3"
            )
        )
    ]
    frame = pl.DataFrame(rows, schema=["diagram", "dimension", "measure", "shape", "values"], orient="row")
    return frame.cast({"shape": pl.List(pl.Int64), "values": pl.List(pl.Float64)})


def _images(store: Store) -> pl.DataFrame:
    import polars as pl

    rows = store.images.rows("SELECT lower(hex(digest)), encoding, bytes FROM image ORDER BY digest")
    schema = {"digest": pl.String, "encoding": pl.String, "bytes": pl.Binary}
    return pl.DataFrame(rows, schema=schema, orient="row")
