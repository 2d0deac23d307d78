"""Do networks or arms drift differently? How far runs are from their start late on, beside each other."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import Any

import altair as alt
import polars as pl

from panic.analysis.charts import GREY, data, finish, first_names, names_of
from panic.analysis.charts.steps import counted
from panic.analysis.checks import AnalysisError
from panic.analysis.evidence import Evidence, View, first_model
from panic.analysis.factors import trajectories
from panic.analysis.grouping import grouped_by
from panic.analysis.questions.drift import drift, unrelated
from panic.analysis.statistics import (
    GroupTest,
    cliffs_delta,
    cohens_d,
    kruskal,
    mixed_model,
    permutation_test,
)

TITLE = "Do networks or arms drift differently?"
CAVEAT = (
    "One number per run: its mean distance from the start over the last third of its network's outputs. Runs "
    "of a fixed seed that met are one trajectory: their mean counts once. Failed runs are left out. Each arm "
    "of a network is compared as a network of its own. "
    "Runs of one prompt are not independent: where prompts are under several networks, labels are shuffled "
    "within prompts; else prompts are compared by Kruskal-Wallis. A mixed model, with a random intercept per "
    "prompt, tells how much prompts differ."
)
LEVEL = 0.05
PAIRS = {"a": pl.String, "b": pl.String, "cohens_d": pl.Float64, "cliffs_delta": pl.Float64}

views = first_model


@dataclass(frozen=True, slots=True, kw_only=True)
class Differences:
    """Late distances (network, prompt, run, distance), a test, effect sizes of pairs, and a mixed model.

    `unrelated` is as `drift.unrelated` gives it: how far is far.
    `model` is as `statistics.mixed_model` gives it, None where prompts have too few runs for one.
    """

    late: pl.DataFrame
    test: GroupTest
    pairs: pl.DataFrame
    model: pl.DataFrame | None
    unrelated: float | None


def table(evidence: Evidence, view: View) -> Differences | None:
    """Compare networks and arms; None where there is one. AnalysisError where too few prompts are known."""
    if evidence.data.runs["network"].n_unique() < 2:
        return None
    found = drift(evidence.data, *view)
    if found.is_empty():
        raise AnalysisError(f"no run has a vector of its start under {view.model}")
    standing = evidence.data.runs.filter(pl.col("state") != "failed")
    late = (
        found.filter(pl.col("step") >= pl.col("step").max().over("network") * 2 / 3)
        .group_by("network", "run", maintain_order=True)
        .agg(pl.col("distance").mean().round(6))  # float32 knows no more
        .join(standing.select("run", "prompt"), on="run", maintain_order="left")
        .join(trajectories(evidence.data), on="run", maintain_order="left")
        .group_by("network", "trajectory", maintain_order=True)
        .agg(
            pl.col("prompt").unique().sort().str.join("\n"), pl.col("run").first(), pl.col("distance").mean()
        )
        .select("network", "prompt", "run", "distance")
    )
    if late["network"].n_unique() < 2:
        raise AnalysisError(
            f"fewer than two {grouped_by(evidence.data.runs['network'], 2)} have runs that did not fail"
        )
    return Differences(
        late=late,
        test=_test(late),
        pairs=_pairs(late),
        model=_model(late),
        unrelated=unrelated(evidence.data, *view),
    )


def _test(late: pl.DataFrame) -> GroupTest:
    """Shuffles within prompts where these are under several networks, Kruskal-Wallis of prompts otherwise."""
    is_crossed = (late.group_by("prompt").agg(pl.col("network").n_unique())["network"] > 1).any()
    test = permutation_test if is_crossed else kruskal
    return test(late["distance"].to_numpy(), late["network"].to_list(), units=late["prompt"].to_list())


def _pairs(late: pl.DataFrame) -> pl.DataFrame:
    """Effect sizes of pairs of networks that have two runs or more each."""
    groups = {
        str(network): rows["distance"].to_numpy()
        for (network,), rows in late.group_by("network", maintain_order=True)
        if len(rows) > 1
    }
    rows = [
        (a, b, cohens_d(groups[a], groups[b]), cliffs_delta(groups[a], groups[b]))
        for a, b in combinations(groups, 2)
    ]
    return pl.DataFrame(rows, PAIRS, orient="row")


def _model(late: pl.DataFrame) -> pl.DataFrame | None:
    """A mixed model; None where prompts have too few runs, or if none fits."""
    try:
        return mixed_model(late, "distance ~ network", groups="prompt")
    except AnalysisError:
        return None


def chart(answer: Differences) -> Any:
    """One dot per run and the median of every network."""
    late, others = first_names(answer.late, "network")
    networks = names_of(late, "network")
    axis = alt.Axis(labelLimit=280, labelPadding=12, domain=False, ticks=False)
    y = alt.Y("network:N", sort=networks, title=None, axis=axis)
    x = alt.X("distance:Q", title="cosine distance from the start, late", scale=alt.Scale(zero=False))
    tips = [alt.Tooltip("run:N"), alt.Tooltip("prompt:N"), alt.Tooltip("distance:Q", format=".3f")]
    base = alt.Chart(data(late))
    layers = [
        base.mark_point(filled=True, size=50, opacity=0.5).encode(x=x, y=y, tooltip=tips),
        base.mark_tick(thickness=3, size=20).encode(x="median(distance):Q", y=y),
    ]
    caption = f"Dots are {counted(len(late), 'run')}, ticks medians; the last third of the outputs.{others}"
    if answer.unrelated is not None:
        far = alt.Chart(data(pl.DataFrame({"reference": [answer.unrelated]})))
        layers.append(far.mark_rule(color=GREY, strokeDash=[6, 4], strokeWidth=1.6).encode(x="reference:Q"))
        caption += (
            f" Dashed: the median distance of different starts from each other, {answer.unrelated:.2f}."
        )
    return finish(alt.layer(*layers), "Late distance from the start", caption, height=34 * len(networks))


def sentence(answer: Differences) -> str:
    """The test, the largest effect sizes, and what the mixed model says of the prompts."""
    test, late = answer.test, answer.late
    verdict = "differ" if test.p_value <= LEVEL else "could not be shown to differ"
    least = ""
    if test.p_least > LEVEL:
        least = f"; so few runs could not have given a p below {test.p_least:.2g}"
    of = grouped_by(late["network"], 2)
    text = (
        f"Late distances from the start {verdict} between {of}: these explain {test.effect:.0%} of the "
        f"variance between {len(late):,} runs ({test.effect_name}; chance gives {test.baseline:.0%}, "
        f"p = {test.p_value:.2g}, shuffled {test.resampling.replace('units', 'prompts')}{least})."
    )
    largest = answer.pairs.sort(pl.col("cliffs_delta").abs(), descending=True, maintain_order=True).head(2)
    if test.p_value > LEVEL and len(answer.pairs) > 1:
        largest = largest.clear()  # the largest of many differences says nothing
    elif len(answer.pairs) > 2:
        text += f" The largest differences of {len(answer.pairs):,} pairs:"
    for row in largest.iter_rows(named=True):
        text += (
            f" {row['a']} against {row['b']}: Cliff's delta {row['cliffs_delta']:.2f} (-1 to 1)"
            + ("" if row["cohens_d"] != row["cohens_d"] else f", Cohen's d {row['cohens_d']:.2f}")
            + "."
        )
    if answer.model is not None and answer.model["is_converged"].all():
        between = float(answer.model.filter(pl.col("term") == "Group Var")["estimate"][0])
        text += f" Between prompts the standard deviation is {round(max(between, 0.0) ** 0.5, 6):.2g}."
    return text
