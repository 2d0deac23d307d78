"""Charts of persistence diagrams: births and deaths, bars, entropies by group.

persistence(bars, "all runs"); barcode(bars_of_a_run); entropy_by_group(entropies)
"""

from __future__ import annotations

from typing import Any

import altair as alt
import polars as pl

from panic.analysis.charts.theme import GREY, WIDTH, colour, data, finish, names_of

HOMOLOGY = {0: "H0 components", 1: "H1 loops", 2: "H2 voids"}
LONGEST_BARS = 80


def persistence(
    frame: pl.DataFrame,
    title: str = "Persistence diagram",
    largest: float | None = None,
    *,
    width: int = WIDTH,
) -> Any:
    """Births and deaths of the finite bars with the diagonal, coloured by dimension.

    Columns dimension, birth, death, run. `largest` is the end of both axes; give the same one to diagrams
    that are to be compared.
    """
    finite = frame.filter(pl.col("death").is_finite())
    end = (largest if largest is not None else float(finite["death"].max() or 0.0)) * 1.04 or 1.0  # type: ignore[arg-type]
    scale = alt.Scale(domain=[0, end], nice=False)
    rows = _features(finite)
    diagonal = pl.DataFrame({"birth": [0.0, end], "death": [0.0, end]})
    x = alt.X("birth:Q", scale=scale, title="birth (distance)")
    y = alt.Y("death:Q", scale=scale, title="death (distance)")
    kinds = _kinds(frame)
    chart = alt.layer(
        alt.Chart(data(diagonal)).mark_line(color=GREY, strokeWidth=1, strokeDash=[4, 4]).encode(x=x, y=y),
        alt.Chart(data(rows)).mark_point(filled=True, size=34, opacity=0.55).encode(
            x=x,
            y=y,
            color=colour("feature", kinds),
            shape=alt.Shape("feature:N", scale=alt.Scale(domain=kinds)),
            tooltip=_tooltip(frame),
        ),
    )  # fmt: skip
    caption = "One mark per bar; far above the diagonal is long-lived. Bars that never end are not drawn."
    return finish(chart, title, caption, width=width)


def barcode(frame: pl.DataFrame, title: str = "Barcode", *, longest: int = LONGEST_BARS) -> Any:
    """The bars of one diagram, the longest of each dimension on top; columns dimension, birth, death."""
    finite = frame.filter(pl.col("death").is_finite())
    end = float(finite["death"].max() or 1.0) * 1.06  # type: ignore[arg-type]
    shown = _features(
        frame.with_columns(
            is_endless=pl.col("death").is_infinite(), death=pl.col("death").clip(upper_bound=end)
        )
    )
    shown = (
        shown.sort("dimension", -pl.col("length")).group_by("dimension", maintain_order=True).head(longest)
    )
    rows = shown.with_row_index("place")
    chart = (
        alt.Chart(data(rows))
        .mark_bar(height={"band": 0.72} if len(rows) < 60 else {"band": 1.0})
        .encode(
            x=alt.X("birth:Q", title="distance", scale=alt.Scale(domain=[0, end], nice=False)),
            x2="death:Q",
            y=alt.Y("place:O", axis=None),
            color=colour("feature", _kinds(frame)),
            tooltip=_tooltip(frame),
        )
    )
    left_out = len(frame) - len(rows)
    caption = "One line per component or loop, from the distance where it appears to where it ends."
    if left_out:
        caption += f" The {left_out:,} shortest are not drawn."
    return finish(chart, title, caption, height=int(min(420, max(60, 9 * len(rows)))))


def entropy_by_group(frame: pl.DataFrame, title: str = "Persistence entropy") -> Any:
    """One dot per run and the median of every group; columns group, run, dimension, entropy, num_bars."""
    rows = frame.with_columns(feature=pl.col("dimension").replace_strict(HOMOLOGY, default="higher"))
    groups = names_of(rows, "group")
    y = alt.Y("group:N", sort=groups, title=None, axis=alt.Axis(labelLimit=280, domain=False, ticks=False))
    by = alt.YOffset("feature:N", scale=alt.Scale(paddingInner=0.2))
    x = alt.X("entropy:Q", title="persistence entropy (nats)", scale=alt.Scale(zero=True))
    base = alt.Chart(data(rows))
    kinds = _kinds(frame)
    chart = alt.layer(
        base.mark_point(filled=True, size=50, opacity=0.5).encode(
            x=x, y=y, yOffset=by, color=colour("feature", kinds),
            tooltip=[
                alt.Tooltip("group:N"), alt.Tooltip("run:N"), alt.Tooltip("feature:N"),
                alt.Tooltip("entropy:Q", format=".3f"), alt.Tooltip("num_bars:Q", title="finite bars"),
            ],
        ),
        base.mark_tick(thickness=3, size=18).encode(
            x=alt.X("median(entropy):Q"), y=y, yOffset=by, color=colour("feature", kinds)
        ),
    )  # fmt: skip
    caption = (
        "Dots are runs, ticks medians. ln n is reached by n equal bars, so the number of bars alone moves it."
    )
    return finish(chart, title, caption, height=max(80, 26 * len(groups) * max(len(kinds), 1)))


def _features(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.with_columns(
        feature=pl.col("dimension").replace_strict(HOMOLOGY, default="higher"),
        length=pl.col("death") - pl.col("birth"),
    )


def _kinds(frame: pl.DataFrame) -> list[str]:
    return [HOMOLOGY[k] for k in sorted(HOMOLOGY) if k in frame["dimension"]]


def _tooltip(frame: pl.DataFrame) -> list[alt.Tooltip]:
    fields = [
        alt.Tooltip("feature:N"),
        *(alt.Tooltip(f"{f}:Q", format=".4f") for f in ("birth", "death", "length")),
    ]
    return [*fields, alt.Tooltip("run:N")] if "run" in frame.columns else fields
