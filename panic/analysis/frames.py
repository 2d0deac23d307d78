"""Polars frames of what a store holds about one experiment: the input of charts and of sentences.

with Store("panic-store") as store:
    drift(store, store.experiment("latest"), "PocketText")
"""

from __future__ import annotations

import numpy as np
import polars as pl

from panic.analysis.loading import ARROW, Frames, load
from panic.store import Store
from panic.store.digest import text_digest
from panic.store.records import ExperimentRow, RunRow, Vectors

__all__ = ["Frames", "bars", "drift", "drift_bands", "load", "network_name", "spread", "thinned", "times"]


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


def drift(store: Store, experiment: ExperimentRow, model: int | str, *, max_runs: int = 300) -> pl.DataFrame:
    """Cosine distance of every text from its run's prompt: network, run, step, distance, is_known.

    Of at most `max_runs` runs. A stuck run is continued by its cycle up to its full length (`is_known`):
    its future is known, and leaving it out would let the moving runs alone speak for the late steps.
    Steps whose text has no vector are missing.
    """
    found = store.vectors(model, experiment.id)
    place = {digest: i for i, digest in enumerate(found.digests)}
    unit = _unit(found)
    parts = [pl.DataFrame(schema=DRIFT)]
    for run in spread([r for r in store.runs(experiment.id) if r.num_steps], max_runs):
        start = place.get(text_digest(run.prompt).hex())
        at = [
            (r.step, place[r.output])
            for r in store.invocations(run.id)
            if _has_text(r.modality, r.output, place)
        ]
        if start is None or not at:
            continue
        steps, rows = (np.array(column) for column in zip(*at, strict=True))
        distance = 1.0 - unit[rows] @ unit[start]
        steps, distance = _continued(run, steps, distance)
        parts.append(
            pl.DataFrame(
                {
                    "network": network_name(run.network),
                    "run": run.id,
                    "step": steps,
                    "distance": np.maximum(distance, 0.0),
                    "is_known": steps >= run.num_steps,
                },
                schema=DRIFT,
            )
        )
    return pl.concat(parts)


DRIFT = {
    "network": pl.String,
    "run": pl.Int64,
    "step": pl.Int64,
    "distance": pl.Float64,
    "is_known": pl.Boolean,
}


def drift_bands(frame: pl.DataFrame) -> pl.DataFrame:
    """Median and quartiles of the drift over runs: network, step, low, median, high, num_runs."""
    return (
        frame.group_by("network", "step")
        .agg(
            low=pl.col("distance").quantile(0.25, "linear"),
            median=pl.col("distance").median(),
            high=pl.col("distance").quantile(0.75, "linear"),
            num_runs=pl.len(),
        )
        .sort("network", "step")
    )


def thinned(frame: pl.DataFrame, max_steps: int) -> pl.DataFrame:
    """Only so many different steps, evenly chosen, the last one among them."""
    steps = frame["step"].unique().sort()
    if len(steps) <= max_steps:
        return frame
    kept = np.unique(np.linspace(0, len(steps) - 1, max_steps).round().astype(int))
    return frame.filter(pl.col("step").is_in(steps.gather(kept).implode()))


def bars(store: Store, experiment: ExperimentRow) -> pl.DataFrame:
    """One row per bar of every run's largest diagram: model, network, run, dimension, birth, death."""
    names = {model.id: model.name for model in store.models()}
    networks = {run.id: network_name(run.network) for run in store.runs(experiment.id)}
    newest = {(d.run, d.model): d for d in sorted(store.diagrams(experiment.id), key=lambda d: d.num_points)}
    parts = [pl.DataFrame(schema=BARS)]
    for (run, model), diagram in newest.items():
        for dimension in diagram.dimensions:
            found = store.bars(run, model, dimension, diagram.settings_digest)
            parts.append(
                pl.DataFrame(
                    {
                        "model": names[model],
                        "network": networks[run],
                        "run": run,
                        "dimension": dimension,
                        "birth": found[:, 0],
                        "death": found[:, 1],
                    },
                    schema=BARS,
                )
            )
    return pl.concat(parts)


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
        for t in store.model_times(experiment.id)
    ]
    diagrams = store.diagrams(experiment.id)
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


def _has_text(modality: str, digest: str, place: dict[str, int]) -> bool:
    return modality == "text" and digest in place


def _unit(found: Vectors) -> np.ndarray:
    lengths = np.linalg.norm(found.vectors, axis=1, keepdims=True) if len(found.digests) else 1.0
    unit: np.ndarray = found.vectors / np.maximum(lengths, np.finfo(np.float32).tiny)
    return unit


def _continued(run: RunRow, steps: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Steps and values of a stuck run, repeated by its cycle up to its full length."""
    if run.entry_step is None or run.period is None:
        return steps, values
    in_cycle = steps >= run.entry_step
    cycle_steps, cycle = steps[in_cycle], values[in_cycle]
    if not len(cycle_steps):
        return steps, values
    turns = np.arange(1, (run.max_length - run.num_steps) // run.period + 2)
    later = (cycle_steps[None, :] + turns[:, None] * run.period).ravel()
    again = np.tile(cycle, len(turns))
    kept = (later >= run.num_steps) & (later < run.max_length)
    return np.append(steps, later[kept]), np.append(values, again[kept])
