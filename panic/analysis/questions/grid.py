"""Where the images ended: the last one of a run of every prompt under every network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import altair as alt
import polars as pl

from panic.analysis.charts import data, finish, names_of
from panic.analysis.data import ExperimentData
from panic.analysis.evidence import Evidence, View, once
from panic.analysis.grouping import ARROW, grouped_by
from panic.analysis.shortening import shorten
from panic.analysis.whereabouts import at_end

TITLE = "Where the pictures ended"
CAVEAT = (
    "One picture per cell hides how much repeats differ; the command panic images --step N shows all runs. A "
    "stuck run is shown where its cycle is at the end, a failed or unfinished one not at all."
)
MAX_ROWS = 12  # prompts
MAX_COLUMNS = 6  # networks
CELL = 96  # pixels of an image
GAP = 8
LABEL = 60  # letters of a prompt beside its row

views = once


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """Cells to draw (row, column, run, digest, text, image), of how many rows and columns.

    has_arms: a column is of a network and an arm.
    """

    cells: pl.DataFrame
    has_arms: bool
    num_prompts: int
    num_networks: int


def table(evidence: Evidence, view: View | None = None) -> Grid | None:
    """The last image of the first ended run of each prompt under each network; None where there are none."""
    cells = final_images(evidence.data)
    if cells.is_empty():
        return None
    rows, columns = cells["row"].unique(maintain_order=True), cells["column"].unique(maintain_order=True)
    shown = cells.filter(
        pl.col("row").is_in(rows.head(MAX_ROWS).implode()),
        pl.col("column").is_in(columns.head(MAX_COLUMNS).implode()),
    )
    images = [evidence.thumbnails.get(digest)[0] for digest in shown["digest"]]
    shown = shown.with_columns(image=pl.Series(images, dtype=pl.String)).filter(pl.col("image") != "")
    if shown.is_empty():
        return None
    has_arms = evidence.data.runs["arm"].n_unique() > 1
    return Grid(cells=shown, has_arms=has_arms, num_prompts=len(rows), num_networks=len(columns))


def final_images(data: ExperimentData) -> pl.DataFrame:
    """The last image of one run per prompt and network: row, column, run, digest, text (drawn from).

    It is that of the first run that ended at its full length; a stuck run is where its cycle is by then.
    """
    outputs = data.outputs.select("output", "digest", "text")
    drawn = data.invocations.filter(pl.col("modality").cast(pl.String) == "image")
    last = at_end(drawn.select("run", "step", "input", "output"), data.runs)
    return (
        data.runs.select("run", "network", "prompt", "seed", "repeat")
        .join(last, on="run", maintain_order="left")
        .join(outputs.drop("text"), on="output", maintain_order="left")
        .join(outputs.select(input="output", text="text"), on="input", how="left", maintain_order="left")
        .group_by("prompt", "network", maintain_order=True)
        .first()
        .select(row="prompt", column="network", run="run", digest="digest", text="text")
    )


def chart(answer: Grid) -> Any:
    """One image per cell, prompts down and networks across."""
    frame = answer.cells
    rows, columns = names_of(frame, "row"), names_of(frame, "column")
    plain = alt.Scale(paddingInner=0, paddingOuter=0)
    labels = alt.Axis(domain=False, ticks=False, grid=False, labelLimit=220, labelPadding=8)
    lines = max((name.count(ARROW) for name in columns), default=0)
    base = alt.Chart(data(frame.with_columns(row=pl.col("row").map_elements(_label, return_dtype=pl.String))))
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
        y=alt.Y("row:N", sort=[_label(row) for row in rows], title=None, scale=plain, axis=labels),
        url="image:N",
        tooltip=[alt.Tooltip("column:N"), alt.Tooltip("row:N", title="prompt"), alt.Tooltip("text:N")],
    )
    width, height = (len(names) * (CELL + GAP) for names in (columns, rows))
    return finish(chart, f"Prompts and {grouped_by(columns, 2)}", width=width, height=height)


def sentence(answer: Grid) -> str:
    """What the grid of pictures shows, and how much of it."""
    num_prompts, num_networks = answer.num_prompts, answer.num_networks
    cut = num_prompts > MAX_ROWS or num_networks > MAX_COLUMNS
    some = f"; {min(num_prompts, MAX_ROWS)} x {min(num_networks, MAX_COLUMNS)} are shown" if cut else ""
    column = "network and arm" if answer.has_arms else "network"
    text = (
        f"The last picture of one run of each prompt (rows: {num_prompts}) under each {column} (columns: "
        f"{num_networks}{some}), at its full length."
    )
    if num_networks > 1:
        text += f" Where the pictures of one row are alike, the {column} made no difference to that prompt."
    if num_prompts > 1:
        text += " Where those of one column are alike, the prompt is forgotten there."
    return text


def _label(prompt: str) -> str:
    return shorten(prompt, LABEL)
