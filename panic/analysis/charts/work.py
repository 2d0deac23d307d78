"""Charts of work and of how runs end: time per model, periods of stuck runs.

time_by_model(frames.times(store, experiment))
stuck_periods(load(store, "latest").runs)
"""

from __future__ import annotations

from typing import Any

import altair as alt
import polars as pl

from panic.analysis.charts.theme import colour, data, finish, names_of, seconds

STAGES = ("loops", "embeddings", "diagrams")


def time_by_model(frame: pl.DataFrame, title: str = "What took how long") -> Any:
    """Bars of seconds per model, coloured by stage, of a frame as `frames.times` gives it."""
    rows = frame.with_columns(
        label=pl.col("seconds").map_elements(seconds, return_dtype=pl.String),
        per_item_s=pl.col("seconds") / pl.col("items"),
    )
    longest = float(frame["seconds"].max() or 0.0)  # type: ignore[arg-type]
    bars = alt.Chart(data(rows)).encode(
        y=alt.Y(
            "name:N",
            sort=frame["name"].to_list(),
            title=None,
            axis=alt.Axis(labelLimit=260, domain=False, ticks=False),
        ),
        x=alt.X(
            "seconds:Q",
            title="seconds of work",
            axis=alt.Axis(tickCount=8),
            scale=alt.Scale(domain=[0, longest * 1.3 or 1]),
        ),
        tooltip=[
            alt.Tooltip("name:N", title="model"),
            alt.Tooltip("stage:N"),
            alt.Tooltip("seconds:Q", format=",.3~f"),
            alt.Tooltip("calls:Q", format=",", title="calls (batches)"),
            alt.Tooltip("items:Q", format=",", title="items"),
            alt.Tooltip("per_item_s:Q", format=",.3~s", title="seconds per item"),
        ],
    )
    chart = alt.layer(
        bars.mark_bar(cornerRadiusEnd=3, height={"band": 0.7}).encode(color=colour("stage", STAGES)),
        bars.mark_text(align="left", dx=6, fontSize=11).encode(text="label:N"),
    )
    caption = "Durations of calls by model and stage; work that ran side by side counts fully for each."
    return finish(chart, title, caption, height=30 * max(len(frame), 1))


def stuck_periods(runs: pl.DataFrame, title: str = "Periods of stuck runs") -> Any:
    """Where stuck runs entered their cycle and how long it is, one dot per run, of `Frames.runs`.

    Columns network, num_models, run, prompt, seed, entry_step, period.
    """
    stuck = runs.filter(pl.col("period").is_not_null())
    rows = stuck.select("network", "run", "prompt", "seed", "entry_step", "period").with_columns(
        turns=pl.col("period") / stuck["num_models"]
    )
    last = max(int(stuck["entry_step"].max() or 0), 2)  # type: ignore[arg-type]
    x = alt.X(
        "entry_step:Q",
        title="step at which the cycle is entered",
        axis=alt.Axis(tickMinStep=1),
        scale=alt.Scale(domain=[0, last], padding=10),
    )
    periods = [str(p) for p in stuck["period"].unique().sort()]
    y = alt.Y("period:O", title="period (steps)", sort="descending", axis=alt.Axis(grid=True))
    chart = (
        alt.Chart(data(rows))
        .transform_calculate(jitter="random() - 0.5")
        .mark_point(filled=True, size=70, opacity=0.75)
        .encode(
            x=x,
            y=y,
            yOffset=alt.YOffset("jitter:Q", scale=alt.Scale(domain=[-1.2, 1.2])),
            color=colour("network", names_of(rows, "network")),
            tooltip=[
                alt.Tooltip("network:N"),
                alt.Tooltip("run:N"),
                alt.Tooltip("prompt:N"),
                alt.Tooltip("seed:N"),
                alt.Tooltip("entry_step:Q", title="entry step"),
                alt.Tooltip("period:Q"),
                alt.Tooltip("turns:Q", title="turns of the network", format=".3~f"),
            ],
        )
    )
    caption = (
        f"{len(stuck):,} of {len(runs):,} runs. One dot per run, moved up or down so that equal ones show; "
        "a fixed point of a network of L models has the period L."
    )
    return finish(chart, title, caption, height=max(90, 46 * len(periods)))
