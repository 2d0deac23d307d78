"""How long is it from region to region, and until it forgets where it began? A core-set Markov model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import altair as alt
import numpy as np
import polars as pl
from numpy.typing import NDArray

from panic.analysis import dynamics
from panic.analysis.charts import (
    GREY,
    MAX_BESIDE,
    colour,
    counted,
    data,
    finish,
    first_names,
    names_of,
    numbered,
    plain,
)
from panic.analysis.checks import OUTLIER, AnalysisError
from panic.analysis.evidence import Evidence, View, first_model
from panic.analysis.grouping import untold
from panic.analysis.nulls import Band, null_band, shuffled
from panic.analysis.questions.chain import LEAST_MOVES, TOO_FEW, others, renumbered, whole_matrix
from panic.analysis.sampling import not_asked
from panic.analysis.states import States

TITLE = "From region to region"
CAVEAT = (
    "Of runs with fresh noise; those with a fixed seed, stuck or not, are left out. Clusters are the cores "
    "of a Markov state model, and what lies in none belongs to the core that was visited last "
    "(transition-based assignment, Buchete and Hummer 2008); relaxation times by milestones (Schütte et al. "
    "2011). A mixing time is the number of outputs after which the worst start is within a quarter of the "
    "long run in total variation. Whether the cores are a Markov chain is assumed, and not tested here."
)
MAX_CORES = 20  # where runs are most often
LEAST_RUNS = 6  # for an interval
NUM_RESAMPLES = 200
MAX_DRAWN = 8  # cores of a chart
MAX_TOLD = 4  # networks
FOREVER = 1e9  # outputs; of a few shuffles that make a ring, so that a band has ends

PASSAGES = {
    "network": pl.String, "source": pl.String, "target": pl.String, "source_label": pl.Int64,
    "target_label": pl.Int64, "num_moves": pl.Int64, "outputs": pl.Float64,
}  # fmt: skip

views = first_model


@dataclass(frozen=True, slots=True, kw_only=True)
class CoreChain:
    """The Markov state model of a network; times are in outputs of one kind.

    num_left_out: runs with a fixed seed. in_cores: share of the outputs that lie in cores. relaxation: with
    its 95 % interval over runs (NaN for fewer than LEAST_RUNS), inf for a ring; `shuffled`: its band if the
    order is random; None where it cannot be told. num_parts: parts that are never left. mixing: NaN where
    there are several, or where the chain does not relax within the longest run.
    """

    network: str
    num_runs: int
    num_left_out: int
    num_moves: int
    num_cores: int
    in_cores: float
    longest: int
    relaxation: float
    low: float
    high: float
    shuffled: Band | None
    num_parts: int
    mixing: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CoreChains:
    """Chains of networks; mean outputs from core to core; and where each core leads.

    passages: as PASSAGES; num_moves are direct ones, outputs the mean first passage. committors: network,
    label and name, source and target (the two cores where it is most), committor (the chance to come to the
    target before the source), share (of the time since it was in this core last). absent: networks with too
    few moves.
    """

    chains: list[CoreChain]
    passages: pl.DataFrame
    committors: pl.DataFrame
    absent: tuple[str, ...] = ()


def table(evidence: Evidence, view: View) -> CoreChains:
    """Models of networks with LEAST_MOVES moves among 2 cores or more. AnalysisError where there are none."""
    states = evidence.states
    found = []
    for network in names_of(states.frame, "network"):
        labels = states.labels(network, among=evidence.fresh)
        if not labels or max(run.max(initial=OUTLIER) for run in labels) == OUTLIER:
            continue
        known, runs = renumbered(labels, MAX_CORES)
        if len(known) > 1 and sum(max(len(dynamics.core_moves(run)) - 1, 0) for run in runs) >= LEAST_MOVES:
            num_all = states.frame.filter(pl.col("network") == network)["run"].n_unique()
            found.append(_model(network, known, runs, states, num_all - len(labels)))
    if not found:
        raise AnalysisError(
            f"no {evidence.grouped_by} has {LEAST_MOVES} moves among 2 clusters or more under fresh noise"
        )
    chains, passages, committors = zip(*found, strict=True)
    return CoreChains(
        chains=list(chains),
        passages=pl.concat(passages),
        committors=pl.concat(committors),
        absent=others(states.frame, [chain.network for chain in chains]),
    )


def _model(
    network: str,
    known: NDArray[np.int64],
    runs: list[NDArray[np.int64]],
    states: States,
    num_left_out: int,
) -> tuple[CoreChain, pl.DataFrame, pl.DataFrame]:
    """The model of a network, and the rows of its passages and committors."""
    size, longest = len(known), max(map(len, runs))
    lasts = [last[last >= 0] for last in map(dynamics.last_core, runs)]
    counts, matrix = dynamics.transition_counts(lasts, size), whole_matrix(lasts, size)
    num_parts = len(dynamics.closed_classes(matrix))
    relaxation, low, high = _relaxation(runs, size)
    is_told = num_parts == 1 and (relaxation <= longest or np.isinf(relaxation))
    chain = CoreChain(
        network=network,
        num_runs=len(runs),
        num_left_out=num_left_out,
        num_moves=int(counts.sum() - counts.diagonal().sum()),
        num_cores=size,
        in_cores=float(np.mean(np.concatenate(runs) >= 0)),
        longest=longest,
        relaxation=relaxation,
        low=low,
        high=high,
        shuffled=in_random_order(runs, size),
        num_parts=num_parts,
        mixing=dynamics.mixing_time(matrix) if is_told else np.nan,
    )
    names = [states.names[int(label)] for label in known]
    passages = _passages(network, known.tolist(), names, matrix, counts)
    return chain, passages, _committors(network, known.tolist(), names, matrix, lasts)


def _relaxation(runs: list[NDArray[np.int64]], size: int) -> tuple[float, float, float]:
    """The relaxation time and its 95 % interval: runs are drawn again, with replacement.

    The log of the time is taken for normal, and the bias that draws have against it is taken off, because the
    slowest of several times is chosen for being slow: percentiles of draws hold that of a chain with three
    equal ones in 79 % of data sets of 12 runs, this interval in 95 %.
    """
    from scipy.stats import t

    by_run = dynamics.core_counts(runs, size)
    value = float(dynamics.relaxation(by_run.sum(axis=0)))
    if len(runs) < LEAST_RUNS or not 0 < value < np.inf:
        return value, np.nan, np.nan
    rng = np.random.default_rng(0)
    weights = rng.multinomial(len(runs), np.full(len(runs), 1 / len(runs)), size=NUM_RESAMPLES)
    drawn = dynamics.relaxation(np.tensordot(weights, by_run, axes=1))
    logs = np.log(drawn[(drawn > 0) & (drawn < np.inf)])
    if 2 * len(logs) < NUM_RESAMPLES:
        return value, np.nan, np.nan
    middle = 2 * np.log(value) - logs.mean()
    half = t.ppf(0.975, len(runs) - 1) * logs.std(ddof=1)
    return value, float(np.exp(middle - half)), float(np.exp(middle + half))


def in_random_order(runs: list[NDArray[np.int64]], size: int) -> Band | None:
    """Relaxation times of the same outputs in random order; None where one of them cannot be told."""

    def relaxation(some: list[NDArray[np.int64]]) -> float:
        found = float(dynamics.relaxation(dynamics.core_counts(some, size).sum(axis=0)))
        return min(found, FOREVER)

    try:
        return null_band(
            relaxation, runs, lambda some, rng: [shuffled(run, rng) for run in some], num_surrogates=39
        )
    except AnalysisError:
        return None


def _passages(
    network: str, labels: list[int], names: list[str], matrix: NDArray[np.float64], counts: NDArray[np.int64]
) -> pl.DataFrame:
    size = len(names)
    times = np.stack([dynamics.mean_first_passage(matrix, target) for target in range(size)], axis=1)
    rows = [
        (network, names[i], names[j], labels[i], labels[j], int(counts[i, j]), float(times[i, j]))
        for i in range(size)
        for j in range(size)
        if i != j
    ]
    return pl.DataFrame(rows, PASSAGES, orient="row")


def _committors(
    network: str,
    labels: list[int],
    names: list[str],
    matrix: NDArray[np.float64],
    lasts: list[NDArray[np.int64]],
) -> pl.DataFrame:
    shares = np.bincount(np.concatenate(lasts), minlength=len(names)) / sum(map(len, lasts))
    target, source = np.argsort(-shares, kind="stable")[:2].tolist()
    return pl.DataFrame(
        {
            "network": network,
            "label": labels,
            "name": names,
            "source": names[source],
            "target": names[target],
            "committor": dynamics.committor(matrix, source, target),
            "share": shares,
        }
    )


def chart(answer: CoreChains) -> dict[str, Any]:
    """Mean outputs from core to core of each network, and where the cores lead."""
    charts = {}
    for network in names_of(answer.passages, "network")[:MAX_TOLD]:
        shares = answer.committors.filter(pl.col("network") == network).sort("share", descending=True)
        charts[network] = passage_chart(
            answer.passages.filter(pl.col("network") == network), shares["label"].to_list(), network
        )
    between = answer.committors.filter(~pl.col("name").is_in([*_ends(answer.committors)]))
    if len(between):
        charts["where regions lead"] = _committor_chart(between)
    return charts


def _ends(committors: pl.DataFrame) -> set[str]:
    return {*committors["source"], *committors["target"]}


def passage_chart(frame: pl.DataFrame, labels: list[int], title: str) -> Any:
    """Mean outputs from core to core; a frame as PASSAGES, and the labels of cores in their order."""
    drawn = labels[:MAX_DRAWN]
    names = dict(frame.select("source_label", "source").iter_rows())
    rows = {label: numbered(label, names[label]) for label in drawn}
    shown = frame.filter(
        pl.col("source_label").is_in(drawn), pl.col("target_label").is_in(drawn)
    ).with_columns(
        pl.when(pl.col("outputs").is_finite()).then("outputs"),
        row=pl.col("source_label").replace_strict(rows),
        column=pl.col("target_label").cast(pl.String),
        label=pl.col("outputs").map_elements(_short, return_dtype=pl.String),
    )
    axis = alt.Axis(labelLimit=260, labelAngle=0, domain=False, ticks=False)
    base = alt.Chart(data(shown)).encode(
        x=alt.X("column:N", sort=[*map(str, drawn)], title=None, axis=axis),
        y=alt.Y("row:N", sort=[*rows.values()], title=None, axis=axis),
    )
    scale = alt.Scale(type="log", range=["#0072B2", "#DCE6EE"])
    tips = [
        alt.Tooltip("source:N", title="from"),
        alt.Tooltip("target:N", title="to"),
        alt.Tooltip("outputs:Q", format=".3~g", title="outputs, mean"),
        alt.Tooltip("num_moves:Q", title="direct moves seen"),
    ]
    logs = shown["outputs"].log().drop_nulls().to_numpy()
    low, high = (logs.min(), logs.max()) if len(logs) else (0.0, 0.0)
    is_dark = alt.expr.log(alt.datum.outputs) < float(low + 0.2 * (high - low))  # white is read on these
    layers = (
        base.mark_rect(cornerRadius=3).encode(
            color=alt.Color("outputs:Q", scale=scale, legend=None), tooltip=tips
        ),
        base.mark_text(fontSize=12).encode(
            text="label:N", color=alt.condition(is_dark, alt.value("#ffffff"), alt.value("#1a2530"))
        ),
    )
    caption = "Outputs until it is in the column's region, mean, from when it was in the row's last."
    if len(labels) > len(drawn):
        caption += f" {len(labels) - len(drawn)} regions that are visited less are not drawn."
    return finish(alt.layer(*layers), title, caption, height=max(90, 40 * len(drawn)))


def _short(outputs: float) -> str:
    return "never" if np.isinf(outputs) else f"{outputs:.2g}" if outputs < 100 else f"{outputs:,.0f}"


def _committor_chart(between: pl.DataFrame) -> Any:
    """The chance to come to the one of two regions before the other, from those between."""
    between, others = first_names(between, "network", most=MAX_BESIDE)
    most = between.sort("share", descending=True).group_by("network", maintain_order=True).head(MAX_DRAWN)
    networks = names_of(between, "network")
    axis = alt.Axis(labelLimit=150, domain=False, ticks=False)
    base = alt.Chart(data(most)).encode(
        y=alt.Y("name:N", sort=names_of(most, "name"), title=None, axis=axis),
        yOffset=alt.YOffset("network:N", sort=networks),
    )
    x = alt.X(
        "committor:Q",
        title="chance of the most visited region first",
        axis=alt.Axis(format="%"),
        scale=alt.Scale(domain=[0, 1]),
    )
    half = alt.Chart(data(pl.DataFrame({"half": [0.5]}))).mark_rule(color=GREY, strokeDash=[4, 4])
    dots = base.mark_point(filled=True, size=80, opacity=1).encode(
        x=x,
        color=colour("network", networks),
        tooltip=[
            alt.Tooltip("network:N"),
            alt.Tooltip("name:N"),
            alt.Tooltip("target:N", title="comes to"),
            alt.Tooltip("source:N", title="before"),
            alt.Tooltip("committor:Q", format=".0%"),
        ],
    )
    caption = (
        "Forward committor: the chance to come to the most visited region before the second. Dashed: as "
        f"likely one as the other.{others}"
    )
    height = max(80, (12 * len(networks) + 10) * most["name"].n_unique())
    return finish(alt.layer(half.encode(x="half:Q"), dots), "where regions lead", caption, height=height)


def sentence(answer: CoreChains) -> str:
    """Relaxation and mixing of every network, and the slowest passage between its two main regions."""
    more = untold([chain.network for chain in answer.chains], MAX_TOLD)
    return (
        " ".join(_said(chain, answer.passages, answer.committors) for chain in answer.chains[:MAX_TOLD])
        + more
        + not_asked(answer.absent, TOO_FEW)
    )


def _said(chain: CoreChain, passages: pl.DataFrame, committors: pl.DataFrame) -> str:
    left_out = f", {chain.num_left_out:,} with a fixed seed left out" if chain.num_left_out else ""
    basis = (
        f"{chain.network} ({chain.num_cores} regions with {chain.in_cores:.0%} of the outputs, "
        f"{chain.num_moves:,} moves of {counted(chain.num_runs, 'run')}{left_out})"
    )
    ends = committors.filter(pl.col("network") == chain.network).row(0, named=True)
    way = passages.filter(
        pl.col("network") == chain.network,
        pl.col("source") == ends["target"],
        pl.col("target") == ends["source"],
    )["outputs"][0]
    between = (
        f" From “{ends['target']}”, where it is most, to “{ends['source']}” it takes {_outputs(way)} in "
        "the mean."
    )
    return f"{basis} {_times(chain)}.{between if np.isfinite(way) else ''}"


def _times(chain: CoreChain) -> str:
    """What is said of relaxation and mixing."""
    if chain.num_parts > 1:
        return f"has {chain.num_parts} parts that were never seen to be left, and so no mixing time"
    if np.isnan(chain.relaxation):
        return "has moves too few to tell how soon it forgets"
    if np.isinf(chain.relaxation):
        return (
            "turns in a ring: no move was seen that breaks its order, so it was not seen to forget its place"
        )
    interval = "" if np.isnan(chain.low) else f"95 % interval {plain(chain.low)} to {plain(chain.high)}"
    chance = "" if chain.shuffled is None else f"in random order {_band(chain.shuffled)}"
    beside = "; ".join(filter(None, [interval, chance]))
    text = f"forgets with {_outputs(chain.relaxation)}{f' ({beside})' if beside else ''}"
    if np.isnan(chain.mixing):
        longest = f"more than its longest run ({chain.longest:,})"
        return f"{text}, which is {longest}, so that nothing can be told of its mixing"
    return f"{text}, and is mixed after {chain.mixing:,.0f}"


def _outputs(number: float) -> str:
    said = plain(number)
    return f"{said} output{'' if said == '1' else 's'}"


def _band(band: Band) -> str:
    return f"{plain(float(band.low))} to {plain(float(band.high))}"
