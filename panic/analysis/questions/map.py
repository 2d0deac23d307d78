"""Where are the outputs, in two dimensions? The plane of their main directions, by network and prompt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import altair as alt
import numpy as np
import polars as pl

from panic.analysis.charts import GREY, call_tip, colour, data, finish, named, names_of
from panic.analysis.checks import AnalysisError
from panic.analysis.data import ExperimentData
from panic.analysis.evidence import Evidence, View, each_model
from panic.analysis.projections import PROJECTIONS
from panic.analysis.sampling import of_some_runs

TITLE = "Map"
CAVEAT = (
    "Two of many dimensions: what lies together here may be apart in others. Axes have no unit and no sign."
)
MAX_POINTS = 2500
MAX_IMAGES = 300  # that hovering shows

views = each_model


@dataclass(frozen=True, slots=True, kw_only=True)
class Map:
    """Places of outputs (as `place_map`, with images if there are any), and the variance's share in them."""

    places: pl.DataFrame
    share: float | None
    modality: str


def table(evidence: Evidence, view: View) -> Map:
    """Outputs in the plane of their two main directions. AnalysisError with fewer than 3 distinct outputs."""
    places, share = place_map(evidence.data, *view, max_points=MAX_POINTS)
    places = _with_images(evidence, places, view.modality)
    return Map(places=places, share=share, modality=view.modality)


def place_map(
    data: ExperimentData,
    model: str,
    modality: str,
    *,
    method: str = "pca",
    max_points: int = 4000,
    seed: int = 0,
) -> tuple[pl.DataFrame, float | None]:
    """Outputs in two dimensions: columns of `ExperimentData.steps`, text, x, y; the variance's share in them.

    `pca`: the plane of their two main directions. `umap` (extra `umap`): neighbours stay neighbours, by the
    cosine; distances and sizes of groups mean nothing there, and no share of variance is given. Of at most
    `max_points` steps, taken by whole runs. AnalysisError with fewer than 3 distinct outputs (umap: 10).
    """
    if method not in PROJECTIONS:
        raise AnalysisError(f"unknown method {method!r}", hint=f"known: {', '.join(PROJECTIONS)}")
    steps = of_some_runs(data.steps(model, modality), max_points, seed)
    used = steps["row"].unique().sort().to_numpy()
    if len(used) < 3:
        raise AnalysisError(f"a map needs 3 distinct outputs, found {len(used)}")
    points = data.matrix(model)[used].astype(np.float64)
    if not np.ptp(points, axis=0).any():
        raise AnalysisError("all outputs have the same vector")
    plane, share = PROJECTIONS[method](points, seed)
    where = pl.DataFrame({"row": used, "x": plane[:, 0], "y": plane[:, 1]}).cast({"row": steps["row"].dtype})
    texts = data.outputs.select("output", "text")
    return steps.join(where, on="row").join(texts, on="output", how="left").sort("run", "step"), share


def _with_images(evidence: Evidence, places: pl.DataFrame, modality: str) -> pl.DataFrame:
    """A column `image` with the image itself, or the one that the text was made from."""
    digests = evidence.data.outputs.filter(pl.col("modality") == "image").select("output", "digest")
    made_of = "output" if modality == "image" else "input"
    steps = evidence.data.invocations.select("run", "step", pl.col(made_of).alias("source"))
    found = places.join(steps, on=["run", "step"], how="left", maintain_order="left").join(
        digests.rename({"output": "source"}), on="source", how="left", maintain_order="left"
    )
    kept = found["digest"].drop_nulls().unique(maintain_order=True)
    kept = kept.gather_every(max(1, -(-len(kept) // MAX_IMAGES))) if len(kept) else kept
    uris = {digest: evidence.thumbnails.get(digest)[0] for digest in kept}
    image = pl.col("digest").replace_strict(uris, default=None, return_dtype=pl.String)
    made = found.with_columns(image=image if uris else pl.lit(None, pl.String)).drop("source", "digest")
    return made.drop("image") if made["image"].is_null().all() else made


def chart(answer: Map) -> dict[str, Any]:
    """The map coloured by every factor that has few levels, or by step."""
    places = answer.places
    factors = [f for f in ("network", "prompt") if 1 < places[f].n_unique() <= 7] or ["step"]
    charts = {f"by {factor}": embedding_map(places, f"by {factor}", by=factor) for factor in factors}
    return charts if len(charts) > 1 else {"": charts[f"by {factors[0]}"]}


def sentence(answer: Map) -> str:
    """How much of what there is the map shows."""
    places, share = answer.places, answer.share
    where = f"in the plane that carries {share:.0%} of their variance" if share is not None else "by UMAP"
    num_runs = places["run"].n_unique()
    num_points = places["row"].n_unique()
    on = f" at {num_points:,} points, where equal ones hide each other," if num_points < len(places) else ""
    return (
        f"{len(places):,} {answer.modality}s that were computed, of {num_runs:,} "
        f"run{'s' if num_runs != 1 else ''},{on} {where}. Point at "
        "one to see it and the path of its run."
    )


def embedding_map(
    frame: pl.DataFrame,
    title: str = "Map of the outputs",
    *,
    by: str = "network",
    explained: float | None = None,
) -> Any:
    """Outputs in two dimensions, coloured by any column; hovering shows what they are.

    Columns x, y, the one named by `by` (numbers get a continuous scale), and any of run, step, text, image
    (a data URI), which the tooltip shows; a line joins the steps of the run under the pointer.
    `explained`: share of the variance that the two axes carry.
    """
    numeric = frame[by].dtype.is_numeric()
    shade: Any = (
        alt.Color(
            **(named(by, "quantitative") | {"title": "model call" if by == "step" else by}),
            scale=alt.Scale(scheme="viridis"),
            legend=alt.Legend(orient="top", gradientLength=160),
        )
        if numeric
        else colour(by, names_of(frame, by))
    )
    fields = [f for f in ("image", "text", by, "run") if f in frame.columns and f != "step"]
    tooltip = [alt.Tooltip(**named(f, "nominal")) for f in dict.fromkeys(fields)]
    tooltip += [call_tip()] if "step" in frame.columns else []
    axis = alt.Axis(labels=False, ticks=False, domain=False, grid=False)
    x, y = alt.X("x:Q", title="component 1", axis=axis), alt.Y("y:Q", title="component 2", axis=axis)
    points = alt.Chart(data(frame)).encode(x=x, y=y)
    layers = []
    dots = points.mark_point(filled=True, size=46, opacity=0.65).encode(color=shade, tooltip=tooltip)
    if {"run", "step"} <= set(frame.columns):
        near = alt.selection_point(fields=["run"], on="pointerover", empty=False, clear="pointerout")
        trail = points.mark_line(strokeWidth=1.2, color=GREY).encode(
            detail="run:N", order="step:Q", opacity=alt.condition(near, alt.value(0.9), alt.value(0.0))
        )
        layers.append(trail)
        dots = dots.add_params(near)
    share = f" The two axes carry {explained:.0%} of the variance." if explained is not None else ""
    caption = f"Near is alike.{share} Point at an output to see it and the path of its run."
    return finish(alt.layer(*layers, dots), title, caption, height=400)
