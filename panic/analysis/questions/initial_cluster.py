"""Does it come back to where it began? How many runs are in the cluster of their first output, step by
step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import altair as alt
import numpy as np
import polars as pl
from numpy.typing import NDArray

from panic.analysis.alignment import aligned, thinned_numbers
from panic.analysis.chance import LEAST_PROMPTS, first_told, holm, least_told, matching
from panic.analysis.charts import GREY, call_axis, call_tip, colour, data, finish, names_of
from panic.analysis.checks import OUTLIER, AnalysisError
from panic.analysis.evidence import Evidence, View, first_model
from panic.analysis.sampling import evenly, not_asked

Array = NDArray[np.float64]
Labels = NDArray[np.int64]

TITLE = "Does it come back to where it began?"
CAVEAT = (
    "Where a run began is the cluster of its first output; runs whose first output is in no cluster are left "
    "out. Chance is what the same runs would give if they had begun where runs of other prompts did (whole "
    "prompts are permuted, within a network and arm). So a network that takes every run to one place is not "
    "called coming back. p is of the last third of the outputs, corrected for the number of networks and "
    "arms (Holm). A run that never left its cluster has not come back. Stuck runs go on by their cycle."
)
LEVEL = 0.05
MAX_PROMPTS = 60
MAX_STEPS = 90
CURVE = {
    "network": pl.String, "step": pl.Int64, "share": pl.Float64, "low": pl.Float64, "high": pl.Float64,
    "num_runs": pl.Int64,
}  # fmt: skip
SCORES = {
    "network": pl.String, "late": pl.Float64, "by_chance": pl.Float64, "p_value": pl.Float64,
    "p_least": pl.Float64, "left": pl.Float64, "came_back": pl.Float64, "num_outside": pl.Int64,
    "num_prompts": pl.Int64, "num_runs": pl.Int64,
}  # fmt: skip

views = first_model


@dataclass(frozen=True, slots=True, kw_only=True)
class Returns:
    """Shares of runs in the cluster of their first output by step (CURVE; band of permuted prompts), and
    SCORES.

    `late` is the share in the last third; `left`, of runs that were ever elsewhere; `came_back`, of those
    that were in it again later; `num_outside`, runs that began in no cluster. All shares are means over
    prompts. `absent`: networks with too few prompts.
    """

    curve: pl.DataFrame
    scores: pl.DataFrame
    modality: str
    absent: tuple[str, ...] = ()


def table(evidence: Evidence, view: View) -> Returns:
    """Returns by network. AnalysisError without clusters, or where fewer than 4 prompts begin in any."""
    found = evidence.states_under(view)
    if not found.clustering.num_clusters:
        raise AnalysisError("no cluster was found, so none can be come back to")
    labels = found.frame.select("row", "label").unique("row")
    paths = aligned(evidence.data, *view).join(labels, on="row", how="left", maintain_order="left")
    curves, scores, absent = [], [], []
    for (network,), of_network in paths.group_by("network", maintain_order=True):
        outside = of_network.filter(pl.col("number") == 0, pl.col("label") == OUTLIER)["run"]
        some = of_network.filter(~pl.col("run").is_in(outside.implode()), pl.col("length") > 1)
        prompts = evenly(some["prompt"].unique(maintain_order=True).to_list(), MAX_PROMPTS)
        if len(prompts) < LEAST_PROMPTS:
            absent.append(str(network))
            continue
        some = some.filter(pl.col("prompt").is_in(prompts))
        runs = _labels(some, prompts)
        score = _late(runs)
        shown = thinned_numbers(some, MAX_STEPS)
        by_step = matching(tables(_labels(shown, prompts)))
        steps = shown.group_by("number").agg(pl.col("step").min()).sort("number")["step"].to_list()
        columns = (by_step.value, by_step.low, by_step.high)
        rows = [
            (network, step, *map(float, row), score[-1])
            for step, *row in zip(steps[1:], *columns, strict=True)
        ]
        curves.append(pl.DataFrame(rows, CURVE, orient="row"))
        scores.append((network, *score[:-2], *_left(runs), len(outside), *score[-2:]))
    if not scores:
        raise AnalysisError(
            f"no {evidence.grouped_by} has {LEAST_PROMPTS} prompts whose runs begin in a cluster"
        )
    frame = pl.DataFrame(scores, SCORES, orient="row")
    frame = frame.with_columns(p_adjusted=holm(frame["p_value"]))
    return Returns(curve=pl.concat(curves), scores=frame, modality=view.modality, absent=tuple(absent))


def _labels(paths: pl.DataFrame, prompts: list[str]) -> list[Labels]:
    """The labels (runs, outputs) of each prompt's runs."""
    ordered = paths.sort("run", "number")
    length = ordered["number"].n_unique()
    of_prompt = {prompt: rows for (prompt,), rows in ordered.group_by("prompt")}
    return [of_prompt[prompt]["label"].to_numpy().reshape(-1, length) for prompt in prompts]


def tables(runs: list[Labels]) -> Array:
    """Tables (s, p, p): how often runs of a column's prompt are where those of a row's began, after the first
    output.

    A run is paired with the run of the same place in the other prompt, and so with itself in its own.
    """
    cells = np.array([[_home(own, other).mean(axis=0) for other in runs] for own in runs])
    return np.moveaxis(cells, -1, 0)


def _home(own: Labels, other: Labels) -> NDArray[np.bool_]:
    """Where (runs, outputs - 1) later outputs of another prompt's runs are where the own runs began."""
    paired = other[np.arange(len(own)) % len(other)]
    is_home: NDArray[np.bool_] = paired[:, 1:] == own[:, :1]
    return is_home


def _late(runs: list[Labels]) -> tuple[float | int, ...]:
    """What SCORES has of the last third of all outputs, and how many prompts and runs that is of.

    None is left out: of a run that goes back and forth, every second output would be all at one place.
    """
    begun = (runs[0].shape[1] - 1) * 2 // 3
    late = [np.delete(labels, np.s_[1 : begun + 1], axis=1) for labels in runs]
    cells = np.array([[_home(own, other).mean() for other in late] for own in late])
    found = matching(cells)
    score = float(found.value), float(found.mean), float(found.p_value), found.p_least
    return *score, len(runs), sum(map(len, runs))


def _left(runs: list[Labels]) -> tuple[float, float]:
    """Shares, as means over prompts, of runs that were ever elsewhere, and of those that were back after
    that."""
    left, back = [], []
    for of_prompt in runs:
        is_home = of_prompt == of_prompt[:, :1]
        was_away = (~is_home).cumsum(axis=1) > 0
        left.append(was_away[:, -1].mean())
        if was_away[:, -1].any():
            back.append((is_home & was_away).any(axis=1)[was_away[:, -1]].mean())
    return float(np.mean(left)), float(np.mean(back)) if back else 0.0


def chart(answer: Returns) -> Any:
    """The share of runs in the cluster of their first output by step, with the band of permuted prompts."""
    frame = answer.curve
    title = f"runs in the cluster of their first {answer.modality}"
    y = alt.Y(
        "share:Q", title=title, axis=alt.Axis(format="%"), scale=alt.Scale(domain=[0, 1.02], nice=False)
    )
    base = alt.Chart(data(frame)).encode(x=call_axis())
    tips = [alt.Tooltip("network:N"), call_tip(), alt.Tooltip("share:Q", format=".1%"),
            alt.Tooltip("low:Q", format=".1%"), alt.Tooltip("high:Q", format=".1%"),
            alt.Tooltip("num_runs:Q", title="runs")]  # fmt: skip
    layers = alt.layer(
        base.mark_area(color=GREY, opacity=0.3).encode(
            y=alt.Y("low:Q", title=title), y2="high:Q", detail="network:N"
        ),
        base.mark_line(strokeWidth=2.2, point=alt.OverlayMarkDef(size=36)).encode(
            y=y, color=colour("network", names_of(frame, "network")), tooltip=tips
        ),
    )
    return finish(
        layers, "Back in the first cluster", "Mean over prompts. Grey: 95 % of permutations of the prompts."
    )


def sentence(answer: Returns) -> str:
    """Who is where it began more often than chance gives, and how many left and came back."""
    parts = []
    for row in first_told(answer.scores).iter_rows(named=True):
        is_clear = row["p_adjusted"] <= LEVEL
        verdict = "more often than chance" if is_clear else "not shown to be there more often than chance"
        least = least_told(row["p_least"], len(answer.scores))
        outside = f"; {row['num_outside']:,} more began in no cluster" if row["num_outside"] else ""
        parts.append(
            f"{row['network']} {verdict} ({row['late']:.0%} of {row['num_runs']:,} runs of "
            f"{row['num_prompts']:,} prompts late on, chance {row['by_chance']:.0%}, "
            f"p = {row['p_adjusted']:.2g}{least}{outside}); {_left_told(row)}"
        )
    more = f"; and {len(answer.scores) - 4} more" if len(answer.scores) > 4 else ""
    left_out = not_asked(answer.absent, f"fewer than {LEAST_PROMPTS} prompts begin in a cluster")
    told = f"{'; '.join(parts)}{more}.{left_out}"
    return f"How often runs are in the cluster of their first {answer.modality}: {told}"


def _left_told(row: dict[str, Any]) -> str:
    """How many runs were ever elsewhere, and how many of them came back."""
    if row["left"] == 0:
        return "none ever left it"
    return f"{row['left']:.0%} ever left it, of which {row['came_back']:.0%} were in it again"
