"""Has it been here before? Outputs that come back, within a run and across runs, from frames.

seen = visits(load(store, "demo"))
seen.group_by("run").agg(pl.col("is_back").mean())     # share of steps that repeat an earlier output
"""

from __future__ import annotations

import polars as pl

from panic.analysis.loading import Frames

VISITS = {
    "run": pl.Int64,
    "step": pl.Int64,
    "modality": pl.String,
    "output": pl.Int64,
    "first_step": pl.Int64,
    "is_back": pl.Boolean,
    "num_runs": pl.Int64,
}


def visits(data: Frames, modality: str | None = None) -> pl.DataFrame:
    """One row per step: run, step, modality, output, first_step, is_back, num_runs.

    `first_step` is the step at which the run made this output first, `is_back` whether that was earlier;
    `num_runs` counts the runs among these frames that ever make it. Prompts count as nothing. A stuck run
    is stored up to its first repeated state only, so its known future is not here.
    """
    steps = data.invocations if modality is None else data.invocations.filter(pl.col("modality") == modality)
    found = steps.select(
        "run",
        "step",
        pl.col("modality").cast(pl.String),
        "output",
        first_step=pl.col("step").min().over("run", "output"),
        num_runs=pl.col("run").n_unique().over("output").cast(pl.Int64),
    ).with_columns(is_back=pl.col("first_step") < pl.col("step"))
    return found.select(*VISITS).cast({name: kind for name, kind in VISITS.items() if name != "modality"})
