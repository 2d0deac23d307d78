"""How many different things are there? The Vendi score of the runs at one step, and of each run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import altair as alt
import numpy as np
import polars as pl
from numpy.typing import NDArray

from panic.analysis.alignment import aligned, both_ends, thinned_numbers
from panic.analysis.chance import LEAST_UNITS, Chance, first_told, holm, least_told, swapping
from panic.analysis.charts import call_axis, call_tip, colour, data, finish, first_names, names_of
from panic.analysis.checks import AnalysisError
from panic.analysis.data import ExperimentData
from panic.analysis.dynamics import vendi, vendi_of_groups
from panic.analysis.evidence import Evidence, Statistic, View, by_run, each_model
from panic.analysis.sampling import evenly

Array = NDArray[np.float64]

TITLE = "How many different things are there?"
CAVEAT = (
    "Vendi score (Friedman and Dieng 2023) of cosine similarities: 1 where all are the same, as many as "
    "there are where all are at right angles; under most models unrelated texts are far from that. It grows "
    "with the number that it is of: compare scores of equally many. Runs that coalesced are the same from "
    "where they met, which lowers the score and is no sample of anything: p swaps early and late outputs of "
    "all runs of a prompt, and of prompts that met, at once. Stuck runs go on by their cycle."
)
LEVEL = 0.05
LEAST_RUNS = 3
MAX_RUNS = 40  # of a network
MAX_STEPS = 60  # drawn
MAX_DRAWS = 199  # each takes the eigenvalues of two times COMPARED matrices
COMPARED = 3  # steps early, and as many late
MAX_OUTPUTS = 100  # of a run
RUNS = {"network": pl.String, "run": pl.Int64, "score": pl.Float64, "num_outputs": pl.Int64}
TESTS = {
    "network": pl.String, "early": pl.Float64, "late": pl.Float64, "p_value": pl.Float64,
    "p_least": pl.Float64, "num_runs": pl.Int64, "num_units": pl.Int64,
}  # fmt: skip

views = each_model
STATISTIC = Statistic(what="Vendi score of a run", of=by_run(vendi, most=MAX_OUTPUTS))


@dataclass(frozen=True, slots=True, kw_only=True)
class Diversity:
    """Scores across runs (network, step, score, num_runs), early against late (TESTS, p_adjusted), of runs
    (RUNS).

    A p value is NaN where fewer than `LEAST_UNITS` units are independent.
    """

    steps: pl.DataFrame
    tests: pl.DataFrame
    runs: pl.DataFrame
    modality: str


def table(evidence: Evidence, view: View) -> Diversity:
    """Scores of all networks with 3 runs or more. AnalysisError where there are none."""
    steps, runs, tests = [], [], []
    paths = with_direction(aligned(evidence.data, *view), evidence.data, view.model)
    for (network,), of_network in paths.group_by("network", maintain_order=True):
        chosen = evenly(of_network["run"].unique(maintain_order=True).to_list(), MAX_RUNS)
        if len(chosen) < LEAST_RUNS:
            continue
        some = of_network.filter(pl.col("run").is_in(chosen))
        steps.append(_by_step(str(network), some, evidence.data, view))
        runs += [(network, *of_run) for of_run in _by_run(some, evidence.data, view)]
        tests.append((network, *_early_and_late(some, evidence.data, view)))
    if not tests:
        raise AnalysisError(
            f"no {evidence.grouped_by} has {LEAST_RUNS} runs with {view.modality} vectors of {view.model}"
        )
    found = pl.DataFrame(tests, TESTS, orient="row")
    return Diversity(
        steps=pl.concat(steps),
        tests=found.with_columns(p_adjusted=holm(found["p_value"])),
        runs=pl.DataFrame(runs, RUNS, orient="row"),
        modality=view.modality,
    )


def with_direction(paths: pl.DataFrame, data: ExperimentData, model: str) -> pl.DataFrame:
    """The paths of runs none of whose vectors is zero: a cosine needs a direction."""
    is_zero = np.linalg.norm(data.matrix(model)[paths["row"].to_numpy()], axis=1) == 0
    zero = paths.filter(pl.Series(is_zero, dtype=pl.Boolean))["run"].unique()
    return paths.filter(~pl.col("run").is_in(zero.implode()))


def _unit_vectors(rows: NDArray[np.int64], data: ExperimentData, model: str) -> Array:
    """Vectors (..., d) of length one of these rows (...) of the matrix."""
    points = data.matrix(model)[rows].astype(np.float64)
    points /= np.linalg.norm(points, axis=-1, keepdims=True)
    return points


def _by_step(network: str, paths: pl.DataFrame, data: ExperimentData, view: View) -> pl.DataFrame:
    thin = thinned_numbers(paths, MAX_STEPS).sort("number", "run")
    num_runs = thin["run"].n_unique()
    rows = thin["row"].to_numpy().reshape(-1, num_runs)
    scores = [float(vendi_of_groups(_unit_vectors(at, data, view.model)[None])[0]) for at in rows]
    steps = thin.group_by("number", maintain_order=True).agg(pl.col("step").first())["step"]
    return pl.DataFrame({"network": network, "step": steps, "score": scores, "num_runs": num_runs})


def _by_run(paths: pl.DataFrame, data: ExperimentData, view: View) -> list[tuple[int, float, int]]:
    thin = thinned_numbers(paths, MAX_OUTPUTS).sort("run", "number")
    found = []
    for (run,), of_run in thin.group_by("run", maintain_order=True):
        points = _unit_vectors(of_run["row"].to_numpy(), data, view.model)
        found.append((int(run), float(vendi_of_groups(points[None])[0]), len(points)))
    return found


def _early_and_late(paths: pl.DataFrame, data: ExperimentData, view: View) -> tuple[float | int, ...]:
    """What TESTS has of a network but its name: means over the first outputs, and over as many of the
    last."""
    length, per_lap = int(paths["length"][0]), int(paths["per_lap"][0])
    ends = both_ends(length, per_lap, COMPARED)
    ordered = paths.sort("run", "number")
    rows = ordered["row"].to_numpy().reshape(-1, length)
    units, unit_of = np.unique(ordered.filter(pl.col("number") == 0)["unit"].to_numpy(), return_inverse=True)
    sides = ends or (slice(1), slice(length - 1, length))
    early, late = (_unit_vectors(rows[:, side].T, data, view.model) for side in sides)
    p = p_least = float("nan")
    if len(units) >= LEAST_UNITS and ends:
        found = changed(early, late, unit_of.reshape(-1))
        p, p_least = float(found.p_value), found.p_least
    scores = (float(vendi_of_groups(side).mean()) for side in (early, late))
    return *scores, p, p_least, len(rows), len(units)


def changed(early: Array, late: Array, units: NDArray[np.int64]) -> Chance:
    """The difference of the mean scores of late and early steps, (steps, runs, d) of unit vectors each.

    Early and late outputs of a unit (runs,) are swapped, of all its runs at once. AnalysisError for too few.
    """

    def change(swaps: NDArray[np.bool_]) -> float:
        is_swapped = swaps[units][None, :, None]
        first, last = np.where(is_swapped, late, early), np.where(is_swapped, early, late)
        return float(vendi_of_groups(last).mean() - vendi_of_groups(first).mean())

    return swapping(change, len(np.unique(units)), max_draws=MAX_DRAWS)


def chart(answer: Diversity) -> dict[str, Any]:
    """The score across runs by step, and of each run."""
    shade = colour("network", names_of(answer.steps, "network"))
    score = alt.Y("score:Q", title="Vendi score (effective number)", scale=alt.Scale(domainMin=1, nice=True))
    tips = [
        alt.Tooltip("network:N"),
        call_tip(),
        alt.Tooltip("score:Q", format=".3g"),
        alt.Tooltip("num_runs:Q"),
    ]
    marks = alt.Chart(data(answer.steps)).mark_line(strokeWidth=2.2, point=alt.OverlayMarkDef(size=30))
    most = int(answer.steps["num_runs"].max() or 0)  # type: ignore[arg-type]
    caption = (
        f"Of the {answer.modality}s of at most {most:,} runs at one model call. Falling: runs become alike."
    )
    across = finish(marks.encode(x=call_axis(), y=score, color=shade, tooltip=tips), "across runs", caption)
    runs, others = first_names(answer.runs, "network")
    networks = names_of(runs, "network")
    axis = alt.Axis(labelLimit=280, labelPadding=12, domain=False, ticks=False)
    y = alt.Y("network:N", sort=networks, title=None, axis=axis)
    x = alt.X("score:Q", title="Vendi score of one run", scale=alt.Scale(domainMin=1, nice=True))
    run_tips = [alt.Tooltip("run:N"), alt.Tooltip("score:Q", format=".3g"), alt.Tooltip("num_outputs:Q")]
    base = alt.Chart(data(runs))
    within = alt.layer(
        base.mark_point(filled=True, size=50, opacity=0.5).encode(x=x, y=y, tooltip=run_tips),
        base.mark_tick(thickness=3, size=20).encode(x="median(score):Q", y=y),
    )
    caption = f"Of the {answer.modality}s of each run, at most {MAX_OUTPUTS} of them. Ticks: medians.{others}"
    return {
        "across runs": across,
        "within runs": finish(within, "within runs", caption, height=34 * len(networks)),
    }


def sentence(answer: Diversity) -> str:
    """Early and late scores by network, whether they differ, and the median within runs."""
    parts = []
    within = answer.runs.group_by("network").agg(pl.col("score", "num_outputs").median())
    rows = answer.tests.join(within, on="network", maintain_order="left")
    num_tests = len(rows.drop_nans("p_value"))
    for row in first_told(rows).iter_rows(named=True):
        change = "falls" if row["late"] < row["early"] else "rises"
        verdict = change if row["p_adjusted"] <= LEVEL else "could not be shown to change"
        tested = f"{verdict}, p = {row['p_adjusted']:.2g}{least_told(row['p_least'], num_tests)}"
        if row["p_adjusted"] != row["p_adjusted"]:
            starts = f"start{'s' if row['num_units'] != 1 else ''}"
            tested = f"{row['num_units']:,} independent {starts}, too few to test a change"
        parts.append(
            f"{row['network']} {row['early']:.3g} early and {row['late']:.3g} late of {row['num_runs']:,} "
            f"runs ({tested}), and {row['score']:.3g} in the median run of {row['num_outputs']:,.0f} "
            f"{answer.modality}s"
        )
    more = f"; and {len(rows) - 4} more" if len(rows) > 4 else ""
    return f"Effective number of different {answer.modality}s at one model call: {'; '.join(parts)}{more}."
