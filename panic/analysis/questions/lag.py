"""Does it wander or come back? D(k), the distance of outputs k apart, beside shuffles of their order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import altair as alt
import numpy as np
import polars as pl
from numpy.typing import NDArray

from panic.analysis import dynamics
from panic.analysis.charts import GREY, colour, data, finish, names_of
from panic.analysis.checks import AnalysisError
from panic.analysis.data import ExperimentData, Vectors
from panic.analysis.evidence import Evidence, View, each_model
from panic.analysis.nulls import shuffled
from panic.topology import pairwise

TITLE = "Does it wander or come back?"
CAVEAT = (
    "Only outputs of one kind are compared, at lags up to half of a run. A stuck run counts up to the step "
    "at which it got stuck. The value at lag 1 is noise and motion together; 2 D(1) - D(2) estimates the "
    "noise of a walk. A shuffle keeps the first output, so its band need not be flat."
)
MAX_LAG = 24
NUM_SHUFFLES = 60
SHUFFLED = 400  # outputs of a run whose order is shuffled
STEPS = alt.Axis(grid=False, tickMinStep=1)

views = each_model


@dataclass(frozen=True, slots=True, kw_only=True)
class Lags:
    """D(k) by network, as `lag_curves` gives it, of outputs of a modality."""

    curves: pl.DataFrame
    modality: str


def table(evidence: Evidence, view: View) -> Lags:
    """D(k) up to MAX_LAG with bands of shuffles. AnalysisError where no run has 3 outputs with vectors."""
    curves = lag_curves(evidence.data, *view, MAX_LAG, num_surrogates=NUM_SHUFFLES)
    return Lags(curves=curves, modality=view.modality)


def lag_curves(
    data: ExperimentData,
    model: str,
    modality: str,
    max_lag: int = 20,
    *,
    num_surrogates: int = 0,
    max_runs: int = 60,
    seed: int = 0,
) -> pl.DataFrame:
    """D(k) by network: group, lag, distance (median over runs), low, high (quartiles), num_runs.

    Of every run up to half of its length: longer lags compare its beginning with its end and little else.
    With `num_surrogates` also null_low, null_high: the 95 % band of the median when the order of every run
    but its first state is shuffled, from at most `max_runs` runs of each network; null for lag 0.
    """
    networks = dict(data.runs.select("run", "network").iter_rows())
    parts = []
    for run, points in data.trajectories(model, modality, least=3):
        lags = min(max_lag, max(1, len(points) // 2))
        found = dynamics.distance_by_lag(points, lags)
        parts.append(
            pl.DataFrame({"group": networks[run], "run": run, "lag": np.arange(lags + 1), "distance": found})
        )
    if not parts:
        raise AnalysisError(f"no run has 3 {modality} vectors of {model}")
    curves = (
        pl.concat(parts)
        .group_by("group", "lag", maintain_order=True)
        .agg(
            low=pl.col("distance").quantile(0.25, "linear"),
            high=pl.col("distance").quantile(0.75, "linear"),
            distance=pl.col("distance").median(),
            num_runs=pl.len(),
        )
        .sort("group", "lag", maintain_order=True)
    )
    if not num_surrogates:
        return curves
    rng = np.random.default_rng(seed)
    chosen: dict[str, list[Vectors]] = {}
    for run, points in data.trajectories(model, modality, least=3):
        of_network = chosen.setdefault(networks[run], [])
        if len(of_network) < max_runs:
            of_network.append(points)
    bands = [
        pl.DataFrame({"group": group, "lag": np.arange(1, max_lag + 1), "null_low": low, "null_high": high})
        for group, runs in chosen.items()
        for low, high in [_shuffled_band(runs, max_lag, num_surrogates, rng)]
    ]
    beside = pl.concat(bands).with_columns(pl.col("null_low", "null_high").fill_nan(None))
    return curves.join(beside, on=["group", "lag"], how="left", maintain_order="left")


def _shuffled_band(
    runs: list[Vectors], max_lag: int, count: int, rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """95 % band (max_lag,), (max_lag,) of the median over runs of D(1), D(2), ... of shuffled orders."""
    draws = np.full((len(runs), count, max_lag), np.nan)
    for place, points in enumerate(runs):
        apart = pairwise(points[:SHUFFLED].astype(np.float64), "cosine")
        for number in range(count):
            order = shuffled(np.arange(len(apart)), rng)
            for lag in range(1, min(max_lag, max(1, len(apart) // 2)) + 1):
                draws[place, number, lag - 1] = apart[order[:-lag], order[lag:]].mean()
    known = ~np.isnan(draws).all(axis=(0, 1))
    low, high = np.full(max_lag, np.nan), np.full(max_lag, np.nan)
    medians = np.nanmedian(draws[:, :, known], axis=0)
    low[known], high[known] = np.quantile(medians, [0.025, 0.975], axis=0)
    return low, high


def chart(answer: Lags) -> Any:
    """Mean distance of outputs k apart, beside a grey band per network of where shuffles of the order lie."""
    frame = answer.curves
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
    return finish(chart, "How far apart after k steps: D(k)", caption)


def sentence(answer: Lags) -> str:
    """Does the distance grow with the lag, compared with shuffles of the order if they are there?"""
    parts = []
    for (group,), rows in answer.curves.filter(pl.col("lag") > 0).group_by("group", maintain_order=True):
        rows = rows.sort("lag")
        first, last = float(rows["distance"][0]), float(rows["distance"][-1])
        values = f"D({rows['lag'][0]}) = {first:.2g}, D({rows['lag'][-1]}) = {last:.2g}"
        if "null_low" in rows.columns and rows["null_low"][0] is not None:
            kind = _motion(rows)
        else:
            kind = "wanders off" if last > 1.5 * max(first, 1e-9) else "stays within what one step covers"
        values += "" if "comes back" in kind else _parts(rows)
        parts.append(f"{group} {kind} ({values})")
    more = f"; and {len(parts) - 4} more" if len(parts) > 4 else ""
    return f"By {answer.modality}s of one run, k of them apart: {'; '.join(parts[:4])}{more}."


def _parts(rows: pl.DataFrame) -> str:
    """Noise and drift in D(1), where the curve's beginning is that of a walk with noise."""
    if rows["lag"][:2].to_list() != [1, 2]:
        return ""
    one, two = rows["distance"][:2]
    noise = dynamics.noise([0.0, one, two])
    return f"; noise {noise:.2g}, drift {one - noise:.2g} a step" if 0 < noise < one else ""


def _motion(rows: pl.DataFrame) -> str:
    """What a curve D(1), D(2), ... says beside its null band."""
    if rows["distance"].max() == 0:
        return "stands still"
    late = rows.tail(max(1, len(rows) // 3))
    below = pl.min_horizontal("null_low", pl.lit(rows["distance"][0] / 2))
    back = rows.filter(pl.col("lag") > 1, pl.col("distance") < below)["lag"]
    nearer = rows["distance"][0] < rows["null_low"][0]
    kind = f"{'remembers' if nearer else 'does not remember'} the output before"
    if len(back):
        return f"{kind} and comes back after {back[0]}"
    farther = (late["distance"] > late["null_high"]).all()
    return f"{kind} and {'wanders off' if farther else 'stays in its region'}"
