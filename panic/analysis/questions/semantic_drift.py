"""How fast does the meaning drift? Likeness to the start over generations: its mean, and a rate of decay."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import altair as alt
import numpy as np
import polars as pl
from numpy.typing import NDArray

from panic.analysis.alignment import aligned, both_ends
from panic.analysis.chance import LEAST_UNITS, first_told, holm, least_told, swapping
from panic.analysis.charts import GREY, STEPS, colour, data, finish, in_order, names_of
from panic.analysis.checks import AnalysisError
from panic.analysis.data import ExperimentData
from panic.analysis.dynamics import decay, mean_cumulative_drift
from panic.analysis.dynamics.semantic import LEAST_GENERATIONS
from panic.analysis.evidence import Evidence, View, each_model
from panic.analysis.grouping import grouped_by
from panic.analysis.questions.drift import have_direction, starts, unrelated
from panic.analysis.sampling import scattered

Array = NDArray[np.float64]

TITLE = "How fast the meaning drifts"
CAVEAT = (
    "Mean cumulative drift and semantic drift rate as in arXiv 2509.04438: higher is less drift, and 1 is "
    "none. Likeness is the cosine under this model; likenesses of a text and an image are on another scale "
    "than those of two texts. A generation is an output of one kind; that of images begins with the first "
    "one. Runs that end before half of the others do are left out, stuck ones go on by their cycle. "
    "Intervals are over starts (Student's t). p: early and late generations of a start are swapped, "
    "of whole laps where several models make them in turn, corrected for the number of rows (Holm)."
)
LEVEL = 0.05
LEAST_STARTS = 3  # of an interval
LEAST_DECAY = 0.5  # of what varies between generations: below, a fitted curve is not told
MAX_GENERATIONS = 200  # drawn
KINDS = ("text", "image")
SCORES = {
    "network": pl.String, "direction": pl.String, "cumulative": pl.Float64, "low": pl.Float64,
    "high": pl.Float64, "amplitude": pl.Float64, "rate": pl.Float64, "level": pl.Float64, "r2": pl.Float64,
    "early": pl.Float64, "late": pl.Float64, "p_value": pl.Float64, "p_least": pl.Float64,
    "num_starts": pl.Int64, "num_generations": pl.Int64, "num_runs": pl.Int64,
}  # fmt: skip

views = each_model


@dataclass(frozen=True, slots=True, kw_only=True)
class SemanticDrift:
    """Scores (SCORES and p_adjusted) by network and direction, such as "text → image", from start to output.

    curves: network, direction, generation, similarity (mean over starts). means: by network, the mean over
    its directions of cumulative, amplitude, rate and level, as the source has them. unrelated: median
    likeness of different starts to each other, by the directions that lead to outputs of the starts' kind.
    """

    scores: pl.DataFrame
    curves: pl.DataFrame
    means: pl.DataFrame
    unrelated: dict[str, float]


def table(evidence: Evidence, view: View) -> SemanticDrift:
    """Scores of all directions that the model has vectors of. AnalysisError where there are none."""
    rows, curves = [], []
    for start in KINDS:
        for kind in KINDS:
            found = similarities(evidence.data, view.model, start, kind)
            for (network,), of_network in found.group_by("network", maintain_order=True):
                direction = f"{start} → {kind}"
                cells = _cells(of_network)
                rows.append(
                    (
                        network,
                        direction,
                        *_score(cells, int(of_network["per_lap"][0])),
                        of_network["run"].n_unique(),
                    )
                )
                curves.append(_curve(str(network), direction, cells))
    if not rows:
        raise AnalysisError(f"no run has vectors of its start and its outputs under {view.model}")
    scores = in_order(pl.DataFrame(rows, SCORES, orient="row"), "network")
    means = scores.group_by("network", maintain_order=True).agg(
        pl.col("cumulative", "amplitude", "rate", "level").mean(), num_directions=pl.len()
    )
    scores = scores.with_columns(p_adjusted=holm(scores["p_value"]))
    far = {f"{kind} → {kind}": unrelated(evidence.data, view.model, kind) for kind in KINDS}
    return SemanticDrift(
        scores=scores,
        curves=pl.concat(curves),
        means=means,
        unrelated={direction: 1 - apart for direction, apart in far.items() if apart is not None},
    )


def similarities(data: ExperimentData, model: str, start: str, kind: str) -> pl.DataFrame:
    """network, unit, run, per_lap, generation (from 1), similarity (cosine) of a kind's outputs to the start.

    The start of a run is its prompt, or its first image. Runs are those of `aligned`, without
    such with a vector that has no direction.
    """
    paths = aligned(data, model, kind).join(starts(data, model, start), on="run", maintain_order="left")
    if start == kind == "image":
        paths = paths.filter(pl.col("number") > 0).with_columns(number=pl.col("number") - 1)
    matrix = data.matrix(model).astype(np.float64)
    paths = paths.filter(have_direction(matrix).all().over("run"))
    unit = matrix / np.maximum(np.linalg.norm(matrix, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    here, there = (unit[paths[name].to_numpy()] for name in ("row", "start"))
    return paths.select(
        "network", "unit", "run", "per_lap", generation=pl.col("number") + 1,
        similarity=pl.Series((here * there).sum(axis=1), dtype=pl.Float64),
    )  # fmt: skip


def _cells(found: pl.DataFrame) -> Array:
    """Similarities (units, generations) of one network, means over the runs of each unit."""
    means = found.group_by("unit", "generation").agg(pl.col("similarity").mean())
    return means.sort("unit", "generation")["similarity"].to_numpy().reshape(
        means["unit"].n_unique(), -1
    )  # fmt: skip


def _score(cells: Array, per_lap: int = 1) -> tuple[float | int | None, ...]:
    """What SCORES has between direction and num_runs, of (units, generations); no curve where none fits."""
    from scipy.stats import t

    count, length = cells.shape
    mean = mean_cumulative_drift(cells)
    low = high = float("nan")
    if count >= LEAST_STARTS:
        half = float(t.ppf(0.975, count - 1) * cells.mean(axis=1).std(ddof=1) / np.sqrt(count))
        low, high = max(mean - half, -1.0), min(mean + half, 1.0)  # of a cosine
    fit = decay(cells.mean(axis=0)) if length >= LEAST_GENERATIONS else None
    fit = fit if fit is not None and fit.is_fitted else None
    fitted = (None,) * 4 if fit is None else (fit.amplitude, fit.rate, fit.level, fit.r2)
    ends = both_ends(length, per_lap, length // 3)
    early, late = (cells[:, side].mean(axis=1) for side in ends or (slice(1), slice(length - 1, length)))
    p = p_least = float("nan")
    if count >= LEAST_UNITS and ends:
        change = late - early
        found = swapping(lambda swaps: float(np.where(swaps, -change, change).mean()), count)
        p, p_least = float(found.p_value), found.p_least
    return mean, low, high, *fitted, float(early.mean()), float(late.mean()), p, p_least, count, length


def _curve(network: str, direction: str, cells: Array) -> pl.DataFrame:
    generation = np.arange(1, cells.shape[1] + 1)
    frame = pl.DataFrame(
        {
            "network": network,
            "direction": direction,
            "generation": generation,
            "similarity": cells.mean(axis=0),
        }
    )
    return frame[scattered(len(frame), MAX_GENERATIONS)]


def chart(answer: SemanticDrift) -> dict[str, Any]:
    """Likeness to the start by generation, a chart per direction, with the fitted curves."""
    directions = names_of(answer.scores, "direction")
    return {direction: _chart(answer, direction) for direction in directions}


def _chart(answer: SemanticDrift, direction: str) -> Any:
    curves = answer.curves.filter(pl.col("direction") == direction)
    scores = answer.scores.filter(pl.col("direction") == direction, _is_told())
    fitted = curves.join(scores.select("network", "amplitude", "rate", "level"), on="network").with_columns(
        similarity=pl.col("amplitude") * (-pl.col("rate") * pl.col("generation")).exp() + pl.col("level")
    )
    x = alt.X("generation:Q", title="generation (output of this kind)", axis=STEPS)
    y = alt.Y("similarity:Q", title="cosine similarity to the start", scale=alt.Scale(zero=False))
    by = colour("network", names_of(curves, "network"))
    tips = [
        alt.Tooltip("network:N"),
        alt.Tooltip("generation:Q", title="generation (output of this kind)"),
        alt.Tooltip("similarity:Q", format=".3f"),
    ]
    layers = [
        alt.Chart(data(curves))
        .mark_line(point=alt.OverlayMarkDef(size=36))
        .encode(x=x, y=y, color=by, tooltip=tips)
    ]
    num_starts = max(answer.scores.filter(pl.col("direction") == direction)["num_starts"].to_list())
    caption = f"Mean over starts (at most {num_starts:,} of one {grouped_by(curves['network'])})."
    if len(fitted):
        dashed = alt.Chart(data(fitted.select("network", "generation", "similarity")))
        layers.append(dashed.mark_line(strokeDash=[6, 4], strokeWidth=2.2).encode(x=x, y=y, color=by))
        caption += " Dashed: a exp(-b n) + c."
    if direction in answer.unrelated:
        like = answer.unrelated[direction]
        rule = alt.Chart(data(pl.DataFrame({"reference": [like]}))).mark_rule(color=GREY, strokeDash=[2, 4])
        layers.append(rule.encode(y="reference:Q"))
        caption += f" Dotted: the median likeness of different starts to each other, {like:.2f}."
    return finish(alt.layer(*layers), direction, caption)


def _is_told() -> pl.Expr:
    """Whether a fitted curve says something: it explains much, and likeness was shown to change at all."""
    is_clear = pl.col("p_adjusted").fill_nan(1.0) <= LEVEL
    return is_clear & (pl.col("r2").fill_null(0.0) >= LEAST_DECAY)


def sentence(answer: SemanticDrift) -> str:
    """Mean cumulative drift, rate and whether likeness falls, by network and direction."""
    num_tests = len(answer.scores.drop_nans("p_value"))
    rows = answer.scores.with_columns(is_told=_is_told(), num_tests=pl.lit(num_tests))
    parts = [_said(row) for row in first_told(rows).iter_rows(named=True)]
    more = f"; and {len(rows) - 4} more" if len(rows) > 4 else ""
    if num_tests < len(rows):
        more += f". With fewer than {LEAST_UNITS} independent starts no change is tested"
    return f"Mean cumulative drift (likeness to the start, 1: nothing is lost): {'; '.join(parts)}{more}."


def _said(row: dict[str, Any]) -> str:
    low, mean, high = (round(row[name], 2) + 0.0 for name in ("low", "cumulative", "high"))  # no -0.00
    interval = f", 95 % interval {low:.2f} to {high:.2f}" if low == low else ""
    starts = f"{row['num_starts']:,} start{'s' if row['num_starts'] != 1 else ''}"
    text = (
        f"{row['network']}, {row['direction']} {mean:.2f} over {row['num_generations']:,} generation"
        f"{'s' if row['num_generations'] != 1 else ''} ({starts}{interval})"
    )
    if row["is_told"]:
        text += f", semantic drift rate {row['rate']:.2g} a generation towards {row['level']:.2f}"
    if row["p_adjusted"] != row["p_adjusted"]:
        return text
    change = "falls" if row["late"] < row["early"] else "rises"
    verdict = change if row["p_adjusted"] <= LEVEL else "could not be shown to change"
    return (
        f"{text}; from early to late generations it {verdict} ({row['early']:.2f} to {row['late']:.2f}, "
        f"p = {row['p_adjusted']:.2g}{least_told(row['p_least'], row['num_tests'])})"
    )
