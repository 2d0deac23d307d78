"""A statistic beside the band of its null model, as a chart and as a sentence; several questions share them.

null_band(pl.DataFrame({"x": ..., "value": ..., "low": ..., "high": ..., "mean": ...}))
outside(table, ("longest loop", "walks"))
beside_shuffles(frame, alt.X("effect:Q"), [])
"""

from __future__ import annotations

from typing import Any

import altair as alt
import numpy as np
import polars as pl

from panic.analysis.charts.steps import STEPS
from panic.analysis.charts.theme import GREY, data, finish, first_names, names_of

LEAST_WIDTH = 0.03  # of the axis
TIPS = ("value", "low", "high", "mean")
CLEAR = 0.05  # the corrected p up to which a dot is filled


def null_band(
    frame: pl.DataFrame,
    title: str = "Against chance",
    *,
    x_title: str = "",
    value_title: str = "value",
    caption: str = "Blue: what was measured. Grey: where 95 % of surrogates lie, and their mean.",
) -> Any:
    """Any statistic against its null band; columns x, value, low, high, mean.

    Numbers in `x` make curves (a statistic by lag or step); names make one row each, of
    which there are at most `MAX_ROWS`.
    """
    if frame["x"].dtype.is_numeric():
        return finish(_curve(frame, x_title, value_title), title, caption)
    frame, others = first_names(frame, "x", what="row")
    rows = _rows(frame, x_title, value_title)
    return finish(rows, title, caption + others, height=max(70, 30 * frame["x"].n_unique()))


def intervals(frame: pl.DataFrame, **encodings: Any) -> list[Any]:
    """A layer of lines from `low` to `high`, none where no row has them: Vega complains of empty axes."""
    known = frame.filter(pl.col("low").is_not_null())
    lines = alt.Chart(data(known)).mark_rule(color=GREY, strokeWidth=1.6)
    return [lines.encode(x="low:Q", x2="high:Q", **encodings)] if len(known) else []


def _curve(frame: pl.DataFrame, x_title: str, value_title: str) -> Any:
    axis = STEPS if frame["x"].dtype.is_integer() else alt.Axis(grid=False)
    base = alt.Chart(data(frame)).encode(x=alt.X("x:Q", title=x_title or None, axis=axis))
    y = alt.Y("value:Q", title=value_title, scale=alt.Scale(zero=False))
    return alt.layer(
        base.mark_area(color=GREY, opacity=0.3).encode(y=alt.Y("low:Q", title=value_title), y2="high:Q"),
        base.mark_line(color=GREY, strokeDash=[5, 4]).encode(y="mean:Q"),
        base.mark_line(strokeWidth=2.4, point=alt.OverlayMarkDef(size=36)).encode(y=y, tooltip=_tips("x:Q")),
    )


def _rows(frame: pl.DataFrame, x_title: str, value_title: str) -> Any:
    if is_narrow(frame):
        frame = frame.with_columns(pl.col("value", "low", "high", "mean") - pl.col("mean"))
        value_title = f"{value_title}, less the mean of surrogates"
    y = alt.Y(
        "x:N",
        sort=names_of(frame, "x"),
        title=x_title or None,
        axis=alt.Axis(domain=False, ticks=False, labelLimit=280, labelPadding=12),  # of a dot at 0
    )
    base = alt.Chart(data(frame)).encode(y=y)
    numbers = frame.select("low", "high", "value").to_numpy()
    is_length = np.nanmin(numbers, initial=0.0) >= 0  # then nothing can be below 0
    top = 1.04 * np.nanmax(numbers, initial=0.0)
    scale = alt.Scale(domain=[0, top or 1.0]) if is_length else alt.Scale(padding=12)
    return alt.layer(
        base.mark_bar(color=GREY, opacity=0.35, height=11, cornerRadius=5).encode(
            x=alt.X("low:Q", title=value_title, scale=scale), x2="high:Q"
        ),
        base.mark_tick(color=GREY, thickness=2, size=15).encode(x="mean:Q"),
        base.mark_point(filled=True, size=110, opacity=1).encode(x="value:Q", tooltip=_tips("x:N")),
    )


def beside_shuffles(frame: pl.DataFrame, x: alt.X, tips: list[alt.Tooltip], *more: Any) -> Any:
    """One row per test of a factor: its value (on `x`), beside what shuffled labels gave.

    Columns row, value, label (what is written beside the dot), baseline, baseline_high, p_value, p_adjusted,
    p_least, num_runs, and those of `tips`, which come first. Filled dots have a p of 0.05 or less, corrected.
    `more`: functions from the chart of the rows to a further layer.
    """
    rows = frame.with_columns(
        verdict=pl.when(pl.col("p_adjusted") <= CLEAR).then(pl.lit("clear")).otherwise(pl.lit("not clear")),
        label_at=pl.max_horizontal("value", pl.col("baseline_high").fill_nan(None)),
    )
    axis = alt.Axis(domain=False, ticks=False, labelLimit=320)
    base = alt.Chart(data(rows)).encode(y=alt.Y("row:N", sort=names_of(rows, "row"), title=None, axis=axis))
    tips = [
        *tips,
        alt.Tooltip("baseline:Q", format=".1%", title="shuffled, mean"),
        alt.Tooltip("baseline_high:Q", format=".1%", title="shuffled, 95 %"),
        alt.Tooltip("p_value:Q", format=".3~g", title="p"),
        alt.Tooltip("p_adjusted:Q", format=".3~g", title="p, corrected"),
        alt.Tooltip("p_least:Q", format=".3~g", title="smallest possible p"),
        alt.Tooltip("num_runs:Q", title="runs"),
    ]
    verdicts = alt.Scale(domain=["clear", "not clear"], range=["#0072B2", "transparent"])
    return alt.layer(
        base.mark_bar(color=GREY, opacity=0.35, height=11, cornerRadius=5).encode(
            x=alt.X("baseline:Q", scale=x["scale"]), x2="baseline_high:Q", tooltip=tips
        ),
        *(layer(base) for layer in more),
        base.mark_point(size=110, opacity=1, strokeWidth=2).encode(
            x=x, fill=alt.Fill("verdict:N", scale=verdicts, legend=None), tooltip=tips
        ),
        base.mark_text(align="left", dx=10, fontSize=11).encode(x="label_at:Q", text="label:N"),
    )


def is_narrow(frame: pl.DataFrame) -> bool:
    """Whether bands would be narrower than a tick on an axis from 0: then differences are shown."""
    numbers = frame.select("value", "low", "high").to_numpy()
    widest = float(np.nanmax(numbers[:, 2] - numbers[:, 1], initial=0.0))
    return 0 < widest < LEAST_WIDTH * float(np.nanmax(np.abs(numbers), initial=0.0))


def outside(table: pl.DataFrame, what: tuple[str, str]) -> str:
    """How many runs leave their band at either side; `what` is measured, and what the surrogates are."""
    statistic, surrogates = what
    holds = f"A band holds 95 % of the run's own {surrogates}"
    if len(table) == 1:
        name, value, low, high = table.select("x", "value", "low", "high").row(0)
        where = "above" if value > high else "below" if value < low else "within"
        return f"The {statistic} of {name}, the only run, is {where} its band. {holds}."
    parts = []
    for side, outside in (
        ("above", pl.col("value") > pl.col("high")),
        ("below", pl.col("value") < pl.col("low")),
    ):
        names = table.filter(outside)["x"].to_list()
        told = f" ({', '.join(names[:4])}{', ...' if len(names) > 4 else ''})" if names else ""
        parts.append(f"{side} its band in {len(names)} of {len(table)} runs{told}")
    chance = f"chance alone puts {len(table) / 40:.2g} of {len(table)} runs above and as many below"
    where = " and ".join(parts)
    return f"The {statistic} is {where}. {holds}: {chance}."


def _tips(x: str) -> list[alt.Tooltip]:
    return [alt.Tooltip(x, title="at"), *(alt.Tooltip(f"{f}:Q", format=".4~g") for f in TIPS)]
