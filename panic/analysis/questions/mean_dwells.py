"""How long does it stay in each cluster? Mean dwells with their intervals, beside those of a random order."""

from __future__ import annotations

from typing import Any

import altair as alt
import polars as pl

from panic.analysis.charts import (
    GREY,
    MAX_BESIDE,
    colour,
    counted,
    data,
    finish,
    first_names,
    names_of,
    plain,
)
from panic.analysis.checks import AnalysisError
from panic.analysis.dynamics import dwell_times, mean_dwell
from panic.analysis.evidence import Evidence, View, first_model

TITLE = "How long it stays, cluster by cluster"
CAVEAT = (
    "Of runs with fresh noise. Outputs at risk over exits, which is right for memoryless dwells in spite of "
    "those that the end of a run cuts off; exact 95 % intervals. Grey: the mean if the outputs of a network "
    "came in random order, 1 / (1 - share of the time). Clusters that nothing was seen to leave are left out."
)
MAX_CLUSTERS = 10  # drawn of each network

views = first_model


def table(evidence: Evidence, view: View) -> pl.DataFrame:
    """network, name, and as `dynamics.mean_dwell`; chance, num_runs. AnalysisError where nothing is left."""
    states = evidence.states
    parts = []
    for network in names_of(states.frame, "network"):
        labels = states.labels(network, among=evidence.fresh)
        dwells = dwell_times(labels)
        if dwells.is_empty():
            continue
        total = sum(len(run) for run in labels)
        share = dwells.group_by("label").agg(share=pl.col("length").sum() / total)
        parts.append(
            mean_dwell(dwells)
            .filter(pl.col("num_exits") > 0)
            .join(share, on="label", maintain_order="left")
            .select(
                pl.lit(network).alias("network"),
                pl.col("label").replace_strict(states.names, return_dtype=pl.String).alias("name"),
                "label", "mean", "low", "high", "num_exits", "num_chances",
                chance=1 / (1 - pl.col("share")),
                num_runs=pl.lit(len(labels), pl.Int64),
            )
        )  # fmt: skip
    if not parts or not sum(map(len, parts)):
        raise AnalysisError("no run with fresh noise was seen to leave a cluster")
    return pl.concat(parts)


def chart(answer: pl.DataFrame) -> Any:
    """Mean dwell and interval of the clusters that are visited most, by network."""
    drawn, others = first_names(answer, "network", most=MAX_BESIDE)
    shown = (
        drawn.sort("num_chances", descending=True, maintain_order=True)
        .group_by("network", maintain_order=True)
        .head(MAX_CLUSTERS)
        .with_columns(pl.when(pl.col("high").is_finite()).then("high"))
    )
    names = names_of(shown, "name")
    networks = names_of(drawn, "network")
    y = alt.Y("name:N", sort=names, title=None, axis=alt.Axis(labelLimit=300, domain=False, ticks=False))
    by = alt.YOffset("network:N", sort=networks)
    base = alt.Chart(data(shown)).encode(y=y, yOffset=by)
    x = alt.X(
        "mean:Q",
        title="mean dwell (outputs of one kind)",
        scale=alt.Scale(type="log", nice=False, padding=10),
    )
    tips = [alt.Tooltip(f"{f}:Q", format=".3~g") for f in ("mean", "low", "high", "chance", "num_exits")]
    shade = colour("network", networks)
    layers = (
        base.mark_rule(strokeWidth=1.6).encode(x="low:Q", x2="high:Q", color=shade),
        base.mark_tick(color=GREY, thickness=3, size=12).encode(x="chance:Q"),
        base.mark_point(filled=True, size=70, opacity=1).encode(
            x=x, color=shade, tooltip=[alt.Tooltip("network:N"), alt.Tooltip("name:N"), *tips]
        ),
    )
    left_out = len(drawn) - len(shown)
    caption = "Dots: mean dwell; lines: 95 % intervals; grey: the same outputs in random order."
    caption += f" {left_out:,} clusters that are visited less are not drawn." if left_out else ""
    caption += others
    height = max(80, (12 * len(networks) + 10) * len(names))
    return finish(alt.layer(*layers), "Mean dwells", caption, height=height)


def sentence(answer: pl.DataFrame) -> str:
    """The mean dwell of each network where it is most, beside what chance gives.

    The longest mean would be chosen for being long, and its interval would miss too often.
    """
    most = answer.sort("num_chances", descending=True, maintain_order=True)
    parts = [
        f"{row['network']} in “{row['name']}”, {_outputs(row['mean'])} (95 % interval "
        f"{plain(row['low'])} to {plain(row['high'])}; {row['chance']:.2g} in random order; "
        f"{counted(row['num_exits'], 'exit')}, {counted(row['num_runs'], 'run')})"
        for row in most.group_by("network", maintain_order=True).first().head(4).iter_rows(named=True)
    ]
    num_more = answer["network"].n_unique() - len(parts)
    more = f"; and {num_more} more" if num_more else ""
    return f"Mean dwell in the cluster that is visited most: {'; '.join(parts)}{more}."


def _outputs(mean: float) -> str:
    said = plain(mean)
    return f"{said} output{'' if said == '1' else 's'}"
