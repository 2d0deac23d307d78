"""Clusters of embeddings: what a run says or shows, as labels, with how far they can be trusted.

HDBSCAN leaves 60-70 % of caption embeddings outside all clusters, so the share outside stands beside every
result; k-means leaves nothing out and always finds as many clusters as it is asked for. Labels of different
experiments compare only against one frozen reference.

    found = cluster(matrix)                          # labels (n,), -1 = outlier; medoids; sizes
    reference = freeze(matrix, found)                # keep it: reference.save("reference.npz")
    assign(reference, other_matrix)                  # labels of another experiment
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import ArrayLike, NDArray

from panic.analysis.checks import OUTLIER, AnalysisError, labels, unit, vectors

Array = NDArray[np.float64]
Labels = NDArray[np.int64]
METHODS = ("hdbscan", "kmeans")
SCATTERED = 0.9  # of the mean squared distance of all points: unrelated ones are within 2 % of it


@dataclass(frozen=True, slots=True, kw_only=True)
class Clustering:
    """Labels (n,) from 0 by falling size, -1 for outliers; the row of each cluster's medoid; sizes."""

    labels: Labels
    medoids: Labels
    sizes: Labels
    method: str

    @property
    def num_clusters(self) -> int:
        return len(self.sizes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """Frozen clusters: centres (k, d) of length one, and radii (k,) within which a point belongs to them.

    `names`: what stands for each, such as its medoid's text. `fingerprint`: the embedding model's, so that
    vectors of another one are not measured by it ("" where nobody said).
    """

    centres: Array
    radii: Array
    names: tuple[str, ...] = ()
    fingerprint: str = ""

    def save(self, path: str | Path) -> None:
        """Write as .npz."""
        names = np.array(self.names, dtype=np.str_)
        with Path(path).open("wb") as file:
            np.savez(file, centres=self.centres, radii=self.radii, names=names, fingerprint=self.fingerprint)

    @staticmethod
    def load(path: str | Path) -> Reference:
        """Read what `save` wrote. AnalysisError for another file."""
        try:
            with np.load(path, allow_pickle=False) as data:
                return Reference(
                    centres=data["centres"],
                    radii=data["radii"],
                    names=tuple(str(name) for name in data["names"]),
                    fingerprint=str(data["fingerprint"]),
                )
        except (KeyError, ValueError, OSError, EOFError, BadZipFile) as error:
            raise AnalysisError(f"{path} is no frozen reference: {error}") from error


def cluster(
    values: ArrayLike,
    *,
    method: str = "hdbscan",
    num_clusters: int | None = None,
    min_cluster_size: int = 5,
    seed: int = 0,
) -> Clustering:
    """Clusters of the directions of vectors (n, d).

    `kmeans` needs `num_clusters`; `hdbscan` finds the number, and fewer than `min_cluster_size` points are
    all outliers; a cluster that is no denser than all points together is none. Equal points are one cluster.
    AnalysisError for NaN, zero vectors, or more clusters than distinct points.
    """
    points = unit(values)
    if method not in METHODS:
        raise AnalysisError(f"unknown method {method!r}", hint=f"known: {', '.join(METHODS)}")
    if min_cluster_size < 2:
        raise AnalysisError(f"min_cluster_size must be 2 or more, found {min_cluster_size}")
    num_distinct = len(np.unique(points, axis=0)) if len(points) else 0
    if method == "kmeans":
        if num_clusters is None or not 1 <= num_clusters <= max(num_distinct, 1):
            raise AnalysisError(f"num_clusters must be 1 to {max(num_distinct, 1)}, found {num_clusters}")
        raw = _kmeans(points, num_clusters, seed) if len(points) else np.empty(0, dtype=np.int64)
    elif len(points) < min_cluster_size:
        raw = np.full(len(points), OUTLIER)
    elif num_distinct == 1:
        raw = np.zeros(len(points), dtype=np.int64)
    else:
        from sklearn.cluster import HDBSCAN

        raw = HDBSCAN(min_cluster_size=min_cluster_size, copy=True).fit_predict(points)
        raw = _without_rests(points, raw, min_cluster_size)
    return _described(points, raw.astype(np.int64), method)


def freeze(
    values: ArrayLike,
    clustering: Clustering,
    *,
    quantile: float = 0.99,
    names: Sequence[str] = (),
    fingerprint: str = "",
) -> Reference:
    """Centres and radii of clusters, against which any vectors can be labelled by `assign`.

    A radius holds `quantile` of the cluster's members. AnalysisError without clusters.
    """
    points = unit(values)
    if len(points) != len(clustering.labels):
        raise AnalysisError(f"{len(points)} vectors and {len(clustering.labels)} labels do not pair up")
    if not clustering.num_clusters:
        raise AnalysisError("there are no clusters to freeze", hint="take more points, or kmeans")
    centres, radii = [], []
    for number in range(clustering.num_clusters):
        members = points[clustering.labels == number]
        centre = members.mean(axis=0)
        centre /= max(float(np.linalg.norm(centre)), np.finfo(float).tiny)
        centres.append(centre)
        radii.append(np.quantile(np.linalg.norm(members - centre, axis=1), quantile))
    return Reference(
        centres=np.array(centres), radii=np.array(radii), names=tuple(names), fingerprint=fingerprint
    )


def assign(reference: Reference, values: ArrayLike, *, slack: float = 1.0) -> Labels:
    """Label (n,) of the nearest centre, -1 beyond `slack` times its radius (and float32's last digits)."""
    points = unit(values)
    if not len(points):
        return np.empty(0, dtype=np.int64)
    if points.shape[1] != reference.centres.shape[1]:
        raise AnalysisError(
            f"vectors have {points.shape[1]} coordinates, the reference {reference.centres.shape[1]}",
            hint="a reference belongs to one embedding model",
        )
    cosine = points @ reference.centres.T
    nearest = cosine.argmax(axis=1)
    distance = np.sqrt(np.maximum(2 - 2 * cosine[np.arange(len(points)), nearest], 0))
    return np.where(distance <= slack * reference.radii[nearest] + 1e-6, nearest, OUTLIER)


def medoids(values: ArrayLike, of_labels: ArrayLike) -> Labels:
    """Row (k,) of each label's medoid: the member with the least sum of squared distances to the others.

    Which is the one nearest to their mean. -1 for a label that nothing has.
    """
    points, found = vectors(values), labels(of_labels)
    if len(points) != len(found):
        raise AnalysisError(f"{len(points)} vectors and {len(found)} labels do not pair up")
    rows = np.full(found.max(initial=-1) + 1, -1, dtype=np.int64)
    for number in range(len(rows)):
        members = np.flatnonzero(found == number)
        if members.size:
            offsets = points[members] - points[members].mean(axis=0)
            rows[number] = members[np.einsum("nd,nd->n", offsets, offsets).argmin()]
    return rows


def _kmeans(points: Array, num_clusters: int, seed: int) -> Labels:
    from sklearn.cluster import KMeans

    found: Labels = KMeans(num_clusters, n_init=10, random_state=seed).fit_predict(points)
    return found


def _without_rests(points: Array, raw: Labels, min_cluster_size: int) -> Labels:
    """Labels without clusters whose members are as far from each other as any points are.

    HDBSCAN parts all points into two at least, so beside one text that is said again and again it calls what
    is scattered around it a cluster, too. Measured by mean squared distances of distinct points. What is
    left of such a cluster are points that are there `min_cluster_size` times, each a cluster.
    """
    anywhere = _mean_square(points)
    _, place, counts = np.unique(points, axis=0, return_inverse=True, return_counts=True)
    place = place.reshape(-1)
    kept = raw.copy()
    for label in np.unique(raw[raw != OUTLIER]):
        members = raw == label
        if _mean_square(points[members]) > SCATTERED * anywhere:
            is_heap = counts[place[members]] >= min_cluster_size
            kept[members] = np.where(is_heap, len(raw) + place[members], OUTLIER)
    return kept


def _mean_square(points: Array) -> float:
    """Mean squared distance of distinct points; 0 of a single one."""
    distinct = np.unique(points, axis=0)
    return 2 * float(((distinct - distinct.mean(axis=0)) ** 2).sum()) / max(len(distinct) - 1, 1)


def _described(points: Array, raw: Labels, method: str) -> Clustering:
    names, counts = np.unique(raw[raw != OUTLIER], return_counts=True)
    order = np.argsort(-counts, kind="stable")
    renamed = np.full(len(raw), OUTLIER, dtype=np.int64)
    for new, old in enumerate(names[order]):
        renamed[raw == old] = new
    return Clustering(
        labels=renamed,
        medoids=medoids(points, renamed),
        sizes=counts[order].astype(np.int64),
        method=method,
    )
