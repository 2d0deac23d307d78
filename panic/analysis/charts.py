"""Charts, one function each: a polars frame in, an altair chart out. They read well on light and dark ground.

The colours are those of Okabe and Ito, which people with colour-blindness can tell apart. Nothing is
registered with altair: `spec` gives a chart without any theme and `THEMES` what to draw it with, so a page
can follow the reader's light or dark setting; `themed` gives a chart that stands alone.

    themed(time_by_model(times(store, experiment))).save("time.html", inline=True)
"""

from __future__ import annotations

from typing import Any

import altair as alt
import polars as pl

OKABE_ITO = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#B8A800")
OKABE_ITO_DARK = ("#56B4E9", "#E69F00", "#2CC295", "#E093BE", "#F0793A", "#8FB8FF", "#F0E442")
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', sans-serif"
HOMOLOGY = {0: "H0 components", 1: "H1 loops", 2: "H2 voids"}
STAGES = ("loops", "embeddings", "diagrams")


def theme(ink: str, faint: str, grid: str, colours: tuple[str, ...]) -> dict[str, Any]:
    """A Vega-Lite config: no frame, light grid, small grey labels."""
    text = {"labelColor": faint, "titleColor": faint, "labelFont": FONT, "titleFont": FONT}
    return {
        "background": "transparent",
        "font": FONT,
        "view": {"stroke": None},
        "range": {"category": list(colours)},
        "axis": {
            **text, "labelFontSize": 11, "titleFontSize": 11, "titleFontWeight": "normal", "titlePadding": 8,
            "gridColor": grid, "domainColor": grid, "tickColor": grid, "tickSize": 4, "labelPadding": 4,
        },
        "legend": {
            **text, "labelColor": ink, "labelFontSize": 12, "titleFontSize": 11, "titleFontWeight": "normal",
            "labelLimit": 420, "symbolStrokeWidth": 3,
        },
        "title": {
            "color": ink, "font": FONT, "fontSize": 13, "fontWeight": 600, "anchor": "start", "offset": 8,
        },
        "text": {"color": ink, "font": FONT},
    }  # fmt: skip


THEMES = {
    "light": theme("#1d2329", "#5b6570", "#e6e8eb", OKABE_ITO),
    "dark": theme("#e8eaed", "#9aa4ae", "#2e353c", OKABE_ITO_DARK),
}


def spec(chart: alt.TopLevelMixin) -> dict[str, Any]:
    """The Vega-Lite specification without theme, for a page that brings its own."""
    found: dict[str, Any] = chart.to_dict()
    found.pop("config", None)
    return found


def themed(chart: Any, mode: str = "light") -> Any:
    """The chart with the house theme, to save or show alone."""
    alone = chart.copy(deep=False)
    alone.config = alt.Config.from_dict(THEMES[mode])
    return alone


def time_by_model(frame: pl.DataFrame) -> Any:
    """Bars of seconds per model, coloured by stage, of a frame as `frames.times` gives it."""
    rows = frame.with_columns(
        label=pl.col("seconds").map_elements(seconds, return_dtype=pl.String),
        per_item_s=pl.col("seconds") / pl.col("items"),
    )
    longest = float(frame["seconds"].max() or 0.0)  # type: ignore[arg-type]
    bars = alt.Chart(_data(rows)).encode(
        y=alt.Y(
            "name:N",
            sort=frame["name"].to_list(),
            title=None,
            axis=alt.Axis(labelLimit=260, domain=False, ticks=False),
        ),
        x=alt.X(
            "seconds:Q",
            title="seconds of work",
            axis=alt.Axis(tickCount=8),
            scale=alt.Scale(domain=[0, longest * 1.15 or 1]),
        ),
        tooltip=[
            alt.Tooltip("name:N", title="model"),
            alt.Tooltip("stage:N"),
            alt.Tooltip("seconds:Q", format=",.3~f"),
            alt.Tooltip("calls:Q", format=",", title="calls (batches)"),
            alt.Tooltip("items:Q", format=",", title="items"),
            alt.Tooltip("per_item_s:Q", format=",.3~s", title="seconds per item"),
        ],
    )
    colour = alt.Color(
        "stage:N", scale=alt.Scale(domain=list(STAGES)), legend=alt.Legend(orient="top", title=None)
    )
    return alt.layer(
        bars.mark_bar(cornerRadiusEnd=3, height={"band": 0.7}).encode(color=colour),
        bars.mark_text(align="left", dx=6, fontSize=11).encode(text="label:N"),
    ).properties(width="container", height=30 * len(frame))


def drift(bands: pl.DataFrame, lines: pl.DataFrame) -> Any:
    """Median, quartile band and single runs of the distance from the prompt by step, by network.

    `bands` as `frames.drift_bands` gives them, `lines` as `frames.drift` does. Clicking a network in the
    legend fades the others.
    """
    chosen = alt.selection_point(fields=["network"], bind="legend")
    networks = bands["network"].unique(maintain_order=True).to_list()
    colour = alt.Color(
        "network:N",
        scale=alt.Scale(domain=networks),
        legend=alt.Legend(orient="top", title=None, columns=1, symbolOpacity=1),
    )
    x = alt.X("step:Q", title="step", axis=alt.Axis(grid=False, tickMinStep=1))
    title = "cosine distance from the prompt"

    def visible(opacity: float) -> Any:
        return alt.condition(chosen, alt.value(opacity), alt.value(opacity / 12))

    single = alt.Chart(_data(lines)).mark_line(strokeWidth=0.8)
    over = alt.Chart(_data(bands))
    return alt.layer(
        single.encode(
            x=x, y=alt.Y("distance:Q", title=title), detail="run:N", color=colour, opacity=visible(0.22)
        ),
        over.mark_area().encode(
            x=x, y=alt.Y("low:Q", title=title), y2="high:Q", color=colour, opacity=visible(0.16)
        ),
        over.mark_line(strokeWidth=2.6).encode(
            x=x, y=alt.Y("median:Q", title=title), color=colour, opacity=visible(1.0)
        ),
        over.mark_point(size=70, filled=True, opacity=0).encode(
            x=x,
            y="median:Q",
            color=colour,
            tooltip=[
                alt.Tooltip("network:N"),
                alt.Tooltip("step:Q"),
                alt.Tooltip("median:Q", format=".3f"),
                alt.Tooltip("low:Q", format=".3f", title="lower quartile"),
                alt.Tooltip("high:Q", format=".3f", title="upper quartile"),
                alt.Tooltip("num_runs:Q", title="runs"),
            ],
        ),
    ).add_params(chosen).properties(width="container", height=330)  # fmt: skip


def persistence(frame: pl.DataFrame, title: str, largest: float | None = None) -> Any:
    """Births and deaths of the finite bars with the diagonal, coloured by dimension.

    `largest` is the end of both axes; give the same one to diagrams that are to be compared.
    """
    finite = frame.filter(pl.col("death").is_finite())
    end = largest if largest is not None else float(finite["death"].max() or 0.0)  # type: ignore[arg-type]
    scale = alt.Scale(domain=[0, end * 1.04 or 1.0], nice=False)
    rows = finite.with_columns(
        feature=pl.col("dimension").replace_strict(HOMOLOGY, default="higher"),
        length=pl.col("death") - pl.col("birth"),
    )
    kinds = alt.Scale(domain=[HOMOLOGY[k] for k in sorted(HOMOLOGY) if k in frame["dimension"]])
    diagonal = pl.DataFrame({"birth": [0.0, end * 1.04 or 1.0], "death": [0.0, end * 1.04 or 1.0]})
    legend = alt.Legend(orient="top", title=None, symbolOpacity=1)
    x = alt.X("birth:Q", scale=scale, title="birth (distance)")
    y = alt.Y("death:Q", scale=scale, title="death (distance)")
    return alt.layer(
        alt.Chart(_data(diagonal))
        .mark_line(color="#8a939c", strokeWidth=1, strokeDash=[4, 4])
        .encode(x=x, y=y),
        alt.Chart(_data(rows)).mark_point(filled=True, size=34, opacity=0.55).encode(
            x=x,
            y=y,
            color=alt.Color("feature:N", scale=kinds, legend=legend),
            shape=alt.Shape("feature:N", scale=kinds, legend=legend),
            tooltip=[
                alt.Tooltip("feature:N"),
                alt.Tooltip("birth:Q", format=".4f"),
                alt.Tooltip("death:Q", format=".4f"),
                alt.Tooltip("length:Q", format=".4f"),
                alt.Tooltip("run:N"),
            ],
        ),
    ).properties(width="container", height=300, title=alt.Title(title, limit=420))  # fmt: skip


def seconds(value: float) -> str:
    """A duration as people say it."""
    for unit, size in (("h", 3600.0), ("min", 60.0), ("s", 1.0), ("ms", 1e-3)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value * 1e6:.3g} µs"


def _data(frame: pl.DataFrame) -> alt.InlineData:
    """Rows in the specification, to four significant digits, as one CSV text.

    Altair copies and checks every value of a list of rows (6 s for 12,000) and stops at 5,000 otherwise.
    """
    short = frame.with_columns(pl.col(pl.Float64).round_sig_figs(4))
    return alt.InlineData(values=short.write_csv(), format=alt.CsvDataFormat(type="csv"))
