"""Which clusters belong to which network? Shares of networks' outputs in each, beside shuffled labels.

Networks are shuffled among runs that agree in all else, so within prompts. Whether networks differ at all is
Cramér's V of networks and clusters; whether a network is in one cluster more than the others is its share
there, corrected for all networks and clusters by the largest of each shuffle (Westfall and Young 1993).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import altair as alt
import numpy as np
import polars as pl
from numpy.typing import NDArray

from panic.analysis.chance import least_told
from panic.analysis.charts import GREY, colour, data, finish, intervals, names_of
from panic.analysis.checks import OUTLIER, AnalysisError
from panic.analysis.evidence import Evidence, View, each_model
from panic.analysis.factors import collapsed, exchangeable, separate_prompts, trajectories, with_factors
from panic.analysis.permutations import AT_ONCE, Codes, Design, design_of
from panic.analysis.questions.shares import interval

Array = NDArray[np.float64]

TITLE = "Which clusters belong to which network?"
CAVEAT = (
    "Shares of the outputs of a run, mean over runs, so that long runs do not count for more; stuck runs go "
    "on by their cycle, failed ones are left out, copies of one trajectory count once. Lines are 95 % "
    "intervals over prompts (Student's t), of 3 prompts at least. p values: networks shuffled among runs "
    "that agree in all else; those of single clusters are corrected for all clusters and networks. Networks "
    "that take each prompt elsewhere may be in each cluster equally often: that is asked under “What makes "
    "the difference?”."
)
LEVEL = 0.05
NUM_SHUFFLES = 999
MAX_CLUSTERS, MAX_NETWORKS = 10, 6  # drawn
MAX_TOLD = 4
SHARES = {
    "network": pl.String, "label": pl.Int64, "name": pl.String, "share": pl.Float64, "low": pl.Float64,
    "high": pl.Float64, "others": pl.Float64, "by_chance": pl.Float64, "p_adjusted": pl.Float64,
    "num_runs": pl.Int64,
}  # fmt: skip

views = each_model


@dataclass(frozen=True, slots=True, kw_only=True)
class Territories:
    """Shares of networks in clusters (as SHARES; label -1: outside all), and Cramér's V of the two.

    `others`: the share of the outputs of all other networks; `by_chance`: the mean over shuffled labels.
    `baseline` and `baseline_high`: V's mean and 95 % quantile over shuffles; `p_least`: the smallest p that
    this design could have given.
    """

    shares: pl.DataFrame
    cramers_v: float
    baseline: float
    baseline_high: float
    p_value: float
    p_least: float
    num_runs: int
    modality: str


def table(evidence: Evidence, view: View) -> Territories | None:
    """Shares of networks in clusters. None for one network; AnalysisError without clusters, or where nothing
    can be shuffled."""
    if evidence.data.runs["plain_network"].n_unique() < 2:
        return None
    states = evidence.states_under(view)
    failed = evidence.data.runs.filter(pl.col("state") == "failed")["run"]
    frame = states.frame.filter(~pl.col("run").is_in(failed.implode()))
    if (frame["label"] == OUTLIER).all():
        raise AnalysisError("no output belongs to a cluster")
    runs = with_factors(evidence.data.runs.filter(pl.col("run").is_in(frame["run"].unique().implode())))
    runs = runs.join(trajectories(evidence.data), on="run", maintain_order="left")
    prompt_of = separate_prompts(runs)  # before copies are one, with which prompts they join would be lost
    runs = collapsed(runs, "network")
    if runs["network"].n_unique() < 2:
        raise AnalysisError("only one network has runs that did not fail")
    networks = runs["network"].unique(maintain_order=True).to_list()
    design = design_of(len(runs), _places(runs["network"], networks), exchangeable(runs, "network"))
    of_runs, labels = _shares_of_runs(frame, runs["run"].to_list())
    prompts = np.array([prompt_of[run] for run in runs["run"]])
    return _tested(of_runs, design, networks, prompts, [(n, states.names.get(n, "")) for n in labels], view)


def _places(names: pl.Series, order: list[Any]) -> Codes:
    """The place (n,) of every value in an order of all of them."""
    return names.replace_strict(order, np.arange(len(order)), return_dtype=pl.Int64).to_numpy()


def _shares_of_runs(frame: pl.DataFrame, runs: list[int]) -> tuple[Array, list[int]]:
    """Shares (runs, k) of the outputs of these runs in clusters, and their labels (k,), -1 the last."""
    rows = frame.filter(pl.col("run").is_in(runs))
    labels = [*sorted(set(rows["label"]) - {OUTLIER}), OUTLIER]
    counts = np.zeros((len(runs), len(labels)))
    np.add.at(counts, (_places(rows["run"], runs), _places(rows["label"], labels)), 1)
    return counts / counts.sum(axis=1, keepdims=True), labels


def _tested(
    of_runs: Array,
    design: Design,
    networks: list[str],
    prompts: Codes,
    names: list[tuple[int, str]],
    view: View,
) -> Territories:
    """Shares of networks with their tests, and V with its own."""
    rng = np.random.default_rng(0)
    at_once = max(1, AT_ONCE // (len(of_runs) * len(networks)))
    parts = [min(at_once, NUM_SHUFFLES - done) for done in range(0, NUM_SHUFFLES, at_once)]
    draws = np.concatenate([_means(of_runs, design.all_shuffled(rng, n), len(networks)) for n in parts])
    seen = _means(of_runs, design.groups[None], len(networks))[0]
    weights = np.bincount(design.groups) / len(design.groups)
    values = cramers_v(np.concatenate([seen[None], draws]), weights)
    p_least = design.p_least
    p = max(float((values >= values[0] - 1e-12).mean()), p_least)
    p_adjusted = np.maximum(_adjusted(seen, draws), p_least)
    rows = []
    for number, network in enumerate(networks):
        own = design.groups == number
        low, high = interval(of_runs[own], np.unique(prompts[own], return_inverse=True)[1])
        others = of_runs[~own].mean(axis=0)
        for place, (label, name) in enumerate(names):
            told = name or ("outside all clusters" if label == OUTLIER else f"cluster {label}")
            rows.append(
                (network, label, told, seen[number, place], low[place], high[place], others[place],
                 draws[:, number, place].mean(), p_adjusted[number, place], int(own.sum()))
            )  # fmt: skip
    return Territories(
        shares=pl.DataFrame(rows, SHARES, orient="row"),
        cramers_v=float(values[0]),
        baseline=float(values[1:].mean()),
        baseline_high=float(np.quantile(values[1:], 0.95)),
        p_value=p,
        p_least=p_least,
        num_runs=len(of_runs),
        modality=view.modality,
    )


def _means(of_runs: Array, labels: Codes, num_networks: int) -> Array:
    """Mean shares (k, networks, clusters) over the runs of each label, of labels (k, n)."""
    members = (labels[:, None, :] == np.arange(num_networks)[:, None]).astype(np.float64)
    return np.asarray(members @ of_runs / members.sum(axis=2, keepdims=True))


def cramers_v(shares: Array, weights: Array) -> Array:
    """Cramér's V (...) of shares (..., g, c) that add up to 1 over c, of groups that weigh so much (g,).

    0: groups do not differ; 1: each cluster is of one group, or each group in one cluster of its own.
    """
    whole = weights @ shares
    kinds = np.minimum((whole > 0).sum(axis=-1), shares.shape[-2]) - 1
    off = (weights[:, None] * (shares - whole[..., None, :]) ** 2).sum(axis=-2)
    phi2 = np.divide(off, whole, out=np.zeros(off.shape), where=whole > 0).sum(axis=-1)
    return np.asarray(np.sqrt(phi2 / np.maximum(kinds, 1)))


def _adjusted(seen: Array, draws: Array) -> Array:
    """One-sided p values (g, c) that shares are so large, each beside the largest of every shuffle."""
    spread = draws.std(axis=0)
    scale = np.where(spread > 1e-12, spread, np.inf)
    middle = draws.mean(axis=0)
    largest = ((draws - middle) / scale).max(axis=(1, 2))
    beyond = (seen - middle) / scale
    reached = (largest[:, None, None] >= beyond - 1e-9).sum(axis=0)
    return np.asarray((1 + reached) / (1 + len(draws)))


def chart(answer: Territories) -> Any:
    """Shares of the largest clusters by network with intervals (lines), and of shuffled labels (ticks)."""
    frame = answer.shares.with_columns(pl.col("low", "high").fill_nan(None))
    networks = _most_apart(frame)
    rows = frame.filter(pl.col("network").is_in(networks))
    largest = (
        rows.filter(pl.col("label") != OUTLIER)
        .group_by("name", maintain_order=True)
        .agg(pl.col("share").max())
        .sort("share", descending=True, maintain_order=True)["name"]
        .head(MAX_CLUSTERS)
        .to_list()
    )
    outside = names_of(rows.filter(pl.col("label") == OUTLIER, pl.col("share") > 0), "name")
    rows = rows.filter(pl.col("name").is_in([*largest, *outside]))
    order = [*largest, *outside]
    y = alt.Y("name:N", sort=order, title=None, axis=alt.Axis(domain=False, ticks=False, labelLimit=300))
    by = alt.YOffset("network:N", sort=networks, scale=alt.Scale(paddingInner=0.15, paddingOuter=0.2))
    percent = {"others": "of others", "by_chance": "shuffled", "low": "low", "high": "high"}
    tips = [
        alt.Tooltip("network:N"),
        alt.Tooltip("name:N", title="cluster"),
        alt.Tooltip("share:Q", format=".1%"),
        *(alt.Tooltip(f"{name}:Q", format=".1%", title=title) for name, title in percent.items()),
        alt.Tooltip("p_adjusted:Q", format=".2g", title="p that it is more"),
        alt.Tooltip("num_runs:Q", title="runs"),
    ]
    base = alt.Chart(data(rows)).encode(y=y, yOffset=by)
    x = alt.X("share:Q", title="share of the outputs of a run, mean over runs", axis=alt.Axis(format="%"))
    lines = intervals(rows, y=y, yOffset=by, tooltip=tips)
    layers = alt.layer(
        base.mark_bar(cornerRadiusEnd=2).encode(x=x, color=colour("network", networks), tooltip=tips),
        *lines,
        base.mark_tick(color=GREY, thickness=2, strokeDash=[2, 2]).encode(x="by_chance:Q", tooltip=tips),
    )
    caption = ("Lines: 95 % intervals over prompts. " if lines else "") + "Dashed: shuffled networks."
    num_clusters = frame.filter(pl.col("label") != OUTLIER)["label"].n_unique()
    num_networks = frame["network"].n_unique()
    left_out = {"clusters": num_clusters - len(largest), "networks": num_networks - len(networks)}
    caption += "".join(f" {n:,} more {what} are not drawn." for what, n in left_out.items() if n > 0)
    return finish(layers, "Where networks are", caption, height=(14 * len(networks) + 10) * len(order))


def _most_apart(shares: pl.DataFrame) -> list[str]:
    """The networks that are drawn, in their order: those whose shares are farthest from shuffled labels'."""
    far = shares.group_by("network", maintain_order=True).agg(
        far=(pl.col("share") - pl.col("by_chance")).abs().sum()
    )
    kept = far.sort("far", descending=True, maintain_order=True).head(MAX_NETWORKS)["network"]
    return far.filter(pl.col("network").is_in(kept.implode()))["network"].to_list()


def sentence(answer: Territories) -> str:
    """Whether networks differ in the clusters they are in, and which cluster is whose."""
    measure = (
        f"Cramér's V = {answer.cramers_v:.2f}, shuffled networks {answer.baseline:.2f}, "
        f"p = {answer.p_value:.2g}{least_told(answer.p_least)}; {answer.num_runs:,} runs"
    )
    if answer.p_value > LEVEL:
        return f"It could not be shown that networks differ in the clusters they are in ({measure})."
    found = answer.shares.filter(pl.col("label") != OUTLIER, pl.col("p_adjusted") <= LEVEL)
    found = found.sort("share", descending=True, maintain_order=True)
    parts = [_told(row) for row in found.head(MAX_TOLD).iter_rows(named=True)]
    if not parts:
        return f"Networks differ in the clusters they are in ({measure}), but no cluster stands out as one's."
    more = f"; and {len(found) - len(parts):,} more" if len(found) > len(parts) else ""
    text = f"{'; '.join(parts)}{more}"
    return f"Networks differ in the clusters they are in ({measure}). More than others, {text}."


def _told(row: dict[str, Any]) -> str:
    is_known = row["low"] == row["low"]
    over = f"95 % interval {row['low']:.0%} to {row['high']:.0%}; " if is_known else ""
    return (
        f"{row['network']} is in “{row['name']}” with {row['share']:.0%} of its outputs "
        f"({over}others {row['others']:.0%}, p = {row['p_adjusted']:.2g})"
    )
