"""Figures of what was done: time per model, stuck runs, a picture of every prompt under every network."""

from __future__ import annotations

import time

import polars as pl

from panic.analysis import charts, frames, readings, tables
from panic.analysis.figures.figure import Figure, Material

MAX_ROWS = 12  # prompts in the grid of pictures
MAX_COLUMNS = 6


def time_figure(material: Material) -> list[Figure]:
    """Seconds per model and stage."""
    frame = frames.times(material.store, material.experiment)
    title = "What took how long"
    if frame.is_empty():
        return [Figure(title=title, missing="No model has been called yet.")]
    wall_s = sum(
        (s.ended_at or time.time()) - s.started_at
        for s in material.sessions
        if s.ended_at or s.end_state is None
    )
    return [
        Figure(
            title=title,
            specs=(charts.spec(charts.time_by_model(frame)),),
            reading=readings.time_reading(frame, wall_s),
            caveat=readings.TIME_CAVEAT,
        )
    ]


def stuck_figure(material: Material) -> list[Figure]:
    """Entry steps and periods, if any run is stuck; the table of the page says the rest."""
    runs = material.all_runs.runs
    if runs["period"].is_null().all():
        return []
    return [
        Figure(
            title="When runs get stuck, and how",
            specs=(charts.spec(charts.stuck_periods(runs)),),
            reading=readings.periods_reading(runs),
            caveat=readings.PERIODS_CAVEAT,
        )
    ]


def grid_figure(material: Material) -> list[Figure]:
    """The last picture of the first run of every prompt under every network."""
    cells = tables.final_images(material.data)
    if cells.is_empty():
        return []
    rows, columns = cells["row"].unique(maintain_order=True), cells["column"].unique(maintain_order=True)
    shown = cells.filter(
        pl.col("row").is_in(rows.head(MAX_ROWS).implode()),
        pl.col("column").is_in(columns.head(MAX_COLUMNS).implode()),
    )
    images = [material.thumbnails.get(digest)[0] for digest in shown["digest"]]
    shown = shown.with_columns(image=pl.Series(images, dtype=pl.String)).filter(pl.col("image") != "")
    if shown.is_empty():
        return []
    return [
        Figure(
            title="Where the pictures ended",
            specs=(charts.spec(charts.image_grid(shown)),),
            reading=readings.grid_reading(len(rows), len(columns), MAX_ROWS, MAX_COLUMNS),
            caveat=readings.GRID_CAVEAT,
        )
    ]
