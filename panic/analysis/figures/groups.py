"""Figures of what distinguishes runs: linear probes of prompt, network and seed."""

from __future__ import annotations

from panic.analysis import charts, readings, tables
from panic.analysis.checks import AnalysisError
from panic.analysis.figures.figure import Figure, Material, drawn


def probe_figures(material: Material) -> list[Figure]:
    """Accuracy of probes under the first embedding model."""
    if not material.models:
        return []
    name, modality = material.models[0]
    title = f"What is left of the start? · {name}"

    def draw() -> Figure:
        scores, absent = tables.probe_table(material.data, name, modality, num_shuffles=19)
        if scores.is_empty():
            raise AnalysisError("; ".join(f"{target}: {why}" for target, why in absent.items()))
        return Figure(
            title=title,
            specs=(charts.spec(charts.probe_scores(scores)),),
            reading=readings.probe_reading(scores, absent),
            caveat=readings.PROBE_CAVEAT,
        )

    return [drawn(title, draw)]
