"""What took how long: seconds of work per model and stage, beside those of the clock."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import altair as alt
import polars as pl

from panic.analysis.charts import colour, counted, data, finish, first_names, seconds
from panic.analysis.checks import AnalysisError
from panic.analysis.evidence import Evidence, View, once
from panic.arms import models_of
from panic.store import Store, contents, reading
from panic.store.records import ExperimentRow

TITLE = "What took how long"
CAVEAT = (
    "A place is a thread or a process: each worker, the driver, the writer, and the pool's processes, which "
    "compute diagrams and what is taken of them; they work side by side. The "
    "clock of a place always runs under the name of what it does; what no clock has seen is called "
    "unattributed. A session that was killed has told nothing. Calls are as the store has them."
)
STAGES = ("loops", "embeddings", "diagrams")
MAX_NAMES = 6  # in a timeline, for there are seven colours

views = once


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """Durations of calls (stage, name, seconds, calls, items; longest first), and where sessions' time went.

    spent: place, name, model, at (seconds since the first session began, without the time between sessions),
    width_s, seconds; empty where no session has told. wall_s: of all sessions; told_s: of those that have
    told, times their workers.
    """

    frame: pl.DataFrame
    spent: pl.DataFrame
    wall_s: float
    told_s: float


SPENT = {
    "place": pl.String, "name": pl.String, "model": pl.String, "at": pl.Float64, "width_s": pl.Float64,
    "seconds": pl.Float64,
}  # fmt: skip
FIGURES = [name for name, kind in SPENT.items() if kind == pl.Float64]


def table(evidence: Evidence, view: View | None = None) -> Work:
    """What all sessions of the experiment spent their time on. AnalysisError before the first call."""
    frame = times(evidence.store, evidence.experiment)
    if frame.is_empty():
        raise AnalysisError("No model has been called yet.")
    told = reading.timelines(evidence.store, evidence.experiment.id)
    parts, wall_s, told_s = [pl.DataFrame(schema=SPENT)], 0.0, 0.0
    for session in evidence.sessions:
        if not session.ended_at and session.end_state is not None:
            continue
        # The machine's clock may have been set meanwhile.
        lasted_s = max(0.0, (session.ended_at or time.time()) - session.started_at)
        if (one := _spent(told.get(session.id), wall_s)) is not None:
            parts.append(one)
            told_s += lasted_s * one.filter(IS_WORKER)["place"].n_unique()
        wall_s += lasted_s
    return Work(frame=frame, spent=pl.concat(parts), wall_s=wall_s, told_s=told_s)


def _spent(rows: Any, since_s: float) -> pl.DataFrame | None:
    """What a session has told of its seconds, as SPENT; None where it has not, or where that is none."""
    if not rows:
        return None
    try:
        found = pl.DataFrame(rows).with_columns(at=pl.col("start_s") + since_s)
        spent = found.select(*SPENT).cast(SPENT)  # type: ignore[arg-type]
    except (pl.exceptions.PolarsError, TypeError, ValueError, OverflowError):
        return None  # not what a driver writes
    is_sound = spent.null_count().sum_horizontal()[0] == 0 and all(
        spent[name].is_finite().all() for name in FIGURES
    )
    return spent if is_sound else None


IS_WORKER = pl.col("place").str.starts_with("worker")


def times(store: Store, experiment: ExperimentRow) -> pl.DataFrame:
    """Seconds of work: stage, name, seconds, calls, items; longest first."""
    networks = {name for run in experiment.config.get("networks", []) for name in run}
    networks |= {name for arm in reading.arms(store, experiment.id).values() for name in models_of((), arm)}
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


def chart(answer: Work) -> dict[str, Any]:
    """What workers, driver and writer did in the course of the sessions, and durations of calls."""
    charts = {}
    if not answer.spent.is_empty():
        for title, rows in (
            ("workers", answer.spent.filter(IS_WORKER)),
            ("driver", answer.spent.filter(pl.col("place") == "driver")),
            ("writer", answer.spent.filter(pl.col("place") == "writer")),
            ("pool", answer.spent.filter(pl.col("place").str.starts_with("pool"))),
        ):
            if not rows.is_empty():
                charts[title] = timeline(rows, title)
    return {**charts, "calls": calls_chart(answer.frame)}


def timeline(spent: pl.DataFrame, title: str) -> Any:
    """How many of the places did what, stretch by stretch: bars on each other in the sessions' time."""
    named = spent.with_columns(doing=_doing())
    most = named.group_by("doing").agg(pl.col("seconds").sum()).sort("seconds", descending=True)["doing"]
    kept = most.head(MAX_NAMES).to_list()
    rows = (
        named.with_columns(
            doing=pl.when(pl.col("doing").is_in(kept)).then("doing").otherwise(pl.lit("other"))
        )
        .group_by("at", "width_s", "doing", maintain_order=True)
        .agg(pl.col("seconds").sum())
    )
    order = [*kept, *(["other"] if len(most) > MAX_NAMES else [])]
    # Vega-Lite stacks no bars that have both ends of their own.
    top = pl.col("places").cum_sum().over("at")
    rows = (
        rows.with_columns(
            places=pl.col("seconds") / pl.col("width_s"),
            until=pl.col("at") + pl.col("width_s"),
            rank=pl.col("doing").replace_strict({name: i for i, name in enumerate(order)}),
        )
        .sort("at", "rank")
        .with_columns(low=top - pl.col("places"), high=top)
    )
    chart = (
        alt.Chart(data(rows))
        .mark_bar(stroke=None)
        .encode(
            x=alt.X("at:Q", title="seconds since the start", axis=alt.Axis(grid=False)),
            x2="until:Q",
            y=alt.Y("low:Q", title="at work on it, on average"),
            y2="high:Q",
            color=colour("doing", order),
            tooltip=[alt.Tooltip("doing:N"), alt.Tooltip("at:Q"), alt.Tooltip("seconds:Q", format=".3~f")],
        )
    )
    num = spent["place"].n_unique()
    caption = f"{num} place{'s' if num != 1 else ''}; {seconds(float(spent['seconds'].sum()))} in all."
    return finish(chart, title, caption, height=200)


def _doing() -> pl.Expr:
    """A name with its model, if it has one."""
    with_model = pl.col("name") + pl.lit(" ") + pl.col("model")
    return pl.when(pl.col("model") == "").then("name").otherwise(with_model)


def calls_chart(frame: pl.DataFrame) -> Any:
    """Bars of seconds per model, coloured by stage."""
    frame, others = first_names(frame, "name", what="model")
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
    calls = counted(int(frame["calls"].sum()), "call")
    caption = f"Durations of {calls} by model and stage; work that ran side by side counts fully for each."
    return finish(chart, "Calls", caption + others, height=30 * max(len(frame), 1))


def sentence(answer: Work) -> str:
    """What the workers' time went into, by name, and how much of it no name accounts for."""
    if answer.spent.is_empty():
        total = seconds(float(answer.frame["seconds"].sum()))
        return (
            f"Calls of models and diagrams took {total} in all, side by side; the sessions lasted "
            f"{seconds(answer.wall_s)}. No session has told what else it did."
        )
    workers = answer.spent.filter(IS_WORKER).with_columns(doing=_doing())
    names = workers.group_by("doing").agg(pl.col("seconds").sum()).sort("seconds", descending=True)
    parts = [
        f"{row['doing']} {seconds(row['seconds'])} ({row['seconds'] / (answer.told_s or 1):.0%})"
        for row in names.head(6).iter_rows(named=True)
        if row["seconds"] >= 0.005 * answer.told_s  # less would be told as 0%
    ]
    rest = answer.told_s - float(workers["seconds"].sum())
    return (
        f"The sessions lasted {seconds(answer.wall_s)}. Of {seconds(answer.told_s)} of workers' time: "
        f"{'; '.join(parts)}; unattributed {rest / (answer.told_s or 1):.1%}."
    )
