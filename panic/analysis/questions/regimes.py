"""What does a run do in the end? Contracting, oscillating or exploring, run by run, and shares by network."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import altair as alt
import numpy as np
import polars as pl
from numpy.typing import NDArray

from panic.analysis import dynamics
from panic.analysis.charts import GREY, colour, data, finish, first_names, names_of
from panic.analysis.checks import AnalysisError
from panic.analysis.dynamics.regime import LEAST_OUTPUTS, MOVES_ON, ROAMS
from panic.analysis.evidence import Evidence, Statistic, View, first_model
from panic.analysis.grouping import grouped_by

TITLE = "What a run does in the end"
CAVEAT = (
    "Oscillating: stuck in a cycle of several laps of its network, or outputs as many laps apart are more "
    "alike than in 95 % of shuffled orders, by half or more. Exploring, if not: late outputs roam over more "
    "than half of the distance to the start or to other runs, or quarter after quarter it moves on. "
    "Contracting: neither. One output per lap counts. A run that has always been where all others are has "
    "nothing that it could be small beside, and may be called exploring for that. Intervals take runs as "
    "independent; those that met are copies, and count once."
)
NAMES = ("contracting", "oscillating", "exploring")
MAX_OTHERS = 200  # late outputs of other runs that a run is compared with
MAX_TOLD = 4  # networks
MOST_DRAWN = 4.0  # of a ratio on an axis

views = first_model

RUNS = {
    "run": pl.Int64, "network": pl.String, "prompt": pl.String, "seed": pl.Int64, "regime": pl.String,
    "rests_on": pl.String, "num_outputs": pl.Int64, "spread": pl.Float64, "moves_on": pl.Float64,
    "likeness": pl.Float64, "p_value": pl.Float64, "period": pl.Int64,
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Regimes:
    """Regimes by run, and how many runs of each network have each, with exact 95 % intervals of the shares.

    shares: network, regime, num_runs (of the network), share, low, high. runs: as RUNS; period in laps of the
    network; what stuck runs need not be measured by is null. num_short: runs with too few outputs, left out.
    """

    shares: pl.DataFrame
    runs: pl.DataFrame
    num_short: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Path:
    """A run, its vectors (n, d) and that of its start; laps of its cycle where it is stuck."""

    about: dict[str, Any]
    points: NDArray[np.float64]
    start: NDArray[np.float64]
    laps: int | None

    @property
    def late(self) -> NDArray[np.float64]:
        return self.points[len(self.points) // 2 :]


def table(evidence: Evidence, view: View) -> Regimes:
    """Regimes of stuck runs, and of others with LEAST_OUTPUTS laps. AnalysisError where there are none."""
    paths = list(_paths(evidence, view))
    told = [path for path in paths if path.laps is not None or len(path.points) >= LEAST_OUTPUTS]
    if not told:
        raise AnalysisError(f"no run is stuck or has {LEAST_OUTPUTS} {view.modality} vectors, one a lap")
    others = _late_outputs(told)
    rows = [_row(path, others) for path in told]
    runs = pl.DataFrame(rows, RUNS, orient="row")
    distinct = runs.filter(pl.col("run").is_in(evidence.distinct))
    return Regimes(shares=_shares(distinct), runs=runs, num_short=len(paths) - len(told))


def _indicators(evidence: Evidence, view: View) -> pl.DataFrame:
    """Of every run and regime whether it is that of the run."""
    runs = table(evidence, view).runs.select("run", "regime")
    names = pl.DataFrame({"part": NAMES})
    return runs.join(names, how="cross").with_columns(
        value=(pl.col("regime") == pl.col("part")).cast(pl.Float64)
    )


STATISTIC = Statistic(what="share of runs with a regime", of=_indicators, is_share=True)


def _paths(evidence: Evidence, view: View) -> Iterator[_Path]:
    """Runs with their last output of every lap: a network of several captioners alternates by itself.

    Runs with an output that has no direction are left out.
    """
    matrix = evidence.data.matrix(view.model).astype(np.float64)
    matrix /= np.maximum(np.linalg.norm(matrix, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    prompts = evidence.data.outputs.filter(pl.col("modality") == "text").join(
        evidence.data.places(view.model), on="output"
    )
    row_of = dict(prompts.select("text", "row").iter_rows())
    about = {row["run"]: row for row in evidence.data.runs.iter_rows(named=True)}
    undirected = set(evidence.zeros(view)["run"])
    steps = evidence.data.steps(view.model, view.modality)
    for (run,), rows in steps.group_by("run", maintain_order=True):
        if run in undirected:
            continue
        one = about[run]
        places = rows["step"].to_numpy() % one["num_models"]
        points = matrix[rows["row"].to_numpy()[places == places.max()]]
        start = row_of.get(one["prompt"]) if view.modality == "text" else None
        yield _Path(
            about=one,
            points=points,
            start=points[0] if start is None else matrix[start],
            laps=None if one["period"] is None else max(1, one["period"] // one["num_models"]),
        )


def _late_outputs(paths: list[_Path]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Some late outputs (n, d) of all runs, and whose (n,) each is."""
    late = [path.late for path in paths]
    each = max(2, MAX_OTHERS // len(paths))
    kept = [one[np.unique(np.linspace(0, len(one) - 1, each).round().astype(int))] for one in late]
    whose = np.repeat([path.about["run"] for path in paths], [len(one) for one in kept])
    return np.concatenate(kept), whose


def _row(path: _Path, others: tuple[NDArray[np.float64], NDArray[np.int64]]) -> tuple[Any, ...]:
    about = (path.about["run"], path.about["network"], path.about["prompt"], path.about["seed"])
    if path.laps is not None:
        name = "contracting" if path.laps == 1 else "oscillating"
        rests_on = "stuck: the same every lap" if path.laps == 1 else f"stuck: a cycle of {path.laps} laps"
        return (*about, name, rests_on, len(path.points), None, None, None, None, path.laps)
    found = dynamics.regime(path.points, _scale(path, others))
    rests_on = f"late outputs {found.spread:.2g} of the scale apart, moves on by {found.moves_on:.2g}"
    if found.name == "oscillating":
        rests_on = f"likeness {found.likeness:.2g} after {found.period} laps (p = {found.p_value:.2g})"
    measured = (found.spread, found.moves_on, found.likeness, found.p_value, found.period)
    return (*about, found.name, rests_on, len(path.points), *measured)


def _scale(path: _Path, others: tuple[NDArray[np.float64], NDArray[np.int64]]) -> float:
    """How far is far: the median distance of late outputs from the start, or from those of other runs."""
    points, whose = others
    elsewhere = points[whose != path.about["run"]]
    from_start = float(np.median(1 - path.late @ path.start))
    from_others = float(np.median(1 - path.late @ elsewhere.T)) if len(elsewhere) else 0.0
    return max(from_start, from_others)


def _shares(runs: pl.DataFrame) -> pl.DataFrame:
    """Shares of regimes by network with exact (Clopper-Pearson) 95 % intervals."""
    from scipy.stats import beta

    rows = []
    for network in names_of(runs, "network"):
        found = runs.filter(pl.col("network") == network)["regime"]
        for name in NAMES:
            count, total = int((found == name).sum()), len(found)
            low = float(beta.ppf(0.025, count, total - count + 1)) if count else 0.0
            high = float(beta.ppf(0.975, count + 1, total - count)) if count < total else 1.0
            rows.append((network, name, total, count / total, low, high))
    columns = {"network": pl.String, "regime": pl.String, "num_runs": pl.Int64, "share": pl.Float64}
    return pl.DataFrame(rows, {**columns, "low": pl.Float64, "high": pl.Float64}, orient="row")


def chart(answer: Regimes) -> dict[str, Any]:
    """Shares by network, and what the regimes of runs that are not stuck rest on."""
    charts = {"": _share_chart(answer.shares)}
    measured = answer.runs.filter(pl.col("spread").is_not_null())
    if len(measured):
        charts["what it rests on"] = _dots(measured)
    return charts


def _share_chart(shares: pl.DataFrame) -> Any:
    shares, others = first_names(shares, "network")
    networks = names_of(shares, "network")
    x = alt.X("share:Q", title="share of runs", axis=alt.Axis(format="%"), scale=alt.Scale(domain=[0, 1]))
    axis = alt.Axis(labelLimit=280, domain=False, ticks=False)
    bars = (
        alt.Chart(data(shares.with_columns(turn=pl.int_range(pl.len()))))
        .mark_bar(height={"band": 0.6})
        .encode(
            x=x,
            y=alt.Y("network:N", sort=networks, title=None, axis=axis),
            color=colour("regime", list(NAMES)),
            order="turn:Q",
            tooltip=[
                alt.Tooltip("network:N"), alt.Tooltip("regime:N"), alt.Tooltip("share:Q", format=".0%"),
                alt.Tooltip("low:Q", format=".0%"), alt.Tooltip("high:Q", format=".0%"),
                alt.Tooltip("num_runs:Q", title="runs"),
            ],
        )
    )  # fmt: skip
    caption = f"Of runs that are stuck, or long enough to tell.{others}"
    return finish(bars, "Regimes", caption, height=max(70, 34 * len(networks)))


def _dots(measured: pl.DataFrame) -> Any:
    """How far late outputs roam, and whether the run moves on; a dot per run."""
    rows = measured.with_columns(moves_on=pl.col("moves_on").clip(upper_bound=MOST_DRAWN))
    x = alt.X(
        "spread:Q", title="cosine distance of two late outputs, of the scale", scale=alt.Scale(zero=True)
    )
    y = alt.Y("moves_on:Q", title="between neighbouring quarters over within", scale=alt.Scale(zero=False))
    dots = (
        alt.Chart(data(rows.drop("prompt", "rests_on")))
        .mark_point(filled=True, size=55, opacity=0.75)
        .encode(
            x=x, y=y, color=colour("regime", list(NAMES)),
            tooltip=[
                alt.Tooltip("run:N"), alt.Tooltip("network:N"), alt.Tooltip("regime:N"),
                alt.Tooltip("spread:Q", format=".2f"), alt.Tooltip("moves_on:Q", format=".2f"),
                alt.Tooltip("likeness:Q", format=".2f"), alt.Tooltip("period:Q", title="period, laps"),
            ],
        )
    )  # fmt: skip
    limits = alt.Chart(data(pl.DataFrame({"spread": [ROAMS], "moves_on": [MOVES_ON]})))
    rules = (
        limits.mark_rule(color=GREY, strokeDash=[5, 4]).encode(x=x),
        limits.mark_rule(color=GREY, strokeDash=[5, 4]).encode(y=y),
    )
    caption = (
        "One dot per run that is not stuck. Left of and below both dashed lines it contracts, if it does "
        "not oscillate."
    )
    return finish(alt.layer(*rules, dots), "what it rests on", caption)


def sentence(answer: Regimes) -> str:
    """Shares of every network with their intervals."""
    parts = []
    for network in names_of(answer.shares, "network")[:MAX_TOLD]:
        rows = answer.shares.filter(pl.col("network") == network)
        told = ", ".join(
            f"{row['share']:.0%} {row['regime']} ({row['low']:.0%} to {row['high']:.0%})"
            for row in rows.iter_rows(named=True)
        )
        count = int(rows["num_runs"][0])
        parts.append(f"{network} ({count:,} run{'s' if count != 1 else ''}) {told}")
    more = answer.shares["network"].n_unique() - MAX_TOLD
    of = grouped_by(answer.shares["network"])
    text = f"By {of}, with 95 % intervals: {'; '.join(parts)}{f'; and {more} more' if more > 0 else ''}."
    if answer.num_short:
        are = "run is" if answer.num_short == 1 else "runs are"
        text += f" {answer.num_short:,} {are} too short to tell ({LEAST_OUTPUTS} outputs are needed)."
    return text
