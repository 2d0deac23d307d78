"""The stages behind the embeddings: persistence diagrams of complete runs, then what is taken of them.

Diagrams are computed as soon as a run is complete and has its vectors, in processes beside the models.
Vectorisations and distances come when there are no more diagrams to come: a run that has grown has another
diagram then. Each stage asks the store what it lacks, so a killed one goes on.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from panic.config import DiagramSettings, ExperimentConfig
from panic.engine.pending import Pending
from panic.engine.plan import Plan
from panic.engine.pool import Answer, Bench, Pool, Task
from panic.engine.progress import Progress
from panic.engine.writer import Entry
from panic.store import Store
from panic.store.records import NewDiagram, NewDistance, NewVectorisation
from panic.topology import Budget, diagram, distances_to, sliding_window, vectorise

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

log = logging.getLogger("panic.engine")

MAX_RETRIES = 2
LOOKUP_EVERY_S = 0.5
LOOKUP_SHARE = 0.05
"""Most of the driver's time that may go into asking the store which diagrams are due."""
PAIRS_OF_A_TASK = 256
"""Pairs of diagrams that one task compares: 0.1 to 1 s of work."""
KEPT_DIAGRAMS = 4096
"""Diagrams that a process keeps in memory for further pairs; 2 KB each for runs of 100 points."""

Measures = tuple[tuple[int, str], ...]
"""Rows of measures with their settings as JSON."""


@dataclass(frozen=True, slots=True)
class DiagramTask:
    """The diagram of one run under one embedding model."""

    run: int
    model: int
    attempts: int = 0

    @property
    def num_results(self) -> int:
        return 1

    def __str__(self) -> str:
        return f"the diagram of run {self.run}"

    def compute(self, bench: Bench) -> Entry:
        """Raises TopologyError with the arithmetic for a cloud that needs more memory than there is."""
        settings = bench.settings
        vectors = bench.store.run_vectors(self.run, self.model, settings.modality)
        start = time.perf_counter()
        window = settings.window
        result = diagram(
            vectors if window is None else sliding_window(vectors, window.dimension, window.delay),
            max_dimension=settings.max_dimension,
            metric=settings.metric,
            threshold=settings.threshold or float("inf"),
            landmarks=settings.landmarks,
            generators=settings.generators,
            budget=Budget(memory_bytes=bench.memory_bytes),
        )
        row = NewDiagram(
            run=self.run,
            model=self.model,
            settings=settings.key,
            settings_digest=settings_digest(settings),
            num_points=len(vectors),
            num_unique=result.num_unique,
            bars={dimension: result.bars(dimension) for dimension in range(settings.max_dimension + 1)},
            generators=dict(enumerate(result.generators or ())),
            error=result.error,
            duration_s=time.perf_counter() - start,
        )
        return Entry(diagrams=[row])


@dataclass(frozen=True, slots=True)
class VectorisationTask:
    """Vectorisations of one diagram, in all of its dimensions."""

    diagram: int
    measures: Measures
    dimensions: int
    attempts: int = 0

    @property
    def num_results(self) -> int:
        return len(self.measures) * self.dimensions

    def __str__(self) -> str:
        return f"vectorisations of diagram {self.diagram}"

    def compute(self, bench: Bench) -> Entry:
        return Entry(
            vectorisations=[
                NewVectorisation(
                    diagram=self.diagram,
                    dimension=dimension,
                    measure=measure,
                    vector=vectorise(bars, **json.loads(settings)),
                )
                for dimension, bars in bench.store.diagram_bars(self.diagram).items()
                for measure, settings in self.measures
            ]
        )


@dataclass(frozen=True, slots=True)
class DistanceTask:
    """Distances of one diagram to some others by one measure, in all dimensions."""

    diagram: int
    others: tuple[int, ...]
    measure: int
    settings: str
    dimensions: int
    attempts: int = 0

    @property
    def num_results(self) -> int:
        return len(self.others) * self.dimensions

    def __str__(self) -> str:
        return f"the distances of diagram {self.diagram} to {len(self.others)} others"

    def compute(self, bench: Bench) -> Entry:
        bars, *others = (_bars(bench.store, number) for number in (self.diagram, *self.others))
        found = []
        for dimension in range(self.dimensions):
            compared = [other[dimension] for other in others]
            row = distances_to(bars[dimension], compared, **json.loads(self.settings))
            for other, distance in zip(self.others, row.tolist(), strict=True):
                pair = min(self.diagram, other), max(self.diagram, other)
                found.append(NewDistance(*pair, dimension, self.measure, distance))
        return Entry(distances=found)


@lru_cache(KEPT_DIAGRAMS)
def _bars(store: Store, number: int) -> dict[int, NDArray[np.float64]]:
    return store.diagram_bars(number)


def settings_digest(settings: DiagramSettings) -> str:
    """Identifies diagram settings: SHA-256 (hex) of their canonical JSON."""
    text = json.dumps(settings.key, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


class Stage:
    """One kind of tasks: finds those that are due and keeps account of them.

    Args:
        find: the tasks whose results the store lacks.
    """

    def __init__(self, pool: Pool, find: Callable[[], Iterable[Task]]) -> None:
        self._pool, self._find = pool, find
        self._pending: Pending[Task] = Pending()
        self.num_busy = 0
        self.num_found = 0
        self.num_done = 0

    def refill(self, committed: int) -> int:
        """Start what the store lacks; how many tasks."""
        self._pending.settle(committed)
        found = 0
        for task in self._find():
            if self._pending.claim(task):
                self._pool.submit(task)
                self.num_found += task.num_results
                found += 1
        self.num_busy += found
        return found

    def again(self, task: Any) -> None:
        """Try a task once more."""
        self._pool.submit(replace(task, attempts=task.attempts + 1))

    def done(self, task: Task) -> None:
        self.num_busy -= 1
        self.num_done += task.num_results

    def written(self, task: Any, entry_number: int) -> None:
        """The task's results were handed to the writer."""
        self._pending.written([replace(task, attempts=0)], entry_number)


class DiagramStages:
    """Diagrams, vectorisations and distances of one experiment.

    Args:
        store: for reading.
        models: rows of the embedding models.
        vectorisations, distances: rows of these measures, and their settings.
    """

    def __init__(
        self,
        pool: Pool,
        store: Store,
        experiment: int,
        models: Sequence[int],
        settings: DiagramSettings,
        vectorisations: Measures = (),
        distances: Measures = (),
    ) -> None:
        self._store, self._experiment, self._models, self._settings = store, experiment, models, settings
        self._digest, self._dimensions = settings_digest(settings), settings.max_dimension + 1
        self._measures = {VectorisationTask: vectorisations, DistanceTask: distances}
        self.diagrams = Stage(pool, self._due_diagrams)
        self.vectorisations = Stage(pool, self._due_vectorisations)
        self.distances = Stage(pool, self._due_distances)
        self._stages: dict[type, Stage] = {
            DiagramTask: self.diagrams,
            VectorisationTask: self.vectorisations,
            DistanceTask: self.distances,
        }
        self._next_lookup_at = 0.0
        self.given_up: list[str] = []

    @property
    def num_busy(self) -> int:
        """Tasks at the pool."""
        return sum(stage.num_busy for stage in self._stages.values())

    def refill(self, committed: int, *, force: bool = False) -> int:
        """Start the diagrams that the store lacks; how many. Does nothing if asked too often."""
        start = time.monotonic()
        if not force and start < self._next_lookup_at:
            return 0
        found = self.diagrams.refill(committed)
        now = time.monotonic()
        self._next_lookup_at = now + max(LOOKUP_EVERY_S, (now - start) / LOOKUP_SHARE)
        return found

    def refill_last(self, committed: int) -> int:
        """Start the vectorisations and distances that the store lacks, once no more diagrams come."""
        return self.vectorisations.refill(committed) + self.distances.refill(committed)

    def absorb(self, answer: Answer) -> Entry | None:
        """Take an answer; a task is tried again if its process ended, and given up if it failed otherwise."""
        stage = self._stages[type(answer.task)]
        if answer.entry is not None:
            stage.done(answer.task)
        elif answer.crashed and answer.task.attempts < MAX_RETRIES:
            stage.again(answer.task)
        else:
            stage.num_busy -= 1
            self.given_up.append(f"{answer.task}: {answer.problem}")
        return answer.entry

    def written(self, answer: Answer, entry_number: int) -> None:
        """The answer's results were handed to the writer."""
        self._stages[type(answer.task)].written(answer.task, entry_number)

    def progress(self, before: Progress) -> Progress:
        """What there is of each stage by now, and what has been found missing so far plus what there was."""
        return replace(
            before,
            diagrams=before.diagrams + self.diagrams.num_done,
            diagrams_total=before.diagrams + self.diagrams.num_found,
            vectorisations=before.vectorisations + self.vectorisations.num_done,
            vectorisations_total=before.vectorisations + self.vectorisations.num_found,
            distances=before.distances + self.distances.num_done,
            distances_total=before.distances + self.distances.num_found,
        )

    def _due_diagrams(self) -> Iterable[Task]:
        window = self._settings.window
        for model in self._models:
            for run in self._store.ready_for_diagram(
                self._experiment,
                model,
                self._digest,
                self._settings.modality,
                min_points=1 if window is None else window.span,
            ):
                yield DiagramTask(run, model)

    def _due_vectorisations(self) -> Iterable[Task]:
        settings_of = dict(self._measures[VectorisationTask])
        for model in self._models if settings_of else ():
            key = (self._experiment, model, self._digest)
            for number, lacking in self._store.missing_vectorisations(*key, list(settings_of)):
                measures = tuple((measure, settings_of[measure]) for measure in lacking)
                yield VectorisationTask(number, measures, self._dimensions)

    def _due_distances(self) -> Iterable[Task]:
        for measure, settings in self._measures[DistanceTask]:
            for model in self._models:
                key = (self._experiment, model, self._digest, measure, self._dimensions)
                for one, others in self._store.missing_distances(*key):
                    for start in range(0, len(others), PAIRS_OF_A_TASK):
                        chunk = tuple(others[start : start + PAIRS_OF_A_TASK])
                        yield DistanceTask(one, chunk, measure, settings, self._dimensions)


def warn_of_short_runs(plan: Plan) -> None:
    """Say which networks' runs have fewer outputs than one window of the diagrams spans: they have none."""
    settings = plan.config.diagrams
    if settings is None or settings.window is None:
        return
    window = settings.window
    for network in dict.fromkeys(run.network for run in plan.runs):
        writes = [str(plan.specs[name].modality_out) == settings.modality for name in network]
        most = max(run.max_length for run in plan.runs if run.network == network)
        whole, rest = divmod(most, len(network))
        if (num_points := whole * sum(writes) + sum(writes[:rest])) < window.span:
            log.warning(
                "%s: a run has %d %s outputs, and a window of the diagrams spans %d: no run has a diagram",
                " → ".join(network), num_points, settings.modality, window.span,
            )  # fmt: skip


def add_measures(store: Store, config: ExperimentConfig) -> tuple[Measures, Measures]:
    """The rows of a config's vectorisations and distances, added where they are new, with their settings."""
    vectorisations, distances = (
        tuple((store.add_measure(part.key), json.dumps(part.key)) for part in parts)
        for parts in (config.vectorisations, config.distances)
    )
    return vectorisations, distances
