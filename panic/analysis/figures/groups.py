"""Figures of what distinguishes runs: tests of factors, linear probes, clusters shared with others."""

from __future__ import annotations

from panic.analysis import charts, comparisons, readings, tables
from panic.analysis.checks import AnalysisError
from panic.analysis.figures.figure import Figure, Material, drawn
from panic.analysis.loading import load
from panic.store import reading

MAX_EXPERIMENTS = 6  # compared with each other


def effect_figures(material: Material) -> list[Figure]:
    """Tests of prompt, network, seed and models on where runs end and on their diagrams."""
    if not material.models:
        return []
    name, modality = material.models[0]
    title = f"What makes the difference? · {name}"

    def draw() -> Figure:
        table, absent = comparisons.what_matters(material.data, name, modality)
        if table.is_empty():
            reasons = "; ".join(f"{what}: {why}" for what, why in absent.items())
            raise AnalysisError(reasons or "all runs are of one prompt, network and seed")
        return Figure(
            title=title,
            specs=(charts.spec(charts.group_effects(table)),),
            reading=readings.effects_reading(table, absent),
            caveat=readings.EFFECTS_CAVEAT,
        )

    return [drawn(title, draw)]


def share_figures(material: Material) -> list[Figure]:
    """This experiment's clusters, frozen, and how much of other experiments of the store lies in them."""
    if not material.models:
        return []
    name, modality = material.models[0]
    own = material.experiment
    others = [row for row in reading.experiments(material.store) if row.id != own.id][-MAX_EXPERIMENTS + 1 :]
    found = {own.name: material.data}
    for row in others:
        label = row.name if row.name not in found else f"{row.name} ({row.uid[:8]})"
        found[label] = load(material.store, runs=material.some_runs(row.id))
    title = f"Do other experiments end up in the same places? · {name}"

    def draw() -> Figure:
        reference = comparisons.reference_of(material.data, name, modality)
        shares = comparisons.cluster_shares(reference, found, name, modality)
        return Figure(
            title=title,
            specs=(charts.spec(charts.cluster_shares(shares)),),
            reading=readings.shares_reading(shares, own.name),
            caveat=readings.SHARES_CAVEAT,
        )

    seen = [label for label, data in found.items() if len(tables.steps_of(data, name, modality))]
    return [drawn(title, draw)] if len(seen) > 1 else []


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
