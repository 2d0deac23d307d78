"""Polars frames of what a store holds about one experiment: the input of charts and of sentences.

with Store("panic-store") as store:
    drift(store, reading.experiment(store, "latest"), "PocketText")
"""

from __future__ import annotations

import numpy as np
import polars as pl

from panic.analysis.loading import ARROW, Frames, load
from panic.store import Store, contents, reading
from panic.store.records import ExperimentRow, RunRow

__all__ = [
    "Frames", "bars", "continued", "drift", "drift_bands", "load", "network_name", "spread", "thinned",
    "times",
]  # fmt: skip


def network_name(network: tuple[str, ...] | list[str]) -> str:
    """A network as people read it."""
    return ARROW.join(network)


def spread(runs: list[RunRow], limit: int) -> list[RunRow]:
    """At most `limit` runs, as evenly as can be over networks and prompts, in their order."""
    groups: dict[tuple[tuple[str, ...], str], list[RunRow]] = {}
    for run in runs:
        groups.setdefault((run.network, run.prompt), []).append(run)
    turns = [(turn, run.id) for group in groups.values() for turn, run in enumerate(group)]
    chosen = {run for _, run in sorted(turns)[:limit]}
    return [run for run in runs if run.id in chosen]


def drift(
    store: Store, experiment: ExperimentRow, model: int | str, *, modality: str = "text", max_runs: int = 300
) -> pl.DataFrame:
    """How far every output of a modality is from its run's start: columns as in DRIFT, by run and step.

    `distance`: cosine distance of a text from the run's prompt, of a picture from its first picture (a text
    and a picture of the same thing are far apart even under a model that reads both). `step_size`: that from
    the output of the same modality before, null for the first. `is_known`: a step that a stuck run was spared
    (`continued`); leaving those out would let the moving runs alone speak for the late steps.
    Of at most `max_runs` runs; outputs without a vector, and runs without one of their start, are missing.
    """
    chosen = spread([run for run in reading.runs(store, experiment.id) if run.num_steps], max_runs)
    data = load(store, runs=[run.id for run in chosen])
    place = data.embeddings(model).select("output").with_row_index("row")
    steps = (
        data.invocations.filter(pl.col("modality").cast(pl.String) == modality)
        .join(place, on="output")
        .sort("run", "step")
        .join(_starts(data, place, modality), on="run", maintain_order="left")
    )
    if steps.is_empty():
        return pl.DataFrame(schema=DRIFT)
    matrix = data.matrix(model).astype(np.float64)
    unit = matrix / np.maximum(np.linalg.norm(matrix, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    stored = data.runs.select("run", "num_steps")
    found = (
        continued(steps.select("run", "step", "row", "start"), data.runs)
        .with_columns(before=pl.col("row").shift(1).over("run"))
        .join(stored, on="run", maintain_order="left")
        .join(data.runs.select("run", "network"), on="run", maintain_order="left")
    )
    return found.select(
        "network",
        "run",
        "step",
        distance=pl.Series(_cosine_distances(unit, found["row"], found["start"])),
        step_size=pl.Series(_cosine_distances(unit, found["row"], found["before"])).fill_nan(None),
        is_known=pl.col("step") >= pl.col("num_steps"),
    ).cast(DRIFT)  # type: ignore[arg-type]


def _starts(data: Frames, place: pl.DataFrame, modality: str) -> pl.DataFrame:
    """What each run's outputs are measured from: run, start (a row of the matrix)."""
    if modality == "text":
        prompts = data.outputs.filter(pl.col("modality") == "text").select("output", prompt="text")
        found = data.runs.select("run", "prompt").join(prompts, on="prompt").join(place, on="output")
    else:
        of_kind = data.invocations.filter(pl.col("modality").cast(pl.String) == modality)
        first = of_kind.sort("run", "step").group_by("run", maintain_order=True).first()
        found = first.join(place, on="output")
    return found.select("run", start="row")


def _cosine_distances(unit: np.ndarray, a: pl.Series, b: pl.Series) -> np.ndarray:
    """Half the squared distances of rows of unit vectors, which loses no digits; NaN where b is null."""
    at = b.fill_null(0).to_numpy()
    found: np.ndarray = ((unit[a.to_numpy()] - unit[at]) ** 2).sum(axis=1) / 2
    return np.where(b.is_null().to_numpy(), np.nan, found)


DRIFT = {
    "network": pl.String,
    "run": pl.Int64,
    "step": pl.Int64,
    "distance": pl.Float64,
    "step_size": pl.Float64,
    "is_known": pl.Boolean,
}


def drift_bands(frame: pl.DataFrame, value: str = "distance") -> pl.DataFrame:
    """Median and quartiles of a column of `drift` over runs: network, step, low, median, high, num_runs."""
    return (
        frame.filter(pl.col(value).is_not_null())
        .group_by("network", "step")
        .agg(
            low=pl.col(value).quantile(0.25, "linear"),
            median=pl.col(value).median(),
            high=pl.col(value).quantile(0.75, "linear"),
            num_runs=pl.len(),
        )
        .sort("network", "step")
    )


def continued(steps: pl.DataFrame, runs: pl.DataFrame, *, limit: int = 20_000) -> pl.DataFrame:
    """Steps (run, step and what they hold) with those that stuck runs were spared: their known future.

    A stuck run repeats the steps of its cycle up to its full length, or to `limit`. `runs` as `Frames.runs`
    gives them. Sorted by run and step.
    """
    stuck = runs.filter(pl.col("period").is_not_null()).select(
        "run", "num_steps", "max_length", "entry_step", "period"
    )
    cycle = steps.join(stuck, on="run").filter(
        pl.col("step").is_between("entry_step", pl.col("entry_step") + pl.col("period"), closed="left")
    )
    later = (
        cycle.with_columns(
            step=pl.int_ranges(
                pl.col("step") + pl.col("period"),
                pl.col("max_length").clip(upper_bound=limit),
                pl.col("period"),
            )
        )
        .explode("step")
        .filter(pl.col("step") >= pl.col("num_steps"))
        .select(steps.columns)
        .cast(dict(steps.schema))  # type: ignore[arg-type]
    )
    return pl.concat([steps, later]).sort("run", "step")


def thinned(frame: pl.DataFrame, max_steps: int) -> pl.DataFrame:
    """Only so many different steps, evenly chosen, the last one among them."""
    steps = frame["step"].unique().sort()
    if len(steps) <= max_steps:
        return frame
    kept = np.unique(np.linspace(0, len(steps) - 1, max_steps).round().astype(int))
    return frame.filter(pl.col("step").is_in(steps.gather(kept).implode()))


def bars(store: Store, experiment: ExperimentRow) -> pl.DataFrame:
    """One row per bar of every run's largest diagram: model, network, run, dimension, birth, death."""
    data = load(store, experiment.id)
    networks = data.runs.select("run", "network")
    found = data.bars.join(networks, on="run", maintain_order="left").select(list(BARS))
    return found.cast(BARS)  # type: ignore[arg-type]


BARS = {
    "model": pl.String,
    "network": pl.String,
    "run": pl.Int64,
    "dimension": pl.Int64,
    "birth": pl.Float64,
    "death": pl.Float64,
}


def times(store: Store, experiment: ExperimentRow) -> pl.DataFrame:
    """Seconds of work: stage, name, seconds, calls, items; longest first."""
    networks = {name for run in experiment.config.get("networks", []) for name in run}
    rows = [
        ("loops" if t.model in networks else "embeddings", t.model, t.duration_s, t.batches, t.items)
        for t in reading.model_times(store, experiment.id)
    ]
    diagrams = contents.diagrams(store, experiment.id)
    if diagrams:
        total = sum(d.duration_s for d in diagrams)
        rows.append(("diagrams", "persistence diagrams", total, len(diagrams), len(diagrams)))
    schema = {
        "stage": pl.String,
        "name": pl.String,
        "seconds": pl.Float64,
        "calls": pl.Int64,
        "items": pl.Int64,
    }
    return pl.DataFrame(rows, schema=schema, orient="row").sort("seconds", descending=True)
