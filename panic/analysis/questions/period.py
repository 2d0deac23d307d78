"""Does it come round? Periods of runs that are not stuck, beside shuffles of their order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from panic.analysis.charts import counted, null_band, outside
from panic.analysis.checks import AnalysisError, unit
from panic.analysis.dynamics import periodicity, periodicity_of_pairs
from panic.analysis.evidence import Evidence, Statistic, View, by_run, first_model
from panic.analysis.nulls import null_table, shuffled
from panic.analysis.sampling import evenly

TITLE = "Does it come round?"
CAVEAT = (
    "Likeness of outputs k apart, beyond what any two of a run have; its highest peak. 1: always the same "
    "again; 0: chance, or no peak. A run has a period if its peak is 0.5 or more and above what 97.5 % of "
    "random orders of its outputs give, which one in forty is by chance. Of a run, its first 400 outputs. "
    "Runs that are stuck are left out: their period is known. Runs that met count once. A period counts "
    "outputs of one kind."
)
BAND = ("height of the highest peak of likeness", "shuffles")
LEAST_OUTPUTS, MOST_OUTPUTS = 12, 400
MAX_RUNS = 24
ROUNDING = 1e-9  # of sums in another order

views = first_model


@dataclass(frozen=True, slots=True, kw_only=True)
class Periods:
    """Heights of the peaks of some runs beside their band, and the periods of those that have one.

    Periods count outputs of the modality. num_runs: all that are neither stuck nor copies, of which the band
    has some.
    """

    band: pl.DataFrame
    periods: pl.DataFrame
    num_runs: int
    modality: str


def table(evidence: Evidence, view: View) -> Periods:
    """Runs that are not stuck. AnalysisError where none of them is long enough."""
    stuck = set(evidence.data.runs.filter(pl.col("period").is_not_null())["run"])
    paths = evidence.paths(view, least=LEAST_OUTPUTS)
    runs = [(run, points[:MOST_OUTPUTS]) for run, points in paths if run not in stuck]
    if not runs:
        raise AnalysisError(f"no run that is not stuck has {LEAST_OUTPUTS} {view.modality} vectors")
    chosen = evenly(runs, MAX_RUNS)
    pairs = [(run, _likeness(points)) for run, points in chosen]
    band = null_table(pairs, _peak, _in_random_order, max_runs=MAX_RUNS)
    beyond = set(band.filter(pl.col("value") > pl.col("high") + ROUNDING)["run"])
    found = [(run, periodicity(points).period) for run, points in chosen if run in beyond]
    periods = pl.DataFrame(found, {"run": pl.Int64, "period": pl.Int64}, orient="row").drop_nulls()
    return Periods(band=band, periods=periods, num_runs=len(runs), modality=view.modality)


def _likeness(points: Any) -> Any:
    """Cosines of all pairs of outputs (n, d): (n, n)."""
    directions = unit(points)
    return directions @ directions.T


def _in_random_order(likeness: Any, rng: np.random.Generator) -> Any:
    order = shuffled(np.arange(len(likeness)), rng)
    return likeness[np.ix_(order, order)]


def _peak(likeness: Any) -> float:
    """The height of the highest peak; 0 where there is none."""
    score = periodicity_of_pairs(likeness).score
    return score if score == score else 0.0


STATISTIC = Statistic(
    what="likeness at the best lag (1 = always equal)",
    of=by_run(lambda points: _peak(_likeness(points)), least=LEAST_OUTPUTS, most=MOST_OUTPUTS),
)


def chart(answer: Periods) -> Any:
    """Heights of peaks beside where those of shuffles lie."""
    return null_band(answer.band, value_title="likeness at the best lag (1 = always equal)")


def sentence(answer: Periods) -> str:
    """How many runs have a period, which is the most common, and whether that is more than chance."""
    tested = f"{len(answer.band):,}"
    if len(answer.band) < answer.num_runs:
        tested += f" (of {answer.num_runs:,}, evenly chosen)"
    text = f"{len(answer.periods):,} of {tested} runs that are not stuck have a period"
    if answer.num_runs == 1:
        text = f"The one run that is not stuck has {'a' if len(answer.periods) else 'no'} period"
    if len(answer.periods):
        counts = answer.periods.group_by("period").len().sort(["len", "period"], descending=[True, False])
        period, times = counts.row(0)
        often = f", most often of {counted(period, answer.modality)} ({counted(times, 'run')})"
        text += often if answer.num_runs > 1 else f" of {counted(period, answer.modality)}"
    return f"{text}. {outside(answer.band, BAND)}"
