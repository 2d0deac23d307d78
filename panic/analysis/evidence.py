"""What the figures of one report rest on: one experiment, everything of it read once.

evidence = Evidence.of(store, reading.experiment(store, "latest"))
evidence.data                     # the runs that figures sum up
evidence.views                    # the embedding models that have vectors
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from panic.analysis.checks import AnalysisError
from panic.analysis.data import ExperimentData, Vectors, load
from panic.analysis.factors import trajectories
from panic.analysis.grouping import grouped_by
from panic.analysis.sampling import sample
from panic.analysis.states import States, states
from panic.analysis.strips import Thumbnails
from panic.errors import NotFound
from panic.store import Store, reading
from panic.store.codec import sound_config
from panic.store.records import ExperimentRow, SessionRow

IMAGE_BUDGET_BYTES = 3 * 2**20
SIDE = 96  # of a thumbnail in a chart, in pixels


class View(NamedTuple):
    """An embedding model, and the modality of the outputs that are looked at under it."""

    model: str
    modality: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistic:
    """What a question measures of a single run, so that null models of the run can be measured alike.

    `of`: from evidence and view to a frame of run and value; with x where a run has a value at each of
    several places, and with part where it has several values. `what`: what a value is, with its unit.
    `x_title`: what the places are; "" where there is one value a run. `is_share`: whether values are 0 or 1.
    """

    what: str
    of: Callable[[Evidence, View], pl.DataFrame]
    x_title: str = ""
    is_share: bool = False


@dataclass(kw_only=True)
class Evidence:
    """An experiment, its runs (some of them, if there are very many), its vectors, thumbnails for charts.

    `whole` has all runs; ask it for `runs`, `rows` and `bars` only, the rest may be large.
    """

    experiment: ExperimentRow
    whole: ExperimentData
    is_over: bool
    thumbnails: Thumbnails = field(repr=False)
    _states: dict[View, States] = field(default_factory=dict, repr=False)
    _zeros: dict[View, pl.DataFrame] = field(default_factory=dict, repr=False)

    @staticmethod
    def of(
        store: Store,
        experiment: ExperimentRow,
        *,
        is_over: bool = True,
        image_budget_bytes: int = IMAGE_BUDGET_BYTES,
    ) -> Evidence:
        """The evidence of a stored experiment; `is_over`: nothing more will come."""
        return Evidence(
            experiment=replace(experiment, config=sound_config(experiment.config)),
            whole=load(store, experiment.id),
            is_over=is_over,
            thumbnails=Thumbnails(store, image_budget_bytes, SIDE),
        )

    @property
    def store(self) -> Store:
        """The store that the experiment is in."""
        return self.whole.store

    @cached_property
    def data(self) -> ExperimentData:
        """The runs that figures sum up, some of them if they are very many (`sampling.spread`)."""
        return sample(self.whole)

    @cached_property
    def num_begun(self) -> int:
        """How many runs have begun, of which `data` holds all or some."""
        return sum(run.num_steps > 0 for run in self.whole.rows)

    @cached_property
    def fresh(self) -> set[int]:
        """The runs with fresh noise at every step: those that statistics of Markov chains are of."""
        return {run.id for run in self.whole.rows if run.seed == -1}

    @cached_property
    def distinct(self) -> set[int]:
        """One run of every trajectory of `data`: copies are one case of what is tested, however many."""
        return set(trajectories(self.data).unique("trajectory", keep="first")["run"])

    @cached_property
    def grouped_by(self) -> str:
        """What one of the groups of runs is that questions speak of: a network, an arm, or both."""
        return grouped_by(self.data.runs["network"])

    @cached_property
    def sessions(self) -> list[SessionRow]:
        """The sessions that worked on the experiment, oldest first."""
        return reading.sessions(self.store, self.experiment.id)

    @cached_property
    def embedding_models(self) -> list[str]:
        """The embedding models that the experiment asks for, then those that `panic embed --once` brought."""
        asked = self.experiment.config.get("embeddings", [])
        specs = {epoch.name: self.whole.model(epoch.model).spec for epoch in self.whole.epochs}
        once = [name for name, spec in specs.items() if spec.get("modality_out") == "vector"]
        return [*asked, *(name for name in once if name not in asked and len(self.data.places(name)))]

    @cached_property
    def views(self) -> list[View]:
        """The embedding models with vectors, and the modality that each is looked at under."""
        known = {epoch.name for epoch in self.whole.epochs}
        found = []
        for name in self.embedding_models:
            try:
                if name in known:
                    found.append(View(name, self.data.modality_of(name)))
            except NotFound:
                continue
        return found

    @cached_property
    def nulls(self) -> dict[tuple[str, str], Evidence]:
        """The evidence of the experiment's stored null models, by kind and modality of what they are of."""
        rows = reading.nulls(self.store, self.experiment.name)
        return {
            (row.config["null"], "image" if row.name.endswith("-images") else "text"): Evidence.of(
                self.store, row, image_budget_bytes=0
            )
            for row in rows
        }

    @property
    def states(self) -> States:
        """Clusters under the first embedding model. AnalysisError without one."""
        if not self.views:
            raise AnalysisError("There are no vectors.")
        return self.states_under(self.views[0])

    def states_under(self, view: View) -> States:
        """Clusters under an embedding model, found once. AnalysisError without outputs."""
        if view not in self._states:
            self._states[view] = states(self.data, *view)
        return self._states[view]

    def zeros(self, view: View) -> pl.DataFrame:
        """The steps (as `ExperimentData.steps`) whose outputs have a zero vector, which has no direction."""
        if view not in self._zeros:
            steps = self.data.steps(*view)
            is_zero = ~self.data.matrix(view.model)[steps["row"].to_numpy()].any(axis=1)
            self._zeros[view] = steps.filter(pl.Series(is_zero, dtype=pl.Boolean))
        return self._zeros[view]

    def paths(self, view: View, *, least: int) -> list[tuple[int, Vectors]]:
        """Distinct runs (run, vectors (n, d)) with at least so many outputs: what tests rest on.

        Runs with a zero vector are left out: they would have no steps in some places.
        """
        found = self.data.trajectories(*view, least=least)
        wanted = self.distinct - set(self.zeros(view)["run"])
        return [(run, points) for run, points in found if run in wanted]

    def directions(
        self, view: View, *, least: int = 6, most: int = 200
    ) -> list[tuple[int, NDArray[np.float64]]]:
        """Distinct runs with unit vectors (n, d) of their first `most` outputs, for surrogates on the sphere.

        Runs with fewer than `least` outputs, with a zero vector, or in fewer than 3 dimensions are left out.
        AnalysisError if that leaves none.
        """
        found = []
        for run, points in self.paths(view, least=least):
            if points.shape[1] > 2:
                lengths = np.linalg.norm(points[:most], axis=1, keepdims=True)
                found.append((run, points[:most].astype(np.float64) / lengths))
        if not found:
            raise AnalysisError(
                f"no run has {least} {view.modality} vectors of {view.model} in 3 or more dimensions"
            )
        return found


def undirected(evidence: Evidence, view: View) -> str:
    """Say how many outputs have a vector without a direction, and what is left out; "" where none has."""
    found = evidence.zeros(view)
    outputs, runs = found["output"].n_unique(), found["run"].n_unique()
    if not outputs:
        return ""
    have, are = ("has" if outputs == 1 else "have"), ("is" if runs == 1 else "are")
    return (
        f"{_counted(outputs, view.modality)} {have} no direction under {view.model} (a vector of zeros, or "
        f"not finite): no cluster has such an output, and {_counted(runs, 'run')} with one {are} left out "
        "where directions along runs are compared."
    )


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def by_run(
    measure: Callable[[NDArray[np.float32]], Any], *, least: int = 2, most: int = 400
) -> Callable[[Evidence, View], pl.DataFrame]:
    """The statistic `of` every run that has `least` vectors: a number, or an array whose places are 1, 2, ...

    `measure` takes the first `most` vectors (n, d) of a run. Runs with a zero vector among them, which has no
    direction, are left out.
    """

    def of(evidence: Evidence, view: View) -> pl.DataFrame:
        parts = [pl.DataFrame(schema={"run": pl.Int64, "x": pl.Int64, "value": pl.Float64})]
        for run, points in evidence.data.trajectories(*view, least=least):
            if not points[:most].any(axis=1).all():
                continue
            values = np.atleast_1d(np.asarray(measure(points[:most]), dtype=np.float64))
            places = np.arange(1, len(values) + 1)
            parts.append(pl.DataFrame({"run": np.full(len(values), run), "x": places, "value": values}))
        return pl.concat(parts).with_columns(pl.col("value").fill_nan(None))

    return of


def once(evidence: Evidence) -> Sequence[View | None]:
    """A question is asked once, of the experiment as a whole."""
    return [None]


def first_model(evidence: Evidence) -> Sequence[View | None]:
    """A question is asked under the first embedding model, if there is one with vectors."""
    return evidence.views[:1]


def each_model(evidence: Evidence) -> Sequence[View | None]:
    """A question is asked under every embedding model that has vectors."""
    return evidence.views
