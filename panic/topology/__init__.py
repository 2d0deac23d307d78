"""Persistence diagrams of point clouds, and what can be said about them.

from panic.topology import bottleneck, diagram, entropy
diagram(points, max_dimension=1).bars(1)     # (m, 2)
"""

from __future__ import annotations

from panic.topology.annotation import prepare
from panic.topology.budget import Budget, Estimate, estimate, estimate_bytes
from panic.topology.clouds import landmarks, sliding_window
from panic.topology.diagram import Diagram, diagram, diagrams, entropy
from panic.topology.distances import METRICS, TopologyError, distinct_points, pairwise
from panic.topology.matching import bottleneck, distance_matrix, distances_to, wasserstein
from panic.topology.settings import asked
from panic.topology.vectors import betti_curve, landscape, persistence_image, silhouette, vectorise

__all__ = [
    "METRICS",
    "Budget",
    "Diagram",
    "Estimate",
    "TopologyError",
    "asked",
    "betti_curve",
    "bottleneck",
    "diagram",
    "diagrams",
    "distance_matrix",
    "distances_to",
    "distinct_points",
    "entropy",
    "estimate",
    "estimate_bytes",
    "landmarks",
    "landscape",
    "pairwise",
    "persistence_image",
    "prepare",
    "silhouette",
    "sliding_window",
    "vectorise",
    "wasserstein",
]
