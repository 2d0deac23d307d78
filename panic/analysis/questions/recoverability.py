"""Can the prompt be told from the output? The rank of the own prompt among all prompts, step by step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import altair as alt
import numpy as np
import polars as pl
from numpy.typing import NDArray

from panic.analysis.alignment import aligned, thinned_numbers
from panic.analysis.chance import LEAST_PROMPTS, least_told, matching
from panic.analysis.charts import (
    GREY,
    between_calls,
    call_axis,
    call_tip,
    colour,
    counted,
    data,
    finish,
    names_of,
)
from panic.analysis.checks import AnalysisError
from panic.analysis.data import ExperimentData
from panic.analysis.evidence import Evidence, View, each_model
from panic.analysis.questions.drift import starts
from panic.analysis.questions.vendi import with_direction
from panic.analysis.sampling import evenly

Array = NDArray[np.float64]

TITLE = "Can the prompt be told from the output?"
CAVEAT = (
    "Retrieval: all prompts are ranked by their likeness (cosine) to an output. Rank 1: the own prompt is "
    "the nearest of all; 0: the farthest; chance 0.5. Prompts that are alike share a rank. A prompt that "
    "cannot be retrieved may still be readable by a trained probe ('What is left of the start?'), since "
    "outputs need not stay near their prompt to tell of it. p: prompts are permuted as a whole; stretch by "
    "stretch up to the first that fails, times the number of networks and arms."
)
LEVEL = 0.05
MAX_PROMPTS = 100
MAX_STEPS = 60
MAX_STRETCHES = 4
CURVE = {
    "network": pl.String, "step": pl.Int64, "rank": pl.Float64, "low": pl.Float64, "high": pl.Float64,
    "first": pl.Float64, "num_runs": pl.Int64,
}  # fmt: skip
STRETCHES = {
    "network": pl.String, "first_step": pl.Int64, "last_step": pl.Int64, "rank": pl.Float64,
    "first": pl.Float64, "p_value": pl.Float64, "p_adjusted": pl.Float64, "p_least": pl.Float64,
    "num_prompts": pl.Int64, "num_runs": pl.Int64,
}  # fmt: skip

views = each_model


@dataclass(frozen=True, slots=True, kw_only=True)
class Recoverability:
    """Mean rank of the own prompt by step (CURVE; band of permuted prompts) and by stretch of steps
    (STRETCHES).

    `first` is the share of outputs to which the own prompt is the nearest; chance is 1 / num_prompts.
    """

    curve: pl.DataFrame
    stretches: pl.DataFrame
    modality: str


def table(evidence: Evidence, view: View) -> Recoverability | None:
    """Ranks by network; None where the model has no vectors of prompts. AnalysisError below 4 prompts."""
    known = starts(evidence.data, view.model, "text")
    if known.is_empty():
        return None
    paths = with_direction(aligned(evidence.data, *view), evidence.data, view.model)
    paths = paths.join(known, on="run", maintain_order="left")
    curves, stretches = [], []
    num_networks = paths["network"].n_unique()
    for (network,), of_network in paths.group_by("network", maintain_order=True):
        prompts = evenly(of_network["prompt"].unique(maintain_order=True).to_list(), MAX_PROMPTS)
        if len(prompts) < LEAST_PROMPTS:
            continue
        some = thinned_numbers(of_network.filter(pl.col("prompt").is_in(prompts)), MAX_STEPS)
        steps, ranks, firsts = _tables(some, prompts, evidence.data, view)
        num_runs = some["run"].n_unique()
        curves.append(_curve(str(network), steps, ranks, firsts, num_runs))
        adjusted = 0.0  # in the order of time, as in "What is left of the start?"
        for part in _stretches(len(steps)):
            found = matching(ranks[part].mean(axis=0))
            adjusted = max(adjusted, min(1.0, float(found.p_value) * num_networks))
            first = float(np.diagonal(firsts[part].mean(axis=0)).mean())
            stretches.append(
                (network, steps[part][0], steps[part][-1], float(found.value), first, float(found.p_value),
                 adjusted, min(1.0, found.p_least * num_networks), len(prompts), num_runs)
            )  # fmt: skip
    if not curves:
        raise AnalysisError(
            f"no {evidence.grouped_by} has {LEAST_PROMPTS} prompts with {view.modality} vectors of "
            f"{view.model}"
        )
    return Recoverability(
        curve=pl.concat(curves),
        stretches=pl.DataFrame(stretches, STRETCHES, orient="row"),
        modality=view.modality,
    )


def _tables(
    paths: pl.DataFrame, prompts: list[str], data: ExperimentData, view: View
) -> tuple[list[int], Array, Array]:
    """Steps (s,), and tables (s, p, p): the rank, and how often it is the first, of a column's prompt in a
    row's runs."""
    of_prompt = paths.unique("prompt", keep="first", maintain_order=True)
    row_of = dict(of_prompt.select("prompt", "start").iter_rows())
    columns = ranked(
        data.matrix(view.model), paths["row"].to_numpy(), np.array([row_of[one] for one in prompts])
    )
    order = {prompt: place for place, prompt in enumerate(prompts)}
    number = paths["number"].unique().sort()
    place = np.searchsorted(number.to_numpy(), paths["number"].to_numpy())
    own = paths["prompt"].replace_strict(order, return_dtype=pl.Int64).to_numpy()
    size = len(prompts)
    counts = np.zeros((len(number), size))
    np.add.at(counts, (place, own), 1)
    tables = []
    for values in columns:
        sums = np.zeros((len(number), size, size))
        np.add.at(sums, (place, own), values)
        tables.append(sums / counts[:, :, None])
    steps = paths.group_by("number").agg(pl.col("step").min()).sort("number")["step"].to_list()
    return steps, tables[0], tables[1]


def ranked(
    matrix: NDArray[np.float32], rows: NDArray[np.int64], starts: NDArray[np.int64]
) -> tuple[Array, Array]:
    """Ranks (n, p) of prompts (rows `starts` of the matrix) by likeness to outputs (`rows`), and which is the
    first.

    The rank is (how many prompts are less alike + half of the others that are as alike) / (p - 1), the
    normalised rank of Mitchell et al. (Machine Learning 57, 2004): 1 is the most alike, 0 the least, and the
    mean over prompts 0.5. Over outputs it is the area under the ROC curve of telling the prompt from others
    (Hanley and McNeil, Radiology 143, 1982). Who is the first is 1, or its share among equals. AnalysisError
    for fewer than 2 prompts.
    """
    from scipy.stats import rankdata

    if len(starts) < 2:
        raise AnalysisError("one prompt cannot be told from others")
    lengths = np.maximum(np.linalg.norm(matrix, axis=1), np.finfo(np.float32).tiny)
    outputs, prompts = (matrix[at] / lengths[at, None] for at in (rows, starts))
    # To six digits: float32 knows no more, and prompts of one vector must be as alike as each other.
    alike = (outputs.astype(np.float64) @ prompts.astype(np.float64).T).round(6)
    ranks = (rankdata(alike, axis=1) - 1) / (len(starts) - 1)
    is_first = alike == alike.max(axis=1, keepdims=True)
    return ranks, is_first / is_first.sum(axis=1, keepdims=True)


def _curve(network: str, steps: list[int], ranks: Array, firsts: Array, num_runs: int) -> pl.DataFrame:
    found = matching(ranks)
    first = np.diagonal(firsts, axis1=1, axis2=2).mean(axis=1)
    columns = (steps, found.value, found.low, found.high, first)
    rows = [(network, step, *map(float, others), num_runs) for step, *others in zip(*columns, strict=True)]
    return pl.DataFrame(rows, CURVE, orient="row")


def _stretches(count: int) -> list[slice]:
    """Stretches of so many steps, each some times as long as the one before."""
    edges = np.unique(np.geomspace(1, count, min(MAX_STRETCHES, count)).round().astype(int))
    return [slice(int(a), int(b)) for a, b in zip([0, *edges[:-1]], edges, strict=True)]


def chart(answer: Recoverability) -> dict[str, Any]:
    """The rank by step with the band of permuted prompts, and how often the own prompt is the first."""
    frame = answer.curve
    by = colour("network", names_of(frame, "network"))
    tips = [alt.Tooltip("network:N"), call_tip(), alt.Tooltip("rank:Q", format=".3f"),
            alt.Tooltip("first:Q", format=".0%", title="nearest of all"),
            alt.Tooltip("num_runs:Q", title="runs")]  # fmt: skip
    title = "rank of the own prompt (1: nearest)"
    y = alt.Y("rank:Q", title=title, scale=alt.Scale(domain=[0, 1.02], nice=False))
    base = alt.Chart(data(frame)).encode(x=call_axis())
    layers = alt.layer(
        base.mark_area(color=GREY, opacity=0.3).encode(
            y=alt.Y("low:Q", title=title), y2="high:Q", detail="network:N"
        ),
        base.mark_line(strokeWidth=2.2, point=alt.OverlayMarkDef(size=36)).encode(
            y=y, color=by, tooltip=tips
        ),
    )
    caption = "Mean over prompts. Grey: 95 % of permutations of the prompts. 0.5: chance."
    share = alt.Y("first:Q", title="own prompt is the nearest", axis=alt.Axis(format="%"),
                  scale=alt.Scale(domain=[0, 1.02], nice=False))  # fmt: skip
    nearest = base.mark_line(strokeWidth=2.2, point=alt.OverlayMarkDef(size=36)).encode(
        y=share, color=by, tooltip=tips
    )
    chance = 1 / int(answer.stretches["num_prompts"].max())  # type: ignore[arg-type]
    rule = alt.Chart(data(pl.DataFrame({"first": [chance]}))).mark_rule(color=GREY, strokeDash=[6, 4])
    return {
        "rank": finish(layers, "rank of the own prompt", caption),
        "nearest": finish(
            alt.layer(nearest, rule.encode(y="first:Q")),
            "how often it is the nearest",
            f"Dashed: chance, {chance:.0%}.",
        ),
    }


def sentence(answer: Recoverability) -> str:
    """Until when the prompt can be told, by network."""
    groups = list(answer.stretches.group_by("network", maintain_order=True))
    parts = [_until(str(network), rows.to_dicts()) for (network,), rows in groups[:4]]
    more = f"; and {len(groups) - 4} more" if len(groups) > 4 else ""
    return f"By the rank of the own prompt among all (1: nearest, chance 0.5): {'; '.join(parts)}{more}."


def _until(network: str, rows: list[dict[str, Any]]) -> str:
    """Until when the prompt can be told: as long as no stretch before failed."""
    told = [row for row in rows if row["p_adjusted"] <= LEVEL]
    of = f"{network} ({rows[0]['num_prompts']:,} prompts, {counted(rows[0]['num_runs'], 'run')}):"
    if not told and least_told(rows[0]["p_least"]):
        return f"{of} too few prompts to show that it can be told {_at(rows[0])}"
    if len(told) == len(rows):
        return f"{of} it can be told up to the end, {_at(rows[-1])}"
    if not told:
        later = ", so later ones are not asked" if len(rows) > 1 else ""
        return f"{of} it could not be told {_at(rows[0])}{later}"
    return f"{of} it can be told {_at(told[-1])}, and could not be told any more {_at(rows[len(told)])}"


def _at(row: dict[str, Any]) -> str:
    return (
        f"at {between_calls(row['first_step'], row['last_step'])} (rank {row['rank']:.2f}, nearest in "
        f"{row['first']:.0%}, p = {row['p_adjusted']:.2g}{least_told(row['p_least'])})"
    )
