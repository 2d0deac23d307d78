"""The diagrams stage: a persistence diagram of every complete run, per embedding model and settings.

Diagrams are computed as soon as a run is complete and has its vectors, in processes beside the models.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple

from panic.config import DiagramSettings
from panic.engine.pool import Bench
from panic.engine.progress import Progress
from panic.engine.session import Session
from panic.engine.stages.stage import JobStage
from panic.store import Commit, contents, missing
from panic.store.records import NewDiagram
from panic.topology import Budget, asked

LOOKUP_EVERY_S = 0.5
LOOKUP_SHARE = 0.05
"""Most of the driver's time that may go into asking the store which diagrams are due."""


@dataclass(frozen=True, slots=True)
class DiagramJob:
    """The diagram of one run under one embedding model and one of the experiment's settings."""

    name: ClassVar[str] = "diagrams"
    run: int
    model: int
    setting: int

    @property
    def num_results(self) -> int:
        return 1

    def __str__(self) -> str:
        return f"the diagram of run {self.run}"

    def compute(self, bench: Bench) -> Commit:
        """Raises TopologyError with the arithmetic for a cloud that needs more memory than there is."""
        settings = bench.settings[self.setting]
        vectors = contents.run_vectors(bench.store, self.run, self.model, settings.modality)
        start = time.perf_counter()
        result = asked(vectors, settings, Budget(memory_bytes=bench.memory_bytes))
        row = NewDiagram(
            run=self.run,
            model=self.model,
            settings=settings.key,
            settings_digest=settings.digest,
            num_points=len(vectors),
            num_unique=result.num_unique,
            bars={dimension: result.bars(dimension) for dimension in range(settings.max_dimension + 1)},
            generators=dict(enumerate(result.generators or ())),
            error=result.error,
            duration_s=time.perf_counter() - start,
        )
        return Commit(diagrams=[row])


class DiagramStage(JobStage[DiagramJob]):
    """Hands out the diagrams of complete runs that have their vectors."""

    name = "diagrams"
    _next_lookup_at = 0.0

    def refill(self, *, thorough: bool) -> int:
        """Submit the diagrams that the store lacks; does nothing if it is asked too often."""
        start = time.monotonic()
        if not thorough and start < self._next_lookup_at:
            return 0
        found = self.submit_due()
        now = time.monotonic()
        self._next_lookup_at = now + max(LOOKUP_EVERY_S, (now - start) / LOOKUP_SHARE)
        return found

    def progress(self, before: Progress) -> Progress:
        """How far diagrams are; while the first process compiles, that is told and nothing else happens."""
        now = super().progress(before)
        return replace(now, message="diagrams: preparing") if self._pool.is_preparing else now

    def due(self) -> Iterable[DiagramJob]:
        """Diagrams of runs that are complete and have all vectors."""
        session = self.session
        for kind in diagram_kinds(session):
            window = kind.settings.window
            for run in missing.diagrams(
                session.reader,
                session.experiment,
                kind.model,
                kind.settings_digest,
                kind.settings.modality,
                min_points=1 if window is None else window.span,
            ):
                yield DiagramJob(run, kind.model, kind.setting)


class DiagramKind(NamedTuple):
    """Diagrams of an experiment under one embedding model (its row) and one of its settings (their place)."""

    model: int
    setting: int
    settings: DiagramSettings
    settings_digest: str


def diagram_kinds(session: Session) -> Iterator[DiagramKind]:
    """The kinds of diagrams that a session's config asks for."""
    plan = session.plan
    for place, settings in enumerate(plan.config.diagrams):
        for name, spec in plan.embedding.items():
            if settings.modality in spec.modalities_in:
                yield DiagramKind(session.pins[name].model, place, settings, settings.digest)
