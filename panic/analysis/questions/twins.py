"""How fast do runs of one prompt part, which differ in their noise alone?"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import altair as alt
import numpy as np
import polars as pl

from panic.analysis import dynamics
from panic.analysis.charts import GREY, between_calls, call_axis, call_tip, data, finish, names_of
from panic.analysis.checks import AnalysisError
from panic.analysis.data import ExperimentData
from panic.analysis.evidence import Evidence, View, first_model
from panic.analysis.grouping import grouped_by, untold

TITLE = "How fast runs of one prompt part"
CAVEAT = (
    "Runs of one prompt with fresh noise are apart from their first output on, so this is no response to a "
    "small change; a rate needs several outputs of growth, in two pairs or more, before the distances "
    "saturate, else none is given; it is per model call. Each run is in one pair only, and failed runs are "
    "in none."
)

MAX_CHARTS = 12  # networks
LEAST_TICKS = 3
DENSER = ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7), tuple(n / 10 for n in range(10, 100)))

views = first_model


@dataclass(frozen=True, slots=True, kw_only=True)
class Twins:
    """Distances of pairs of runs (network, pair, step, distance), by network a fit or why there is none."""

    pairs: pl.DataFrame
    fits: dict[str, dynamics.Ftle | str]
    num_failed: int


def table(evidence: Evidence, view: View) -> Twins | None:
    """Pairs of runs of one network and prompt with fresh noise; None where there are none that ever part."""
    pairs = twins(evidence.data, *view)
    if pairs.is_empty() or pairs["distance"].max() == 0:
        return None
    fits = {str(network): _fit(rows) for (network,), rows in pairs.group_by("network", maintain_order=True)}
    failed = evidence.data.runs.filter(pl.col("seed") == -1, pl.col("state") == "failed")
    return Twins(pairs=pairs, fits=fits, num_failed=len(failed))


def _fit(pairs: pl.DataFrame) -> dynamics.Ftle | str:
    try:
        return growth(pairs)
    except AnalysisError as error:
        return error.message


def twins(data: ExperimentData, model: str, modality: str, *, max_pairs: int = 200) -> pl.DataFrame:
    """Distances of runs of one network and prompt that differ in repeat: network, pair, step, distance.

    A run that has failed is left out, and a run is in one pair at most: pairs that share runs are not
    independent.
    """
    points = dict(data.trajectories(model, modality))
    steps = data.steps(model, modality)
    schema = {"network": pl.String, "pair": pl.String, "step": pl.Int64, "distance": pl.Float64}
    parts = [pl.DataFrame(schema=schema)]
    fresh = data.runs.filter(pl.col("seed") == -1, pl.col("state") != "failed")
    for (network, _), group in fresh.group_by("network", "prompt", maintain_order=True):
        runs = [run for run in group["run"] if run in points]
        for a, b in zip(runs[::2], runs[1::2], strict=False):
            if len(parts) > max_pairs:
                break
            apart = dynamics.divergence(points[a], points[b])
            at = steps.filter(pl.col("run") == a)["step"].to_numpy()[: len(apart)]
            name = f"runs {a} and {b}"
            parts.append(
                pl.DataFrame({"network": network, "pair": name, "step": at, "distance": apart}, schema)
            )
    return pl.concat(parts)


def growth(pairs: pl.DataFrame) -> dynamics.Ftle:
    """`dynamics.ftle` of the pairs of one network, per step of the run, over the steps that they all have.

    `first` and `last` are steps. Pairs that are less than half as long as the longest are left out.
    AnalysisError where there was no early growth that is above 0 with 95 % confidence over pairs.
    """
    from scipy.stats import t

    longest = int(pairs.group_by("pair").len()["len"].max() or 0)  # type: ignore[arg-type]
    long = pairs.filter(2 * pl.len().over("pair") >= longest)
    wide = long.pivot(on="pair", index="step", values="distance").sort("step").drop_nulls()
    steps, num_pairs = wide["step"].to_numpy(), wide.width - 1
    if num_pairs < 2:
        raise AnalysisError("fewer than two pairs are long enough")
    stride = float(np.diff(steps).min()) if len(steps) > 1 else 1.0
    found = dynamics.ftle(wide.drop("step").to_numpy().T, step=stride)
    if found.rate - t.ppf(0.975, num_pairs - 1) * found.standard_error <= 0:
        raise AnalysisError(
            f"the early growth of {found.rate:.2g} ± {found.standard_error:.2g} per model call may be none"
        )
    return replace(found, first=int(steps[found.first]), last=int(steps[found.last]))


def chart(answer: Twins) -> dict[str, Any]:
    """Distances of the pairs of a network by step, with their geometric mean and the fit, some networks."""
    charts: dict[str, Any] = {}
    for (network,), pairs in answer.pairs.group_by("network", maintain_order=True):
        fit, name = answer.fits[str(network)], str(network)
        if pairs["distance"].max() != 0 and len(charts) < MAX_CHARTS:
            charts[name] = divergence(pairs, name, fit=None if isinstance(fit, str) else fit)
    return charts


def sentence(answer: Twins) -> str:
    """How far runs of one prompt end up from each other, and whether that grew, network by network."""
    parts = [
        _said(str(network), pairs, answer.fits[str(network)])
        for (network,), pairs in answer.pairs.group_by("network", maintain_order=True)
    ]
    names = names_of(answer.pairs, "network")
    more = untold(names, 4)
    more += f" No more than {MAX_CHARTS} {grouped_by(names, 2)} are drawn." if len(names) > MAX_CHARTS else ""
    some = f" {answer.num_failed:,} failed runs are left out." if answer.num_failed else ""
    return " ".join(parts[:4]) + more + some


def _said(network: str, pairs: pl.DataFrame, fit: dynamics.Ftle | str) -> str:
    last = pairs.sort("step").group_by("pair").last()["distance"]
    apart, count = float(last.median() or 0.0), pairs["pair"].n_unique()  # type: ignore[arg-type]
    text = (
        f"{network}: {count:,} pair{'s' if count != 1 else ''} of runs that differ in their noise, at a "
        f"median (Euclidean) distance of {apart:.2g} at the end"
    )
    if isinstance(fit, str):
        return f"{text}; no rate of growth is given: {fit}."
    return (
        f"{text}; early on it grows by a factor of {np.exp(fit.rate):.2f} per model call (R² {fit.r2:.2f})."
    )


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
    x = call_axis()
    y = alt.Y("distance:Q", title="Euclidean distance of the twins", scale=scale, axis=axis)
    mean = (
        shown.group_by("step")
        .agg(distance=pl.col("distance").log().mean().exp(), pairs=pl.len())
        .sort("step")
    )
    tips = [
        call_tip(),
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
    caption = f"Thin: {frame['pair'].n_unique():,} pairs of runs; thick: their geometric mean."
    if fit is not None:
        layers.append(
            alt.Chart(data(_fitted(mean, fit)))
            .mark_line(strokeDash=[6, 5], strokeWidth=4, color="#E69F00")
            .encode(x=x, y=y)
        )
        ending = "then level" if fit.is_saturated else "not known to be level"
        caption += (
            f" Dashed: growth of {fit.rate:.3g} ± {fit.standard_error:.2g} per model call, "
            f"{between_calls(fit.first, fit.last)} (R² {fit.r2:.2f}, {ending} at {fit.saturation:.2g})."
        )
    return finish(alt.layer(*layers), title, caption)


def _decades(values: pl.Series) -> list[float]:
    """Ticks of a logarithmic axis: powers of ten, with more and more between them while there are few."""
    if values.is_empty():
        return [1.0]
    low, high = float(values.min()), float(values.max())  # type: ignore[arg-type]
    powers = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    inside: list[float] = []
    for between in DENSER:
        ticks = [float(f"{factor}e{power}") for power in powers for factor in between]
        inside = [tick for tick in ticks if low <= tick <= high]
        if len(inside) >= LEAST_TICKS:
            break
    return inside or [low]


def _fitted(mean: pl.DataFrame, fit: Any) -> pl.DataFrame:
    """The line of a fit through the mean of the logarithms over its steps."""
    part = mean.filter(pl.col("step").is_between(fit.first, fit.last))
    steps = part["step"].to_numpy().astype(float)
    level = float(np.log(part["distance"].to_numpy()).mean())
    return pl.DataFrame({"step": steps, "distance": np.exp(level + fit.rate * (steps - steps.mean()))})
