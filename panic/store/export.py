"""The store's tables as rows, for files of other programs: row numbers as they are, digests hexadecimal.

for row in export.rows(store, "run"):
    print(row)
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from panic.store.codec import decode_array, decode_bars
from panic.store.store import Store

if TYPE_CHECKING:
    from numpy.typing import NDArray

PLAIN_TABLES = (
    *("experiment", "model", "epoch", "session", "batch", "run", "invocation"),
    *("answer", "spending", "intervention", "stuck", "repeated", "failure", "attempt", "diagram"),
    *("measure", "distance"),
    *("annotation", "training", "deletion", "working_memory", "invariance"),
)
"""Tables without blobs, which need no work."""


class VectorRow(NamedTuple):
    """A vector of an output under a model, as the bytes of its float32 numbers."""

    output: int
    digest: str
    batch: int
    vector: bytes


class VectorisationRow(NamedTuple):
    """An array of any shape that a measure makes of a diagram's bars of one dimension."""

    diagram: int
    dimension: int
    measure: int
    values: NDArray[Any]


def columns(store: Store, table: str) -> dict[str, str]:
    """The columns of a plain table with their types: INTEGER, REAL or TEXT."""
    return dict(store.db.rows("SELECT name, type FROM pragma_table_info(?)", table))


def rows(store: Store, table: str) -> Iterator[tuple[Any, ...]]:
    """The rows of a plain table."""
    assert table in PLAIN_TABLES, table
    return store.db.stream(f"SELECT * FROM {table}")


def outputs(store: Store) -> Iterator[tuple[Any, ...]]:
    """(id, digest, modality, text, width, height) of every output."""
    return store.db.stream(
        "SELECT id, lower(hex(digest)), modality, text, width, height FROM output ORDER BY id"
    )


def vectors(store: Store, model: int) -> list[VectorRow]:
    """The vectors of a model, in the order of their outputs."""
    found = store.db.rows(
        "SELECT output, lower(hex(digest)), batch, vector FROM embedding"
        " JOIN output ON output.id = output WHERE model = ? ORDER BY output",
        model,
    )
    return [VectorRow(*row) for row in found]


def bars(store: Store) -> Iterator[tuple[int, int, float, float]]:
    """(diagram, dimension, birth, death) of every bar; an infinite death stays infinite."""
    for diagram, dimension, blob in store.db.stream(
        "SELECT diagram, dimension, bars FROM diagram_bars ORDER BY diagram, dimension"
    ):
        for birth, death in decode_bars(blob).tolist():
            yield diagram, dimension, birth, death


def vectorisations(store: Store) -> Iterator[VectorisationRow]:
    """Every vectorisation, by diagram, dimension and measure."""
    for diagram, dimension, measure, blob in store.db.stream(
        "SELECT diagram, dimension, measure, vector FROM vectorisation ORDER BY 1, 2, 3"
    ):
        yield VectorisationRow(diagram, dimension, measure, decode_array(blob))


def images(store: Store) -> Iterator[tuple[str, str, bytes]]:
    """(digest, encoding, bytes) of the image of every output that is one, as far as its bytes are there."""
    for (digest,) in store.db.rows("SELECT digest FROM output WHERE modality = 'image' ORDER BY digest"):
        yield from store.images.rows(
            "SELECT lower(hex(digest)), encoding, bytes FROM image WHERE digest = ?", digest
        )


def image_bytes(store: Store) -> tuple[int, int]:
    """How many images the store has, and how many bytes they take."""
    [found] = store.images.rows("SELECT count(*), coalesce(sum(length(bytes)), 0) FROM image")
    return found[0], found[1]
