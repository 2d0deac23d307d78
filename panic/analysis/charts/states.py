"""Charts of states: maps of embeddings, clusters in time, transitions, dwells, recurrences.

embedding_map(places, by="network"); cluster_timeline(labels); transition_graph(matrix)
dwell_survival(curves); recurrence_plot(recurrence_matrix(texts))
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt
import numpy as np
import polars as pl
from numpy.typing import NDArray

from panic.analysis.charts.theme import GREY, SQUARE, colour, data, finish, names_of

OUTLIER = "outlier"


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
            f"{by}:Q", scale=alt.Scale(scheme="viridis"), legend=alt.Legend(orient="top", gradientLength=160)
        )
        if numeric
        else colour(by, names_of(frame, by))
    )
    fields = [f for f in ("image", "text", by, "run", "step") if f in frame.columns]
    tooltip = [alt.Tooltip(f"{f}:{'Q' if f == 'step' else 'N'}") for f in dict.fromkeys(fields)]
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


def cluster_timeline(
    frame: pl.DataFrame, title: str = "Clusters in time", *, names: dict[int, str] | None = None
) -> Any:
    """Which cluster every run is in at every step; columns run, step, label (-1: outlier), text if known.

    `names`: what stands for a cluster, such as its medoid's text. The seven where runs spend most steps get
    colours of their own.
    """
    rows = frame.with_columns(cluster=_cluster_names(frame["label"], names or {}), label=pl.col("label"))
    order = (
        rows.filter(pl.col("label") >= 0)
        .group_by("label", "cluster")
        .len()
        .sort(["len", "label"], descending=[True, False])["cluster"]
        .to_list()
    )
    top, rest = order[:7], order[7:]
    palette = ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#B8A800"][: len(top)]
    domain = [*top, *(["other clusters"] if rest else []), OUTLIER]
    colours = [*palette, *(["#6b747d"] if rest else []), "#c9ced3"]
    if rest:
        rows = rows.with_columns(
            shown=pl.when(pl.col("cluster").is_in(rest)).then(pl.lit("other clusters")).otherwise("cluster")
        )
    else:
        rows = rows.with_columns(shown=pl.col("cluster"))
    if (rows["label"] >= 0).all():
        domain, colours = domain[:-1], colours[:-1]
    steps = rows["step"].unique().sort()
    stride = int(steps.diff().min() or 1) if len(steps) > 1 else 1  # type: ignore[arg-type]
    rows = rows.with_columns(end=pl.col("step") + stride)
    tips = [alt.Tooltip(f"{f}:N") for f in ("text", "cluster", "run", "step") if f in rows.columns]
    chart = (
        alt.Chart(data(rows))
        .mark_rect(stroke=None)
        .encode(
            x=alt.X("step:Q", title="step", axis=STEPS, scale=alt.Scale(nice=False, zero=False)),
            x2="end:Q",
            y=alt.Y(
                "run:O", title="run", axis=alt.Axis(grid=False, ticks=False, domain=False, labelOverlap=True)
            ),
            color=alt.Color(
                "shown:N",
                scale=alt.Scale(domain=domain, range=colours),
                legend=alt.Legend(orient="bottom", title=None, columns=1, labelLimit=560),
            ),
            tooltip=tips,
        )
    )
    caption = (
        "One row per run, one colour per cluster; clusters are named by the text nearest to their middle."
    )
    return finish(chart, title, caption, height=int(min(420, max(70, 17 * rows["run"].n_unique()))))


STEPS = alt.Axis(grid=False, tickMinStep=1)


def transition_graph(
    matrix: NDArray[np.float64],
    title: str = "Moves between clusters",
    *,
    weights: NDArray[np.float64] | None = None,
    names: dict[int, str] | None = None,
    numbers: Sequence[int] | None = None,
    least: float = 0.05,
) -> Any:
    """States on a circle, arrows for transitions of at least `least`; `matrix` (k, k) of probabilities.

    Area of a state: `weights` (k,), such as the stationary law. In it is its number, by default its row, and
    beside it how often it is kept. `names` of states are by number.
    """
    known = names or {}
    shown = list(range(len(matrix)) if numbers is None else numbers)
    titles = {number: known.get(number, f"state {number}") for number in shown}
    nodes, edges, heads = _graph(np.asarray(matrix, dtype=float), weights, titles, least)
    scale = alt.Scale(domain=[-1.35, 1.35], nice=False)
    x, y = alt.X("x:Q", axis=None, scale=scale), alt.Y("y:Q", axis=None, scale=scale)
    tips = [alt.Tooltip("move:N"), alt.Tooltip("probability:Q", format=".3f")]
    width = alt.StrokeWidth("probability:Q", scale=alt.Scale(domain=[0, 1], range=[0.6, 7]), legend=None)
    shade = alt.Color(
        "probability:Q", scale=alt.Scale(domain=[0, 1], range=["#b9c0c7", "#0072B2"]), legend=None
    )
    chart = alt.layer(
        alt.Chart(data(edges))
        .mark_line(strokeCap="round")
        .encode(x=x, y=y, detail="move:N", order="place:Q", strokeWidth=width, color=shade, tooltip=tips),
        alt.Chart(data(heads))
        .mark_point(filled=True, shape="triangle", size=85, opacity=1)
        .encode(x=x, y=y, angle=alt.Angle("angle:Q", scale=None), color=shade, tooltip=tips),
        alt.Chart(data(nodes))
        .mark_circle(opacity=1, color="#0072B2")
        .encode(
            x=x,
            y=y,
            size=alt.Size("weight:Q", scale=alt.Scale(domain=[0, 1], range=[260, 2600]), legend=None),
            tooltip=[
                alt.Tooltip("name:N"),
                alt.Tooltip("weight:Q", format=".3f", title="share of time"),
                alt.Tooltip("stays:Q", format=".3f", title="probability to stay"),
            ],
        ),
        alt.Chart(data(nodes))
        .mark_text(color="#ffffff", fontWeight=600, fontSize=11)
        .encode(x=x, y=y, text="label:N"),
        alt.Chart(data(nodes))
        .mark_text(fontSize=10)
        .encode(
            x=alt.X("label_x:Q", scale=scale),
            y=alt.Y("label_y:Q", scale=scale),
            text=alt.Text("stays:Q", format=".0%"),
        ),
    )
    caption = f"Size: share of time. Beside it: how often it stays. Arrows: moves of {least:.0%} and more."
    return finish(chart, title, caption, width=SQUARE, height=SQUARE)


def dwell_survival(frame: pl.DataFrame, title: str = "How long it stays") -> Any:
    """Kaplan-Meier curves by group; columns group, then what `dynamics.survival` gives."""
    by = colour("group", names_of(frame, "group"))
    x = alt.X("length:Q", title="length of the dwell (visits)", axis=STEPS)
    base = alt.Chart(data(frame)).encode(x=x, color=by)
    share = alt.Axis(format="%")
    chart = alt.layer(
        base.mark_area(opacity=0.15, interpolate="step-after").encode(
            y=alt.Y("low:Q", title="dwells that last longer", axis=share), y2="high:Q"
        ),
        base.mark_line(interpolate="step-after", strokeWidth=2.2).encode(
            y=alt.Y("survival:Q", title="dwells that last longer", axis=share)
        ),
        base.mark_point(size=60, filled=True, opacity=0).encode(
            y="survival:Q",
            tooltip=[
                alt.Tooltip("group:N"),
                alt.Tooltip("length:Q"),
                alt.Tooltip("survival:Q", format=".1%"),
                alt.Tooltip("num_at_risk:Q", title="at risk"),
            ],
        ),
    )
    caption = (
        "Kaplan-Meier with 95 % bands: a dwell cut off by the end of a run counts for as long as it was seen."
    )
    return finish(chart, title, caption, height=260)


def recurrence_plot(
    matrix: NDArray[np.bool_], title: str = "Recurrences", *, stride: int = 1, first: int = 0
) -> Any:
    """A dot wherever step i is like step j; `matrix` (n, n) of `dynamics.recurrence_matrix`.

    `first` and `stride` say which step of the run a row is: an alternating loop has a text at every second.
    """
    rows, columns = np.nonzero(np.asarray(matrix))
    frame = pl.DataFrame(
        {
            "i": first + stride * rows,
            "i2": first + stride * (rows + 1),
            "j": first + stride * columns,
            "j2": first + stride * (columns + 1),
        }
    )
    scale = alt.Scale(domain=[first, first + stride * len(matrix)], nice=False)
    chart = (
        alt.Chart(data(frame))
        .mark_rect(fill="#0072B2", stroke="#0072B2", strokeWidth=0.5)
        .encode(
            x=alt.X("i:Q", title="step", scale=scale, axis=STEPS),
            x2="i2:Q",
            y=alt.Y("j:Q", title="step", scale=scale, axis=STEPS),
            y2="j2:Q",
            tooltip=[alt.Tooltip("i:Q", title="step"), alt.Tooltip("j:Q", title="is like step")],
        )
    )
    caption = "Filled: the same again. Diagonals: a path repeats. Blocks: it stays."
    return finish(chart, title, caption, width=SQUARE, height=SQUARE)


def _cluster_names(labels: pl.Series, names: dict[int, str]) -> pl.Series:
    known = {
        int(label): OUTLIER
        if label < 0
        else f"{label}: {names[label]}"
        if label in names
        else f"cluster {label}"
        for label in labels.unique().sort()
    }
    return labels.replace_strict(known, return_dtype=pl.String)


def _graph(
    matrix: NDArray[np.float64], weights: NDArray[np.float64] | None, names: dict[int, str], least: float
) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """Nodes, points of the curved edges, and arrow heads. `names`: of every state by its number, in order."""
    size = len(matrix)
    turn = np.pi / 2 - 2 * np.pi * np.arange(size) / max(size, 1)
    place = np.stack([np.cos(turn), np.sin(turn)], axis=1) if size > 1 else np.zeros((size, 2))
    share = np.full(size, 1 / max(size, 1)) if weights is None else np.asarray(weights, dtype=float)
    nodes = pl.DataFrame(
        {
            "x": place[:, 0],
            "y": place[:, 1],
            "label_x": 1.24 * place[:, 0],
            "label_y": 1.24 * place[:, 1] if size > 1 else np.full(size, 0.3),
            "label": [str(number) for number in names],
            "weight": share,
            "stays": np.diag(matrix),
            "name": list(names.values()),
        }
    )
    edges: list[tuple[Any, ...]] = []
    heads: list[tuple[Any, ...]] = []
    t = np.linspace(0, 1, 24)[:, None]
    for a, b in np.argwhere((matrix >= least) & ~np.eye(size, dtype=bool)):
        chord = place[b] - place[a]
        bend = (place[a] + place[b]) / 2 + 0.18 * np.array([chord[1], -chord[0]])
        curve = (1 - t) ** 2 * place[a] + 2 * t * (1 - t) * bend + t**2 * place[b]
        outside = np.linalg.norm(curve - place[b], axis=1) > 0.07 + 0.16 * np.sqrt(share[b])
        curve = curve[outside]
        move, p = f"{nodes['name'][int(a)]} → {nodes['name'][int(b)]}", float(matrix[a, b])
        edges += [(move, i, float(x), float(y), p) for i, (x, y) in enumerate(curve)]
        ahead = curve[-1] - curve[-2] if len(curve) > 1 else chord
        angle = float(np.degrees(np.arctan2(ahead[0], ahead[1])))
        heads.append((move, float(curve[-1][0]), float(curve[-1][1]), angle, p))
    number = pl.Float64
    edge_schema = {"move": pl.String, "place": pl.Int64, "x": number, "y": number, "probability": number}
    head_schema = {"move": pl.String, "x": number, "y": number, "angle": number, "probability": number}
    return (
        nodes,
        pl.DataFrame(edges, schema=edge_schema, orient="row"),
        pl.DataFrame(heads, schema=head_schema, orient="row"),
    )
