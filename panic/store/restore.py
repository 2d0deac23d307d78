"""A store's tables come into a store again as `panic export` wrote them: the way back of `store.export`.

Row numbers are given anew; models, outputs and measures are known by fingerprint, digest and settings. All of
it comes in one transaction, or nothing. Texts and images have to be what their digests say.

    restore(store, {"experiment": [{"id": 1, "uid": ..., ...}], "run": [...], ...}, "panic import tables")
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import apsw
import numpy as np

from panic.errors import ConflictError, StoreCorrupt
from panic.store import reading, writing
from panic.store.check import check
from panic.store.codec import (
    decode_image,
    decode_object,
    encode_array,
    encode_bars,
    encode_vector,
    image_digest,
    text_digest,
)
from panic.store.export import columns
from panic.store.store import Store
from panic.store.trainings import bring

SHOWN_PROBLEMS = 5
IMAGES_AT_ONCE = 16
Row = Mapping[str, Any]
Tables = Mapping[str, Collection[Row]]
"""They are gone through row by row, some of them several times: none need be in memory as a whole."""
NUMBERED = ("experiment", "session", "batch", "run", "diagram")
"""Tables whose rows are given new numbers."""
REFERENCES = {
    "experiment": {"id": "experiment"},
    "deletion": {"experiment": "experiment", "origin": "experiment"},
    "session": {"id": "session", "experiment": "experiment"},
    "epoch": {"experiment": "experiment", "model": "model"},
    "batch": {"id": "batch", "session": "session", "model": "model"},
    "answer": {"batch": "batch"},
    "spending": {"session": "session", "model": "model"},
    "run": {"id": "run", "experiment": "experiment", "prompt": "output"},
    "invocation": {"run": "run", "input": "output", "output": "output", "batch": "batch"},
    "intervention": {"run": "run", "input": "output", "output": "output", "batch": "batch"},
    "stuck": {"run": "run"},
    "repeated": {"run": "run"},
    "failure": {"run": "run"},
    "attempt": {"run": "run"},
    "diagram": {"id": "diagram", "run": "run", "model": "model"},
}
"""Plain tables in the order in which they are written, and whose rows their columns are numbers of."""
ADDED = ("answer", "spending", "intervention", "repeated", "attempt", "deletion", "training")
"""Tables that exports of earlier versions do not have."""
Numbers = dict[str, dict[int, int]]
"""By table: the number that a row has in the export, and the one it gets."""


def restore(store: Store, tables: Tables, command: str) -> list[str]:
    """Write what an export holds into a store that is open for writing; the names of its experiments.

    An export whose experiments are all there already brings at most later states of trainings. Diagrams with
    generators, which an export leaves out, are left to be computed again. Raises ConflictError for another
    experiment of one of the names, StoreCorrupt for what is not as an export has it, or is not sound; nothing
    stays written then.

    Args:
        command: what is kept as the command of the session that has brought it here.
    """
    tables = {**dict.fromkeys(ADDED, ()), **tables}
    with _told_as_the_export_s():
        uids = {row["name"]: row["uid"] for row in tables["experiment"]}
    names = list(uids)
    known = {row.name: row.uid for row in reading.experiments(store)}
    if all(known.get(name) == uid for name, uid in uids.items()):
        with store.transaction() as connection:
            _restore_trainings(store, connection, tables)
        return names
    if taken := [name for name in names if name in known]:
        raise ConflictError(
            f"The store has experiments of these names: {', '.join(taken)}.",
            hint="Nothing was imported. Import into another store: --store PATH.",
        )
    with _told_as_the_export_s():
        _refuse_columns(store, tables, (*REFERENCES, "model", "measure", "output", "annotation"))
        with _images(store, tables), store.transaction() as connection:
            _restore_rows(store, connection, tables)
            # Names and ids that are none are refused here.
            rows = [row for row in reading.experiments(store) if row.name in names]
            if problems := [problem for row in rows for problem in check(store, row.id)]:
                told = "; ".join(problems[:SHOWN_PROBLEMS])
                raise StoreCorrupt(f"The export is not sound: {told}", hint="Nothing was imported.")
            _restore_trainings(store, connection, tables)
    for row in rows:
        # A session that was asked for no diagrams: whether they are all there is then asked of the store.
        config = row.config | {key: [] for key in ("diagrams", "vectorisations", "distances")}
        writing.end_session(store, writing.start_session(store, row.id, command, {}, config), "done")
    return names


@contextmanager
def _told_as_the_export_s() -> Iterator[None]:
    """What is wrong with an export is raised as StoreCorrupt, and not as if it were the store that is."""
    try:
        yield
    except (apsw.Error, LookupError, TypeError, ValueError) as error:
        raise StoreCorrupt(
            f"The export cannot be imported: {type(error).__name__}: {error}", hint="Nothing was imported."
        ) from error


def _restore_trainings(store: Store, connection: apsw.Connection, tables: Tables) -> None:
    """Write the trainings of the export. Raises StoreCorrupt for what is none."""
    try:
        _refuse_columns(store, tables, ("training",))
        bring(connection, tables["training"])
    except (StoreCorrupt, apsw.Error, LookupError, TypeError, ValueError) as error:
        raise StoreCorrupt(
            f"The trainings of the export cannot be imported: {type(error).__name__}: {error}",
            hint="Nothing was imported.",
        ) from error


@contextmanager
def _images(store: Store, tables: Tables) -> Iterator[None]:
    """Have the images that the export names, written before its rows; if those are refused, they go again.

    They are written in transactions of a few, so that no journal has all of them; what a killed import has
    brought is there when it is repeated.
    """
    lacking = {row["digest"] for row in tables["output"] if row["modality"] == "image"}
    new: list[tuple[bytes]] = []
    images = iter(tables.get("image", ()))
    try:
        while some := list(itertools.islice(images, IMAGES_AT_ONCE)):
            with store.images.transaction() as connection:
                for row in some:
                    if (digest := row["digest"]) not in lacking:
                        continue
                    if image_digest(decode_image(row["bytes"])).hex() != digest:
                        raise ValueError(f"image {digest[:12]} is another image")
                    connection.execute(
                        "INSERT INTO image VALUES (?, ?, ?) ON CONFLICT (digest) DO NOTHING",
                        (bytes.fromhex(digest), row["encoding"], row["bytes"]),
                    )
                    if connection.changes():  # those that were there stay, whatever comes
                        new.append((bytes.fromhex(digest),))
                    lacking.discard(digest)
        if lacking:
            raise StoreCorrupt(
                f"The export lacks {len(lacking):,} images.", hint="Write it with panic export --images."
            )
        yield
    except BaseException:
        with store.images.transaction() as connection:
            connection.executemany("DELETE FROM image WHERE digest = ?", new)
        raise


def _restore_rows(store: Store, connection: apsw.Connection, tables: Tables) -> None:
    numbers: Numbers = {
        "model": _by_key(store, "model", "fingerprint", tables["model"]),
        "measure": _by_key(store, "measure", "digest", tables["measure"]),
        "output": _by_key(store, "output", "digest", _outputs(tables["output"])),
    }
    diagrams = [row for row in tables["diagram"] if not _settings(row).get("generators")]
    _refuse_strays(tables)
    sessions = {row["id"] for row in tables["session"]}
    batches = [row for row in tables["batch"] if row["session"] in sessions]
    plain = {**tables, "diagram": diagrams, "batch": batches}
    for table in NUMBERED:
        last = store.db.value(f"SELECT coalesce(max(id), 0) FROM {table}")
        olds = sorted(row["id"] for row in plain[table])
        numbers[table] = dict(zip(olds, itertools.count(last + 1), strict=False))
    for table, references in REFERENCES.items():
        for row in plain[table]:
            _insert(store, table, _renumbered(row, references, numbers))
    for row in tables["annotation"]:
        remark = {key: value for key, value in row.items() if key != "id"}
        if row["target_kind"] == "session":  # which has a number and nothing else
            remark["target"] = str(numbers["session"][int(row["target"])])
        _insert(store, "annotation", remark)
    _restore_vectors(connection, tables, numbers)
    _restore_taken(connection, {**tables, "diagram": diagrams}, numbers)


def _refuse_columns(store: Store, tables: Tables, names: Sequence[str]) -> None:
    """Raise ValueError for columns that tables of the store do not have; their names become SQL."""
    for table in names:
        unknown = {name for row in tables[table] for name in row} - columns(store, table).keys()
        if unknown:
            raise ValueError(f"{table} has no columns {', '.join(sorted(unknown))}")


def _settings(row: Row) -> dict[str, Any]:
    """The settings of a diagram. Raises ValueError for what are none."""
    try:
        return decode_object(row["settings"])
    except StoreCorrupt:
        raise ValueError(f"diagram {row['id']} has no settings") from None


def _refuse_strays(tables: Tables) -> None:
    """Raise ValueError for what is taken of a diagram that the export does not have: it would be lost."""
    known = {row["id"] for row in tables["diagram"]}
    for table, names in {"bars": ("diagram",), "vectorisation": ("diagram",), "distance": ("a", "b")}.items():
        if strays := {row[name] for row in tables[table] for name in names} - known:
            raise ValueError(f"{table} are of diagrams that are not there, {len(strays):,} of them")


def _outputs(rows: Iterable[Row]) -> Iterator[Row]:
    for row in rows:
        digest = bytes.fromhex(row["digest"])
        if row["modality"] == "text" and text_digest(row["text"]) != digest:
            raise ValueError(f"text {row['digest'][:12]} is another text")
        yield {**row, "digest": digest}


def _by_key(store: Store, table: str, key: str, rows: Iterable[Row]) -> dict[int, int]:
    """The numbers of rows that have a key of their own; those that are not there are written."""
    numbers = {}
    for row in rows:
        new = {name: value for name, value in row.items() if name != "id"}
        _insert(store, table, new, f" ON CONFLICT ({key}) DO NOTHING")
        numbers[row["id"]] = store.db.value(f"SELECT id FROM {table} WHERE {key} = ?", row[key])
    return numbers


def _renumbered(row: Row, references: Mapping[str, str], numbers: Numbers) -> Row:
    return {
        name: numbers[references[name]][value] if name in references and value is not None else value
        for name, value in row.items()
    }


def _insert(store: Store, table: str, row: Row, conflict: str = "") -> None:
    store.db.connection.execute(
        f"INSERT INTO {table} ({', '.join(row)}) VALUES ({', '.join('?' * len(row))}){conflict}",
        list(row.values()),
    )


def _restore_vectors(connection: apsw.Connection, tables: Tables, numbers: Numbers) -> None:
    for table in (name for name in tables if name.startswith("embedding-")):
        for row in tables[table]:
            if row["batch"] not in numbers["batch"]:
                continue  # made by a session of an experiment that is not in the export: computed again
            place = [numbers[name][row[name]] for name in ("output", "model", "batch")]
            vector = np.asarray(row["vector"])
            connection.execute(
                "INSERT INTO embedding VALUES (?, ?, ?, ?, ?) ON CONFLICT (output, model) DO NOTHING",
                (*place, len(vector), encode_vector(vector)),
            )


def _insert_bars(
    connection: apsw.Connection, diagram: int, dimension: int, bars: Sequence[tuple[float, float]]
) -> None:
    connection.execute(
        "INSERT INTO diagram_bars VALUES (?, ?, ?, NULL)",
        (diagram, dimension, encode_bars(np.array(bars).reshape(-1, 2))),
    )


def _restore_taken(connection: apsw.Connection, tables: Tables, numbers: Numbers) -> None:
    """Write bars, vectorisations and distances of the diagrams that are restored."""
    diagrams, measures = numbers["diagram"], numbers["measure"]
    lacking = {
        (row["id"], dimension)
        for row in tables["diagram"]
        for dimension in range(_settings(row)["max_dimension"] + 1)
    }
    of_one = itertools.groupby(tables["bars"], key=lambda row: (row["diagram"], row["dimension"]))
    for (diagram, dimension), rows in of_one:
        if diagram in diagrams:
            if (diagram, dimension) not in lacking:
                raise ValueError(
                    f"bars of diagram {diagram} are not one after another, or of no dimension of it"
                )
            lacking.remove((diagram, dimension))
            _insert_bars(connection, diagrams[diagram], dimension, [(r["birth"], r["death"]) for r in rows])
    for diagram, dimension in sorted(lacking):  # which have no bars
        _insert_bars(connection, diagrams[diagram], dimension, [])
    for row in tables["vectorisation"]:
        if (diagram := diagrams.get(row["diagram"])) is not None:
            values = np.array(row["values"], dtype=np.float64).reshape(row["shape"])
            connection.execute(
                "INSERT INTO vectorisation VALUES (?, ?, ?, ?)",
                (diagram, row["dimension"], measures[row["measure"]], encode_array(values)),
            )
    connection.executemany(
        "INSERT INTO distance VALUES (?, ?, ?, ?, ?)",
        (
            (diagrams[r["a"]], diagrams[r["b"]], r["dimension"], measures[r["measure"]], r["distance"])
            for r in tables["distance"]
            if r["a"] in diagrams and r["b"] in diagrams
        ),
    )
