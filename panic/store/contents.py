"""What a store holds: outputs, steps, texts, images, vectors, diagrams.

Digests come out as 64 hexadecimal digits and may be given so, or as 32 bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from panic.arms import BASELINE, Arm, maker, model_at
from panic.errors import NotFound, StoreCorrupt
from panic.store.codec import (
    PROMPT,
    canonical_json,
    decode_array,
    decode_bars,
    decode_image,
    decode_json,
    decode_network,
    decode_object,
    decode_vectors,
)
from panic.store.reading import CURRENT, RUN_OUTPUTS, USED_OUTPUTS, Selector, arms, scope
from panic.store.reading import experiment as find_experiment
from panic.store.reading import model as find_model
from panic.store.records import (
    DiagramRow,
    DistanceMatrix,
    InterventionRow,
    InvocationRow,
    MeasureRow,
    OutputRow,
    Vectorisations,
    Vectors,
)
from panic.store.store import Store

REPAIR = "panic resume EXPERIMENT --repair computes it again; panic check names the experiment."
"""What helps where pixels are damaged or missing."""

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image


END = 2**63 - 1  # the largest step that SQLite can hold
DiagramChoice = str | Mapping[str, Any] | None
"""Which diagrams are meant: the digest of their settings, some of these settings, or the only ones."""


def outputs(store: Store, experiment: Selector | None = None, *, run: int | None = None) -> list[OutputRow]:
    """Distinct outputs, prompts included, of a run, of an experiment, or of all; in order of appearance."""
    where, parameters = scope(store, experiment, f"WHERE id IN ({USED_OUTPUTS})")
    if run is not None:
        where, parameters = f"WHERE id IN ({RUN_OUTPUTS})", (run,)
    return _output_rows(store, f"{where} ORDER BY id", *parameters)


def by_size(store: Store, experiment: int, modality: str, number: int) -> list[OutputRow]:
    """So many of an experiment's texts or images, prompts included, from small ones to the largest.

    Of texts the bytes of UTF-8 count, of images the pixels; in that order they are equally far apart.
    """
    ranked = (
        "SELECT id, count(*) OVER () AS num_all,"
        " row_number() OVER (ORDER BY octet_length(text), width * height, id) AS place"
        f" FROM output WHERE id IN ({USED_OUTPUTS}) AND modality = ?2"
    )
    chosen = f"SELECT id FROM ({ranked}) WHERE place * ?3 / num_all > (place - 1) * ?3 / num_all"
    order = "ORDER BY octet_length(text), width * height, id"
    return _output_rows(store, f"WHERE id IN ({chosen}) {order}", experiment, modality, number)


def _output_rows(store: Store, which: str, *parameters: Any) -> list[OutputRow]:
    rows = store.db.rows(
        f"SELECT lower(hex(digest)), modality, text, width, height FROM output {which}", *parameters
    )
    return [OutputRow(digest=d, modality=m, text=t, width=w, height=h) for d, m, t, w, h in rows]


def invocations(store: Store, run: int, first: int = 0, last: int | None = None) -> list[InvocationRow]:
    """The steps of a run, or those from `first` to `last`, both included."""
    network, arm = _course(store, run)
    rows = store.db.rows(
        "SELECT step, lower(hex(a.digest)), lower(hex(b.digest)), b.modality, b.text, i.seed, i.batch,"
        " padded_size, device, started_at, duration_s"
        " FROM invocation AS i JOIN output AS a ON a.id = i.input JOIN output AS b ON b.id = i.output"
        " JOIN batch ON batch.id = i.batch WHERE i.run = ? AND step BETWEEN ? AND ? ORDER BY step",
        *(run, first, END if last is None else last),
    )
    names = InvocationRow.__slots__[3:]
    return [
        InvocationRow(
            run=run, step=step, model=model_at(network, arm, step), **dict(zip(names, row, strict=True))
        )
        for step, *row in rows
    ]


def interventions(store: Store, run: int, first: int = 0, last: int | None = None) -> list[InterventionRow]:
    """What stepped into a run, before all steps or those from `first` to `last`, both included."""
    network, arm = _course(store, run)
    rows = store.db.rows(
        "SELECT step, place, kind, lower(hex(a.digest)), lower(hex(b.digest)), b.text, seed"
        " FROM intervention AS i JOIN output AS a ON a.id = i.input JOIN output AS b ON b.id = i.output"
        " WHERE run = ? AND step BETWEEN ? AND ? ORDER BY step, place",
        *(run, first, END if last is None else last),
    )
    return [
        InterventionRow(step, place, kind, maker(network, arm, step, place), *row)
        for step, place, kind, *row in rows
    ]


def _course(store: Store, run: int) -> tuple[tuple[str, ...], Arm]:
    """The network of a run, and what steps into it."""
    network, experiment, name = store.db.row("SELECT network, experiment, arm FROM run WHERE id = ?", run)
    arm = () if name == BASELINE else arms(store, experiment).get(name, ())
    return decode_network(network), arm


def outputs_at(
    store: Store, runs: Sequence[int], step: int | None, modality: str | None = None
) -> list[tuple[int, int, str, str]]:
    """(run, step, modality, text or "image:DIGEST") of a step of these runs, or of their last; by run.

    modality: leaves the other one out; the last step is the last of those that are left.
    """
    return list(
        store.db.rows(
            f"SELECT run, max(step), modality, {PROMPT} FROM invocation JOIN output ON output.id = output"
            " WHERE run IN (SELECT value FROM json_each(?1)) AND coalesce(step = ?2, TRUE)"
            " AND coalesce(modality = ?3, TRUE) GROUP BY run ORDER BY run",
            *(json.dumps(list(runs)), step, modality),
        )
    )


def image_steps(store: Store, experiment: int) -> list[int]:
    """The steps at which runs of an experiment (row number) have images."""
    rows = store.db.rows(
        "SELECT DISTINCT step FROM invocation JOIN run ON run.id = run JOIN output ON output.id = output"
        " WHERE experiment = ? AND modality = 'image' ORDER BY step",
        experiment,
    )
    return [step for (step,) in rows]


def _digest(digest: bytes | str) -> bytes:
    return bytes.fromhex(digest) if isinstance(digest, str) else digest


def text(store: Store, digest: bytes | str) -> str:
    """The text with this digest (32 bytes or 64 hexadecimal digits). NotFound otherwise."""
    found = store.db.value("SELECT text FROM output WHERE digest = ?", _digest(digest))
    if found is None:
        raise NotFound(f"No text {_digest(digest).hex()} in {store.path}.")
    return str(found)


def image_bytes(store: Store, digest: bytes | str) -> bytes:
    """The encoded image (lossless WebP) with this digest.

    Raises NotFound, or StoreCorrupt if the image is known and its pixels are missing.
    """
    found = store.images.value("SELECT bytes FROM image WHERE digest = ?", _digest(digest))
    if found is None:
        if store.db.value("SELECT width FROM output WHERE digest = ?", _digest(digest)) is not None:
            raise _lost(store, digest, "its pixels are missing")
        raise NotFound(f"No image {_digest(digest).hex()} in {store.path}.")
    return bytes(found)


def image_size(store: Store, digest: bytes | str) -> tuple[int, int]:
    """Width and height of the image with this digest. Raises NotFound."""
    found = store.db.rows(
        "SELECT width, height FROM output WHERE digest = ? AND modality = 'image'", _digest(digest)
    )
    if not found:
        raise NotFound(f"No image {_digest(digest).hex()} in {store.path}.")
    return found[0][0], found[0][1]


def image(store: Store, digest: bytes | str) -> Image:
    """The RGB image with this digest. NotFound, or StoreCorrupt if its pixels are missing or damaged."""
    data = image_bytes(store, digest)
    try:
        return decode_image(data)
    except ValueError as error:
        raise _lost(store, digest, str(error)) from error


def _lost(store: Store, digest: bytes | str, problem: str) -> StoreCorrupt:
    return StoreCorrupt(f"Image {_digest(digest).hex()} in {store.path}: {problem}.", hint=REPAIR)


def vectors(store: Store, model: Selector, experiment: Selector | None = None) -> Vectors:
    """All vectors (n, d) of a model, in the order in which their outputs appeared."""
    where, parameters = scope(store, experiment, f"AND output IN ({USED_OUTPUTS})")
    rows = store.db.rows(
        "SELECT lower(hex(digest)), vector FROM embedding JOIN output ON output.id = embedding.output"
        f" WHERE model = ?2 {where} ORDER BY output.id",
        *(parameters or (None,)),
        find_model(store, model).id,
    )
    return Vectors(digests=[row[0] for row in rows], vectors=stack([row[1] for row in rows]))


def dimension(store: Store, model: int) -> int | None:
    """How many numbers the vectors of a model (by its row) have; None before the first."""
    found: int | None = store.db.value("SELECT dimension FROM embedding WHERE model = ? LIMIT 1", model)
    return found


def stack(blobs: list[bytes]) -> NDArray[np.float32]:
    """Vectors (n, d) of their bytes; (0, 0) of none. Raises StoreCorrupt where their lengths differ."""
    import numpy as np

    if not blobs:
        return np.empty((0, 0), np.float32)
    return decode_vectors(blobs, len(blobs[0]) // 4)


def diagram_settings(store: Store, experiment: Selector, model: Selector) -> dict[str, dict[str, Any]]:
    """The settings, by digest, of the diagrams that an experiment's runs have under a model; oldest first."""
    where = "run IN (SELECT id FROM run WHERE experiment = ?)"
    return _settings(store, where, find_experiment(store, experiment).id, find_model(store, model).id)


def _settings(store: Store, where: str, of: int, model: int) -> dict[str, dict[str, Any]]:
    sql = "SELECT settings_digest, settings, min(id) FROM diagram"
    sql += f" WHERE {where} AND model = ? GROUP BY 1 ORDER BY 3"
    return {digest: decode_object(settings) for digest, settings, _ in store.db.rows(sql, of, model)}


def _one_settings(known: Mapping[str, dict[str, Any]], wanted: DiagramChoice) -> str:
    """The digest of the only diagram settings that are wanted; "" where there are no diagrams.

    Raises NotFound with a list where there are several, or other ones.
    """
    if isinstance(wanted, str):
        return wanted
    found = [digest for digest, settings in known.items() if (wanted or {}).items() <= settings.items()]
    if len(found) == 1 or not known:
        return found[0] if found else ""
    listed = "; ".join(canonical_json(known[digest]) for digest in found or known)
    raise NotFound(
        "There are diagrams under several settings; say which." if found else
        f"There are no diagrams with the settings {canonical_json(wanted)}.",
        hint=f"There are: {listed}.",
    )  # fmt: skip


def bars(
    store: Store, run: int, model: Selector, dimension: int, settings: DiagramChoice = None
) -> NDArray[np.float64]:
    """Persistence bars (m, 2), birth and death, of a run's diagram with most points.

    settings: which diagrams, where there are several settings: their digest, or some of them.
    Raises NotFound, also where several settings are meant.
    """
    return decode_bars(_bars_row(store, run, model, dimension, settings)[0])


def generators(
    store: Store, run: int, model: Selector, dimension: int, settings: DiagramChoice = None
) -> NDArray[Any] | None:
    """Generators of a run's bars, None if they were not computed. Everything else is as for `bars`."""
    found = _bars_row(store, run, model, dimension, settings)
    return None if found[1] is None else decode_array(found[1])


def _bars_row(store: Store, run: int, model: Selector, dimension: int, settings: DiagramChoice) -> Any:
    row = find_model(store, model)
    digest = _one_settings(_settings(store, "run = ?", run, row.id), settings)
    found = store.db.row(
        "SELECT bars, generators FROM diagram JOIN diagram_bars ON diagram = diagram.id"
        " WHERE run = ?1 AND model = ?2 AND dimension = ?3 AND settings_digest = ?4"
        " ORDER BY num_points DESC, diagram.id DESC",
        *(run, row.id, dimension, digest),
    )
    if found is None:
        raise NotFound(f"No diagram of run {run} under {row.name} in dimension {dimension}.")
    return found


def diagrams(store: Store, experiment: Selector | None = None) -> list[DiagramRow]:
    """Diagrams of an experiment's runs, or all."""
    where, parameters = scope(store, experiment)
    rows = store.db.rows(
        "SELECT diagram.id, run, model, settings, settings_digest, num_points, num_unique, error,"
        " duration_s, (SELECT json_group_array(dimension) FROM diagram_bars WHERE diagram = diagram.id)"
        f" FROM diagram JOIN run ON run.id = diagram.run {where} ORDER BY diagram.id",
        *parameters,
    )
    return [
        DiagramRow(
            id=id,
            run=run,
            model=model,
            settings=decode_object(settings),
            settings_digest=digest,
            num_points=num_points,
            num_unique=num_unique,
            dimensions=tuple(sorted(decode_json(dimensions))),
            error=error,
            duration_s=duration_s,
        )
        for id, run, model, settings, digest, num_points, num_unique, error, duration_s, dimensions in rows
    ]


def diagram_bars(store: Store, diagram: int) -> dict[int, NDArray[np.float64]]:
    """Bars (m, 2) of a diagram by dimension."""
    rows = store.db.rows("SELECT dimension, bars FROM diagram_bars WHERE diagram = ? ORDER BY 1", diagram)
    return {dimension: decode_bars(data) for dimension, data in rows}


def run_vectors(store: Store, run: int, model: int, modality: str) -> NDArray[np.float32]:
    """Vectors (n, d) of a run's outputs of one modality in step order, the prompt excluded."""
    rows = store.db.rows(
        "SELECT vector FROM invocation JOIN output ON output.id = invocation.output AND modality = ?3"
        " JOIN embedding ON embedding.output = output.id AND model = ?2 WHERE run = ?1 ORDER BY step",
        *(run, model, str(modality)),
    )
    return stack([vector for (vector,) in rows])


def vectorisations(
    store: Store,
    selector: Selector,
    of_model: Selector,
    *,
    dimension: int,
    kind: str,
    diagrams: DiagramChoice = None,
    **settings: Any,
) -> Vectorisations:
    """Arrays (n, ...) of the diagrams of an experiment's runs, in the order of the runs.

    `settings` tell several measures of a kind apart, for example resolution=50; `diagrams` those of the
    diagrams, by their digest or some of them. Raises NotFound without any, and where several are meant.
    """
    import numpy as np

    key = _key(store, selector, of_model, diagrams)
    source = f"({CURRENT}) AS current JOIN vectorisation ON diagram = current.id"
    found = _one_measure(store, source, key, dimension, {"kind": kind} | settings)
    rows = store.db.rows(
        f"SELECT run, vector FROM {source} WHERE dimension = ?4 AND measure = ?5 ORDER BY run",
        *(*key, dimension, found.id),
    )
    values = np.stack([decode_array(data) for _, data in rows])
    return Vectorisations(runs=[run for run, _ in rows], values=values, settings=found.settings)


def distances(
    store: Store,
    selector: Selector,
    of_model: Selector,
    *,
    dimension: int,
    kind: str,
    diagrams: DiagramChoice = None,
    **settings: Any,
) -> DistanceMatrix:
    """Distances (n, n) between the diagrams of an experiment's runs, in the order of the runs.

    `settings` tell several measures of a kind apart, for example order=2; `diagrams` those of the diagrams,
    by their digest or some of them. Raises NotFound without any, and where several are meant.
    """
    import numpy as np

    key = _key(store, selector, of_model, diagrams)
    source = f"({CURRENT}) AS current JOIN distance ON a = current.id"
    found = _one_measure(store, source, key, dimension, {"kind": kind} | settings)
    current = store.db.rows(f"SELECT id, run FROM ({CURRENT}) ORDER BY run", *key)
    place = {id: number for number, (id, _) in enumerate(current)}
    matrix = np.full((len(place), len(place)), np.nan)
    np.fill_diagonal(matrix, 0.0)
    for a, b, distance in store.db.stream(
        f"SELECT a, b, distance FROM {source} WHERE dimension = ?4 AND measure = ?5",
        *(*key, dimension, found.id),
    ):
        if b in place:
            matrix[place[a], place[b]] = matrix[place[b], place[a]] = distance
    return DistanceMatrix(runs=[run for _, run in current], matrix=matrix, settings=found.settings)


def _key(
    store: Store, selector: Selector, of_model: Selector, diagrams: DiagramChoice
) -> tuple[int, int, str]:
    """(experiment, model, settings digest) of diagrams."""
    known = diagram_settings(store, selector, of_model)
    digest = _one_settings(known, diagrams)
    return find_experiment(store, selector).id, find_model(store, of_model).id, digest


def _one_measure(
    store: Store, source: str, key: tuple[int, int, str], dimension: int, wanted: Mapping[str, Any]
) -> MeasureRow:
    """The only measure of a source that has the wanted settings."""
    rows = store.db.rows(
        "SELECT id, settings FROM measure WHERE id IN"
        f" (SELECT DISTINCT measure FROM {source} WHERE dimension = ?4) ORDER BY id",
        *(*key, dimension),
    )
    known = [MeasureRow(id=id, settings=decode_object(settings)) for id, settings in rows]
    found = [row for row in known if wanted.items() <= row.settings.items()]
    if len(found) == 1:
        return found[0]
    listed = "; ".join(canonical_json(row.settings) for row in (found or known))
    number = "Several measures have" if found else "Nothing was computed with"
    raise NotFound(
        f"{number} the settings {canonical_json(wanted)} in dimension {dimension}.",
        hint=f"There {'are' if found else 'is'}: {listed}." if listed else "",
    )
