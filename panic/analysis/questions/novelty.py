"""Does it still make new things? Outputs that are new to their run, by stretch, and shared by runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import altair as alt
import polars as pl

from panic.analysis.charts import CALL, call_axis, colour, counted, data, finish, in_order, names_of
from panic.analysis.data import ExperimentData
from panic.analysis.dynamics import first_visits
from panic.analysis.evidence import Evidence, View, once
from panic.analysis.whereabouts import continued

TITLE = "Does it still make new things?"
CAVEAT = (
    "Exactly the same output, not a similar one. A stuck run goes on by its cycle, in which nothing "
    "is new; a failed one is nowhere after its failure, so late stretches speak for runs that went so far."
)
VISITS = {
    "run": pl.Int64,
    "step": pl.Int64,
    "modality": pl.String,
    "output": pl.Int64,
    "first_step": pl.Int64,
    "is_back": pl.Boolean,
    "num_runs": pl.Int64,
}
NUM_STRETCHES = 8

views = once


@dataclass(frozen=True, slots=True, kw_only=True)
class Novelty:
    """Shares of new outputs of a modality: network, stretch, until, share, num_runs; how many are shared.

    num_outputs: distinct outputs, of which num_shared are made by more than one of num_runs runs.
    """

    shares: pl.DataFrame
    modality: str
    num_outputs: int
    num_shared: int
    num_runs: int


def table(evidence: Evidence, view: View | None = None) -> list[Novelty] | None:
    """Texts and images, each if there are any; None before the first step."""
    found = [_novelty(evidence.data, modality) for modality in ("text", "image")]
    return [one for one in found if one is not None] or None


def _novelty(data: ExperimentData, modality: str) -> Novelty | None:
    found = visits(data, modality)
    if found.is_empty():
        return None
    all_steps = continued(found.select("run", "step", "is_back"), data.runs)
    first, last = int(all_steps["step"].min()), int(all_steps["step"].max())  # type: ignore[arg-type]
    size = max(1, -(-(last - first + 1) // NUM_STRETCHES))
    shares = (
        all_steps.join(data.runs.select("run", "network", "num_steps"), on="run", maintain_order="left")
        .with_columns(
            stretch=(pl.col("step") - first) // size,
            is_back=pl.col("is_back") | (pl.col("step") >= pl.col("num_steps")),
        )
        .group_by("network", "stretch", maintain_order=True)
        .agg(share=1 - pl.col("is_back").mean(), num_runs=pl.col("run").n_unique().cast(pl.Int64))
        .with_columns(until=(first + (pl.col("stretch") + 1) * size - 1).clip(upper_bound=last))
    )
    shares = in_order(shares, "network", "stretch")
    outputs = found.unique("output")
    return Novelty(
        shares=shares,
        modality=modality,
        num_outputs=len(outputs),
        num_shared=int((outputs["num_runs"] > 1).sum()),
        num_runs=found["run"].n_unique(),
    )


def visits(data: ExperimentData, modality: str | None = None) -> pl.DataFrame:
    """One row per step: run, step, modality, output, first_step, is_back, num_runs.

    `first_step` is the step at which the run made this output first, `is_back` whether that was earlier;
    `num_runs` counts the runs among these that ever make it. Prompts count as nothing.
    """
    steps = data.invocations
    steps = steps if modality is None else steps.filter(pl.col("modality") == modality)
    parts = [pl.DataFrame(schema={"run": pl.Int64, "step": pl.Int64, "first_step": pl.Int64})]
    for _, rows in steps.group_by("run", maintain_order=True):
        first = rows["step"].to_numpy()[first_visits(rows["output"].to_numpy())]
        parts.append(rows.select("run", "step", first_step=pl.Series(first, dtype=pl.Int64)))
    found = steps.join(pl.concat(parts), on=["run", "step"], maintain_order="left").with_columns(
        pl.col("modality").cast(pl.String),
        is_back=pl.col("first_step") < pl.col("step"),
        num_runs=pl.col("run").n_unique().over("output").cast(pl.Int64),
    )
    return found.select(*VISITS).cast({name: kind for name, kind in VISITS.items() if name != "modality"})


def chart(answer: list[Novelty]) -> dict[str, Any]:
    """One chart per modality: the share of outputs that are new to their run, by stretch and network."""
    return {f"{one.modality}s": _chart(one) for one in answer}


def _chart(answer: Novelty) -> Any:
    networks = names_of(answer.shares, "network")
    share = alt.Y("share:Q", axis=alt.Axis(format="%"), scale=alt.Scale(domain=[0, 1.02], nice=False))
    x = call_axis("until", f"end of the stretch: {CALL}")
    encoded = alt.Chart(data(answer.shares)).encode(
        x=x,
        y=share.title(f"{answer.modality}s that are new to their run"),
        color=colour("network", networks),
        tooltip=[alt.Tooltip("network:N"), alt.Tooltip("share:Q", format=".1%"), alt.Tooltip("num_runs:Q")],
    )
    marks = encoded.mark_line(strokeWidth=2.2, point=alt.OverlayMarkDef(size=50))
    caption = f"Of {counted(answer.num_runs, 'run')}. 0 %: it only repeats what it has made before."
    return finish(marks, f"{answer.modality}s", caption)


def sentence(answer: list[Novelty]) -> str:
    """Early and late shares by network, and how much is shared between runs, for every modality."""
    return " ".join(_said(one) for one in answer)


def _said(answer: Novelty) -> str:
    rows = answer.shares.group_by("network", maintain_order=True).agg(
        early=pl.col("share").first(), late=pl.col("share").last(), num_runs=pl.col("num_runs").last()
    )
    parts = [
        f"{row['network']} {row['early']:.0%} early and {row['late']:.0%} late "
        f"({row['num_runs']:,} run{'s' if row['num_runs'] != 1 else ''} late)"
        for row in rows.head(4).iter_rows(named=True)
    ]
    more = f"; and {len(rows) - 4} more" if len(rows) > 4 else ""
    text = f"Share of {answer.modality}s that are new to their run: {'; '.join(parts)}{more}."
    if answer.num_runs == 1:
        return f"{text} The one run made {counted(answer.num_outputs, f'different {answer.modality}')}."
    return (
        f"{text} {answer.num_shared:,} of {counted(answer.num_outputs, f'distinct {answer.modality}')} "
        f"{'is' if answer.num_shared == 1 else 'are'} made by more than one of {answer.num_runs:,} runs."
    )
