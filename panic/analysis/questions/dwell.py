"""Where does it stay, and for how long? Survival of dwells in clusters, and the moves between these."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import altair as alt
import numpy as np
import polars as pl
from numpy.typing import NDArray

from panic.analysis import dynamics
from panic.analysis.charts import (
    STEPS,
    colour,
    data,
    finish,
    names_of,
    null_band,
    outside,
    transition_graph,
)
from panic.analysis.checks import OUTLIER, AnalysisError
from panic.analysis.evidence import Evidence, Statistic, View, each_model
from panic.analysis.nulls import null_table, shuffled
from panic.analysis.states import States

TITLE = "Where it stays"
CAVEAT = (
    "Dwells that the end of a run cuts off are counted as such, not dropped; an outlier ends a dwell. A "
    "stuck run stays for good, up to its full length. Runs with a fixed seed are not random, so the bands"
    " speak for those with fresh noise."
)
BAND = ("mean dwell", "shuffles")
BAND_TITLE = "Dwells against random order"
MAX_STATES = 12  # in a graph
ELSEWHERE = -1  # the number of the state of what is not drawn
MAX_GRAPHS = 6  # networks

views = each_model


@dataclass(frozen=True, slots=True, kw_only=True)
class Moves:
    """Probabilities (k, k) of moves among the clusters `numbers`, and their shares (k,) of the time."""

    matrix: NDArray[np.float64]
    weights: NDArray[np.float64]
    numbers: list[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Dwells:
    """Survival by network, all dwells, a band of shuffles if there is one, and moves by network."""

    curves: pl.DataFrame
    dwells: pl.DataFrame
    band: pl.DataFrame | None
    moves: dict[str, Moves]
    names: dict[int, str]


def table(evidence: Evidence, view: View) -> Dwells:
    """Dwells of all runs in clusters. AnalysisError where no output belongs to a cluster."""
    states = evidence.states_under(view)
    curves = dwell_curves(states)
    try:
        band = dwells_against_shuffles(states, evidence.distinct)
    except AnalysisError:  # nothing ever left: the rest stands for itself
        band = None
    networks = [str(network) for (network,), _ in states.frame.group_by("network", maintain_order=True)]
    graphs = {network: moves(states, network) for network in networks[:MAX_GRAPHS]}
    return Dwells(
        curves=curves,
        dwells=dynamics.dwell_times(states.labels()),
        band=band,
        moves={network: graph for network, graph in graphs.items() if graph is not None},
        names=states.names,
    )


def _mean_dwells(evidence: Evidence, view: View) -> pl.DataFrame:
    """The mean dwell of every run that is in a cluster at all."""
    groups = evidence.states_under(view).frame.filter(~pl.col("is_known")).sort("run", "step")
    rows = [
        (run, dynamics.dwell_times(rows["label"].to_numpy())["length"].mean())
        for (run,), rows in groups.group_by("run", maintain_order=True)
    ]
    return pl.DataFrame(rows, {"run": pl.Int64, "value": pl.Float64}, orient="row")


STATISTIC = Statistic(what="mean dwell in clusters (outputs of one kind)", of=_mean_dwells)


def dwell_curves(states: States, *, by: str = "network") -> pl.DataFrame:
    """Survival of dwells by group: group, then the columns of `dynamics.survival`."""
    parts = []
    for (group,), rows in states.frame.sort("run", "step").group_by(by, maintain_order=True):
        labels = [one["label"].to_numpy() for _, one in rows.group_by("run", maintain_order=True)]
        dwells = dynamics.dwell_times(labels)
        if len(dwells):
            curve = dynamics.dwell_survival(dwells)
            parts.append(curve.select(pl.lit(str(group)).alias("group"), pl.all()))
    if not parts:
        raise AnalysisError("no output belongs to a cluster, so nothing dwells")
    return pl.concat(parts)


def dwells_against_shuffles(states: States, among: Collection[int], **limits: int) -> pl.DataFrame:
    """Mean length of dwells in clusters, run by run of these, against the same outputs in random order.

    Runs that are in one cluster only have no order, and are left out. Outliers end a dwell, as always.
    """

    rows = states.frame.filter(pl.col("run").is_in(list(among))).sort("run", "step")
    groups = rows.group_by("run", maintain_order=True)
    runs = [(int(run), group["label"].to_numpy()) for (run,), group in groups]
    mixed = [(run, labels) for run, labels in runs if len(np.unique(labels[labels != OUTLIER])) > 1]
    if not mixed:
        raise AnalysisError("no run is in two clusters or more")
    return null_table(mixed, dynamics.mean_length, shuffled, **limits)


def moves(states: States, network: str) -> Moves | None:
    """Moves among the clusters where a network's runs spend most steps, and "elsewhere"; None without moves.

    Elsewhere is everything that is not drawn: further clusters, and outputs in none. Without it, moves there
    would be missing, and the others look more likely than they are.
    """
    labels = states.labels(network)
    together = np.concatenate(labels)
    counts = np.bincount(together[together >= 0], minlength=states.clustering.num_clusters)
    most = np.sort(np.argsort(-counts, kind="stable")[:MAX_STATES])
    most = most[counts[most] > 0]
    places = np.full(len(counts) + 1, len(most))  # the last one is that of -1, what lies outside
    places[most] = np.arange(len(most))
    labels = [places[run] for run in labels]
    visits = np.bincount(np.concatenate(labels), minlength=len(most) + 1)
    size = len(most) + (1 if visits[-1] else 0)
    if not len(most) or size < 2 or not dynamics.transition_counts(labels, size).sum():
        return None
    return Moves(
        matrix=dynamics.transition_matrix(labels, size),
        weights=visits[:size] / visits.sum(),
        numbers=[*most.tolist(), ELSEWHERE][:size],
    )


def chart(answer: Dwells) -> dict[str, Any]:
    """Survival, mean dwells against shuffles, and a graph per network: a mixture of chains is no chain."""
    charts = {"": survival_chart(answer.curves)}
    names = answer.names | {ELSEWHERE: "elsewhere"}
    if answer.band is not None:
        charts[BAND_TITLE] = null_band(
            answer.band, BAND_TITLE, value_title="mean dwell (outputs of one kind)"
        )
    for network, graph in answer.moves.items():
        charts[network] = transition_graph(
            graph.matrix, network, weights=graph.weights, names=names, numbers=graph.numbers
        )
    return charts


def sentence(answer: Dwells) -> str:
    """How long a run stays in a cluster, and whether that is more than chance."""
    dwells = answer.dwells
    cut = int(dwells["is_censored"].sum())
    parts = [
        f"{group}, {_median(curve)}"
        for (group,), curve in answer.curves.group_by("group", maintain_order=True)
    ]
    more = f"; and {len(parts) - 4} more" if len(parts) > 4 else ""
    text = (
        f"{len(dwells):,} stays in clusters, {cut:,} of them cut off by the end of their run. Median stay by "
        f"Kaplan-Meier, which allows for those: {'; '.join(parts[:4])}{more}."
    )
    return text if answer.band is None else f"{text} {outside(answer.band, BAND)}"


def _median(curve: pl.DataFrame) -> str:
    """The least length that at most half of the dwells outlast."""
    reached = curve.sort("length").filter(pl.col("survival") <= 0.5)
    if reached.is_empty():
        return f"more than {float(curve['length'].to_numpy().max()):g} outputs"
    length = float(reached["length"][0])
    return f"{length:g} output{'s' if length != 1 else ''}"


def survival_chart(frame: pl.DataFrame, title: str = "How long it stays") -> Any:
    """Kaplan-Meier curves by group; columns group, then what `dynamics.survival` gives."""
    by = colour("group", names_of(frame, "group"))
    x = alt.X("length:Q", title="length of the dwell (outputs of one kind)", axis=STEPS)
    base = alt.Chart(data(frame)).encode(x=x, color=by)
    share = alt.Axis(format="%")
    chart = alt.layer(
        base.mark_area(opacity=0.15, interpolate="step-after").encode(
            y=alt.Y("low:Q", title="dwells that last longer", axis=share), y2="high:Q"
        ),
        base.mark_line(interpolate="step-after", strokeWidth=2.2).encode(
            y=alt.Y("survival:Q", title="dwells that last longer", axis=share)
        ),
        base.mark_point(size=60, filled=True, opacity=0).encode(
            y="survival:Q",
            tooltip=[
                alt.Tooltip("group:N"),
                alt.Tooltip("length:Q", title="length (outputs of one kind)"),
                alt.Tooltip("survival:Q", format=".1%"),
                alt.Tooltip("num_at_risk:Q", title="at risk"),
            ],
        ),
    )
    caption = (
        "Kaplan-Meier with 95 % bands: a dwell cut off by the end of a run counts for as long as it was seen."
    )
    return finish(chart, title, caption, height=260)
