"""Charts of evidence: a statistic against its null band, effects and probe scores against chance.

null_band(pl.DataFrame({"x": ..., "value": ..., "low": ..., "high": ..., "mean": ...}))
probe_scores(tables.probe_table(data, "PocketText", "text")[0])
group_effects(comparisons.what_matters(data, "PocketText", "text")[0])
cluster_shares(comparisons.cluster_shares(reference, experiments, "PocketText", "text"))
"""

from __future__ import annotations

from typing import Any

import altair as alt
import numpy as np
import polars as pl

from panic.analysis.charts.theme import GREY, colour, data, finish, names_of

TIPS = ("value", "low", "high", "mean")


def null_band(
    frame: pl.DataFrame,
    title: str = "Against chance",
    *,
    x_title: str = "",
    value_title: str = "value",
    caption: str = "Blue: what was measured. Grey: where 95 % of surrogates lie, and their mean.",
) -> Any:
    """Any statistic against its null band; columns x, value, low, high, mean.

    Numbers in `x` make curves (a statistic by lag or step); names make one row each.
    """
    if frame["x"].dtype.is_numeric():
        return finish(_curve(frame, x_title, value_title), title, caption)
    rows = _rows(frame, x_title, value_title)
    return finish(rows, title, caption, height=max(70, 30 * frame["x"].n_unique()))


def _curve(frame: pl.DataFrame, x_title: str, value_title: str) -> Any:
    step = 1 if frame["x"].dtype.is_integer() else alt.Undefined
    base = alt.Chart(data(frame)).encode(
        x=alt.X("x:Q", title=x_title or None, axis=alt.Axis(grid=False, tickMinStep=step))
    )
    y = alt.Y("value:Q", title=value_title, scale=alt.Scale(zero=False))
    return alt.layer(
        base.mark_area(color=GREY, opacity=0.3).encode(y=alt.Y("low:Q", title=value_title), y2="high:Q"),
        base.mark_line(color=GREY, strokeDash=[5, 4]).encode(y="mean:Q"),
        base.mark_line(strokeWidth=2.4, point=alt.OverlayMarkDef(size=36)).encode(y=y, tooltip=_tips("x:Q")),
    )


def _rows(frame: pl.DataFrame, x_title: str, value_title: str) -> Any:
    y = alt.Y(
        "x:N",
        sort=names_of(frame, "x"),
        title=x_title or None,
        axis=alt.Axis(domain=False, ticks=False, labelLimit=280),
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


def probe_scores(frame: pl.DataFrame, title: str = "What can be read from the embeddings") -> Any:
    """Accuracy of linear probes on held-out runs beside shuffled labels.

    Columns target, accuracy, baseline, baseline_high, chance.
    """
    y = alt.Y(
        "target:N",
        sort=names_of(frame, "target"),
        title=None,
        axis=alt.Axis(domain=False, ticks=False, labelLimit=280),
    )
    base = alt.Chart(data(frame)).encode(y=y)
    scale = alt.Scale(domain=[0, 1.06], nice=False)
    percent = alt.Axis(format="%", values=[0, 0.25, 0.5, 0.75, 1])
    tips = [
        alt.Tooltip("target:N"),
        *(
            alt.Tooltip(f"{f}:Q", format=".1%", title=f.replace("_", " "))
            for f in ("accuracy", "baseline", "baseline_high", "chance")
        ),
    ]
    accuracy = alt.X("accuracy:Q", title="balanced accuracy on held-out runs", scale=scale, axis=percent)
    chart = alt.layer(
        base.mark_bar(color=GREY, opacity=0.35, height=11, cornerRadius=5).encode(
            x=alt.X("baseline:Q", scale=scale), x2="baseline_high:Q", tooltip=tips
        ),
        base.mark_tick(color="#D55E00", thickness=2.5, size=20).encode(x="chance:Q", tooltip=tips),
        base.mark_point(filled=True, size=110, opacity=1).encode(x=accuracy, tooltip=tips),
        base.mark_text(align="left", dx=10, fontSize=11).encode(
            x="accuracy:Q", text=alt.Text("accuracy:Q", format=".0%")
        ),
    )
    caption = (
        "Dot: accuracy. Grey: shuffled labels, from their mean to the 95 % quantile. Orange: chance alone."
    )
    return finish(chart, title, caption, height=34 * max(len(frame), 1))


def group_effects(frame: pl.DataFrame, title: str = "What makes the difference?") -> Any:
    """Effects of factors beside those of shuffled labels; columns as in `comparisons.EFFECTS`.

    One row per factor and measure. Filled dots have an adjusted p below 0.05.
    """
    rows = frame.with_columns(
        row=pl.format("{} · {}", "factor", "measure"),
        verdict=pl.when(pl.col("p_adjusted") < 0.05).then(pl.lit("p < 0.05")).otherwise(pl.lit("not clear")),
        p=pl.col("p_adjusted").map_elements(lambda p: f"p = {p:.2g}", return_dtype=pl.String),
        label_at=pl.max_horizontal("effect", pl.col("baseline_high").fill_nan(None)),
    )
    order = names_of(rows.sort("measure", "factor", maintain_order=True), "row")
    axis = alt.Axis(domain=False, ticks=False, labelLimit=280)
    base = alt.Chart(data(rows)).encode(y=alt.Y("row:N", sort=order, title=None, axis=axis))
    low = min(0.0, float(frame["effect"].min() or 0.0), float(frame["baseline"].min() or 0.0))  # type: ignore[arg-type]
    scale = alt.Scale(domain=[low - 0.04, 1.12], nice=False)
    percent = alt.Axis(format="%", values=[0, 0.25, 0.5, 0.75, 1])
    tips = [
        alt.Tooltip("factor:N"),
        alt.Tooltip("measure:N"),
        alt.Tooltip("effect:Q", format=".1%"),
        alt.Tooltip("effect_name:N", title="which is"),
        alt.Tooltip("baseline:Q", format=".1%", title="shuffled, mean"),
        alt.Tooltip("baseline_high:Q", format=".1%", title="shuffled, 95 %"),
        alt.Tooltip("p_value:Q", format=".3~g", title="p"),
        alt.Tooltip("p_adjusted:Q", format=".3~g", title="p (Holm)"),
        alt.Tooltip("num_runs:Q", title="runs"),
        alt.Tooltip("num_groups:Q", title="groups"),
    ]
    x = alt.X(
        "effect:Q", title="effect: share of the variance, or relative tightness", scale=scale, axis=percent
    )
    chart = alt.layer(
        base.mark_bar(color=GREY, opacity=0.35, height=11, cornerRadius=5).encode(
            x=alt.X("baseline:Q", scale=scale), x2="baseline_high:Q", tooltip=tips
        ),
        base.mark_point(size=110, opacity=1, strokeWidth=2).encode(
            x=x,
            fill=alt.Fill(
                "verdict:N",
                scale=alt.Scale(domain=["p < 0.05", "not clear"], range=["#0072B2", "transparent"]),
                legend=None,
            ),
            tooltip=tips,
        ),
        base.mark_text(align="left", dx=10, fontSize=11).encode(x="label_at:Q", text="p:N"),
    )
    caption = (
        "Dot: effect (filled: p < 0.05). Grey: shuffled labels, from their mean to the 95 % quantile. "
        "p values are corrected for their number (Holm)."
    )
    return finish(chart, title, caption, height=32 * max(len(frame), 1))


def cluster_shares(frame: pl.DataFrame, title: str = "Where experiments are", *, top: int = 10) -> Any:
    """Shares of runs in the clusters of a frozen reference; columns as in `comparisons.SHARES`.

    The `top` largest clusters and what lies outside all; lines are intervals over prompts.
    """
    largest = (
        frame.filter(pl.col("label") >= 0)
        .group_by("name", maintain_order=True)
        .agg(pl.col("share").max())
        .sort("share", descending=True, maintain_order=True)["name"]
        .head(top)
        .to_list()
    )
    rows = frame.filter(pl.col("name").is_in(largest) | (pl.col("label") < 0)).with_columns(
        pl.col("low", "high").fill_nan(None)
    )
    order = [*largest, *names_of(frame.filter(pl.col("label") < 0), "name")]
    experiments = names_of(frame, "experiment")
    y = alt.Y("name:N", sort=order, title=None, axis=alt.Axis(domain=False, ticks=False, labelLimit=300))
    by = alt.YOffset("experiment:N", sort=experiments, scale=alt.Scale(paddingInner=0.15, paddingOuter=0.2))
    shade = colour("experiment", experiments)
    tips = [
        alt.Tooltip("experiment:N"),
        alt.Tooltip("name:N", title="cluster"),
        alt.Tooltip("share:Q", format=".1%"),
        alt.Tooltip("low:Q", format=".1%", title="low"),
        alt.Tooltip("high:Q", format=".1%", title="high"),
        alt.Tooltip("num_runs:Q", title="runs"),
    ]
    base = alt.Chart(data(rows)).encode(y=y, yOffset=by)
    x = alt.X("share:Q", title="share of the steps of a run, mean over runs", axis=alt.Axis(format="%"))
    chart = alt.layer(
        base.mark_bar(cornerRadiusEnd=2).encode(x=x, color=shade, tooltip=tips),
        base.mark_rule(color=GREY, strokeWidth=1.6).encode(x="low:Q", x2="high:Q", tooltip=tips),
    )
    left_out = frame.filter(pl.col("label") >= 0)["name"].n_unique() - len(largest)
    caption = "One bar per experiment; clusters are frozen. Lines: 95 % intervals over prompts." + (
        f" The {left_out:,} smallest clusters are not drawn." if left_out > 0 else ""
    )
    return finish(chart, title, caption, height=(14 * len(experiments) + 10) * max(len(order), 1))


def _tips(x: str) -> list[alt.Tooltip]:
    return [alt.Tooltip(x, title="at"), *(alt.Tooltip(f"{f}:Q", format=".4~g") for f in TIPS)]
