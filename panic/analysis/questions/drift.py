"""How far does it drift? Texts from the prompt, images from the first one, and from one to the next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt
import numpy as np
import polars as pl
from numpy.typing import NDArray

from panic.analysis.charts import GREY, at_call, call_axis, call_tip, colour, data, finish, in_order, names_of
from panic.analysis.checks import AnalysisError
from panic.analysis.data import ExperimentData
from panic.analysis.evidence import Evidence, Statistic, View, by_run
from panic.analysis.grouping import grouped_by
from panic.analysis.sampling import scattered, thinned
from panic.analysis.whereabouts import continued
from panic.topology import pairwise

TITLE = {"text": "Drift of the texts from the prompt", "image": "Drift of the pictures", "": "Drift"}
CAVEAT = {
    "text": (
        "A stuck run is continued by its cycle, a failed one is not. A captioner's texts differ from "
        "prompts in style alone, so the first text may be far from the prompt where nothing was lost: "
        "read what follows it."
    ),
    "image": (
        "A stuck run is continued by its cycle, a failed one is not. Measured from the first picture, not"
        " from the prompt: a text and a picture of the same thing are far apart even under a model that "
        "reads both."
    ),
}
STARTS = {"text": "the prompt", "image": "the first picture"}
DRIFT = {
    "network": pl.String,
    "run": pl.Int64,
    "step": pl.Int64,
    "distance": pl.Float64,
    "step_size": pl.Float64,
    "is_known": pl.Boolean,
}
DISTANCE = "cosine distance from the prompt"
STATISTIC = Statistic(
    what="cosine distance from the first output",
    of=by_run(lambda points: pairwise(points.astype(np.float64), "cosine")[0, 1:]),
    x_title="outputs since the first",
)
MAX_LINES = 60  # runs drawn singly
MAX_STEPS = 200  # places on an axis
MAX_UNRELATED = 200  # starts that are compared with each other


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """Distances from the start (`frame`, as DRIFT), their bands, those of step sizes, single runs to draw.

    unrelated: median distance of different starts from each other, which says how far is far; None for one.
    """

    modality: str
    frame: pl.DataFrame
    bands: pl.DataFrame
    step_bands: pl.DataFrame
    lines: pl.DataFrame
    unrelated: float | None
    num_begun: int


def views(evidence: Evidence) -> Sequence[View | None]:
    """Every embedding model and modality that can be measured; None stands for what cannot."""
    known = {epoch.name for epoch in evidence.whole.epochs}
    names = evidence.embedding_models
    found = [
        View(name, modality)
        for name in names
        if name in known
        for modality in ("text", "image")
        if _is_measurable(evidence.data, name, modality)
    ]
    is_all = names and {view.model for view in found} >= set(names)
    return found if is_all else [*found, None]


def table(evidence: Evidence, view: View | None) -> Drift:
    """Drift under a model within a modality; AnalysisError without a view says what is not there."""
    if view is None:
        raise AnalysisError(_why_not(evidence))
    frame = drift(evidence.data, *view)
    thin = thinned(frame, MAX_STEPS)
    return Drift(
        modality=view.modality,
        frame=frame,
        bands=drift_bands(thin),
        step_bands=drift_bands(thin, "step_size"),
        lines=_some_lines(thin),
        unrelated=unrelated(evidence.data, *view),
        num_begun=evidence.num_begun,
    )


def _why_not(evidence: Evidence) -> str:
    names = evidence.embedding_models
    if not names:
        return "The config asks for no embeddings, so there is nothing to measure."
    measured = {view.model for view in views(evidence) if view is not None}
    absent = ", ".join(name for name in names if name not in measured)
    later = "" if evidence.is_over else " yet"
    return f"No vectors of prompts and texts, or of pictures, under {absent}{later}."


def _is_measurable(data: ExperimentData, model: str, modality: str) -> bool:
    steps = data.steps(model, modality)
    return len(steps) > 0 and steps["run"].is_in(starts(data, model, modality)["run"].implode()).any()


def drift(data: ExperimentData, model: str, modality: str = "text") -> pl.DataFrame:
    """How far every output of a modality is from its run's start: columns as in DRIFT, by run and step.

    `distance`: cosine distance of a text from the run's prompt, of an image from its first image (a text
    and an image of the same thing are far apart even under a model that reads both). `step_size`: that from
    the output of the same modality before, null for the first. `is_known`: a step that a stuck run was spared
    (`continued`); leaving those out would let the moving runs alone speak for the late steps.
    Outputs without a vector or a direction, and runs without one of their start, are missing.
    """
    steps = data.steps(model, modality).join(starts(data, model, modality), on="run", maintain_order="left")
    if steps.is_empty():
        return pl.DataFrame(schema=DRIFT)
    matrix = data.matrix(model).astype(np.float64)
    steps = steps.filter(have_direction(matrix))
    unit = matrix / np.maximum(np.linalg.norm(matrix, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    found = (
        continued(steps.select("run", "step", "row", "start"), data.runs)
        .with_columns(before=pl.col("row").shift(1).over("run"))
        .join(data.runs.select("run", "network", "num_steps"), on="run", maintain_order="left")
    )
    return found.select(
        "network",
        "run",
        "step",
        distance=pl.Series(_cosine_distances(unit, found["row"], found["start"])),
        step_size=pl.Series(_cosine_distances(unit, found["row"], found["before"])).fill_nan(None),
        is_known=pl.col("step") >= pl.col("num_steps"),
    ).cast(DRIFT)  # type: ignore[arg-type]


def have_direction(matrix: NDArray[np.float64]) -> pl.Expr:
    """Whether the vectors at both `row` and `start` of a matrix (n, d) have a direction."""
    directed = pl.Series(np.flatnonzero(matrix.any(axis=1)), dtype=pl.Int64)
    return pl.all_horizontal(pl.col("row", "start").cast(pl.Int64).is_in(directed.implode()))


def starts(data: ExperimentData, model: str, modality: str) -> pl.DataFrame:
    """What each run's outputs are measured from: run, start (a row of the matrix)."""
    place = data.places(model)
    of_kind = pl.col("modality").cast(pl.String) == modality
    prompt = pl.coalesce("text", "image:" + pl.col("digest"))
    prompts = data.outputs.filter(of_kind).select("output", prompt=prompt)
    begun = data.runs.select("run", "prompt").join(prompts, on="prompt")
    others = data.invocations.filter(of_kind).join(begun, on="run", how="anti")
    first = others.sort("run", "step").group_by("run").first()
    found = pl.concat([begun.select("run", "output"), first.select("run", "output")])
    return found.join(place, on="output").select("run", start="row")


def _cosine_distances(unit: np.ndarray, a: pl.Series, b: pl.Series) -> np.ndarray:
    """Half the squared distances of rows of unit vectors, which loses no digits; NaN where b is null."""
    at = b.fill_null(0).to_numpy()
    found: np.ndarray = ((unit[a.to_numpy()] - unit[at]) ** 2).sum(axis=1) / 2
    return np.where(b.is_null().to_numpy(), np.nan, found)


def unrelated(data: ExperimentData, model: str, modality: str = "text") -> float | None:
    """Median cosine distance of different starts (prompts, or first images) from each other; None for one."""
    rows = starts(data, model, modality)["start"].unique().sort().to_numpy()
    rows = rows[data.matrix(model)[rows].any(axis=1)]  # others have no direction
    if len(rows) < 2:
        return None
    rows = rows[scattered(len(rows), MAX_UNRELATED)]
    apart = pairwise(data.matrix(model)[rows].astype(np.float64), "cosine")
    return float(np.median(apart[np.triu_indices(len(rows), 1)]))


def drift_bands(frame: pl.DataFrame, value: str = "distance") -> pl.DataFrame:
    """Median and quartiles of a column of `drift` over runs: network, step, low, median, high, num_runs."""
    bands = (
        frame.filter(pl.col(value).is_not_null())
        .group_by("network", "step", maintain_order=True)
        .agg(
            low=pl.col(value).quantile(0.25, "linear"),
            median=pl.col(value).median(),
            high=pl.col(value).quantile(0.75, "linear"),
            num_runs=pl.len(),
        )
    )
    return in_order(bands, "network", "step")


def _some_lines(frame: pl.DataFrame) -> pl.DataFrame:
    """The single runs to draw: some of every network."""
    runs = frame.select("network", "run").unique(maintain_order=True)
    turn = runs.with_columns(turn=pl.int_range(pl.len()).over("network")).sort("turn", maintain_order=True)
    return frame.filter(pl.col("run").is_in(turn["run"].head(MAX_LINES).implode()))


def chart(answer: Drift) -> dict[str, Any]:
    """Distance from the start, beside that of unrelated starts, and from one output to the next."""
    start, modality = STARTS[answer.modality], answer.modality
    distance = f"cosine distance from {start}"
    num_calls = answer.frame["step"].n_unique()
    notes = ""
    if num_calls > MAX_STEPS:
        notes = f" Drawn: {MAX_STEPS:,} of the {num_calls:,} model calls that gave {modality}s."
    how: dict[str, Any] = {"reference": answer.unrelated, "notes": notes}
    from_start = drift_chart(answer.bands, answer.lines, f"from {start}", value_title=distance, **how)
    charts = {f"from {start}": from_start}
    if not answer.step_bands.is_empty():
        title = f"from one {modality} to the next"
        charts[title] = drift_chart(
            answer.step_bands,
            answer.lines.filter(pl.col("step_size").is_not_null()),
            title,
            value="step_size",
            value_title=f"cosine distance from the {modality} before",
            **how,
        )
    return charts


def sentence(answer: Drift) -> str:
    """How far from their start the networks are at the end, and whether their steps become smaller."""
    num_runs = answer.frame["run"].n_unique()
    some = f" This is of {num_runs} of {answer.num_begun:,} runs." if answer.num_begun > num_runs else ""
    drifts = drift_sentence(answer.bands, answer.modality, answer.unrelated)
    return drifts + step_sentence(answer.step_bands, answer.modality) + some


def drift_chart(
    bands: pl.DataFrame,
    lines: pl.DataFrame,
    title: str = "Drift from the prompt",
    *,
    value: str = "distance",
    value_title: str = DISTANCE,
    reference: float | None = None,
    notes: str = "",
) -> Any:
    """Median, quartile band and single runs of the distance from the start by step, by network.

    `bands` as `drift_bands` gives them, `lines` as `drift` does, of which `value` is drawn.
    `reference` is drawn as a dashed line: the distance of starts that have nothing to do with each other.
    `notes`: what else the caption says.
    Clicking a network in the legend fades the others.
    """
    chosen = alt.selection_point(fields=["network"], bind="legend")
    by = colour("network", names_of(bands, "network"))
    x = call_axis()

    def visible(opacity: float) -> Any:
        return alt.condition(chosen, alt.value(opacity), alt.value(opacity / 12))

    single = alt.Chart(data(lines.select("run", "network", "step", distance=value))).mark_line(
        strokeWidth=0.8
    )
    over = alt.Chart(data(bands))
    chart = alt.layer(
        single.encode(
            x=x, y=alt.Y("distance:Q", title=value_title), detail="run:N", color=by, opacity=visible(0.22)
        ),
        over.mark_area().encode(
            x=x, y=alt.Y("low:Q", title=value_title), y2="high:Q", color=by, opacity=visible(0.16)
        ),
        over.mark_line(strokeWidth=2.6).encode(
            x=x, y=alt.Y("median:Q", title=value_title), color=by, opacity=visible(1.0)
        ),
        over.mark_point(size=70, filled=True, opacity=0).encode(
            x=x,
            y="median:Q",
            color=by,
            tooltip=[
                alt.Tooltip("network:N"),
                call_tip(),
                alt.Tooltip("median:Q", format=".3f"),
                alt.Tooltip("low:Q", format=".3f", title="lower quartile"),
                alt.Tooltip("high:Q", format=".3f", title="upper quartile"),
                alt.Tooltip("num_runs:Q", title="runs"),
            ],
        ),
    ).add_params(chosen)  # fmt: skip
    num_runs = int(bands["num_runs"].max() or 0)  # type: ignore[arg-type]
    caption = (
        f"Thick: median of runs (at most {num_runs:,} of one {grouped_by(bands['network'])}); "
        "band: quartiles; thin: single runs."
    )
    if reference is not None:
        far = pl.DataFrame({"reference": [reference]})
        rule = alt.Chart(data(far)).mark_rule(color=GREY, strokeDash=[6, 4], strokeWidth=1.6)
        chart = alt.layer(chart, rule.encode(y="reference:Q"))
        caption += f" Dashed: the median distance of different starts from each other, {reference:.2f}."
    return finish(chart, title, caption + notes, height=330)


def drift_sentence(bands: pl.DataFrame, modality: str = "text", unrelated: float | None = None) -> str:
    """How far from their start the networks are late: at the last step that half of their runs have."""
    start = "prompt" if modality == "text" else "first picture"
    noun = "text" if modality == "text" else "picture"
    late = bands.filter(2 * pl.col("num_runs") >= pl.col("num_runs").max().over("network"))
    last = late.group_by("network", maintain_order=True).last().sort("median", descending=True)
    first = bands.group_by("network").first()
    starts = dict(zip(first["network"], first["median"], strict=True))
    parts = [
        f"{row['network']} {row['median']:.2f} at {at_call(row['step'])}, of {row['num_runs']:,} "
        f"run{'s' if row['num_runs'] != 1 else ''} (it began at {starts[row['network']]:.2f})"
        for row in last.head(4).iter_rows(named=True)
    ]
    more = f"; {len(last) - 4} more lie below" if len(last) > 4 else ""
    far = f" Different starts are {unrelated:.2f} apart in the median." if unrelated is not None else ""
    return f"Median cosine distance of a {noun} from its {start}: {'; '.join(parts)}{more}.{far}"


def step_sentence(bands: pl.DataFrame, modality: str = "text") -> str:
    """Whether the steps become smaller; nothing where there are none."""
    parts = []
    for (network,), rows in bands.sort("step").group_by("network", maintain_order=True):
        third = max(1, len(rows) // 3)
        early, late = _median(rows["median"].head(third)), _median(rows["median"].tail(third))
        parts.append(f"{network} {early:.2g} early and {late:.2g} late")
    if not parts:
        return ""
    more = f"; and {len(parts) - 4} more" if len(parts) > 4 else ""
    told = f"{'; '.join(parts[:4])}{more}"
    return f" From one {modality} to the next it goes a median cosine distance of: {told}."


def _median(values: pl.Series) -> float:
    return float(values.median() or 0.0)  # type: ignore[arg-type]
