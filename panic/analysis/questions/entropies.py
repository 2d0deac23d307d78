"""How even is its shape? Persistence entropy by network, the bars of one run, and what chance gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import log
from typing import Any

import altair as alt
import numpy as np
import polars as pl

from panic.analysis.charts import colour, data, finish, first_names, names_of, null_band, outside
from panic.analysis.checks import AnalysisError
from panic.analysis.data import ExperimentData
from panic.analysis.evidence import Evidence, Statistic, View
from panic.analysis.nulls import matched_walk, null_table
from panic.analysis.questions.diagrams import HOMOLOGY, bars_under, distance_of, features, kinds, tooltip
from panic.topology import diagram, entropy

TITLE = "Persistence entropy"
CAVEAT = (
    "It grows with the number of bars, and so with the length of a run and the variety of its outputs: "
    "compare runs of equal length, and look at the bars. A walk comes back to no place exactly, so a run "
    "that repeats itself is below its band for that alone. Of several settings of diagrams, those that the "
    "config names first are taken."
)
BAND = ("entropy of the components", "walks")
BAND_TITLE = "Entropy against random walks"
LONGEST_BARS = 80


@dataclass(frozen=True, slots=True, kw_only=True)
class Entropies:
    """Entropies of all runs, the bars of the run that has most of them, a band of walks if there is one."""

    entropies: pl.DataFrame
    run: int
    bars: pl.DataFrame
    band: pl.DataFrame | None


def views(evidence: Evidence) -> Sequence[View | None]:
    """Every embedding model that has diagrams."""
    if not evidence.experiment.config.get("diagrams"):
        return []
    with_bars = set(evidence.whole.bars["model"])
    return [view for view in evidence.views if view.model in with_bars]


def table(evidence: Evidence, view: View) -> Entropies | None:
    """Persistence entropies under a model; None where there are no finite bars."""
    of_all = entropies(evidence.data, view.model)
    bars = bars_under(evidence, view.model)
    finite = bars.filter(pl.col("death").is_finite())
    if of_all.is_empty() or finite.is_empty():
        return None
    run = int(finite.group_by("run", maintain_order=True).len().sort("len", descending=True)["run"][0])
    try:
        band = against_walks(evidence, view)
    except AnalysisError:  # too short, or too few dimensions: the rest stands for itself
        band = None
    return Entropies(entropies=of_all, run=run, bars=bars.filter(pl.col("run") == run), band=band)


def _by_feature(evidence: Evidence, view: View) -> pl.DataFrame:
    """The entropies of every run, by the dimension of what its bars stand for."""
    found = entropies(evidence.data, view.model)
    return found.select(
        "run", part=pl.col("dimension").replace_strict(HOMOLOGY, default="higher"), value="entropy"
    )


STATISTIC = Statistic(what="persistence entropy (nats)", of=_by_feature)


def entropies(data: ExperimentData, model: str) -> pl.DataFrame:
    """Persistence entropy of every run: group (network), run, dimension, entropy, num_bars, longest."""
    networks = dict(data.runs.select("run", "network").iter_rows())
    rows = []
    for (run, dimension), group in data.bars_under(model).group_by("run", "dimension", maintain_order=True):
        ends = group.select("birth", "death").to_numpy()
        finite = ends[np.isfinite(ends[:, 1])]
        longest = float((finite[:, 1] - finite[:, 0]).max()) if len(finite) else 0.0
        rows.append((networks[run], run, dimension, entropy(finite), len(finite), longest))
    schema = {"group": pl.String, "run": pl.Int64, "dimension": pl.Int64, "entropy": pl.Float64}
    return pl.DataFrame(rows, {**schema, "num_bars": pl.Int64, "longest": pl.Float64}, orient="row")


def against_walks(evidence: Evidence, view: View, **limits: int) -> pl.DataFrame:
    """Persistence entropy of every run's components against walks with its own steps.

    A walk comes back to no place exactly: it has a bar for every output, a run for every distinct one.
    """

    def components(points: Any) -> float:
        return entropy(diagram(points, max_dimension=0).bars(0))

    return null_table(evidence.directions(view), components, matched_walk, **limits)


def chart(answer: Entropies) -> dict[str, Any]:
    """Entropies by network, the bars of one run, and the entropies of some runs beside walks."""
    title = f"bars of run {answer.run}"
    charts = {"": entropy_by_group(answer.entropies), title: barcode(answer.bars, title)}
    if answer.band is not None:
        charts[BAND_TITLE] = null_band(answer.band, BAND_TITLE, value_title="entropy of H0 (nats)")
    return charts


def sentence(answer: Entropies) -> str:
    """Median entropies of the components by network, and whether they are what chance gives."""
    text = _medians(answer.entropies)
    return text if answer.band is None else f"{text} {outside(answer.band, BAND)}"


def _medians(entropies: pl.DataFrame) -> str:
    """Median entropies of the components by network."""
    medians = (
        entropies.filter(pl.col("dimension") == 0)
        .group_by("group", maintain_order=True)
        .agg(pl.col("entropy").median(), pl.col("num_bars").median())
        .sort("entropy", descending=True)
    )
    parts = [
        f"{row['group']} {row['entropy']:.2f} (of at most {log(max(row['num_bars'], 1)):.2f})"
        for row in medians.head(4).iter_rows(named=True)
    ]
    more = f"; and {len(medians) - 4} more" if len(medians) > 4 else ""
    return f"Median entropy of the components: {'; '.join(parts)}{more}. Equal bars reach the maximum."


def entropy_by_group(frame: pl.DataFrame, title: str = "Persistence entropy") -> Any:
    """One dot per run and the median of every group; columns group, run, dimension, entropy, num_bars."""
    frame, others = first_names(frame, "group", most=12)
    rows = frame.with_columns(feature=pl.col("dimension").replace_strict(HOMOLOGY, default="higher"))
    groups = names_of(rows, "group")
    axis = alt.Axis(labelLimit=280, labelPadding=12, domain=False, ticks=False)
    y = alt.Y("group:N", sort=groups, title=None, axis=axis)
    by = alt.YOffset("feature:N", scale=alt.Scale(paddingInner=0.2))
    x = alt.X("entropy:Q", title="persistence entropy (nats)", scale=alt.Scale(zero=True))
    base = alt.Chart(data(rows))
    of = kinds(frame)
    chart = alt.layer(
        base.mark_point(filled=True, size=50, opacity=0.5).encode(
            x=x, y=y, yOffset=by, color=colour("feature", of),
            tooltip=[
                alt.Tooltip("group:N"), alt.Tooltip("run:N"), alt.Tooltip("feature:N"),
                alt.Tooltip("entropy:Q", format=".3f"), alt.Tooltip("num_bars:Q", title="finite bars"),
            ],
        ),
        base.mark_tick(thickness=3, size=18).encode(
            x=alt.X("median(entropy):Q"), y=y, yOffset=by, color=colour("feature", of)
        ),
    )  # fmt: skip
    caption = (
        "Dots are runs, ticks medians. ln n is reached by n equal bars, so the number of bars alone moves it."
        + others
    )
    return finish(chart, title, caption, height=max(80, 26 * len(groups) * max(len(of), 1)))


def barcode(frame: pl.DataFrame, title: str = "Barcode", *, longest: int = LONGEST_BARS) -> Any:
    """The bars of one diagram, the longest of each dimension on top; columns dimension, birth, death."""
    finite = frame.filter(pl.col("death").is_finite())
    end = float(finite["death"].max() or 1.0) * 1.06  # type: ignore[arg-type]
    shown = features(
        frame.with_columns(
            is_endless=pl.col("death").is_infinite(), death=pl.col("death").clip(upper_bound=end)
        )
    )
    shown = (
        shown.sort("dimension", -pl.col("length")).group_by("dimension", maintain_order=True).head(longest)
    )
    rows = shown.with_row_index("place")
    chart = (
        alt.Chart(data(rows))
        .mark_bar(height={"band": 0.72} if len(rows) < 60 else {"band": 1.0})
        .encode(
            x=alt.X("birth:Q", title=distance_of(frame), scale=alt.Scale(domain=[0, end], nice=False)),
            x2="death:Q",
            y=alt.Y("place:O", axis=None),
            color=colour("feature", kinds(frame)),
            tooltip=tooltip(frame),
        )
    )
    left_out = len(frame) - len(rows)
    caption = "One line per component or loop, from the distance where it appears to where it ends."
    if left_out:
        caption += f" The {left_out:,} shortest are not drawn."
    return finish(chart, title, caption, height=int(min(420, max(60, 9 * len(rows)))))
