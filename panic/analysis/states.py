"""Clusters of the outputs as states that runs pass through: each step has the label of its cluster.

found = states(load(store, "latest"), "PocketText", "text")
found.labels("draw → tell")             # labels (n,) of every run of a network, in step order
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from textwrap import shorten

import numpy as np
import polars as pl
from numpy.typing import NDArray

from panic.analysis.checks import OUTLIER, AnalysisError
from panic.analysis.clustering import Clustering, assign, cluster, freeze
from panic.analysis.data import ExperimentData

MAX_CLUSTERED = 5000  # HDBSCAN on more takes minutes


@dataclass(frozen=True, slots=True, kw_only=True)
class States:
    """Steps with their cluster: what the run is, step, output, label, text, is_known; and what names each.

    Stuck runs go on by their cycle (`is_known`). `rows` of the matrix were clustered: an output as often as
    it was visited, within limits.
    """

    frame: pl.DataFrame
    names: dict[int, str]
    clustering: Clustering
    rows: NDArray[np.int64]

    def labels(
        self, network: str | None = None, *, among: Collection[int] | None = None
    ) -> list[NDArray[np.int64]]:
        """Labels (n,) of every run in step order, or of the runs of a network, or of these runs."""
        rows = self.frame if network is None else self.frame.filter(pl.col("network") == network)
        rows = rows if among is None else rows.filter(pl.col("run").is_in(list(among)))
        groups = rows.sort("run", "step").group_by("run", maintain_order=True)
        return [group["label"].to_numpy() for _, group in groups]


def states(data: ExperimentData, model: str, modality: str, *, min_cluster_size: int = 5) -> States:
    """Clusters of the outputs (HDBSCAN), and every step's label. AnalysisError without outputs.

    An output counts as often as it was visited, up to `min_cluster_size` times, so that one that a run comes
    back to is a cluster of its own. Beyond MAX_CLUSTERED, a sample is clustered and the rest assigned.
    """
    steps = data.steps(model, modality)
    if steps.is_empty():
        raise AnalysisError(f"there are no {modality} vectors of {model}")
    rows, visits = np.unique(steps["row"].to_numpy(), return_counts=True)
    weighted = np.repeat(rows, np.minimum(visits, min_cluster_size))
    chosen = weighted[:: -(-len(weighted) // MAX_CLUSTERED)]
    found = cluster(data.matrix(model)[chosen], min_cluster_size=min_cluster_size)
    if len(chosen) == len(weighted) or not found.num_clusters:
        label_of = dict(zip(chosen.tolist(), found.labels.tolist(), strict=True))
    else:
        reference = freeze(data.matrix(model)[chosen], found)
        label_of = dict(zip(rows.tolist(), assign(reference, data.matrix(model)[rows]).tolist(), strict=True))
    frame = data.visits(model, modality).join(
        data.outputs.select("output", "text"), on="output", how="left", maintain_order="left"
    )
    frame = frame.with_columns(
        label=pl.col("row").replace_strict(label_of, default=OUTLIER, return_dtype=pl.Int64)
    )
    texts = dict(frame.select("row", "text").unique().iter_rows())
    medoids = enumerate(chosen[found.medoids].tolist())
    names = {label: shorten(texts.get(row) or f"output {row}", 52, placeholder="…") for label, row in medoids}
    return States(frame=frame, names=names, clustering=found, rows=chosen.astype(np.int64))
