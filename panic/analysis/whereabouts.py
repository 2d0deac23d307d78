"""Where a run is at a step: this is the one place that knows that a stuck run goes on by its cycle.

A run whose state came back is stored up to that step only, and its future is known; a failed run, or one that
has not come so far, is nowhere.

    stored_step(run, 1000)                  # the step whose output the run has at step 1000
    continued(steps, data.runs)             # steps of many runs, with those that stuck ones were spared
    at_end(steps, data.runs)                # where runs are when they have come to their full length

`ExperimentData.visits` and `ExperimentData.ends` ask here, for steps that have vectors.
"""

from __future__ import annotations

import polars as pl

from panic.store.records import RunRow


def stored_step(run: RunRow, step: int) -> int | None:
    """The stored step whose output a run has at `step`; None where the run is nowhere.

    It is the step itself where it was computed, and a step of the cycle beyond the end of a stuck run.
    """
    if run.entry_step is None or run.period is None or step < run.entry_step:
        return step if step < run.num_steps else None
    return run.entry_step + (step - run.entry_step) % run.period


def continued(steps: pl.DataFrame, runs: pl.DataFrame, *, limit: int = 20_000) -> pl.DataFrame:
    """Steps (run, step and what they hold) with those that stuck runs were spared: their known future.

    A stuck run repeats the steps of its cycle up to its full length, or to `limit`. `runs` is a frame as
    `ExperimentData.runs` gives it. The result is sorted by run and step.
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


def at_end(steps: pl.DataFrame, runs: pl.DataFrame) -> pl.DataFrame:
    """The last of these steps (run, step and what they hold) within the full length of every ended run.

    It is told by its true number, up to `max_length - 1`, with what the cycle of a stuck run holds there.
    Failed runs and those that have not ended are nowhere, and have no row. The result is sorted by run.
    """
    ended = runs.filter(pl.col("state").is_in(["done", "stuck"])).select(
        "run", "max_length", "entry_step", "period"
    )
    turns = (pl.col("max_length") - 1 - pl.col("step")) // pl.col("period")
    in_cycle = pl.col("step") >= pl.col("entry_step")
    last = pl.when(in_cycle).then(pl.col("step") + turns * pl.col("period")).otherwise("step")
    return (
        steps.join(ended, on="run")
        .with_columns(step=last.cast(steps.schema["step"]))
        .sort("run", "step")
        .group_by("run", maintain_order=True)
        .last()
        .select(steps.columns)
    )
