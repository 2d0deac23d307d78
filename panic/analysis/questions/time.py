"""What took how long: seconds of work per model and stage, beside those of the clock."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import altair as alt
import polars as pl

from panic.analysis.charts import colour, data, finish, seconds
from panic.analysis.checks import AnalysisError
from panic.analysis.evidence import Evidence, View, once
from panic.store import Store, contents, reading
from panic.store.records import ExperimentRow

TITLE = "What took how long"
CAVEAT = (
    "These are durations of calls, so work that ran side by side counts fully for each; loading of models"
    " and writing are not in it."
)
STAGES = ("loops", "embeddings", "diagrams")

views = once


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """Seconds of work (stage, name, seconds, calls, items; longest first), and how long sessions lasted."""

    frame: pl.DataFrame
    wall_s: float


def table(evidence: Evidence, view: View | None = None) -> Work:
    """Durations of calls in all sessions of the experiment. AnalysisError before the first call."""
    frame = times(evidence.store, evidence.experiment)
    if frame.is_empty():
        raise AnalysisError("No model has been called yet.")
    wall_s = sum(
        (s.ended_at or time.time()) - s.started_at
        for s in evidence.sessions
        if s.ended_at or s.end_state is None
    )
    return Work(frame=frame, wall_s=wall_s)


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


def chart(answer: Work) -> Any:
    """Bars of seconds per model, coloured by stage."""
    frame = answer.frame
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
    return finish(chart, TITLE, caption, height=30 * max(len(frame), 1))


def sentence(answer: Work) -> str:
    """Who took most of the work, and how it compares with the clock."""
    frame = answer.frame
    total = float(frame["seconds"].sum())
    first = frame.row(0, named=True)
    return (
        f"Most of the work went into {first['name']}: {first['seconds'] / (total or 1):.0%} of "
        f"{seconds(total)}; the sessions lasted {seconds(answer.wall_s)} in all."
    )
