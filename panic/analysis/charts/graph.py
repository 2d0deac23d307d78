"""States on a circle with arrows for the moves between them.

transition_graph(matrix, "moves", weights=stationary(matrix))
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt
import numpy as np
import polars as pl
from numpy.typing import NDArray

from panic.analysis.charts.theme import SQUARE, data, finish


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

    Area of a state: `weights` (k,), such as the stationary law. In it is its number, by default its row
    ("else" for one below 0), and beside it how often it is kept. `names` of states are by number.
    """
    known = names or {}
    shown = list(range(len(matrix)) if numbers is None else numbers)
    titles = {number: known.get(number, f"state {number}") for number in shown}
    nodes, edges, heads = _graph(np.asarray(matrix, dtype=float), weights, titles, least)
    scale = alt.Scale(domain=[-1.35, 1.35], nice=False)
    x, y = alt.X("x:Q", axis=None, scale=scale), alt.Y("y:Q", axis=None, scale=scale)
    tips = [alt.Tooltip("move:N"), alt.Tooltip("probability:Q", format=".3f")]
    width = alt.StrokeWidth("probability:Q", scale=alt.Scale(domain=[0, 1], range=[0.6, 7]), legend=None)
    # Rare moves are faint by their opacity: a pale colour would stand out on dark ground.
    shade = alt.Opacity("probability:Q", scale=alt.Scale(domain=[0, 1], range=[0.3, 1]), legend=None)
    chart = alt.layer(
        alt.Chart(data(edges))
        .mark_line(strokeCap="round")
        .encode(x=x, y=y, detail="move:N", order="place:Q", strokeWidth=width, opacity=shade, tooltip=tips),
        alt.Chart(data(heads))
        .mark_point(filled=True, shape="triangle", size=85)
        .encode(x=x, y=y, angle=alt.Angle("angle:Q", scale=None), opacity=shade, tooltip=tips),
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
    legend = "; ".join(numbered(number, name) for number, name in titles.items() if number >= 0)
    caption = (
        "Size: share of the outputs. Beside it: how often the next output is in the same cluster. Arrows: "
        f"moves of {least:.0%} and more. {legend}."
    )
    return finish(chart, title, caption, width=SQUARE, height=SQUARE)


def numbered(label: int, name: str) -> str:
    """A cluster as all charts list it: the number that stands for it where there is no room for its name."""
    return f"{label}: {name}"


def _label(number: int) -> str:
    """What stands in a state; one below 0 stands for everything that is not drawn."""
    return str(number) if number >= 0 else "else"


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
            "label": [_label(number) for number in names],
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
