"""Response to a shock: how far an arm's runs are from the baseline of the same start, step by step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import altair as alt
import numpy as np
import polars as pl
from numpy.typing import NDArray

from panic.analysis.chance import LEAST_PROMPTS, Chance, first_told, holm, least_told, matching
from panic.analysis.charts import GREY, at_call, call_tip, colour, data, finish, names_of
from panic.analysis.checks import AnalysisError
from panic.analysis.data import ExperimentData
from panic.analysis.evidence import Evidence, View, each_model
from panic.analysis.factors import independent_starts
from panic.analysis.questions.vendi import with_direction
from panic.analysis.sampling import evenly
from panic.arms import BASELINE, first_step

Array = NDArray[np.float64]

TITLE = "Response to a shock"
CAVEAT = (
    "Runs of an arm and their baselines begin alike and have the same noise, so that they differ by what "
    "stepped in and what came of it; where some have fresh noise, those alone are compared. Chance is how "
    "far they are from the baselines of other starts: other prompts under the same seed, or, below 4 prompts "
    "that never met, repeats of the one with most. p, of the last third of the outputs: whose baseline is "
    "whose is permuted, corrected for the number of arms and networks (Holm). A distance that stays need not "
    "be the shock's: noise that is the same acts otherwise elsewhere. Stuck runs go on by their cycle."
)
LEVEL = 0.05
MAX_STEPS = 60
MAX_PAIRS = 300  # of a network and arm
KEY = ("prompt", "seed", "repeat")
CURVE = {
    "network": pl.String, "arm": pl.String, "step": pl.Int64, "since": pl.Int64, "distance": pl.Float64,
    "low": pl.Float64, "high": pl.Float64, "num_pairs": pl.Int64,
}  # fmt: skip
SCORES = {
    "network": pl.String, "arm": pl.String, "began": pl.Int64, "first": pl.Float64, "late": pl.Float64,
    "chance": pl.Float64, "p_value": pl.Float64, "p_least": pl.Float64, "num_starts": pl.Int64,
    "num_pairs": pl.Int64,
}  # fmt: skip

views = each_model


@dataclass(frozen=True, slots=True, kw_only=True)
class Shocks:
    """Mean cosine distances from the baseline by network, arm and step (CURVE; band of permuted baselines).

    `scores` has the late ones and their test (SCORES, p_adjusted); `absent` says why others lack.
    """

    curve: pl.DataFrame
    scores: pl.DataFrame
    absent: dict[str, str]
    modality: str


def table(evidence: Evidence, view: View) -> Shocks | None:
    """Distances by network and arm; None where nothing steps in. AnalysisError where none can be compared."""
    arms = evidence.data.arms.get(evidence.experiment.id, {})
    begins = {name: first for name, arm in arms.items() if (first := first_step(arm)) is not None}
    if not begins:
        return None
    visits = with_direction(evidence.data.visits(*view), evidence.data, view.model)
    curves, scores, absent = [], [], {}
    for network, arm, pairs in _pairs(visits, evidence.data, begins):
        try:
            curve, score = _compared(pairs, begins[arm], evidence.data, view)
        except AnalysisError as error:
            absent[f"{network}, {arm}"] = error.message
            continue
        curves.append(curve.select(pl.lit(network).alias("network"), pl.lit(arm).alias("arm"), pl.all()))
        scores.append((network, arm, *score))
    if not scores:
        reasons = "; ".join(f"{what}: {why}" for what, why in absent.items())
        raise AnalysisError(
            reasons or f"no arm and its baseline have {view.modality} vectors of {view.model}"
        )
    frame = pl.DataFrame(scores, SCORES, orient="row")
    frame = frame.with_columns(p_adjusted=holm(frame["p_value"]))
    curve = pl.concat(curves).cast(CURVE)  # type: ignore[arg-type]
    return Shocks(curve=curve, scores=frame, absent=absent, modality=view.modality)


def _pairs(
    visits: pl.DataFrame, data: ExperimentData, begins: dict[str, int]
) -> Iterator[tuple[str, str, pl.DataFrame]]:
    """Network, arm, and what its runs and the baselines of the same start have put out at the same steps.

    Rows have `run` and `row` of the arm's, `other` of the baseline's, step, `unit` of the start, and KEY.
    """
    units = independent_starts(data).select("run", "unit")
    own = data.runs.filter(pl.col("state") != "failed").select("run", "plain_network", "arm")
    known = visits.select("run", "step", "row", *KEY).join(own, on="run").join(units, on="run")
    on = ["plain_network", *KEY, "step"]
    base = known.filter(pl.col("arm") == BASELINE).select(*on, "unit", other="row")
    shocked = known.filter(pl.col("arm") != BASELINE).drop("unit")
    met = shocked.join(base, on=on, maintain_order="left").sort("run", "step")
    for (network, arm), pairs in met.group_by("plain_network", "arm", maintain_order=True):
        if str(arm) in begins:
            yield str(network), str(arm), pairs.filter(pl.col("step") >= begins[str(arm)])


def _compared(
    pairs: pl.DataFrame, began: int, data: ExperimentData, view: View
) -> tuple[pl.DataFrame, tuple[float | int, ...]]:
    """Rows of CURVE and a row of SCORES of one network and arm."""
    fresh = pairs.filter(pl.col("seed") == -1)  # whose prompts never meet
    pairs = fresh.with_columns(unit=pl.col("prompt").rank("dense").cast(pl.Int64)) if len(fresh) else pairs
    counts = pairs.group_by("run", maintain_order=True).agg(count=pl.len())
    least = counts["count"].quantile(0.5, "higher") or 0
    chosen = evenly(counts.filter(pl.col("count") >= least)["run"].to_list(), MAX_PAIRS)
    pairs = _starts(pairs.filter(pl.col("run").is_in(chosen)))
    if pairs["start"].n_unique() < LEAST_PROMPTS:
        raise AnalysisError(
            f"{LEAST_PROMPTS} prompts that never met, or as many repeats of one, are needed with a baseline"
        )
    runs = pairs["run"].n_unique()
    shared = pairs.group_by("step").agg(pl.col("run").n_unique() == runs).filter("run")["step"].sort()
    steps = evenly(shared.to_list(), MAX_STEPS)
    if len(steps) < 3:
        raise AnalysisError(f"3 outputs after the shock are needed, found {len(steps)}")
    alike = _likeness(pairs, steps, data.matrix(view.model))
    late = matching(alike[len(steps) * 2 // 3 :].mean(axis=0))
    found = matching(alike)
    curve = pl.DataFrame(
        {
            "step": steps,
            "since": [step - began for step in steps],
            "distance": 1 - found.value,
            "low": 1 - found.high,
            "high": 1 - found.low,
            "num_pairs": runs,
        }
    )
    return curve, (began, float(curve["distance"][0]), *_late(late), pairs["start"].n_unique(), runs)


def _late(found: Chance) -> tuple[float, float, float, float]:
    return 1 - float(found.value), 1 - float(found.mean), float(found.p_value), found.p_least


def _starts(pairs: pl.DataFrame) -> pl.DataFrame:
    """Pairs with the number of the start that each belongs to: one prompt of all that met, or a repeat.

    Repeats are those of the prompt that has most, where there are too few prompts.
    """
    prompts = pairs.unique("unit", keep="first", maintain_order=True)["prompt"].unique(maintain_order=True)
    if len(prompts) >= LEAST_PROMPTS:
        kept = pairs.filter(pl.col("prompt").is_in(prompts.implode()))
        return kept.with_columns(start=pl.col("prompt").rank("dense"))
    of_fresh = pairs.filter(pl.col("seed") == -1)
    numbers = of_fresh.group_by("prompt", maintain_order=True).agg(count=pl.col("run").n_unique())
    most = numbers.sort("count", descending=True, maintain_order=True)["prompt"].head(1)
    return of_fresh.filter(pl.col("prompt").is_in(most.implode())).with_columns(start=pl.col("repeat"))


def _likeness(pairs: pl.DataFrame, steps: list[int], matrix: NDArray[np.float32]) -> Array:
    """Mean cosines (steps, s, s) of a row's shocked runs and a column's baselines, of s starts.

    They are of runs with the same seed and repeat where both starts have such, of a start with itself only.
    """
    of_runs = pairs.unique("run", keep="first", maintain_order=True)
    keys = of_runs.select(pl.struct("seed", "repeat").rank("dense")).to_series().to_numpy()
    starts = of_runs["start"].rank("dense").to_numpy().astype(np.int64) - 1
    member = np.eye(int(starts.max()) + 1)[starts]
    same = (keys[:, None] == keys[None, :]).astype(np.float64)
    weight = np.where((member.T @ same @ member)[starts][:, starts] > 0, same, 1.0)
    own = starts[:, None] == starts[None, :]
    weight[own] = np.eye(len(starts))[own]
    total = member.T @ weight @ member
    found = []
    for step in steps:
        of_step = pairs.filter(pl.col("step") == step)
        shocked, base = (_unit(matrix[of_step[name].to_numpy()]) for name in ("row", "other"))
        found.append(member.T @ (weight * (shocked @ base.T)) @ member / total)
    return np.array(found)


def _unit(vectors: NDArray[np.float32]) -> Array:
    points = vectors.astype(np.float64)
    found: Array = points / np.linalg.norm(points, axis=1, keepdims=True)
    return found


def chart(answer: Shocks) -> dict[str, Any]:
    """Distances from the baseline by steps since the first intervention, a chart per network."""
    return {network: _chart(answer, network) for network in names_of(answer.curve, "network")[:6]}


def _chart(answer: Shocks, network: str) -> Any:
    frame = answer.curve.filter(pl.col("network").str.head(1000) == network)
    title = f"mean cosine distance of {answer.modality}s"
    since = "model calls since the first intervention"
    tips = [alt.Tooltip("arm:N"), call_tip(), alt.Tooltip("since:Q", title=since),
            alt.Tooltip("distance:Q", format=".3f"), alt.Tooltip("num_pairs:Q", title="pairs")]  # fmt: skip
    base = alt.Chart(data(frame)).encode(x=alt.X("since:Q", title=since))
    layers = alt.layer(
        base.mark_area(color=GREY, opacity=0.3).encode(
            y=alt.Y("low:Q", title=title), y2="high:Q", detail="arm:N"
        ),
        base.mark_line(strokeWidth=2.2, point=alt.OverlayMarkDef(size=36)).encode(
            y=alt.Y("distance:Q", title=title, scale=alt.Scale(zero=True)),
            color=colour("arm", names_of(frame, "arm")),
            tooltip=tips,
        ),
    )
    caption = (
        "From the baseline of the same start, which has the same noise. Grey: 95 % of permutations of the "
        "baselines. At 0 the shock is forgotten; in the grey the baseline is."
    )
    return finish(layers, network, caption)


def sentence(answer: Shocks) -> str:
    """How far runs are from their baselines right after and late, beside the baselines of other starts."""
    parts = []
    for row in first_told(answer.scores).iter_rows(named=True):
        nearer = (
            "late they are nearer to their own baseline than to others"
            if row["p_adjusted"] <= LEVEL
            else "late they are not shown to be nearer to their own baseline than to others"
        )
        least = least_told(row["p_least"], len(answer.scores))
        parts.append(
            f"{row['network']}, {row['arm']} (from {at_call(row['began'])} on; {row['num_pairs']:,} runs of "
            f"{row['num_starts']:,} starts): {row['first']:.2g} right after, {row['late']:.2g} late, where "
            f"it is {row['chance']:.2g} from baselines of other starts; {nearer} "
            f"(p = {row['p_adjusted']:.2g}{least})"
        )
    more = f"; and {len(answer.scores) - 4} more" if len(answer.scores) > 4 else ""
    lacking = "; ".join(f"{what} ({why})" for what, why in answer.absent.items())
    told = f"{'. '.join(parts)}{more}." + (f" Not compared: {lacking}." if lacking else "")
    return f"Mean cosine distance of {answer.modality}s from the baseline of the same start: {told}"
