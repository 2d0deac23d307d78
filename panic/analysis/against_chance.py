"""Some runs' statistics beside the bands of their null models (see `nulls`): the tables that charts take.

loops_against_walks(load(store, "latest"), "PocketText", "text")      # x, value, low, high, mean, run
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from panic.analysis.checks import OUTLIER, AnalysisError
from panic.analysis.dynamics import dwell_times
from panic.analysis.loading import Frames
from panic.analysis.nulls import matched_walk, null_band, shuffled
from panic.analysis.tables import States, trajectories
from panic.topology import diagram, entropy

LEAST_POINTS, MAX_POINTS = 6, 200  # of a run


def loops_against_walks(data: Frames, model: str, modality: str, **limits: int) -> pl.DataFrame:
    """Length of every run's longest H1 bar against walks with its own steps; `limits` as for `_bands`."""

    def longest(points: Any) -> float:
        bars = diagram(points, max_dimension=1).bars(1)
        return float((bars[:, 1] - bars[:, 0]).max()) if len(bars) else 0.0

    return _bands(_directions(data, model, modality), longest, matched_walk, **limits)


def entropies_against_walks(data: Frames, model: str, modality: str, **limits: int) -> pl.DataFrame:
    """Persistence entropy of every run's components against walks with its own steps.

    A walk comes back to no place exactly: it has a bar for every output, a run for every distinct one.
    """

    def components(points: Any) -> float:
        return entropy(diagram(points, max_dimension=0).bars(0))

    return _bands(_directions(data, model, modality), components, matched_walk, **limits)


def dwells_against_shuffles(states: States, **limits: int) -> pl.DataFrame:
    """Mean length of every run's dwells in clusters against the same outputs in random order.

    Of runs that are in two clusters or more: otherwise there is no order. Outliers end a dwell, as always.
    """

    def mean_length(labels: Any) -> float:
        return float(dwell_times(labels)["length"].mean() or 0.0)  # type: ignore[arg-type]

    groups = states.frame.sort("run", "step").group_by("run", maintain_order=True)
    runs = [(int(run), group["label"].to_numpy()) for (run,), group in groups]
    mixed = [(run, labels) for run, labels in runs if len(np.unique(labels[labels != OUTLIER])) > 1]
    if not mixed:
        raise AnalysisError("no run is in two clusters or more")
    return _bands(mixed, mean_length, shuffled, **limits)


def _directions(data: Frames, model: str, modality: str) -> list[tuple[int, NDArray[np.float64]]]:
    """Runs with unit vectors (n, d) of at least `LEAST_POINTS` outputs, in 3 or more dimensions."""
    found = []
    for run, points in trajectories(data, model, modality, least=LEAST_POINTS):
        lengths = np.linalg.norm(points[:MAX_POINTS], axis=1, keepdims=True)
        if points.shape[1] > 2 and lengths.min() > 0:
            found.append((run, points[:MAX_POINTS].astype(np.float64) / lengths))
    if not found:
        raise AnalysisError(
            f"no run has {LEAST_POINTS} {modality} vectors of {model} in 3 or more dimensions"
        )
    return found


def _bands(
    runs: Sequence[tuple[int, Any]],
    statistic: Callable[[Any], float],
    surrogate: Callable[[Any, np.random.Generator], Any],
    *,
    max_runs: int = 12,
    num_surrogates: int = 39,  # the least that 97.5 % can be said of
) -> pl.DataFrame:
    """x (its name), value, low, high, mean, run: of at most `max_runs` runs, evenly chosen."""
    chosen = [runs[i] for i in np.unique(np.linspace(0, len(runs) - 1, max_runs).round().astype(int))]
    rows = []
    for run, of_run in chosen:
        band = null_band(statistic, of_run, surrogate, num_surrogates=num_surrogates)
        figures = (float(number) for number in (band.value, band.low, band.high, band.mean))
        rows.append((f"run {run}", *figures, run))
    return pl.DataFrame(rows, ["x", "value", "low", "high", "mean", "run"], orient="row")
