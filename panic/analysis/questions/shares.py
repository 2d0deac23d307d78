"""Do other experiments end up in the same places? How much of them lies in this one's clusters, frozen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import altair as alt
import numpy as np
import polars as pl
from numpy.typing import NDArray

from panic.analysis.charts import colour, counted, data, finish, intervals, names_of
from panic.analysis.checks import OUTLIER, AnalysisError
from panic.analysis.clustering import Reference, assign, freeze
from panic.analysis.data import ExperimentData, load
from panic.analysis.evidence import Evidence, View, first_model
from panic.analysis.factors import separate_prompts, trajectories
from panic.analysis.sampling import sample
from panic.analysis.states import States
from panic.store import reading

Array = NDArray[np.float64]

TITLE = "Do other experiments end up in the same places?"
CAVEAT = (
    "The clusters are those of this experiment, frozen: places that only others visit lie outside all. A "
    "cluster is a ball around its mean here. Lines are 95 % intervals over prompts (Student's t): what other "
    "prompts might give; prompts whose runs met count as one. There is none for fewer than 3 prompts, or "
    "where all agree."
)
MAX_EXPERIMENTS = 6  # compared with each other
MAX_CLUSTERS = 10  # drawn
MIN_PROMPTS = 3  # of two the interval is nearly everything
SHARES = {
    "experiment": pl.String, "label": pl.Int64, "name": pl.String, "share": pl.Float64, "low": pl.Float64,
    "high": pl.Float64, "num_runs": pl.Int64,
}  # fmt: skip

views = first_model


@dataclass(frozen=True, slots=True, kw_only=True)
class Shares:
    """Shares of experiments in the clusters (as SHARES) of the one whose name is `own`."""

    shares: pl.DataFrame
    own: str


def table(evidence: Evidence, view: View) -> Shares | None:
    """The store's last experiments beside this one; None where no other has vectors of this kind."""
    own = evidence.experiment
    known = reading.experiments(evidence.store)
    others = [row for row in known if row.id != own.id and not reading.is_null(row.name)]
    found = {own.name: evidence.data}
    for row in others[-MAX_EXPERIMENTS + 1 :]:
        label = row.name if row.name not in found else f"{row.name} ({row.uid[:8]})"
        found[label] = sample(load(evidence.store, row.id))
    if sum(len(data.steps(*view)) > 0 for data in found.values()) < 2:
        return None
    reference = reference_of(evidence.data, view.model, evidence.states)
    return Shares(shares=cluster_shares(reference, found, *view), own=own.name)


def reference_of(data: ExperimentData, model: str, states: States) -> Reference:
    """Clusters of these runs under a model, frozen, with their names and the model's fingerprint.

    AnalysisError without clusters.
    """
    return freeze(
        data.matrix(model)[states.rows],
        states.clustering,
        names=[states.names[label] for label in range(states.clustering.num_clusters)],
        fingerprint=data.model(model).fingerprint,
    )


def cluster_shares(
    reference: Reference,
    experiments: Mapping[str, ExperimentData],
    model: str,
    modality: str,
) -> pl.DataFrame:
    """How much of an experiment's runs lies in each cluster of a frozen reference: columns as in SHARES.

    Shares of the outputs of a run, stuck ones going on by their cycle, averaged over runs that did not fail,
    so that long runs do not count for more; outside all clusters has the label -1. (low, high): 95 % interval
    over prompts, NaN where these do not tell (`interval`). Experiments without such vectors are left out.
    AnalysisError for a reference of another embedding model.
    """
    rows: list[tuple[str, int, str, float, float, float, int]] = []
    names = {OUTLIER: "outside all clusters", **dict(enumerate(reference.names))}
    for experiment, other in experiments.items():
        failed = other.runs.filter(pl.col("state") == "failed")["run"]
        steps = other.visits(model, modality).filter(~pl.col("run").is_in(failed.implode()))
        if steps.is_empty():
            continue
        fingerprint = other.model(model).fingerprint
        if reference.fingerprint and fingerprint != reference.fingerprint:
            raise AnalysisError(
                f"the reference belongs to another embedding model than {model}",
                hint="freeze one from vectors of this model",
            )
        used, place = np.unique(steps["row"].to_numpy(), return_inverse=True)
        found = assign(reference, other.matrix(model)[used])[place]
        number = steps["run"].rank("dense").to_numpy().astype(np.int64) - 1
        shares = np.zeros((int(number.max()) + 1, len(reference.centres) + 1))
        np.add.at(shares, (number, found), 1.0)  # the last column is that of -1
        shares /= shares.sum(axis=1, keepdims=True)
        runs = other.runs.select("run", "prompt").join(trajectories(other), on="run", maintain_order="left")
        prompt_of = separate_prompts(runs.filter(pl.col("run").is_in(steps["run"].unique().implode())))
        prompts = np.array([prompt_of[run] for run in steps["run"].unique().sort().to_list()])
        low, high = interval(shares, prompts)
        for label in (*range(len(reference.centres)), OUTLIER):
            mean = float(shares[:, label].mean())
            name = names.get(label, f"cluster {label}")
            rows.append((experiment, label, name, mean, low[label], high[label], len(shares)))
    return pl.DataFrame(rows, SHARES, orient="row")


def interval(shares: Array, prompts: NDArray[np.int64]) -> tuple[Array, Array]:
    """95 % interval (k,), (k,) of the mean over runs, by Student's t of the means of prompts.

    With half the usual degrees of freedom: shares are bounded and skewed, and of 4 and 8 prompts the usual
    ones held 87 and 90 % for Beta(.5, 2), 93 and 94 % for uniform shares; these hold 94, 93, 98 and 97 %.
    Prompts with unequal numbers of runs are weighted by these (the linearised ratio of sums to numbers). NaN
    for fewer than MIN_PROMPTS, and where all prompts agree: then they do not tell how far others might be.
    """
    from scipy import stats

    sizes = np.bincount(prompts)
    if len(sizes) < MIN_PROMPTS:
        return np.full(shares.shape[1], np.nan), np.full(shares.shape[1], np.nan)
    mean = shares.mean(axis=0)
    off = np.zeros((len(sizes), shares.shape[1]))
    np.add.at(off, prompts, shares - mean)
    error = np.sqrt((off**2).sum(axis=0) * len(sizes) / (len(sizes) - 1)) / len(shares)
    half = stats.t.ppf(0.975, (len(sizes) - 1) / 2) * np.where(error > 1e-12, error, np.nan)
    return np.clip(mean - half, 0, 1), np.clip(mean + half, 0, 1)


def chart(answer: Shares, *, top: int = MAX_CLUSTERS) -> Any:
    """Shares of runs in the clusters of a frozen reference; lines are intervals over prompts.

    The `top` largest clusters are drawn, and what lies outside all.
    """
    frame = answer.shares
    largest = (
        frame.filter(pl.col("label") >= 0)
        .group_by("name", maintain_order=True)
        .agg(pl.col("share").max())
        .sort("share", descending=True, maintain_order=True)["name"]
        .head(top)
        .to_list()
    )
    rows = frame.filter(pl.col("name").is_in(largest) | (pl.col("label") < 0)).with_columns(
        pl.col("low", "high").fill_nan(None)
    )
    order = [*largest, *names_of(frame.filter(pl.col("label") < 0), "name")]
    experiments = names_of(frame, "experiment")
    y = alt.Y("name:N", sort=order, title=None, axis=alt.Axis(domain=False, ticks=False, labelLimit=300))
    by = alt.YOffset("experiment:N", sort=experiments, scale=alt.Scale(paddingInner=0.15, paddingOuter=0.2))
    shade = colour("experiment", experiments)
    tips = [
        alt.Tooltip("experiment:N"),
        alt.Tooltip("name:N", title="cluster"),
        alt.Tooltip("share:Q", format=".1%"),
        alt.Tooltip("low:Q", format=".1%", title="low"),
        alt.Tooltip("high:Q", format=".1%", title="high"),
        alt.Tooltip("num_runs:Q", title="runs"),
    ]
    base = alt.Chart(data(rows)).encode(y=y, yOffset=by)
    x = alt.X("share:Q", title="share of the outputs of a run, mean over runs", axis=alt.Axis(format="%"))
    lines = intervals(rows, y=y, yOffset=by, tooltip=tips)
    chart = alt.layer(base.mark_bar(cornerRadiusEnd=2).encode(x=x, color=shade, tooltip=tips), *lines)
    left_out = frame.filter(pl.col("label") >= 0)["name"].n_unique() - len(largest)
    caption = "One bar per experiment; clusters are frozen."
    caption += " Lines: 95 % intervals over prompts." if lines else ""
    caption += f" The {left_out:,} smallest clusters are not drawn." if left_out > 0 else ""
    height = (14 * len(experiments) + 10) * max(len(order), 1)
    return finish(chart, "Where experiments are", caption, height=height)


def sentence(answer: Shares) -> str:
    """How much of other experiments lies in this one's clusters."""
    own = answer.own
    inside = (
        answer.shares.filter(pl.col("label") >= 0)
        .group_by("experiment", maintain_order=True)
        .agg(pl.col("share").sum(), pl.col("num_runs").first())
    )
    parts = [
        f"{row['share']:.0%} of {'its own outputs' if row['experiment'] == own else row['experiment']} "
        f"({counted(row['num_runs'], 'run')})"
        for row in inside.iter_rows(named=True)
    ]
    return (
        f"In the clusters of {own}, by the share of the outputs of a run, mean over runs: {', '.join(parts)}."
    )
