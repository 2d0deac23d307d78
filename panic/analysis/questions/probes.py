"""What is left of the start, and until when? What linear probes read from single outputs, runs held out.

The prompt is probed stretch by stretch, in the order of time: the first stretch from which it cannot be read
ends the search, so that all of it has the level of one test. Network, seed and models are probed late, over
the last third of the outputs. p values are multiplied by the number of factors that were probed (Bonferroni).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import altair as alt
import numpy as np
import polars as pl

from panic.analysis.charts import GREY, data, finish
from panic.analysis.checks import AnalysisError
from panic.analysis.data import ExperimentData, Vectors
from panic.analysis.evidence import Evidence, View, first_model
from panic.analysis.factors import (
    collapsed,
    exchangeable,
    factors_of,
    matched,
    trajectories,
    with_factors,
)
from panic.analysis.probing import Array, ProbeScore, probe

TITLE = "What is left of the start?"
CAVEAT = (
    "Linear probes on the first principal components; sets of runs that have every label once are held out "
    "as a whole, and labels are shuffled among runs that agree in all else. A probe that fails may lack "
    "data; one that succeeds says what can be read, not what the loop uses. Stuck runs go on by their cycle; "
    "failed runs are left out; copies of one trajectory count once, except where the prompt is probed."
)
LEVEL = 0.05  # of all factors together
MAX_STRETCHES = 6
SCORES = {
    "target": pl.String, "stretch": pl.Int64, "first": pl.Int64, "last": pl.Int64, "accuracy": pl.Float64,
    "baseline": pl.Float64, "baseline_high": pl.Float64, "p_value": pl.Float64, "p_adjusted": pl.Float64,
    "p_least": pl.Float64, "chance": pl.Float64, "num_runs": pl.Int64,
}  # fmt: skip

views = first_model


@dataclass(frozen=True, slots=True, kw_only=True)
class Probes:
    """Scores (as SCORES), and why others lack."""

    scores: pl.DataFrame
    absent: Mapping[str, str]


def table(evidence: Evidence, view: View) -> Probes:
    """Probes of prompt, network, seed and models. AnalysisError where none of them can be tried."""
    scores, absent = probe_table(evidence.data, *view)
    if scores.is_empty():
        reasons = "; ".join(f"{target}: {why}" for target, why in absent.items())
        raise AnalysisError(reasons or "all runs are of one prompt, network and seed")
    return Probes(scores=scores, absent=absent)


def probe_table(
    data: ExperimentData,
    model: str,
    modality: str,
    *,
    max_points: int = 1000,
    num_components: int = 24,
    num_shuffles: int = 199,
) -> tuple[pl.DataFrame, Mapping[str, str]]:
    """Probe scores by target and stretch of steps (`first` to `last`), as SCORES, and why some lack.

    From the first `num_components` principal components of at most `max_points` outputs of a stretch, as many
    of each run, at steps taken at random: steps at equal distances would meet a cycle at one of its phases.
    """
    steps = data.visits(model, modality).join(
        data.runs.filter(pl.col("state") != "failed").select("run"), on="run", how="semi"
    )
    steps = steps.sort("run", "step").with_columns(number=pl.int_range(pl.len()).over("run"))
    runs = with_factors(data.runs).filter(pl.col("run").is_in(steps["run"].unique().implode()))
    runs = runs.join(trajectories(data), on="run", maintain_order="left")
    found: list[tuple[str, int, pl.DataFrame, ProbeScore]] = []
    absent: dict[str, str] = {}
    for target in factors_of(runs):
        of = collapsed(runs, target)
        try:
            units = exchangeable(of, target)
            of = of.with_columns(
                unit=pl.Series(units or [""] * len(of)), held_out=pl.Series(matched(of, target, units))
            )
            for number, part in enumerate(_stretches(steps, is_all=target == "prompt")):
                some = _some(part.join(of, on="run", how="semi"), max_points)
                points = _components(data.matrix(model)[some["row"].to_numpy()], num_components)
                labelled = some.select("run").join(of, on="run", maintain_order="left")
                score = probe(
                    points,
                    labelled[target].to_list(),
                    labelled["run"],
                    units=None if units is None else labelled["unit"].to_list(),
                    held_out=labelled["held_out"],
                    num_shuffles=num_shuffles,
                )
                found.append((target, number, some, score))
        except AnalysisError as error:
            absent[target] = error.message
    return _rows(found), absent


def _rows(found: list[tuple[str, int, pl.DataFrame, ProbeScore]]) -> pl.DataFrame:
    """Scores as SCORES."""
    num_targets = len({target for target, *_ in found})
    rows = [
        (
            target, number, some["step"].min(), some["step"].max(), score.accuracy, score.baseline,
            score.baseline_high, score.p_value, min(1.0, score.p_value * num_targets), score.p_least,
            1 / score.num_classes, score.num_runs,
        )
        for target, number, some, score in found
    ]  # fmt: skip
    return pl.DataFrame(rows, SCORES, orient="row")


def _stretches(steps: pl.DataFrame, *, is_all: bool) -> list[pl.DataFrame]:
    """Stretches of outputs in time, each some times as long as the one before; or the last third."""
    length = int(steps["number"].max() or 0) + 1  # type: ignore[arg-type]
    if not is_all:
        return [steps.filter(pl.col("number") >= length * 2 // 3)]
    edges = np.unique(np.geomspace(1, length, min(MAX_STRETCHES, length)).round().astype(int))
    return [
        steps.filter(pl.col("number").is_between(first, last, closed="left"))
        for first, last in zip([0, *edges[:-1]], edges, strict=True)
    ]


def _some(steps: pl.DataFrame, max_points: int, seed: int = 0) -> pl.DataFrame:
    """Equally many steps of every run, at random: at most `max_points`, and one of each at least."""
    count = max(1, max_points // max(steps["run"].n_unique(), 1))
    mixed = steps.sample(fraction=1.0, shuffle=True, seed=seed)
    return mixed.group_by("run", maintain_order=True).head(count).sort("run", "step")


def _components(points: Vectors, count: int) -> Array:
    """The first principal components (n, count) of vectors (n, d)."""
    centred = points.astype(np.float64) - points.mean(axis=0, dtype=np.float64)
    left, spread, _ = np.linalg.svd(centred, full_matrices=False)
    is_real = spread > 1e-6 * spread.max(initial=0.0)  # standardising would blow rounding up to a feature
    components: Array = (left * spread)[:, is_real][:, :count]
    return components


def chart(answer: Probes) -> Any:
    """Accuracy of linear probes on held-out runs beside shuffled labels."""
    row = pl.format("{} · {}", "target", _steps_of())
    frame = answer.scores.with_columns(row=row)
    y = alt.Y(
        "row:N",
        sort=frame["row"].to_list(),
        title=None,
        axis=alt.Axis(domain=False, ticks=False, labelLimit=280),
    )
    base = alt.Chart(data(frame)).encode(y=y)
    scale = alt.Scale(domain=[0, 1.06], nice=False)
    percent = alt.Axis(format="%", values=[0, 0.25, 0.5, 0.75, 1])
    tips = [
        alt.Tooltip("row:N", title="target"),
        *(
            alt.Tooltip(f"{f}:Q", format=".1%", title=f.replace("_", " "))
            for f in ("accuracy", "baseline", "baseline_high", "chance")
        ),
        alt.Tooltip("p_value:Q", format=".2~g", title="p"),
        alt.Tooltip("p_adjusted:Q", format=".2~g", title="p, corrected"),
        alt.Tooltip("num_runs:Q", title="runs"),
    ]
    accuracy = alt.X("accuracy:Q", title="balanced accuracy on held-out runs", scale=scale, axis=percent)
    chart = alt.layer(
        base.mark_bar(color=GREY, opacity=0.35, height=11, cornerRadius=5).encode(
            x=alt.X("baseline:Q", scale=scale), x2="baseline_high:Q", tooltip=tips
        ),
        base.mark_tick(color="#D55E00", thickness=2.5, size=20).encode(x="chance:Q", tooltip=tips),
        base.mark_point(filled=True, size=110, opacity=1).encode(x=accuracy, tooltip=tips),
        base.mark_text(align="left", dx=10, fontSize=11).encode(
            x="accuracy:Q", text=alt.Text("accuracy:Q", format=".0%")
        ),
    )
    caption = (
        "Dot: accuracy. Grey: shuffled labels, from their mean to the 95 % quantile. Orange: chance alone."
    )
    return finish(chart, "What can be read from the embeddings", caption, height=34 * max(len(frame), 1))


def _steps_of() -> pl.Expr:
    """The steps of a stretch in words."""
    one = pl.col("first") == pl.col("last")
    return (
        pl.when(one)
        .then(pl.format("step {}", "first"))
        .otherwise(pl.format("steps {} to {}", "first", "last"))
    )


def sentence(answer: Probes) -> str:
    """What can be read and until when, what could not be read, and what was not asked."""
    scores = answer.scores.with_columns(steps=_steps_of())
    parts = [
        _until(target, rows.to_dicts()) for (target,), rows in scores.group_by("target", maintain_order=True)
    ]
    text = "; ".join(parts)
    left_out = "; ".join(f"{target} ({why})" for target, why in answer.absent.items())
    runs = max(answer.scores["num_runs"].to_list())
    return (
        f"From single outputs of {runs:,} runs, by balanced accuracy on runs that were held out: {text}."
        + (f" Not tried: {left_out}." if left_out else "")
    )


def _until(target: str, rows: list[dict[str, Any]]) -> str:
    """Until when the target can be read: as long as no stretch before failed."""
    can = [row["p_adjusted"] <= LEVEL for row in rows]
    read = rows[: can.index(False)] if False in can else rows
    if not read:
        return f"the {target} could not be read at {_score(rows[0])}"
    text = f"the {target} can be read at {_score(read[-1])}"
    if len(read) > 1:
        text = f"the {target} can be read from the start, still at {_score(read[-1])}"
    return (
        text
        if len(read) == len(rows)
        else f"{text}, and could not be read any more at {_score(rows[len(read)])}"
    )


def _score(row: dict[str, Any]) -> str:
    least = (
        f"; too few runs, p could not have been below {row['p_least']:.2g}" if row["p_least"] > LEVEL else ""
    )
    return (
        f"{row['steps']} ({row['accuracy']:.0%} right, shuffled labels {row['baseline']:.0%}, "
        f"p = {row['p_adjusted']:.2g}{least})"
    )
