"""What is left of the start? What linear probes can read from single outputs, whole runs held out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt
import numpy as np
import polars as pl
from threadpoolctl import threadpool_limits

from panic.analysis.charts import GREY, data, finish, names_of
from panic.analysis.checks import AnalysisError
from panic.analysis.data import ExperimentData
from panic.analysis.evidence import Evidence, View, first_model
from panic.analysis.probing import probe

TITLE = "What is left of the start?"
CAVEAT = (
    "Linear probes on the first principal components, whole runs held out. A probe that fails may lack "
    "data; one that succeeds says what can be read, not what the loop uses."
)
FACTORS = ("prompt", "network", "seed")

views = first_model


@dataclass(frozen=True, slots=True, kw_only=True)
class Probes:
    """Scores (target, accuracy, baseline, baseline_high, p_value, chance), and why others lack."""

    scores: pl.DataFrame
    absent: Mapping[str, str]


def table(evidence: Evidence, view: View) -> Probes:
    """Probes of prompt, network and seed. AnalysisError where none of them can be tried."""
    scores, absent = probe_table(evidence.data, *view, num_shuffles=19)
    if scores.is_empty():
        raise AnalysisError("; ".join(f"{target}: {why}" for target, why in absent.items()))
    return Probes(scores=scores, absent=absent)


def probe_table(
    data: ExperimentData,
    model: str,
    modality: str,
    *,
    targets: Sequence[str] = FACTORS,
    max_points: int = 1000,
    num_components: int = 24,
    num_shuffles: int = 20,
) -> tuple[pl.DataFrame, Mapping[str, str]]:
    """Probe scores by target, and why some lack: target, accuracy, baseline, baseline_high, p_value, chance.

    From the first `num_components` principal components of at most `max_points` steps: probes of all
    dimensions of 150 texts took 0.2 s per fit, and there are 100 fits per target.
    """
    steps = data.steps(model, modality).with_columns(
        seed=pl.when(pl.col("seed") == -1).then(pl.lit("fresh")).otherwise(pl.col("seed").cast(pl.String))
    )
    if len(steps) > max_points:
        steps = steps.gather_every(-(-len(steps) // max_points))
    points = data.matrix(model)[steps["row"].to_numpy()].astype(np.float64)
    left, spread, _ = np.linalg.svd(points - points.mean(axis=0), full_matrices=False)
    is_real = spread > 1e-6 * spread.max(initial=0.0)  # standardising would blow rounding up to a feature
    scores = (left * spread)[:, is_real][:, :num_components]
    rows, absent = [], {}
    for target in targets:
        try:
            with threadpool_limits(1):  # small problems: 0.5 s of CPU instead of 9
                score = probe(scores, steps[target].to_numpy(), steps["run"], num_shuffles=num_shuffles)
        except AnalysisError as error:
            absent[target] = error.message
            continue
        chance = 1 / score.num_classes
        rows.append((target, score.accuracy, score.baseline, score.baseline_high, score.p_value, chance))
    names = ("target", "accuracy", "baseline", "baseline_high", "p_value", "chance")
    schema = {name: pl.String if name == "target" else pl.Float64 for name in names}
    return pl.DataFrame(rows, schema, orient="row"), absent


def chart(answer: Probes) -> Any:
    """Accuracy of linear probes on held-out runs beside shuffled labels."""
    frame = answer.scores
    y = alt.Y(
        "target:N",
        sort=names_of(frame, "target"),
        title=None,
        axis=alt.Axis(domain=False, ticks=False, labelLimit=280),
    )
    base = alt.Chart(data(frame)).encode(y=y)
    scale = alt.Scale(domain=[0, 1.06], nice=False)
    percent = alt.Axis(format="%", values=[0, 0.25, 0.5, 0.75, 1])
    tips = [
        alt.Tooltip("target:N"),
        *(
            alt.Tooltip(f"{f}:Q", format=".1%", title=f.replace("_", " "))
            for f in ("accuracy", "baseline", "baseline_high", "chance")
        ),
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


def sentence(answer: Probes) -> str:
    """What can be read, what not, and what was not asked."""
    parts = [
        f"the {row['target']} can {'' if row['accuracy'] > row['baseline_high'] else 'not '}be read "
        f"({row['accuracy']:.0%} right; shuffled labels {row['baseline']:.0%})"
        for row in answer.scores.iter_rows(named=True)
    ]
    text = "; ".join(parts)
    absent = answer.absent
    left_out = f" Not tried: {', '.join(absent)} (too few runs of each, or only one kind)." if absent else ""
    return f"{text[:1].upper()}{text[1:]}.{left_out}"
