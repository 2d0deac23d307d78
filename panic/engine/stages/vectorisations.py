"""The vectorisations stage: diagrams as arrays, once there are no more diagrams to come.

A run that has grown has another diagram then, so what is taken of diagrams comes last.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from panic.engine.pool import Bench
from panic.engine.session import Session
from panic.engine.stages.diagrams import diagram_kinds
from panic.engine.stages.stage import JobStage
from panic.store import Commit, contents, missing, writing
from panic.store.records import NewVectorisation
from panic.topology import vectorise

Measures = tuple[tuple[int, str], ...]
"""Rows of measures with their settings as JSON."""


@dataclass(frozen=True, slots=True)
class VectorisationJob:
    """Vectorisations of one diagram, in all of its dimensions."""

    name: ClassVar[str] = "vectorisations"
    diagram: int
    measures: Measures
    dimensions: int

    @property
    def num_results(self) -> int:
        return len(self.measures) * self.dimensions

    def __str__(self) -> str:
        return f"vectorisations of diagram {self.diagram}"

    def compute(self, bench: Bench) -> Commit:
        return Commit(
            vectorisations=[
                NewVectorisation(
                    diagram=self.diagram,
                    dimension=dimension,
                    measure=measure,
                    vector=vectorise(bars, **json.loads(settings)),
                )
                for dimension, bars in contents.diagram_bars(bench.store, self.diagram).items()
                for measure, settings in self.measures
            ]
        )


class VectorisationStage(JobStage[VectorisationJob]):
    """Hands out the vectorisations that the config asks for, of every run's diagram with most points."""

    name = "vectorisations"

    def due(self) -> Iterable[VectorisationJob]:
        """Vectorisations that diagrams lack, those of one diagram together."""
        session = self.session
        settings_of = dict(measures(session, "vectorisations"))
        for kind in diagram_kinds(session) if settings_of else ():
            key = (session.reader, session.experiment, kind.model, kind.settings_digest)
            for number, lacking in missing.vectorisations(*key, list(settings_of)):
                chosen = tuple((measure, settings_of[measure]) for measure in lacking)
                yield VectorisationJob(number, chosen, kind.settings.max_dimension + 1)


def measures(session: Session, field: str) -> Measures:
    """The rows of the measures in a field of the config, added where they are new, with their settings."""
    return tuple(
        (writing.add_measure(session.store, part.key), json.dumps(part.key))
        for part in getattr(session.plan.config, field)
    )
