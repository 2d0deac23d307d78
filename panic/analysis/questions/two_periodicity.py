"""Does it alternate? Likeness to the output before the last against likeness to the last, beside shuffles."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import altair as alt
import numpy as np
import polars as pl

from panic.analysis.alignment import aligned
from panic.analysis.chance import first_told, holm
from panic.analysis.charts import call_axis, call_tip, colour, data, finish, names_of, null_band
from panic.analysis.checks import AnalysisError, unit
from panic.analysis.data import ExperimentData, Vectors
from panic.analysis.dynamics import TwoPeriodicity, two_periodicity
from panic.analysis.dynamics.alternation import excess_of_orders
from panic.analysis.evidence import Evidence, Statistic, View, by_run, each_model
from panic.analysis.grouping import course_name
from panic.analysis.sampling import evenly, scattered

TITLE = "Does it alternate?"
CAVEAT = (
    "2-periodicity as in Wang et al. (ACL 2025): likeness (cosine) of an output to the one before the last, "
    "less that to the last. They compare texts by edit distance; by vectors two texts that mean the same are "
    "alike. Outputs of one kind are compared, and networks in which several models make these in turn, which "
    "alternate by construction, are left out. Runs that coalesced count once; stuck ones go on by their "
    "cycle. p: the order of all outputs but the first is shuffled, corrected for the number of networks "
    "and arms (Holm)."
)
LEVEL = 0.05
LEAST_OUTPUTS = 6  # of a run: 120 orders of all but the first
MOST_OUTPUTS = 400  # of a run
MAX_RUNS = 60  # of a network
NUM_SHUFFLES = 399
LEAST_SHUFFLES = 40  # for each network, so that a p corrected for their number can be below 0.05
MAX_STEPS = 200
SCORES = {
    "network": pl.String, "lag1": pl.Float64, "lag2": pl.Float64, "equal": pl.Float64, "excess": pl.Float64,
    "low": pl.Float64, "high": pl.Float64, "mean": pl.Float64, "p_value": pl.Float64, "num_runs": pl.Int64,
}  # fmt: skip

views = each_model


def _excess(evidence: Evidence, view: View) -> pl.DataFrame:
    """The excess of every run of a network in which one model makes these outputs: run, value."""
    found = by_run(lambda points: two_periodicity(points).excess, least=LEAST_OUTPUTS, most=MOST_OUTPUTS)
    networks = {row.id: row.network for row in evidence.data.rows}
    steps = evidence.data.steps(*view).group_by("run").agg("step")
    asked = [
        run
        for run, at in steps.iter_rows()
        if len({networks[run][step % len(networks[run])] for step in at}) == 1
    ]
    return found(evidence, view).filter(pl.col("run").is_in(asked)).select("run", "value")


STATISTIC = Statistic(what="likeness at lag 2 beyond that at lag 1", of=_excess)


@dataclass(frozen=True, slots=True, kw_only=True)
class Alternations:
    """Means over runs by network (SCORES and `p_adjusted`; band of shuffles), and the excess by step.

    steps: network, step, excess (mean over runs), num_runs. absent: networks that are not asked, and why.
    """

    scores: pl.DataFrame
    steps: pl.DataFrame
    absent: Mapping[str, str]
    modality: str


def table(evidence: Evidence, view: View) -> Alternations:
    """2-periodicity by network. AnalysisError where no network can be asked, with the reasons."""
    paths = aligned(evidence.data, *view).filter(pl.col("number") < MOST_OUTPUTS)
    models = {course_name(row): row.network for row in evidence.data.rows}
    rows, along = [], []
    absent: dict[str, str] = {}
    num_shuffles = max(NUM_SHUFFLES, LEAST_SHUFFLES * paths["network"].n_unique())
    for (network,), of_network in paths.group_by("network", maintain_order=True):
        why = _why_not(models[str(network)], of_network)
        if why:
            absent[str(network)] = why
            continue
        runs = list(_runs(evidence.data, view, of_network))
        if not runs:
            absent[str(network)] = "all vectors of its runs hold zeros"
            continue
        rows.append((network, *score([points for _, points in runs], num_shuffles)))
        along.append(_along(str(network), runs))
    if not rows:
        reasons = "; ".join(f"{network}: {why}" for network, why in absent.items())
        raise AnalysisError(reasons or f"there are no {view.modality} vectors of {view.model}")
    scores = pl.DataFrame(rows, SCORES, orient="row")
    scores = scores.with_columns(p_adjusted=holm(scores["p_value"]))
    return Alternations(scores=scores, steps=pl.concat(along), absent=absent, modality=view.modality)


def _why_not(models: tuple[str, ...], paths: pl.DataFrame) -> str:
    makers = {models[step % len(models)] for step in paths["step"].unique()}
    if len(makers) > 1:
        return f"{' and '.join(sorted(makers))} make its outputs in turn"
    length = int(paths["length"][0])
    return f"{LEAST_OUTPUTS} outputs a run are needed, found {length}" if length < LEAST_OUTPUTS else ""


def _runs(data: ExperimentData, view: View, paths: pl.DataFrame) -> Iterator[tuple[list[int], Vectors]]:
    """Steps and vectors (n, d) of one run of every trajectory, without such that have no direction."""
    matrix = data.matrix(view.model)
    first = paths.unique("trajectory", keep="first", maintain_order=True)["run"].to_list()
    for run in evenly(first, MAX_RUNS):
        of_run = paths.filter(pl.col("run") == run)
        points = matrix[of_run["row"].to_numpy()]
        if points.any(axis=1).all():
            yield of_run["step"].to_list(), points


def score(runs: list[Vectors], num_shuffles: int = NUM_SHUFFLES) -> tuple[float | int, ...]:
    """What SCORES has of a network but its name."""
    found = [two_periodicity(points) for points in runs]
    rng = np.random.default_rng(0)
    draws = np.zeros(num_shuffles)
    for points in runs:
        directions = unit(points)
        later = 1 + np.argsort(rng.random((num_shuffles, len(points) - 1)), axis=1)
        orders = np.concatenate([np.zeros((num_shuffles, 1), np.int64), later], axis=1)
        draws += excess_of_orders(directions @ directions.T, orders) / len(runs)
    excess = _mean(found, "excess")
    p = (1 + (draws >= excess - 1e-9).sum()) / (1 + num_shuffles)
    low, high = np.quantile(draws, [0.025, 0.975], method="weibull")
    means = (_mean(found, name) for name in ("lag1", "lag2", "equal"))
    return *means, excess, float(low), float(high), float(draws.mean()), float(p), len(runs)


def _mean(found: list[TwoPeriodicity], name: str) -> float:
    return float(np.mean([getattr(one, name) for one in found]))


def _along(network: str, runs: list[tuple[list[int], Vectors]]) -> pl.DataFrame:
    """The excess by step, mean over runs; all have the same number of outputs, and the steps of the first."""
    stacked = np.array([points for _, points in runs], dtype=np.float64)
    stacked /= np.linalg.norm(stacked, axis=2, keepdims=True)
    now = stacked[:, 2:]
    excess = (now * (stacked[:, :-2] - stacked[:, 1:-1])).sum(axis=2).mean(axis=0)
    frame = pl.DataFrame(
        {"network": network, "step": runs[0][0][2:], "excess": excess, "num_runs": len(runs)}
    )
    return frame[scattered(len(frame), MAX_STEPS)]


def chart(answer: Alternations) -> dict[str, Any]:
    """The excess of every network beside shuffles of the order, and along the runs."""
    band = answer.scores.select("low", "high", "mean", x="network", value="excess")
    title = "excess of likeness at lag 2"
    caption = (
        "Above the band: it alternates. Blue: mean over runs. Grey: where that lies in 95 % of shuffles of "
        "the order."
    )
    beside = null_band(band, "beside shuffles of the order", value_title=title, caption=caption)
    x = call_axis()
    y = alt.Y("excess:Q", title=title)
    marks = (
        alt.Chart(data(answer.steps))
        .mark_line(strokeWidth=2.2, point=alt.OverlayMarkDef(size=30))
        .encode(
            x=x,
            y=y,
            color=colour("network", names_of(answer.steps, "network")),
            tooltip=[alt.Tooltip("network:N"), call_tip(), alt.Tooltip("excess:Q", format=".3f"),
                     alt.Tooltip("num_runs:Q", title="runs")],
        )
    )  # fmt: skip
    along = finish(marks, "along the runs", "Mean over runs. 0: as like the last as the one before it.")
    return {"beside shuffles of the order": beside, "along the runs": along}


def sentence(answer: Alternations) -> str:
    """Which networks alternate, with both likenesses, and how many outputs are exactly those of two
    before."""
    parts = [_said(row) for row in first_told(answer.scores).iter_rows(named=True)]
    more = f"; and {len(answer.scores) - 4} more" if len(answer.scores) > 4 else ""
    left_out = "; ".join(f"{network} ({why})" for network, why in answer.absent.items())
    return f"By mean likeness of {answer.modality}s of one run: {'; '.join(parts)}{more}." + (
        f" Not asked: {left_out}." if left_out else ""
    )


def _said(row: dict[str, Any]) -> str:
    verdict = "alternates" if row["p_adjusted"] <= LEVEL else "could not be shown to alternate"
    return (
        f"{row['network']} {verdict} ({row['lag2']:.3f} to the one before the last, {row['lag1']:.3f} to the "
        f"last, p = {row['p_adjusted']:.2g}; {row['equal']:.0%} equal the one before the "
        f"last and not the last; {row['num_runs']:,} run{'s' if row['num_runs'] != 1 else ''})"
    )
