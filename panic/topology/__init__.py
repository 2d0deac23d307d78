"""Persistence diagrams of point clouds, and what can be said about them.

from panic.topology import diagram, entropy
diagram(points, max_dimension=1).bars(1)     # (m, 2)
"""

from __future__ import annotations

from panic.topology.diagram import Diagram, diagram, entropy, estimate_bytes
from panic.topology.distances import METRICS, TopologyError, distinct_points, pairwise

__all__ = [
    "METRICS",
    "Diagram",
    "TopologyError",
    "diagram",
    "distinct_points",
    "entropy",
    "estimate_bytes",
    "pairwise",
]
