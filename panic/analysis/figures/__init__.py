"""The figures of a report: charts with a sentence on what they show and one on what they do not.

One module per question; `all_figures` calls them in the order of the page. A figure that cannot be drawn
says why, in the words of whatever refused.

    all_figures(Material.of(store, reading.experiment(store, "latest"), is_over=True))
"""

from __future__ import annotations

from threadpoolctl import threadpool_limits

from panic.analysis.figures import groups, motion, shape, states, work
from panic.analysis.figures.figure import Figure, Material

__all__ = ["Figure", "Material", "all_figures"]


def all_figures(material: Material) -> list[Figure]:
    """Work, pictures, motion, states, shapes and groups; what nobody asked for is left out."""
    makers = (
        work.time_figure,
        work.stuck_figure,
        work.grid_figure,
        motion.drift_figures,
        motion.lag_figures,
        motion.twin_figures,
        states.map_figures,
        states.cluster_figures,
        states.recurrence_figure,
        shape.diagram_figures,
        shape.loop_figures,
        groups.effect_figures,
        groups.probe_figures,
        groups.share_figures,
    )
    found: list[Figure] = []
    # Many small problems: threads of linear algebra wait for each other longer than they work.
    with threadpool_limits(1):
        for make in makers:
            found += make(material)
    return found
