"""Clusters of the outputs as states that runs pass through: each step has the label of its cluster.

found = states(load(store, "latest"), "PocketText", "text")
found.labels("draw → tell")             # labels (n,) of every run of a network, in step order
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from panic.analysis.checks import OUTLIER, AnalysisError
from panic.analysis.clustering import Clustering, assign, cluster, freeze
from panic.analysis.data import ExperimentData
from panic.analysis.factors import trajectories
from panic.analysis.shortening import shorten

MAX_CLUSTERED = 3000  # HDBSCAN takes the square of this: 5000 x 256 four times were 40 % of a long report
MIN_CLUSTER_SIZE = 5
MAX_CLUSTERED_AGAIN = 9000  # in all repeats together
NAME = 52  # characters of a text that stands for a cluster


@dataclass(frozen=True, slots=True, kw_only=True)
class States:
    """Steps with their cluster: what the run is, step, output, label, text, is_known; and what names each.

    The text of an image is the one that it was drawn from.
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


def states(
    data: ExperimentData, model: str, modality: str, *, min_cluster_size: int = MIN_CLUSTER_SIZE
) -> States:
    """Clusters of the outputs (HDBSCAN), and every step's label. AnalysisError without outputs.

    An output counts as often as it was visited, up to `min_cluster_size` times, so that one that runs come
    back to, or are stuck at, is a cluster of its own. Beyond MAX_CLUSTERED, a sample is
    clustered and the rest assigned. An output with a zero vector is in no cluster.
    """
    visits = data.visits(model, modality)
    directed = _directed(visits, data, model)
    if directed.is_empty():
        what = "vectors" if visits.is_empty() else "vectors other than zero"
        raise AnalysisError(f"there are no {modality} {what} of {model}")
    chosen, is_sample = _chosen(directed, min_cluster_size)
    found = cluster(data.matrix(model)[chosen], min_cluster_size=min_cluster_size)
    label_of = dict(zip(chosen.tolist(), found.labels.tolist(), strict=True))
    if is_sample and found.num_clusters:
        rows = directed["row"].unique().to_numpy()
        reference = freeze(data.matrix(model)[chosen], found)
        label_of = dict(zip(rows.tolist(), assign(reference, data.matrix(model)[rows]).tolist(), strict=True))
    frame = visits.join(_texts(data, modality), on="output", how="left", maintain_order="left").with_columns(
        label=pl.col("row").replace_strict(label_of, default=OUTLIER, return_dtype=pl.Int64)
    )
    texts = dict(frame.select("row", "text").unique().iter_rows())
    medoids = enumerate(chosen[found.medoids].tolist())
    names = {label: shorten(texts.get(row) or f"output {row}", NAME) for label, row in medoids}
    return States(frame=frame, names=distinct(names), clustering=found, rows=chosen)


def distinct(names: Mapping[int, str]) -> dict[int, str]:
    """Names with the cluster's number behind those that several have: charts have one row per name.

    Long medoids may begin alike, and the images of two clusters may be drawn from one text.
    """
    times = Counter(names.values())
    return {label: f"{name} ({label})" if times[name] > 1 else name for label, name in names.items()}


def _directed(visits: pl.DataFrame, data: ExperimentData, model: str) -> pl.DataFrame:
    """The visits of outputs whose vectors have a direction."""
    rows = visits["row"].unique().to_numpy()
    return visits.filter(pl.col("row").is_in(rows[data.matrix(model)[rows].any(axis=1)]))


def _texts(data: ExperimentData, modality: str) -> pl.DataFrame:
    """output and its text; of an image the first one that it was drawn from."""
    texts = data.outputs.select("output", "text")
    if modality == "text":
        return texts
    made = data.invocations.filter(pl.col("modality").cast(pl.String) == modality)
    made = made.select("output", "input").unique("output", keep="first")
    return made.join(texts.rename({"output": "input"}), on="input", how="left").select("output", "text")


def agreement(
    data: ExperimentData,
    model: str,
    modality: str,
    found: States,
    *,
    repeats: int = 8,
    min_cluster_size: int = MIN_CLUSTER_SIZE,
    seed: int = 0,
) -> NDArray[np.float64]:
    """Adjusted Rand indices of these clusters with those that are found without a fifth of the trajectories.

    At most `repeats` of them, of the outputs that the remaining runs visit; 1 means the same, about 0 chance;
    outliers count as a cluster. AnalysisError without clusters, when nothing agrees with nothing, which the
    index calls perfect, and with fewer than 3 trajectories, which leaves nothing that could be left out.
    """
    from sklearn.metrics import adjusted_rand_score

    if not found.clustering.num_clusters:
        raise AnalysisError("there are no clusters whose agreement could be asked for")
    visits = _directed(data.visits(model, modality), data, model)
    visits = visits.join(trajectories(data), on="run", maintain_order="left")
    units = visits["trajectory"].unique().sort().to_numpy()
    if len(units) < 3:
        raise AnalysisError(f"agreement needs 3 runs that are no copies, found {len(units)}")
    label_of = dict(found.frame.select("row", "label").unique().iter_rows())
    rng = np.random.default_rng(seed)
    indices = []
    for _ in range(max(2, min(repeats, MAX_CLUSTERED_AGAIN // len(found.rows)))):
        kept = rng.choice(units, size=min(len(units) - 1, round(0.8 * len(units))), replace=False)
        rows, _ = _chosen(visits.filter(pl.col("trajectory").is_in(kept)), min_cluster_size)
        again = cluster(data.matrix(model)[rows], min_cluster_size=min_cluster_size)
        indices.append(adjusted_rand_score([label_of[row] for row in rows.tolist()], again.labels))
    return np.array(indices)


def _chosen(visits: pl.DataFrame, min_cluster_size: int) -> tuple[NDArray[np.int64], bool]:
    """The rows to cluster, as often as they were visited up to a limit, and whether they are a sample."""
    rows, counts = np.unique(visits["row"].to_numpy(), return_counts=True)
    weighted = np.repeat(rows.astype(np.int64), np.minimum(counts, min_cluster_size))
    stride = -(-len(weighted) // MAX_CLUSTERED)
    return weighted[::stride], stride > 1
