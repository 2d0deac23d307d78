"""What makes the difference: the prompt, the network, the noise?

Runs of one prompt are not independent, so labels are shuffled among runs that are alike in everything else:
networks within a prompt, prompts within a network. p values are corrected for their number (Holm).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import altair as alt
import numpy as np
import polars as pl
from numpy.typing import NDArray

from panic.analysis.charts import beside_shuffles, finish
from panic.analysis.checks import AnalysisError
from panic.analysis.data import ExperimentData
from panic.analysis.evidence import Evidence, View, first_model
from panic.analysis.factors import collapsed, exchangeable, factors_of, trajectories, with_factors
from panic.analysis.sampling import spread
from panic.analysis.statistics import GroupTest, adjust, label_test, permanova
from panic.topology import distance_matrix, pairwise

Array = NDArray[np.float64]

TITLE = "What makes the difference?"
CAVEAT = (
    "Labels are shuffled among runs that agree in all else, so a difference between prompts is not taken "
    "for one between networks. Runs of a fixed seed that coalesced are copies and count once, except where "
    "prompts are compared. PERMANOVA also answers to a difference in spread; more levels explain more by "
    "chance (the grey bars), so an effect is what goes beyond that. Diagrams of "
    "longer runs have more bars. Failed and unfinished runs end nowhere."
)
LEVEL = 0.05  # of all tests together
MAX_RUNS = 150  # compared pair by pair
ENDS, COMPONENTS, LOOPS = "where runs end", "H0 diagrams", "H1 diagrams"
WITHIN = {"network": "prompt", "prompt": "network"}  # compared inside each of the other, too
EFFECTS = {
    "factor": pl.String, "within": pl.String, "measure": pl.String, "effect": pl.Float64,
    "effect_name": pl.String, "baseline": pl.Float64, "baseline_high": pl.Float64, "beyond": pl.Float64,
    "p_value": pl.Float64, "p_least": pl.Float64, "p_adjusted": pl.Float64, "num_runs": pl.Int64,
    "num_groups": pl.Int64,
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
        raise AnalysisError(reasons or "all runs that have ended are of one prompt, network and seed")
    return Effects(tests=tests, absent=absent)


def what_matters(
    data: ExperimentData, model: str, modality: str, *, num_permutations: int = 999, max_runs: int = MAX_RUNS
) -> tuple[pl.DataFrame, dict[str, str]]:
    """Tests of every factor on where runs end and on their diagrams, one row each as in EFFECTS; what lacks.

    Factors: prompt, network, seed ("fresh" is one of them) and, where networks share models, the model at
    each of their places. Where runs end: PERMANOVA of the chordal distances of the outputs at their full
    length; networks are also compared within each prompt, and prompts within each network (`within`), since
    what moves every prompt elsewhere need not move their mean. Diagrams: Robinson and Turner's test of
    Wasserstein distances. `beyond` is the effect less its mean over shuffled labels. Of at most `max_runs`
    runs that have ended, evenly chosen; factors with one level are left out, those that cannot be tested are
    told with the reason.
    """
    ended = {run.id for run in data.rows if run.state in ("done", "stuck")}
    chosen = {run.id for run in spread([run for run in data.rows if run.id in ended], max_runs)}
    runs = with_factors(data.runs.filter(pl.col("run").is_in(list(chosen))))
    runs = runs.join(trajectories(data), on="run", maintain_order="left")
    tests: list[tuple[str, str, str, GroupTest]] = []
    absent: dict[str, str] = {}
    if len(runs) < 3:
        absent[ENDS] = f"3 runs that have ended are needed, found {len(runs)}"
    for measure, rows, distances in _distances(data, model, modality, set(runs["run"])):
        of = pl.DataFrame({"run": rows}).join(runs, on="run", maintain_order="left").with_row_index("at")
        if not distances.any():
            absent[measure] = f"all {len(of):,} runs are the same"
            continue
        asked = [(factor, "") for factor in factors_of(of)]
        if measure == ENDS and {"prompt", "network"} <= {factor for factor, _ in asked}:
            asked += list(WITHIN.items())
        for factor, within in asked:
            try:
                found = _test(measure, distances, of, (factor, within), num_permutations)
            except AnalysisError as error:
                absent[f"{_named(factor, within)}, {measure}"] = error.message
                continue
            tests.append((factor, within, measure, found))
    return _rows(tests), absent


def _test(
    measure: str, distances: Array, of: pl.DataFrame, asked: tuple[str, str], num_permutations: int
) -> GroupTest:
    """The test of one factor; AnalysisError where the design does not allow one."""
    factor, within = asked
    of = collapsed(of, factor)
    if of[factor].n_unique() < 2:
        raise AnalysisError(f"all runs are copies of one trajectory or of one {factor}")
    units = exchangeable(of, factor)
    square = distances[np.ix_(of["at"].to_numpy(), of["at"].to_numpy())]
    labels = of[factor].to_list()
    if within:
        levels = of[within].to_list()
        return permanova(square, labels, units=units, within=levels, num_permutations=num_permutations)
    test = permanova if measure == ENDS else label_test
    return test(square, labels, units=units, num_permutations=num_permutations)


def _rows(tests: list[tuple[str, str, str, GroupTest]]) -> pl.DataFrame:
    """Tests as EFFECTS, the largest effect beyond chance of a measure first.

    p values are corrected (Holm) for the number of tests that could have shown anything: one whose smallest
    possible p is above the level cannot err (Tarone 1990).
    """
    able = [found.p_least <= LEVEL for *_, found in tests]
    corrected = iter(adjust([t.p_value for (*_, t), is_able in zip(tests, able, strict=True) if is_able]))
    rows = [
        (
            factor, within, measure, t.effect, t.effect_name, t.baseline, t.baseline_high,
            t.effect - t.baseline, t.p_value, t.p_least, float(next(corrected)) if is_able else t.p_value,
            t.num_values, t.num_groups,
        )
        for (factor, within, measure, t), is_able in zip(tests, able, strict=True)
    ]  # fmt: skip
    frame = pl.DataFrame(rows, EFFECTS, orient="row")
    order = pl.col("measure").replace_strict({ENDS: 0, COMPONENTS: 1, LOOPS: 2})
    return frame.sort(order, -pl.col("beyond"), maintain_order=True)


def _named(factor: str, within: str) -> str:
    return f"{factor} within each {within}" if within else factor


def _distances(
    data: ExperimentData, model: str, modality: str, runs: set[int]
) -> list[tuple[str, list[int], Array]]:
    """(measure, runs, distances of them): of where runs end, and of diagrams where there are any."""
    found: list[tuple[str, list[int], Array]] = []
    ends = data.ends(model, modality).filter(pl.col("run").is_in(list(runs)))
    last = data.matrix(model)[ends["row"].to_numpy()].astype(np.float64)
    if len(ends) > 2:
        has_direction = last.any(axis=1)
        ends, last = ends.filter(has_direction), last[has_direction]
    if len(ends) > 2:
        found.append((ENDS, ends["run"].to_list(), pairwise(last, "chordal")))
    bars = data.bars_under(model).filter(pl.col("run").is_in(list(runs)))
    chosen = bars["run"].unique(maintain_order=True).to_list()
    bars = bars.filter(pl.col("death").is_finite())
    for dimension, measure in ((0, COMPONENTS), (1, LOOPS)):
        groups = bars.filter(pl.col("dimension") == dimension).group_by("run", maintain_order=True)
        of = {run: rows.select("birth", "death").to_numpy() for (run,), rows in groups}
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
        row=pl.concat_str(
            "factor",
            pl.when(pl.col("within") != "")
            .then(pl.format(" within each {}", "within"))
            .otherwise(pl.lit("")),
            pl.lit(" · "),
            "measure",
        ),
        value="effect",
        label=pl.col("p_adjusted").map_elements(lambda p: f"p = {p:.2g}", return_dtype=pl.String),
    )
    low = min(0.0, float(frame["effect"].min() or 0.0), float(frame["baseline"].min() or 0.0))  # type: ignore[arg-type]
    x = alt.X(
        "value:Q",
        title="effect: share of the variance, or relative tightness",
        scale=alt.Scale(domain=[low - 0.04, 1.12], nice=False),
        axis=alt.Axis(format="%", values=[0, 0.25, 0.5, 0.75, 1]),
    )
    tips = [
        alt.Tooltip("factor:N"),
        alt.Tooltip("measure:N"),
        alt.Tooltip("effect:Q", format=".1%"),
        alt.Tooltip("effect_name:N", title="which is"),
        alt.Tooltip("beyond:Q", format=".1%", title="beyond chance"),
        alt.Tooltip("num_groups:Q", title="groups"),
    ]
    chart = beside_shuffles(rows, x, tips)
    caption = (
        "Dot: effect (filled: p ≤ 0.05). Grey: shuffled labels, from their mean to the 95 % quantile. "
        "p values are corrected for their number (Holm)."
    )
    return finish(chart, TITLE, caption, height=32 * max(len(frame), 1))


def sentence(answer: Effects) -> str:
    """Which factors make a difference, the largest first, and what could not have been shown."""
    parts = []
    for (measure,), rows in answer.tests.group_by("measure", maintain_order=True):
        what = "share of the variance" if measure == ENDS else "tightness of groups"
        clear = rows.filter(pl.col("p_adjusted") <= LEVEL)
        plain = set(clear.filter(pl.col("within") == "")["factor"])
        named = [
            f"the {row['factor']}{_how(row)} ({row['beyond']:.0%}, p = {row['p_adjusted']:.2g})"
            for row in clear.iter_rows(named=True)
            if not row["within"] or row["factor"] not in plain
        ]
        most = max(rows["num_runs"].to_list())
        about = f"{measure} ({what} beyond what shuffled labels give; {most:,} runs)"
        parts.append(f"{about}: {', then '.join(named) + _unable(rows, plain) if named else _nothing(rows)}")
    text = "; ".join(parts)
    left_out = "; ".join(f"{what} ({why})" for what, why in answer.absent.items())
    return f"What makes a difference to {text}." + (f" Not tested: {left_out}." if left_out else "")


def _how(row: dict[str, Any]) -> str:
    return f", in another way for each {row['within']}" if row["within"] else ""


def _nothing(rows: pl.DataFrame) -> str:
    """Nothing is clear; of a design that could not have shown anything, that is said instead."""
    if (rows["p_least"] <= LEVEL).any():
        smallest = float(rows["p_adjusted"].min())  # type: ignore[arg-type]
        return f"nothing is clear (smallest p = {smallest:.2g}){_unable(rows)}"
    least = float(rows["p_least"].min())  # type: ignore[arg-type]
    return f"this design could not have shown anything: too few runs, the smallest possible p is {least:.2g}"


def _unable(rows: pl.DataFrame, plain: Collection[str] = ()) -> str:
    """The factors that too few runs could not have shown, but for those that are `plain` already."""
    return "".join(
        f"; the {_named(row['factor'], row['within'])} could not have been shown (smallest possible p = "
        f"{row['p_least']:.2g})"
        for row in rows.filter(pl.col("p_least") > LEVEL).iter_rows(named=True)
        if row["factor"] not in plain
    )
