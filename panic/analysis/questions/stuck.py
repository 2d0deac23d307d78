"""Is it stuck, since when, with which period? (The page's own table of stuck runs says the rest.)"""

from __future__ import annotations

from collections import Counter
from statistics import median_low
from typing import Any

import altair as alt
import polars as pl

from panic.analysis.charts import WHOLE, at_call, colour, counted, data, finish, names_of
from panic.analysis.evidence import Evidence, View, once
from panic.analysis.grouping import grouped_by
from panic.store.records import RunRow

TITLE = "When runs get stuck, and how"
CAVEAT = (
    "The period is counted in model calls: a loop of a drawing and a describing model that repeats one "
    "picture has the period 2. Early entries are common where a captioner has few words for many "
    "pictures."
)
SUMMARY_CAVEAT = (
    "Only runs with a fixed seed can be stuck: with fresh noise at every call the same picture may lead "
    "elsewhere."
)

views = once


def table(evidence: Evidence, view: View | None = None) -> pl.DataFrame | None:
    """All runs, as `ExperimentData.runs`; None where no run is stuck."""
    runs = evidence.whole.runs
    return None if runs["period"].is_null().all() else runs


def chart(runs: pl.DataFrame) -> Any:
    """Where stuck runs entered their cycle and how long it is, one dot per run.

    `runs` as `ExperimentData.runs`: columns network, num_models, run, prompt, seed, entry_step, period.
    """
    stuck = runs.filter(pl.col("period").is_not_null())
    rows = (
        stuck.with_columns(turns=pl.col("period") / pl.col("num_models"))
        .group_by("network", "entry_step", "period", "turns", maintain_order=True)
        .agg(num_runs=pl.len(), which=pl.col("run").head(8).cast(pl.String).str.join(", "))
    )
    last = max(int(stuck["entry_step"].max() or 0), 2)  # type: ignore[arg-type]
    x = alt.X(
        "entry_step:Q",
        title="model call (step, from 0) of the entry",
        axis=alt.Axis(tickMinStep=1, labelExpr=WHOLE),
        scale=alt.Scale(domain=[0, last], padding=10),
    )
    periods = [str(p) for p in stuck["period"].unique().sort()]
    y = alt.Y("period:O", title="period (model calls)", sort="descending", axis=alt.Axis(grid=True))
    networks = names_of(rows, "network")
    chart = (
        alt.Chart(data(rows))
        .mark_point(filled=True, opacity=0.75)
        .encode(
            x=x,
            y=y,
            yOffset=alt.YOffset("network:N", sort=networks),
            size=alt.Size("num_runs:Q", scale=alt.Scale(range=[50, 400]), legend=None),
            color=colour("network", networks),
            tooltip=[
                alt.Tooltip("network:N"),
                alt.Tooltip("num_runs:Q", title="runs"),
                alt.Tooltip("which:N", title="their numbers"),
                alt.Tooltip("entry_step:Q", title="entered at model call"),
                alt.Tooltip("period:Q", title="period (model calls)"),
                alt.Tooltip("turns:Q", title="turns of the network", format=".3~f"),
            ],
        )
    )
    of = grouped_by(stuck["network"])
    caption = (
        f"{len(stuck):,} of {len(runs):,} runs. Area: runs with this entry and period, a row per {of}; "
        "a fixed point of a network of L models has the period L."
    )
    return finish(chart, "Periods of stuck runs", caption, height=max(90, 46 * len(periods)))


def sentence(runs: pl.DataFrame) -> str:
    """Which periods there are, by network."""
    stuck = runs.filter(pl.col("period").is_not_null())
    turns = (stuck["period"] == stuck["num_models"]).sum()
    latest = stuck.sort("entry_step").row(-1, named=True)
    text = (
        f"{len(stuck):,} {'run is' if len(stuck) == 1 else 'runs are'} stuck; {turns:,} of them stand still "
        "(their period is one turn of the network)."
    )
    entered = at_call(latest["entry_step"])
    if stuck["entry_step"].n_unique() == 1:
        whose = "It" if len(stuck) == 1 else "All"
        return f"{text} {whose} entered {'its' if len(stuck) == 1 else 'their'} cycle at {entered}."
    return f"{text} The longest way there was that of run {latest['run']}: it entered its cycle at {entered}."


def summary(runs: list[RunRow]) -> str:
    """How many runs with a fixed seed are stuck, how soon, with which period."""
    fixed = [run for run in runs if run.seed != -1 and run.is_repeatable]
    if not fixed and not all(run.is_repeatable for run in runs):
        return "Models behind an endpoint need not give the same again, so none of their runs can be stuck."
    if not fixed:
        return "All runs draw fresh noise at every model call, so none can be stuck."
    stuck = [run for run in fixed if run.period]  # a damaged store has others
    if not stuck:
        none = "The one run" if len(fixed) == 1 else f"None of the {len(fixed):,} runs"
        return f"{none} with a fixed seed is {'not ' if len(fixed) == 1 else ''}stuck so far."
    entries = [run.entry_step for run in stuck if run.entry_step is not None]
    period, times = Counter(run.period for run in stuck if run.period).most_common(1)[0]
    of = f"{len(stuck):,} of {counted(len(fixed), 'run')} with a fixed seed"
    if len(stuck) == 1:
        entered = f"It has entered its cycle at {at_call(entries[0])}"
        return f"{of} repeats itself forever. {entered}; the period is {counted(period, 'model call')}."
    half = median_low(entries)  # a step that a run entered at, and not the middle of two
    return (
        f"{of} repeat themselves forever. Half of them have entered their cycle by {at_call(half)}; the most "
        f"common period is {period} model calls ({counted(times, 'run')})."
    )
