"""Is the longest loop more than chance? Some runs against random walks with their own steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl

from panic.analysis.charts import null_band, outside
from panic.analysis.evidence import Evidence, Statistic, View, first_model
from panic.analysis.nulls import matched_walk, null_table
from panic.analysis.questions.entropies import entropies
from panic.topology import diagram

TITLE = "Longest loops against random walks"
CAVEAT = (
    "Each walk has the run's own angles from output to output and distances from its start, and otherwise no "
    "direction; it comes back to no place exactly. One run in forty is above its band by chance, another one "
    "below."
)
BAND = ("longest loop", "walks")


def views(evidence: Evidence) -> Sequence[View | None]:
    """The first embedding model, where diagrams are asked for."""
    return first_model(evidence) if evidence.experiment.config.get("diagrams") else []


def _longest(evidence: Evidence, view: View) -> pl.DataFrame:
    """The longest H1 bar of every run's stored diagram."""
    of_loops = entropies(evidence.data, view.model).filter(pl.col("dimension") == 1)
    return of_loops.select("run", value="longest")


STATISTIC = Statistic(what="length of the longest H1 bar (in the metric of the diagrams)", of=_longest)


def table(evidence: Evidence, view: View) -> pl.DataFrame:
    """Longest H1 bars of some runs beside their band. AnalysisError where no run is long enough."""
    return against_walks(evidence, view)


def against_walks(evidence: Evidence, view: View, **limits: int) -> pl.DataFrame:
    """Length of every run's longest H1 bar against walks with its own steps; `limits` as for `null_table`."""

    def longest(points: Any) -> float:
        bars = diagram(points, max_dimension=1).bars(1)
        return float((bars[:, 1] - bars[:, 0]).max()) if len(bars) else 0.0

    return null_table(evidence.directions(view), longest, matched_walk, **limits)


def chart(band: pl.DataFrame) -> Any:
    """Longest loops beside where those of walks lie."""
    return null_band(band, value_title="length of the longest H1 bar (chordal distance)")


def sentence(band: pl.DataFrame) -> str:
    """How many runs leave their band at either side."""
    return outside(band, BAND)
