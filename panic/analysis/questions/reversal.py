"""Would its moves look the same backwards? A test of detailed balance of the moves among clusters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import altair as alt
import numpy as np
import polars as pl
from numpy.typing import NDArray

from panic.analysis import dynamics
from panic.analysis.chance import first_told, holm, least_told
from panic.analysis.charts import GREY, SQUARE, colour, counted, data, finish, names_of, null_band
from panic.analysis.checks import OUTLIER, AnalysisError
from panic.analysis.dynamics.reversibility import NUM_DRAWS
from panic.analysis.evidence import Evidence, View, first_model
from panic.analysis.grouping import untold
from panic.analysis.questions.chain import LEAST_MOVES, others, renumbered
from panic.analysis.sampling import not_asked

TITLE = "Would it look the same backwards?"
CAVEAT = (
    "Of runs with fresh noise; those with a fixed seed, stuck or not, are left out. Only moves from a "
    "cluster to another one count, and outliers between them are passed over, as are the clusters visited "
    "least, where there are fewer than 4 moves for each pair of clusters and direction. p: likelihood ratio "
    "beside draws of the reversible chain that fits best, from the same starts and as long, corrected for "
    "the number of networks and arms (Holm). With two clusters, or moves without a ring of three, nothing "
    "can be told. Runs that still move away from where they began are no breach: a chain that obeys detailed "
    "balance does so, too."
)
MAX_CLUSTERS = 20  # where runs are most often
LEAST_PER_PAIR = 4
"""With fewer moves the reversible chain that fits best has fewer ways than there are, and draws of it breach
detailed balance less: of independent outputs in 16 clusters with 0.6 moves a pair, 92 % of data sets were
said to have a direction at 5 %."""
MAX_TOLD = 4  # networks
LEVEL = 0.05

views = first_model


@dataclass(frozen=True, slots=True, kw_only=True)
class Reversals:
    """Tests by network, and the moves forth and back of pairs of clusters.

    tests: network, num_runs, num_moves, num_clusters, num_rings, statistic, p_value, p_adjusted, net_share
    (of moves that none back matches), null_mean, null_low, null_high. pairs: network, source, target, forth,
    back, the more frequent direction forth. absent: networks with too few moves, or without a ring.
    """

    tests: pl.DataFrame
    pairs: pl.DataFrame
    absent: tuple[str, ...] = ()


TESTS = {
    "network": pl.String, "num_runs": pl.Int64, "num_left_out": pl.Int64, "num_moves": pl.Int64,
    "num_clusters": pl.Int64, "num_rings": pl.Int64, "statistic": pl.Float64, "p_value": pl.Float64,
    "net_share": pl.Float64, "null_mean": pl.Float64, "null_low": pl.Float64, "null_high": pl.Float64,
}  # fmt: skip
PAIRS = {"network": pl.String, "source": pl.String, "target": pl.String, "forth": pl.Int64, "back": pl.Int64}


def table(evidence: Evidence, view: View) -> Reversals:
    """Tests of networks with LEAST_MOVES moves and a ring of 3 clusters. AnalysisError without any."""
    states = evidence.states
    tests, pairs = [], []
    for network in names_of(states.frame, "network"):
        labels = states.labels(network, among=evidence.fresh)
        if not labels or max(run.max(initial=OUTLIER) for run in labels) == OUTLIER:
            continue
        known, moves = enough_moves(labels)
        if not moves:
            continue
        try:
            found = dynamics.reversibility(moves, len(known))
        except AnalysisError:  # no ring
            continue
        num_moves = int(found.counts.sum())
        num_all = states.frame.filter(pl.col("network") == network)["run"].n_unique()
        tests.append(
            (network, len(moves), num_all - len(labels), num_moves, len(known), found.num_rings,
             found.statistic, found.p_value, found.net_share, found.null_mean, found.null_low,
             found.null_high)
        )  # fmt: skip
        names = [states.names[int(label)] for label in known]
        pairs += _pairs(network, names, found.counts)
    if not tests:
        raise AnalysisError(
            f"no {evidence.grouped_by} has {LEAST_MOVES} moves among 3 clusters or more, {LEAST_PER_PAIR} "
            "for each pair and direction, in rings, under fresh noise"
        )
    frame = pl.DataFrame(tests, TESTS, orient="row")
    return Reversals(
        tests=frame.with_columns(p_adjusted=holm(frame["p_value"])),
        pairs=pl.DataFrame(pairs, PAIRS, orient="row"),
        absent=others(states.frame, frame["network"].to_list()),
    )


def enough_moves(labels: list[NDArray[np.int64]]) -> tuple[NDArray[np.int64], list[NDArray[np.int64]]]:
    """The clusters (k,) where runs are most often, and the moves (m,) of every run among these.

    They are so many that there are LEAST_PER_PAIR moves for each pair in either direction; none if there are
    too few for three. A chain that obeys detailed balance does so, too, seen in some of its states only.
    """
    for most in range(MAX_CLUSTERS, 2, -1):
        known, runs = renumbered(labels, most)
        moves = [dynamics.core_moves(run) for run in runs]
        num_moves = sum(len(run) - 1 for run in moves)
        if num_moves >= max(LEAST_MOVES, LEAST_PER_PAIR * len(known) * (len(known) - 1)):
            return known, moves
    return np.empty(0, dtype=np.int64), []


def _pairs(network: str, names: list[str], counts: Any) -> list[tuple[str, str, str, int, int]]:
    found = []
    for i, j in zip(*np.triu_indices(len(names), 1), strict=True):
        one, other = (i, j) if counts[i, j] >= counts[j, i] else (j, i)
        if counts[one, other]:
            row = (network, names[one], names[other], int(counts[one, other]), int(counts[other, one]))
            found.append(row)
    return found


def chart(answer: Reversals) -> dict[str, Any]:
    """Net shares beside those of reversible chains, and moves forth beside those back."""
    band = answer.tests.select(
        x="network", value="net_share", low="null_low", high="null_high", mean="null_mean"
    )
    caption = (
        "Blue: share of moves that none back matches. Grey: 95 % of reversible chains that fit best, and "
        "their mean."
    )
    beside = null_band(
        band, "beside detailed balance", value_title="moves that none back matches", caption=caption
    )
    return {"beside detailed balance": beside, "forth and back": _pair_chart(answer.pairs)}


def _pair_chart(pairs: pl.DataFrame) -> Any:
    """Moves back over moves forth, a dot per pair of clusters, and the line where they are as many."""
    networks = names_of(pairs, "network")
    top = float(pairs["forth"].max() or 1)  # type: ignore[arg-type]
    scale = alt.Scale(domain=[0, 1.05 * top], nice=False)
    line = pl.DataFrame({"forth": [0.0, top], "back": [0.0, top]})
    x, y = (
        alt.X("forth:Q", title="moves forth", scale=scale),
        alt.Y("back:Q", title="moves back", scale=scale),
    )
    dots = (
        alt.Chart(data(pairs))
        .mark_point(filled=True, size=70, opacity=0.75)
        .encode(
            x=x, y=y, color=colour("network", networks),
            tooltip=[
                alt.Tooltip("network:N"), alt.Tooltip("source:N", title="from"),
                alt.Tooltip("target:N", title="to"), alt.Tooltip("forth:Q"), alt.Tooltip("back:Q"),
            ],
        )
    )  # fmt: skip
    same = alt.Chart(data(line)).mark_line(color=GREY, strokeDash=[4, 4]).encode(x=x, y=y)
    caption = "One dot per pair of clusters, the more frequent direction forth. Dashed: as many back."
    return finish(alt.layer(same, dots), "forth and back", caption, width=SQUARE, height=SQUARE)


def sentence(answer: Reversals) -> str:
    """Whether the moves of each network have a direction, and how much of them goes round."""
    rows = first_told(answer.tests, MAX_TOLD).iter_rows(named=True)
    least = least_told(1 / (1 + NUM_DRAWS), len(answer.tests))
    more = untold(answer.tests["network"], MAX_TOLD)
    left_out = not_asked(answer.absent, "too few moves with fresh noise, or none round a ring of 3 clusters")
    return " ".join(_said(row, least) for row in rows) + more + left_out


def _said(row: dict[str, Any], least: str) -> str:
    left_out = f", {row['num_left_out']:,} with a fixed seed left out" if row["num_left_out"] else ""
    p = f"p = {row['p_adjusted']:.2g}"
    if row["p_value"] <= 1 / (1 + NUM_DRAWS):
        p += f", the least that {NUM_DRAWS} draws can give"
    else:
        p += least
    verdict = (
        f"moves in one direction more than detailed balance allows ({p})"
        if row["p_adjusted"] <= LEVEL
        else f"could not be shown to move in one direction ({p})"
    )
    return (
        f"{row['network']} ({row['num_clusters']} clusters, {row['num_moves']:,} moves of "
        f"{counted(row['num_runs'], 'run')}{left_out}) {verdict}: {row['net_share']:.0%} of its moves are "
        f"matched by none back, under detailed balance {row['null_low']:.0%} to {row['null_high']:.0%}."
    )
