"""Which region is a run in, step by step? Clusters of the outputs in time, and how well they hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import altair as alt
import numpy as np
import polars as pl
from numpy.typing import NDArray

from panic.analysis.charts import data, finish
from panic.analysis.checks import AnalysisError
from panic.analysis.clustering import Clustering, stability
from panic.analysis.data import ExperimentData
from panic.analysis.evidence import Evidence, View, first_model
from panic.analysis.sampling import of_some_runs, spread, thinned

TITLE = "Clusters in time"
CAVEAT = (
    "HDBSCAN on directions of vectors; what it leaves out is grey, and shares of 60 to 70 % are usual for"
    " captions. Agreement is the adjusted Rand index with clusterings that lack a fifth of the runs: 1 is"
    " the same, 0 is chance; below about 0.7 the borders are not to be trusted. Stuck runs go on by their"
    " cycle."
)
MAX_RUNS = 40
MAX_CELLS = 4000
OUTLIER = "outlier"
STEPS = alt.Axis(grid=False, tickMinStep=1)

views = first_model


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    """Steps that are drawn (as `States.frame`), names of clusters, the clustering of all, and its agreement.

    `agreement`: median adjusted Rand index with clusterings of parts; None where there is none.
    """

    shown: pl.DataFrame
    names: dict[int, str]
    clustering: Clustering
    num_steps: int
    num_known: int
    agreement: float | None


def table(evidence: Evidence, view: View) -> Timeline:
    """Labels of the steps of some runs. AnalysisError without vectors."""
    states = evidence.states
    with_labels = set(states.frame["run"])
    runs = spread([run for run in evidence.whole.rows if run.id in with_labels], MAX_RUNS)
    shown = states.frame.filter(pl.col("run").is_in([run.id for run in runs]))
    return Timeline(
        shown=thinned(shown, max(20, MAX_CELLS // max(len(runs), 1))),
        names=states.names,
        clustering=states.clustering,
        num_steps=len(states.frame),
        num_known=int(states.frame["is_known"].sum()),
        agreement=_agreement(evidence.data, view),
    )


def _agreement(data: ExperimentData, view: View) -> float | None:
    try:
        return float(np.median(cluster_stability(data, *view)))
    except AnalysisError:
        return None


def cluster_stability(
    data: ExperimentData,
    model: str,
    modality: str,
    *,
    max_points: int = 1500,
    repeats: int = 8,
    seed: int = 0,
) -> NDArray[np.float64]:
    """`clustering.stability` (repeats,) of the steps when a fifth of the runs is left out, of some runs."""
    steps = of_some_runs(data.steps(model, modality), max_points, seed)
    points = data.matrix(model)[steps["row"].to_numpy()]
    return stability(points, units=steps["run"].to_numpy(), repeats=repeats, seed=seed)


def chart(answer: Timeline) -> Any:
    """One row per run, one colour per cluster."""
    return cluster_timeline(answer.shown, names=answer.names)


def sentence(answer: Timeline) -> str:
    """How many clusters, how much lies outside, and how well they hold."""
    found, num_steps, agreement = answer.clustering, answer.num_steps, answer.agreement
    if not found.num_clusters:
        return f"No cluster was found in {num_steps:,} steps: no region is visited much more than others."
    clusters = "one cluster" if found.num_clusters == 1 else f"{found.num_clusters} clusters"
    outside = f"{found.outlier_share:.0%} of the outputs lie outside."
    if agreement is None:
        return f"{num_steps:,} steps fall into {clusters}; {outside}"
    stable = f"Clusterings without a fifth of the runs agree by {agreement:.2f}."
    return f"{num_steps:,} steps fall into {clusters}; {outside} {stable}"


def cluster_timeline(
    frame: pl.DataFrame, title: str = "Clusters in time", *, names: dict[int, str] | None = None
) -> Any:
    """Which cluster every run is in at every step; columns run, step, label (-1: outlier), text if known.

    `names`: what stands for a cluster, such as its medoid's text. The seven where runs spend most steps get
    colours of their own.
    """
    rows = frame.with_columns(cluster=_cluster_names(frame["label"], names or {}), label=pl.col("label"))
    order = (
        rows.filter(pl.col("label") >= 0)
        .group_by("label", "cluster")
        .len()
        .sort(["len", "label"], descending=[True, False])["cluster"]
        .to_list()
    )
    top, rest = order[:7], order[7:]
    palette = ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#B8A800"][: len(top)]
    domain = [*top, *(["other clusters"] if rest else []), OUTLIER]
    colours = [*palette, *(["#6b747d"] if rest else []), "#c9ced3"]
    if rest:
        rows = rows.with_columns(
            shown=pl.when(pl.col("cluster").is_in(rest)).then(pl.lit("other clusters")).otherwise("cluster")
        )
    else:
        rows = rows.with_columns(shown=pl.col("cluster"))
    if (rows["label"] >= 0).all():
        domain, colours = domain[:-1], colours[:-1]
    steps = rows["step"].unique().sort()
    stride = int(steps.diff().min() or 1) if len(steps) > 1 else 1  # type: ignore[arg-type]
    rows = rows.with_columns(end=pl.col("step") + stride)
    tips = [alt.Tooltip(f"{f}:N") for f in ("text", "cluster", "run", "step") if f in rows.columns]
    chart = (
        alt.Chart(data(rows))
        .mark_rect(stroke=None)
        .encode(
            x=alt.X("step:Q", title="step", axis=STEPS, scale=alt.Scale(nice=False, zero=False)),
            x2="end:Q",
            y=alt.Y(
                "run:O", title="run", axis=alt.Axis(grid=False, ticks=False, domain=False, labelOverlap=True)
            ),
            color=alt.Color(
                "shown:N",
                scale=alt.Scale(domain=domain, range=colours),
                legend=alt.Legend(orient="bottom", title=None, columns=1, labelLimit=560),
            ),
            tooltip=tips,
        )
    )
    caption = (
        "One row per run, one colour per cluster; clusters are named by the text nearest to their middle."
    )
    return finish(chart, title, caption, height=int(min(420, max(70, 17 * rows["run"].n_unique()))))


def _cluster_names(labels: pl.Series, names: dict[int, str]) -> pl.Series:
    known = {
        int(label): OUTLIER
        if label < 0
        else f"{label}: {names[label]}"
        if label in names
        else f"cluster {label}"
        for label in labels.unique().sort()
    }
    return labels.replace_strict(known, return_dtype=pl.String)
