"""Figures of motion: drift from the prompt, distance by lag, twins that part."""

from __future__ import annotations

import polars as pl

from panic.analysis import charts, frames, readings, tables
from panic.analysis.checks import AnalysisError
from panic.analysis.figures.figure import MAX_RUNS, Figure, Material, drawn
from panic.store import reading

MAX_LINES = 60  # runs drawn singly
MAX_STEPS = 200  # places on an axis
MAX_LAG = 24
NUM_SHUFFLES = 60
TITLES = {"text": "Drift of the texts from the prompt", "image": "Drift of the pictures"}
STARTS = {"text": "the prompt", "image": "the first picture"}


def drift_figures(material: Material) -> list[Figure]:
    """Drift of texts from the prompt and of pictures from the first one, with step sizes, by model."""
    title = "Drift"
    store, experiment = material.store, material.experiment
    names = experiment.config.get("embeddings", [])
    if not names:
        return [
            Figure(title=title, missing="The config asks for no embeddings, so there is nothing to measure.")
        ]
    epochs = {epoch.name: epoch.model for epoch in reading.epochs(store, experiment.id)}
    figures, absent = [], []
    begun = sum(run.num_steps > 0 for run in reading.runs(store, experiment.id))
    some = f" This is of {MAX_RUNS} of {begun:,} runs." if begun > MAX_RUNS else ""
    for name in names:
        found = False
        for modality in ("text", "image"):
            if name not in epochs:
                continue
            frame = frames.drift(store, experiment, epochs[name], modality=modality, max_runs=MAX_RUNS)
            if frame.is_empty():
                continue
            found = True
            figures.append(_drift(f"{TITLES[modality]} · {name}", frame, modality, some))
        if not found:
            absent.append(name)
    if absent:
        later = "" if material.is_over else " yet"
        missing = f"No vectors of prompts and texts, or of pictures, under {', '.join(absent)}{later}."
        figures.append(Figure(title=title, missing=missing))
    return figures


def _drift(title: str, frame: pl.DataFrame, modality: str, some: str) -> Figure:
    start = STARTS[modality]
    thin = frames.thinned(frame, MAX_STEPS)
    bands, lines = frames.drift_bands(thin), _some_lines(thin)
    distance = f"cosine distance from {start}"
    specs = [charts.spec(charts.drift(bands, lines, f"from {start}", value_title=distance), title=True)]
    steps = frames.drift_bands(thin, "step_size")
    if not steps.is_empty():
        sizes = charts.drift(
            steps,
            lines.filter(pl.col("step_size").is_not_null()),
            f"from one {modality} to the next",
            value="step_size",
            value_title=f"cosine distance from the {modality} before",
        )
        specs.append(charts.spec(sizes, title=True))
    if frame["step"].n_unique() > 3:
        ridges = charts.drift_ridgeline(frame, "stretch by stretch", value_title=distance)
        specs.append(charts.spec(ridges, title=True))
    return Figure(
        title=title,
        specs=tuple(specs),
        reading=readings.drift_reading(bands, modality) + readings.step_reading(steps, modality) + some,
        caveat=readings.DRIFT_CAVEATS[modality],
    )


def _some_lines(frame: pl.DataFrame) -> pl.DataFrame:
    """The single runs to draw: some of every network."""
    runs = frame.select("network", "run").unique(maintain_order=True)
    turn = runs.with_columns(turn=pl.int_range(pl.len()).over("network")).sort("turn", maintain_order=True)
    return frame.filter(pl.col("run").is_in(turn["run"].head(MAX_LINES).implode()))


def lag_figures(material: Material) -> list[Figure]:
    """D(k) under every embedding model, within one modality."""

    def draw(title: str, model: str, modality: str) -> Figure:
        curves = tables.lag_curves(material.data, model, modality, MAX_LAG, num_surrogates=NUM_SHUFFLES)
        return Figure(
            title=title,
            specs=(charts.spec(charts.distance_by_lag(curves)),),
            reading=readings.lag_reading(curves, modality),
            caveat=readings.LAG_CAVEAT,
        )

    return [
        drawn(title, lambda t=title, n=name, m=modality: draw(t, n, m))  # type: ignore[misc]
        for name, modality in material.models
        for title in [f"Does it wander or come back? · {name}"]
    ]


def twin_figures(material: Material) -> list[Figure]:
    """Distances of runs that differ in their noise alone, under the first embedding model."""
    if not material.models:
        return []
    name, modality = material.models[0]
    pairs = tables.twins(material.data, name, modality)
    if pairs.is_empty() or pairs["distance"].max() == 0:
        return []
    try:
        fit = tables.growth(pairs)
        why = ""
    except AnalysisError as error:
        fit, why = None, error.message
    chart = charts.divergence(pairs, fit=fit)
    return [
        Figure(
            title=f"How fast runs of one prompt part · {name}",
            specs=(charts.spec(chart),),
            reading=readings.twin_reading(pairs, fit, why),
            caveat=readings.TWIN_CAVEAT,
        )
    ]
