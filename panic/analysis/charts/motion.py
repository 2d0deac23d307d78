"""Charts of motion: drift from the prompt, distance by lag, divergence of twins.

drift(bands, lines); drift_ridgeline(drifts); distance_by_lag(curves); divergence(curves, fit)
"""

from __future__ import annotations

from typing import Any

import altair as alt
import numpy as np
import polars as pl

from panic.analysis.charts.theme import GREY, colour, data, finish, names_of
from panic.analysis.checks import AnalysisError

DISTANCE = "cosine distance from the prompt"
OVERLAP = 1.7  # height of a ridge in rows
STEPS = alt.Axis(grid=False, tickMinStep=1)


def drift(
    bands: pl.DataFrame,
    lines: pl.DataFrame,
    title: str = "Drift from the prompt",
    *,
    value: str = "distance",
    value_title: str = DISTANCE,
) -> Any:
    """Median, quartile band and single runs of the distance from the start by step, by network.

    `bands` as `frames.drift_bands` gives them, `lines` as `frames.drift` does, of which `value` is drawn.
    Clicking a network in the legend fades the others.
    """
    chosen = alt.selection_point(fields=["network"], bind="legend")
    by = colour("network", names_of(bands, "network"))
    x = alt.X("step:Q", title="step", axis=STEPS)

    def visible(opacity: float) -> Any:
        return alt.condition(chosen, alt.value(opacity), alt.value(opacity / 12))

    single = alt.Chart(data(lines.select("run", "network", "step", distance=value))).mark_line(
        strokeWidth=0.8
    )
    over = alt.Chart(data(bands))
    chart = alt.layer(
        single.encode(
            x=x, y=alt.Y("distance:Q", title=value_title), detail="run:N", color=by, opacity=visible(0.22)
        ),
        over.mark_area().encode(
            x=x, y=alt.Y("low:Q", title=value_title), y2="high:Q", color=by, opacity=visible(0.16)
        ),
        over.mark_line(strokeWidth=2.6).encode(
            x=x, y=alt.Y("median:Q", title=value_title), color=by, opacity=visible(1.0)
        ),
        over.mark_point(size=70, filled=True, opacity=0).encode(
            x=x,
            y="median:Q",
            color=by,
            tooltip=[
                alt.Tooltip("network:N"),
                alt.Tooltip("step:Q"),
                alt.Tooltip("median:Q", format=".3f"),
                alt.Tooltip("low:Q", format=".3f", title="lower quartile"),
                alt.Tooltip("high:Q", format=".3f", title="upper quartile"),
                alt.Tooltip("num_runs:Q", title="runs"),
            ],
        ),
    ).add_params(chosen)  # fmt: skip
    return finish(chart, title, "Thick: median of runs; band: quartiles; thin: single runs.", height=330)


def drift_ridgeline(
    frame: pl.DataFrame,
    title: str = "Where the outputs are, stretch by stretch",
    *,
    num_rows: int = 8,
    value_title: str = DISTANCE,
) -> Any:
    """Distribution of the distance from the start in stretches of steps, one ridge each, later ones below.

    Columns network, step, distance, as `frames.drift` gives them. Raises AnalysisError for an empty frame.
    """
    if frame.is_empty():
        raise AnalysisError("there is no distance to draw: no run has vectors of this modality")
    ridges = _ridges(frame, num_rows)
    rows = ridges["row"].max()
    starts = dict(ridges.select("row", "stretch").unique().iter_rows())
    labels = " : ".join(f"datum.value == {-row} ? '{text}'" for row, text in sorted(starts.items()))
    axis = alt.Axis(
        values=[-row for row in sorted(starts)],
        labelExpr=f"{labels} : ''",
        domain=False,
        ticks=False,
        grid=True,
    )
    scale = alt.Scale(domain=[-float(rows or 0) - 0.1, OVERLAP], nice=False)  # type: ignore[arg-type]
    base = alt.Chart(data(ridges)).encode(
        x=alt.X("distance:Q", title=value_title, axis=alt.Axis(grid=False)),
        color=colour("network", names_of(frame, "network")),
        detail=["row:N", "network:N"],
    )
    y = alt.Y("top:Q", title="steps", axis=axis, scale=scale)
    chart = alt.layer(
        base.mark_area(opacity=0.35).encode(y=y, y2="base:Q"), base.mark_line(strokeWidth=1.6).encode(y=y)
    )
    caption = "Each ridge is the smoothed histogram of one stretch of steps, scaled to equal height."
    return finish(chart, title, caption, height=44 * (int(rows or 0) + 2))  # type: ignore[arg-type]


def _ridges(frame: pl.DataFrame, num_rows: int) -> pl.DataFrame:
    """Densities on a grid: network, row, stretch, distance, base, top. A lone value gets a narrow ridge."""
    first, last = int(frame["step"].min()), int(frame["step"].max())  # type: ignore[arg-type]
    size = max(1, -(-(last - first + 1) // num_rows))
    low, high = float(frame["distance"].min()), float(frame["distance"].max())  # type: ignore[arg-type]
    width = max(0.03 * (high - low), 1e-3)
    staged = frame.with_columns(row=(pl.col("step") - first) // size)
    groups = [
        (network, row, group["distance"].to_numpy())
        for (network, row), group in staged.group_by("network", "row", maintain_order=True)
    ]
    spreads = [max(width, 1.06 * values.std() * len(values) ** -0.2) for *_, values in groups]  # Silverman
    wide = 2.5 * max(spreads)
    grid = np.linspace(max(0.0, low - wide), high + wide, 160)
    parts = []
    for (network, row, values), spread in zip(groups, spreads, strict=True):
        mirrored = np.append(values, -values)  # there is nothing below 0, and no mass may get lost there
        density = np.exp(-0.5 * ((grid[:, None] - mirrored) / spread) ** 2).sum(axis=1)
        row, base = int(row), -float(row)
        end = min(first + (row + 1) * size - 1, last)
        parts.append(
            pl.DataFrame(
                {
                    "network": network,
                    "row": row,
                    "stretch": f"{first + row * size}-{end}" if size > 1 else str(end),
                    "distance": grid,
                    "base": base,
                    "top": base + OVERLAP * density / density.max(),
                }
            )
        )
    return pl.concat(parts).sort("row", "network", maintain_order=True)


def distance_by_lag(frame: pl.DataFrame, title: str = "How far apart after k steps: D(k)") -> Any:
    """Mean distance of outputs k apart; columns group, lag, distance, low, high (quartiles of runs).

    With null_low and null_high: where the median lies when the order is shuffled, as a grey band per group.
    """
    by = colour("group", names_of(frame, "group"))
    x = alt.X("lag:Q", title="lag k (outputs of one kind)", axis=STEPS)
    base = alt.Chart(data(frame)).encode(x=x, color=by)
    y = alt.Y("distance:Q", title="mean cosine distance")
    chart = alt.layer(
        base.mark_area(opacity=0.15).encode(y=alt.Y("low:Q", title="mean cosine distance"), y2="high:Q"),
        base.mark_line(strokeWidth=2.2, point=alt.OverlayMarkDef(size=36)).encode(
            y=y,
            tooltip=[
                alt.Tooltip("group:N"),
                alt.Tooltip("lag:Q"),
                alt.Tooltip("distance:Q", format=".4f"),
                alt.Tooltip("low:Q", format=".4f", title="lower quartile"),
                alt.Tooltip("high:Q", format=".4f", title="upper quartile"),
            ],
        ),
    )
    caption = (
        "Flat: it stays in one region. Rising: it wanders off. Dips: it comes back after so many steps. "
        "The jump at the first lag is noise and motion together. Line: median of runs, band: quartiles."
    )
    if "null_low" in frame.columns:
        shuffled = alt.Chart(data(frame.filter(pl.col("null_low").is_not_null())))
        band = shuffled.mark_area(color=GREY, opacity=0.4).encode(
            x=x, y=alt.Y("null_low:Q", title="mean cosine distance"), y2="null_high:Q", detail="group:N"
        )
        chart = alt.layer(band, chart)
        caption += " Grey: where the median lies in 95 % of shuffles of the order."
    return finish(chart, title, caption)


def divergence(
    frame: pl.DataFrame, title: str = "How fast twins part", *, fit: Any = None, logarithmic: bool = True
) -> Any:
    """Distance of pairs of runs by step, with their geometric mean; columns pair, step, distance.

    `fit`: a `dynamics.Ftle` whose `first` and `last` are steps, drawn over those. Pairs that have met
    (distance 0) are left out of a logarithmic chart.
    """
    shown = frame.filter(pl.col("distance") > 0) if logarithmic else frame
    scale = alt.Scale(type="log", nice=False, padding=8) if logarithmic else alt.Scale(zero=True)
    axis = alt.Axis(values=_decades(shown["distance"]), format="~g") if logarithmic else alt.Axis()
    x = alt.X("step:Q", title="step", axis=STEPS)
    y = alt.Y("distance:Q", title="distance of the twins", scale=scale, axis=axis)
    mean = (
        shown.group_by("step")
        .agg(distance=pl.col("distance").log().mean().exp(), pairs=pl.len())
        .sort("step")
    )
    tips = [
        alt.Tooltip("step:Q"),
        alt.Tooltip("distance:Q", format=".4~g", title="geometric mean"),
        alt.Tooltip("pairs:Q"),
    ]
    thin = alt.Chart(data(shown)).mark_line(strokeWidth=0.8, opacity=0.3, color=GREY)
    over = alt.Chart(data(mean))
    layers = [
        thin.encode(x=x, y=y, detail="pair:N"),
        over.mark_line(strokeWidth=2.2).encode(x=x, y=y),
        over.mark_point(size=60, filled=True, opacity=0).encode(x=x, y=y, tooltip=tips),
    ]
    caption = "Thin: pairs of runs; thick: their geometric mean."
    if fit is not None:
        layers.append(
            alt.Chart(data(_fitted(mean, fit)))
            .mark_line(strokeDash=[6, 5], strokeWidth=4, color="#E69F00")
            .encode(x=x, y=y)
        )
        ending = "then saturated" if fit.is_saturated else "not saturated"
        caption += (
            f" Dashed: growth of {fit.rate:.3g} ± {fit.standard_error:.2g} per step over steps "
            f"{fit.first}-{fit.last} (R² {fit.r2:.2f}, {ending} at {fit.saturation:.2g})."
        )
    return finish(alt.layer(*layers), title, caption)


def _decades(values: pl.Series) -> list[float]:
    """Ticks of a logarithmic axis: powers of ten, with 2 and 5 between them if there are few."""
    if values.is_empty():
        return [1.0]
    low, high = np.log10([float(values.min()), float(values.max())])  # type: ignore[arg-type]
    powers = np.arange(np.floor(low), np.ceil(high) + 1)
    between = (1, 2, 5) if len(powers) <= 3 else (1, 3) if len(powers) <= 5 else (1,)
    return [float(f"{factor}e{int(power)}") for power in powers for factor in between]


def _fitted(mean: pl.DataFrame, fit: Any) -> pl.DataFrame:
    """The line of a fit through the mean of the logarithms over its steps."""
    part = mean.filter(pl.col("step").is_between(fit.first, fit.last))
    steps = part["step"].to_numpy().astype(float)
    level = float(np.log(part["distance"].to_numpy()).mean())
    return pl.DataFrame({"step": steps, "distance": np.exp(level + fit.rate * (steps - steps.mean()))})
