"""What makes the difference: the prompt, the network, the noise?

Runs of one prompt are not independent, so labels are shuffled among runs that are alike in everything else:
networks within a prompt, prompts within a network. p values are corrected for their number (Holm).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import altair as alt
import numpy as np
import polars as pl
from numpy.typing import NDArray

from panic.analysis.charts import GREY, data, finish, names_of
from panic.analysis.checks import AnalysisError
from panic.analysis.data import ARROW, ExperimentData
from panic.analysis.evidence import Evidence, View, first_model
from panic.analysis.sampling import evenly
from panic.analysis.statistics import GroupTest, adjust, label_test, permanova
from panic.topology import distance_matrix, pairwise

Array = NDArray[np.float64]

TITLE = "What makes the difference?"
CAVEAT = (
    "Labels are shuffled among runs that agree in all else, so a difference between prompts is not taken "
    "for one between networks. PERMANOVA also answers to a difference in spread; more levels explain more"
    " by chance (the grey bars). With few prompts nothing can become clear."
)
MAX_RUNS = 150  # compared pair by pair
ENDS, COMPONENTS, LOOPS = "where runs end", "H0 diagrams", "H1 diagrams"
EFFECTS = {
    "factor": pl.String, "measure": pl.String, "effect": pl.Float64, "effect_name": pl.String,
    "baseline": pl.Float64, "baseline_high": pl.Float64, "p_value": pl.Float64, "p_adjusted": pl.Float64,
    "num_runs": pl.Int64, "num_groups": pl.Int64,
}  # fmt: skip

views = first_model


@dataclass(frozen=True, slots=True, kw_only=True)
class Effects:
    """Tests (as EFFECTS), and by name the reason why others could not be made."""

    tests: pl.DataFrame
    absent: dict[str, str]


def table(evidence: Evidence, view: View) -> Effects:
    """Tests of prompt, network, seed and models. AnalysisError where nothing can be tested."""
    tests, absent = what_matters(evidence.data, *view)
    if tests.is_empty():
        reasons = "; ".join(f"{what}: {why}" for what, why in absent.items())
        raise AnalysisError(reasons or "all runs are of one prompt, network and seed")
    return Effects(tests=tests, absent=absent)


def what_matters(
    data: ExperimentData, model: str, modality: str, *, num_permutations: int = 999, max_runs: int = MAX_RUNS
) -> tuple[pl.DataFrame, dict[str, str]]:
    """Tests of every factor on where runs end and on their diagrams, one row each as in EFFECTS; what lacks.

    Factors: prompt, network, seed ("fresh" is one of them) and, where networks share models, the model at
    each of their places. Where runs end: PERMANOVA of the chordal distances of last vectors. Diagrams:
    Robinson and Turner's test of Wasserstein distances. Of at most `max_runs` runs, evenly chosen; factors
    with one level are left out, those that cannot be tested are told with the reason.
    """
    runs = with_factors(data.runs)
    factors = [name for name in runs.columns if name != "run"]
    tests: list[tuple[str, str, GroupTest]] = []
    absent: dict[str, str] = {}
    for measure, chosen, distances in _distances(data, model, modality, max_runs):
        of = pl.DataFrame({"run": chosen}).join(runs, on="run", maintain_order="left")
        for factor in factors:
            if of[factor].n_unique() < 2:
                continue
            test = permanova if measure == ENDS else label_test
            try:
                found = test(
                    distances,
                    of[factor].to_list(),
                    units=exchangeable(of, factor),
                    num_permutations=num_permutations,
                )
            except AnalysisError as error:
                absent[f"{factor}, {measure}"] = error.message
                continue
            tests.append((factor, measure, found))
    adjusted = adjust([found.p_value for *_, found in tests])
    rows = [
        (
            factor, measure, t.effect, t.effect_name, t.baseline, t.baseline_high, t.p_value, float(p),
            t.num_values, t.num_groups,
        )
        for (factor, measure, t), p in zip(tests, adjusted, strict=True)
    ]  # fmt: skip
    return pl.DataFrame(rows, EFFECTS, orient="row"), absent


def with_factors(runs: pl.DataFrame) -> pl.DataFrame:
    """run, prompt, network, seed ("fresh" for -1), and "model 1", ... where networks share models."""
    found = runs.select(
        "run",
        "prompt",
        "network",
        seed=pl.when(pl.col("seed") == -1).then(pl.lit("fresh")).otherwise(pl.col("seed").cast(pl.String)),
    )
    parts = [network.split(ARROW) for network in runs["network"]]
    num_networks = runs["network"].n_unique()
    if len({len(part) for part in parts}) != 1 or len(parts[0]) == 1:
        return found
    for place, models in enumerate(zip(*parts, strict=True), start=1):
        if 1 < len(set(models)) < num_networks:
            found = found.with_columns(pl.Series(f"model {place}", models))
    return found


def exchangeable(runs: pl.DataFrame, factor: str) -> list[str] | None:
    """What must stay together while a factor's labels are shuffled, one name per run; None: nothing.

    `runs` as `with_factors` gives them. Labels move among runs that agree in all other factors. Where every
    prompt has one label only (other prompts for every network), whole prompts move.
    """
    models = [name for name in runs.columns if name.startswith("model ")]
    beside = {"prompt", "seed", *models} if factor in models else {"prompt", "network", "seed"}
    others = [name for name in runs.columns if name in beside - {factor} and runs[name].n_unique() > 1]
    if not others:
        return None
    strata = runs.select(pl.concat_str(others, separator="\n")).to_series()
    levels = runs.group_by(strata.alias("stratum")).agg(pl.col(factor).n_unique())[factor]
    if (levels > 1).any():
        return strata.to_list()
    return runs["prompt"].to_list() if factor != "prompt" else None


def _distances(
    data: ExperimentData, model: str, modality: str, max_runs: int
) -> list[tuple[str, list[int], Array]]:
    """(measure, runs, distances of them): of last vectors, and of diagrams where there are any."""
    found: list[tuple[str, list[int], Array]] = []
    ends = [(run, points[-1]) for run, points in data.trajectories(model, modality, least=1)]
    ends = [(run, point) for run, point in evenly(ends, max_runs) if np.any(point)]
    if len(ends) > 2:
        last = np.array([point for _, point in ends], dtype=np.float64)
        found.append((ENDS, [run for run, _ in ends], pairwise(last, "chordal")))
    bars = data.bars.filter(pl.col("model") == model, pl.col("death").is_finite())
    with_diagram = data.bars.filter(pl.col("model") == model)["run"].unique(maintain_order=True).to_list()
    for dimension, measure in ((0, COMPONENTS), (1, LOOPS)):
        groups = bars.filter(pl.col("dimension") == dimension).group_by("run", maintain_order=True)
        of = {run: rows.select("birth", "death").to_numpy() for (run,), rows in groups}
        chosen = evenly(with_diagram, max_runs)
        if of and len(chosen) > 2:
            diagrams = [of.get(run, np.empty((0, 2))) for run in chosen]
            found.append((measure, chosen, distance_matrix(diagrams, kind="wasserstein")))
    return found


def chart(answer: Effects) -> Any:
    """Effects of factors beside those of shuffled labels; one row per factor and measure.

    Filled dots have an adjusted p below 0.05.
    """
    frame = answer.tests
    rows = frame.with_columns(
        row=pl.format("{} · {}", "factor", "measure"),
        verdict=pl.when(pl.col("p_adjusted") < 0.05).then(pl.lit("p < 0.05")).otherwise(pl.lit("not clear")),
        p=pl.col("p_adjusted").map_elements(lambda p: f"p = {p:.2g}", return_dtype=pl.String),
        label_at=pl.max_horizontal("effect", pl.col("baseline_high").fill_nan(None)),
    )
    order = names_of(rows.sort("measure", "factor", maintain_order=True), "row")
    axis = alt.Axis(domain=False, ticks=False, labelLimit=280)
    base = alt.Chart(data(rows)).encode(y=alt.Y("row:N", sort=order, title=None, axis=axis))
    low = min(0.0, float(frame["effect"].min() or 0.0), float(frame["baseline"].min() or 0.0))  # type: ignore[arg-type]
    scale = alt.Scale(domain=[low - 0.04, 1.12], nice=False)
    percent = alt.Axis(format="%", values=[0, 0.25, 0.5, 0.75, 1])
    tips = [
        alt.Tooltip("factor:N"),
        alt.Tooltip("measure:N"),
        alt.Tooltip("effect:Q", format=".1%"),
        alt.Tooltip("effect_name:N", title="which is"),
        alt.Tooltip("baseline:Q", format=".1%", title="shuffled, mean"),
        alt.Tooltip("baseline_high:Q", format=".1%", title="shuffled, 95 %"),
        alt.Tooltip("p_value:Q", format=".3~g", title="p"),
        alt.Tooltip("p_adjusted:Q", format=".3~g", title="p (Holm)"),
        alt.Tooltip("num_runs:Q", title="runs"),
        alt.Tooltip("num_groups:Q", title="groups"),
    ]
    x = alt.X(
        "effect:Q", title="effect: share of the variance, or relative tightness", scale=scale, axis=percent
    )
    chart = alt.layer(
        base.mark_bar(color=GREY, opacity=0.35, height=11, cornerRadius=5).encode(
            x=alt.X("baseline:Q", scale=scale), x2="baseline_high:Q", tooltip=tips
        ),
        base.mark_point(size=110, opacity=1, strokeWidth=2).encode(
            x=x,
            fill=alt.Fill(
                "verdict:N",
                scale=alt.Scale(domain=["p < 0.05", "not clear"], range=["#0072B2", "transparent"]),
                legend=None,
            ),
            tooltip=tips,
        ),
        base.mark_text(align="left", dx=10, fontSize=11).encode(x="label_at:Q", text="p:N"),
    )
    caption = (
        "Dot: effect (filled: p < 0.05). Grey: shuffled labels, from their mean to the 95 % quantile. "
        "p values are corrected for their number (Holm)."
    )
    return finish(chart, TITLE, caption, height=32 * max(len(frame), 1))


def sentence(answer: Effects) -> str:
    """Which factors make a difference, and which of them the largest."""
    parts = []
    for (measure,), rows in answer.tests.group_by("measure", maintain_order=True):
        clear = rows.filter(pl.col("p_adjusted") < 0.05).sort("effect", descending=True)
        named = [f"the {row['factor']} ({row['effect']:.0%})" for row in clear.iter_rows(named=True)]
        parts.append(f"{measure}: {', then '.join(named) or 'nothing is clear'}")
    text = "; ".join(parts)
    left_out = f" Not tested: {', '.join(answer.absent)}." if answer.absent else ""
    return f"What makes a difference to {text}.{left_out}"
