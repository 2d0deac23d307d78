"""The figures of a report: charts with a sentence on what they show and one on what they do not.

A figure that cannot be drawn yet says why.

    all_figures(store, store.experiment("latest"), store.sessions("latest"), is_over=True)
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import polars as pl

from panic.analysis import charts, frames, readings
from panic.store import Store
from panic.store.records import ExperimentRow, SessionRow

MAX_RUNS = 300  # that a drift chart sums up
MAX_LINES = 60  # of them drawn singly
MAX_STEPS = 200  # places on its axis
MAX_POINTS = 2000  # of one persistence diagram


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """Charts that belong together, what they show and what they do not; `missing`: why there are none."""

    title: str
    specs: tuple[dict[str, Any], ...] = ()
    reading: str = ""
    caveat: str = ""
    missing: str = ""


def all_figures(
    store: Store, experiment: ExperimentRow, sessions: list[SessionRow], *, is_over: bool
) -> list[Figure]:
    """Work, drift and diagrams; what is missing comes later unless the experiment `is_over`."""
    return [
        time_figure(store, experiment, sessions),
        *drift_figures(store, experiment, is_over),
        *diagram_figures(store, experiment, is_over),
    ]


def time_figure(store: Store, experiment: ExperimentRow, sessions: list[SessionRow]) -> Figure:
    frame = frames.times(store, experiment)
    title = "What took how long"
    if frame.is_empty():
        return Figure(title=title, missing="No model has been called yet.")
    wall_s = sum(
        (s.ended_at or time.time()) - s.started_at for s in sessions if s.ended_at or s.end_state is None
    )
    return Figure(
        title=title,
        specs=(charts.spec(charts.time_by_model(frame)),),
        reading=readings.time_reading(frame, wall_s),
        caveat=readings.TIME_CAVEAT,
    )


def drift_figures(store: Store, experiment: ExperimentRow, is_over: bool) -> list[Figure]:
    """Drift of the texts from the prompt, one figure per embedding model that reads texts."""
    title = "Drift from the prompt"
    names = experiment.config.get("embeddings", [])
    if not names:
        return [
            Figure(title=title, missing="The config asks for no embeddings, so there is nothing to measure.")
        ]
    epochs = {epoch.name: epoch.model for epoch in store.epochs(experiment.id)}
    figures, absent = [], []
    begun = sum(run.num_steps > 0 for run in store.runs(experiment.id))
    some = f" This is of {MAX_RUNS} of {begun:,} runs." if begun > MAX_RUNS else ""
    for name in names:
        frame = (
            frames.drift(store, experiment, epochs[name], max_runs=MAX_RUNS)
            if name in epochs
            else pl.DataFrame()
        )
        if frame.is_empty():
            absent.append(name)
            continue
        bands = frames.drift_bands(frames.thinned(frame, MAX_STEPS))
        lines = _some_lines(frames.thinned(frame, MAX_STEPS))
        figures.append(
            Figure(
                title=f"{title} · {name}",
                specs=(charts.spec(charts.drift(bands, lines)),),
                reading=readings.drift_reading(bands) + some,
                caveat=readings.DRIFT_CAVEAT,
            )
        )
    if absent:
        later = "" if is_over else " yet"
        missing = f"No vectors of prompts and texts under {', '.join(absent)}{later}."
        figures.append(Figure(title=title, missing=missing))
    return figures


def _some_lines(frame: pl.DataFrame) -> pl.DataFrame:
    """The single runs to draw: some of every network."""
    runs = frame.select("network", "run").unique(maintain_order=True)
    turn = runs.with_columns(turn=pl.int_range(pl.len()).over("network")).sort("turn", maintain_order=True)
    return frame.filter(pl.col("run").is_in(turn["run"].head(MAX_LINES).implode()))


def diagram_figures(store: Store, experiment: ExperimentRow, is_over: bool) -> list[Figure]:
    """Persistence diagrams by embedding model: one chart per network, all on the same axes."""
    title = "Persistence diagrams"
    if not experiment.config.get("diagrams"):
        return [Figure(title=title, missing="The config asks for no diagrams.")]
    bars = frames.bars(store, experiment)
    if bars.is_empty():
        later = "" if is_over else " yet"
        return [Figure(title=title, missing=f"No diagrams have been computed{later}.")]
    figures = []
    for (model,), of_model in bars.group_by("model", maintain_order=True):
        finite = of_model.filter(pl.col("death").is_finite())
        longest = finite.sort(pl.col("death") - pl.col("birth"), descending=True)
        largest = float(finite["death"].max() or 0.0)  # type: ignore[arg-type]
        specs, cut, pointlike = [], 0, []
        for (network,), of_network in of_model.group_by("network", maintain_order=True):
            drawn = longest.filter(pl.col("network") == network)
            if drawn.is_empty():
                pointlike.append(str(network))
                continue
            cut += max(0, len(drawn) - MAX_POINTS)
            runs = of_network["run"].n_unique()
            name = f"{network}  ({runs:,} run{'s' if runs != 1 else ''})"
            specs.append(charts.spec(charts.persistence(drawn.head(MAX_POINTS), name, largest)))
        reading = readings.diagram_reading(of_model) + " Bars that never end are not drawn."
        if specs and pointlike:
            reading += f" Every run of {', '.join(pointlike)} is a single point."
        if cut:
            reading += f" The {cut:,} shortest bars are not drawn."
        figures.append(
            Figure(
                title=f"{title} · {model}",
                specs=tuple(specs),
                reading=reading,
                caveat=readings.DIAGRAM_CAVEAT,
            )
        )
    return figures
