"""What does one word do? Runs of prompts that differ in one word, beside repeats and unrelated prompts.

Where a config puts prompts into groups, the pairs are those of one group.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import altair as alt
import numpy as np
import polars as pl
from numpy.typing import NDArray

from panic.analysis.alignment import aligned, thinned_numbers
from panic.analysis.chance import LEAST_PROMPTS, first_told, holm, least_told, relabelling
from panic.analysis.charts import at_call, call_axis, call_tip, colour, data, finish, names_of
from panic.analysis.checks import AnalysisError
from panic.analysis.data import ExperimentData
from panic.analysis.evidence import Evidence, View, each_model
from panic.analysis.questions.vendi import with_direction

Array = NDArray[np.float64]

TITLE = "What one word does"
CAVEAT = (
    "Prompts differ in one word if one is replaced, added or left out (capitals do not count); where prompts "
    "have groups, pairs are those of one group instead. Unrelated are all other pairs of prompts, however "
    "alike they are. Runs of a pair have the same network and arm, and the same fixed seed or fresh noise "
    "each, where both prompts have such. p, of the last third of the outputs: which prompts are pairs is "
    "permuted, corrected for the number of networks and arms (Holm). Repeats differ in seed or noise alone. "
    "Stuck runs go on by their cycle."
)
LEVEL = 0.05
REPEATS, PAIRS, UNRELATED = "repeats of one prompt", "one word apart", "unrelated prompts"
OF_GROUP = "of one group"
MAX_PROMPTS = 100
MAX_STEPS = 40
MAX_RUNS = 6  # of a prompt under a network
CURVE = {
    "network": pl.String, "relation": pl.String, "step": pl.Int64, "distance": pl.Float64,
    "num_pairs": pl.Int64,
}  # fmt: skip
SCORES = {
    "network": pl.String, "pairs": pl.Float64, "unrelated": pl.Float64, "repeats": pl.Float64,
    "p_value": pl.Float64, "p_least": pl.Float64, "num_pairs": pl.Int64, "num_prompts": pl.Int64,
}  # fmt: skip

views = each_model


@dataclass(frozen=True, slots=True, kw_only=True)
class MatchedPairs:
    """Mean cosine distances by network, relation and step (CURVE); late ones and their test (SCORES,
    p_adjusted).

    num_pairs counts pairs of prompts, or prompts with repeats. relation: what makes a pair, PAIRS or
    OF_GROUP.
    """

    curve: pl.DataFrame
    scores: pl.DataFrame
    modality: str
    relation: str = PAIRS


@dataclass(frozen=True, slots=True, kw_only=True)
class _Runs:
    """Unit vectors (steps, d) of the runs of a prompt, by seed and repeat."""

    prompt: str
    vectors: dict[tuple[int, int], Array]


def table(evidence: Evidence, view: View) -> MatchedPairs | None:
    """Distances by network; None where no two prompts differ in one word, or are of one group.

    AnalysisError below 4 prompts, or where all pairs of prompts are such.
    """
    prompts = evidence.data.runs["prompt"].unique(maintain_order=True).to_list()
    if not pairs_of(prompts, groups_of(evidence.data)):
        return None
    paths = thinned_numbers(
        with_direction(aligned(evidence.data, *view), evidence.data, view.model), MAX_STEPS
    )
    curves, scores, why = [], [], ""
    for (network,), of_network in paths.group_by("network", maintain_order=True):
        try:
            curve, score = _compared(str(network), of_network, evidence.data, view)
        except AnalysisError as error:
            why = error.message
            continue
        curves.append(curve)
        scores.append((network, *score))
    if not scores:
        raise AnalysisError(why or f"there are no {view.modality} vectors of {view.model}")
    frame = pl.DataFrame(scores, SCORES, orient="row")
    frame = frame.with_columns(p_adjusted=holm(frame["p_value"]))
    relation = _relation(groups_of(evidence.data))
    return MatchedPairs(curve=pl.concat(curves), scores=frame, modality=view.modality, relation=relation)


def groups_of(data: ExperimentData) -> dict[str, str]:
    """The group of each prompt that has one."""
    return dict(data.runs.filter(pl.col("group").is_not_null()).select("prompt", "group").iter_rows())


def _relation(groups: Mapping[str, str]) -> str:
    return OF_GROUP if groups else PAIRS


def pairs_of(prompts: list[str], groups: Mapping[str, str]) -> list[tuple[int, int]]:
    """The pairs (places in the list) of prompts of one group; without groups of those one word apart."""
    if not groups:
        return one_word_apart(prompts)
    of = [groups.get(prompt) for prompt in prompts]
    return [(a, b) for a, b in combinations(range(len(of)), 2) if of[a] is not None and of[a] == of[b]]


def one_word_apart(prompts: list[str]) -> list[tuple[int, int]]:
    """The pairs (places in the list) of prompts of which one word is replaced, added or left out.

    Words are what stands between spaces, whatever its capitals; prompts of the same words are no pair.
    """
    words = [prompt.casefold().split() for prompt in prompts]
    return [(a, b) for a, b in combinations(range(len(words)), 2) if _is_one_apart(words[a], words[b])]


def _is_one_apart(one: list[str], other: list[str]) -> bool:
    """Whether what follows the first difference, and one word there, is the same."""
    short, long = sorted((one, other), key=len)
    if len(long) - len(short) > 1 or short == long:
        return False
    pairs = enumerate(zip(short, long, strict=False))
    at = next((place for place, (a, b) in pairs if a != b), len(short))
    return short[at + len(short) + 1 - len(long) :] == long[at + 1 :]


def _chosen(prompts: list[str], groups: Mapping[str, str]) -> list[str]:
    """At most MAX_PROMPTS of the prompts, those with a partner first."""
    partners = {place for pair in pairs_of(prompts, groups) for place in pair}
    order = sorted(range(len(prompts)), key=lambda place: place not in partners)
    return [prompts[place] for place in sorted(order[:MAX_PROMPTS])]


def _compared(
    network: str, paths: pl.DataFrame, data: ExperimentData, view: View
) -> tuple[pl.DataFrame, tuple[float | int | None, ...]]:
    """Rows of CURVE and a row of SCORES of one network."""
    groups = groups_of(data)
    relation = _relation(groups)
    prompts = _chosen(paths["prompt"].unique(maintain_order=True).to_list(), groups)
    pairs = pairs_of(prompts, groups)
    if len(prompts) < LEAST_PROMPTS or not pairs:
        two = "two of them a word apart" if relation == PAIRS else f"two of them {relation}"
        raise AnalysisError(f"{LEAST_PROMPTS} prompts are needed, {two}, found {len(prompts)}")
    runs = [_runs(paths, prompt, data, view) for prompt in prompts]
    steps = paths.filter(pl.col("run") == paths["run"][0]).sort("number")["step"].to_list()
    apart = _distances(runs, len(steps))
    late = apart[len(steps) * 2 // 3 :].mean(axis=0)
    found = relabelling(late, pairs)
    other = ~np.eye(len(prompts), dtype=np.bool_)
    for a, b in pairs:
        other[a, b] = other[b, a] = False
    ends = np.array(pairs)
    repeats = [one for one in runs if len(one.vectors) > 1]
    by_relation = {relation: (apart[:, ends[:, 0], ends[:, 1]].mean(axis=1), len(pairs))}
    by_relation[UNRELATED] = apart[:, other].mean(axis=1), int(other.sum()) // 2
    if repeats:
        within = np.mean([_mean_distance(one, one, len(steps)) for one in repeats], axis=0)
        by_relation = {REPEATS: (within, len(repeats))} | by_relation
    curve = pl.concat(
        pl.DataFrame(
            {"network": network, "relation": relation, "step": steps, "distance": values, "num_pairs": count}
        )
        for relation, (values, count) in by_relation.items()
    ).cast(CURVE)  # type: ignore[arg-type]
    last = {
        relation: float(values[len(steps) * 2 // 3 :].mean()) for relation, (values, _) in by_relation.items()
    }
    score = (last[relation], last[UNRELATED], last.get(REPEATS), float(found.p_value), found.p_least)
    return curve, (*score, len(pairs), len(prompts))


def _runs(paths: pl.DataFrame, prompt: str, data: ExperimentData, view: View) -> _Runs:
    matrix = data.matrix(view.model)
    found: dict[tuple[int, int], Array] = {}
    for (seed, repeat, _), rows in paths.filter(pl.col("prompt") == prompt).group_by(
        "seed", "repeat", "run", maintain_order=True
    ):
        if len(found) < MAX_RUNS:
            points = matrix[rows.sort("number")["row"].to_numpy()].astype(np.float64)
            found[int(seed), int(repeat)] = points / np.linalg.norm(points, axis=1, keepdims=True)
    return _Runs(prompt=prompt, vectors=found)


def _distances(runs: list[_Runs], length: int) -> Array:
    """Mean cosine distances (length, p, p) of the runs of every two prompts; 0 on the diagonal."""
    apart = np.zeros((length, len(runs), len(runs)))
    for a, b in combinations(range(len(runs)), 2):
        apart[:, a, b] = apart[:, b, a] = _mean_distance(runs[a], runs[b], length)
    return apart


def _mean_distance(one: _Runs, other: _Runs, length: int) -> Array:
    """Mean cosine distance (length,) of runs of two prompts, or of one; of equal seeds where both have such.

    It is the mean over pairs of runs of 1 - cos of their vectors at each step, never below 0.
    Runs of one prompt are each compared with the others. Fresh noise (seed -1) is another one in every run.
    """
    if one is other:
        pairs = list(combinations(one.vectors, 2))
    else:
        every = [(a, b) for a in one.vectors for b in other.vectors]
        pairs = [(a, b) for a, b in every if a[0] == b[0]] or every
    sums = sum((one.vectors[a] * other.vectors[b]).sum(axis=1) for a, b in pairs)
    found: Array = 1 - np.asarray(sums).reshape(length) / len(pairs)
    return found.clip(min=0.0)


def chart(answer: MatchedPairs) -> dict[str, Any]:
    """Distances by step of repeats, pairs and unrelated prompts, a chart per network."""
    return {network: _chart(answer, network) for network in names_of(answer.curve, "network")[:6]}


def _chart(answer: MatchedPairs, network: str) -> Any:
    frame = answer.curve.filter(pl.col("network").str.head(1000) == network)
    y = alt.Y("distance:Q", title=f"mean cosine distance of {answer.modality}s", scale=alt.Scale(zero=True))
    tips = [alt.Tooltip("relation:N"), call_tip(), alt.Tooltip("distance:Q", format=".3f"),
            alt.Tooltip("num_pairs:Q", title="pairs")]  # fmt: skip
    marks = (
        alt.Chart(data(frame))
        .mark_line(strokeWidth=2.2, point=alt.OverlayMarkDef(size=36))
        .encode(x=call_axis(), y=y, color=colour("relation", names_of(frame, "relation")), tooltip=tips)
    )
    caption = (
        "One word matters where its line is above that of repeats; what else the prompts say matters where "
        "it is below that of unrelated prompts."
    )
    return finish(marks, network, caption)


def sentence(answer: MatchedPairs) -> str:
    """How far apart runs of pairs are early and late, beside repeats and unrelated prompts."""
    parts = []
    for row in first_told(answer.scores).iter_rows(named=True):
        curve = answer.curve.filter(
            pl.col("network") == row["network"], pl.col("relation") == answer.relation
        )
        first, last = curve.row(0, named=True), curve.row(-1, named=True)
        nearer = (
            "nearer than unrelated prompts"
            if row["p_adjusted"] <= LEVEL
            else "not shown to be nearer than unrelated prompts"
        )
        repeats = f", repeats of one prompt {row['repeats']:.2g}" if row["repeats"] is not None else ""
        least = least_told(row["p_least"], len(answer.scores))
        parts.append(
            f"{row['network']} {first['distance']:.2g} at {at_call(first['step'])} and "
            f"{last['distance']:.2g} at {at_call(last['step'])}; late they are {nearer} "
            f"({row['pairs']:.2g}, unrelated {row['unrelated']:.2g}{repeats}, p = {row['p_adjusted']:.2g}"
            f"{least}; {row['num_pairs']:,} pairs of {row['num_prompts']:,} prompts)"
        )
    more = f"; and {len(answer.scores) - 4} more" if len(answer.scores) > 4 else ""
    told = f"{'. '.join(parts)}{more}"
    which = "that differ in one word" if answer.relation == PAIRS else answer.relation
    return f"Mean cosine distance of {answer.modality}s of prompts {which}: {told}."
