"""Does it come round? Periods of runs that are not stuck, beside shuffles of their order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import polars as pl

from panic.analysis.charts import null_band, outside
from panic.analysis.checks import AnalysisError
from panic.analysis.dynamics import periodicity
from panic.analysis.evidence import Evidence, Statistic, View, by_run, first_model
from panic.analysis.nulls import null_table, shuffled

TITLE = "Does it come round?"
CAVEAT = (
    "Likeness of outputs k apart, beyond what any two of a run have; its highest peak. 1: always the same "
    "again; 0: chance. Runs that are stuck are left out: their period is known. A period counts outputs of "
    "one kind. One run in forty is above its band by chance, another one below."
)
BAND = ("height of the highest peak of likeness", "shuffles")
LEAST_OUTPUTS = 12

views = first_model


def _peak(points: Any) -> float:
    """The height of the highest peak; 0 where there is none."""
    score = periodicity(points).score
    return score if score == score else 0.0


STATISTIC = Statistic(
    what="likeness at the best lag (1 = always equal)", of=by_run(_peak, least=LEAST_OUTPUTS)
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Periods:
    """Heights of the peaks of some runs beside their band, and the periods (outputs) of all that have one."""

    band: pl.DataFrame
    periods: pl.DataFrame
    num_runs: int


def table(evidence: Evidence, view: View) -> Periods:
    """Runs that are not stuck. AnalysisError where none of them is long enough."""
    stuck = set(evidence.data.runs.filter(pl.col("period").is_not_null())["run"])
    paths = evidence.data.trajectories(*view, least=LEAST_OUTPUTS)
    runs = [(run, points) for run, points in paths if run not in stuck]
    if not runs:
        raise AnalysisError(f"no run that is not stuck has {LEAST_OUTPUTS} {view.modality} vectors")
    found = [(run, periodicity(points).period) for run, points in runs]
    periods = pl.DataFrame(found, {"run": pl.Int64, "period": pl.Int64}, orient="row").drop_nulls()
    return Periods(band=null_table(runs, _peak, shuffled), periods=periods, num_runs=len(runs))


def chart(answer: Periods) -> Any:
    """Heights of peaks beside where those of shuffles lie."""
    return null_band(answer.band, value_title="likeness at the best lag (1 = always equal)")


def sentence(answer: Periods) -> str:
    """How many runs have a period, which is the most common, and whether that is more than chance."""
    text = f"{len(answer.periods):,} of {answer.num_runs:,} runs that are not stuck have a period"
    if len(answer.periods):
        counts = answer.periods.group_by("period").len().sort(["len", "period"], descending=[True, False])
        period, times = counts.row(0)
        outputs = "output" if period == 1 else "outputs"
        text += f", most often of {period} {outputs} ({times:,} run{'s' if times != 1 else ''})"
    return f"{text}. {outside(answer.band, BAND)}"
