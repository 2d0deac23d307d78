"""What a figure is, and what figures are made of.

Material.of(store, reading.experiment(store, "latest"), is_over=True)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import polars as pl

from panic.analysis import charts, frames, readings, tables
from panic.analysis.checks import AnalysisError
from panic.analysis.loading import Frames, load
from panic.analysis.strips import Thumbnails
from panic.errors import NotFound
from panic.store import Store, reading
from panic.store.records import ExperimentRow, SessionRow

MAX_RUNS = 300  # that figures sum up
MAX_TOTAL_STEPS = 100_000  # of these runs together
PICTURE_BUDGET_BYTES = 3 * 2**20
SIDE = 96


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """Charts that belong together, what they show and what they do not; `missing`: why there are none."""

    title: str
    specs: tuple[dict[str, Any], ...] = ()
    reading: str = ""
    caveat: str = ""
    missing: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Band:
    """What a null band adds to a figure: a chart and a sentence, or nothing."""

    specs: tuple[dict[str, Any], ...] = ()
    readings: tuple[str, ...] = ()


@dataclass(kw_only=True)
class Material:
    """An experiment, its runs as frames (some of them, if there are very many), thumbnails for charts."""

    store: Store
    experiment: ExperimentRow
    sessions: list[SessionRow]
    is_over: bool
    thumbnails: Thumbnails = field(repr=False)

    @staticmethod
    def of(
        store: Store,
        experiment: ExperimentRow,
        *,
        is_over: bool,
        picture_budget_bytes: int = PICTURE_BUDGET_BYTES,
    ) -> Material:
        return Material(
            store=store,
            experiment=experiment,
            sessions=reading.sessions(store, experiment.id),
            is_over=is_over,
            thumbnails=Thumbnails(store, picture_budget_bytes, SIDE),
        )

    @cached_property
    def all_runs(self) -> Frames:
        """All runs; ask it for `runs` only, the rest may be large."""
        return load(self.store, self.experiment.id)

    @cached_property
    def data(self) -> Frames:
        """The runs that figures sum up, evenly chosen over networks and prompts."""
        return load(self.store, runs=self.some_runs(self.experiment.id))

    def some_runs(self, experiment: int) -> list[int]:
        """Runs of an experiment, evenly chosen over networks and prompts, if there are very many."""
        begun = [run for run in reading.runs(self.store, experiment) if run.num_steps]
        longest = max((run.num_steps for run in begun), default=1)
        limit = max(12, min(MAX_RUNS, MAX_TOTAL_STEPS // longest))
        return [run.id for run in frames.spread(begun, limit)]

    @cached_property
    def models(self) -> list[tuple[str, str]]:
        """Embedding models with vectors, and the modality that each is looked at under."""
        epochs = {epoch.name: epoch.model for epoch in reading.epochs(self.store, self.experiment.id)}
        found = []
        for name in self.experiment.config.get("embeddings", []):
            try:
                found.append((name, tables.modality_of(self.data, epochs[name])))
            except (KeyError, NotFound):
                continue
        return found

    @cached_property
    def states(self) -> tables.States:
        """Clusters under the first embedding model. AnalysisError without one."""
        if not self.models:
            raise AnalysisError("There are no vectors.")
        return tables.clusters(self.data, *self.models[0])


def banded(draw: Callable[[], pl.DataFrame], title: str, value_title: str, what: tuple[str, str]) -> Band:
    """The chart and the reading of a table of `against_chance`; empty where there is no band to draw."""
    try:
        table = draw()
    except AnalysisError:  # too short, too few dimensions, or nothing ever left: the rest stands for itself
        return Band()
    chart = charts.null_band(table, title, value_title=value_title)
    return Band(specs=(charts.spec(chart, title=True),), readings=(readings.band_reading(table, what),))


def drawn(title: str, draw: Callable[[], Figure]) -> Figure:
    """What `draw` makes, or a figure that tells why it could not."""
    try:
        return draw()
    except (AnalysisError, NotFound) as error:
        text = error.message[:1].upper() + error.message[1:]
        return Figure(title=title, missing=text if text.endswith(".") else f"{text}.")
