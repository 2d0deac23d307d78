"""What is taken of diagrams: vectorisations of each, distances between those of an experiment.

A measure is a kind of either with its settings; its key (see `panic.config.diagrams`) is stored once. Results
belong to the diagrams that they were computed from: a run that has grown gets a new diagram, and so new ones.
Of each run the diagram with most points counts.

    store.vectorisations("demo", "PocketText", dimension=1, kind="landscape").values    # (n, k, resolution)
    store.distances("demo", "PocketText", dimension=0, kind="wasserstein").matrix       # (n, n)
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from panic.errors import NotFound
from panic.store.codec import decode_array, decode_bars
from panic.store.reading import Selector, experiment, model
from panic.store.records import DistanceMatrix, MeasureRow, Vectorisations
from panic.store.writing import canonical_json

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from panic.store.store import Store

CURRENT = (
    "SELECT diagram.id AS id, run, max(num_points) FROM diagram JOIN run ON run.id = run"
    " WHERE experiment = ?1 AND model = ?2 AND coalesce(settings_digest = ?3, TRUE) GROUP BY run"
)
"""Of every run of experiment ?1 the diagram under model ?2 (and settings ?3) that has most points."""
GIVEN = "(SELECT value FROM json_each(?4))"


def add_measure(store: Store, settings: Mapping[str, Any]) -> int:
    """The row of a vectorisation or distance with these settings."""
    text = canonical_json(settings)
    digest = hashlib.sha256(text.encode()).hexdigest()
    with store.transaction():
        known = store.db.value("SELECT id FROM measure WHERE digest = ?", digest)
        if known is not None:
            return int(known)
        return store.db.insert("INSERT INTO measure (digest, settings) VALUES (?, ?)", digest, text)


def diagram_bars(store: Store, diagram: int) -> dict[int, NDArray[np.float64]]:
    """Bars (m, 2) of a diagram by dimension."""
    rows = store.db.rows("SELECT dimension, bars FROM diagram_bars WHERE diagram = ? ORDER BY 1", diagram)
    return {dimension: decode_bars(data) for dimension, data in rows}


def missing_vectorisations(
    store: Store, experiment: int, model: int, settings_digest: str, measures: Sequence[int]
) -> Iterator[tuple[int, list[int]]]:
    """(diagram, measures that it lacks in some dimension) of the current diagrams of an experiment."""
    rows = store.db.rows(
        f"SELECT current.id, measure.id FROM ({CURRENT}) AS current JOIN measure ON measure.id IN {GIVEN}"
        " WHERE EXISTS (SELECT 1 FROM diagram_bars WHERE diagram = current.id AND NOT EXISTS"
        "   (SELECT 1 FROM vectorisation AS v WHERE v.diagram = current.id"
        "    AND v.dimension = diagram_bars.dimension AND v.measure = measure.id)) ORDER BY run, measure.id",
        *(experiment, model, settings_digest, json.dumps(list(measures))),
    )
    for diagram, group in groupby(rows, key=lambda row: row[0]):
        yield diagram, [measure for _, measure in group]


def missing_distances(
    store: Store, experiment: int, model: int, settings_digest: str, measure: int, dimensions: int
) -> Iterator[tuple[int, list[int]]]:
    """(diagram, diagrams of later runs to which it lacks distances) of the current diagrams.

    A pair is complete with a distance by the measure in each of so many `dimensions`.
    """
    key = (experiment, model, settings_digest)
    current = [id for id, _, _ in store.db.rows(f"{CURRENT} ORDER BY run", *key)]
    known = {
        (a, b)
        for a, b in store.db.stream(
            f"SELECT a, b FROM ({CURRENT}) AS current JOIN distance ON a = current.id"
            " WHERE measure = ?4 GROUP BY a, b HAVING count(*) = ?5",
            *(*key, measure, dimensions),
        )
    }
    for place, one in enumerate(current):
        others = [b for b in current[place + 1 :] if (min(one, b), max(one, b)) not in known]
        if others:
            yield one, others


def vectorisations(
    store: Store, selector: Selector, of_model: Selector, *, dimension: int, kind: str, **settings: Any
) -> Vectorisations:
    """Arrays (n, ...) of the diagrams of an experiment's runs, in the order of the runs.

    `settings` tell several measures of a kind apart, for example resolution=50. NotFound without any.
    """
    import numpy as np

    key = _key(store, selector, of_model)
    source = f"({CURRENT}) AS current JOIN vectorisation ON diagram = current.id"
    found = _one_measure(store, source, key, dimension, {"kind": kind} | settings)
    rows = store.db.rows(
        f"SELECT run, vector FROM {source} WHERE dimension = ?4 AND measure = ?5 ORDER BY run",
        *(*key, dimension, found.id),
    )
    values = np.stack([decode_array(data) for _, data in rows])
    return Vectorisations(runs=[run for run, _ in rows], values=values, settings=found.settings)


def distances(
    store: Store, selector: Selector, of_model: Selector, *, dimension: int, kind: str, **settings: Any
) -> DistanceMatrix:
    """Distances (n, n) between the diagrams of an experiment's runs, in the order of the runs.

    `settings` tell several measures of a kind apart, for example order=2. NotFound without any.
    """
    import numpy as np

    key = _key(store, selector, of_model)
    source = f"({CURRENT}) AS current JOIN distance ON a = current.id"
    found = _one_measure(store, source, key, dimension, {"kind": kind} | settings)
    current = store.db.rows(f"{CURRENT} ORDER BY run", *key)
    place = {id: number for number, (id, _, _) in enumerate(current)}
    matrix = np.full((len(place), len(place)), np.nan)
    np.fill_diagonal(matrix, 0.0)
    for a, b, distance in store.db.stream(
        f"SELECT a, b, distance FROM {source} WHERE dimension = ?4 AND measure = ?5",
        *(*key, dimension, found.id),
    ):
        if b in place:
            matrix[place[a], place[b]] = matrix[place[b], place[a]] = distance
    return DistanceMatrix(runs=[run for _, run, _ in current], matrix=matrix, settings=found.settings)


def _key(store: Store, selector: Selector, of_model: Selector) -> tuple[int, int, None]:
    return experiment(store, selector).id, model(store, of_model).id, None


def _one_measure(
    store: Store, source: str, key: tuple[int, int, None], dimension: int, wanted: Mapping[str, Any]
) -> MeasureRow:
    """The only measure of a source that has the wanted settings."""
    rows = store.db.rows(
        "SELECT id, settings FROM measure WHERE id IN"
        f" (SELECT DISTINCT measure FROM {source} WHERE dimension = ?4) ORDER BY id",
        *(*key, dimension),
    )
    known = [MeasureRow(id=id, settings=json.loads(settings)) for id, settings in rows]
    found = [row for row in known if wanted.items() <= row.settings.items()]
    if len(found) == 1:
        return found[0]
    listed = "; ".join(canonical_json(row.settings) for row in (found or known))
    number = "Several measures have" if found else "Nothing was computed with"
    raise NotFound(
        f"{number} the settings {canonical_json(wanted)} in dimension {dimension}.",
        hint=f"There {'are' if found else 'is'}: {listed}." if listed else "",
    )
