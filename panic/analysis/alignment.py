"""Runs of a network cut to one length, so that what is told of two steps is told of the same runs.

paths = aligned(data, "PocketText", "text")
thinned_numbers(paths, 60)              # at most 60 outputs of each run, both ends among them
"""

from __future__ import annotations

import polars as pl

from panic.analysis.data import ExperimentData
from panic.analysis.factors import independent_starts
from panic.analysis.sampling import GOLDEN


def aligned(data: ExperimentData, model: str, modality: str) -> pl.DataFrame:
    """The visits of runs that have as many outputs as half of their network's have, cut to so many.

    The columns are those of `ExperimentData.visits`; `number`, that of the output from 0; `length`, how many
    each run of the network has; `per_lap`, how many models of the network make them in turn, of which
    whatever is compared should have as many outputs each; `trajectory` and `unit`, as in
    `factors.independent_starts`. Stuck runs go on by their cycle.
    """
    steps = data.visits(model, modality).sort("run", "step")
    counts = steps.group_by("network", "run", maintain_order=True).agg(count=pl.len())
    half = pl.col("count").quantile(0.5, "higher").over("network").cast(pl.Int64)
    runs = (
        counts.with_columns(length=half).filter(pl.col("count") >= pl.col("length")).select("run", "length")
    )
    place = pl.col("step") % pl.col("num_models")
    laps = data.runs.select("run", "num_models")
    return (
        steps.join(runs, on="run", maintain_order="left")
        .join(laps, on="run", maintain_order="left")
        .with_columns(per_lap=place.n_unique().over("network").cast(pl.Int64))
        .drop("num_models")
        .join(independent_starts(data), on="run", maintain_order="left")
        .with_columns(number=pl.int_range(pl.len()).over("run"))
        .filter(pl.col("number") < pl.col("length"))
    )


def thinned_numbers(paths: pl.DataFrame, most: int) -> pl.DataFrame:
    """Outputs at so many numbers at most, spread evenly over each network's, first and last among them.

    One of each stretch of equal length, by the golden ratio at ever other places in it: at every n-th number
    a run that goes back and forth would always be at the same place.
    """
    stride = pl.max_horizontal((pl.col("length") - 1) / max(most - 1, 1), pl.lit(1.0))
    stretch = (pl.col("number") / stride).floor()
    number = pl.col("number") - pl.col("number").min().over("run", stretch)
    count = pl.col("number").max().over("run", stretch) - pl.col("number").min().over("run", stretch) + 1
    is_chosen = number == ((stretch * GOLDEN % 1) * count).floor()
    return paths.filter(is_chosen | (pl.col("number") == pl.col("length") - 1))


def both_ends(length: int, per_lap: int, most: int) -> tuple[slice, slice] | None:
    """The first and the last numbers of runs of so many outputs, whole laps of `most` outputs or of one.

    So each model that makes them has as many early as late. None where there are no two laps.
    """
    laps = length // per_lap
    count = min(max(most // per_lap, 1), laps // 2) * per_lap
    return (slice(count), slice(laps * per_lap - count, laps * per_lap)) if count else None
