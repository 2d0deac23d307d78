"""Which region is a run in, step by step? Clusters of the outputs in time, and how well they hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import altair as alt
import numpy as np
import polars as pl

from panic.analysis.charts import GREY, call_axis, call_tip, counted, data, finish, numbered
from panic.analysis.charts.theme import OKABE_ITO
from panic.analysis.checks import AnalysisError
from panic.analysis.evidence import Evidence, Statistic, View, each_model
from panic.analysis.factors import trajectories
from panic.analysis.grouping import grouped_by
from panic.analysis.sampling import spread, thinned
from panic.analysis.shortening import shorten
from panic.analysis.states import NAME, agreement
from panic.analysis.whereabouts import continued

TITLE = "Clusters in time"
CAVEAT = (
    "HDBSCAN on directions of vectors; what it leaves out is grey, and shares of 60 to 70 % are usual for "
    "captions. Agreement is the adjusted Rand index of these clusters with those found without a fifth of "
    "the runs: 1 is the same, 0 is chance; below about 0.7 the borders are not to be trusted. Beside one "
    "output that is most of all, groups of others may be chance. Stuck runs go on by their cycle; runs that "
    "met are copies and visit and leave as one."
)
MAX_RUNS = 40
MAX_CELLS = 4000
FILLS = 0.2  # of the outputs: one that is named
COLOURS = [*OKABE_ITO, "#8064C8", "#9A5F4A", "#4A7C8C"]  # of the clusters where runs are most often
RULES = 0.5  # of the outputs: one beside which no clusters are counted
OUTLIER = "outlier"
OTHERS = "other clusters"
OTHER_SHADES = ("#78818a", "#69727b", "#929ba4")  # of clusters without a colour of their own, in turn
FAINT = 0.35  # opacity of outliers: faint on light and on dark ground

views = each_model


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    """Outputs that are drawn (as `States.frame`), names of clusters, and what there is to say of all outputs.

    `unknown`: run and step of outputs of these runs that have no vector. `num_left_out`: how many outputs of
    these runs are not drawn.

    An output counts as often as a run was at it. `shared`: clusters that more than one run visits (copies
    are one); `own`: those that one network, or arm, visits only, None where there is one; `outside`: the
    share of outputs in no cluster; `most`: the one that is visited most, and its share of all; `agreement`:
    median of `states.agreement`, None where it says nothing.
    """

    shown: pl.DataFrame
    unknown: pl.DataFrame
    num_left_out: int
    names: dict[int, str]
    num_clusters: int
    shared: int
    own: int | None
    modality: str
    num_outputs: int
    num_known: int
    num_runs: int
    outside: float
    most: tuple[str, float]
    agreement: float | None


def _outside(evidence: Evidence, view: View) -> pl.DataFrame:
    """The share of every run's outputs that lie in no cluster."""
    frame = evidence.states_under(view).frame.filter(~pl.col("is_known"))
    return frame.group_by("run", maintain_order=True).agg(value=(pl.col("label") == -1).mean())


STATISTIC = Statistic(what="share of outputs in no cluster", of=_outside)


def table(evidence: Evidence, view: View) -> Timeline:
    """Labels of the outputs of some runs. AnalysisError without vectors."""
    states = evidence.states_under(view)
    frame = states.frame
    with_labels = set(frame["run"])
    runs = spread([run for run in evidence.whole.rows if run.id in with_labels], MAX_RUNS)
    shown = frame.filter(pl.col("run").is_in([run.id for run in runs]))
    drawn = thinned(shown, max(20, MAX_CELLS // max(len(runs), 1)))
    visited = (
        frame.filter(pl.col("label") != -1)
        .join(trajectories(evidence.data), on="run")
        .group_by("label")
        .agg(runs=pl.col("trajectory").n_unique(), networks=pl.col("network").n_unique())
    )
    most = (
        frame.group_by("output")
        .agg(pl.len(), pl.col("text").first())
        .sort("len", "output")
        .row(-1, named=True)
    )
    shared = int((visited["runs"] > 1).sum())
    return Timeline(
        shown=drawn,
        unknown=_without_vectors(evidence, view, shown),
        num_left_out=len(shown) - len(drawn),
        names=states.names,
        num_clusters=len(visited),
        shared=shared,
        own=int((visited["networks"] == 1).sum()) if frame["network"].n_unique() > 1 else None,
        modality=view.modality,
        num_outputs=len(frame),
        num_known=int(frame["is_known"].sum()),
        num_runs=len(with_labels),
        outside=float((frame["label"] == -1).sum()) / len(frame),
        most=(
            shorten(most["text"] or f"{view.modality} {most['output']}", NAME),
            most["len"] / len(frame),
        ),
        agreement=_agreement(evidence, view) if 2 * shared >= len(visited) else None,
    )


def _without_vectors(evidence: Evidence, view: View, shown: pl.DataFrame) -> pl.DataFrame:
    """run, step of the outputs of the modality that the runs of a frame of states have beside those in it."""
    made = pl.col("modality").cast(pl.String) == view.modality
    written = evidence.data.invocations.filter(made, pl.col("run").is_in(shown["run"].unique().implode()))
    written = continued(written.select("run", "step"), evidence.data.runs)
    return written.join(shown.select("run", "step"), on=["run", "step"], how="anti").sort("run", "step")


def _agreement(evidence: Evidence, view: View) -> float | None:
    try:
        return float(np.median(agreement(evidence.data, *view, evidence.states_under(view))))
    except AnalysisError:
        return None


def chart(answer: Timeline) -> Any:
    """One row per run, one colour per cluster; it says how many runs are drawn, and of long ones how much."""
    num_drawn = answer.shown["run"].n_unique()
    notes = f"{num_drawn:,} of {answer.num_runs:,} runs are drawn." if num_drawn < answer.num_runs else ""
    if answer.num_left_out:
        left_out = counted(answer.num_left_out, answer.modality)
        notes += f" {left_out} of these runs are left out, ever others in a cycle, so that none looks still."
    if not answer.unknown.is_empty():
        notes += f" Gaps: {counted(len(answer.unknown), answer.modality)} without a vector."
    return cluster_timeline(answer.shown, names=answer.names, unknown=answer.unknown, notes=notes.strip())


def sentence(answer: Timeline) -> str:
    """How many clusters, how many of them several runs visit, how much is outside, how well they hold."""
    known = f", {answer.num_known:,} of them known from the cycles of stuck runs" if answer.num_known else ""
    runs = "one run" if answer.num_runs == 1 else f"{answer.num_runs:,} runs"
    outputs = f"{counted(answer.num_outputs, answer.modality)} of {runs}{known}"
    name, share = answer.most
    if not answer.num_clusters:
        return f"No cluster was found in {outputs}. The one visited most is {share:.0%} of them: {name}."
    if share == 1:
        return f"{outputs[:1].upper()}{outputs[1:]}: all are one and the same, {name}."
    if share > RULES:
        rest = counted(round((1 - share) * answer.num_outputs), answer.modality)
        return (
            f"Of {outputs}, {share:.0%} are one and the same: {name}. Beside it, clusters of the other "
            f"{rest} are drawn and not counted, for they may be chance."
        )
    clusters = "one cluster" if answer.num_clusters == 1 else f"{answer.num_clusters} clusters"
    others = ", the others outside" if answer.outside else ""
    text = f"Of {outputs}, {1 - answer.outside:.0%} lie in {clusters}{others}."
    if share >= FILLS:
        text += f" The {answer.modality} visited most is {share:.0%} of all: {name}."
    if answer.shared == 0:
        return f"{text} No cluster is visited by more than one run: they tell runs apart, not regions."
    verb = "is" if answer.shared == 1 else "are"
    text += f" {answer.shared} of {answer.num_clusters} {verb} visited by more than one run"
    text += "" if answer.own is None else f", {answer.own} by one {grouped_by(answer.shown['network'])} only"
    if answer.agreement is None:
        return f"{text}."
    return f"{text}. Clusters found without a fifth of the runs agree with these by {answer.agreement:.2f}."


def cluster_timeline(
    frame: pl.DataFrame,
    title: str = "Clusters in time",
    *,
    names: dict[int, str] | None = None,
    unknown: pl.DataFrame | None = None,
    notes: str = "",
) -> Any:
    """Which cluster every run is in at every step; columns run, step, label (-1: outlier), text if known.

    `names`: what stands for a cluster, such as its medoid's text. The ten where runs are most often, of
    every network as many, get colours of their own. `unknown`: run and step of outputs of which nothing is
    known, which no cell reaches over. `notes`: what else the caption says.
    """
    rows = frame.with_columns(cluster=_cluster_names(frame["label"], names or {}), label=pl.col("label"))
    order = _most_visited(rows)
    top, rest = order[: len(COLOURS)], order[len(COLOURS) :]
    palette = COLOURS[: len(top)]
    shades = dict(zip([OTHERS, *(f"{OTHERS} {i}" for i in (2, 3))], OTHER_SHADES, strict=True))
    domain = [*top, *(shades if rest else []), OUTLIER]
    colours = [*palette, *(shades.values() if rest else []), GREY]
    named = [name for name in domain if name not in [*shades][1:]]
    if rest:
        shade = {name: [*shades][place % len(shades)] for place, name in enumerate(rest)}
        rows = rows.with_columns(shown=pl.col("cluster").replace(shade))
    else:
        rows = rows.with_columns(shown=pl.col("cluster"))
    if (rows["label"] >= 0).all():
        domain, colours, named = domain[:-1], colours[:-1], named[:-1]
    rows = _with_ends(rows, unknown)
    tips = [alt.Tooltip(f"{f}:N") for f in ("text", "cluster", "run") if f in rows.columns] + [call_tip()]
    chart = (
        alt.Chart(data(rows))
        .mark_rect(stroke=None)
        .encode(
            x=call_axis(scale=alt.Scale(nice=False, zero=False)),
            x2="end:Q",
            y=alt.Y(
                "run:O", title="run", axis=alt.Axis(grid=False, ticks=False, domain=False, labelOverlap=True)
            ),
            color=alt.Color(
                "shown:N",
                scale=alt.Scale(domain=domain, range=colours),
                legend=alt.Legend(orient="bottom", title=None, columns=1, labelLimit=560, values=named),
            ),
            opacity=alt.condition(alt.datum.shown == OUTLIER, alt.value(FAINT), alt.value(1.0)),
            tooltip=tips,
        )
    )
    caption = (
        "One row per run, one colour per cluster; clusters are named by the text nearest to their middle, or "
        "that the image there was drawn from."
    )
    caption += " The others are in three shades of grey, so that a change of cluster is seen." if rest else ""
    caption += f" {notes}" if notes else ""
    return finish(chart, title, caption, height=int(min(420, max(70, 17 * rows["run"].n_unique()))))


def _with_ends(rows: pl.DataFrame, unknown: pl.DataFrame | None) -> pl.DataFrame:
    """The rows by run and step with the step that the cell of each reaches to: `end`.

    It is that of the run's next output, drawn or `unknown`; of its last, as far as its outputs are apart.
    """
    others = rows.select("run", "step") if unknown is None else unknown.select("run", "step")
    places = pl.concat([rows.select("run", "step"), others], how="vertical_relaxed").unique()
    following = pl.col("step").shift(-1).over("run", order_by="step")
    stride = pl.col("step").sort().diff().min().over("run").fill_null(1)
    ends = places.with_columns(end=following.fill_null(pl.col("step") + stride))
    return rows.join(ends, on=["run", "step"], how="left", maintain_order="left")


def _most_visited(rows: pl.DataFrame) -> list[str]:
    """The clusters, the most visited of every network first, then the second of every network, and so on."""
    by = [name for name in ("network",) if name in rows.columns]
    counts = rows.filter(pl.col("label") >= 0).group_by(*by, "label", "cluster").len()
    counts = counts.sort("len", "label", descending=[True, False])
    if by:
        turns = counts.with_columns(turn=pl.int_range(pl.len()).over("network"))
        counts = turns.sort("turn", maintain_order=True)
    return counts["cluster"].unique(maintain_order=True).to_list()


def _cluster_names(labels: pl.Series, names: dict[int, str]) -> pl.Series:
    known = {
        int(label): OUTLIER
        if label < 0
        else numbered(label, names[label])
        if label in names
        else f"cluster {label}"
        for label in labels.unique().sort()
    }
    return labels.replace_strict(known, return_dtype=pl.String)
