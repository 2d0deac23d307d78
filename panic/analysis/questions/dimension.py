"""How many dimensions do the outputs of a run fill? TwoNN estimates beside walks with the run's own steps."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from panic.analysis.charts import null_band, outside
from panic.analysis.checks import AnalysisError
from panic.analysis.dynamics import intrinsic_dimension
from panic.analysis.evidence import Evidence, Statistic, View, by_run, first_model
from panic.analysis.nulls import matched_walk, null_table

TITLE = "How many dimensions its outputs fill"
CAVEAT = (
    "Estimated from the distances to the two nearest neighbours (TwoNN); copies count once, and above about "
    "10 dimensions it is too low. Each walk has the run's own angles from output to output and distances "
    "from its start. One run in forty is above its band by chance, another one below."
)
BAND = ("intrinsic dimension", "walks")
LEAST_OUTPUTS = 20  # distinct ones; the estimate of fewer says little

views = first_model


def _dimension(points: Any) -> float:
    """NaN of runs that have too few distinct outputs."""
    return intrinsic_dimension(points) if len(np.unique(points, axis=0)) >= LEAST_OUTPUTS else np.nan


STATISTIC = Statistic(what="intrinsic dimension (TwoNN)", of=by_run(_dimension, least=LEAST_OUTPUTS))


def table(evidence: Evidence, view: View) -> pl.DataFrame:
    """Estimates of some runs beside their band. AnalysisError where no run has enough distinct outputs."""
    paths = evidence.directions(view, least=LEAST_OUTPUTS)
    runs = [(run, points) for run, points in paths if len(np.unique(points, axis=0)) >= LEAST_OUTPUTS]
    if not runs:
        raise AnalysisError(f"no run has {LEAST_OUTPUTS} distinct {view.modality}s")
    return null_table(runs, intrinsic_dimension, matched_walk)


def chart(band: pl.DataFrame) -> Any:
    """Dimensions beside where those of walks lie."""
    return null_band(band, value_title="intrinsic dimension (TwoNN)")


def sentence(band: pl.DataFrame) -> str:
    """The median, and how many runs leave their band at either side."""
    typical = float(band["value"].median() or 0.0)  # type: ignore[arg-type]
    text = f"The outputs of half of {len(band)} runs fill {typical:.2g} dimensions or more."
    if len(band) == 1:
        text = f"The outputs of the one run fill {typical:.2g} dimensions."
    return f"{text} {outside(band, BAND)}"
