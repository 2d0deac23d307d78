"""The distances stage: between the diagrams of all pairs of runs, once there are no more diagrams to come."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, ClassVar

from panic.engine.pool import Bench
from panic.engine.stages.diagrams import diagram_kinds
from panic.engine.stages.stage import JobStage
from panic.engine.stages.vectorisations import measures
from panic.store import Commit, Store, contents, missing
from panic.store.records import NewDistance
from panic.topology import distances_to

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

PAIRS_OF_A_JOB = 256
"""Pairs of diagrams that one job compares: 0.1 to 1 s of work."""
KEPT_DIAGRAMS = 4096
"""Diagrams that a process keeps in memory for further pairs; 2 KB each for runs of 100 points."""


@dataclass(frozen=True, slots=True)
class DistanceJob:
    """Distances of one diagram to some others by one measure, in all dimensions."""

    name: ClassVar[str] = "distances"
    diagram: int
    others: tuple[int, ...]
    measure: int
    settings: str
    dimensions: int

    @property
    def num_results(self) -> int:
        return len(self.others) * self.dimensions

    def __str__(self) -> str:
        return f"the distances of diagram {self.diagram} to {len(self.others)} others"

    def compute(self, bench: Bench) -> Commit:
        bars, *others = (_bars(bench.store, number) for number in (self.diagram, *self.others))
        found = []
        for dimension in range(self.dimensions):
            compared = [other[dimension] for other in others]
            row = distances_to(bars[dimension], compared, **json.loads(self.settings))
            for other, distance in zip(self.others, row.tolist(), strict=True):
                pair = min(self.diagram, other), max(self.diagram, other)
                found.append(NewDistance(*pair, dimension, self.measure, distance))
        return Commit(distances=found)


@lru_cache(KEPT_DIAGRAMS)
def _bars(store: Store, number: int) -> dict[int, NDArray[np.float64]]:
    return contents.diagram_bars(store, number)


class DistanceStage(JobStage[DistanceJob]):
    """Hands out the distances that the config asks for, between every run's diagrams with most points."""

    name = "distances"

    def due(self) -> Iterable[DistanceJob]:
        """Distances that pairs of diagrams lack, so many pairs of one diagram together."""
        session = self.session
        for measure, settings in measures(session, "distances"):
            for kind in diagram_kinds(session):
                dimensions = kind.settings.max_dimension + 1
                key = (session.reader, session.experiment, kind.model, kind.settings_digest)
                for one, others in missing.distances(*key, measure, dimensions):
                    for start in range(0, len(others), PAIRS_OF_A_JOB):
                        chunk = tuple(others[start : start + PAIRS_OF_A_JOB])
                        yield DistanceJob(one, chunk, measure, settings, dimensions)
