"""What is left of the start, and until when? What linear probes read from single outputs, runs held out.

The prompt is probed stretch by stretch, in the order of time, and the first stretch from which it cannot be
read ends the search: the corrected p of a stretch is at least that of any before (hierarchical testing in a
fixed order, Maurer et al. 1995), so that all of it has the level of one test. Network, seed and models are
probed late, over the last third of the outputs; where several models of a network make outputs of this kind,
so is the model that made one. p values are multiplied by the number of factors that were probed (Bonferroni).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt
import numpy as np
import polars as pl

from panic.analysis.charts import beside_shuffles, between_calls, finish
from panic.analysis.checks import AnalysisError
from panic.analysis.data import ExperimentData, Vectors
from panic.analysis.evidence import Evidence, View, each_model
from panic.analysis.factors import (
    collapsed,
    exchangeable,
    factors_of,
    matched,
    trajectories,
    with_factors,
)
from panic.analysis.probing import Array, ProbeScore, probe
from panic.store.records import RunRow

TITLE = "What is left of the start?"
CAVEAT = (
    "Linear probes on the first principal components; sets of runs that have every label once are held out "
    "as a whole, and labels are shuffled among runs that agree in all else; the model that made an output "
    "varies within a run, so its labels are shifted along each run. A probe that fails may lack data; one "
    "that succeeds says what can be read, not what the loop uses. Stuck runs go on by their cycle; failed "
    "runs are left out; copies of one trajectory count once, except where the prompt is probed. Its "
    "stretches are asked in the order of time: the corrected p of one is at least that of those before."
)
MAKER = "model that made it"
LEVEL = 0.05  # of all factors together
MAX_STRETCHES = 6
SCORES = {
    "target": pl.String, "first": pl.Int64, "last": pl.Int64, "accuracy": pl.Float64,
    "baseline": pl.Float64, "baseline_high": pl.Float64, "p_value": pl.Float64, "p_adjusted": pl.Float64,
    "p_least": pl.Float64, "chance": pl.Float64, "num_runs": pl.Int64,
}  # fmt: skip

views = each_model


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

    def read(target: str, some: pl.DataFrame) -> None:
        points = _components(data.matrix(model)[some["row"].to_numpy()], num_components)
        found.append((target, some, _score_of(target, some, points, num_shuffles)))

    found: list[tuple[str, pl.DataFrame, ProbeScore]] = []
    absent: dict[str, str] = {}
    for target in factors_of(runs):
        of = collapsed(runs, target)
        try:
            units = exchangeable(of, target)
            of = of.with_columns(
                unit=pl.Series(units or [""] * len(of)), held_out=pl.Series(matched(of, target, units))
            )
            for part in _stretches(steps, is_all=target == "prompt"):
                some = _some(part.join(of.select("run"), on="run", how="semi"), max_points)
                labelled = some.select("run", "step", "row").join(of, on="run", maintain_order="left")
                read(target, labelled)
        except AnalysisError as error:
            is_read = any(target == other for other, *_ in found)
            absent[f"{target} later on" if is_read else target] = error.message
    made = _by_several(steps.join(collapsed(runs, MAKER), on="run", how="semi"), data.rows)
    if not made.is_empty():
        count = max(2, max_points // made["run"].n_unique())
        some = _stretches(made, is_all=False)[0].group_by("run", maintain_order=True).tail(count)
        try:
            read(MAKER, some)
        except AnalysisError as error:
            absent[MAKER] = error.message
    return _rows(found), absent


def _score_of(target: str, some: pl.DataFrame, points: Array, num_shuffles: int) -> ProbeScore:
    """The probe of a column of some steps from their points (n, d).

    Factors of runs come with the columns `unit` and `held_out`; without these whole runs are held out, and
    labels shifted along each.
    """
    is_of_runs = "unit" in some.columns
    return probe(
        points,
        some[target].to_list(),
        some["run"],
        units=some["unit"].to_list() if is_of_runs else None,
        held_out=some["held_out"] if is_of_runs else None,
        num_shuffles=num_shuffles,
    )


def _by_several(steps: pl.DataFrame, rows: Sequence[RunRow]) -> pl.DataFrame:
    """The steps of runs of whose outputs several models of the network made some, with the column MAKER.

    All of a run's steps are one after the other, as shifting the makers along a run asks for.
    """
    networks = {row.id: list(row.network) for row in rows}
    models = pl.col("run").replace_strict(networks, return_dtype=pl.List(pl.String))
    made = steps.with_columns(models.list.get(pl.col("step") % models.list.len()).alias(MAKER))
    return made.filter(pl.col(MAKER).n_unique().over("run") > 1)


def _rows(found: list[tuple[str, pl.DataFrame, ProbeScore]]) -> pl.DataFrame:
    """Scores as SCORES."""
    num_targets = len({target for target, *_ in found})
    rows = [
        (
            target, some["step"].min(), some["step"].max(), score.accuracy, score.baseline,
            score.baseline_high, score.p_value, min(1.0, score.p_value * num_targets),
            min(1.0, score.p_least * num_targets),
            1 / score.num_classes, score.num_runs,
        )
        for target, some, score in found
    ]  # fmt: skip
    scores = pl.DataFrame(rows, SCORES, orient="row")
    return scores.with_columns(pl.col("p_adjusted").cum_max().over("target"))


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
    frame = _with_steps(answer.scores).with_columns(
        row=pl.format("{} · {}", "target", "steps"),
        value="accuracy",
        label=pl.format("{} %", (100 * pl.col("accuracy")).round().cast(pl.Int64)),
    )
    x = alt.X(
        "value:Q",
        title="balanced accuracy on held-out runs",
        scale=alt.Scale(domain=[0, 1.06], nice=False),
        axis=alt.Axis(format="%", values=[0, 0.25, 0.5, 0.75, 1]),
    )
    tips = [
        alt.Tooltip("row:N", title="target"),
        *(alt.Tooltip(f"{name}:Q", format=".1%") for name in ("accuracy", "chance")),
    ]
    chart = beside_shuffles(frame, x, tips, _chance)
    caption = (
        "Dot: accuracy (filled: corrected p ≤ 0.05). Grey: shuffled labels, from their mean to the 95 % "
        "quantile. Orange: chance alone."
    )
    return finish(chart, "What can be read from the embeddings", caption, height=34 * max(len(frame), 1))


def _chance(rows: Any) -> Any:
    return rows.mark_tick(color="#D55E00", thickness=2.5, size=20).encode(x="chance:Q")


def _with_steps(scores: pl.DataFrame) -> pl.DataFrame:
    """Scores with the stretch in words: `steps`."""
    words = [between_calls(*ends) for ends in scores.select("first", "last").iter_rows()]
    return scores.with_columns(steps=pl.Series(words, dtype=pl.String))


def sentence(answer: Probes) -> str:
    """What can be read and until when, what could not be read, and what was not asked."""
    scores = _with_steps(answer.scores)
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
    read = [row for row in rows if row["p_adjusted"] <= LEVEL]
    if not read:
        later = ", so later ones are not asked" if len(rows) > 1 else ""
        return f"the {target} could not be read at {_told(rows[0])}{later}"
    text = f"the {target} can be read at {_told(read[-1])}"
    if len(read) > 1:
        text = f"the {target} can be read from the start, still at {_told(read[-1])}"
    if len(read) == len(rows):
        return text
    return f"{text}, and could not be read any more at {_told(rows[len(read)])}"


def _told(row: dict[str, Any]) -> str:
    least = (
        f"; too few runs, p could not have been below {row['p_least']:.2g}" if row["p_least"] > LEVEL else ""
    )
    return (
        f"{row['steps']} ({row['accuracy']:.0%} right, shuffled labels {row['baseline']:.0%}, "
        f"p = {row['p_adjusted']:.2g}{least})"
    )
