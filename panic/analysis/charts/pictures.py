"""Charts of pictures: a run as a strip, networks and prompts as a grid. Pictures come as data URIs.

run_strip(steps); image_grid(cells)
"""

from __future__ import annotations

from textwrap import shorten
from typing import Any

import altair as alt
import polars as pl

from panic.analysis.charts.theme import WIDTH, data, finish, names_of

CELL = 96  # pixels of a picture in a grid
GAP = 8
ARROW = " → "  # between the models of a network, which then go below each other
LABEL = 60  # letters of a prompt beside its row


def run_strip(frame: pl.DataFrame, title: str = "A run", *, columns: int = 6) -> Any:
    """The pictures of a run, left to right, in rows; columns step, image, text (which hovering shows)."""
    rows = frame.with_row_index("place").with_columns(
        column=pl.col("place") % columns,
        row=pl.col("place") // columns,
        under=pl.col("text").map_elements(lambda t: shorten(t, 18, placeholder="…"), return_dtype=pl.String),
    )
    side = (WIDTH - 20) // columns - GAP
    num_rows = int(rows["row"].max() or 0) + 1  # type: ignore[arg-type]
    x = alt.X(
        "column:O", axis=None, scale=alt.Scale(paddingInner=0, paddingOuter=0, domain=list(range(columns)))
    )
    y = alt.Y("row:O", axis=None, scale=alt.Scale(paddingInner=0, paddingOuter=0))
    tips = [alt.Tooltip("step:Q"), alt.Tooltip("text:N")]
    base = alt.Chart(data(rows)).encode(x=x, y=y)
    chart = alt.layer(
        base.mark_image(width=side, height=side).encode(url="image:N", tooltip=tips),
        base.mark_text(dy=-side / 2 - 8, fontSize=10, fontWeight=600).encode(text="step:Q"),
        base.mark_text(dy=side / 2 + 9, fontSize=10).encode(text="under:N", tooltip=tips),
    )
    width = columns * (side + GAP) + 1  # not the ordinary width, which a page would replace
    return finish(
        chart,
        title,
        "Pictures by step; below, what was said of them.",
        width=width,
        height=num_rows * (side + 36),
    )


def image_grid(frame: pl.DataFrame, title: str = "Prompts and networks", *, caption: str = "") -> Any:
    """One picture per cell, prompts down and columns across; columns row, column, image, text."""
    rows, columns = names_of(frame, "row"), names_of(frame, "column")
    plain = alt.Scale(paddingInner=0, paddingOuter=0)
    labels = alt.Axis(domain=False, ticks=False, grid=False, labelLimit=220, labelPadding=8)
    lines = max((name.count(ARROW) for name in columns), default=0)
    base = alt.Chart(data(frame.with_columns(row=pl.col("row").map_elements(_short, return_dtype=pl.String))))
    chart = base.mark_image(width=CELL, height=CELL).encode(
        x=alt.X(
            "column:N",
            sort=columns,
            title=None,
            scale=plain,
            axis=alt.Axis(
                orient="top",
                domain=False,
                ticks=False,
                labelAngle=0,
                labelPadding=6 + 13 * lines,
                labelLimit=CELL + GAP,
                labelExpr="split(datum.label, '" + ARROW + "')",
            ),
        ),
        y=alt.Y("row:N", sort=[_short(r) for r in rows], title=None, scale=plain, axis=labels),
        url="image:N",
        tooltip=[alt.Tooltip("column:N"), alt.Tooltip("row:N", title="prompt"), alt.Tooltip("text:N")],
    )
    return finish(chart, title, caption, width=len(columns) * (CELL + GAP), height=len(rows) * (CELL + GAP))


def _short(text: str) -> str:
    return shorten(text, LABEL, placeholder="…")
