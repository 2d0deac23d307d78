"""The diagram that settings of a config ask for, of a run's vectors.

found = asked(vectors, DiagramSettings(max_dimension=1, window={"dimension": 3}))
"""

from __future__ import annotations

from numpy.typing import ArrayLike

from panic.config import DiagramSettings
from panic.topology.budget import Budget
from panic.topology.clouds import sliding_window
from panic.topology.diagram import Diagram, diagram


def asked(vectors: ArrayLike, settings: DiagramSettings, budget: Budget | None = None) -> Diagram:
    """Compute the diagram of a run's vectors (n, d), or of their windows.

    Raises TopologyError for a run shorter than one window, and for a cloud that is beyond the budget.
    """
    window = settings.window
    return diagram(
        vectors if window is None else sliding_window(vectors, window.dimension, window.delay),
        max_dimension=settings.max_dimension,
        metric=settings.metric,
        threshold=settings.threshold or float("inf"),
        landmarks=settings.landmarks,
        generators=settings.generators,
        budget=budget,
    )
