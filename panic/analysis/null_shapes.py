"""Diagrams of null models, and what is taken of them, with the settings of the experiment that they are of.

A vectorisation of a surrogate compares with that of a run only if range, resolution and all else are the
same, and distances of surrogates from each other say how far apart diagrams are by chance only by the same
measure.

    asked = shapes_of(source.config, "text")
    add_shapes(store, null_experiment, model, asked, show)
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter

from panic.config.diagrams import DiagramSettings, DistanceSettings, VectorisationSettings, one_or_several
from panic.models.protocol import Modality
from panic.store import Commit, NewDiagram, Store, contents, missing, writing
from panic.store.records import NewDistance, NewVectorisation
from panic.topology import TopologyError, asked, distances_to, vectorise

log = logging.getLogger("panic.analysis")
Show = Callable[[str, int, int], None]
"""Told what is made, how many there are by now, and of how many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shapes:
    """What is asked for: settings of diagrams; of vectorisations and distances what identifies results."""

    diagrams: list[DiagramSettings]
    vectorisations: list[dict[str, Any]]
    distances: list[dict[str, Any]]

    @property
    def config(self) -> dict[str, Any]:
        """The fields of an experiment's config that ask for it; none where there are no diagrams."""
        if not self.diagrams:
            return {}
        return {
            "diagrams": [one.key for one in self.diagrams],
            "vectorisations": self.vectorisations,
            "distances": self.distances,
        }


def shapes_of(config: Mapping[str, Any], modality: str) -> Shapes:
    """What an experiment's config asks for of the outputs of a modality."""
    diagrams = [DiagramSettings.model_validate(one) for one in one_or_several(config.get("diagrams"))]
    vectors, distances = TypeAdapter(list[VectorisationSettings]), TypeAdapter(list[DistanceSettings])
    return Shapes(
        diagrams=[one for one in diagrams if one.modality == modality],
        vectorisations=[one.key for one in vectors.validate_python(config.get("vectorisations", []))],
        distances=[one.key for one in distances.validate_python(config.get("distances", []))],
    )


def add_shapes(store: Store, experiment: int, model: int, shapes: Shapes, show: Show) -> None:
    """Write what a null experiment lacks of diagrams, their vectorisations and distances, under a model."""
    for settings in shapes.diagrams:
        _add_diagrams(store, experiment, model, settings, show)
        _add_vectorisations(store, experiment, model, settings, shapes.vectorisations, show)
        for measure in shapes.distances:
            _add_distances(store, experiment, model, settings, measure, show)


def _add_diagrams(store: Store, experiment: int, model: int, settings: DiagramSettings, show: Show) -> None:
    """Write the diagrams that surrogates lack; their vectors stand for texts, whatever the runs' are of."""
    window = settings.window
    least = 1 if window is None else window.span
    lacking = missing.diagrams(store, experiment, model, settings.digest, Modality.TEXT, min_points=least)
    for number, run in enumerate(lacking):
        show("diagrams", number, len(lacking))
        vectors = contents.run_vectors(store, run, model, Modality.TEXT)
        start = time.perf_counter()
        try:
            found = asked(vectors, settings)
        except TopologyError as error:
            log.warning("run %d has no diagram: %s", run, error.message)
            continue
        row = NewDiagram(
            run=run,
            model=model,
            settings=settings.key,
            settings_digest=settings.digest,
            num_points=len(vectors),
            num_unique=found.num_unique,
            bars={dimension: found.bars(dimension) for dimension in range(settings.max_dimension + 1)},
            generators=dict(enumerate(found.generators or ())),
            error=found.error,
            duration_s=time.perf_counter() - start,
        )
        writing.commit(store, Commit(diagrams=[row]))


def _add_vectorisations(
    store: Store,
    experiment: int,
    model: int,
    settings: DiagramSettings,
    measures: list[dict[str, Any]],
    show: Show,
) -> None:
    """Write the vectorisations that diagrams lack, those of one diagram together."""
    how = {writing.add_measure(store, one): one for one in measures}
    lacking = list(missing.vectorisations(store, experiment, model, settings.digest, list(how)))
    for number, (diagram, rows) in enumerate(lacking):
        show("vectorisations", number, len(lacking))
        bars_of = contents.diagram_bars(store, diagram)
        made = [
            NewVectorisation(
                diagram=diagram, dimension=dimension, measure=row, vector=vectorise(bars, **how[row])
            )
            for dimension, bars in bars_of.items()
            for row in rows
        ]
        writing.commit(store, Commit(vectorisations=made))


def _add_distances(
    store: Store, experiment: int, model: int, settings: DiagramSettings, measure: dict[str, Any], show: Show
) -> None:
    """Write the distances that pairs of diagrams lack, those of one diagram to later ones together."""
    row = writing.add_measure(store, measure)
    dimensions = settings.max_dimension + 1
    lacking = list(missing.distances(store, experiment, model, settings.digest, row, dimensions))
    for number, (diagram, others) in enumerate(lacking):
        show("distances of diagrams", number, len(lacking))
        own = contents.diagram_bars(store, diagram)
        compared = [contents.diagram_bars(store, other) for other in others]
        made = []
        for dimension in range(dimensions):
            found = distances_to(own[dimension], [bars[dimension] for bars in compared], **measure)
            for other, distance in zip(others, found.tolist(), strict=True):
                pair = min(diagram, other), max(diagram, other)
                made.append(NewDistance(*pair, dimension, row, distance))
        writing.commit(store, Commit(distances=made))
