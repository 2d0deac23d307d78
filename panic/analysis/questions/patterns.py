"""Is there an order in how far it moves? Permutation entropy of distances, beside shuffles of their order."""

from __future__ import annotations

from typing import Any

import polars as pl

from panic.analysis.charts import null_band, outside
from panic.analysis.checks import AnalysisError
from panic.analysis.dynamics import permutation_entropy, step_sizes
from panic.analysis.evidence import Evidence, Statistic, View, by_run, first_model
from panic.analysis.nulls import null_table, shuffled

TITLE = "Is there an order in how far it moves from output to output?"
CAVEAT = (
    "Entropy of the order of three moves in a row, each from an output to the next of its kind: 1 without "
    "any order, less where far and near moves follow a rule. Moves of equal size rank in their order of "
    "time, so a run that repeats itself is low for that alone. A stuck run counts up to where it got stuck. "
    "One run in forty is below its band by chance, another one above."
)
BAND = ("permutation entropy of the moves", "shuffles")
LEAST_OUTPUTS = 12

views = first_model


def _entropy(points: Any) -> float:
    return permutation_entropy(step_sizes(points), normalised=True)


STATISTIC = Statistic(
    what="permutation entropy of moves (order 3, 1 = no order)", of=by_run(_entropy, least=LEAST_OUTPUTS)
)


def table(evidence: Evidence, view: View) -> pl.DataFrame:
    """Permutation entropies of some runs beside their band. AnalysisError where no run is long enough."""
    runs = [(run, step_sizes(points)) for run, points in evidence.paths(view, least=LEAST_OUTPUTS)]
    if not runs:
        raise AnalysisError(f"no run has {LEAST_OUTPUTS} {view.modality} vectors of {view.model}")
    return null_table(runs, lambda sizes: permutation_entropy(sizes, normalised=True), shuffled)


def chart(band: pl.DataFrame) -> Any:
    """Entropies beside where those of shuffled steps lie."""
    return null_band(band, value_title="permutation entropy of moves (order 3, 1 = no order)")


def sentence(band: pl.DataFrame) -> str:
    """How many runs leave their band at either side."""
    return outside(band, BAND)
