"""Charts of evidence: a statistic against its null band, probe scores against chance.

null_band(pl.DataFrame({"x": ..., "value": ..., "low": ..., "high": ..., "mean": ...}))
probe_scores(tables.probe_table(data, "PocketText", "text")[0])
"""

from __future__ import annotations

from typing import Any

import altair as alt
import polars as pl

from panic.analysis.charts.theme import GREY, data, finish, names_of

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
    return alt.layer(
        base.mark_bar(color=GREY, opacity=0.35, height=11, cornerRadius=5).encode(
            x=alt.X("low:Q", title=value_title, scale=alt.Scale(padding=12)), x2="high:Q"
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


def _tips(x: str) -> list[alt.Tooltip]:
    return [alt.Tooltip(x, title="at"), *(alt.Tooltip(f"{f}:Q", format=".4~g") for f in TIPS)]
