"""Which shape has its path? Persistence diagrams of all runs, one chart per network on the same axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt
import polars as pl

from panic.analysis.charts import GREY, WIDTH, colour, counted, data, finish, names_of
from panic.analysis.checks import AnalysisError
from panic.analysis.evidence import Evidence, Statistic, View
from panic.analysis.grouping import grouped_by

TITLE = "Persistence diagrams"
CAVEAT = (
    "All runs of a network are drawn together. The diagrams ignore the order of the outputs, and random "
    "walks of the same size make bars, too: without such a control a long bar is a hint, not a finding. "
    "Of several settings of diagrams, those that the config names first are drawn."
)
HOMOLOGY = {0: "H0 components", 1: "H1 loops", 2: "H2 voids"}
MAX_POINTS = 2000  # of one chart
MAX_CHARTS = 12  # networks


def views(evidence: Evidence) -> Sequence[View | None]:
    """Every embedding model that has diagrams; None, to say why, where there are no diagrams at all."""
    if not evidence.experiment.config.get("diagrams") or evidence.whole.bars.is_empty():
        return [None]
    modalities = dict(evidence.views)
    models = names_of(evidence.whole.bars, "model")
    return [View(model, modalities.get(model, "text")) for model in models]


def _joins(evidence: Evidence, view: View) -> pl.DataFrame:
    """The median distance within which outputs of a run join their nearest group: of its finite H0 bars."""
    bars = evidence.data.bars_under(view.model).filter(pl.col("dimension") == 0, pl.col("death").is_finite())
    return bars.group_by("run", maintain_order=True).agg(value=pl.col("death").median())


STATISTIC = Statistic(what="median length of finite H0 bars (in the metric of the diagrams)", of=_joins)


def table(evidence: Evidence, view: View | None) -> pl.DataFrame:
    """Bars of all runs under a model: model, network, run, dimension, metric, birth, death."""
    if not evidence.experiment.config.get("diagrams"):
        raise AnalysisError("The config asks for no diagrams.")
    if view is None:
        raise AnalysisError(f"No diagrams have been computed{'' if evidence.is_over else ' yet'}.")
    return bars_under(evidence, view.model)


def bars_under(evidence: Evidence, model: str) -> pl.DataFrame:
    """The same bars, of any model; none where it has no diagrams."""
    networks = evidence.whole.runs.select("run", "network")
    bars = evidence.whole.bars_under(model)
    return bars.join(networks, on="run", maintain_order="left").select(
        "model", "network", "run", "dimension", "metric", "birth", "death"
    )


def chart(bars: pl.DataFrame) -> dict[str, Any]:
    """One chart per network that has finite bars, the longest of them drawn; of some networks."""
    finite = bars.filter(pl.col("death").is_finite())
    longest = finite.sort(pl.col("death") - pl.col("birth"), descending=True)
    largest = float(finite["death"].max() or 0.0)  # type: ignore[arg-type]
    charts: dict[str, Any] = {}
    for network in names_of(bars, "network"):
        shown = longest.filter(pl.col("network") == network)
        if not shown.is_empty() and len(charts) < MAX_CHARTS:
            runs = bars.filter(pl.col("network") == network)["run"].n_unique()
            name = f"{network}  ({runs:,} run{'s' if runs != 1 else ''})"
            charts[name] = persistence(shown.head(MAX_POINTS), name, largest)
    return charts


def sentence(bars: pl.DataFrame) -> str:
    """What the bars say, and which of them are not drawn."""
    of_network = bars.group_by("network", maintain_order=True).agg(
        num_finite=pl.col("death").is_finite().sum().cast(pl.Int64)
    )
    cut = int((of_network["num_finite"] - MAX_POINTS).clip(lower_bound=0).sum())
    pointlike = of_network.filter(pl.col("num_finite") == 0)["network"].to_list()
    notes = ""
    if pointlike and len(pointlike) < len(of_network):
        notes += f" Every run of {', '.join(pointlike)} is a single point."
    if cut:
        notes += f" The {cut:,} shortest bars are not drawn."
    if len(of_network) - len(pointlike) > MAX_CHARTS:
        notes += f" No more than {MAX_CHARTS} {grouped_by(of_network['network'], 2)} are drawn."
    return f"{_lengths(bars)} Bars that never end are not drawn.{notes}"


def _lengths(frame: pl.DataFrame) -> str:
    """What the bars of one model say: typical death of components, longest loop."""
    finite = frame.filter(pl.col("death").is_finite()).with_columns(length=pl.col("death") - pl.col("birth"))
    components = finite.filter(pl.col("dimension") == 0)
    loops = finite.filter(pl.col("dimension") == 1).sort("length", descending=True)
    if components.is_empty():
        return "Every run is a single point, so there are no finite bars."
    typical = float(components["death"].median() or 0.0)  # type: ignore[arg-type]
    runs = counted(frame["run"].n_unique(), "run")
    text = (
        f"Half of the distinct outputs of {runs} join their nearest group within a distance of {typical:.2g}"
    )
    if loops.is_empty():
        return f"{text}; there are no loops."
    longest = loops.row(0, named=True)
    return (
        f"{text}; of {len(loops):,} loop{'s' if len(loops) != 1 else ''} the longest lives "
        f"from a distance of {longest['birth']:.2g} to one of {longest['death']:.2g} (run {longest['run']}, "
        f"{longest['network']})."
    )


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
    rows = features(finite)
    diagonal = pl.DataFrame({"birth": [0.0, end], "death": [0.0, end]})
    unit = distance_of(frame)
    x = alt.X("birth:Q", scale=scale, title=f"birth ({unit})")
    y = alt.Y("death:Q", scale=scale, title=f"death ({unit})")
    of = kinds(frame)
    chart = alt.layer(
        alt.Chart(data(diagonal)).mark_line(color=GREY, strokeWidth=1, strokeDash=[4, 4]).encode(x=x, y=y),
        alt.Chart(data(rows)).mark_point(filled=True, size=34, opacity=0.55).encode(
            x=x,
            y=y,
            color=colour("feature", of),
            shape=alt.Shape("feature:N", scale=alt.Scale(domain=of)),
            tooltip=tooltip(frame),
        ),
    )  # fmt: skip
    caption = "One mark per bar; far above the diagonal is long-lived. Bars that never end are not drawn."
    return finish(chart, title, caption, width=width)


def distance_of(bars: pl.DataFrame) -> str:
    """What bars are measured in, by their column metric, if they have it and agree in it."""
    metrics = bars["metric"].drop_nulls().unique().to_list() if "metric" in bars.columns else []
    return f"{metrics[0].replace('euclid', 'Euclid')} distance" if len(metrics) == 1 else "distance"


def features(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.with_columns(
        feature=pl.col("dimension").replace_strict(HOMOLOGY, default="higher"),
        length=pl.col("death") - pl.col("birth"),
    )


def kinds(frame: pl.DataFrame) -> list[str]:
    return [HOMOLOGY[k] for k in sorted(HOMOLOGY) if k in frame["dimension"]]


def tooltip(frame: pl.DataFrame) -> list[alt.Tooltip]:
    fields = [
        alt.Tooltip("feature:N"),
        *(alt.Tooltip(f"{f}:Q", format=".4f") for f in ("birth", "death", "length")),
    ]
    return [*fields, alt.Tooltip("run:N")] if "run" in frame.columns else fields
