"""Figures of shape: persistence diagrams, entropies, bars of one run, longest loops against random walks."""

from __future__ import annotations

from typing import Any

import polars as pl

from panic.analysis import against_chance, charts, frames, readings, tables
from panic.analysis.figures.figure import Figure, Material, banded, drawn

MAX_POINTS = 2000  # of one persistence diagram


def diagram_figures(material: Material) -> list[Figure]:
    """Persistence diagrams by embedding model, one chart per network on the same axes; then entropies."""
    title = "Persistence diagrams"
    if not material.experiment.config.get("diagrams"):
        return [Figure(title=title, missing="The config asks for no diagrams.")]
    bars = frames.bars(material.store, material.experiment)
    if bars.is_empty():
        later = "" if material.is_over else " yet"
        return [Figure(title=title, missing=f"No diagrams have been computed{later}.")]
    figures = []
    for (model,), of_model in bars.group_by("model", maintain_order=True):
        specs, notes = _diagrams(of_model)
        figures.append(
            Figure(
                title=f"{title} · {model}",
                specs=tuple(specs),
                reading=f"{readings.diagram_reading(of_model)} Bars that never end are not drawn.{notes}",
                caveat=readings.DIAGRAM_CAVEAT,
            )
        )
        figures += _entropy(material, str(model), of_model)
    return figures


def _diagrams(bars: pl.DataFrame) -> tuple[list[dict[str, Any]], str]:
    """One chart per network that has finite bars, and what is left out."""
    finite = bars.filter(pl.col("death").is_finite())
    longest = finite.sort(pl.col("death") - pl.col("birth"), descending=True)
    largest = float(finite["death"].max() or 0.0)  # type: ignore[arg-type]
    specs, cut, pointlike = [], 0, []
    for (network,), of_network in bars.group_by("network", maintain_order=True):
        shown = longest.filter(pl.col("network") == network)
        if shown.is_empty():
            pointlike.append(str(network))
            continue
        cut += max(0, len(shown) - MAX_POINTS)
        runs = of_network["run"].n_unique()
        name = f"{network}  ({runs:,} run{'s' if runs != 1 else ''})"
        specs.append(charts.spec(charts.persistence(shown.head(MAX_POINTS), name, largest), title=True))
    notes = f" Every run of {', '.join(pointlike)} is a single point." if specs and pointlike else ""
    return specs, notes + (f" The {cut:,} shortest bars are not drawn." if cut else "")


def _entropy(material: Material, model: str, bars: pl.DataFrame) -> list[Figure]:
    """Entropies of all runs beside the bars of the one with most of them."""
    entropies = tables.entropies(material.data, model)
    finite = bars.filter(pl.col("death").is_finite())
    if entropies.is_empty() or finite.is_empty():
        return []
    run = finite.group_by("run", maintain_order=True).len().sort("len", descending=True)["run"][0]
    of_run = bars.filter(pl.col("run") == run)
    specs = [
        charts.spec(charts.entropy_by_group(entropies)),
        charts.spec(charts.barcode(of_run, f"bars of run {run}"), title=True),
    ]
    modality = dict(material.models)[model]
    band = banded(
        lambda: against_chance.entropies_against_walks(material.data, model, modality),
        "Entropy against random walks",
        "entropy of H0 (nats)",
        readings.ENTROPY,
    )
    return [
        Figure(
            title=f"Persistence entropy · {model}",
            specs=(*specs, *band.specs),
            reading=" ".join([readings.entropy_reading(entropies), *band.readings]),
            caveat=readings.ENTROPY_CAVEAT,
        )
    ]


def loop_figures(material: Material) -> list[Figure]:
    """The longest loop of some runs against random walks with the run's own steps."""
    if not material.models or not material.experiment.config.get("diagrams"):
        return []
    name, modality = material.models[0]
    title = f"Longest loops against random walks · {name}"

    def draw() -> Figure:
        table = against_chance.loops_against_walks(material.data, name, modality)
        chart = charts.null_band(table, value_title="length of the longest H1 bar (distance)")
        return Figure(
            title=title,
            specs=(charts.spec(chart),),
            reading=readings.band_reading(table, readings.LONGEST_LOOP),
            caveat=readings.LOOP_CAVEAT,
        )

    return [drawn(title, draw)]
