"""Trainings side by side: one page with what differs, how far they are, and their curves.

Curves come from the journals beside their models; of a training whose folder is on another machine there are
none. A journal is given as columns by name, one mapping per training.

    write_training_report(rows, {"loss": [{"step": [1.0, 2.0], "loss": [0.5, 0.25]}]}, "trainings.html")
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import altair as alt
import polars as pl

from panic.analysis.charts import colour, data, finish, spec
from panic.analysis.contrasts import Contrast, training_contrasts, training_names
from panic.analysis.page import render_page, write_page
from panic.store.trainings import TrainingRow

MOST_POINTS = 1_000
"""Of a curve on the page; of more every n-th is shown."""
CURVES: Mapping[str, tuple[str, str]] = {
    "loss": ("Loss of training", "mean over the steps since the point before"),
    "evaluation": ("Loss on validation items", "of the averaged weights, at every evaluation"),
}
"""By the names of journals: the heading of a curve, and what its numbers are."""


Journal = Mapping[str, Sequence[float | None]]


def write_training_report(
    rows: Sequence[TrainingRow], journals: Mapping[str, Sequence[Journal]], path: str | os.PathLike[str]
) -> Path:
    """Write the page of trainings to `path` and return it. OSError names it where it cannot be written."""
    return write_page(render(rows, journals), path)


def render(rows: Sequence[TrainingRow], journals: Mapping[str, Sequence[Journal]]) -> str:
    """The page as a text."""
    names = training_names(rows)
    curves = {name: curve(names, journals.get(name, ())) for name in CURVES}
    charts = {name: spec(chart(frame, name)) for name, frame in curves.items() if not frame.is_empty()}
    known = [{one for frame in curves.values() for one in frame["training"]} & {name} for name in names]
    return render_page(
        "trainings.html",
        specs=list(charts.values()),
        title=" · ".join(names),
        names=names,
        rows=rows,
        sections=_sections([one for one in training_contrasts(rows) if len(rows) == 1 or not one.is_same]),
        curves=[(CURVES[name][0], CURVES[name][1]) for name in charts],
        missing=[name for name, there in zip(names, known, strict=True) if not there],
        written_at=time.time(),
    )


def _sections(found: Sequence[Contrast]) -> list[tuple[str, list[Contrast]]]:
    return [
        (section, [one for one in found if one.section == section])
        for section in dict.fromkeys(one.section for one in found)
    ]


def curve(names: Sequence[str], journals: Sequence[Journal]) -> pl.DataFrame:
    """Return training, step and loss as far as the journals of trainings have both."""
    frames = []
    for name, found in zip(names, journals, strict=False):
        if "step" in found and "loss" in found:
            points = {"step": found["step"], "loss": found["loss"]}
            made = pl.DataFrame(points, {"step": pl.Float64, "loss": pl.Float64}).drop_nulls()
            frames.append(made.select(pl.lit(name).alias("training"), "step", "loss"))
    empty = pl.DataFrame(schema={"training": pl.String, "step": pl.Float64, "loss": pl.Float64})
    return pl.concat([empty, *frames])


def chart(frame: pl.DataFrame, journal: str) -> Any:
    """Return the chart of a journal's losses, a line per training; logarithmic where all are positive."""
    heading, caption = CURVES[journal]
    low = frame["loss"].min()
    scale = alt.Scale(type="log") if isinstance(low, float) and low > 0 else alt.Scale(zero=False)
    names = list(dict.fromkeys(frame["training"]))
    made = (
        alt.Chart(data(frame))
        .mark_line(strokeWidth=2, point={"size": 14})
        .encode(
            x=alt.X("step", type="quantitative", title="step of training"),
            y=alt.Y("loss", type="quantitative", title="loss", scale=scale),
            color=colour("training", names),
            tooltip=[
                alt.Tooltip("training", type="nominal"),
                alt.Tooltip("step", type="quantitative"),
                alt.Tooltip("loss", type="quantitative", format=".4g"),
            ],
        )
    )
    return finish(made, heading, caption)
