"""Outputs that come up again, within a run or in several, and where runs meet.

Two outputs are the same if they are equal to the letter or the pixel. Only stored steps count: a stuck run
closes its cycle once, and a prompt is no output (`is_prompt` says where one was made again).

    returning(load(store, "latest"))        # a row per output that came up in several runs or came back
    meetings(load(store, "latest"))         # a row per run that makes what another one makes
"""

from __future__ import annotations

import polars as pl

from panic.analysis.data import ExperimentData

STEP = ("run", "step", "output", "modality")


def returning(data: ExperimentData, modality: str | None = None) -> pl.DataFrame:
    """The outputs that came up in several runs, or more than once in one; the most frequent first.

    One row each: digest, modality, text, times (steps that made it), num_runs, num_back (of these times, how
    many came after another in the same run), runs_back (runs in which it came back), shortest (steps from one
    time to the next in a run, null where it never came back), run and step (where it came up first, by the
    order of runs), is_prompt.
    """
    # In this order a time that an output comes back stands right after the time before.
    steps = _steps(data, modality).sort("output", "run", "step")
    is_back = pl.all_horizontal(pl.col(name) == pl.col(name).shift() for name in ("output", "run"))
    steps = steps.with_columns(is_back=is_back.fill_null(value=False), gap=pl.col("step").diff())
    found = (
        steps.with_columns(is_second=pl.col("is_back") & ~pl.col("is_back").shift(fill_value=False))
        .group_by("output")
        .agg(
            pl.col("modality").first(),
            times=pl.len().cast(pl.Int64),
            num_runs=(~pl.col("is_back")).sum().cast(pl.Int64),
            num_back=pl.col("is_back").sum().cast(pl.Int64),
            runs_back=pl.col("is_second").sum().cast(pl.Int64),
            shortest=pl.col("gap").filter("is_back").min(),
            run=pl.col("run").first(),
            step=pl.col("step").first(),
        )
        .filter(pl.col("times") > 1)
        .sort("times", "run", "step", descending=[True, False, False])
    )
    texts = data.outputs.select("output", "digest", "text")
    prompts = data.runs["prompt"].unique().implode()
    return (
        found.join(texts, on="output", maintain_order="left")
        .with_columns(is_prompt=pl.col("text").is_in(prompts).fill_null(value=False))
        .select(
            *("digest", "modality", "text", "times", "num_runs", "num_back", "runs_back", "shortest"),
            *("run", "step", "is_prompt"),
        )
    )


def meetings(data: ExperimentData, modality: str | None = None) -> pl.DataFrame:
    """Where each run first makes what another run makes, at whichever step; runs that meet none have no row.

    One row each: run, step, other and other_step (of the other runs, the one that makes it at its earliest
    step, then the first), together (how many outputs from there on both make alike), until_end (whether
    that is as long as the shorter of them lasts), digest, modality, text.
    """
    steps = _steps(data, modality)
    firsts = steps.group_by("run", "output").agg(pl.col("step").min()).sort("step", "run")
    # Of each output the two runs that make it earliest: one of them is another run than any that asks.
    earliest = firsts.group_by("output").head(2)
    pairs = (
        firsts.join(earliest.rename({"run": "other", "step": "other_step"}), on="output")
        .filter(pl.col("run") != pl.col("other"))
        .sort("run", "step", "other_step", "other")
        .group_by("run")
        .first()
    )
    together = _together(steps, pairs)
    described = pairs.join(data.outputs.select("output", "digest", "modality", "text"), on="output")
    return (
        described.join(together, on="run")
        .sort("run")
        .select(
            *("run", "step", "other", "other_step", "together", "until_end", "digest", "modality", "text")
        )
    )


def _steps(data: ExperimentData, modality: str | None) -> pl.DataFrame:
    steps = data.invocations.select(STEP).with_columns(pl.col("modality").cast(pl.String))
    return steps if modality is None else steps.filter(pl.col("modality") == modality)


def _together(steps: pl.DataFrame, pairs: pl.DataFrame) -> pl.DataFrame:
    """For how many steps the runs of each pair go on alike: run, together, until_end."""
    own = steps.select("run", "step", "output")
    begun = pairs.select("run", "other", begin="step", shift=pl.col("other_step") - pl.col("step"))
    theirs = own.rename({"run": "other", "step": "other_step", "output": "other_output"})
    after = (
        own.join(begun, on="run")
        .filter(pl.col("step") >= pl.col("begin"))
        .with_columns(other_step=pl.col("step") + pl.col("shift"))
        .join(theirs, on=["other", "other_step"])
        .sort("run", "step")
    )
    is_alike = (pl.col("output") == pl.col("other_output")).cast(pl.Int64).cum_min().over("run")
    return (
        after.with_columns(is_alike=is_alike)
        .group_by("run")
        .agg(together=pl.col("is_alike").sum(), until_end=pl.col("is_alike").min() == 1)
    )
