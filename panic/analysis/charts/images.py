"""The images of a run as a strip; images come as data URIs.

run_strip(steps)
"""

from __future__ import annotations

from typing import Any

import altair as alt
import polars as pl

from panic.analysis.charts.steps import call_tip
from panic.analysis.charts.theme import WIDTH, data, finish
from panic.analysis.shortening import shorten

GAP = 8


def run_strip(frame: pl.DataFrame, title: str = "A run", *, columns: int = 6) -> Any:
    """The pictures of a run, left to right, in rows; columns step, image, text (which hovering shows)."""
    rows = frame.with_row_index("place").with_columns(
        column=pl.col("place") % columns,
        row=pl.col("place") // columns,
        under=pl.col("text").map_elements(lambda text: shorten(text, 18), return_dtype=pl.String),
    )
    side = (WIDTH - 20) // columns - GAP
    num_rows = int(rows["row"].max() or 0) + 1  # type: ignore[arg-type]
    x = alt.X(
        "column:O", axis=None, scale=alt.Scale(paddingInner=0, paddingOuter=0, domain=list(range(columns)))
    )
    y = alt.Y("row:O", axis=None, scale=alt.Scale(paddingInner=0, paddingOuter=0))
    tips = [call_tip(), alt.Tooltip("text:N")]
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
        "Pictures by model call; below, what was said of them.",
        width=width,
        height=num_rows * (side + 36),
    )
