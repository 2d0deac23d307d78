"""Figures of states: a map of the outputs, clusters in time, moves, dwells, recurrences."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from panic.analysis import against_chance, charts, dynamics, frames, readings, tables
from panic.analysis.checks import AnalysisError
from panic.analysis.figures.figure import Figure, Material, banded, drawn
from panic.store import reading

MAX_PICTURES = 300  # that hovering over a map shows
MAX_TIMELINES = 40  # runs
MAX_STATES = 12  # in a graph
MAX_GRAPHS = 6  # networks
MAX_CELLS = 4000  # of a timeline
RECURRENCES = 6  # runs
MAX_SIDE = 100  # steps of a recurrence plot


def map_figures(material: Material) -> list[Figure]:
    """Outputs in the plane of their two main directions, one figure per embedding model."""

    def draw(title: str, model: str, modality: str) -> Figure:
        places, share = tables.place_map(material.data, model, modality, max_points=2500)
        places = _with_pictures(material, places, modality)
        factors = [f for f in ("network", "prompt") if 1 < places[f].n_unique() <= 7] or ["step"]
        specs = [
            charts.spec(charts.embedding_map(places, f"by {factor}", by=factor), title=len(factors) > 1)
            for factor in factors
        ]
        return Figure(
            title=title,
            specs=tuple(specs),
            reading=readings.map_reading(places, share, modality),
            caveat=readings.MAP_CAVEAT,
        )

    return [
        drawn(title, lambda t=title, n=name, m=modality: draw(t, n, m))  # type: ignore[misc]
        for name, modality in material.models
        for title in [f"Map · {name}"]
    ]


def _with_pictures(material: Material, places: pl.DataFrame, modality: str) -> pl.DataFrame:
    """A column `image` with the picture itself, or the one that the text was made from."""
    digests = material.data.outputs.filter(pl.col("modality") == "image").select("output", "digest")
    source = "output" if modality == "image" else "input"
    steps = material.data.invocations.select("run", "step", pl.col(source).alias("picture"))
    found = places.join(steps, on=["run", "step"], how="left", maintain_order="left").join(
        digests.rename({"output": "picture"}), on="picture", how="left", maintain_order="left"
    )
    kept = found["digest"].drop_nulls().unique(maintain_order=True)
    kept = kept.gather_every(max(1, -(-len(kept) // MAX_PICTURES))) if len(kept) else kept
    uris = {digest: material.thumbnails.get(digest)[0] for digest in kept}
    image = pl.col("digest").replace_strict(uris, default=None, return_dtype=pl.String)
    made = found.with_columns(image=image if uris else pl.lit(None, pl.String)).drop("picture", "digest")
    return made.drop("image") if made["image"].is_null().all() else made


def cluster_figures(material: Material) -> list[Figure]:
    """Timelines, moves and dwells of clusters, under the first embedding model."""
    if not material.models:
        return []
    name, _ = material.models[0]
    return [
        drawn(f"Clusters in time · {name}", lambda: _timeline(material, f"Clusters in time · {name}")),
        drawn(f"Where it stays · {name}", lambda: _dwells(material, f"Where it stays · {name}")),
    ]


def _timeline(material: Material, title: str) -> Figure:
    states = material.states
    runs = frames.spread(
        [r for r in reading.runs(material.store, material.experiment.id) if r.id in set(states.frame["run"])],
        MAX_TIMELINES,
    )
    shown = states.frame.filter(pl.col("run").is_in([run.id for run in runs]))
    shown = frames.thinned(shown, max(20, MAX_CELLS // max(len(runs), 1)))
    return Figure(
        title=title,
        specs=(charts.spec(charts.cluster_timeline(shown, names=states.names)),),
        reading=readings.cluster_reading(
            states.clustering, int((~states.frame["is_known"]).sum()), _agreement(material)
        ),
        caveat=readings.CLUSTER_CAVEAT,
    )


def _agreement(material: Material) -> float | None:
    """Median adjusted Rand index with clusterings of parts; None where there is none."""
    try:
        return float(np.median(tables.cluster_stability(material.data, *material.models[0])))
    except AnalysisError:
        return None


def _dwells(material: Material, title: str) -> Figure:
    states = material.states
    curves = tables.dwell_curves(states)
    specs = [charts.spec(charts.dwell_survival(curves))]
    band = banded(
        lambda: against_chance.dwells_against_shuffles(states),
        "Dwells against random order",
        "mean dwell (outputs)",
        readings.DWELL,
    )
    specs += band.specs
    groups = states.frame.group_by("network", maintain_order=True)
    for (network,), _ in list(groups)[:MAX_GRAPHS]:  # of each, for a mixture of chains is none
        graph = _moves(states, str(network))
        specs += [] if graph is None else [charts.spec(graph, title=True)]
    return Figure(
        title=title,
        specs=tuple(specs),
        reading=" ".join([readings.dwell_reading(dynamics.dwell_times(states.labels())), *band.readings]),
        caveat=readings.DWELL_CAVEAT,
    )


def _moves(states: tables.States, network: str) -> Any:
    """The graph of the clusters where a network's runs spend most steps; None without moves among them."""
    labels = states.labels(network)
    together = np.concatenate(labels)
    counts = np.bincount(together[together >= 0], minlength=states.clustering.num_clusters)
    most = np.sort(np.argsort(-counts, kind="stable")[:MAX_STATES])
    most = most[counts[most] > 0]
    places = np.full(len(counts) + 1, -1)  # the last one is that of -1, what lies outside
    places[most] = np.arange(len(most))
    labels = [places[run] for run in labels]
    if len(most) < 2 or not dynamics.transition_counts(labels, len(most)).sum():
        return None
    return charts.transition_graph(
        dynamics.transition_matrix(labels, len(most)),
        network,
        weights=counts[most] / counts[most].sum(),
        names=states.names,
        numbers=most.tolist(),
    )


def recurrence_figure(material: Material) -> list[Figure]:
    """Where runs say or draw exactly the same again; some runs, of every network and prompt."""
    begun = [run for run in reading.runs(material.store, material.experiment.id) if run.num_steps > 3]
    chosen = frames.spread(begun, RECURRENCES)
    specs, shares = [], []
    for run in chosen:
        stored = material.data.invocations.filter(pl.col("run") == run.id)
        steps = frames.continued(stored, material.data.runs, limit=2 * run.num_steps)
        one = steps.filter(pl.col("modality").cast(pl.String) == "text")
        one = one if len(one) > 1 else steps
        if len(one) < 2:
            continue
        one = one.tail(MAX_SIDE)
        stride = int(one["step"].diff().drop_nulls().min() or 1)  # type: ignore[arg-type]
        symbols = one["output"].to_numpy()
        matrix = dynamics.recurrence_matrix(symbols)
        shares.append(dynamics.recurrence(symbols).rate)
        kind = "fresh noise" if run.seed == -1 else f"seed {run.seed}"
        label = f"run {run.id}, {kind}{', stuck' if run.period is not None else ''}"
        chart = charts.recurrence_plot(matrix, label, stride=stride, first=int(one["step"][0]))
        specs.append(charts.spec(chart, title=True))
    if not specs:
        return []
    return [
        Figure(
            title="Has it been here before?",
            specs=tuple(specs),
            reading=readings.recurrence_reading(shares, len(begun)),
            caveat=readings.RECURRENCE_CAVEAT,
        )
    ]
