"""Has it been here before? Where runs say or draw exactly the same again."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import Any

import altair as alt
import numpy as np
import polars as pl
from numpy.typing import NDArray

from panic.analysis import dynamics
from panic.analysis.charts import SQUARE, data, finish
from panic.analysis.data import ExperimentData
from panic.analysis.evidence import Evidence, View, once
from panic.analysis.sampling import spread
from panic.analysis.whereabouts import continued
from panic.store.records import RunRow

TITLE = "Has it been here before?"
CAVEAT = (
    "Exactly the same text or picture, not a similar one. A stuck run is drawn on for as long again as it"
    " was computed, for its future is known; the shares are of what is drawn."
)
MAX_RUNS = 6
MAX_SIDE = 100  # steps of a plot
STEPS = alt.Axis(grid=False, tickMinStep=1)

views = once


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """Which steps (first, first + stride, ...) of a run recur (n, n), and what can be counted of that."""

    label: str
    matrix: NDArray[np.bool_]
    counts: dynamics.Recurrence
    stride: int
    first: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Recurrences:
    """Plots of some runs, of all that have more than three steps."""

    plots: list[Plot]
    num_runs: int


def table(evidence: Evidence, view: View | None = None) -> Recurrences | None:
    """Some runs, of every network and prompt; None where no run is long enough."""
    begun = [run for run in evidence.whole.rows if run.num_steps > 3]
    plots = [plot(evidence.data, run) for run in spread(begun, MAX_RUNS)]
    found = [one for one in plots if one is not None]
    return Recurrences(plots=found, num_runs=len(begun)) if found else None


def plot(data: ExperimentData, run: RunRow, max_side: int = MAX_SIDE) -> Plot | None:
    """The last `max_side` texts of a run, or its images where there are none; None below two outputs.

    A stuck run goes on for as long again as it was computed.
    """
    stored = data.invocations.filter(pl.col("run") == run.id)
    steps = continued(stored, data.runs, limit=2 * run.num_steps)
    one = steps.filter(pl.col("modality").cast(pl.String) == "text")
    one = one if len(one) > 1 else steps
    if len(one) < 2:
        return None
    one = one.tail(max_side)
    symbols = one["output"].to_numpy()
    kind = "fresh noise" if run.seed == -1 else f"seed {run.seed}"
    return Plot(
        label=f"run {run.id}, {kind}{', stuck' if run.period is not None else ''}",
        matrix=dynamics.recurrence_matrix(symbols),
        counts=dynamics.recurrence(symbols),
        stride=int(one["step"].diff().drop_nulls().min() or 1),  # type: ignore[arg-type]
        first=int(one["step"][0]),
    )


def chart(answer: Recurrences) -> dict[str, Any]:
    """One plot per run."""
    return {
        plot.label: recurrence_plot(plot.matrix, plot.label, stride=plot.stride, first=plot.first)
        for plot in answer.plots
    }


def sentence(answer: Recurrences) -> str:
    """How often outputs come back."""
    rates = [plot.counts.rate for plot in answer.plots]
    back = sum(rate > 0 for rate in rates)
    return (
        f"{back} of the {len(rates)} runs shown (of {answer.num_runs:,}) say or draw something again; "
        f"in the median {median(rates):.0%} of the pairs of steps are equal."
    )


def recurrence_plot(
    matrix: NDArray[np.bool_], title: str = "Recurrences", *, stride: int = 1, first: int = 0
) -> Any:
    """A dot wherever step i is like step j; `matrix` (n, n) of `dynamics.recurrence_matrix`.

    `first` and `stride` say which step of the run a row is: an alternating loop has a text at every second.
    """
    rows, columns = np.nonzero(np.asarray(matrix))
    frame = pl.DataFrame(
        {
            "i": first + stride * rows,
            "i2": first + stride * (rows + 1),
            "j": first + stride * columns,
            "j2": first + stride * (columns + 1),
        }
    )
    scale = alt.Scale(domain=[first, first + stride * len(matrix)], nice=False)
    chart = (
        alt.Chart(data(frame))
        .mark_rect(fill="#0072B2", stroke="#0072B2", strokeWidth=0.5)
        .encode(
            x=alt.X("i:Q", title="step", scale=scale, axis=STEPS),
            x2="i2:Q",
            y=alt.Y("j:Q", title="step", scale=scale, axis=STEPS),
            y2="j2:Q",
            tooltip=[alt.Tooltip("i:Q", title="step"), alt.Tooltip("j:Q", title="is like step")],
        )
    )
    caption = "Filled: the same again. Diagonals: a path repeats. Blocks: it stays."
    return finish(chart, title, caption, width=SQUARE, height=SQUARE)
