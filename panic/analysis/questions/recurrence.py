"""Has it been here before? Where runs say and draw exactly the same again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import altair as alt
import numpy as np
import polars as pl
from numpy.typing import NDArray

from panic.analysis import dynamics
from panic.analysis.charts import CALL, SQUARE, STEPS, call_axis, call_tip, data, finish
from panic.analysis.data import ExperimentData
from panic.analysis.evidence import Evidence, View, once
from panic.analysis.questions.novelty import visits
from panic.analysis.sampling import spread
from panic.analysis.whereabouts import continued
from panic.store.records import RunRow

TITLE = "Has it been here before?"
CAVEAT = (
    "Exactly the same text or picture, not a similar one. Stored outputs of whole runs are counted; of "
    "some runs the last outputs are drawn, those with fresh noise first, if any come again. A stuck run is "
    "drawn on for as long again as it was computed, for its future is known."
)
MAX_PLOTS = 6
MAX_SIDE = 100  # outputs of a plot
SAID = {"text": ("say", "texts"), "image": ("draw", "pictures")}

views = once


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """Which outputs of a run, at steps (first, first + stride, ...), recur (n, n), and counts of that."""

    label: str
    matrix: NDArray[np.bool_]
    counts: dynamics.Recurrence
    stride: int
    first: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Recurrences:
    """Plots of some runs, and of all that are not stuck the shares of repeats: run, modality, share.

    num_stuck: how many are stuck. num_begun: runs of the experiment that have begun.
    """

    plots: list[Plot]
    shares: pl.DataFrame
    num_stuck: int
    num_begun: int


def table(evidence: Evidence, view: View | None = None) -> Recurrences | None:
    """Texts as well as images; None where no run is long enough."""
    begun = [run for run in evidence.data.rows if run.num_steps > 3]
    modalities = [name for name in SAID if name in set(evidence.data.invocations["modality"].cast(pl.String))]
    fresh, other = ([run for run in begun if (run.seed == -1) == is_fresh] for is_fresh in (True, False))
    limit = MAX_PLOTS // max(len(modalities), 1)
    chosen = spread(fresh, limit)
    chosen += spread(other, limit - len(chosen))
    found = [plot(evidence.data, run, modality=name) for run in chosen for name in modalities]
    plots = [one for one in found if one is not None]
    if not plots:
        return None
    moving = [run.id for run in begun if run.period is None]
    shares = (
        visits(evidence.data)
        .filter(pl.col("run").is_in(moving))
        .group_by("run", "modality", maintain_order=True)
        .agg(share=pl.col("is_back").mean())
    )
    return Recurrences(
        plots=plots,
        shares=shares,
        num_stuck=sum(run.period is not None for run in evidence.data.rows),
        num_begun=evidence.num_begun,
    )


def plot(
    data: ExperimentData, run: RunRow, max_side: int = MAX_SIDE, *, modality: str = "text"
) -> Plot | None:
    """The last `max_side` outputs of a modality of a run; None below two.

    A stuck run goes on for as long again as it was computed.
    """
    stored = data.invocations.filter(pl.col("run") == run.id)
    steps = continued(stored, data.runs, limit=2 * run.num_steps)
    one = steps.filter(pl.col("modality").cast(pl.String) == modality)
    if len(one) < 2:
        return None
    one = one.tail(max_side)
    symbols = one["output"].to_numpy()
    kind = "fresh noise" if run.seed == -1 else f"seed {run.seed}"
    return Plot(
        label=f"{SAID[modality][1]} of run {run.id}, {kind}{', stuck' if run.period is not None else ''}",
        matrix=dynamics.recurrence_matrix(symbols),
        counts=dynamics.recurrence(symbols),
        stride=int(one["step"].diff().drop_nulls().min() or 1),  # type: ignore[arg-type]
        first=int(one["step"][0]),
    )


def chart(answer: Recurrences) -> dict[str, Any]:
    """One plot per run and modality in which anything comes again: others are a bare diagonal."""
    return {
        plot.label: recurrence_plot(plot.matrix, plot.label, stride=plot.stride, first=plot.first)
        for plot in answer.plots
        if np.count_nonzero(plot.matrix) > len(plot.matrix)
    }


def sentence(answer: Recurrences) -> str:
    """How many runs make something again, and which share of their outputs that is."""
    parts = []
    for (modality,), rows in answer.shares.sort("modality", descending=True).group_by(
        "modality", maintain_order=True
    ):
        verb, noun = SAID[str(modality)]
        back = int((rows["share"] > 0).sum())
        share = float(rows["share"].median() or 0.0)  # type: ignore[arg-type]
        if len(rows) == 1:
            again = f"{verb}s again what it has made before: {share:.0%} of its {noun}"
            parts.append(f"The one run that is not stuck {again if back else f'{verb}s nothing twice'}")
            continue
        parts.append(
            f"{back:,} of {len(rows):,} runs that are not stuck {verb} again what they have made before; in "
            f"the median run that is {share:.0%} of its {noun}"
        )
    if answer.num_stuck:
        repeat = "run repeats itself" if answer.num_stuck == 1 else "runs repeat themselves"
        parts.append(f"{answer.num_stuck:,} stuck {repeat} for good")
    num_runs = answer.shares["run"].n_unique() + answer.num_stuck
    some = f" This is of {num_runs:,} of {answer.num_begun:,} runs." if num_runs < answer.num_begun else ""
    return f"{'. '.join(parts)}.{some}"


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
            x=call_axis("i", scale=scale),
            x2="i2:Q",
            y=alt.Y("j:Q", title=CALL, scale=scale, axis=STEPS),
            y2="j2:Q",
            tooltip=[call_tip("i"), call_tip("j", "is like model call")],
        )
    )
    caption = "Filled: the same again. Diagonals: a path repeats. Blocks: it stays."
    return finish(chart, title, caption, width=SQUARE, height=SQUARE)
