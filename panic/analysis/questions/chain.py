"""Where do its moves lead in the long run? The clusters as a Markov chain of each network."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import altair as alt
import numpy as np
import polars as pl
from numpy.typing import NDArray

from panic.analysis import dynamics
from panic.analysis.charts import GREY, MAX_BESIDE, colour, counted, data, finish, first_names, names_of
from panic.analysis.checks import AnalysisError
from panic.analysis.evidence import Evidence, View, first_model
from panic.analysis.grouping import untold
from panic.analysis.nulls import Band, null_band, shuffled
from panic.analysis.sampling import not_asked
from panic.analysis.states import States

TITLE = "Where its moves lead in the long run"
CAVEAT = (
    "Of runs with fresh noise. Clusters need not be a Markov chain: what a run does next may depend on more "
    "than the cluster it is in, and outliers cut a path. A cluster that nothing is known to follow goes on "
    "to any, as often as each was seen; short runs may stop in parts that they would leave. Shuffled: the "
    "same outputs of each run in random order, the end of a run joined to its start, so that none is caught "
    "there."
)
LEAST_MOVES = 20
TOO_FEW = f"fewer than {LEAST_MOVES} moves among 2 clusters or more with fresh noise"
LONG_RUN = {
    "network": pl.String, "name": pl.String, "label": pl.Int64, "seen": pl.Float64, "long_run": pl.Float64,
    "first_passage": pl.Float64,
}  # fmt: skip

views = first_model


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """What the chain of a network says; times are in outputs of one kind, rates in nats per output.

    `longest`: outputs of the longest run; `slowest`: longest relaxation time, inf for separate or periodic
    parts. `endings`: probabilities of ending in each part that is never left, from where runs began; empty if
    there is one such part only. `entropy_rate`: None where there are several, or where the chain does not
    relax within a run. `shuffled`: its band if the order is random; None where runs have no cluster in
    common.
    """

    network: str
    num_moves: int
    num_runs: int
    num_states: int
    longest: int
    slowest: float
    endings: list[float]
    entropy_rate: float | None
    shuffled: Band | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Chains:
    """Chains of networks, and by cluster the share of time seen and in the long run, and first passages.

    absent: networks with too few moves.
    """

    chains: list[Chain]
    clusters: pl.DataFrame
    absent: tuple[str, ...] = ()


def table(evidence: Evidence, view: View) -> Chains:
    """Chains of networks with LEAST_MOVES moves among 2 clusters or more. AnalysisError without any."""
    states = evidence.states
    chains, parts = [], []
    for network in names_of(states.frame, "network"):
        labels = states.labels(network, among=evidence.fresh)
        if not labels or len(renumbered(labels)[0]) < 2:
            continue
        if dynamics.transition_counts(labels).sum() >= LEAST_MOVES:
            chain, of_clusters = _chain(network, labels, states)
            chains.append(chain)
            parts.append(of_clusters)
    if not chains:
        raise AnalysisError(
            f"no {evidence.grouped_by} has {LEAST_MOVES} moves among 2 clusters or more under fresh noise"
        )
    told = [chain.network for chain in chains]
    return Chains(chains=chains, clusters=pl.concat(parts), absent=others(states.frame, told))


def others(frame: pl.DataFrame, told: Collection[str]) -> tuple[str, ...]:
    """The networks of a frame of states that are not among these."""
    return tuple(network for network in names_of(frame, "network") if network not in told)


def _chain(network: str, labels: list[NDArray[np.int64]], states: States) -> tuple[Chain, pl.DataFrame]:
    """The chain of a network and the rows of its clusters."""
    together = np.concatenate(labels)
    known, runs = renumbered(labels)
    size = len(known)
    matrix = whole_matrix(runs, size)
    closed = dynamics.closed_classes(matrix)
    slowest, longest = float(dynamics.timescales(matrix).max(initial=0.0)), max(map(len, runs))
    is_known = len(closed) == 1 and not longest < slowest < np.inf  # else a few moves would decide it
    starts = [int(run[run >= 0][0]) for run in runs]
    chain = Chain(
        network=network,
        num_moves=int(dynamics.transition_counts(runs, size).sum()),
        num_runs=len(runs),
        num_states=size,
        longest=longest,
        slowest=slowest,
        endings=dynamics.absorption(matrix)[starts].mean(axis=0).tolist() if len(closed) > 1 else [],
        entropy_rate=dynamics.entropy_rate(matrix) if is_known else None,
        shuffled=_shuffled_rate(runs, size),
    )
    seen = np.bincount(together[together >= 0])[known]
    passages = [
        dynamics.mean_first_passage(matrix, target)[starts].mean() if is_known or len(closed) > 1 else np.nan
        for target in range(size)
    ]
    rows = {
        "network": [network] * size,
        "name": [states.names[int(label)] for label in known],
        "label": known,
        "seen": seen / seen.sum(),
        "long_run": dynamics.stationary(matrix) if is_known else np.full(size, np.nan),
        "first_passage": np.array(passages),
    }
    return chain, pl.DataFrame(rows, LONG_RUN)


def renumbered(
    labels: list[NDArray[np.int64]], most: int | None = None
) -> tuple[NDArray[np.int64], list[NDArray[np.int64]]]:
    """The clusters (k,) that runs visit, and the labels of runs that are in any, as places among those.

    With `most`, only so many of them, where runs are most often; the others become outliers.
    """
    together = np.concatenate(labels)
    known, counts = np.unique(together[together >= 0], return_counts=True)
    known = np.sort(known[np.argsort(-counts, kind="stable")[:most]])
    place = np.full(int(together.max()) + 2, -1)  # the last one is that of -1
    place[known] = np.arange(len(known))
    runs = [place[run] for run in labels]
    return known, [run for run in runs if (run >= 0).any()]


def whole_matrix(runs: list[NDArray[np.int64]], size: int) -> NDArray[np.float64]:
    """The transition matrix (size, size); CAVEAT says what follows where nothing is known."""
    matrix = dynamics.transition_matrix(runs, size)
    together = np.concatenate(runs)
    shares = np.bincount(together[together >= 0], minlength=size)
    matrix[matrix.sum(axis=1) == 0] = shares / shares.sum()
    return matrix


def _shuffled_rate(runs: list[NDArray[np.int64]], size: int) -> Band | None:
    """Entropy rates of shuffled runs that are joined to rings, so that none gets caught at an end."""

    def rate(some: list[NDArray[np.int64]]) -> float:
        return dynamics.entropy_rate(whole_matrix([_ring(run) for run in some], size))

    if len(dynamics.closed_classes(whole_matrix([_ring(run) for run in runs], size))) > 1:
        return None
    try:
        return null_band(
            rate, runs, lambda some, rng: [shuffled(run, rng) for run in some], num_surrogates=39
        )
    except AnalysisError:  # outliers tore a shuffle apart
        return None


def _ring(run: NDArray[np.int64]) -> NDArray[np.int64]:
    """A run from its first to its last cluster, and its first once more."""
    known = np.flatnonzero(run >= 0)
    return np.append(run[known[0] : known[-1] + 1], run[known[0]])


def chart(answer: Chains) -> dict[str, Any]:
    """By cluster: share of the time in the long run beside that seen, and how soon it is first reached."""
    most = pl.max_horizontal("seen", pl.col("long_run").fill_nan(0.0))
    clusters, not_drawn = first_names(answer.clusters, "network", most=MAX_BESIDE)
    networks = names_of(clusters, "network")
    clusters = clusters.sort(most, descending=True, maintain_order=True)
    clusters = clusters.group_by("network", maintain_order=True).head(10)
    axis = alt.Axis(labelLimit=170, domain=False, ticks=False)
    base = alt.Chart(
        data(clusters.with_columns(pl.col(pl.Float64).replace([float("inf"), float("nan")], None)))
    )
    base = base.encode(
        y=alt.Y("name:N", sort=names_of(clusters, "name"), title=None, axis=axis),
        yOffset=alt.YOffset("network:N", sort=networks),
    )
    shade = colour("network", networks)
    height = max(80, (12 * len(networks) + 10) * clusters["name"].n_unique())
    share = alt.X("long_run:Q", title="share of the time", axis=alt.Axis(format="%"))
    shares = alt.layer(
        base.mark_bar(cornerRadiusEnd=2).encode(x=share, color=shade),
        base.mark_tick(color=GREY, thickness=3, size=12).encode(x="seen:Q"),
    )
    passage = alt.X("first_passage:Q", title="outputs until it is first reached, mean")
    passages = base.mark_point(filled=True, size=70, opacity=1).encode(x=passage, color=shade)
    long_run, passage_title = "in the long run", "first passage"
    caption = "Bars: share of the time in the long run, where every cluster can be left; grey: share seen."
    if not clusters["long_run"].is_finite().any():
        long_run, shares = (
            "as far as was seen",
            base.mark_bar(cornerRadiusEnd=2).encode(
                x=alt.X("seen:Q", title="share of the time that was seen", axis=alt.Axis(format="%")),
                color=shade,
            ),
        )
        caption = "Bars: share of the time seen. Of none drawn here can the long run be told."
    reached = f"From where runs began; clusters that need not be reached have no dot.{not_drawn}"
    charts = {long_run: finish(shares, long_run, caption + not_drawn, height=height)}
    passages_seen = clusters["first_passage"].replace(float("inf"), None).drop_nans()
    if float(passages_seen.max() or 0.0) > 0:  # type: ignore[arg-type]
        charts[passage_title] = finish(passages, passage_title, reached, height=height)
    return charts


def sentence(answer: Chains) -> str:
    """Entropy rate, relaxation and ends by network."""
    more = untold([chain.network for chain in answer.chains], 4)
    return " ".join(map(_said, answer.chains[:4])) + more + not_asked(answer.absent, TOO_FEW)


def _said(chain: Chain) -> str:
    moves = f"{chain.num_moves:,} moves of {counted(chain.num_runs, 'run')}"
    text = f"{chain.network} ({chain.num_states} clusters, {moves}) "
    if chain.endings:
        likely = [f"{share:.0%}" for share in sorted(chain.endings, reverse=True)[:4] if share >= 0.005]
        shown = sum(sorted(chain.endings, reverse=True)[: len(likely)])
        others = ", and in others" if likely and shown < 0.995 else ""
        text += (
            f"has {len(chain.endings)} parts that were never seen to be left, and ends in them with "
            f"{', '.join(likely) or 'less than 1% each'}{others}"
        )
    elif np.isinf(chain.slowest):
        text += "turns in a ring, as far as was seen, and so has no relaxation time"
    elif chain.slowest > chain.longest:
        text += (
            f"does not relax within a run (the longest has {chain.longest:,} outputs), so what it does in "
            "the long run cannot be told"
        )
    else:
        text += f"relaxes with {chain.slowest:.3g} outputs"
    if chain.entropy_rate is not None:
        text += f"; it makes {chain.entropy_rate:.2f} nats of news per output"
    if chain.entropy_rate is not None and chain.shuffled is not None:
        text += f" (shuffled: {float(chain.shuffled.low):.2f} to {float(chain.shuffled.high):.2f})"
    return f"{text}."
